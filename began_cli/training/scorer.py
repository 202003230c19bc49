"""Scores during training: the averaged generator on a smaller sample, and which was the best."""

import math
from pathlib import Path
from typing import Any

from torch import nn

from began_cli.commands.evaluate import Judges, record_of, wanted_scores
from began_cli.data.sources import Source
from began_cli.evaluation import references, report, scores
from began_cli.evaluation.report import Score
from began_cli.settings.train import TrainConfig

BINS = 100  # as in conf/evaluate.yaml: the score that has bins is not among these


class Scorer:
    """One score of a generator against the run's own data, always from the same latents.

    It draws from no global random state: a run is the same with it and without.
    """

    def __init__(self, cfg: TrainConfig, source: Source) -> None:
        """Looks at the real images. Raises UserError if the score cannot be had."""
        c = cfg.evaluation
        self.name, self.n, self.dim = c.score, c.n, cfg.model.latent_dim
        self.judges = Judges(cfg.dataset, c.extractor, c.weights, cfg.device, classes=False)
        wanted_scores([c.score], cfg.dataset.name, self.judges.extractor)
        self.options = scores.Options()
        self.options.kid_subset = min(self.options.kid_subset, c.n, len(source.images) // 2)
        plan = references.plan(len(source.images), c.n)
        scores.check_enough(f"evaluation.n={c.n}", c.n, self.options, [c.score])
        scores.check_enough(f"{plan.floor_n} real images", plan.floor_n, self.options, [c.score])
        ((real,), _) = self.judges.real(source, plan)
        self.real, self.floor_n = real[plan.reference], plan.floor_n
        first, second = (real[half] for half in plan.floor)
        self.floor = scores.evaluate(second, first, self.options, [c.score])[c.score]
        self.data = source.card()

    def __call__(self, generator: nn.Module) -> Score:
        """The generator's score; it is in evaluation mode, and stays as it is."""
        _, (fake,) = self.judges.generated(generator, self.n, self.dim)
        found = scores.evaluate(fake, self.real, self.options, [self.name])
        label, std = self.judges.extractor.label, found.get(f"{self.name}_std")
        return Score(label, found[self.name], self.floor, self.floor_n, std)

    def better(self, value: float, best: dict[str, Any]) -> bool:
        """Whether a value is better than the best of the same score, if there was one."""
        if not math.isfinite(value):
            return False
        if best.get("score") != self.name or best.get("extractor") != self.judges.extractor.label:
            return True
        lower = scores.BETTER[self.name] == "lower"
        return value < best["value"] if lower else value > best["value"]

    def record(self, run: Path, score: Score, step: int) -> None:
        """Puts the score into the run's evaluation.json."""
        notes = ["scored during training"]
        made = {self.name: score}
        entry = {"checkpoint": f"step-{step:08d}.pt", "step": step} | record_of(
            self.judges.extractor, self.n, self.options, BINS, self.data, made, notes
        )
        report.add(run / "evaluation.json", entry)
