"""Run folders are found, and read however damaged they are."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sweep import run_of

from began_cli import load_generator
from began_cli.comparison import runs
from began_cli.comparison.records import Run
from began_cli.errors import UserError
from began_cli.generators import checkpoint

CPU = torch.device("cpu")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def change_checkpoint(run, change):
    path = checkpoint.find_all(run)[0]
    state = checkpoint.load(path)
    change(state)
    checkpoint.save(path, state)


def read(folder, n=1):
    return runs.read_run(folder, folder.parent.resolve(), n, CPU)


# --- find -----------------------------------------------------------------------------------------


def touch(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    return folder


def test_runs_are_found_below_a_folder_and_not_inside_each_other(tmp_path, monkeypatch):
    b = touch(tmp_path / "b", "config.yaml")
    a = touch(tmp_path / "deep" / "a", "metrics.jsonl")
    c = touch(tmp_path / "deep" / "c" / "checkpoints", "step-00000001.pt").parent
    touch(b / "inner", "config.yaml")
    touch(tmp_path / ".hidden", "config.yaml")
    touch(tmp_path / "notes", "mine.txt")
    assert runs.find_runs(str(tmp_path)) == [b, a, c]
    assert runs.find_runs(str(b)) == [b]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert runs.find_runs("~/deep") == [a, c]


def test_a_folder_beside_a_run_with_nothing_but_what_a_run_leaves_is_one(tmp_path):
    (tmp_path / "empty" / "samples").mkdir(parents=True)
    touch(tmp_path / "mine", "notes.txt")
    with pytest.raises(UserError, match="no run in that folder"):
        runs.find_runs(str(tmp_path))
    run = touch(tmp_path / "run", "config.yaml")
    assert runs.find_runs(str(tmp_path)) == [tmp_path / "empty", run]


# --- read -----------------------------------------------------------------------------------------


def test_a_run_has_the_settings_that_it_computed_with_and_its_data(sweep):
    folder = run_of(sweep, 0.3, 2)
    run, warnings = read(folder)
    assert warnings == []
    assert (run.name, run.step, run.state, run.seed) == (folder.name, 4, "finished", 2)
    assert (run.settings["loss.gamma"], run.settings["steps"]) == (0.3, 4)
    state = checkpoint.load(checkpoint.find_all(folder)[0])
    assert run.settings["data"] == state["data"]["sha256"][:8]
    assert not {"out", "device", "log_every", "dataset.root"} & set(run.settings)
    logs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert run.last("train/k_t") == logs[-1]["train/k_t"]
    assert [step for step, _ in run.curves["train/k_t"]] == [2, 4]


def test_samples_are_those_of_seeds_0_to_n_minus_1(sweep):
    folder = run_of(sweep, 0.5, 1)
    run, _ = read(folder, n=3)
    assert run.sheet is not None
    sheet = Image.open(io.BytesIO(run.sheet))
    assert sheet.size == run.sheet_size == (2 + 2 * 18, 2 + 2 * 18)  # 2 x 2 images of 16, 2 apart
    generator = load_generator(folder)
    first = generator(generator.latents(range(3)))[2, 0].add(1).mul(127.5).round().numpy()
    np.testing.assert_array_equal(np.asarray(sheet)[20:36, 2:18], first)


def test_a_run_that_goes_on_takes_its_last_step_from_config_yaml(sweep):
    folder = run_of(sweep, 0.3, 1)
    edit(folder / "config.yaml", "steps: 4", "steps: 9000")
    run, _ = read(folder)
    assert (run.settings["steps"], run.status) == (9000, "stopped at step 4 of 9,000")


def test_a_run_without_a_checkpoint_has_the_settings_of_config_yaml(sweep):
    folder = run_of(sweep, 0.3, 1)
    shutil.rmtree(folder / "checkpoints")
    run, warnings = read(folder)
    assert (run.state, run.sheet, warnings) == ("no checkpoint", None, [])
    assert run.settings["loss.gamma"] == 0.3
    (folder / "config.yaml").write_text("a: [")
    assert read(folder)[0].settings == {}


def test_a_damaged_checkpoint_is_named_without_the_way_to_it(sweep):
    folder = run_of(sweep, 0.5, 2)
    checkpoint.find_all(folder)[0].write_bytes(b"PK\x03\x04 no more")
    run, (warning,) = read(folder)
    assert run.status == "failed: no checkpoint of it can be read"
    assert warning.startswith(f"{folder.name}/checkpoints/step-00000004.pt: not a checkpoint")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["config"]["model"].update(width=5),
        lambda state: state["config"]["model"].pop("gain"),
    ],
)
def test_a_checkpoint_of_another_version_has_no_samples(sweep, change):
    folder = run_of(sweep, 0.3, 1)
    change_checkpoint(folder, change)
    run, (warning,) = read(folder)
    assert (run.state, run.sheet) == ("finished", None)
    assert warning.startswith(f"{folder.name}: no samples of it: step-00000004.pt makes no gene")


# --- data -----------------------------------------------------------------------------------------


def of_data(name, data=None):
    settings = {"dataset.name": name} | ({} if data is None else {"data": data})
    return Run(None, name, settings)  # pyright: ignore[reportArgumentType]


def test_data_of_a_run_without_checkpoint_are_those_of_runs_like_it_if_these_agree():
    compared = [of_data("mnist", "aa"), of_data("mnist"), of_data("cifar10")]
    runs.complete_data(compared)
    assert [run.settings["data"] for run in compared] == ["aa", "aa", None]
    compared = [of_data("mnist", "aa"), of_data("mnist", "bb"), of_data("mnist")]
    runs.complete_data(compared)
    assert compared[2].settings["data"] is None
    unknown = Run(compared[0].folder, "x", {})
    runs.complete_data([*compared, unknown])
    assert unknown.settings == {}


def test_different_data_are_a_warning():
    assert runs.check_data([of_data("mnist", "aa"), of_data("mnist", "aa"), of_data("x")]) == []
    (warning,) = runs.check_data([of_data("mnist", "bb"), of_data("mnist", "aa")])
    assert "not trained on the same data (aa, bb)" in warning
