"""`began evaluate`: scores of a trained generator, each with its extractor, N, seed and floor."""

import dataclasses
import time
from typing import Any

import torch
from torch import Tensor

from began_cli import images
from began_cli.data import sources
from began_cli.data.sources import Source
from began_cli.device import pick_device
from began_cli.errors import UserError
from began_cli.evaluation import floors, references, report, scores
from began_cli.evaluation.coverage import Nearest
from began_cli.evaluation.features import Features
from began_cli.evaluation.judges import SAMPLE, Judges, choose_scores
from began_cli.evaluation.references import Plan
from began_cli.evaluation.scores import Options
from began_cli.files import output_folder, writing
from began_cli.generators.load import load
from began_cli.settings.commands import EvaluateConfig
from began_cli.settings.train import DatasetConfig, FileDatasetConfig
from began_cli.terminal import say

SHOWN = 16  # images on the sheet of nearest training images


def main(cfg: EvaluateConfig) -> None:
    """Score a checkpoint; write evaluation.json, TensorBoard scalars and the nearest images.

    All settings are checked before anything is written.
    """
    trained = load(cfg.ckpt, pick_device(cfg.device))
    path, step, data = trained.path, trained.card["step"], trained.settings.dataset
    trained_on = (trained.state or trained.card)["data"]
    n = cfg.n or sources.judge(data.name).samples
    source = load_real_images(data, cfg.root)
    judges = Judges(
        data, cfg.extractor, cfg.weights, cfg.device, cfg.cache, cfg.batch_size, cfg.seed
    )
    wanted, notes = choose_scores(cfg.scores, data.name, judges.extractor)
    plan = references.plan(len(source.images), n)
    options = Options(k=cfg.k, kid_subset=cfg.kid_subset, bins=cfg.bins, seed=cfg.seed)
    check_enough(n, len(source.images), plan, options, wanted)
    out = output_folder(cfg.out or trained.folder)
    report.read(out / "evaluation.json")  # fails now, not after the work, if it is damaged

    console = report.open_console()
    with console.status("extracting features of the real images"):
        real, warnings = judges.extract_real(source, plan)
    with console.status("generating images"):
        sample, fake = judges.extract_generated(trained.network, n, trained.card["latents"]["dim"])
    notes += warnings + find_caveats(judges, source, trained_on, n, real[0])
    classes, attributes, near = {}, {}, None
    with console.status("computing the scores"):
        label = judges.extractor.label
        made = floors.score_features(label, fake[0], real[0], plan, options, wanted)
        if "modes" in wanted:
            judged = judges.all[-1], fake[-1], real[-1][plan.reference]
            made |= floors.score_modes(*judged)
            classes, attributes = floors.count_classes(*judged), floors.count_attributes(*judged)
        if "nearest" in wanted:
            rows = plan.rows[:SAMPLE]
            near, made["nearest"] = floors.score_nearest(sample, source.images, rows)

    record = report.make_record(
        path.name, step, judges.extractor, n, options, source.card(), made, notes
    )
    record |= {**classes, "time": time.strftime("%Y-%m-%dT%H:%M:%S")}
    if attributes:
        shares = {name: dataclasses.asdict(each) for name, each in attributes.items()}
        record["attributes"] = shares
    files = [out / "evaluation.json"]
    with writing(out):
        report.add(files[0], record)
        report.write_scalars(out, made, step)
        if near is not None:
            files.append(out / f"nearest-{path.stem}.png")
            images.save_png(draw_nearest(sample, source.images, near), files[-1])
    for note in notes:
        say(f"note: {note}")
    report.print_table(console, made, n, cfg.seed)
    if classes:
        report.print_classes(console, classes["classes"], classes["real_classes"])
    if attributes:
        report.print_attributes(console, attributes)
    say(f"{n:,} images of {path}: {', '.join(map(str, files))}")


def load_real_images(data: DatasetConfig, root: str | None) -> Source:
    """Load the data set of the training, from the folder `root` if that is given."""
    if root is not None:
        if not isinstance(data, FileDatasetConfig):
            raise UserError(f"root={root}: dataset={data.name} is made, not read from a folder")
        data = dataclasses.replace(data, root=root)
    try:
        return sources.load(data)
    except UserError as error:
        raise UserError(f"root: no real images to score against: {error}") from None


def check_enough(n: int, count: int, plan: Plan, options: Options, wanted: list[str]) -> None:
    """Raise UserError if n generated or `count` real images are too few for a wanted score."""
    scores.check_enough(f"n={n}", n, options, wanted)
    half = f"root: {count} real images, {plan.floor_n} in each half for the floor"
    scores.check_enough(half, plan.floor_n, options, wanted)
    least = floors.NEIGHBOURS + 1
    if "nearest" in wanted and count < least:
        raise UserError(f"root: {count} real images: nearest wants {least} or more")


def find_caveats(
    judges: Judges, source: Source, trained_on: dict[str, Any], n: int, real: Features
) -> list[str]:
    """Return what the user must know to trust the scores."""
    note, count, width = judges.extractor.note, len(source.images), real.features.shape[1]
    caveats = [note] if note else []
    if source.sha256 != trained_on.get("sha256"):
        caveats.append(
            f"scored against {count:,} images of {source.origin}, and trained on "
            f"{trained_on.get('count'):,} of {trained_on.get('origin', 'others')}"
        )
    if count < 2 * n:
        caveats.append(f"{count:,} real images: the floor is half of them against the other half")
    if n <= width:
        caveats.append(f"N={n} is not above the {width} features: FID is far too low or too high")
    return caveats


def draw_nearest(sample: Tensor, data: Tensor, near: Nearest) -> Tensor:
    """Return a sheet with a row for each image: itself, then the training images nearest to it."""
    rows = torch.cat([sample[:SHOWN, None], data[near.rows[:SHOWN]]], dim=1)
    return images.grid(rows.flatten(0, 1), rows.shape[1])
