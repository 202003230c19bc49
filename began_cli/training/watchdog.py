"""Detect a run that goes wrong, from the logged values, and say which setting to change."""

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from began_cli.gan import losses
from began_cli.settings.train import BeganPaperLossConfig, PenalisedScoreLossConfig, TrainConfig


@dataclass(frozen=True, slots=True)
class Alarm:
    """A rule that spoke: advice in one line; `fatal` if the run will not recover."""

    rule: str
    advice: str
    fatal: bool


class Rule(NamedTuple):
    """A condition on the logged values, as it stands at one log."""

    name: str
    holds: bool
    patience: int  # logs in a row for which it must hold before it speaks
    advice: str
    fatal: bool


class Watchdog:
    """Checks the logged values. Each rule speaks once, until its condition has passed."""

    def __init__(self, c: TrainConfig, precision: str) -> None:
        """`precision` is what `c.precision` stands for."""
        self.c, self.precision, self.loss = c, precision, losses.class_of(c.loss)
        self.patience = c.watch.patience
        self._held: dict[str, int] = {}  # rule -> logs in a row
        self._convergence: deque[float] = deque(maxlen=self.patience)
        self._loss_d: deque[float] = deque(maxlen=self.patience)  # score losses: without a penalty

    def look(self, values: dict[str, float], weights_finite: bool) -> list[Alarm]:
        """Return the alarms of this log; `values` are its values by their names."""
        self._loss_d.append(values["loss_real"] + values["loss_fake"])
        alarms = []
        for rule in (
            self._not_finite(values, weights_finite),
            self._collapse(values),
            self._blind(values),
            self._winning(),
            self._pinned(values),
            self._at_rest(values),
        ):
            self._held[rule.name] = self._held.get(rule.name, 0) + 1 if rule.holds else 0
            if self._held[rule.name] == rule.patience:
                alarms.append(Alarm(rule.name, rule.advice, rule.fatal))
        return alarms

    def forget(self) -> None:
        """Start anew, after a roll-back."""
        self._held.clear()
        self._convergence.clear()
        self._loss_d.clear()

    def _not_finite(self, values: dict[str, float], weights_finite: bool) -> Rule:
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        advice = f"{', '.join(bad) or 'a weight'} is not finite; "
        advice += f"lower optimizer.lr={self.c.optimizer.lr:g}"
        if self.precision in ("bf16", "fp16"):
            advice += ", or set precision=fp32"
        return Rule("not finite", bool(bad) or not weights_finite, 1, advice, True)

    def _collapse(self, values: dict[str, float]) -> Rule:
        share = values["diversity"]
        advice = f"the samples' spread is {share:.0%} of the data's: the generator has collapsed; "
        if self._d_wins():
            advice += f"the discriminator always wins: {self._slower_d()}"
        else:
            advice += self.loss.collapse_remedy(self.c)
        return Rule("collapse", share < self.c.watch.diversity, self.patience, advice, True)

    def _blind(self, values: dict[str, float]) -> Rule:
        chance = self.loss.chance
        holds = chance is not None and self._loss_d[-1] > chance - 0.002 * max(1.0, chance)
        advice = "the discriminator no longer tells real from fake; "
        if isinstance(self.c.loss, PenalisedScoreLossConfig) and self.c.loss.r1:
            advice += f"lower loss.r1={self.c.loss.r1:g}, or "
        advice += f"raise optimizer.lr_d={self.c.optimizer.lr_d:g} "
        advice += f"or model.width={self.c.model.width}"
        return Rule("blind", holds, self.patience, advice, True)

    def _winning(self) -> Rule:
        advice = f"the discriminator always wins; {self._slower_d()}"
        return Rule("winning", self._d_wins(), self.patience, advice, False)

    def _d_wins(self) -> bool:
        """Return whether the median of the last L_D is below a twentieth of chance; a Wasserstein
        critic's L_D is a distance, so it cannot be told there."""
        chance = self.loss.chance
        return bool(chance) and statistics.median(self._loss_d) < 0.05 * chance

    def _slower_d(self) -> str:
        rates = self.c.optimizer
        return f"lower optimizer.lr_d={rates.lr_d:g}, or raise optimizer.lr_g={rates.lr_g:g}"

    def _pinned(self, values: dict[str, float]) -> Rule:
        c, k_t = self.c.loss, values.get("k_t")
        if "margin" in values:
            advice = "k_t has rested at 0: the discriminator reconstructs real images no better "
            advice += f"than blank ones; raise optimizer.lr_d={self.c.optimizer.lr_d:g}"
            return Rule("pinned", k_t == 0, self.patience, advice, False)
        if not isinstance(c, BeganPaperLossConfig) or k_t is None or c.k_min == c.k_max:
            return Rule("pinned", False, self.patience, "", False)
        low, high = math.isclose(k_t, c.k_min, abs_tol=1e-7), math.isclose(k_t, c.k_max)
        advice = f"k_t has rested on its {'lower' if low else 'upper'} bound {k_t:g}; "
        if low:
            advice += f"fakes cost more than gamma times reals: raise loss.gamma={c.gamma:g}"
        else:
            advice += f"lower loss.gamma={c.gamma:g} or loss.lambda_k={c.lambda_k:g}"
        # A lower bound above 0 is set for k_t to rest on.
        return Rule("pinned", (low and c.k_min == 0) or high, self.patience, advice, False)

    def _at_rest(self, values: dict[str, float]) -> Rule:
        m = values.get("convergence")
        if m is None:
            return Rule("at rest", False, 1, "", False)
        self._convergence.append(m)
        past = self._convergence
        still = len(past) == self.patience and max(past) - min(past) < 0.005 * abs(m)
        advice = f"M_global has rested at {m:.4g}; the run has converged, or lower optimizer.lr"
        return Rule("at rest", still, 1, f"{advice}={self.c.optimizer.lr:g}", False)


def finite(networks: list[nn.Module]) -> bool:
    """Return whether every weight is finite; synchronises with the device once."""
    sums = [weight.detach().sum() for network in networks for weight in network.parameters()]
    return bool(torch.stack(sums).isfinite().all())
