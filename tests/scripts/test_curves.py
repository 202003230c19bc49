"""The curves of docs/losses: their runs compose, are trained once, and come onto the picture."""

import json

import pytest
import reproduce_curves
from common import compose_settings
from PIL import Image
from reproduce_curves import PAGES, STEPS

from began_cli.errors import UserError
from began_cli.settings.fields import GROUPS


def test_every_run_composes_and_every_page_is_there():
    for _, lines in PAGES.values():
        for line in lines.values():
            compose_settings(["dataset=mnist", *line])
    assert set(PAGES) == {name.partition("_")[0] for name in GROUPS["loss"]}


def write(run, values, said=""):
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / f"step-{STEPS:08}.pt").touch()
    names = ("loss_d", "loss_g", "diversity")
    logs = [
        {"step": 50 * (i + 1), "images": 1} | {f"train/{name}": each for name in names}
        for i, each in enumerate(values)
    ]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, logs)))
    (run / "train.log").write_text(f"2026-01-31 12:00:00 step 5\n{said}")


def test_what_is_done_is_drawn_and_the_watchdogs_words_are_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproduce_curves, "run_began", lambda *line: pytest.fail("it trained"))
    said = "2026-01-31 12:00:01 watchdog: step 500: all is lost\n"
    for i, values in enumerate(([1.0, 0.5], [1.0, 1.2, None], [1.0, 2.0])):
        write(tmp_path / f"gan-{i}", values, said if i == 1 else "")
    monkeypatch.setattr("sys.argv", ["x", "--only", "gan", "--out", str(tmp_path)])
    reproduce_curves.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition("): ")[2] for line in lines[1:3]] == [
        "step 500: all is lost",
        "no alarm",
    ]
    colours = Image.open(tmp_path / "gan-curves.png").convert("RGB").getcolors(1 << 20)
    assert colours is not None
    drawn = {colour for _, colour in colours}
    # The first three of PALETTE.
    assert drawn >= {(31, 119, 180), (255, 127, 14), (44, 160, 44)}


def test_a_run_that_was_broken_off_goes_on(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(reproduce_curves, "run_began", lambda *line: said.append(line))
    reproduce_curves.complete_run(tmp_path / "new", ["loss=gan"], ["precision=bf16"])
    (tmp_path / "half" / "checkpoints").mkdir(parents=True)
    (tmp_path / "half" / "checkpoints" / "step-00001000.pt").touch()
    reproduce_curves.complete_run(tmp_path / "half", ["loss=gan"], [])
    assert said[0][0] == "train"
    assert {"loss=gan", "precision=bf16", f"steps={STEPS}", "seed=0"} <= set(said[0])
    assert said[1] == ("train", f"resume={tmp_path / 'half'}")


def test_a_run_of_other_settings_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce_curves, "run_began", lambda *line: pytest.fail("it trained"))
    write(tmp_path / "gan-0", [1.0])
    (tmp_path / "gan-0" / "config.yaml").write_text("precision: bf16\n")
    with pytest.raises(UserError, match="has bf16, not fp32"):
        reproduce_curves.complete_run(tmp_path / "gan-0", ["loss=gan"], ["precision=fp32"])
    reproduce_curves.complete_run(tmp_path / "gan-0", ["loss=gan"], ["precision=bf16"])


def test_a_run_without_a_finite_value_is_drawn_empty(tmp_path):
    write(tmp_path / "a", [None, None])
    write(tmp_path / "b", [1.0, 2.0])
    for pair in ("ab", "ba"):
        runs = {name: tmp_path / name for name in pair}
        assert reproduce_curves.draw_curves(tmp_path / "x.png", ("loss_d", "loss_g"), runs).exists()


@pytest.mark.parametrize("word", ["loss=gan", "bf16", "steps=5", "nonsense=3"])
def test_bad_line_is_refused(monkeypatch, capsys, word):
    monkeypatch.setattr("sys.argv", ["x", word])
    with pytest.raises(SystemExit) as ended:
        reproduce_curves.main()
    assert ended.value.code == 2
    assert word.partition("=")[0] in capsys.readouterr().err
