"""Scores during training: of the averaged generator, on a small sample; and which was the best."""

import math
from pathlib import Path
from typing import Any

from torch import nn

from began_cli.data.sources import Source
from began_cli.evaluation import references, report, scores
from began_cli.evaluation.judges import Judges, choose_scores
from began_cli.evaluation.scores import Options, Score
from began_cli.settings.train import TrainConfig


class Scorer:
    """One score of a generator against the data of the run, always from the same latents.

    It draws from no global random state: a run is the same with it and without.
    """

    def __init__(self, cfg: TrainConfig, source: Source) -> None:
        """Extract the features of the real images. Raise UserError if there can be no score."""
        c = cfg.evaluation
        self.name, self.n, self.dim = c.score, c.n, cfg.model.latent_dim
        self.judges = Judges(cfg.dataset, c.extractor, c.weights, cfg.device, classes=False)
        choose_scores([c.score], cfg.dataset.name, self.judges.extractor)
        self.title = self.judges.extractor.rename(c.score)  # in logs and tables
        count = len(source.images)
        self.options = Options(kid_subset=min(Options().kid_subset, c.n, count // 2))
        plan = references.plan(count, c.n)
        scores.check_enough(f"evaluation.n={c.n}", c.n, self.options, [c.score])
        scores.check_enough(f"{plan.floor_n} real images", plan.floor_n, self.options, [c.score])
        (real,), _ = self.judges.extract_real(source, plan)
        self.real, self.floor_n = real[plan.reference], plan.floor_n
        first, second = (real[half] for half in plan.floor)
        self.floor = scores.evaluate(second, first, self.options, [c.score])[c.score]
        self.data = source.card()

    def __call__(self, network: nn.Module) -> Score:
        """Return the score of a generator in evaluation mode, which is left as it is."""
        _, (fake,) = self.judges.extract_generated(network, self.n, self.dim)
        values = scores.evaluate(fake, self.real, self.options, [self.name])
        label, std = self.judges.extractor.label, values.get(f"{self.name}_std")
        return Score(label, values[self.name], self.floor, self.floor_n, std)

    def better(self, value: float, best: dict[str, Any]) -> bool:
        """Return whether a value is better than `best`, if that is a value of the same score."""
        if not math.isfinite(value):
            return False
        if best.get("score") != self.name or best.get("extractor") != self.judges.extractor.label:
            return True
        lower = scores.BETTER[self.name] == "lower"
        return value < best["value"] if lower else value > best["value"]

    def record(self, run: Path, score: Score, step: int) -> None:
        """Add the score to the run's evaluation.json."""
        record = report.make_record(
            f"step-{step:08d}.pt",
            step,
            self.judges.extractor,
            self.n,
            self.options,
            self.data,
            {self.title: score},
            ["scored during training"],
        )
        report.add(run / "evaluation.json", record)
