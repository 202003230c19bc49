"""The table of results: which scores it takes, and when a run is trained, goes on or is left."""

import argparse
import json

import pytest
import reproduce_table


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
    text = reproduce_table.table(tmp_path / "mnist", ["gan", "bgan"], 64 * 120, [])
    head, _, row, real = [[cell.strip() for cell in x.split("|")[1:-1]] for x in text.splitlines()]
    got = dict(zip(head, row, strict=True))
    assert got["seeds"] == "2"
    assert got["steps"] == "120"
    assert got["fid"] == "5 ± 1.4"  # the root of ((4 - 5)^2 + (6 - 5)^2) / 1
    assert got["rarest class, %"] == "25"
    assert got["minutes"] == "2"  # 120 steps of 64 images at 64 images/s
    assert got["kid"] == "-"  # not scored
    assert dict(zip(head, real, strict=True))["fid"] == "0.5"


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
    run = tmp_path / "gan-0"
    if scored:
        write(run, scored, [1.0] * len(scored))
    for step in there:
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        (run / "checkpoints" / f"step-{step:08}.pt").touch()
    said = []
    monkeypatch.setattr(reproduce_table, "began", lambda *line: said.append(" ".join(line)))
    args = argparse.Namespace(images=64 * 120, settings=["precision=bf16"])
    reproduce_table.made(run, "gan", "mnist", 0, args, [])
    assert [line.startswith(start) for line, start in zip(said, lines, strict=True)] == [
        True
    ] * len(lines)
    assert all("steps=120" in line for line in said if line.startswith("train"))


def test_steps_count_every_batch_of_the_critic():
    length = reproduce_table.length
    assert length("gan", "mnist", 512_000, []) == 8000
    assert length("wgan", "mnist", 512_000, []) == 1600  # 5 batches of 64 a step
    assert length("gan", "mnist", None, ["steps=7"]) == 7
