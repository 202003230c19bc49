"""`began train`: train a generator."""

from pathlib import Path

from began_cli import ranks
from began_cli.device import enough_memory, warn_of_busy_cores
from began_cli.settings.train import TrainConfig
from began_cli.terminal import picture_class, say
from began_cli.training import dry_run, resume, setup
from began_cli.training.loop import Training
from began_cli.training.scorer import Scorer
from began_cli.training.signals import CAN_RESUME, StopRequest


def main(cfg: TrainConfig, typed: list[str]) -> float | None:
    """Train a generator in the run folder `cfg.out`, or go on with the run of `cfg.resume`.

    `typed` are the names of the settings that the user gave. Returns the best score, if any.
    """
    if cfg.dry_run:
        dry_run.report(cfg)
        return None
    with ranks.connect():
        return train(resume.make_plan(cfg, typed))


def train(plan: resume.Plan) -> float | None:
    """Train as planned, in each process of the run; return the best score, if any."""
    cfg, saved, run = plan.cfg, plan.saved, Path(plan.cfg.out)
    cfg.devices = ranks.size()
    if cfg.show:
        picture_class()  # fails now if it is missing, not after the folder is made
    device = setup.pick_own_device(cfg)
    source = setup.load_data(cfg, saved)
    if saved is not None and plan.finished:
        if ranks.is_first():
            say(f"{run}: done already, at step {cfg.steps:,}")
        return saved["best"].get("value")
    scorer = Scorer(cfg, source) if cfg.evaluate_every and ranks.is_first() else None
    with setup.claim_folder(run), enough_memory(cfg.batch_size, cfg.model.width):
        setup.seed_everything(cfg.seed)
        with setup.open_monitor(cfg, saved) as monitor:
            precision = setup.pick_own_precision(cfg, device, saved)
            training = Training(cfg, source, device, precision, monitor, scorer)
            for warning in plan.warnings:
                monitor.warn(warning)
            if warning := warn_of_busy_cores(device):
                monitor.warn(warning)
            if saved is not None:
                training.resume(saved)
            training.introduce()
            training.compile()
            training.capture()
            with StopRequest() as stop:
                signal = training.loop(stop)
                step = training.update.step
                if signal is not None:
                    monitor.say(f"stopped by {signal} at step {step:,}; go on with")
                    monitor.say(f"  began train resume={run}")
            if signal is not None:
                raise SystemExit(CAN_RESUME)
            monitor.say(f"done: {step:,} steps; {run}/samples/step-{step:08d}.png")
            monitor.say(f"  began sample ckpt={run}")
    return training.best.get("value")
