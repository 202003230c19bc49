"""`began compare`: put runs side by side, on one page and in one table."""

import os
import sys
from pathlib import Path

from rich.console import Console

from began_cli.comparison import page, runs, tables
from began_cli.device import pick_device
from began_cli.files import output_folder, replacing, writing
from began_cli.settings.commands import CompareConfig
from began_cli.terminal import say


def main(cfg: CompareConfig) -> None:
    """Write compare.html and compare.csv about the runs `cfg.runs`, failed and unfinished too."""
    device = pick_device(cfg.device)
    folders = [folder for given in cfg.runs for folder in runs.find_runs(given)]
    folders = list({folder.resolve(): folder for folder in folders}.values())
    root = Path(os.path.commonpath([folder.resolve().parent for folder in folders]))
    compared, warnings = [], []
    with Console(stderr=True).status("reading runs") as status:
        for i, folder in enumerate(folders, 1):
            status.update(f"reading run {i} of {len(folders)}")
            run, faults = runs.read_run(folder, root, cfg.n, device)
            compared.append(run)
            warnings += faults
    warnings += runs.check_data(compared)
    runs.complete_data(compared)
    compared = tables.sort_runs(compared)
    groups, doubts = tables.group_runs(compared)
    warnings += doubts
    n = len(compared)
    title = f"{root.name}: {n} runs" if n > 1 else compared[0].name
    seeds = f"seeds 0 to {cfg.n - 1}" if cfg.n > 1 else "seed 0"
    samples = f"Images of each averaged generator, from the same latents: those of {seeds}."
    table = tables.format_csv(compared, groups)
    html = page.render(title, compared, groups, warnings, samples)
    out = output_folder(cfg.out or default_folder(cfg.runs))
    with writing(out):
        for name, text in (("compare.csv", table), ("compare.html", html)):
            with replacing(out / name) as temporary:
                temporary.write_bytes(text.encode(errors="replace"))
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    counts = f"{page.count_runs(n)} ({page.count_states(compared)})"
    say(f"{counts}: {out}/compare.html, {out}/compare.csv")


def default_folder(given: list[str]) -> str:
    """Return the one folder given, or the common parent of those given, or the current folder."""
    if len(given) == 1:
        return given[0]
    parents = {Path(each).expanduser().resolve().parent for each in given}
    return str(parents.pop()) if len(parents) == 1 else "."
