"""Make the generators that come with began (`ckpt=pretrained/NAME`) from finished runs.

    python scripts/make_pretrained.py NAME=RUN … [--out FOLDER]

RUN is a run folder whose newest checkpoint `began evaluate` has scored. Each file holds the
averaged generator in half precision, unless that raises the FID by more than 1 %, and a card: the
settings, the scores of the file itself as `began evaluate` computes them again, and the licence of
the data.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from common import compose_settings, make_parser, report_errors

from began_cli.commands import evaluate
from began_cli.error_text import quote
from began_cli.errors import UserError
from began_cli.evaluation import report
from began_cli.generators import portable
from began_cli.generators.load import PRETRAINED, Trained, TrainedGenerator, load

LICENCES = {
    "mnist": "MNIST by Yann LeCun and Corinna Cortes, CC BY-SA 3.0",
    "fashion_mnist": "Fashion-MNIST by Zalando SE, MIT",
    "avatars": "ToonHead by Johan Melin (remix), CC BY 4.0",
}
WORSE = 1.01  # a greater ratio of FIDs, half to full precision, is too much


def main() -> None:
    """Make each of the files that the command line names."""
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--out", type=Path, default=PRETRAINED)
    args = parser.parse_args()
    with report_errors():
        for name, run in (word.split("=", 1) for word in args.runs):
            path = make(name, run, args.out)
            print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def make(name: str, run: str, out: Path) -> Path:
    """Write the generator of a run as `name` to the folder `out`; return its path."""
    trained = load(run, torch.device("cpu"))
    card, data = trained.card, trained.settings.dataset.name
    if data not in LICENCES:
        raise UserError(f"{run}: dataset={data} has no licence in LICENCES; add it there")
    record = find_record(trained)
    card["data"]["licence"] = LICENCES[data]
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.safetensors"
    full = record["scores"]["fid"]["value"]
    with tempfile.TemporaryDirectory() as folder:
        for weights in ("float16", "float32"):
            card["weights"] = weights
            if weights == "float16":
                network = load(run, torch.device("cpu")).network.half().float()
            else:
                network = trained.network
            trial = Path(folder) / weights / path.name
            trial.parent.mkdir()
            portable.write(TrainedGenerator(network, card), trial, "safetensors")
            card["scores"] = score(trial, trained, record)
            fid = next(value["value"] for key, value in card["scores"].items() if key[:4] == "fid[")
            print(f"{name}, {weights}: FID {fid:.4g}, that of the run {full:.4g}")
            if fid <= WORSE * full:
                break
        portable.write(TrainedGenerator(network, card), path, "safetensors")
    portable.card_path(path).unlink()  # the file itself holds it
    return path


def find_record(trained: Trained) -> dict[str, Any]:
    """Return the newest evaluation of a checkpoint that has an FID. Raise UserError if none has."""
    for record in reversed(report.read(trained.folder / "evaluation.json")):
        if record["step"] == trained.card["step"] and "fid" in record["scores"]:
            return record
    raise UserError(f"{trained.path}: not scored; run began evaluate ckpt={trained.folder} first")


def score(path: Path, trained: Trained, record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the scores of an exported file, under the settings of an evaluation of its run."""
    line = [f"ckpt={quote(str(path))}", f"out={quote(str(path.parent))}", "device=cpu"]
    line += [f"{key}={record[key]}" for key in ("n", "seed", "k", "kid_subset", "bins")]
    line += [f"extractor={record['extractor'].partition('@')[0]}"]
    if root := getattr(trained.settings.dataset, "root", None):
        line += [f"root={quote(root)}"]
    evaluate.main(compose_settings(line, "evaluate"))
    return report.find_scores(path.parent / "evaluation.json", trained.card["step"])


if __name__ == "__main__":
    main()
