"""The table of results: which scores it takes, and when a run is trained, goes on or is left."""

import argparse
import json

import pytest
import reproduce_table

from began_cli.errors import UserError


def asked(out, **others):
    """Return the command line for 120 steps of 64 images."""
    given = {"out": out, "images": 64 * 120, "seeds": [0, 1, 2], "set": [], "show": False}
    return argparse.Namespace(**given | {"losses": ["gan"], "root": None} | others)


def write(run, steps, fids):
    run.mkdir(parents=True)
    entries = [
        {
            "step": step,
            "scores": {"fid": {"value": fid, "floor": 0.5}},
            "classes": [30, 10],
            "real_classes": [20, 20],
        }
        for step, fid in zip(steps, fids, strict=True)
    ]
    (run / "evaluation.json").write_text(json.dumps({"evaluations": entries}))
    logs = [
        {"step": step, "images": 64 * step, "train/images_per_second": 64.0}
        for step in range(60, max(steps) + 1, 60)
    ]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, logs)))


def test_mean_and_deviation_at_the_step_that_was_asked_for(tmp_path):
    write(tmp_path / "mnist" / "gan-0", [120, 180], [4.0, 1.0])
    write(tmp_path / "mnist" / "gan-1", [120], [6.0])
    write(tmp_path / "mnist" / "gan-2", [180], [9.0])  # not scored at 120
    text = reproduce_table.make_table("mnist", asked(tmp_path, losses=["gan", "bgan"], show=True))
    head, _, row, real = [[cell.strip() for cell in x.split("|")[1:-1]] for x in text.splitlines()]
    got = dict(zip(head, row, strict=True))
    assert got["seeds"] == "2"
    assert got["steps"] == "120"
    assert got["fid"] == "5 ± 1.4"  # the root of ((4 - 5)^2 + (6 - 5)^2) / 1
    assert got["rarest class, %"] == "25"
    assert got["minutes"] == "2"  # 120 steps of 64 images at 64 images/s
    assert got["kid"] == "-"  # not scored
    assert dict(zip(head, real, strict=True))["fid"] == "0.5"


def test_avatars_have_the_rarest_value_of_any_attribute(tmp_path):
    write(tmp_path / "avatars" / "gan-0", [120], [4.0])
    path = tmp_path / "avatars" / "gan-0" / "evaluation.json"
    found = json.loads(path.read_text())
    del found["evaluations"][0]["classes"]
    found["evaluations"][0]["attributes"] = {
        "skin": {"samples": {"pale": 0.8, "rose": 0.2}, "real": {"pale": 0.5, "rose": 0.5}},
        "beard": {"samples": {"none": 0.97, "long": 0.03}, "real": {"none": 0.9, "long": 0.1}},
    }
    path.write_text(json.dumps(found))
    text = reproduce_table.make_table("avatars", asked(tmp_path, show=True))
    head, _, row, _ = [[cell.strip() for cell in x.split("|")[1:-1]] for x in text.splitlines()]
    assert dict(zip(head, row, strict=True))["rarest value"] == "0.3"  # long: 0.03 / 0.1


def test_data_that_comes_with_began_needs_no_folder(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(reproduce_table, "run_began", lambda *line: lines.append(line))
    args = asked(tmp_path, root=tmp_path)
    for dataset in ("avatars", "mnist"):
        reproduce_table.complete_run(tmp_path / dataset / "gan-0", "gan", 120, args)
    given = [any("root=" in word for word in line) for line in lines]
    assert given == [False, False, True, True]


@pytest.mark.parametrize(
    ("there", "scored", "lines"),
    [
        ([], [], ["train loss=gan", "evaluate ckpt="]),
        ([60], [60], ["train resume=", "evaluate ckpt="]),
        ([120], [], ["evaluate ckpt="]),
        ([120], [120], []),
        ([180], [120, 180], []),
    ],
)
def test_what_is_done_is_not_done_again(tmp_path, monkeypatch, there, scored, lines):
    run = tmp_path / "mnist" / "gan-0"
    if scored:
        write(run, scored, [1.0] * len(scored))
    for step in there:
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        (run / "checkpoints" / f"step-{step:08}.pt").touch()
    said = []
    monkeypatch.setattr(reproduce_table, "run_began", lambda *line: said.append(" ".join(line)))
    reproduce_table.complete_run(run, "gan", 120, asked(tmp_path))
    assert all(line.startswith(start) for line, start in zip(said, lines, strict=True))
    assert all("steps=120" in line for line in said if line.startswith("train"))


def test_steps_count_every_batch_of_the_critic(tmp_path):
    args = asked(tmp_path, images=512_000)
    assert reproduce_table.count_steps("gan", "mnist", args) == 8000
    assert reproduce_table.count_steps("wgan", "mnist", args) == 1600  # 5 batches of 64 a step
    args = asked(tmp_path, images=None, set=["steps=7"])
    assert reproduce_table.count_steps("gan", "mnist", args) == 7


@pytest.mark.parametrize("name", ["evaluation.json", "config.yaml"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    run = tmp_path / "mnist" / "gan-0"
    run.mkdir(parents=True)
    (run / name).write_text("{")
    with pytest.raises(UserError, match=name):
        reproduce_table.count_steps("gan", "mnist", asked(tmp_path))


def test_what_is_named_twice_counts_once(tmp_path, monkeypatch, capsys):
    write(tmp_path / "mnist" / "gan-0", [1], [4.0])
    words = ["x", "--losses", "gan", "gan", "--datasets", "mnist", "--seeds", "0", "0", "--show"]
    monkeypatch.setattr("sys.argv", [*words, "--images", "64", "--out", str(tmp_path)])
    reproduce_table.main()
    said = capsys.readouterr().out
    assert said.count("| gan | 1 |") == said.count("| gan |") == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--set", "batch_size=8"], "has 64, not 8; give another --out"),
        (["--images", "64"], "is at step 5 already, and was not scored at 1"),
        (["--show", "--images", "64"], "holds no scores of these runs"),
        (["--set", "loss=gan"], "--losses"),
        (["--set", "+loss=gan"], "--losses"),
        (["--set", "steps=5", "--images", "64"], "--images 64 sets the steps"),
        (["--seeds", "-1"], "--seeds"),
        (["--set", "nosuch=1"], "nosuch"),
        (["--losses", "nope"], "nope"),
        (["--images", "0"], "--images"),
    ],
)
def test_what_cannot_be_is_refused_before_any_training(tmp_path, monkeypatch, capsys, line, said):
    run = tmp_path / "mnist" / "gan-0"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "step-00000005.pt").touch()
    (run / "config.yaml").write_text("batch_size: 64\n")
    monkeypatch.setattr(reproduce_table, "run_began", lambda *line: pytest.fail("it trained"))
    words = ["x", "--losses", "gan", "--datasets", "mnist", "--seeds", "0", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words + line)
    with pytest.raises(SystemExit) as ended:
        reproduce_table.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
