"""Check on a GPU what no CPU can show, and measure its speed, in about ten minutes.

    python scripts/gpu_check.py [--seconds 5] [--out gpu_check.json] [setting=value …]

Checks, on random pixels:

trajectory  in fp32 the losses of 20 steps are those of a CPU, to 1 %
captured    steps replayed from one CUDA graph are those taken eagerly, for each loss
resumed     a run that is saved and loaded goes on as the one that was not
waits       steps never wait for the GPU, eager or captured

Speeds are in images/s, for BGAN on MNIST and BEGAN's recipes at 64x64 and 128x128: eager, captured,
compiled, and both, beside the two schemes of `benchmark.py step`. Settings apply to all of them.

Prints Markdown and writes JSON. Exits with 1 if a check fails.
"""

import copy
import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmark import Reference, make_noise, measure_peak, time_once
from common import compose_settings, make_parser, report_errors

from began_cli.device import pick_device, pick_precision
from began_cli.errors import UserError, reason
from began_cli.gan import graph
from began_cli.gan.update import Update
from began_cli.settings.fields import GROUPS
from began_cli.settings.train import TrainConfig
from began_cli.training import dry_run, resume
from began_cli.training.setup import Parts, build_parts, seed_everything

SMALL = ["dataset=mnist", "dataset.width=16", "batch_size=8"]
SPEEDS = {
    "mnist, bgan": ["dataset=mnist", "loss=bgan", "batch_size=64"],
    "faces64, began": ["recipe=faces64", "dataset.root=x"],
    "faces128, began": ["recipe=faces128", "dataset.root=x"],
}
VARIANTS = ("eager", "captured", "compiled", "captured and compiled")
Row = dict[str, Any]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="that each speed is measured")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("settings", nargs="*", help="as for `began train`")
    args = parser.parse_intermixed_args()
    if not torch.cuda.is_available():
        raise UserError("there is no CUDA device here")
    device = pick_device("cuda")
    torch.cuda.set_device(device)
    checks = {
        "trajectory": check_trajectory(args.settings),
        **{f"captured, {loss}": check_capture(loss, args.settings) for loss in GROUPS["loss"]},
        "resumed": check_resume(args.settings),
        "waits": check_waits(args.settings),
    }
    speeds = {
        name: measure_speeds([*line, *args.settings], args.variants, args.seconds, device)
        for name, line in SPEEDS.items()
    }
    result = {
        "device": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "checks": checks,
        "speeds": speeds,
    }
    args.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print("\n".join(to_markdown(result)))
    if not all(check["passed"] for check in checks.values()):
        raise SystemExit(1)


def new_parts(cfg: TrainConfig, device: torch.device) -> Parts:
    """Return a run's parts at its beginning, always from the same random state."""
    seed_everything(cfg.seed)
    return build_parts(cfg, make_noise(cfg), device)


# --- checks ---------------------------------------------------------------------------------------


def check(work: Callable[[], tuple[bool, str]]) -> Row:
    """Return whether a check passed, and what it found; an error of any kind is a failure."""
    try:
        passed, found = work()
    except Exception as error:
        passed, found = False, reason(error)
    return {"passed": passed, "found": found}


def check_trajectory(settings: list[str], steps: int = 20, tolerance: float = 0.01) -> Row:
    """Compare the losses of a CPU and the GPU, step by step from the same state."""

    def work() -> tuple[bool, str]:
        line = [*SMALL, "loss=began", "model=began", "precision=fp32", *settings]
        cfg = compose_settings(line)
        losses = []
        for device in ("cpu", "cuda"):
            update, batches, latents = new_parts(cfg, pick_device(device))
            each = [update(batches, latents).scalars for _ in range(steps)]
            losses.append([[s["loss_real"].item(), s["loss_g"].item()] for s in each])
        cpu, gpu = torch.tensor(losses)
        gap = ((cpu - gpu).abs() / cpu.abs()).max().item()
        return gap <= tolerance, f"{gap:.1e} apart at most after {steps} steps"

    return check(work)


def check_capture(loss: str, settings: list[str]) -> Row:
    """Compare captured steps with eager ones."""

    def work() -> tuple[bool, str]:
        cfg = compose_settings([*SMALL, f"loss={loss}", *settings])
        gap = graph.capture(*new_parts(cfg, pick_device("cuda")))
        return True, f"{gap:.1e} apart" if gap else "equal bit for bit"

    return check(work)


def check_resume(settings: list[str], steps: int = 5) -> Row:
    """Save a captured run, go on in it, and go on from what was saved."""

    def work() -> tuple[bool, str]:
        cfg, device = compose_settings([*SMALL, "loss=bgan", *settings]), pick_device("cuda")
        update, batches, latents = new_parts(cfg, device)
        graph.capture(update, batches, latents)
        for _ in range(steps):
            update(batches, latents)
        saved = copy.deepcopy(update.state_dict()), batches.state_dict(), latents.state_dict()
        random = resume.rng_state(device)
        again = new_parts(cfg, device)
        part: Any
        for part, state in zip(again, saved, strict=True):
            part.load_state_dict(state)
        graph.capture(*again)
        for _ in range(steps):
            update(batches, latents)
        resume.set_rng_state(random, device)
        for _ in range(steps):
            again.update(again.batches, again.latents)
        return equal(update, again.update)

    return check(work)


def equal(one: Update, other: Update) -> tuple[bool, str]:
    """Compare all weights, averages and states of two runs."""
    pairs = zip(graph.state_tensors(one), graph.state_tensors(other), strict=True)
    gaps = [(a.float() - b.float()).abs().max().item() for a, b in pairs]
    return max(gaps) == 0, f"{max(gaps):.1e} apart" if max(gaps) else "equal bit for bit"


def check_waits(settings: list[str], steps: int = 5) -> Row:
    """Take steps while PyTorch raises an error whenever it waits for the GPU."""

    def work() -> tuple[bool, str]:
        for loss in GROUPS["loss"]:
            cfg = compose_settings([*SMALL, f"loss={loss}", *settings])
            update, batches, latents = new_parts(cfg, pick_device("cuda"))
            for captured in (False, True):
                if captured:
                    graph.capture(update, batches, latents)
                update(batches, latents)
                torch.cuda.set_sync_debug_mode("error")
                try:
                    for _ in range(steps):
                        update(batches, latents)
                finally:
                    torch.cuda.set_sync_debug_mode("default")
        return True, f"none in {steps} eager and {steps} captured steps of each loss"

    return check(work)


# --- speed ----------------------------------------------------------------------------------------


def measure_speeds(
    line: list[str], variants: list[str], seconds: float, device: torch.device
) -> list[Row]:
    """Measure a run's step in each variant and, for BEGAN, the two public schemes in fp32."""
    cfg = compose_settings(line)
    work = dry_run.count(cfg, make_noise(cfg))
    amp = None
    rows: list[Row] = []
    for name in variants:
        free_memory(device)
        parts = new_parts(cfg, device)
        amp = parts.update.amp
        rows.append({"variant": name, "precision": pick_precision(cfg.precision, device)})
        try:
            if "compiled" in name:
                graphs = "captured" not in name
                parts.update.compile("default", parts.batches(), parts.latents(), graphs)
            if "captured" in name:
                rows[-1]["apart"] = graph.capture(*parts)
            rows[-1] |= time_step(
                lambda parts=parts: parts.update(parts.batches, parts.latents), seconds, device
            )
            rows[-1]["images/s"] = work.images / rows[-1]["seconds"]
            rows[-1]["FLOPS"] = work.flops / rows[-1]["seconds"]
        except Exception as error:  # of the compiler or the capture
            rows[-1]["error"] = reason(error)
        rows[-1]["memory"] = torch.cuda.max_memory_allocated(device)
        del parts
    peak = measure_peak(device, amp)
    for row in rows:
        if "FLOPS" in row:
            row["share of peak"] = row["FLOPS"] / peak
    return rows + (measure_public(cfg, seconds, device) if cfg.loss.name == "began_paper" else [])


def measure_public(cfg: TrainConfig, seconds: float, device: torch.device) -> list[Row]:
    """Measure BEGAN's step as in public repositories, on the same networks, in fp32."""
    update, batches, latents = new_parts(cfg, device)
    loss: Any = cfg.loss
    rows = []
    for name in ("three passes", "two phases"):
        free_memory(device)
        reference = Reference(update, loss.gamma, loss.lambda_k, cfg.optimizer.lr)
        step = reference.three_passes if name == "three passes" else reference.two_phases
        row = time_step(lambda step=step: step(batches(), latents()), seconds, device)
        row |= {"variant": name, "precision": "fp32", "images/s": cfg.batch_size / row["seconds"]}
        rows.append(row | {"memory": torch.cuda.max_memory_allocated(device)})
    return rows


def free_memory(device: torch.device) -> None:
    """Free what earlier steps have left, so that the next peak is that of the next ones."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)


def time_step(step: Callable[[], Any], seconds: float, device: torch.device) -> Row:
    """Return the seconds of a step, the mean over about `seconds`."""
    for _ in range(5):
        step()
    once = time_once(step, device)
    steps = max(1, int(seconds / once))
    return {"seconds": time_once(lambda: [step() for _ in range(steps)], device) / steps}


# --- report ---------------------------------------------------------------------------------------


def to_markdown(result: Row) -> list[str]:
    """Return the report as lines of Markdown."""
    lines = [f"{result['device']}, PyTorch {result['torch']}", "", "| check | | |", "|---|---|---|"]
    for name, row in result["checks"].items():
        lines.append(f"| {name} | {'passed' if row['passed'] else 'FAILED'} | {row['found']} |")
    lines += ["", "| | | precision | images/s | ms per step | share of peak | memory |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, rows in result["speeds"].items():
        for row in rows:
            cells = [name, row["variant"], row["precision"]]
            if "error" in row:
                cells += [row["error"], "", ""]
            else:
                share = f"{row['share of peak']:.0%}" if "share of peak" in row else ""
                cells += [f"{row['images/s']:,.0f}", f"{1000 * row['seconds']:.2f}", share]
            lines.append(f"| {' | '.join([*cells, dry_run.size(row['memory'])])} |")
    return lines


if __name__ == "__main__":
    with report_errors():
        main()
