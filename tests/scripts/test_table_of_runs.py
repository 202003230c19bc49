"""The table of any runs: what stands in its columns, its order, and what it refuses."""

import json

import pytest
import table_of_runs

ENTRY = {"classes": [0, 10, 90], "real_classes": [20, 20, 60]}


def write(run, gamma, fid, real, fake):
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(f"loss: {{gamma: {gamma}, energy: l1}}\nprecision: bf16\n")
    log = {"step": 100, "images": 6400, "train/loss_real": real, "train/loss_fake": fake}
    (run / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in ({}, log)))
    scored = [
        {"step": step, "scores": {"fid": {"value": fid * 100 / step, "floor": 0.5}}, **ENTRY}
        for step in (100, 30)
    ]
    (run / "evaluation.json").write_text(json.dumps({"evaluations": scored}))


def called(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["x", *map(str, words)])
    table_of_runs.main()


def test_columns_and_order(tmp_path, monkeypatch, capsys):
    write(tmp_path / "a", 2, 40.0, 0.1, 0.15)
    write(tmp_path / "b", 0.5, 600.0, 0.2, 0.1)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.yaml").write_text("loss: {gamma: 10}\n")  # begun, no more
    columns = ["loss.gamma", "ratio", "fid", "rarest", "rare", "images", "loss.energy"]
    called(monkeypatch, tmp_path, "--columns", *columns)
    assert capsys.readouterr().out.splitlines() == [
        "| loss.gamma | ratio | fid | rarest | rare | images | loss.energy |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| 0.5 | 0.5 | 600 | 0 | 1 | 6,400 | l1 |",
        "| 2 | 1.5 | 40 | 0 | 1 | 6,400 | l1 |",
        "| 10 | - | - | - | - | - | - |",
        "| real images |  | 0.5 | 20 | 0 |  |  |",
    ]


def test_a_log_that_is_none_is_passed_over(tmp_path, monkeypatch, capsys):
    write(tmp_path / "a", 2, 40.0, 0.1, 0.15)
    with (tmp_path / "a" / "metrics.jsonl").open("a") as logs:
        logs.write('[]\n{"step": 200}\n{"step": 3')  # a cut
    called(monkeypatch, tmp_path, "--columns", "step", "ratio")
    assert capsys.readouterr().out.splitlines()[2:] == ["| 100 | 1.5 |"]


def test_measures_are_those_of_the_checkpoint_that_was_scored(tmp_path, monkeypatch, capsys):
    write(tmp_path / "a", 2, 40.0, 0.1, 0.15)
    later = {"step": 200, "images": 12_800, "train/loss_real": 9.0, "train/loss_fake": 1.0}
    with (tmp_path / "a" / "metrics.jsonl").open("a") as logs:
        logs.write(json.dumps(later))  # the run went on
    called(monkeypatch, tmp_path, "--columns", "fid", "step", "images", "ratio")
    assert capsys.readouterr().out.splitlines()[2] == "| 40 | 100 | 6,400 | 1.5 |"


def test_scores_of_unlike_numbers_of_images_do_not_compare(tmp_path, monkeypatch, capsys):
    for name, n in (("a", 500), ("b", 10_000)):
        write(tmp_path / name, 2, 40.0, 0.1, 0.15)
        path = tmp_path / name / "evaluation.json"
        path.write_text(path.read_text().replace('"step"', f'"n": {n}, "step"'))
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, tmp_path, "--columns", "fid")
    assert ended.value.code == 2
    assert "on 500 images" in capsys.readouterr().err


@pytest.mark.parametrize("scores", ['{"fid": 3}', "[]", '{"fid": {"value": null, "floor": 1}}'])
def test_scores_of_another_shape_are_refused(tmp_path, monkeypatch, capsys, scores):
    write(tmp_path / "a", 2, 40.0, 0.1, 0.15)
    text = f'{{"evaluations": [{{"step": 1, "scores": {scores}}}]}}'
    (tmp_path / "a" / "evaluation.json").write_text(text)
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, tmp_path, "--columns", "step")
    assert ended.value.code == 2
    assert "evaluation.json" in capsys.readouterr().err


def test_scores_by_two_extractors_are_not_put_into_one_column(tmp_path, monkeypatch, capsys):
    write(tmp_path / "a", 2, 40.0, 0.1, 0.15)
    write(tmp_path / "b", 3, 40.0, 0.1, 0.15)
    path = tmp_path / "b" / "evaluation.json"
    path.write_text(path.read_text().replace('"value"', '"extractor": "pixels", "value"'))
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, tmp_path, "--columns", "loss.gamma", "fid")
    assert ended.value.code == 2
    assert "do not compare" in capsys.readouterr().err
    called(monkeypatch, tmp_path, "--columns", "loss.gamma", "ratio")
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_seeds_makes_means_of_runs_that_are_alike(tmp_path, monkeypatch, capsys):
    write(tmp_path / "a", 2, 40.0, 0.1, 0.15)
    write(tmp_path / "b", 2, 44.0, 0.1, 0.15)
    write(tmp_path / "c", 0.5, 600.0, 0.2, 0.1)
    write(tmp_path / "d", 2, 1.0, 0.1, 0.15)
    (tmp_path / "d" / "evaluation.json").unlink()  # not scored: not counted
    write(tmp_path / "e", 2, 1.0, 0.1, 0.15)
    for name in ("metrics.jsonl", "evaluation.json"):  # not as far as the others
        path = tmp_path / "e" / name
        path.write_text(path.read_text().replace('"step": 100', '"step": 50'))
    named_twice = [tmp_path, tmp_path / "a"]
    called(monkeypatch, *named_twice, "--columns", "loss.gamma", "seeds", "fid", "step")
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| 0.5 | 1 | 600 | 100 |",
        "| 2 | 1 | 1 | 50 |",
        "| 2 | 2 | 42 ± 2.8 | 100 |",  # the root of ((40 - 42)^2 + (44 - 42)^2) / 1
        "| real images |  | 0.5 |  |",
    ]


@pytest.mark.parametrize(
    ("runs", "column", "said"),
    [
        ("", "nosuch", "--columns nosuch"),
        ("", "loss", "--columns loss: a group"),
        ("", "precision", "--columns precision"),  # the score, not the setting
        ("nowhere", "fid", "nowhere: no such folder"),
    ],
)
def test_bad_line_is_refused(tmp_path, monkeypatch, capsys, runs, column, said):
    write(tmp_path / "a", 2, 40.0, 0.1, 0.15)
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, tmp_path / runs, "--columns", column)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["evaluation.json", "config.yaml"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, capsys, name):
    write(tmp_path / "a", 2, 40.0, 0.1, 0.15)
    (tmp_path / "a" / name).write_text("{")
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, tmp_path, "--columns", "fid")
    assert ended.value.code == 2
    assert name in capsys.readouterr().err
