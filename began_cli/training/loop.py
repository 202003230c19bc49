"""What one run moves, and how it is logged, shown, saved and put back."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from began_cli import __version__, ranks
from began_cli.data import sources
from began_cli.device import enough_memory, precision_name
from began_cli.errors import UserError
from began_cli.generators import checkpoint
from began_cli.settings.parse import to_plain
from began_cli.settings.train import TrainConfig
from began_cli.training import resume, schedule, watchdog
from began_cli.training import scorer as in_loop
from began_cli.training.monitor import Monitor
from began_cli.training.previews import Pictures
from began_cli.training.setup import ready
from began_cli.training.signals import StopRequest

CHECKPOINTS = 2  # how many are kept
FAILED = object()  # what `guarded` gives when the disk refused


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
        n = self.cfg.batch_size // ranks.size()
        z = torch.zeros_like(self.pictures.fixed[:1])
        x = torch.zeros(n, d.channels, d.image_size, d.image_size, device=self.device)
        start = time.perf_counter()
        try:
            self.update.compile(mode, x, z.expand(n, -1))
        except Exception as error:  # the compiler's, of any kind
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.monitor.warn(f"compile={mode}: {reason}; going on uncompiled")
        else:
            self.monitor.say(f"compiled in {time.perf_counter() - start:.0f} s")

    def loop(self, stop: StopRequest) -> str | None:
        """Steps until the last one or a stop, whose name it gives; then everything is saved."""
        cfg, update = self.cfg, self.update
        self.guarded(lambda: self.pictures.show_reals(self.run))
        self.monitor.start(update.step, update.step * self.images_a_step)
        saved_at, stopped = update.step, None
        while update.step < cfg.steps and not (stopped := stop.asked()):
            measures = update(self.batches, self.stream)
            self.monitor.add(measures, update.step)
            if news := self.plan.after(update.step, measures.scalars):
                self.monitor.say(news)
            if update.step % cfg.log_every == 0 and self.log_and_watch() == "rolled back":
                continue
            if update.step % cfg.sample_every == 0:
                self.guarded(self.show)
            if cfg.evaluate_every and update.step % cfg.evaluate_every == 0:
                self.guarded(self.evaluate)
            if update.step % cfg.checkpoint_every == 0 and self.guarded(self.save) is not FAILED:
                saved_at = update.step
        at_the_end = stopped is None and saved_at != update.step
        if cfg.evaluate_every and update.step % cfg.evaluate_every and at_the_end:
            self.guarded(self.evaluate)
        if saved_at != update.step:
            self.save_at_the_end()
        if stopped is None:  # the end, whatever the intervals
            if update.step != self.monitor.logged_at:
                self.guarded(self.log)
            self.guarded(self.show)
        return stopped

    def guarded(self, work: Callable[[], Any]) -> Any:
        """Does what writes to the disk, in process 0; if that fails says so, and goes on or stops
        as set."""
        if not ranks.first():
            return None
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
        if not ranks.first():
            return
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
            "config": to_plain(self.cfg),
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

    def load_from(self, path: Path, saved: dict[str, Any]) -> None:
        """As `load`; what does not fit is a UserError that names the checkpoint."""
        with checkpoint.fits(path, "resume"):
            self.load(saved)

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
        found = ranks.of_first(lambda: self.guarded(self.log_and_look))
        if not isinstance(found, dict):
            return None
        self.roll_back(found)
        return "rolled back"

    def log_and_look(self) -> dict[str, Any] | None:
        """Logs; the checkpoint to go back to if the watchdog wants it. Raises UserError to stop."""
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
        return self.way_back(fatal[0])

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

    def way_back(self, why: str) -> dict[str, Any]:
        """The last good checkpoint. Raises UserError when there is none, or it was used enough."""
        if self.rollbacks >= self.cfg.watch.rollbacks or not checkpoint.all_of(self.run):
            raise UserError(
                f"stopped by the watchdog at step {self.update.step:,} after {self.rollbacks} "
                f"roll-backs: {why}"
            )
        _, saved, _ = checkpoint.read(str(self.run), "resume")
        return saved

    def roll_back(self, saved: dict[str, Any]) -> None:
        """Goes back to a checkpoint with half the learning rates."""
        step, done = self.update.step, self.rollbacks + 1
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
        device = f"{cfg.devices} x {self.device.type}" if cfg.devices > 1 else str(self.device)
        return [
            f"{d.name}: {len(self.source.images):,} images of {shape} on {held}, "
            f"from {self.source.origin}",
            f"  sha256 {self.source.sha256}",
            f"{cfg.loss.name} on {cfg.model.name}: G {sizes[0]:,} and D {sizes[1]:,} parameters, "
            f"batch {cfg.batch_size}, {cfg.optimizer.name}, {device}, "
            f"{precision_name(update.amp)}; {cfg.steps:,} steps",
            f"run folder: {cfg.out}",
        ]


def prepare(
    cfg: TrainConfig,
    run: Path,
    source: sources.Source,
    device: torch.device,
    monitor: Monitor,
    scorer: in_loop.Scorer | None,
) -> Training:
    """A run before its first step. Raises UserError if it does not fit into memory."""
    with enough_memory(cfg.batch_size, cfg.model.width):
        return Training(cfg, run, source, device, monitor, scorer)
