"""Read what a run folder holds: curves from metrics.jsonl, scores from evaluation.json.

The files may be damaged, cut short, or written by another version or program.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from began_cli.settings.commands import NEIGHBOURLY

# The measures in metrics.jsonl that are plotted and tabulated, in this order, by the papers' names.
CURVES = {
    "train/convergence": "M_global",
    "train/k_t": "k_t",
    "train/loss_real": "L(x)",
    "train/loss_fake": "L(G(z))",
    "train/diversity": "diversity",
}
FINISHED, STOPPED, FAILED, NOTHING = "finished", "stopped", "failed", "no checkpoint"

Curves = dict[str, list[tuple[float, float]]]  # name in CURVES -> (step, value), NaN for null


@dataclass(frozen=True, slots=True, order=True)
class Column:
    """A column of scores: all that two scores must share to be comparable."""

    score: str
    extractor: str  # `name@hash`
    n: int  # number of images scored
    options: str  # other parameters of the score, such as `k=5`
    data: str  # first digits of the SHA-256 of the real images
    protocol: str = ""  # that set n, the reference and the extractor


@dataclass(slots=True)
class Score:
    """A score, and the score of real images against real ones (NaN if unknown)."""

    value: float
    floor: float


@dataclass(slots=True)
class Run:
    """A run, as far as its folder describes it."""

    folder: Path
    name: str  # path of the folder, relative to the common parent of all runs
    settings: dict[str, Any]  # by dotted name; empty if unknown
    state: str = NOTHING  # FINISHED, STOPPED, FAILED or NOTHING
    status: str = NOTHING  # the state in words, with the step and the cause
    step: int = 0  # of the newest checkpoint
    curves: Curves = field(default_factory=dict)
    scores: dict[Column, Score] = field(default_factory=dict)
    sheet: bytes | None = None  # sample images as a PNG
    sheet_size: tuple[int, int] = (0, 0)  # width and height of the sheet in pixels

    @property
    def seed(self) -> Any:
        return self.settings.get("seed")

    def last(self, curve: str) -> float:
        """Return the last value of a curve, NaN if there is none."""
        points = self.curves.get(curve)
        return points[-1][1] if points else math.nan


def read_logs(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl that are JSON objects with a step."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    logs: list[dict[str, Any]] = []
    for line in lines.splitlines():
        try:
            log = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(log, dict) and math.isfinite(_to_float(log.get("step"))):
            logs.append(log)
    return logs


def collect_curves(logs: list[dict[str, Any]]) -> Curves:
    """Return the curves of CURVES in the logs."""
    curves: Curves = {}
    for log in logs:
        for name in CURVES:
            if name in log:
                curves.setdefault(name, []).append((float(log["step"]), _to_float(log[name])))
    return curves


def read_scores(folder: Path, step: int) -> tuple[dict[Column, Score], list[str]]:
    """Return the scores in evaluation.json of the checkpoint of `step`, and warnings.

    Of evaluations that differ only in their seed, the one with the lowest seed is taken.
    """
    path = folder / "evaluation.json"
    if not path.is_file():
        return {}, []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        evaluations = [each for each in content["evaluations"] if isinstance(each, dict)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}, ["evaluation.json cannot be read: its scores are left out"]
    evaluations.sort(key=lambda each: _to_int(each.get("seed")), reverse=True)
    scores: dict[Column, Score] = {}
    other_steps: set[int] = set()
    for evaluation in evaluations:
        if evaluation.get("step") != step:
            other_steps.add(_to_int(evaluation.get("step")))
            continue
        entries = evaluation.get("scores")
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            value = _to_float(entry.get("value")) if isinstance(entry, dict) else math.nan
            if math.isfinite(value):
                column = _column(name, entry, evaluation)
                scores[column] = Score(value, _to_float(entry.get("floor")))
    if other_steps and not scores:  # scores made during training are of many steps
        return {}, [
            f"evaluation.json ends at step {max(other_steps):,} and the newest checkpoint is of "
            f"step {step:,}: its scores are left out; began evaluate scores the newest checkpoint"
        ]
    return scores, []


def _column(name: str, entry: dict[str, Any], evaluation: dict[str, Any]) -> Column:
    own = {"kid": ["kid_subset"], "ndb": ["bins"], "c_t": ["cells"]}
    keys = own.get(name, ["k"] if name in NEIGHBOURLY else [])
    options = " ".join(f"{key}={evaluation.get(key)}" for key in keys)
    data = evaluation.get("data")
    sha256 = str(data.get("sha256", "")) if isinstance(data, dict) else ""
    extractor = entry.get("extractor", evaluation.get("extractor"))
    n, protocol = _to_int(evaluation.get("n")), str(evaluation.get("protocol") or "")
    return Column(name, str(extractor), n, options, sha256[:8], protocol)


def describe_state(
    step: int | None, settings: dict[str, Any], logs: list[dict[str, Any]]
) -> tuple[str, str]:
    """Return the state of a run, and the same in words.

    `step` is that of its newest checkpoint, None if it has none. A run that ended before its last
    step has failed if its last log has a value that is not finite, or an alarm of a watchdog that
    was set to act on it. Otherwise it was stopped, or is still running.
    """
    steps = settings.get("steps")
    if step is not None and isinstance(steps, int) and step >= steps:
        return FINISHED, f"finished at step {step:,}"
    where = "without a checkpoint" if step is None else f"at step {step:,}"
    if step is not None and isinstance(steps, int):
        where += f" of {steps:,}"
    last = logs[-1] if logs else {}
    if any(math.isnan(_to_float(last[name])) for name in CURVES if name in last):
        return FAILED, f"failed {where}: a value was not finite"
    if "watchdog" in last and settings.get("watchdog") in ("stop", "rollback"):
        return FAILED, f"failed {where}: step {last['step']:,}: {last['watchdog']}"
    return (NOTHING, NOTHING) if step is None else (STOPPED, f"stopped {where}")


def _to_float(value: Any) -> float:
    """Return a number as float, anything else as NaN."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e300 else math.nan  # JSON's have no limit


def _to_int(value: Any) -> int:
    return value if isinstance(value, int) else -1
