"""Schedules of the learning rates."""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from began_cli.settings.train import LinearScheduleConfig, PlateauScheduleConfig, ScheduleConfig


class Constant:
    """Leave the rates as the optimizers have them.

    `after` is called after every step.
    """

    def __init__(self, optimizers: list[Optimizer]) -> None:
        self.optimizers = optimizers
        self.first = [group["lr"] for group in self.groups]

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The groups of both optimizers, as they are now: loading a state replaces them."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def after(self, step: int, scalars: dict[str, Tensor]) -> str | None:
        """Set the rates for the next step; return a line for the user, or None.

        `step` is the number of steps taken, `scalars` are the measures of the last one.
        """
        return None

    def scale(self, share: float) -> None:
        """Multiply the rates by `share`, from now on."""
        self.first = [first * share for first in self.first]
        for group in self.groups:
            group["lr"] *= share

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the first rates; the optimizers restore the current ones."""
        self.first = state["first"]


class Linear(Constant):
    """Keep the rates until step `start`, then lower them linearly to 0 at step `end`."""

    def __init__(self, optimizers: list[Optimizer], c: LinearScheduleConfig) -> None:
        super().__init__(optimizers)
        self.c = c

    def after(self, step: int, scalars: dict[str, Tensor]) -> str | None:
        share = (self.c.end - step) / (self.c.end - self.c.start)
        for group, first in zip(self.groups, self.first, strict=True):
            group["lr"] = first * min(1.0, max(0.0, share))
        return None


class Plateau(Constant):
    """Halve the rates when BEGAN's M_global stalls, down to a floor.

    M is averaged over each window of steps on the device and read once, at its end. It has stalled
    if it is not lower than the best window before by the share `threshold`. Windows that begin
    within `cooldown` steps of a halving only update the best.
    """

    def __init__(self, optimizers: list[Optimizer], c: PlateauScheduleConfig) -> None:
        super().__init__(optimizers)
        self.c = c
        self.best = float("inf")
        self.rest_until = 0
        self._sum: Tensor | None = None

    def after(self, step: int, scalars: dict[str, Tensor]) -> str | None:
        m = scalars["convergence"]
        self._sum = m.clone() if self._sum is None else self._sum.add_(m)
        if step % self.c.window:
            return None
        mean, self._sum = self._sum.item() / self.c.window, None
        best, self.best = self.best, min(self.best, mean)
        if mean <= best * (1 - self.c.threshold) or step - self.c.window < self.rest_until:
            return None
        return self._halve(step, mean, best)

    def _halve(self, step: int, mean: float, best: float) -> str | None:
        before = [group["lr"] for group in self.groups]
        for group in self.groups:
            group["lr"] = max(group["lr"] / 2, min(group["lr"], self.c.floor))
        if before == [group["lr"] for group in self.groups]:
            return None
        self.rest_until = step + self.c.cooldown
        rates = " and ".join(f"{lr:g}" for lr in dict.fromkeys(g["lr"] for g in self.groups))
        return (
            f"step {step:,}: learning rate {rates}: M_global was {mean:.4g} over the last "
            f"{self.c.window:,} steps, {best:.4g} at best before"
        )

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "best": self.best,
            "rest_until": self.rest_until,
            "sum": self._sum,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.best, self.rest_until = state["best"], state["rest_until"]
        device = self.groups[0]["params"][0].device
        self._sum = None if state["sum"] is None else state["sum"].to(device)


def build(c: ScheduleConfig, optimizers: list[Optimizer]) -> Constant:
    """Return the schedule that the settings name."""
    match c:
        case PlateauScheduleConfig():
            return Plateau(optimizers, c)
        case LinearScheduleConfig():
            return Linear(optimizers, c)
    return Constant(optimizers)
