"""`began evaluate`: scores of trained generators, each with its extractor, N, seed and floor."""

import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from began_cli import images
from began_cli.device import pick_device
from began_cli.errors import UserError
from began_cli.evaluation import features, report
from began_cli.evaluation.attributes import Shares
from began_cli.evaluation.evaluator import Evaluator
from began_cli.evaluation.judges import Advance
from began_cli.files import output_folder, writing
from began_cli.generators import checkpoint
from began_cli.generators.load import load
from began_cli.settings.commands import EvaluateConfig
from began_cli.terminal import say

SCORING = 0.2  # of a bar: what is computed when all images have been judged


@dataclass(slots=True)
class Job:
    """A checkpoint to score."""

    path: Path
    out: Path
    evaluator: Evaluator
    record: dict[str, Any]  # its entry of evaluation.json, without scores


def main(cfg: EvaluateConfig) -> None:
    """Score checkpoints; write evaluation.json, TensorBoard scalars and the nearest images.

    All settings are checked before anything is written. Checkpoints that have the wanted scores in
    their evaluation.json already are not scored again.
    """
    jobs = find_jobs(cfg)
    for out in {job.out: None for job in jobs}:
        output_folder(out)
    done = {id(job): find_finished(job) for job in jobs}
    todo = [job for job in jobs if done[id(job)] is None]
    console = report.open_console()
    with open_progress(console, hidden=not todo) as progress:
        judged = sum(job.evaluator.count_samples() for job in todo)
        bar = progress.add_task("samples", total=judged * (1 + SCORING))
        prepared: list[Evaluator] = []
        for number, job in enumerate(jobs, 1):
            record = done[id(job)]
            if record is None:
                if job.evaluator not in prepared:
                    prepare(job.evaluator, progress)
                    prepared.append(job.evaluator)
                progress.update(bar, description=f"checkpoint {number} of {len(jobs)}")
                record = score(cfg, job, lambda n: progress.advance(bar, n))
                progress.advance(bar, job.evaluator.count_samples() * SCORING)
            show(console, job, record, again=done[id(job)] is not None)
    if len(jobs) > 1:
        folders = {checkpoint.run_of(job.path): None for job in jobs}
        say(f"  began compare {' '.join(map(str, folders))}")


def find_jobs(cfg: EvaluateConfig) -> list[Job]:
    """Return a job for each checkpoint that `ckpt` stands for, in the order given.

    Raise UserError if one that was named cannot be read. Runs found in a folder that cannot are
    left out, with a warning on stderr.
    """
    device = pick_device(cfg.device)
    evaluators: list[Evaluator] = []
    jobs: dict[Path, Job] = {}
    for given in cfg.ckpt:
        found = find_runs(given)
        for ckpt in found or [given]:
            try:
                trained = load(ckpt, device)
            except UserError as error:
                if not found:
                    raise
                print(f"warning: {error}; left out", file=sys.stderr)
                continue
            path, data = trained.path, trained.settings.dataset
            evaluator = next((each for each in evaluators if each.data == data), None)
            if evaluator is None:
                evaluator = Evaluator(cfg, data)
                evaluators.append(evaluator)
            record = report.make_record(
                path.name,
                trained.card["step"],
                evaluator.judges.extractor,
                evaluator.n,
                evaluator.options,
                evaluator.compared.card(),
                {},
                [],
                protocol=cfg.protocol,
                sha256=features.hash_file(path),
                test_data=evaluator.test.card() if evaluator.test else None,
            )
            out = Path(cfg.out).expanduser() if cfg.out else trained.folder
            jobs.setdefault(path.resolve(), Job(path, out, evaluator, record))
    if not jobs:
        raise UserError(f"ckpt={cfg.ckpt[0]}: none of the runs in that folder can be read")
    if cfg.out and len(jobs) > 1:
        raise UserError(
            f"out={cfg.out}: is for one checkpoint, and there are {len(jobs)}; leave it out"
        )
    return list(jobs.values())


def find_runs(ckpt: str | None) -> list[str]:
    """Return the runs below a folder that is not a run itself, sorted by path."""
    top = Path(ckpt).expanduser() if ckpt is not None else None
    if top is None or not top.is_dir() or top.name == "checkpoints" or checkpoint.find_all(top):
        return []
    return sorted(str(run) for run in checkpoint.find_runs(top))


def find_finished(job: Job) -> dict[str, Any] | None:
    """Return the job's entry of evaluation.json, if it has all scores that are wanted."""
    return report.find_finished(job.out / "evaluation.json", job.record, job.evaluator.names)


def open_progress(console: Console, hidden: bool) -> Progress:
    """Return a progress bar with the time left. It shows on a terminal, unless `hidden`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=hidden or not console.is_terminal,
        speed_estimate_period=3600,  # scoring is between the images: the mean over all counts
    )


def prepare(evaluator: Evaluator, progress: Progress) -> None:
    """Extract the features of the real images, under a bar of their own."""
    bar = progress.add_task("real images", total=evaluator.count_real() * (1 + SCORING))
    evaluator.prepare(lambda n: progress.advance(bar, n))
    progress.remove_task(bar)


def score(cfg: EvaluateConfig, job: Job, advance: Advance) -> dict[str, Any]:
    """Score a checkpoint, write what there is to write, and return its entry."""
    trained = load(str(job.path), pick_device(cfg.device))
    result = job.evaluator.score(trained, advance)
    record = job.record | result.counts
    record["scores"] = {name: asdict(each) for name, each in result.scores.items()}
    record |= {"notes": result.notes, "time": time.strftime("%Y-%m-%dT%H:%M:%S")}
    with writing(job.out):
        report.add(job.out / "evaluation.json", record)
        report.write_scalars(job.out, result.scores, record["step"])
        if result.sheet is not None:
            sheet = images.grid(result.sheet, result.columns)
            images.save_png(sheet, nearest_sheet(job))
    return record


def show(console: Console, job: Job, record: dict[str, Any], again: bool) -> None:
    """Print the scores in an entry of evaluation.json. `again`: it was there before."""
    # Not `say`: it would write over the bar.
    print_line = partial(console.print, markup=False, soft_wrap=True)
    for note in record["notes"]:
        print_line(f"note: {note}")
    protocol = f"protocol={record['protocol']}: " if record["protocol"] else ""
    evaluator = job.evaluator
    against = "training" if evaluator.reference == "train" else "test"
    print_line(
        f"{protocol}{evaluator.n:,} images of {job.path} against {evaluator.compared_n:,} "
        f"{against} images{', scored before' if again else ''}"
    )
    made = {name: report.read_score(record["scores"][name]) for name in evaluator.names}
    report.print_table(console, made, record["n"], record["seed"])
    if "modes" in made and "classes" in record:
        report.print_classes(console, record["classes"], record["real_classes"])
    if "modes" in made and "attributes" in record:
        shares = {name: Shares(**each) for name, each in record["attributes"].items()}
        report.print_attributes(console, shares)
    files = [job.out / "evaluation.json"] + ([nearest_sheet(job)] if "nearest" in made else [])
    print_line(f"  {', '.join(map(str, files))}")


def nearest_sheet(job: Job) -> Path:
    """Return the path of the sheet of nearest training images."""
    return job.out / f"nearest-{job.path.stem}.png"
