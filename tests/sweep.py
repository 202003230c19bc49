"""A small sweep for the tests of comparisons: two values of gamma, two seeds each."""

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
from conftest import TINY, settings, write_idx

from began_cli.commands import train

GAMMAS, SEEDS = (0.3, 0.5), (1, 2)
CNN, OTHER = "mnist-cnn@6b0b2a93", "inception@01234567"


def train_sweep(home: Path) -> Path:
    """Train four runs of 4 steps with two logs each; return the folder that they are in."""
    write_idx(home / "digits" / "train-images-idx3-ubyte.gz", np.full((20, 28, 28), 9))
    for gamma in GAMMAS:
        for seed in SEEDS:
            run = run_of(home / "sweep", gamma, seed)
            line = [f"loss.gamma={gamma}", f"seed={seed}", f"dataset.root={home / 'digits'}"]
            line += ["loss=began", "steps=4", "log_every=2", f"out={run}", "device=cpu"]
            train.main(settings("train", *line, *TINY, "model.width=4"), [])
    return home / "sweep"


def run_of(sweep: Path, gamma: float, seed: int) -> Path:
    return sweep / f"gamma-{gamma}_seed-{seed}"


def write_scores(run: Path, step: int = 4, extractor: str = CNN, **values: float) -> dict:
    """Add an evaluation to a run as `began evaluate` does, and return its record."""
    path = run / "evaluation.json"
    old = json.loads(path.read_text())["evaluations"] if path.exists() else []
    scores = {
        name: {"extractor": extractor, "value": value, "floor": 0.25, "floor_n": 5, "std": None}
        for name, value in values.items()
    }
    record = {"checkpoint": f"step-{step:08d}.pt", "step": step, "extractor": extractor, "n": 10}
    record |= {"seed": 0, "k": 5, "kid_subset": 4, "bins": 3, "scores": scores, "notes": []}
    record |= {"data": {"origin": "here", "count": 20, "sha256": "ab" * 32}}
    path.write_text(json.dumps({"format": 1, "evaluations": [*old, record]}))
    return record


def read_table(page: str, caption: str) -> list[list[tuple[str, str | None]]]:
    """Return the rows of the table with that label: each cell's text and the number to sort by."""
    part = page.split(f'aria-label="{caption}"')[1].split("</table>")[0]
    rows = []
    for row in re.findall(r"<tr>(.*?)</tr>", part, flags=re.DOTALL):
        cells = []
        for attributes, words in re.findall(r"<t[hd]([^>]*)>(.*?)</t[hd]>", row, flags=re.DOTALL):
            sort = re.search(r'data-sort="([^"]*)"', attributes)
            cells.append((unescape(re.sub(r"<[^>]*>", "", words)), sort and sort[1]))
        rows.append(cells)
    return rows
