import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, settings, write_idx
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from began_cli.data import avatars, sources
from began_cli.evaluation import copying as copying_module
from began_cli.evaluation import coverage, evaluator, features, references, scores
from began_cli.evaluation.avatars_classifier import predict_attributes
from began_cli.evaluation.evaluator import Evaluator
from began_cli.evaluation.judges import Judges
from began_cli.gan import latents
from began_cli.generators.load import load
from began_cli.generators.sampling import generate_all
from began_cli.settings import commands as checks

FEW = ("n=60", "kid_subset=20", "bins=5", "k=3")
CPU = torch.device("cpu")


def evaluations(folder) -> list[dict]:
    return json.loads((folder / "evaluation.json").read_text())["evaluations"]


def files_of(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_everything_that_an_evaluation_leaves(began, tiny_run):
    code, out, err = began("evaluate", f"ckpt={tiny_run}", *FEW)
    assert code == 0, err
    (record,) = evaluations(tiny_run)
    assert record["checkpoint"] == "step-00000004.pt"
    assert record["step"] == 4
    assert (record["n"], record["seed"], record["data"]["count"]) == (60, 0, 200)
    assert set(record["scores"]) == {*checks.SCORES, "modes_kl"}
    label = record["extractor"]
    assert label == f"mnist-cnn@{record['extractor_sha256'][:8]}"
    for name, score in record["scores"].items():
        assert np.isfinite([score["value"], score["floor"]]).all()
        assert score["extractor"] == ("pixels" if name == "nearest" else label)
        start = f"{name}[{score['extractor']}]"
        (row,) = [line for line in out.splitlines() if line.startswith(start)]
        assert f"{score['value']:.4g}" in row  # with its floor, N and seed beside it
        assert f"{score['floor']:.4g}" in row
        words = 3 if name in ("nearest", *checks.COPYING) else 1  # "as the floor", "higher"
        assert row.split()[-2 - words :][:2] == ["60", "0"]
    assert sum(record["classes"]) == sum(record["real_classes"]) == 60
    assert record["scores"]["modes"]["value"] == sum(count > 0 for count in record["classes"])

    board = EventAccumulator(str(tiny_run)).Reload()
    (event,) = board.Scalars(f"evaluation/fid/{label.replace('@', '-')}")
    assert event.step == 4
    assert event.value == pytest.approx(record["scores"]["fid"]["value"])

    sheet = Image.open(tiny_run / "nearest-step-00000004.png")
    assert sheet.size == (6 * 18 + 2, 16 * 18 + 2)  # an image and five neighbours, sixteen times
    assert not list(tiny_run.glob(".*.tmp"))


def test_the_values_are_those_of_the_named_seeds_and_disjoint_real_images(began, tiny_run, digits):
    """FID from `began sample`'s own images, by hand."""
    line = (
        "evaluate",
        f"ckpt={tiny_run}",
        *FEW,
        "seed=2",
        "scores=[fid,nearest]",
        "extractor=pixels",
    )
    assert began(*line)[0] == 0
    trained = load(str(tiny_run), CPU)
    fakes = generate_all(trained.network, latents.from_seeds(range(3_000_000, 3_000_060), 8))
    reals = evaluator.load_real_images(trained.settings.dataset, None).images
    rows = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    first, second = reals[rows[:60]], reals[rows[60:120]]
    flat = [x.flatten(1).double() / 255 for x in (fakes, first, second)]
    made = evaluations(tiny_run)[0]["scores"]
    assert made["fid"]["value"] == pytest.approx(scores.fid(flat[0], flat[1]), rel=1e-4)
    assert made["fid"]["floor"] == pytest.approx(scores.fid(flat[2], flat[1]), rel=1e-4)

    distance = torch.cdist(fakes.flatten(1).double(), reals.flatten(1).double())
    root_mean_square = distance.min(1).values / 256**0.5
    assert made["nearest"]["value"] == pytest.approx(root_mean_square.mean().item(), rel=1e-4)


def test_the_batch_size_changes_nothing(began, tiny_run):
    values = []
    for i, size in enumerate((7, 256)):
        line = [f"ckpt={tiny_run}", *FEW, f"batch_size={size}", f"out=o{i}", f"cache=c{i}"]
        assert began("evaluate", *line)[0] == 0
    for i in range(2):
        with open(f"o{i}/evaluation.json") as file:
            made = json.load(file)["evaluations"][0]["scores"]
        values.append({name: score["value"] for name, score in made.items()})
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_evaluations_do_not_destroy_each_other(began, tiny_run):
    base = ("evaluate", f"ckpt={tiny_run}", *FEW)
    for more in (["scores=fid"], ["scores=[fid]", "seed=1"], ["scores=is", "extractor=mnist-cnn"]):
        assert began(*base, *more)[0] == 0
    made = [(e["seed"], sorted(e["scores"])) for e in evaluations(tiny_run)]
    assert made == [(1, ["fid"]), (0, ["fid", "is"])]  # the second of seed 0 joined the first


def test_a_damaged_file_of_evaluations_is_not_lost(began, tiny_run):
    (tiny_run / "evaluation.json").write_text("{")
    code, _, err = began("evaluate", f"ckpt={tiny_run}", *FEW)
    assert code == 2
    assert "move it away" in err
    assert (tiny_run / "evaluation.json").read_text() == "{"


def test_real_features_are_made_once(began, tiny_run, tmp_path, monkeypatch):
    line = ("evaluate", f"ckpt={tiny_run}", *FEW, "scores=fid")
    assert began(*line)[0] == 0
    (kept,) = (tmp_path / "xdg-cache" / "began").iterdir()
    made_at = kept.stat().st_mtime_ns
    monkeypatch.setattr(references, "_write", None)  # a second making would call it
    assert began(*line)[0] == 0
    assert kept.stat().st_mtime_ns == made_at


def test_real_images_from_elsewhere_are_said(began, tiny_run, tmp_path):
    pixels = np.random.default_rng(5).integers(0, 256, (150, 28, 28))
    write_idx(tmp_path / "other" / "train-images-idx3-ubyte", pixels)
    code, out, _ = began("evaluate", f"ckpt={tiny_run}", *FEW, "root=other", "scores=fid")
    assert code == 0
    assert "scored against 150 images of" in out
    assert "trained on 200" in out


def test_few_real_images_halve_the_floor_and_say_so(began, tiny_run):
    line = (
        "evaluate",
        f"ckpt={tiny_run}",
        "n=150",
        "kid_subset=20",
        "bins=5",
        "scores=[fid,modes]",
    )
    code, out, _ = began(*line)
    assert code == 0
    assert "200 real images: the floor is half of them against the other half" in out
    (record,) = evaluations(tiny_run)
    assert record["scores"]["fid"]["floor_n"] == 100
    assert record["scores"]["modes"]["floor_n"] == 150
    assert "(N 100)" in out


def test_a_checkpoint_alone(began, tiny_run, tmp_path):
    (tmp_path / "alone").mkdir()
    (tiny_run / "checkpoints" / "step-00000004.pt").rename(tmp_path / "alone" / "mine.pt")
    assert began("evaluate", "ckpt=alone/mine.pt", *FEW, "scores=fid")[0] == 0
    assert evaluations(tmp_path / "alone")[0]["checkpoint"] == "mine.pt"


def test_pixels_have_no_inception_score_but_the_classes_are_known(began, tiny_run):
    code, out, _ = began("evaluate", f"ckpt={tiny_run}", *FEW, "extractor=pixels")
    assert code == 0
    assert "'is' is left out: pixels gives no classes" in out
    (record,) = evaluations(tiny_run)
    assert set(record["scores"]) == {*checks.SCORES, "modes_kl"} - {"is"}
    assert "modes[mnist-cnn@" in out  # by the classifier, whatever the extractor
    assert record["scores"]["modes"]["extractor"].startswith("mnist-cnn@")


BAD = [
    (["extractor=incepton"], "extractor=incepton: no such extractor; there are mnist-cnn"),
    (["extractor=a/b.pt2"], "extractor=a/b.pt2: no such file"),
    (["extractor=inception", "weights=gone.pth"], "weights=gone.pth: no such file"),
    (["weights=gone.pth"], "weights=gone.pth: only extractor=inception, dinov2"),
    (
        ["n=19"],
        "n=19: kid wants 20 or more (kid_subset=20), ndb wants 25 or more (5 for each of bins=5), "
        "c_t wants 60 or more (20 for each of cells=3); or leave out kid and ndb and c_t\n",
    ),
    (["n=1"], "n=1: wants a whole number from 2"),
    (["k=60"], "n=60: precision wants 61 or more (the k=60 neighbours of each image)"),
    (["bins=13"], "n=60: ndb wants 65 or more (5 for each of bins=13)"),
    (["n=300", "kid_subset=150"], "root: 200 real images, 100 in each half for the floor: kid"),
    (["scores=[fid,fd]"], "scores=fd: wants one of auto, all, fid"),
    (["scores=is", "extractor=pixels"], "scores=is: pixels gives no classes"),
    (["seed=-1"], "seed=-1: wants"),
    (["device=tpu"], "device=tpu: wants auto"),
    (["ckpt=gone"], "ckpt=gone: no such file"),
    (["protocol=mine"], "protocol=mine: wants one of lucic, 50k, pacgan"),
    (["protocol=pacgan"], "n=60: protocol=pacgan has n=26000; leave out one"),
    (["cells=4"], "n=60: c_t wants 80 or more (20 for each of cells=4)"),
    (["test_root=x"], "test_root=x: dataset=mnist has a test split of its own"),
    (["reference=all"], "reference=all: wants one of auto, train, test"),
    (["ckpt=[]"], "ckpt: which ones?"),
    (["sead=1"], "no setting 'sead' (did you mean seed?)"),
]


def test_bad_input_is_one_line_and_writes_nothing(began, tiny_run, tmp_path):
    before = files_of(tmp_path)
    for line, why in BAD:
        keys = {word.split("=")[0] for word in line}
        given = [f"ckpt={tiny_run}", *FEW]
        given = [word for word in given if word.split("=")[0] not in keys]
        code, out, err = began("evaluate", *given, *line)
        assert (code, out) == (2, ""), line
        assert err.startswith(f"began evaluate: {why}"), (line, err)
        assert err.count("\n") == 1
        assert files_of(tmp_path) == before


def test_no_real_images(began, tiny_run, tmp_path):
    file = tiny_run / "checkpoints" / "step-00000004.pt"
    state = torch.load(file, weights_only=True)
    state["config"]["dataset"]["fallback"] = False
    torch.save(state, file)
    before = files_of(tmp_path)
    code, _, err = began("evaluate", f"ckpt={tiny_run}", *FEW, "root=gone")
    assert code == 2
    assert err.startswith(
        "began evaluate: root: no real images to score against: dataset.root=gone"
    )
    assert files_of(tmp_path) == before


def test_modes_of_data_without_a_classifier(began, tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    train = ["train", "dataset=folder", "dataset.root=photos", "steps=1", "hydra.run.dir=r", *TINY]
    assert began(*train)[0] == 0
    few = ("n=10", "kid_subset=5", "bins=2", "k=2", "extractor=pixels")
    code, out, err = began("evaluate", "ckpt=r", *few)
    assert code == 0, err
    assert "'modes' is left out: dataset=folder has no classifier" in out
    assert {"modes", "is"} & set(evaluations(tmp_path / "r")[0]["scores"]) == set()
    code, _, err = began("evaluate", "ckpt=r", *few, "scores=modes")
    assert code == 2
    assert "scores=modes: dataset=folder" in err


def test_stacked_mnist_is_scored_by_its_thousand_modes(began, tmp_path, digits):
    run = tmp_path / "stacked"
    line = ["train", "dataset=stacked_mnist", "steps=1", f"dataset.root={digits}", *TINY]
    assert began(*line, f"hydra.run.dir={run}")[0] == 0
    code, _, err = began("evaluate", f"ckpt={run}", *FEW, "scores=[fid,modes]")
    assert code == 0, err
    (record,) = evaluations(run)
    assert record["extractor"].startswith("mnist-cnn-per-channel@")
    z = latents.from_seeds(range(1_000_000, 1_000_060), 8)
    fakes = generate_all(load(str(run), CPU).network, z)
    classifier = features.build("mnist-cnn", None, (1, 16, 16), False, CPU)
    each = [classifier(fakes[:, c : c + 1], 60, CPU).logits.argmax(1) for c in range(3)]
    labels = 100 * each[0] + 10 * each[1] + each[2]
    expected = coverage.modes_and_kl(labels, 1000)
    assert record["scores"]["modes"]["value"] == expected["modes"]
    assert record["scores"]["modes_kl"]["value"] == pytest.approx(expected["modes_kl"])
    assert record["scores"]["modes_kl"]["floor_n"] == 60
    assert "classes" not in record  # a thousand of them


def test_avatars_are_scored_by_their_attributes(began, tmp_path, monkeypatch):
    """20,000 images would take the test half a minute: the first 300 stand for them."""
    monkeypatch.setattr("began_cli.data.avatars.read", lambda *_, read=avatars.read: read(*_)[:300])
    run = tmp_path / "avatars"
    line = ["train", "dataset=avatars", "steps=1", *TINY]
    assert began(*line, f"hydra.run.dir={run}")[0] == 0
    code, out, err = began("evaluate", f"ckpt={run}", *FEW, "scores=[fid,modes]")
    assert code == 0, err
    (record,) = evaluations(run)
    z = latents.from_seeds(range(1_000_000, 1_000_060), 8)
    fakes = generate_all(load(str(run), CPU).network, z)
    classifier = features.build("avatars-cnn", None, (3, 16, 16), False, CPU)
    labels = predict_attributes(classifier(fakes, 60, CPU).logits).tolist()
    combinations = {tuple(row[:4]) for row in labels}  # background, skin, hair colour, hair
    assert record["scores"]["modes"]["value"] == len(combinations)
    blue = sum(row[0] == 0 for row in labels) / 60
    assert record["attributes"]["background"]["samples"]["blue"] == pytest.approx(blue)
    assert sum(record["attributes"]["mouth"]["real"].values()) == pytest.approx(1)
    assert "background" in out


# --- several checkpoints --------------------------------------------------------------------------


def copy_runs(run, *names) -> None:
    """Runs beside each other below sweep/, whose weights differ."""
    for number, name in enumerate(names):
        shutil.copytree(run, Path("sweep", name))
        file = Path("sweep", name, "checkpoints", "step-00000004.pt")
        state = torch.load(file, weights_only=True)
        state["ema"] = {key: value * (1 + number / 8) for key, value in state["ema"].items()}
        torch.save(state, file)


def test_all_runs_of_a_folder_in_one_call_and_again(began, tiny_run, monkeypatch):
    copy_runs(tiny_run, "a", "b/c")
    extracted = []
    extract = Judges.extract_real

    def count(self, *line):
        extracted.append(len(line[1].rows))
        return extract(self, *line)

    monkeypatch.setattr(Judges, "extract_real", count)
    line = ("evaluate", "ckpt=sweep", *FEW, "scores=[fid,c_t]")
    code, out, err = began(*line)
    assert code == 0, err
    assert extracted == [200, 120]  # all training images and 2n test images, once
    assert out.index("60 images of sweep/a/") < out.index("60 images of sweep/b/c/")
    assert "began compare sweep/a sweep/b/c" in out
    values = [evaluations(Path("sweep", name))[0]["scores"] for name in ("a", "b/c")]
    assert values[0]["fid"]["value"] != values[1]["fid"]["value"]
    assert values[0]["fid"]["floor"] == values[1]["fid"]["floor"]
    assert began("evaluate", "ckpt=sweep/b/c", "out=alone", *FEW, "scores=[fid,c_t]")[0] == 0
    assert evaluations(Path("alone"))[0]["scores"] == values[1]

    monkeypatch.setattr(Judges, "extract_real", None)  # a second time would call it
    code, again, _ = began(*line)
    assert code == 0
    assert again.count("scored before") == 2
    rows = [text for text in out.splitlines() if text.startswith(("fid[", "c_t["))]
    assert len(rows) == 4
    assert all(row in again for row in rows)

    assert began("compare", "sweep")[0] == 0
    table = Path("sweep/compare.csv").read_text()
    assert str(values[1]["fid"]["value"])[:6] in table


def test_an_interrupted_call_goes_on_where_it_was(began, tiny_run, monkeypatch):
    copy_runs(tiny_run, "a", "b", "c")
    scored = []
    score = Evaluator.score

    def interrupt(self, trained, advance):
        scored.append(trained.path.parts[1])
        if len(scored) == 2:
            raise KeyboardInterrupt
        return score(self, trained, advance)

    monkeypatch.setattr(Evaluator, "score", interrupt)
    line = ("evaluate", "ckpt=sweep", *FEW, "scores=[fid]")
    assert began(*line)[0] == 130
    assert began(*line)[0] == 0
    assert scored == ["a", "b", "b", "c"]


def test_checkpoints_of_one_run(began, tiny_run, tmp_path):
    first = tiny_run / "checkpoints" / "step-00000004.pt"
    second = first.with_name("step-00000002.pt")
    state = torch.load(first, weights_only=True) | {"step": 2}
    torch.save(state, second)
    code, _, err = began("evaluate", f"ckpt=[{second},{first},{tiny_run}]", *FEW, "scores=fid")
    assert code == 0, err
    assert [record["step"] for record in evaluations(tiny_run)] == [2, 4]  # the third is the second
    code, _, err = began("evaluate", f"ckpt=[{second},{first}]", *FEW, "seed=1", "out=o")
    assert code == 2
    assert "out=o: is for one checkpoint, and there are 2" in err

    state["ema"] = {key: value * 2 for key, value in state["ema"].items()}
    torch.save(state, second)  # another checkpoint of the same name is scored anew
    before = evaluations(tiny_run)[0]["scores"]["fid"]["value"]
    assert began("evaluate", f"ckpt={second}", *FEW, "scores=fid")[0] == 0
    assert [record["step"] for record in evaluations(tiny_run)] == [4, 2]
    assert evaluations(tiny_run)[1]["scores"]["fid"]["value"] != before


def test_a_run_that_cannot_be_read(began, tiny_run):
    copy_runs(tiny_run, "a", "b")
    Path("sweep/a/checkpoints/step-00000004.pt").write_bytes(b"")
    code, _, err = began("evaluate", "ckpt=sweep", *FEW, "scores=fid")
    assert code == 0
    assert err.startswith("warning: ckpt=sweep/a")
    assert err.strip().endswith("; left out")
    assert len(evaluations(Path("sweep/b"))) == 1
    code, out, err = began("evaluate", "ckpt=[sweep/b,sweep/a]", *FEW, "scores=fid", "seed=1")
    assert (code, out, err.count("\n")) == (2, "", 1)  # one that was named
    shutil.rmtree("sweep/b")
    code, _, err = began("evaluate", "ckpt=sweep", *FEW, "scores=fid")
    assert code == 2
    assert "ckpt=sweep: none of the runs in that folder can be read" in err


# --- protocols ------------------------------------------------------------------------------------


def pixels_of(source, rows):
    return source.images[rows].flatten(1).double() / 255


def test_protocols_set_the_number_the_reference_and_the_extractor(began, tiny_run, monkeypatch):
    """With fewer images than the protocols want, and pixels in place of Inception."""
    monkeypatch.setitem(checks.PROTOCOLS, "lucic", checks.Protocol(60, "test", "pixels"))
    monkeypatch.setitem(checks.PROTOCOLS, "50k", checks.Protocol(70, "train", "pixels", whole=True))
    trained = load(str(tiny_run), CPU)
    train, test = (get(trained.settings.dataset) for get in (sources.load, sources.load_test))
    fakes = generate_all(trained.network, latents.from_seeds(range(1_000_000, 1_000_070), 8))
    fakes = fakes.flatten(1).double() / 255
    rows = {n: torch.randperm(n, generator=torch.Generator().manual_seed(0)) for n in (200, 10_000)}

    assert began("evaluate", f"ckpt={tiny_run}", "protocol=lucic", "scores=fid")[0] == 0
    (record,) = evaluations(tiny_run)
    assert (record["protocol"], record["n"], record["data"]["count"]) == ("lucic", 60, 10_000)
    assert record["extractor"].startswith("pixels@")
    made, unseen = record["scores"]["fid"], pixels_of(test, rows[10_000][:60])
    assert made["value"] == pytest.approx(scores.fid(fakes[:60], unseen), rel=1e-4)
    floor = scores.fid(pixels_of(train, rows[200][:60]), unseen)
    assert made["floor"] == pytest.approx(floor, rel=1e-4)

    code, out, _ = began("evaluate", f"ckpt={tiny_run}", "protocol=50k", "scores=fid")
    assert code == 0
    assert "protocol=50k: 70 images of" in out
    assert "against 200 training images" in out
    made = evaluations(tiny_run)[1]["scores"]["fid"]
    assert made["value"] == pytest.approx(scores.fid(fakes, pixels_of(train, rows[200])), rel=1e-4)


def test_protocols_that_do_not_fit(began, tiny_run):
    before = files_of(tiny_run)
    for protocol, why in (
        ("pacgan", "protocol=pacgan: is for dataset=stacked_mnist, and this generator was trained"),
        ("lucic", "extractor=inception: no weights in"),
    ):
        line = ("evaluate", f"ckpt={tiny_run}", f"protocol={protocol}")
        code, _, err = began(*line)
        assert code == 2
        assert why in err
    assert files_of(tiny_run) == before


def test_a_folder_has_the_test_images_that_are_given(began, tmp_path):
    for name, n, low in (("photos", 50, 0), ("unseen", 44, 100)):
        (tmp_path / name).mkdir()
        for i in range(n):
            pixels = np.random.default_rng(low + i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    train = ["train", "dataset=folder", "dataset.root=photos", "steps=1", "hydra.run.dir=r", *TINY]
    assert began(*train)[0] == 0
    few = ("n=25", "extractor=pixels", "cells=1")
    code, out, _ = began("evaluate", "ckpt=r", *few, "scores=authpct")
    assert code == 0
    assert "authpct has no floor: dataset=folder has no test images; give some as test_root" in out
    assert "unknown" in out
    assert evaluations(tmp_path / "r")[0]["scores"]["authpct"]["floor"] is None
    for line, why in (
        ((), "scores=c_t: dataset=folder has no test images"),
        (("test_root=photos",), "the test images are the training images"),
        (("test_root=gone",), "test_root: dataset.root=gone"),
    ):
        code, _, err = began("evaluate", "ckpt=r", *few, "scores=[c_t]", *line)
        assert code == 2
        assert why in err
    copying = ("scores=[authpct,c_t]", "test_root=unseen")
    assert began("evaluate", "ckpt=r", *few, *copying)[0] == 0
    (record,) = evaluations(tmp_path / "r")
    assert record["test_data"]["count"] == 44
    made = record["scores"]
    assert (made["authpct"]["floor_n"], made["c_t"]["floor_n"]) == (25, 22)
    data = settings("train", *train[1:3]).dataset
    data.image_size, data.width = 16, 4
    real, test = (sources.load(replace(data, root=root)) for root in ("photos", "unseen"))
    rows = torch.randperm(44, generator=torch.Generator().manual_seed(0))[:25]
    flat = [(x.images.flatten(1) / 255) for x in (real, test)]
    expected = copying_module.Copying(flat[0], 1, 0).authpct(flat[1][rows])
    assert made["authpct"]["floor"] == pytest.approx(expected)
