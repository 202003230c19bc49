"""`began train`: from settings to a trained generator."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from began_cli import __version__, config, settings
from began_cli.commands import dry_run, in_loop
from began_cli.commands.pictures import Pictures
from began_cli.commands.ready import batches_of, ready
from began_cli.config import TrainConfig
from began_cli.data import sources
from began_cli.errors import UserError
from began_cli.gan.build import settle_margin
from began_cli.run import checkpoint, resume, schedule, watchdog
from began_cli.run.device import enough_memory, pick_device, precision_name
from began_cli.run.lock import only_process
from began_cli.run.monitor import Monitor
from began_cli.run.signals import RESUME_ME, StopRequest

CHECKPOINTS = 2  # how many are kept


def main(cfg: TrainConfig, typed: list[str]) -> None:
    """Trains a generator in the run folder `cfg.out`, or goes on with the run of `cfg.resume`.

    `typed` are the names of the settings that the user gave.
    """
    if cfg.dry_run:
        dry_run.report(cfg)
        return
    cfg, saved, complaints = resume.choose_run(cfg, typed)
    run = Path(cfg.out)
    device = pick_device(cfg.device)
    source = sources.load(cfg.dataset)
    if isinstance(cfg.dataset, config.FileDatasetConfig):  # so that it can go on from elsewhere
        cfg.dataset.root = str(Path(cfg.dataset.root).expanduser().absolute())
    if saved is not None and saved["data"]["sha256"] != source.sha256:
        was, now = saved["data"], source.card()
        raise UserError(
            f"dataset={cfg.dataset.name}: not the images this run was trained on: "
            f"{was['count']} of {was['origin']} then, {now['count']} of {now['origin']} now"
        )
    scorer = in_loop.Scorer(cfg, source) if cfg.evaluate_every else None
    try:
        (run / "samples").mkdir(parents=True, exist_ok=True)
        for name in ("config.yaml", "train.log", "metrics.jsonl", ".lock"):
            (run / name).open("a").close()
    except OSError as error:
        raise UserError(f"out={run}: cannot be written to ({error.strerror})") from None

    with only_process(run):
        if saved is not None and saved["step"] == cfg.steps and resume.finished(run, cfg.steps):
            Console(highlight=False).print(
                f"{run}: done already, at step {cfg.steps:,}", markup=False, soft_wrap=True
            )
            return
        checkpoint.sweep(run)
        if saved is not None:
            complaints += checkpoint.set_aside(run, saved["step"])
        seed_everything(cfg.seed)
        margin = settle_margin(cfg, lambda: batches_of(cfg, source, device), device)
        seed_everything(cfg.seed)  # the first weights are those of any other margin
        (run / "config.yaml").write_text(settings.to_yaml(cfg), encoding="utf-8")
        logged_at = saved["monitor"].get("logged_at", 0) if saved else 0
        with Monitor(run, cfg.steps, resume.flat(settings.plain(cfg)), logged_at) as monitor:
            with enough_memory(cfg.batch_size, cfg.model.width):
                training = Training(cfg, run, source, device, monitor, scorer)
            for text in (*complaints, source.warning):
                if text:
                    monitor.warn(text)
            if saved is not None:
                with checkpoint.fits(Path(cfg.resume or run), "resume"):
                    training.load(saved)
                monitor.say(f"going on from step {training.update.step:,} of {run}")
            for line in training.introduction():
                monitor.say(line)
            training.compile()
            if margin is not None:
                monitor.say(f"loss.margin={margin:g}: the energy of an autoencoder trained alone")
            with StopRequest() as stop, enough_memory(cfg.batch_size, cfg.model.width):
                training.loop(stop)
            if stop.name is not None:
                monitor.say(f"stopped by {stop.name} at step {training.update.step:,}; go on with")
                monitor.say(f"  began train resume={run}")
                raise SystemExit(RESUME_ME)
            last = f"{run}/samples/step-{training.update.step:08d}.png"
            monitor.say(f"done: {training.update.step:,} steps; {last}")
            monitor.say(f"  began sample ckpt={run}")


class Training:
    """Everything that one run moves, and how it is logged, shown, saved and put back."""

    def __init__(
        self,
        cfg: TrainConfig,
        run: Path,
        source: sources.Source,
        device: torch.device,
        monitor: Monitor,
        scorer: in_loop.Scorer | None = None,
    ) -> None:
        self.scorer, self.best = scorer, dict[str, Any]()
        self.cfg, self.run, self.source, self.monitor = cfg, run, source, monitor
        self.device = device
        self.update, self.batches, self.stream = ready(cfg, source, device)
        self.plan = schedule.build(cfg.schedule, [self.update.optimizer_g, self.update.optimizer_d])
        self.watchdog = watchdog.Watchdog(cfg)
        self.rollbacks = 0
        self.pictures = Pictures(self.update, source.images, cfg.model.latent_dim, device)
        self.images_a_step = cfg.batch_size * self.update.loss.n_critic

    def compile(self) -> None:
        """Compiles the networks if the settings say so; goes on without where that fails."""
        d, mode = self.cfg.dataset, self.cfg.compile
        if mode == "off":
            return
        n, z = self.cfg.batch_size, torch.zeros_like(self.pictures.fixed[:1])
        x = torch.zeros(n, d.channels, d.image_size, d.image_size, device=self.device)
        start = time.perf_counter()
        try:
            self.update.compile(mode, x, z.expand(n, -1))
        except Exception as error:  # the compiler's, of any kind
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.monitor.warn(f"compile={mode}: {reason}; going on uncompiled")
        else:
            self.monitor.say(f"compiled in {time.perf_counter() - start:.0f} s")

    def loop(self, stop: StopRequest) -> None:
        """Steps until the last one or a stop; then everything is saved."""
        cfg, update = self.cfg, self.update
        self.guarded(lambda: self.pictures.show_reals(self.run))
        self.monitor.start(update.step, update.step * self.images_a_step)
        saved_at = update.step
        while update.step < cfg.steps and stop.name is None:
            measures = update(self.batches, self.stream)
            self.monitor.add(measures, update.step)
            if news := self.plan.after(update.step, measures.scalars):
                self.monitor.say(news)
            if (
                update.step % cfg.log_every == 0
                and self.guarded(self.log_and_watch) == "rolled back"
            ):
                continue
            if update.step % cfg.sample_every == 0:
                self.guarded(self.show)
            if cfg.evaluate_every and update.step % cfg.evaluate_every == 0:
                self.guarded(self.evaluate)
            if update.step % cfg.checkpoint_every == 0 and self.guarded(self.save) is not FAILED:
                saved_at = update.step
        at_the_end = stop.name is None and saved_at != update.step
        if cfg.evaluate_every and update.step % cfg.evaluate_every and at_the_end:
            self.guarded(self.evaluate)
        if saved_at != update.step:
            self.save_at_the_end()
        if stop.name is None:  # the end, whatever the intervals
            if update.step != self.monitor.logged_at:
                self.guarded(self.log)
            self.guarded(self.show)

    def guarded(self, work: Callable[[], Any]) -> Any:
        """Does what writes to the disk; if that fails says so, and goes on or stops as set."""
        try:
            return work()
        except OSError as error:
            kept = checkpoint.all_of(self.run)
            newest = f"the newest checkpoint is {kept[-1]}" if kept else "no checkpoint yet"
            said = f"step {self.update.step:,}: cannot write to {self.run} ({error.strerror})"
            if self.cfg.disk_full == "stop":
                raise UserError(f"{said}; {newest}") from None
            self.monitor.warn(f"{said}; going on, {newest}")
            return FAILED

    def save_at_the_end(self) -> None:
        """As `save`, but what cannot be written is an error."""
        try:
            self.save()
        except OSError as error:
            raise UserError(
                f"out={self.run}: step {self.update.step:,} cannot be saved ({error.strerror}); "
                "make room, and go on from the checkpoint before with resume="
                f"{self.run}"
            ) from None

    def save(self) -> None:
        """Writes a checkpoint of now, unless a weight is not finite; deletes older ones."""
        if not watchdog.finite([self.update.generator, self.update.discriminator]):
            self.monitor.warn(f"step {self.update.step:,}: not saved, a weight is not finite")
            return
        checkpoint.save(checkpoint.path_for(self.run, self.update.step), self.state_dict())
        checkpoint.keep_newest(self.run, CHECKPOINTS)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, as tensors and plain values."""
        return {
            "config": settings.plain(self.cfg),
            "began": __version__,
            "data": self.source.card(),
            **self.update.state_dict(),
            "schedule": self.plan.state_dict(),
            "batches": self.batches.state_dict(),
            "latents": self.stream.state_dict(),
            "monitor": self.monitor.state_dict(),
            "rollbacks": self.rollbacks,
            "best": self.best,
            "rng": resume.rng_state(),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave."""
        self.update.load_state_dict(saved)
        self.plan.load_state_dict(saved["schedule"])
        self.batches.load_state_dict(saved["batches"])
        self.stream.load_state_dict(saved["latents"])
        self.monitor.load_state_dict(saved["monitor"], self.device)
        self.rollbacks, self.best = saved["rollbacks"], saved["best"]
        resume.set_rng_state(saved["rng"])

    def log_and_watch(self) -> str | None:
        """Logs, and acts on what the watchdog sees; "rolled back" if it went back."""
        values = self.log()
        networks_finite = watchdog.finite([self.update.generator, self.update.discriminator])
        alarms = self.watchdog.look(values, networks_finite)
        for alarm in alarms:
            self.monitor.warn(f"step {self.update.step:,}: {alarm.advice}", title="watchdog")
        fatal = [alarm.advice for alarm in alarms if alarm.fatal]
        if not fatal or self.cfg.watchdog == "warn":
            return None
        if self.cfg.watchdog == "stop":
            self.save_at_the_end()
            raise UserError(f"stopped by the watchdog at step {self.update.step:,}: {fatal[0]}")
        self.roll_back(fatal[0])
        return "rolled back"

    def log(self) -> dict[str, float]:
        """Tells the means since the last log, with the rates and the samples' diversity."""
        rates = {"lr_g": self.update.optimizer_g.param_groups[0]["lr"]}
        rates["lr_d"] = self.update.optimizer_d.param_groups[0]["lr"]
        step = self.update.step
        diversity = self.pictures.diversity()
        return self.monitor.log(step, step * self.images_a_step, **rates, diversity=diversity)

    def show(self) -> None:
        self.pictures.show(self.run, self.update.step, self.monitor)

    def evaluate(self) -> None:
        """Scores the averaged generator, and keeps this checkpoint if it is the best so far."""
        scorer, step = self.scorer, self.update.step
        if scorer is None or not watchdog.finite([self.update.ema]):
            return
        score = scorer(self.update.ema)
        better = scorer.better(score.value, self.best)
        self.monitor.scalar(f"{scorer.name}/{score.extractor}", score.value, score.floor, step)
        scorer.record(self.run, score, step)
        if better:
            found = {"score": scorer.name, "extractor": score.extractor, "value": score.value}
            self.best = {**found, "step": step}
            checkpoint.save_best(self.run, step, self.state_dict())
        self.monitor.say(
            f"step {step:,}: {scorer.name}[{score.extractor}] {score.value:.4g}, real images "
            f"{score.floor:.4g}{'; the best so far' if better else ''}"
        )

    def roll_back(self, why: str) -> None:
        """Goes back to the last good checkpoint with half the learning rates."""
        step = self.update.step
        if self.rollbacks >= self.cfg.watch.rollbacks or not checkpoint.all_of(self.run):
            raise UserError(
                f"stopped by the watchdog at step {step:,} after {self.rollbacks} roll-backs: {why}"
            )
        _, saved, _ = checkpoint.read(str(self.run), "resume")
        done = self.rollbacks + 1
        self.load(saved)
        self.plan.scale(0.5 ** (done - self.rollbacks))
        self.rollbacks = done
        self.watchdog.forget()
        self.monitor.rewind(self.update.step, self.update.step * self.images_a_step)
        self.monitor.say(
            f"rolled back from step {step:,} to {self.update.step:,} with half the learning rates "
            f"({done} of {self.cfg.watch.rollbacks})"
        )

    def introduction(self) -> list[str]:
        """What a run says of itself before its first step."""
        cfg, update, d = self.cfg, self.update, self.cfg.dataset
        sizes = [
            sum(weight.numel() for weight in network.parameters())
            for network in (update.generator, update.discriminator)
        ]
        shape = f"{d.image_size}x{d.image_size}x{d.channels}"
        held = self.batches.images.device
        return [
            f"{d.name}: {len(self.source.images):,} images of {shape} on {held}, "
            f"from {self.source.origin}",
            f"  sha256 {self.source.sha256}",
            f"{cfg.loss.name} on {cfg.model.name}: G {sizes[0]:,} and D {sizes[1]:,} parameters, "
            f"batch {cfg.batch_size}, {cfg.optimizer.name}, {self.device}, "
            f"{precision_name(update.amp)}; {cfg.steps:,} steps",
            f"run folder: {cfg.out}",
        ]


FAILED = object()  # what `guarded` gives when the disk refused


def seed_everything(seed: int) -> None:
    """Every global random state."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
