"""Sees a run going wrong, at log time, and says which setting to change."""

import math
import statistics
from collections import deque
from dataclasses import dataclass

import torch
from torch import nn

from began_cli.settings.train import (
    BeganLossConfig,
    EbganLossConfig,
    EbganPtLossConfig,
    TrainConfig,
)

# Where L_D rests when D cannot tell; WGAN's clipped critic stays near 0 even when it can.
BLIND = {"gan": 2 * math.log(2), "bgan": 2 * math.log(2), "wgan_gp": 0.0}
BLIND["bgan_discrete"] = 2 * math.log(2)


@dataclass(frozen=True, slots=True)
class Alarm:
    """What was seen, in one line with the setting to change; `fatal`: the run will not recover."""

    rule: str
    advice: str
    fatal: bool


class Watchdog:
    """Looks at the logged values; each rule speaks once, until what it saw has passed."""

    def __init__(self, c: TrainConfig) -> None:
        self.c = c
        self.patience = c.watch.patience
        self._seen: dict[str, int] = {}  # rule -> logs in a row
        self._convergence: deque[float] = deque(maxlen=self.patience)
        self._loss_d: deque[float] = deque(maxlen=self.patience)

    def look(self, values: dict[str, float], weights_finite: bool) -> list[Alarm]:
        """The rules that speak now, given the values of a log by their names."""
        self._loss_d.append(values["loss_d"])
        rules = [
            self._not_finite(values, weights_finite),
            self._collapse(values),
            self._blind(values),
            self._winning(),
            self._pinned(values),
            self._at_rest(values),
        ]
        alarms = []
        for rule, holds, needed, advice, fatal in rules:
            self._seen[rule] = self._seen.get(rule, 0) + 1 if holds else 0
            if self._seen[rule] == needed:
                alarms.append(Alarm(rule, advice, fatal))
        return alarms

    def forget(self) -> None:
        """Starts anew, after a roll-back."""
        self._seen.clear()
        self._convergence.clear()
        self._loss_d.clear()

    def _not_finite(self, values: dict[str, float], weights_finite: bool) -> tuple:
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        what = ", ".join(bad) if bad else "a weight"
        return (
            "not finite",
            bool(bad) or not weights_finite,
            1,
            f"{what} is not finite; lower optimizer.lr={self.c.optimizer.lr:g}"
            + (", or set precision=fp32" if self.c.precision in ("bf16", "fp16") else ""),
            True,
        )

    def _collapse(self, values: dict[str, float]) -> tuple:
        share = values["diversity"]
        advice = f"the samples' spread is {share:.0%} of the data's: the generator has collapsed; "
        if isinstance(self.c.loss, BeganLossConfig):
            advice += f"raise loss.gamma={self.c.loss.gamma:g}"
            relative, grey = self.c.loss.energy == "relative", self.c.dataset.channels == 1
            if relative != grey:  # docs/relative-energy.md
                advice += f", or use loss={'began_relative' if grey else 'began'}"
        elif isinstance(self.c.loss, EbganLossConfig):
            pulls = isinstance(self.c.loss, EbganPtLossConfig)
            advice += "raise loss.pt_weight" if pulls else "use loss=ebgan_pt"
            advice += ", or loss.margin=auto"
        elif self._d_wins():
            advice += f"the discriminator always wins: {self._slower_d()}"
        else:
            advice += f"lower optimizer.lr_g={self.c.optimizer.lr_g:g}, or raise batch_size"
        return "collapse", share < self.c.watch.diversity, self.patience, advice, True

    def _blind(self, values: dict[str, float]) -> tuple:
        blind = BLIND.get(self.c.loss.name)
        holds = blind is not None and values["loss_d"] > blind - 0.002 * max(1.0, blind)
        advice = "the discriminator no longer tells real from fake; raise "
        advice += f"optimizer.lr_d={self.c.optimizer.lr_d:g} or model.width={self.c.model.width}"
        return "blind", holds, self.patience, advice, True

    def _winning(self) -> tuple:
        advice = f"the discriminator always wins; {self._slower_d()}"
        return "winning", self._d_wins(), self.patience, advice, False

    def _d_wins(self) -> bool:
        """The median of the last L_Ds is below a twentieth of a guess's; a critic's has no zero."""
        guess = BLIND.get(self.c.loss.name, 0.0)
        return guess > 0 and statistics.median(self._loss_d) < 0.05 * guess

    def _slower_d(self) -> str:
        rates = self.c.optimizer
        return f"lower optimizer.lr_d={rates.lr_d:g}, or raise optimizer.lr_g={rates.lr_g:g}"

    def _pinned(self, values: dict[str, float]) -> tuple:
        c, k_t = self.c.loss, values.get("k_t")
        if not isinstance(c, BeganLossConfig) or k_t is None or c.k_min == c.k_max:
            return "pinned", False, self.patience, "", False
        low, high = math.isclose(k_t, c.k_min, abs_tol=1e-7), math.isclose(k_t, c.k_max)
        advice = f"k_t has rested on its {'lower' if low else 'upper'} bound {k_t:g}; "
        if low:
            advice += f"fakes cost more than gamma times reals: raise loss.gamma={c.gamma:g}"
        else:
            advice += f"lower loss.gamma={c.gamma:g} or loss.lambda_k={c.lambda_k:g}"
        # A floor above 0 is chosen to be rested on.
        return "pinned", (low and c.k_min == 0) or high, self.patience, advice, False

    def _at_rest(self, values: dict[str, float]) -> tuple:
        m = values.get("convergence")
        if m is None:
            return "at rest", False, 1, "", False
        self._convergence.append(m)
        past = self._convergence
        still = len(past) == self.patience and max(past) - min(past) < 0.005 * abs(m)
        advice = f"M_global has rested at {m:.4g}; the run has converged, or lower optimizer.lr"
        return "at rest", still, 1, f"{advice}={self.c.optimizer.lr:g}", False


def finite(networks: list[nn.Module]) -> bool:
    """Whether every weight is finite; waits for the device once."""
    sums = [weight.detach().sum() for network in networks for weight in network.parameters()]
    return bool(torch.stack(sums).isfinite().all())
