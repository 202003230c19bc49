"""`began compare` from the command line: what it writes, where, and what it says."""

import base64
import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sweep import CNN, GAMMAS, SEEDS, read_table, run_of, write_scores

from began_cli.generators import checkpoint


def read_csv(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "compare.csv").read_text())))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# --- what is written ------------------------------------------------------------------------------


def test_scores_and_last_measures_of_every_run_are_in_the_table(began, sweep):
    fid = {(0.3, 1): 10.125, (0.3, 2): 13.5, (0.5, 1): 7.0, (0.5, 2): 7.75}
    for (gamma, seed), value in fid.items():
        write_scores(run_of(sweep, gamma, seed), fid=value)
        logs = [
            {"step": 2, "images": 8, "train/convergence": 9.0, "train/k_t": 0.5},
            {"step": 4, "images": 16, "train/convergence": gamma + seed, "train/k_t": 0.25},
        ]
        path = run_of(sweep, gamma, seed) / "metrics.jsonl"
        path.write_text("".join(json.dumps(log) + "\n" for log in logs))
    code, out, err = began("compare", f"runs={sweep}")
    assert (code, err) == (0, "")
    assert "4 runs (4 finished)" in out
    rows = read_csv(sweep)
    assert [row["run"] for row in rows] == [run_of(sweep, g, s).name for g, s in sorted(fid)]
    again = {(float(r["loss.gamma"]), int(r["seed"])): float(r[f"fid[{CNN}] N=10"]) for r in rows}
    assert again == fid
    assert [float(row["train/convergence"]) for row in rows] == [1.3, 2.3, 1.5, 2.5]
    page = (sweep / "compare.html").read_text()
    _, head, low, high, _ = read_table(page, "Scores over seeds")
    assert [cell[0] for cell in head[2:]] == ["fid", "M_global", "k_t"]
    assert [low[3][0], low[4][0]] == ["1.8 ± 0.71", "0.25 ± 0"]
    assert high[3][0] == "2 ± 0.71"


def test_two_runs_of_one_seed_count_once(began, sweep):
    shutil.copytree(run_of(sweep, 0.3, 1), sweep / "twin")
    write_scores(run_of(sweep, 0.3, 1), fid=1.0)
    write_scores(run_of(sweep, 0.3, 2), fid=2.0)
    write_scores(sweep / "twin", fid=9.0)
    code, _, err = began("compare", f"runs={sweep}")
    assert code == 0
    assert "gamma-0.3_seed-1 and twin have the same settings and seed" in err
    _, _, low, _, *_ = read_table((sweep / "compare.html").read_text(), "Scores over seeds")
    assert [low[1][0], low[2][0]] == ["2 of 3", "1.5 ± 0.71"]
    assert [row["counted"] for row in read_csv(sweep)] == ["yes", "no", "yes", "yes", "yes"]


def test_failed_unfinished_and_empty_runs_are_shown_as_such(began, sweep):
    edit(run_of(sweep, 0.3, 1) / "config.yaml", "steps: 4", "steps: 9000")
    nan = run_of(sweep, 0.3, 2)
    edit(nan / "config.yaml", "steps: 4", "steps: 9000")
    with (nan / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "images": 24, "train/loss_real": null}\n{"step": 8, "ima')
    watched = run_of(sweep, 0.5, 1)
    state = checkpoint.load(checkpoint.find_all(watched)[0])
    state["config"] |= {"steps": 9000, "watchdog": "stop"}
    checkpoint.save(checkpoint.find_all(watched)[0], state)
    (watched / "config.yaml").unlink()
    with (watched / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "images": 16, "watchdog": "samples <collapsed>"}\n')
    checkpoint.find_all(run_of(sweep, 0.5, 2))[0].write_bytes(b"PK\x03\x04 no more")
    started = sweep / "started"
    started.mkdir()
    shutil.copy(run_of(sweep, 0.3, 1) / "config.yaml", started)
    (sweep / "empty" / "samples").mkdir(parents=True)
    (sweep / "notes").mkdir()
    (sweep / "notes" / "mine.txt").write_text("not a run")

    code, out, err = began("compare", f"runs={sweep}")
    assert code == 0, err
    assert "6 runs (1 stopped, 3 failed, 2 no checkpoint)" in out
    states = {row["run"]: (row["state"], row["status"]) for row in read_csv(sweep)}
    failed = "failed at step 4 of 9,000: "
    assert states == {
        "gamma-0.3_seed-1": ("stopped", "stopped at step 4 of 9,000"),
        "gamma-0.3_seed-2": ("failed", f"{failed}a value was not finite"),
        "gamma-0.5_seed-1": ("failed", f"{failed}step 4: samples <collapsed>"),
        "gamma-0.5_seed-2": ("failed", "failed: no checkpoint of it can be read"),
        "started": ("no checkpoint", "no checkpoint"),
        "empty": ("no checkpoint", "no checkpoint"),
    }
    page = (sweep / "compare.html").read_text()
    shown = {row[-1][0]: row[1][0][2:] for row in read_table(page, "Every run")[2:]}
    assert shown == {name: status for name, (_, status) in states.items()}
    assert "<collapsed>" not in page
    assert page.count('src="data:image/png') == 3
    broken = "gamma-0.5_seed-2/checkpoints/step-00000004.pt: not a checkpoint, or cut short"
    assert err == f"warning: {broken}\n"
    assert f">Warning: {broken}</p>" in page
    assert read_table(page, "Scores over seeds")[2][2][0] == "–"  # no mean over unfinished runs


def test_files_of_other_programs_are_no_crash(began, sweep):
    for text, gamma in (("[1, 2", 0.3), ('{"evaluations": 3}', 0.5)):
        (run_of(sweep, gamma, 1) / "evaluation.json").write_text(text)
    odd = {"step": 4, "scores": {"fid": 3, "kid": {"value": "x"}, "is": {"value": 2}}, "n": None}
    content = {"evaluations": [5, {"scores": 7, "step": 4}, odd]}
    (run_of(sweep, 0.5, 2) / "evaluation.json").write_text(json.dumps(content))
    (run_of(sweep, 0.3, 2) / "metrics.jsonl").write_bytes(b"\xff\n[]\n{}\n7\n" + b"[" * 99999)
    (run_of(sweep, 0.3, 2) / "config.yaml").write_text("a: [")
    code, _, err = began("compare", f"runs={sweep}")
    assert code == 0, err
    assert err.count("cannot be read: its scores are left out") == 2
    assert [row["is[None] N=-1"] for row in read_csv(sweep)] == ["", "", "", "2.0"]


def test_a_checkpoint_of_another_version_has_no_samples(began, sweep):
    for run, change in ((run_of(sweep, 0.3, 1), {"width": 5}), (run_of(sweep, 0.3, 2), None)):
        path = checkpoint.find_all(run)[0]
        state = checkpoint.load(path)
        if change is None:
            del state["config"]["model"]["gain"]
        else:
            state["config"]["model"] |= change
        checkpoint.save(path, state)
    code, _, err = began("compare", f"runs={sweep}")
    assert code == 0
    assert err.count("no samples of it: step-00000004.pt makes no generator here") == 2
    assert (sweep / "compare.html").read_text().count('src="data:image/png') == 2
    assert [row["state"] for row in read_csv(sweep)] == ["finished"] * 4


def test_scores_of_an_earlier_checkpoint_are_left_out_with_a_warning(began, sweep):
    write_scores(run_of(sweep, 0.3, 1), step=2, fid=1.0)
    code, _, err = began("compare", f"runs={sweep}")
    assert code == 0
    assert "ends at step 2 and the newest checkpoint is of step 4" in err
    assert not any("fid" in name for name in read_csv(sweep)[0])


def test_different_data_are_warned_of(began, sweep):
    path = checkpoint.find_all(run_of(sweep, 0.5, 2))[0]
    state = checkpoint.load(path)
    ours = state["data"]["sha256"][:8]
    state["data"] |= {"sha256": "0123456789"}
    checkpoint.save(path, state)
    code, _, err = began("compare", f"runs={sweep}")
    assert code == 0
    line = f"not trained on the same data ({', '.join(sorted(['01234567', ours]))})"
    assert line in err
    page = (sweep / "compare.html").read_text()
    assert page.count('class="warning"') == 1
    assert line in page
    assert [row["data"] for row in read_csv(sweep)].count("01234567") == 1
    assert len(read_table(page, "Scores over seeds")) == 5  # other data, another group


def test_the_same_runs_give_the_same_bytes(began, sweep, monkeypatch):
    for gamma in GAMMAS:
        write_scores(run_of(sweep, gamma, 1), fid=gamma, precision=0.5, recall=gamma)
    (run_of(sweep, 0.5, 2) / "evaluation.json").write_text("cut sh")  # a warning on the page
    assert began("compare", f"runs={sweep}", "out=a")[0] == 0
    monkeypatch.chdir(sweep)
    assert began("compare", "runs=.", "out=../b")[0] == 0
    for name in ("compare.html", "compare.csv"):
        assert (sweep.parent / "a" / name).read_bytes() == (sweep.parent / "b" / name).read_bytes()
    assert sorted(path.name for path in (sweep.parent / "b").iterdir()) == [
        *("compare.csv", "compare.html")
    ]


def test_names_of_folders_are_escaped(began, sweep):
    run_of(sweep, 0.3, 1).rename(sweep / "<script>alert('&')")
    assert began("compare", f"runs={sweep}")[0] == 0
    page = (sweep / "compare.html").read_text()
    assert "&lt;script&gt;alert(&#39;&amp;&#39;)" in page
    assert page.count("<script>") == 1


def test_sheets_are_of_the_latents_that_sample_uses(began, sweep):
    assert began("compare", f"runs={sweep}", "n=5")[0] == 0
    text = (sweep / "compare.html").read_text()
    sheets = re.findall(r'src="data:image/png;base64,([^"]*)"', text)
    order = [(0.3, 1), (0.5, 1), (0.3, 2), (0.5, 2)]  # side by side by gamma, a seed in a row
    for sheet, (gamma, seed) in zip(sheets, order, strict=True):
        line = [f"ckpt={run_of(sweep, gamma, seed)}", "n=5", f"out={gamma}-{seed}"]
        assert began("sample", *line)[0] == 0
        theirs = Image.open(Path(f"{gamma}-{seed}") / "seeds-0-4.png").convert("L")
        ours = Image.open(io.BytesIO(base64.b64decode(sheet)))
        assert (np.asarray(ours) == np.asarray(theirs)).all()


def test_points_of_the_plane_are_shown(began, tmp_path):
    line = ["dataset=ring", "model=mlp", "model.width=4", "steps=2", "device=cpu"]
    assert began("train", *line, f"hydra.run.dir={tmp_path / 'ring'}")[0] == 0
    assert began("compare", "ring")[0] == 0
    page = (tmp_path / "ring" / "compare.html").read_text()
    assert "<title>ring</title>" in page
    png = re.findall(r'src="data:image/png;base64,([^"]*)"', page)[0]
    assert Image.open(io.BytesIO(base64.b64decode(png))).size == (256, 256)


# --- the command line -----------------------------------------------------------------------------


def test_runs_may_be_named_in_three_ways(began, sweep, tmp_path):
    two = [str(run_of(sweep, gamma, 1)) for gamma in GAMMAS]
    assert began("compare", *two, "n=2")[0] == 0  # into the folder that both are in
    bare = (sweep / "compare.html").read_bytes()
    assert len(read_csv(sweep)) == 2
    listed = ",".join(f"'{each}'" for each in two)
    assert began("compare", f"runs=[{listed}]", "n=2", "out=list")[0] == 0
    assert (tmp_path / "list" / "compare.html").read_bytes() == bare
    assert began("compare", str(sweep), *two, "out=twice")[0] == 0
    assert len(read_csv(tmp_path / "twice")) == len(GAMMAS) * len(SEEDS)  # no run counts twice


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "runs: which ones?"),
        (["runs=nowhere"], "runs=nowhere: no such folder"),
        (["pretrained/mnist-bgan"], "runs=pretrained/mnist-bgan: a generator without its run"),
        (["runs=bare"], "runs=bare: no run in that folder"),
        (["sweep", "bare"], "runs=bare: no run in that folder"),
        (["runs=note.txt"], "runs=note.txt: a file"),
        (["sweep", "runs=bare"], "runs: given twice"),
        (["sweep", "n=0"], "n=0: wants a whole number, 1 or more"),
        (["sweep", "out=note.txt/x"], "out=note.txt/x: cannot be written to"),
        (["sweep", "device=cuda:77"], "device=cuda:77"),
        (["sweep", "gamma=3"], "no setting 'gamma'"),
    ],
)
def test_bad_lines_are_one_line_and_write_nothing(began, sweep, tmp_path, line, message):
    (tmp_path / "bare" / "inside").mkdir(parents=True)
    (tmp_path / "note.txt").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = began("compare", *line)
    assert (code, out) == (2, "")
    assert err.startswith(f"began compare: {message}")
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_the_old_page(began, sweep, monkeypatch):
    (sweep / "compare.html").write_text("old")
    monkeypatch.setattr(Path, "replace", _no_space)
    code, _, err = began("compare", f"runs={sweep}", "n=1")
    assert code == 2
    assert "No space left" in err
    assert (sweep / "compare.html").read_text() == "old"
    assert not list(sweep.glob(".*.tmp"))


def _no_space(self, target):
    raise OSError(28, "No space left on device", str(self))
