"""gpu_check.py from end to end on the null GPU, where values mean nothing."""

import json
from pathlib import Path

import gpu_check
import pytest
import torch

from began_cli.errors import UserError
from began_cli.settings.fields import GROUPS

TINY = ["dataset.image_size=16", "dataset.width=4", "batch_size=4"]
VALUES = {"trajectory", "resumed"}  # the checks that compare values


@pytest.mark.slow
def test_the_report_has_every_check_and_every_speed(on_gpu):
    line = ["--seconds", "0.01", "--variants", "eager", "captured", "--", *TINY]
    _, out = on_gpu("gpu_check", line)
    result = json.loads(Path("gpu_check.json").read_text())
    assert set(result["checks"]) == VALUES | {"waits"} | {
        f"captured, {loss}" for loss in GROUPS["loss"]
    }
    for name, check in result["checks"].items():
        assert check["passed"] or name in VALUES, (name, check)
    for name, rows in result["speeds"].items():
        variants = [row["variant"] for row in rows]
        public = [] if "bgan" in name else ["three passes", "two phases"]
        assert variants == ["eager", "captured", *public]
        for row in rows:
            assert "error" not in row, row
            assert row["images/s"] > 0
            assert f"| {name} | {row['variant']} | {row['precision']} | " in out
    assert "| waits | passed | none in 5 eager and 5 captured steps of each loss |" in out


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what there is without a GPU")
def test_it_needs_a_gpu(monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu_check.py"])
    with pytest.raises(UserError, match="no CUDA device"):
        gpu_check.main()


def test_an_error_in_a_check_is_a_failure():
    assert gpu_check.check(lambda: (True, "equal")) == {"passed": True, "found": "equal"}
    broken = gpu_check.check(lambda: (1 / 0, ""))
    assert not broken["passed"]
    assert "division" in broken["found"]
