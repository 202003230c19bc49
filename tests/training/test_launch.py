"""The launcher of several processes; tests/test_ranks.py runs it."""

import pytest
import torch
from conftest import settings
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from began_cli.errors import UserError
from began_cli.generators import checkpoint
from began_cli.training import launch


def run(monkeypatch, tmp_path, end):
    """Run `launch.main` with processes that end so."""

    def started(*words):
        assert words == ("-m", "began_cli", "train", "loss=began")
        raise end

    monkeypatch.setattr(launch, "elastic_launch", lambda *_: started)
    cfg = settings("train", "loss=began", "devices=2", "device=cpu", f"out={tmp_path}/run")
    return launch.main(cfg, ["loss"], ["loss=began"])


def failure(code):
    failed = ProcessFailure(local_rank=1, pid=1, exitcode=code, error_file="none")
    return ChildFailedError("began_cli", {1: failed})


def test_it_ends_with_the_code_of_the_first_process_that_failed(monkeypatch, tmp_path):
    with pytest.raises(SystemExit) as ending:
        run(monkeypatch, tmp_path, failure(2))
    assert ending.value.code == 2
    with pytest.raises(SystemExit) as ending:
        run(monkeypatch, tmp_path, SignalException("SIGTERM", 15))
    assert ending.value.code == 75


def test_a_killed_process_is_named_with_the_way_to_go_on(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="process 1 of 2 was ended by SIGKILL; no checkpoint yet"):
        run(monkeypatch, tmp_path, failure(-9))
    path = checkpoint.path_for(tmp_path / "run", 30)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    line = launch.way_to_resume(tmp_path / "run")
    assert line == f"go on from step-00000030.pt with began train resume={tmp_path}/run"


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what there is without a GPU")
def test_too_few_devices_are_refused_before_anything_starts():
    cfg = settings("train", "loss=began", "devices=2", "device=cuda")
    with pytest.raises(UserError, match="there are 0 CUDA devices here"):
        launch.main(cfg, [], [])
