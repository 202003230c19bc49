"""What a run folder tells of itself: its state, its curves and its scores, read with suspicion.

Other programs, and other versions of this one, may have written these files, or half of them.
"""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from began_cli.settings.commands import NEIGHBOURLY

# What is drawn and told of metrics.jsonl, in this order, with the papers' names.
CURVES = {
    "train/convergence": "M_global",
    "train/k_t": "k_t",
    "train/loss_real": "L(x)",
    "train/loss_fake": "L(G(z))",
    "train/diversity": "diversity",
}
FINISHED, STOPPED, FAILED, NOTHING = "finished", "stopped", "failed", "no checkpoint"


@dataclass(frozen=True, slots=True, order=True)
class Column:
    """What two scores must share to be compared."""

    score: str
    extractor: str  # `name@hash`
    n: int  # images scored
    options: str  # what else the score depends on, such as `k=5`
    data: str  # the start of the SHA-256 of the real images


@dataclass(slots=True)
class Scored:
    """A score, and what real images score against real ones (NaN if that is not known)."""

    value: float
    floor: float


@dataclass(slots=True)
class Run:
    """One run, as far as its folder tells."""

    folder: Path
    name: str  # the folder's path below that of all runs
    settings: dict[str, Any]  # flat; empty if they are not known
    state: str = NOTHING  # FINISHED, STOPPED, FAILED or NOTHING
    status: str = NOTHING  # the same in words
    step: int = 0  # of the newest checkpoint
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    scores: dict[Column, Scored] = field(default_factory=dict)
    sheet: bytes | None = None  # a PNG of samples
    sheet_size: tuple[int, int] = (0, 0)  # its width and height in pixels

    @property
    def seed(self) -> Any:
        return self.settings.get("seed")

    def last(self, curve: str) -> float:
        """The last value of a curve, NaN if there is none."""
        points = self.curves.get(curve)
        return points[-1][1] if points else math.nan


def curves(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """The curves of CURVES that metrics.jsonl has, each as (step, value), NaN where it has null."""
    found: dict[str, list[tuple[float, float]]] = {}
    for logged in logs(folder):
        for name in CURVES:
            if name in logged:
                found.setdefault(name, []).append((float(logged["step"]), _number(logged[name])))
    return found


def logs(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; those that are no JSON object with a step, such as one cut short,
    are passed over."""
    found: list[dict[str, Any]] = []
    for line in _lines(folder / "metrics.jsonl"):
        try:
            logged = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(logged, dict) and _is_number(logged.get("step")):
            found.append(logged)
    return found


def scores(folder: Path, step: int) -> tuple[dict[Column, Scored], list[str]]:
    """The scores in evaluation.json of the checkpoint of `step`, and a line for what is left out.

    Of several evaluations that differ in nothing but their seed, the lowest seed's counts.
    """
    path = folder / "evaluation.json"
    if not path.is_file():
        return {}, []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        evaluations = [each for each in content["evaluations"] if isinstance(each, dict)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}, ["evaluation.json cannot be read: its scores are left out"]
    evaluations.sort(key=lambda each: _whole(each.get("seed")), reverse=True)
    found: dict[Column, Scored] = {}
    other_steps: set[int] = set()
    for each in evaluations:
        made = each.get("scores")
        if each.get("step") != step:
            other_steps.add(_whole(each.get("step")))
            continue
        for name, score in made.items() if isinstance(made, dict) else ():
            if isinstance(score, dict) and _is_number(score.get("value")):
                column = _column(name, score, each)
                found[column] = Scored(_number(score["value"]), _number(score.get("floor")))
    if other_steps and not found:
        return {}, [  # scores made during training are of many steps
            f"evaluation.json ends at step {max(other_steps):,} and the newest checkpoint is of "
            f"step {step:,}: "
            "its scores are left out; began evaluate makes those of the newest"
        ]
    return found, []


def _column(name: str, score: dict[str, Any], evaluation: dict[str, Any]) -> Column:
    named = {"kid": ["kid_subset"], "ndb": ["bins"]}.get(name, ["k"] if name in NEIGHBOURLY else [])
    options = " ".join(f"{key}={evaluation.get(key)}" for key in named)
    data = evaluation.get("data")
    sha256 = str(data.get("sha256", "")) if isinstance(data, dict) else ""
    extractor = score.get("extractor", evaluation.get("extractor"))
    return Column(name, str(extractor), _whole(evaluation.get("n")), options, sha256[:8])


def state(
    folder: Path, step: int | None, settings: dict[str, Any], curves: dict[str, Any]
) -> tuple[str, str]:
    """Where a run stands: one of the four states, and the same in words.

    `step` is that of its newest checkpoint, None if it has none. Training that ended before its
    last step has failed if a value was not finite when it last logged, or if the watchdog, told to
    act, had the last word; else it was stopped, or is running still.
    """
    steps = settings.get("steps")
    if step is not None and isinstance(steps, int) and step >= steps:
        return FINISHED, f"finished at step {step:,}"
    at = "without a checkpoint" if step is None else f"at step {step:,}"
    if step is not None and isinstance(steps, int):
        at += f" of {steps:,}"
    if any(math.isnan(points[-1][1]) for points in curves.values()):
        return FAILED, f"failed {at}: a value was not finite"
    last = _lines(folder / "train.log")[-1:]
    alarm = re.fullmatch(r"\S+ \S+ watchdog: (.*)", last[0]) if last else None
    if alarm and settings.get("watchdog") in ("stop", "rollback"):
        return FAILED, f"failed {at}: {alarm[1]}"
    return (NOTHING, NOTHING) if step is None else (STOPPED, f"stopped {at}")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _is_number(value: Any) -> bool:
    return math.isfinite(_number(value))


def _number(value: Any) -> float:
    """The value as a number, NaN if it is none."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_one and abs(value) < 1e300 else math.nan  # JSON has any whole number


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else -1
