"""Compare began's losses with common public implementations, at equal wall-clock time.

    python scripts/reproduce_baselines.py [--seconds 300] [--fid 100] [--seeds 0 1 …]
        [--slice 20] [--json FILE] [--only NAME …] [-- dataset.root=FOLDER setting=value …]

plain_began       three D passes per step; k_t is not clamped                  (loss=began_paper)
summed_began      the same with k_t clamped, but D minimises L_D + L_G         (loss=began_paper)
log_sigmoid_bgan  L_G = 1/2 E[(log D - log(1 - D))^2], D a sigmoid             (loss=bgan loss.r1=0)
mse_ebgan         E = mean squared error, the norm's margin, the batch's hinge (loss=ebgan)

Each has the networks, initial weights, data, latents, optimizers and averaged generator of the loss
in brackets, with constant learning rates and in single precision. The schemes train in turns of
--slice seconds, all in one process. After each turn the averaged generator is scored; this does not
count as training time, so "s to FID" is exact to one slice. A scheme ends early when a weight is
not finite ("NaN at step N": the first step whose loss is not). "collapsed": at the end the samples
vary by less than watch.diversity times what the data do.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from benchmark import use_plain_layers
from common import compose_settings, make_parser, name_of, report_errors
from torch import Tensor
from torch.nn import functional as F

from began_cli.data import sources
from began_cli.device import pick_device, wait
from began_cli.errors import UserError
from began_cli.gan.update import Update
from began_cli.settings.train import TrainConfig
from began_cli.training.previews import Previews
from began_cli.training.scorer import Scorer
from began_cli.training.setup import build_parts


class Baseline:
    """Three passes of D, on x, on G(z) detached and on G(z); then a step of both optimizers."""

    def __init__(self, update: Update, loss: Any) -> None:
        """Train the networks of `update` with its optimizers; `loss` are the loss settings."""
        self.generator, self.discriminator = update.generator, update.discriminator
        self.optimizer_g, self.optimizer_d = update.optimizer_g, update.optimizer_d
        self.ema, self.ema_decay, self.steps = update.ema, update.ema_decay, 0
        use_plain_layers(self.generator, self.discriminator)

    def value(self, v: Tensor) -> Tensor:
        """Return one number per image, an energy or a probability: input of the losses."""
        raise NotImplementedError

    def loss_d(self, real: Tensor, fake: Tensor) -> Tensor:
        raise NotImplementedError

    def loss_g(self, fake: Tensor) -> Tensor:
        return fake.mean()

    def step(self, x: Tensor, z: Tensor) -> Tensor:
        """Update both networks, and return L_D + L_G."""
        g = self.generator(z)
        real, fake = self.value(x), self.value(g.detach())
        loss_d, loss_g = self.loss_d(real, fake), self.loss_g(self.value(g))
        self.optimizer_g.zero_grad()
        self.optimizer_d.zero_grad()
        self.backward(loss_d, loss_g)
        self.optimizer_d.step()
        self.optimizer_g.step()
        self.average()
        self.control(real.mean().item(), fake.mean().item())
        self.steps += 1
        return (loss_d + loss_g).detach()

    def backward(self, loss_d: Tensor, loss_g: Tensor) -> None:
        loss_g.backward()
        self.optimizer_d.zero_grad()  # D does not minimise L_G
        loss_d.backward()

    def control(self, real: float, fake: float) -> None:
        """Update the state of the loss, given the mean values of a step."""

    def average(self) -> None:
        """Update the moving average of the generator as `began train` does."""
        decay = min(self.ema_decay, (1 + self.steps) / (10 + self.steps))
        now = self.generator.state_dict()
        for name, mean in self.ema.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(now[name], 1 - decay)


class PlainBegan(Baseline):
    """BEGAN with three D passes and a k_t that may leave [0, 1]."""

    def __init__(self, update: Update, loss: Any) -> None:
        super().__init__(update, loss)
        self.gamma, self.lambda_k, self.k_t = loss.gamma, loss.lambda_k, loss.k_0

    def value(self, v: Tensor) -> Tensor:
        return (v - self.discriminator(v).images).abs().mean((1, 2, 3))

    def loss_d(self, real: Tensor, fake: Tensor) -> Tensor:
        return real.mean() - self.k_t * fake.mean()

    def control(self, real: float, fake: float) -> None:
        self.k_t += self.lambda_k * (self.gamma * real - fake)


class SummedBegan(PlainBegan):
    """BEGAN with one backward pass of L_D + L_G for both networks; k_t is clamped."""

    def backward(self, loss_d: Tensor, loss_g: Tensor) -> None:
        (loss_d + loss_g).backward()

    def control(self, real: float, fake: float) -> None:
        super().control(real, fake)
        self.k_t = min(max(self.k_t, 0.0), 1.0)


class LogSigmoidBgan(Baseline):
    """BGAN on probabilities: cross-entropy for D, a difference of logarithms for G."""

    def value(self, v: Tensor) -> Tensor:
        return self.discriminator(v).sigmoid()

    def loss_d(self, real: Tensor, fake: Tensor) -> Tensor:
        # binary_cross_entropy fails on NaN, on a GPU with the whole process; L_G still is NaN.
        real, fake = real.nan_to_num(), fake.nan_to_num()
        on_real = F.binary_cross_entropy(real, torch.ones_like(real))
        return on_real + F.binary_cross_entropy(fake, torch.zeros_like(fake))

    def loss_g(self, fake: Tensor) -> Tensor:
        return 0.5 * (fake.log() - (1 - fake).log()).square().mean()


class MseEbgan(Baseline):
    """EBGAN with the mean squared error as energy and a hinge on the mean of the batch."""

    def __init__(self, update: Update, loss: Any) -> None:
        super().__init__(update, loss)
        self.margin = loss.margin

    def value(self, v: Tensor) -> Tensor:
        return (v - self.discriminator(v).images).square().mean((1, 2, 3))

    def loss_d(self, real: Tensor, fake: Tensor) -> Tensor:
        return real.mean() + F.relu(self.margin - fake.mean())


class Scheme(NamedTuple):
    line: str  # the loss, without what the baselines do not have
    baseline: Callable[[Update, Any], Baseline] | None = None  # None: began's own step


SCHEMES = {
    "began": Scheme("loss=began"),
    "began_paper": Scheme("loss=began_paper"),
    "plain_began": Scheme("loss=began_paper", PlainBegan),
    "summed_began": Scheme("loss=began_paper", SummedBegan),
    "bgan": Scheme("loss=bgan loss.r1=0"),
    "log_sigmoid_bgan": Scheme("loss=bgan loss.r1=0", LogSigmoidBgan),
    "ebgan": Scheme("loss=ebgan"),
    "ebgan_pt": Scheme("loss=ebgan_pt"),
    "mse_ebgan": Scheme("loss=ebgan", MseEbgan),
}


# Settings that are the same for all schemes, or that the baselines do not have.
FIXED = ("loss", "seed", "steps", "schedule", "precision", "accumulate", "compile")
FIXED += ("loss.log_z", "loss.energy", "loss.margin", "loss.pack", "loss.r1")
FIXED += ("loss.separate_latents", "evaluation.score")


class Point(NamedTuple):
    """The scores after some time of training."""

    seconds: float
    steps: int
    fid: float
    diversity: float


class Contender:
    """A scheme in training, with its data, its clock and its scores."""

    def __init__(self, name: str, cfg: TrainConfig, source: sources.Source) -> None:
        self.name, self.cfg, self.device = name, cfg, pick_device(cfg.device)
        torch.manual_seed(cfg.seed)
        parts = build_parts(cfg, source, self.device)
        self.update, self.batches, self.latents = parts
        self.pictures = Previews(self.update, source.images, cfg.model.latent_dim, self.device)
        baseline = SCHEMES[name].baseline
        if baseline and getattr(cfg.model, "residual", False):
            raise UserError("model.residual=true: the baselines do not move the carry")
        self.step = baseline(self.update, cfg.loss).step if baseline else self.own_step
        self.steps, self.seconds = 0, 0.0
        self.broken: int | None = None  # first step whose loss was not finite
        self.curve: list[Point] = []

    def own_step(self, x: Tensor, z: Tensor) -> Tensor:
        scalars = self.update(lambda: x, lambda: z).scalars
        return scalars["loss_d"] + scalars["loss_g"]

    def train(self, seconds: float) -> None:
        """Train for that long, then check that the weights are finite."""
        losses = []
        wait(self.device)
        start = time.perf_counter()
        while not losses or time.perf_counter() - start < seconds:
            losses.append(self.step(self.batches(), self.latents()))
        wait(self.device)
        self.seconds += time.perf_counter() - start
        networks = (self.update.generator, self.update.discriminator)
        weights = [weight for network in networks for weight in network.parameters()]
        if not all(bool(weight.isfinite().all()) for weight in weights):
            wrong = (~torch.stack(losses).isfinite()).nonzero().flatten().tolist()
            # If all losses were finite, a gradient of the last step was not.
            self.broken = self.steps + (wrong[0] + 1 if wrong else len(losses))
        self.steps += len(losses)

    def score(self, scorer: Scorer) -> None:
        fid = scorer(self.update.ema).value
        self.curve.append(Point(self.seconds, self.steps, fid, self.pictures.diversity()))

    def is_done(self, seconds: float) -> bool:
        return self.broken is not None or self.seconds >= seconds

    def row(self, fid: float) -> dict[str, Any]:
        """Return its entry in the table and the file."""
        last = self.curve[-1] if self.curve and self.broken is None else None
        if self.broken is not None:
            verdict = f"NaN at step {self.broken:,}"
        elif last is not None and last.diversity < self.cfg.watch.diversity:
            verdict = "collapsed"
        else:
            verdict = "ok"
        return {
            "scheme": self.name,
            "seed": self.cfg.seed,
            "steps": self.steps,
            "images": self.steps * self.cfg.batch_size,
            "seconds to FID": next((at.seconds for at in self.curve if at.fid <= fid), None),
            "FID": last and finite(last.fid),
            "diversity": last and finite(last.diversity),
            "verdict": verdict,
            "curve": [at._asdict() | {"fid": finite(at.fid)} for at in self.curve],
        }


def finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def compare(
    names: list[str], words: list[str], seeds: list[int], seconds: float, turn: float
) -> tuple[list[Contender], dict[str, Any]]:
    """Train the schemes in turns, one seed after the other; return them and the conditions."""
    done: list[Contender] = []
    scorer = source = None
    for seed in seeds:
        line = ["precision=fp32", *words, f"seed={seed}", "evaluation.score=fid"]
        made = {name: compose_settings([*SCHEMES[name].line.split(), *line]) for name in names}
        first = made[names[0]]
        if scorer is None or source is None:
            source = sources.load(first.dataset)
            scorer = Scorer(first, source)
        field = [Contender(name, cfg, source) for name, cfg in made.items()]
        while running := [each for each in field if not each.is_done(seconds)]:
            for each in running:
                each.train(min(turn, seconds - each.seconds))
                if each.broken is None:
                    each.score(scorer)
                print_progress(each)
        done += field
    assert scorer is not None
    assert source is not None
    conditions = {
        "extractor": scorer.judges.extractor.label,
        "N": scorer.n,
        "FID of real images": scorer.floor,
        "data": source.origin,
        "images": len(source.images),
    }
    return done, conditions


def print_progress(each: Contender) -> None:
    """Print a line of progress to stderr."""
    line = f"{each.name} (seed {each.cfg.seed}): {each.seconds:.0f} s, {each.steps:,} steps, "
    if each.broken is not None:
        line += f"NaN at step {each.broken:,}"
    else:
        line += f"FID {each.curve[-1].fid:.1f}, diversity {each.curve[-1].diversity:.2f}"
    print(line, file=sys.stderr, flush=True)


def make_table(rows: list[dict[str, Any]], fid: float) -> str:
    def shown(number: float | None, digits: int) -> str:
        return "-" if number is None else f"{number:.{digits}f}"

    reached = f"s to FID<={fid:g}"
    cells = [["scheme", "seed", "steps", "images", reached, "FID", "diversity", "verdict"]]
    for row in rows:
        cells.append(
            [
                row["scheme"],
                str(row["seed"]),
                f"{row['steps']:,}",
                f"{row['images']:,}",
                shown(row["seconds to FID"], 0),
                shown(row["FID"], 1),
                shown(row["diversity"], 2),
                row["verdict"],
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for name, *numbers, verdict in cells:
        middle = [text.rjust(width) for text, width in zip(numbers, widths[1:], strict=False)]
        lines.append("  ".join([name.ljust(widths[0]), *middle, verdict]))
    return "\n".join(lines)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--seconds", type=above_zero, default=300, help="of training for each scheme"
    )
    parser.add_argument("--slice", type=above_zero, default=20, help="seconds of one turn")
    parser.add_argument("--fid", type=above_zero, default=100, help="the FID to reach")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=SCHEMES, default=list(SCHEMES), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="for every score of every scheme")
    parser.add_argument("settings", nargs="*", help="as for `began train`, for all schemes")
    args = parser.parse_intermixed_args()
    for word in args.settings:
        if name_of(word) in FIXED:
            parser.error(f"{word}: not to be set here: it would not be the same for all schemes")
    if args.json and (args.json.is_dir() or not args.json.absolute().parent.is_dir()):
        parser.error(f"--json {args.json}: must name a file in a folder that is there")
    with report_errors():
        done, conditions = compare(args.only, args.settings, args.seeds, args.seconds, args.slice)
        report(args, done, conditions)


def above_zero(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: wants a number above 0")
    return number


def report(args: argparse.Namespace, done: list["Contender"], conditions: dict[str, Any]) -> None:
    """Print the table, and write the file."""
    rows = [each.row(args.fid) for each in done]
    print(
        f"{conditions['images']:,} images of {conditions['data']}; "
        f"FID by {conditions['extractor']}, "
        f"{conditions['N']:,} samples, real against real {conditions['FID of real images']:.1f}; "
        f"{args.seconds:g} s a scheme on {done[0].device}"
    )
    print(make_table(rows, args.fid))
    if args.json:
        asked = {name: getattr(args, name) for name in ("seconds", "slice", "fid", "settings")}
        args.json.write_text(json.dumps(asked | conditions | {"schemes": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
