"""`began evaluate`: scores of a trained generator, each with its extractor, N, seed and floor."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from began_cli import __version__, images
from began_cli.commands.sample import (
    generate,
    generator_of,
    output_folder,
    read_checkpoint,
    writing,
)
from began_cli.data import sources
from began_cli.device import pick_device
from began_cli.errors import UserError
from began_cli.evaluation import coverage, features, references, report, scores
from began_cli.evaluation.features import Extractor, Features
from began_cli.evaluation.references import Plan
from began_cli.evaluation.report import Score
from began_cli.files import cache_home
from began_cli.gan import latents
from began_cli.settings import commands as checks
from began_cli.settings.commands import EvaluateConfig
from began_cli.settings.train import DatasetConfig, FileDatasetConfig

CLASSIFIERS = {"mnist": "mnist-cnn", "stacked_mnist": "mnist-cnn", "fashion_mnist": "fashion-cnn"}
BLOCK = 1024  # images held at a time: sixteen chunks of the generator, four batches
LOOKED_UP = 256  # samples whose nearest training images are searched
SHOWN, NEIGHBOURS = 16, 5  # of them on the sheet, and training images beside each
PER_BIN = 5  # images a bin, for its test to hold


def main(cfg: EvaluateConfig) -> None:
    """Scores a checkpoint; writes evaluation.json, scalars for TensorBoard and the nearest images.

    Everything that could be wrong with the settings is found before anything is written.
    """
    path, state = read_checkpoint(cfg.ckpt)
    generator, trained = generator_of(path, state, pick_device(cfg.device))
    data = trained.dataset
    n = cfg.n or (26_000 if data.name == "stacked_mnist" else 10_000)
    source = real_images(data, cfg.root)
    judges = Judges(
        data, cfg.extractor, cfg.weights, cfg.device, cfg.cache, cfg.batch_size, cfg.seed
    )
    wanted, notes = wanted_scores(cfg.scores, data.name, judges.extractor)
    plan = references.plan(len(source.images), n)
    options = scores.Options(k=cfg.k, kid_subset=cfg.kid_subset, seed=cfg.seed)
    check_enough(n, len(source.images), plan, options, wanted, cfg.bins)
    out = output_folder(cfg.out, path, ".")
    report.read(out / "evaluation.json")  # a damaged one is told before the work, not after it

    console = report.console()
    with console.status("looking at the real images"):
        real, complaints = judges.real(source, plan)
    with console.status("making images"):
        sample, fake = judges.generated(generator, n, trained.model.latent_dim)
    with console.status("scoring"):
        label = judges.extractor.label
        made = scored(label, fake[0], real[0], plan, options, wanted, cfg.bins)
        if "modes" in wanted:
            label = judges.all[-1].label
            made |= modes_scored(label, fake[-1], real[-1][plan.reference])
        near = None
        if "nearest" in wanted:
            near, made["nearest"] = nearest_scored(sample, source.images, plan)

    notes += complaints + told(judges.extractor, source, state["data"], n, real[0])
    record = {
        "checkpoint": path.name,
        "step": state["step"],
        **record_of(judges.extractor, n, options, cfg.bins, source.card(), made, notes),
        **class_counts(fake[-1], real[-1][plan.reference], wanted),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    said = [out / "evaluation.json"]
    with writing(out):
        report.add(said[0], record)
        report.board(out, made, state["step"])
        if near is not None:
            said.append(out / f"nearest-{path.stem}.png")
            images.save_png(nearest_sheet(sample, source.images, near), said[-1])
    for note in notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    report.table(console, made, n, cfg.seed)
    if "classes" in record:
        report.histogram(console, record["classes"], record["real_classes"])
    listed = ", ".join(map(str, said))
    console.print(f"{n:,} images of {path}: {listed}", markup=False, soft_wrap=True)


# --- what is scored, and by what ------------------------------------------------------------------


def real_images(data: DatasetConfig, root: str | None) -> sources.Source:
    """The data set of the training, looked for in `root` if that is given."""
    if root is not None:
        if not isinstance(data, FileDatasetConfig):
            raise UserError(f"root={root}: dataset={data.name} is made, not read from a folder")
        data = dataclasses.replace(data, root=root)
    try:
        return sources.load(data)
    except UserError as error:
        raise UserError(f"root: no real images to score against: {error}") from None


def record_of(
    extractor: Extractor,
    n: int,
    options: scores.Options,
    bins: int,
    data: dict[str, Any],
    made: dict[str, Score],
    notes: list[str],
) -> dict[str, Any]:
    """What evaluation.json says of scores, and of all that they depend on but the checkpoint."""
    return {
        "extractor": extractor.label,
        "extractor_sha256": extractor.sha256,
        **{"n": n, "seed": options.seed, "k": options.k, "kid_subset": options.kid_subset},
        "bins": bins,
        "data": data,
        "scores": {name: dataclasses.asdict(score) for name, score in made.items()},
        "notes": notes,
        "began": __version__,
    }


class Judges:
    """The extractor of the scores and, where another one knows the classes, that classifier too.

    `classes`: whether that one is wanted. The other arguments are settings of `began evaluate`.
    """

    def __init__(
        self,
        data: DatasetConfig,
        extractor: str,
        weights: str | None,
        device: str,
        cache: str | None = None,
        batch_size: int = 256,
        seed: int = 0,
        classes: bool = True,
    ) -> None:
        self.device, self.batch_size, self.seed = pick_device(device), batch_size, seed
        self.cache = Path(cache).expanduser() if cache else cache_home()
        shape = (data.channels, data.image_size, data.image_size)
        stacked = data.name == "stacked_mnist"
        classifier = CLASSIFIERS.get(data.name)
        name = extractor if extractor != "auto" else classifier or "inception"
        self.extractor = features.build(name, weights, shape, stacked, self.device)
        self.all = [self.extractor]
        if classes and classifier not in (None, name):
            self.all.append(features.build(classifier, None, shape, stacked, self.device))

    def real(self, source: sources.Source, plan: Plan) -> tuple[list[Features], list[str]]:
        """What each makes of the plan's real images, and lines to tell of the cache."""
        made, complaints = [], []
        for extractor in self.all:

            def extract(extractor: Extractor = extractor) -> Features:
                blocks = (source.images[rows] for rows in plan.rows.split(BLOCK))
                return features.joined([self._look(extractor, block) for block in blocks])

            found, complaint = references.features_of(
                extractor, source.sha256, len(plan.rows), self.cache, extract
            )
            made.append(found)
            complaints += [complaint] if complaint else []
        return made, complaints

    def generated(self, generator: nn.Module, n: int, dim: int) -> tuple[Tensor, list[Features]]:
        """What each makes of n images, and the first LOOKED_UP of them: uint8 (N, C, H, W).

        Image i is that of seed SEEDS_APART (seed + 1) + i, far from those of `began sample`.
        """
        start = checks.SEEDS_APART * (self.seed + 1)
        sample: list[Tensor] = []
        made: list[list[Features]] = [[] for _ in self.all]
        for begin in range(0, n, BLOCK):
            seeds = range(start + begin, start + min(begin + BLOCK, n))
            block = torch.cat(list(generate(generator, latents.from_seeds(seeds, dim))))
            if begin < LOOKED_UP:
                sample.append(block[: LOOKED_UP - begin])
            for parts, extractor in zip(made, self.all, strict=True):
                parts.append(self._look(extractor, block))
        return torch.cat(sample), [features.joined(parts) for parts in made]

    def _look(self, extractor: Extractor, block: Tensor) -> Features:
        return extractor(block, self.batch_size, self.device)


def wanted_scores(
    asked: list[str], dataset: str, extractor: Extractor
) -> tuple[list[str], list[str]]:
    """The scores that there will be, in their order, and a line for each that was left out.

    Raises UserError if one was asked for by name that cannot be had.
    """
    missing = {}
    if dataset not in CLASSIFIERS:
        missing["modes"] = f"dataset={dataset} has no classifier that knows its classes"
    if not extractor.classifies:
        missing["is"] = f"{extractor.name} gives no classes of an image"
    for name in asked:
        if name in missing:
            raise UserError(f"scores={name}: {missing[name]}; leave it out")
    if not {"auto", "all"} & set(asked):
        return [name for name in checks.SCORES if name in asked], []
    if "all" not in asked and dataset == "stacked_mnist":
        slow = "its neighbours take minutes among 26,000 images; scores=all has it"
        missing |= dict.fromkeys(checks.NEIGHBOURLY, slow)
    left_out = [f"{name} is left out: {why}" for name, why in missing.items() if name not in asked]
    kept = [name for name in checks.SCORES if name not in missing or name in asked]
    return kept, left_out


def check_enough(
    n: int, count: int, plan: Plan, options: scores.Options, wanted: list[str], bins: int
) -> None:
    """Raises UserError if n generated or `count` real images are too few for one of the scores."""
    scores.check_enough(f"n={n}", n, options, wanted)
    half = f"root: {count} real images, {plan.floor_n} in each half for the floor"
    scores.check_enough(half, plan.floor_n, options, wanted)
    for said, there in ((f"n={n}", n), (half, plan.floor_n)):
        if "ndb" in wanted and there < PER_BIN * bins:
            raise UserError(
                f"{said}: ndb wants {PER_BIN} or more for each of its bins={bins}: raise the one, "
                "lower the other, or leave out ndb"
            )
    if "nearest" in wanted and count <= NEIGHBOURS:
        raise UserError(f"root: {count} real images: nearest wants {NEIGHBOURS + 1} or more")


def told(
    extractor: Extractor, source: sources.Source, trained_on: dict[str, Any], n: int, real: Features
) -> list[str]:
    """What the user should know before trusting the scores."""
    notes = [extractor.note] if extractor.note else []
    if source.sha256 != trained_on.get("sha256"):
        notes.append(
            f"scored against {len(source.images):,} images of {source.origin}, and trained on "
            f"{trained_on.get('count'):,} of {trained_on.get('origin')}"
        )
    if len(source.images) < 2 * n:
        notes.append(
            f"{len(source.images):,} real images: the floor is half of them against the other half"
        )
    width = real.features.shape[1]
    if n <= width:
        notes.append(f"N={n} is not above the {width} features: FID is far too low or too high")
    return notes


# --- the scores -----------------------------------------------------------------------------------


def scored(
    label: str,
    fake: Features,
    real: Features,
    plan: Plan,
    options: scores.Options,
    wanted: list[str],
    bins: int,
) -> dict[str, Score]:
    """The scores on features, each with that of one half of the real images against the other."""

    def measured(made: Features, reference: Features) -> dict[str, float]:
        result = scores.evaluate(made, reference, options, wanted)
        if "ndb" in wanted:
            found = coverage.ndb(made.features, reference.features, bins, options.seed)
            result["ndb"] = found
        return result

    values = measured(fake, real[plan.reference])
    first, second = (real[half] for half in plan.floor)
    floors = measured(second, first)
    return {
        name: Score(label, value, floors[name], plan.floor_n, values.get(f"{name}_std"))
        for name, value in values.items()
        if not name.endswith("_std")
    }


def modes_scored(label: str, fake: Features, real: Features) -> dict[str, Score]:
    """Modes hit and KL, each with that of as many real images."""
    values, floors = (coverage.modes_and_kl(*coverage.labels_of(each)) for each in (fake, real))
    return {name: Score(label, values[name], floors[name], len(real)) for name in values}


def class_counts(fake: Features, real: Features, wanted: list[str]) -> dict[str, list[int]]:
    """How many images of each class there are, if classes are wanted and few enough to look at."""
    if "modes" not in wanted or (classes := coverage.labels_of(fake)[1]) > 10:
        return {}
    counts = (
        torch.bincount(coverage.labels_of(each)[0], minlength=classes) for each in (fake, real)
    )
    return dict(zip(("classes", "real_classes"), (count.tolist() for count in counts), strict=True))


def nearest_scored(sample: Tensor, data: Tensor, plan: Plan) -> tuple[coverage.Nearest, Score]:
    """The nearest training images of a sample, and how far they are beside those of real images."""
    near = coverage.nearest(sample, data, NEIGHBOURS)
    rows = plan.rows[:LOOKED_UP]
    others = coverage.nearest(data[rows], data, 1, apart=rows)
    value, floor = (each.distance[:, 0].mean().item() for each in (near, others))
    return near, Score("pixels", value, floor, len(rows))


def nearest_sheet(sample: Tensor, data: Tensor, near: coverage.Nearest) -> Tensor:
    """Rows of an image and the training images nearest to it."""
    rows = torch.cat([sample[:SHOWN, None], data[near.rows[:SHOWN]]], dim=1)
    return images.grid(rows.flatten(0, 1), 1 + NEIGHBOURS)
