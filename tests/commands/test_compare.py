import base64
import csv
import io
import json
import re
import shutil
import statistics
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, settings, write_idx
from PIL import Image

from began_cli.commands import train
from began_cli.comparison import records, tables
from began_cli.comparison.records import Column, Run
from began_cli.generators import checkpoint

GAMMAS, SEEDS = (0.3, 0.5), (1, 2)
CNN, OTHER = "mnist-cnn@6b0b2a93", "inception@01234567"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Four tiny runs, γ by seed, each of 4 steps with two logs."""
    home = tmp_path_factory.mktemp("trained")
    write_idx(home / "digits" / "train-images-idx3-ubyte.gz", np.full((20, 28, 28), 9))
    for gamma in GAMMAS:
        for seed in SEEDS:
            run = home / "sweep" / f"gamma-{gamma}_seed-{seed}"
            line = [f"loss.gamma={gamma}", f"seed={seed}", f"dataset.root={home / 'digits'}"]
            line += ["loss=began", "steps=4", "log_every=2", f"out={run}", "device=cpu"]
            cfg = settings("train", *line, *TINY, "model.width=4")
            train.main(cfg, [])
    return home / "sweep"


@pytest.fixture
def sweep(trained, tmp_path) -> Path:
    """A copy to do anything with."""
    shutil.copytree(trained, tmp_path / "sweep")
    return tmp_path / "sweep"


def run_of(sweep: Path, gamma: float, seed: int) -> Path:
    return sweep / f"gamma-{gamma}_seed-{seed}"


def score(run: Path, step: int = 4, extractor: str = CNN, **values: float) -> dict:
    """Puts an evaluation into a run as `began evaluate` does."""
    path = run / "evaluation.json"
    old = json.loads(path.read_text())["evaluations"] if path.exists() else []
    made = {
        name: {"extractor": extractor, "value": value, "floor": 0.25, "floor_n": 5, "std": None}
        for name, value in values.items()
    }
    record = {"checkpoint": f"step-{step:08d}.pt", "step": step, "extractor": extractor, "n": 10}
    record |= {"seed": 0, "k": 5, "kid_subset": 4, "bins": 3, "scores": made, "notes": []}
    record |= {"data": {"origin": "here", "count": 20, "sha256": "ab" * 32}}
    path.write_text(json.dumps({"format": 1, "evaluations": [*old, record]}))
    return record


def read_csv(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "compare.csv").read_text())))


def table(page: str, caption: str) -> list[list[tuple[str, str | None]]]:
    """The rows of the table so named: each cell's words and the number it is sorted by."""
    part = page.split(f'aria-label="{caption}"')[1].split("</table>")[0]
    rows = []
    for row in re.findall(r"<tr>(.*?)</tr>", part, flags=re.DOTALL):
        cells = re.findall(r"<t[hd]([^>]*)>(.*?)</t[hd]>", row, flags=re.DOTALL)
        row = []
        for attributes, words in cells:
            sort = re.search(r'data-sort="([^"]*)"', attributes)
            row.append((unescape(re.sub(r"<[^>]*>", "", words)), sort and sort[1]))
        rows.append(row)
    return rows


# --- numbers --------------------------------------------------------------------------------------


def test_means_and_deviations_over_seeds(began, sweep):
    fid = {(0.3, 1): 10.125, (0.3, 2): 13.5, (0.5, 1): 7.0, (0.5, 2): 7.75}
    for (gamma, seed), value in fid.items():
        score(run_of(sweep, gamma, seed), fid=value)
    code, out, err = began("compare", f"runs={sweep}")
    assert (code, err) == (0, "")
    assert "4 runs (4 finished)" in out

    rows = read_csv(sweep)
    assert [row["run"] for row in rows] == [run_of(sweep, g, s).name for g, s in sorted(fid)]
    again = {(float(r["loss.gamma"]), int(r["seed"])): float(r[f"fid[{CNN}] N=10"]) for r in rows}
    assert again == fid

    over, head, low, high, real = table((sweep / "compare.html").read_text(), "Scores over seeds")
    assert [cell[0] for cell in over] == ["", f"[{CNN}] N=10", "last logged"]
    assert head[2][0] == "fid"
    for row, gamma in ((low, 0.3), (high, 0.5)):
        values = [fid[gamma, seed] for seed in SEEDS]
        assert row[0][0] == f"gamma={gamma}"
        assert row[1][0] == "2"
        assert float(row[2][1]) == statistics.fmean(values)
        assert row[2][0] == f"{statistics.fmean(values):.4g} ± {statistics.stdev(values):.2g}"
    assert low[2][0] == "11.81 ± 2.4"  # by hand: 3.375 / sqrt(2) = 2.386
    assert real[2][0] == "0.25"


def test_last_measures_are_those_of_the_last_line(began, sweep):
    for gamma in GAMMAS:
        for seed in SEEDS:
            lines = [
                {"step": 2, "images": 8, "train/convergence": 9.0, "train/k_t": 0.5},
                {"step": 4, "images": 16, "train/convergence": gamma + seed, "train/k_t": 0.25},
            ]
            path = run_of(sweep, gamma, seed) / "metrics.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert began("compare", f"runs={sweep}")[0] == 0
    assert [float(row["train/convergence"]) for row in read_csv(sweep)] == [1.3, 2.3, 1.5, 2.5]
    page = (sweep / "compare.html").read_text()
    _, head, low, high = table(page, "Scores over seeds")
    assert [cell[0] for cell in head[2:]] == ["M_global", "k_t"]
    assert [low[2][0], low[3][0]] == ["1.8 ± 0.71", "0.25 ± 0"]
    assert high[2][0] == "2 ± 0.71"
    plots = page.split("<h2>Curves</h2>")[1].split("<h2>")[0]
    assert plots.count('class="plot"') == 2  # what is not logged is not drawn
    assert plots.count("<li>") == 4


def test_numbers_are_short_and_a_far_curve_is_logarithmic(began, sweep):
    said = [tables.short(value) for value in (1234.56, 123456.7, 2.5e6, 0.00012345, float("nan"))]
    assert said == ["1235", "123457", "2.5e+06", "0.0001234", "–"]
    assert str(tables.mean([500.0, 726.27])) == "613.1 ± 160"  # by hand: 226.27 / sqrt(2)
    for far, words in ((3.0, "M_global"), (9e9, "M_global (logarithmic)")):
        path = run_of(sweep, 0.3, 1) / "metrics.jsonl"
        path.write_text(f'{{"step": 2, "images": 8, "train/convergence": {far}}}\n')
        assert began("compare", f"runs={sweep}")[0] == 0
        assert f">{words}</text>" in (sweep / "compare.html").read_text()


def test_scores_of_two_extractors_or_sizes_share_no_column(began, sweep):
    score(run_of(sweep, 0.3, 1), fid=1.5)
    score(run_of(sweep, 0.3, 2), extractor=OTHER, fid=2.5)
    path = run_of(sweep, 0.5, 1) / "evaluation.json"
    record = score(run_of(sweep, 0.5, 1), fid=3.5)
    path.write_text(json.dumps({"format": 1, "evaluations": [record | {"n": 11}]}))
    assert began("compare", f"runs={sweep}")[0] == 0
    rows = read_csv(sweep)
    names = [f"fid[{CNN}] N=10", f"fid[{OTHER}] N=10", f"fid[{CNN}] N=11"]
    assert [[row[name] for name in names] for row in rows] == [
        *(["1.5", "", ""], ["", "2.5", ""], ["", "", "3.5"], ["", "", ""]),
    ]
    _, _, low, _, *_ = table((sweep / "compare.html").read_text(), "Scores over seeds")
    assert low[2][0] == "1.5 (n=1)"


def test_options_of_a_score_keep_columns_apart():
    columns = [Column("recall", CNN, 10, f"k={k}", "abab") for k in (3, 5)]
    assert list(tables.headings(columns).values()) == [
        f"recall[{CNN}] N=10 k=3 abab",
        f"recall[{CNN}] N=10 k=5 abab",
    ]


def test_the_lowest_seed_of_an_evaluation_counts(tmp_path):
    records_of = [score(tmp_path, fid=float(seed)) | {"seed": seed} for seed in (7, 3, 5)]
    (tmp_path / "evaluation.json").write_text(json.dumps({"evaluations": records_of}))
    found, said = records.scores(tmp_path, 4)
    assert [each.value for each in found.values()] == [3.0]
    assert said == []


def run(name: str, state: str = records.FINISHED, **values) -> Run:
    named = {key.replace("__", "."): value for key, value in values.items()}
    return Run(Path(name), name, named, state=state)


def test_runs_that_differ_in_their_seed_alone_are_one_group():
    runs = [
        run("a", loss__gamma=0.5, optimizer__lr=0.1, seed=2, steps=9),
        run("b", loss__gamma=0.5, optimizer__lr=0.1, seed=1, steps=9),
        run("c", loss__gamma=10.0, optimizer__lr=0.1, seed=1, steps=9),
        run("d", loss__gamma=2.0, optimizer__lr=0.1, seed=1, steps=9),
        run("e", loss__gamma=2.0, optimizer__lr=0.1, seed=3, steps=9, state=records.STOPPED),
        run("f", state=records.NOTHING),
    ]
    assert tables.differing(runs) == ["loss.gamma"]
    assert tables.constants(runs) == {"optimizer.lr": 0.1, "steps": 9}
    runs = tables.in_order(runs)
    assert "".join(each.name for each in runs) == "badecf"  # numbers by size, the unknown last
    groups, doubts = tables.grouped(runs)
    assert [group.label for group in groups] == ["gamma=0.5", "gamma=2", "gamma=10", "f"]
    assert ["".join(r.name for r in group.runs) for group in groups] == ["ba", "de", "c", "f"]
    assert ["".join(r.name for r in group.counted) for group in groups] == ["ba", "d", "c", ""]
    assert doubts == []


def test_a_label_has_the_settings_that_tell_groups_apart_and_no_more():
    runs = [
        run("a", loss__name="began", loss__gamma=0.5, model__width=4, optimizer__lr=0.1),
        run("b", loss__name="began", loss__gamma=0.7, model__width=4, optimizer__lr=0.1),
        run("c", loss__name="bgan", model__width=8, optimizer__lr=0.2),
    ]
    groups, _ = tables.grouped(runs)
    labels = [group.label for group in groups]
    assert labels == ["loss=began, gamma=0.5", "loss=began, gamma=0.7", "loss=bgan, gamma=–"]


def test_two_runs_of_one_seed_count_once(began, sweep):
    shutil.copytree(run_of(sweep, 0.3, 1), sweep / "twin")
    score(run_of(sweep, 0.3, 1), fid=1.0)
    score(run_of(sweep, 0.3, 2), fid=2.0)
    score(sweep / "twin", fid=9.0)
    code, _, err = began("compare", f"runs={sweep}")
    assert code == 0
    assert "gamma-0.3_seed-1 and twin have the same settings and seed" in err
    _, _, low, _, *_ = table((sweep / "compare.html").read_text(), "Scores over seeds")
    assert [low[1][0], low[2][0]] == ["2 of 3", "1.5 ± 0.71"]
    assert [row["counted"] for row in read_csv(sweep)] == ["yes", "no", "yes", "yes", "yes"]


# --- what went wrong with a run -------------------------------------------------------------------


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_failed_unfinished_and_empty_runs_are_shown_as_such(began, sweep):
    edit(run_of(sweep, 0.3, 1) / "config.yaml", "steps: 4", "steps: 9000")
    nan = run_of(sweep, 0.3, 2)
    edit(nan / "config.yaml", "steps: 4", "steps: 9000")
    with (nan / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "images": 24, "train/loss_real": null}\n{"step": 8, "ima')
    watched = run_of(sweep, 0.5, 1)
    state = checkpoint.load(checkpoint.all_of(watched)[0])
    state["config"] |= {"steps": 9000, "watchdog": "stop"}
    checkpoint.save(checkpoint.all_of(watched)[0], state)
    (watched / "config.yaml").unlink()
    with (watched / "train.log").open("a") as file:
        file.write("2026-01-01 00:00:00 watchdog: step 4: samples <collapsed>\n")
    checkpoint.all_of(run_of(sweep, 0.5, 2))[0].write_bytes(b"PK\x03\x04 no more")
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
    shown = {row[-1][0]: row[1][0][2:] for row in table(page, "Every run")[2:]}
    assert shown == {name: status for name, (_, status) in states.items()}
    assert "<collapsed>" not in page
    assert page.count('src="data:image/png') == 3
    broken = "gamma-0.5_seed-2/checkpoints/step-00000004.pt: not a checkpoint, or cut short"
    assert err == f"warning: {broken}\n"
    assert f">Warning: {broken}</p>" in page
    assert table(page, "Scores over seeds")[2][2][0] == "–"  # no mean over unfinished runs


def test_files_of_other_hands_are_no_crash(began, sweep):
    for text, where in (("[1, 2", 0.3), ('{"evaluations": 3}', 0.5)):
        (run_of(sweep, where, 1) / "evaluation.json").write_text(text)
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
        path = checkpoint.all_of(run)[0]
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


def test_scores_of_an_earlier_checkpoint_are_left_out_and_said(began, sweep):
    score(run_of(sweep, 0.3, 1), step=2, fid=1.0)
    code, _, err = began("compare", f"runs={sweep}")
    assert code == 0
    assert "ends at step 2 and the newest checkpoint is of step 4" in err
    assert not any("fid" in name for name in read_csv(sweep)[0])


def test_different_data_are_warned_of(began, sweep):
    path = checkpoint.all_of(run_of(sweep, 0.5, 2))[0]
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
    assert len(table(page, "Scores over seeds")) == 5  # other data, another group


# --- the page -------------------------------------------------------------------------------------


def test_the_same_runs_give_the_same_bytes(began, sweep, monkeypatch):
    for gamma in GAMMAS:
        score(run_of(sweep, gamma, 1), fid=gamma, precision=0.5, recall=gamma)
    (run_of(sweep, 0.5, 2) / "evaluation.json").write_text("cut sh")  # a warning on the page
    assert began("compare", f"runs={sweep}", "out=a")[0] == 0
    monkeypatch.chdir(sweep)
    assert began("compare", "runs=.", "out=../b")[0] == 0
    for name in ("compare.html", "compare.csv"):
        assert (sweep.parent / "a" / name).read_bytes() == (sweep.parent / "b" / name).read_bytes()
    assert sorted(path.name for path in (sweep.parent / "b").iterdir()) == [
        *("compare.csv", "compare.html")
    ]


class Page(HTMLParser):
    """What a page asks for, and what its pictures are called."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.asks, self.ids, self.refers, self.nameless = [], [], [], []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        have = dict(attrs)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                (self.refers if value.startswith("#") else self.asks).append(value.lstrip("#"))
            self.refers += re.findall(r"url\(#(.*?)\)", value or "")
            assert "url(" not in re.sub(r"url\(#.*?\)", "", value or "")
        self.ids += [have["id"]] if "id" in have else []
        if (tag == "img" and not have.get("alt")) or (
            have.get("role") == "img" and not have.get("aria-label")
        ):
            self.nameless.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in ("meta", "link", "img", "br"):
            assert self.open.pop() == tag


def test_the_page_asks_for_nothing_and_is_well_formed(began, sweep):
    for gamma in GAMMAS:
        score(run_of(sweep, gamma, 1), precision=0.5, recall=gamma)
    assert began("compare", f"runs={sweep}")[0] == 0
    text = (sweep / "compare.html").read_text()
    page = Page(text)
    assert page.open == []
    assert {ask.partition(",")[0] for ask in page.asks} == {"data:", "data:image/png;base64"}
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in re.search(r"<style>.*?</style>", text, re.DOTALL)[0]
    assert len(set(page.ids)) == len(page.ids)
    assert page.refers
    assert set(page.refers) <= set(page.ids)
    assert page.nameless == []


def test_names_are_escaped(began, sweep):
    run_of(sweep, 0.3, 1).rename(sweep / "<script>alert('&')")
    assert began("compare", f"runs={sweep}")[0] == 0
    page = (sweep / "compare.html").read_text()
    assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)" in page
    assert page.count("<script>") == 1


def test_sheets_are_of_the_latents_that_sample_uses(began, sweep):
    assert began("compare", f"runs={sweep}", "n=5")[0] == 0
    text = (sweep / "compare.html").read_text()
    sheets = re.findall(r'src="data:image/png;base64,([^"]*)"', text)
    order = [(0.3, 1), (0.5, 1), (0.3, 2), (0.5, 2)]  # side by side by γ, a seed in a row
    for sheet, (gamma, seed) in zip(sheets, order, strict=True):
        line = [f"ckpt={run_of(sweep, gamma, seed)}", "n=5", f"out={gamma}-{seed}"]
        assert began("sample", *line)[0] == 0
        theirs = Image.open(Path(f"{gamma}-{seed}") / "seeds-0-4.png").convert("L")
        ours = Image.open(io.BytesIO(base64.b64decode(sheet)))
        assert (np.asarray(ours) == np.asarray(theirs)).all()


def test_precision_and_recall_are_a_point_a_run(began, sweep):
    assert began("compare", f"runs={sweep}")[0] == 0
    assert "Fidelity" not in (sweep / "compare.html").read_text()
    for gamma in GAMMAS:
        for seed in SEEDS:
            score(run_of(sweep, gamma, seed), precision=0.1 * seed, recall=gamma)
    score(run_of(sweep, 0.5, 2), extractor=OTHER, precision=0.1, recall=0.2)
    assert began("compare", f"runs={sweep}")[0] == 0
    part = (sweep / "compare.html").read_text().split("<h2>Fidelity")[1].split("<h2>")[0]
    ours, others = part.split('class="plot"')[1:]
    numbers = [re.findall(r"<text[^>]*>([1-4]|real)</text>", each) for each in (ours, others)]
    assert numbers == [["1", "2", "3", "4", "real"], ["4", "real"]]
    assert "precision" not in ours.split("<svg")[0].lower().replace("precision over recall", "")


def test_points_of_the_plane_are_shown(began, tmp_path):
    line = ["dataset=ring", "model=mlp", "model.width=4", "steps=2", "device=cpu"]
    assert began("train", *line, f"hydra.run.dir={tmp_path / 'ring'}")[0] == 0
    assert began("compare", "ring")[0] == 0
    page = (tmp_path / "ring" / "compare.html").read_text()
    assert "<title>ring</title>" in page
    png = re.findall(r'src="data:image/png;base64,([^"]*)"', page)[0]
    assert Image.open(io.BytesIO(base64.b64decode(png))).size == (256, 256)


# --- the line -------------------------------------------------------------------------------------


def test_runs_may_be_named_in_three_ways(began, sweep, tmp_path):
    two = [str(run_of(sweep, gamma, 1)) for gamma in GAMMAS]
    assert began("compare", *two, "n=2")[0] == 0  # into the folder that both are in
    bare = (sweep / "compare.html").read_bytes()
    assert len(read_csv(sweep)) == 2
    listed = ",".join(f"'{each}'" for each in two)
    assert began("compare", f"runs=[{listed}]", "n=2", "out=list")[0] == 0
    assert (tmp_path / "list" / "compare.html").read_bytes() == bare
    assert began("compare", str(sweep), *two, "out=twice")[0] == 0
    assert len(read_csv(tmp_path / "twice")) == 4  # no run is counted twice


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ([], "runs: which ones?"),
        (["runs=nowhere"], "runs=nowhere: no such folder"),
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
def test_bad_lines_are_one_line_and_write_nothing(began, sweep, tmp_path, line, said):
    (tmp_path / "bare" / "inside").mkdir(parents=True)
    (tmp_path / "note.txt").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = began("compare", *line)
    assert (code, out) == (2, "")
    assert err.startswith(f"began compare: {said}")
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


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WATCH = "<script>window.wrong = []; onerror = m => { wrong.push(m); };</script>"
LOOK = """<script>onload = () => {
  const column = [...document.querySelectorAll("thead")].pop().rows[1];
  const body = column.closest("table").tBodies[0];
  const names = () => [...body.rows].map(row => row.cells[0].textContent).join("");
  const button = [...column.cells].find(c => c.textContent.startsWith("seed")).firstChild;
  const seen = [names()];
  button.click(); seen.push(names()); button.click(); seen.push(names());
  const shown = [...document.images].filter(image => image.naturalWidth > 0).length;
  const wide = document.documentElement.scrollWidth > innerWidth;
  document.body.textContent = JSON.stringify({seen, shown, wide, wrong});
};</script>"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 500])
def test_in_a_browser(began, sweep, tmp_path, width):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no browser here")
    assert began("compare", f"runs={sweep}")[0] == 0
    page = (sweep / "compare.html").read_text().replace("<head>", f"<head>{WATCH}")
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{LOOK}</body>"))
    line = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    line += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    line += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},800"]
    made = subprocess.run(
        [*line, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    found = json.loads(unescape(re.search(r"<body>(.*)</body>", made.stdout, re.DOTALL)[1]))
    assert found == {"seen": ["1234", "1324", "2413"], "shown": 4, "wide": False, "wrong": []}
