"""The command line: help, one-line errors with exit 2 and nothing written, sweeps, completion."""

import os
import shlex
import subprocess
import sys
import time

import pytest
from conftest import TINY, settings

from began_cli import __version__, cli
from began_cli.data.sources import _download as REAL_DOWNLOAD


@pytest.mark.parametrize("line", [(), ("--help",), ("-h",)])
def test_help_lists_the_commands(began, line):
    code, out, _ = began(*line)
    assert code == 0
    for command in ("train", "sample", "interpolate", "export"):
        assert f"  {command} " in out


def test_version(began):
    assert began("--version")[1] == f"began {__version__}\n"


BAD = {
    "trian": "no command 'trian' (did you mean train?)",
    "train device=cuda:99": "device=cuda:99",
    "train dataset=ring dataset.device=mps device=cpu": "the run is on device=cpu; use auto or cpu",
    "train dataset=folder dataset.root=nowhere": "dataset.root=nowhere: no such folder",
    "train dataset.fallback=false": "cannot be downloaded",
    "train dataset=fashion_mnist": "cannot be downloaded",
    "train dataset=cifar10": "cannot be downloaded",
    "train resume=nowhere": "resume=nowhere: no such file",
    "train --frob": "unrecognized arguments: --frob",
    "train -m steps=1,foo": "steps=foo: wants a whole number",
    "train -m steps=1,-1": "steps=-1: wants",
    "train -m --cfg job": "Only one of",
    "train hydra.run.dir=/proc/none/run steps=1": "/proc/none",
    "train hydra.run.dir=/proc/none/r steps=1": "use out=FOLDER or another working directory",
    "train recipe=null": "recipe=null: wants one of avatars, avatars64, cifar10",
    "train -m recipe=mnist,null": "; for none, leave it out",
    "train loss=null": "loss=null: wants one of began, began_paper",
    "sample": "no checkpoint under outputs/",
    "sample ckpt=nowhere": "ckpt=nowhere: no such file",
    "sample ckpt=.": "ckpt=.: no checkpoint in that folder",
    "sample 'ckpt=a b'": "ckpt=a b",
    "train dataset.root=2024_01 dataset=folder": "dataset.root=2024_01: no such folder",
    "train dataset=folder 'dataset.root=photos (2)'": "dataset.root=photos (2): no such folder",
    "train -m out=a,b": "use hydra.sweep.dir",
    "interpolate rows=2 seeds=0-2": "rows=2 wants 4 seeds",
    "interpolate seeds=0-2": "a path goes between two, and there are 3",
    "interpolate path=loop seeds=4": "goes through two or more, and there is 1",
    "interpolate path=traverse seeds=0-1": "starts from one, and there are 2",
    "export ckpt=nowhere": "ckpt=nowhere: no such file",
    "sample ckpt=nowhere.safetensors": "ckpt=nowhere.safetensors: no such file",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_exit_2_and_writes_nothing(refusal, line):
    assert BAD[line] in refusal(line)


def test_a_failed_download_leaves_no_folders(tmp_path, monkeypatch):
    from began_cli.data import sources

    def refuse(root, download):
        (tmp_path / "a" / "b" / "MNIST" / "raw").mkdir(parents=True)
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.MNIST", refuse)
    with pytest.raises(sources._NotThereError, match="no network"):
        REAL_DOWNLOAD("MNIST", tmp_path / "a" / "b", glance=False)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_does_not_end_the_run(digits, tmp_path):
    line = f"steps=30 log_every=1 dataset.root={digits} hydra.run.dir={tmp_path}/r {' '.join(TINY)}"
    for ending in ("| head -2", "> /dev/full"):
        command = f"{sys.executable} -m began_cli train {line} {ending}"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert list((tmp_path / "r" / "checkpoints").glob("step-00000030.pt"))
        (tmp_path / "r").rename(tmp_path / f"done-{len(ending)}")
    command = f"{sys.executable} -m began_cli --help | true"
    assert subprocess.run(["bash", "-c", command], capture_output=True).stderr == b""


def test_flags_and_settings_in_any_order(began):
    _, first, _ = began("train", "steps=7", "--cfg", "job", "seed=3")
    _, second, _ = began("train", "--cfg", "job", "seed=3", "steps=7")
    assert first == second
    assert "steps: 7" in first


@pytest.mark.parametrize(("typed", "steps"), [("1e3", 1000), ("2.5e3", 2500), ("5", 5)])
def test_whole_floats_are_whole_numbers(began, typed, steps):
    assert f"steps: {steps}\n" in began("train", f"steps={typed}", "--cfg", "job")[1]


def test_a_loss_brings_its_network_and_optimizer_and_the_user_wins(began):
    _, out, _ = began("train", "loss=wgan", "--cfg", "job")
    assert "name: rmsprop" in out
    assert "name: dcgan" in out
    _, out, _ = began("train", "model=began", "optimizer=adam", "loss=wgan", "--cfg", "job")
    assert "name: adam" in out
    assert "name: began" in out


def test_a_recipe_is_whole_settings_and_the_user_wins(began):
    line = ("train", "recipe=faces128", "dataset.root=x", "--cfg", "job")
    out = began(*line)[1]
    for expected in (
        "name: began",
        "name: folder",
        "image_size: 128",
        "skips: true",
        "steps: 450000",
    ):
        assert expected in out
    assert "steps: 7\n" in began(*line, "steps=7")[1]


def test_paths_with_any_letters(began, tiny_run, tmp_path):
    odd = tmp_path / "a=b, c's {x}"
    tiny_run.rename(odd)
    code, out, err = began("sample", f"ckpt={odd}", "n=1")
    assert code == 0, err
    assert "1 image of" in out


def test_sweep_runs_each_combination_and_reports_failures_at_once(began, tmp_path, digits):
    line = [f"dataset.root={digits}", "steps=1", "hydra.sweep.dir=sweep", *TINY]
    code, _, err = began("train", "seed=1,2", "-m", "loss=gan,began", *line)
    assert code == 0, err
    runs = sorted(path.parent.parent.name for path in (tmp_path / "sweep").rglob("step-*.pt"))
    assert len(runs) == 4
    names = {run.rpartition("-")[0] for run in runs}  # without the hash of the fixed settings
    assert names == {f"loss-{loss}_seed-{seed}" for loss in ("gan", "began") for seed in (1, 2)}

    code, _, err = began("train", "-m", "seed=1,3", "loss=gan,began", *line)
    assert code == 0, err
    assert len(list((tmp_path / "sweep").rglob("step-*.pt"))) == 6
    code, _, err = began(
        "train", "-m", f"dataset.root={digits},nowhere", "dataset.fallback=false", "steps=1", *TINY
    )
    assert code == 1
    assert err.count("no MNIST there") == 2  # once at once, once in the last line
    assert len(list((tmp_path / "outputs").rglob("step-*.pt"))) == 1


def test_long_sweeps_have_names_that_fit(began, tmp_path, digits):
    line = [f"dataset.root={digits}", "steps=1", f"disk_full={'continue'}", *TINY]
    line += [f"watch.patience={10**9 + i}" for i in range(1)] + ["loss.log_z_decay=0.123456789"]
    line += ["optimizer.lr=0.00012345678", "optimizer.lr_g=0.0001234", "ema.decay=0.99887766"]
    line += ["schedule=linear", "schedule.start=100000000", "schedule.end=9999999999999"]
    assert began("train", "-m", "seed=1,2", *line)[0] == 0
    runs = [path.parent.parent for path in (tmp_path / "outputs").rglob("step-*.pt")]
    assert len(runs) == 2
    assert {run.name for run in runs} == {"seed-1", "seed-2"}
    assert len(runs[0].parent.name) < 60


def test_a_search_ends_with_the_line_that_trains_its_best_settings(tmp_path, capsys):
    found = tmp_path / "optimization_results.yaml"
    found.write_text("best_params: {optimizer.lr: 0.0002, loss: bgan}\nbest_value: 12.345\n")
    swept = ["optimizer.lr=interval(1e-5,1e-3)", "loss=bgan,gan", "hydra/sweeper=search"]
    fixed = ["dataset.root='my digits'", "+hydra.sweeper.sampler.seed=3", "steps=7"]
    cli._print_best(found, [*swept, *fixed])
    first, line = capsys.readouterr().out.splitlines()
    assert first.startswith("best score: 12.35, with optimizer.lr=0.0002 loss=bgan; ")
    words = shlex.split(line)
    assert words[:2] == ["began", "train"]
    cfg = settings("train", *words[2:])
    assert (cfg.steps, cfg.optimizer.lr, cfg.loss.name) == (7, 0.0002, "bgan")
    assert cfg.dataset.root == "my digits"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("began tr", {"train"}),
        ("began ", {"train", "sample", "interpolate", "export"}),
        ("began train loss=b", {"loss=began", "loss=bgan"}),
        ("began train loss=began loss.ga", {"loss.gamma="}),
        ("began sample forma", {"format="}),
    ],
)
def test_completion(began, monkeypatch, line, expected):
    monkeypatch.setenv("COMP_LINE", line)
    assert expected <= set(began("-sc", "query=bash")[1].split())


def test_completion_can_be_installed(began):
    script = began("-sc", "install=bash")[1]
    assert "complete -o nospace" in script
    assert script.rstrip().endswith("began")


def python(*line: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *line], capture_output=True, text=True, check=True)


@pytest.mark.parametrize("line", [("--help",), ("train", "--cfg", "job"), ("train", "--help")])
def test_help_does_not_import_torch(line):
    code = (
        "import sys; from began_cli import cli; sys.argv = ['began', *{!r}]\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules; assert 'hydra' in sys.modules or 'hydra' not in {!r}"
    )
    python("-c", code.format(list(line), list(line)))


def test_help_takes_less_than_a_third_of_importing_torch():
    def seconds(*line: str) -> float:
        start = time.perf_counter()
        python(*line)
        return time.perf_counter() - start

    seconds("-c", "import torch")  # into the page cache
    helps = min(seconds("-m", "began_cli", "--help") for _ in range(3))
    assert helps < min(seconds("-c", "import torch") for _ in range(3)) / 3


def test_unwritable_output_folder(began, digits, tmp_path, monkeypatch):
    if os.geteuid() == 0:  # root writes anywhere: a file stands in the way instead
        (tmp_path / "locked").write_text("")
    else:
        (tmp_path / "locked").mkdir(mode=0o500)
    run = tmp_path / "locked" / "run"
    code, _, err = began("train", f"dataset.root={digits}", f"hydra.run.dir={run}", "steps=1")
    assert code == 2
    assert err.count("\n") == 1
    assert "locked" in err
