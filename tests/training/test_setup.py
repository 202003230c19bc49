"""The run folder, its lock, and what a step needs."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import TINY, settings

from began_cli.data import sources
from began_cli.errors import UserError
from began_cli.training import setup
from began_cli.training.setup import claim_folder


def line(digits, run, *more: str) -> list[str]:
    return ["train", f"dataset.root={digits}", f"hydra.run.dir={run}", *TINY, *more]


def test_one_process_a_run_folder(began, digits, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with claim_folder(run):
        code, _, err = began(*line(digits, run, "steps=1"))
        assert code == 2
        assert f"pid {os.getpid()}" in err
        with pytest.raises(UserError), claim_folder(run):
            pass
    assert began(*line(digits, run, "steps=1"))[0] == 0


def test_a_dead_process_holds_no_lock(tmp_path):
    code = (
        "import os, signal, sys, pathlib\n"
        "from began_cli.training.setup import claim_folder\n"
        "with claim_folder(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    with claim_folder(tmp_path):
        pass


def test_stale_temporaries_are_removed(began, tiny_run):
    stale = [tiny_run / "checkpoints" / ".step-00000009.pt.abc.tmp"]
    stale.append(tiny_run / ".metrics.jsonl.abc.tmp")
    for path in stale:
        path.write_bytes(b"half")
    evaluating = tiny_run / ".evaluation.json.abc.tmp"  # of another process, which holds no lock
    evaluating.write_bytes(b"half")
    assert began("train", f"resume={tiny_run}", "steps=5")[0] == 0
    assert not any(path.exists() for path in stale)
    assert evaluating.exists()


def test_the_same_parts_for_the_same_seed(digits):
    cfg = settings("train", f"dataset.root={digits}", *TINY)
    source = sources.load(cfg.dataset)
    drawn = []
    for seed in (0, 0, 1):
        cfg.seed = seed
        setup.seed_everything(seed)
        update, batches, latents = setup.build_parts(cfg, source, torch.device("cpu"))
        weight = next(update.generator.parameters()).detach().flatten()
        drawn.append(torch.cat([weight, batches().flatten(), latents().flatten()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    run = tmp_path / "file" / "run"
    with pytest.raises(UserError, match="file/run: cannot be written to"), claim_folder(run):
        pass


def test_other_images_than_those_of_the_checkpoint_are_refused(digits):
    cfg = settings("train", f"dataset.root={digits}", *TINY)
    card = setup.load_data(cfg, None).card()
    assert setup.load_data(cfg, {"data": card}).card() == card
    with pytest.raises(UserError, match="3 of elsewhere then, 200 of"):
        setup.load_data(cfg, {"data": {"sha256": "x", "count": 3, "origin": "elsewhere"}})
