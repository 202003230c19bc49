"""The training loop, and what it logs, shows, scores, saves and restores."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import torch

from began_cli import __version__, ranks
from began_cli.data.sources import Source
from began_cli.errors import UserError, reason
from began_cli.evaluation.report import score_scalars
from began_cli.gan import graph
from began_cli.generators import checkpoint
from began_cli.settings.parse import to_plain
from began_cli.settings.train import TrainConfig
from began_cli.terminal import plural
from began_cli.training import resume, schedule, watchdog
from began_cli.training.monitor import Monitor, NoMonitor
from began_cli.training.previews import Previews
from began_cli.training.scorer import Scorer
from began_cli.training.setup import build_parts
from began_cli.training.signals import StopRequest

CHECKPOINTS = 2  # how many are kept
P = ParamSpec("P")


def writes(
    method: Callable[Concatenate["Training", P], None],
) -> Callable[Concatenate["Training", P], None]:
    """Decorate a method that writes to the disk: process 0 alone runs it.

    If the disk refuses, the run goes on with a warning, or ends, as `disk_full` says.
    """

    @functools.wraps(method)
    def run(self: "Training", *args: P.args, **kwargs: P.kwargs) -> None:
        if not ranks.is_first():
            return
        try:
            method(self, *args, **kwargs)
        except OSError as error:
            checkpoints = checkpoint.find_all(self.run)
            newest = "no checkpoint yet"
            if checkpoints:
                newest = f"the newest checkpoint is {checkpoints[-1]}"
            fault = f"step {self.update.step:,}: cannot write to {self.run} ({error.strerror})"
            if self.cfg.disk_full == "stop":
                raise UserError(f"{fault}; {newest}") from None
            self.monitor.warn(f"{fault}; going on, {newest}")

    return run


class Training:
    """All that changes during a run."""

    def __init__(
        self,
        cfg: TrainConfig,
        source: Source,
        device: torch.device,
        precision: str,
        monitor: Monitor | NoMonitor,
        scorer: Scorer | None = None,
    ) -> None:
        self.cfg, self.run, self.source, self.device = cfg, Path(cfg.out), source, device
        self.monitor, self.scorer = monitor, scorer
        self.precision = precision
        self.update, self.batches, self.latents = build_parts(cfg, source, device, precision)
        self.schedule = schedule.build(
            cfg.schedule, [self.update.optimizer_g, self.update.optimizer_d]
        )
        self.watchdog = watchdog.Watchdog(cfg, precision)
        self.previews = Previews(self.update, source.images, cfg.model.latent_dim, device)
        self.rollbacks, self.saved_at = 0, 0
        self.best: dict[str, Any] = {}  # the best score so far, and its step

    def loop(self, stop: StopRequest) -> str | None:
        """Train until the last step or a signal, and save; return the signal's name, if any."""
        cfg, update, monitor = self.cfg, self.update, self.monitor
        self.show_reals()
        monitor.start(update.step, self.images)
        self.saved_at, stopped = update.step, None
        while update.step < cfg.steps and not (stopped := stop.received()):
            measures = update(self.batches, self.latents)
            monitor.add(measures, update.step)
            if news := self.schedule.after(update.step, measures.scalars):
                monitor.say(news)
            if update.step % cfg.log_every == 0 and (good := self.log_and_watch()):
                self.roll_back(good)
                continue
            if update.step % cfg.sample_every == 0:
                self.show()
            if cfg.evaluate_every and update.step % cfg.evaluate_every == 0:
                self.evaluate()
            if update.step % cfg.checkpoint_every == 0:
                self.save()
        due = cfg.evaluate_every and update.step % cfg.evaluate_every
        if stopped is None and due and self.saved_at != update.step:
            self.evaluate()
        if self.saved_at != update.step:
            self.save_or_fail()
        if stopped is None:
            if update.step != monitor.logged_at:
                self.log(self.means())
            self.show()
        return stopped

    # --- logging and the watchdog -----------------------------------------------------------------

    @property
    def images(self) -> int:
        """The number of real images that the critic has seen."""
        return self.update.step * self.cfg.batch_size * self.update.loss.n_critic

    @ranks.on_first
    def log_and_watch(self) -> dict[str, Any] | None:
        """Log; return the checkpoint to roll back to, None to go on.

        Raise UserError if the watchdog stops the run.
        """
        values, step = self.means(), self.update.step
        networks_finite = watchdog.finite([self.update.generator, self.update.discriminator])
        alarms = self.watchdog.look(values, networks_finite)
        fatal = next((alarm.advice for alarm in alarms if alarm.fatal), None)
        self.log(values, fatal)
        for alarm in alarms:
            self.monitor.warn(f"step {step:,}: {alarm.advice}", title="watchdog")
        if fatal is None or self.cfg.watchdog == "warn":
            return None
        if self.cfg.watchdog == "stop":
            self.save_or_fail()
            raise UserError(f"stopped by the watchdog at step {step:,}: {fatal}")
        if self.rollbacks >= self.cfg.watch.rollbacks or not checkpoint.find_all(self.run):
            raise UserError(
                f"stopped by the watchdog at step {step:,} after {self.rollbacks} "
                f"roll-backs: {fatal}"
            )
        _, saved, _ = checkpoint.read(str(self.run), "resume")
        return saved

    def means(self) -> dict[str, float]:
        """Return the means since the last log, the learning rates and the samples' diversity."""
        return self.monitor.means(
            self.images,
            lr_g=self.update.optimizer_g.param_groups[0]["lr"],
            lr_d=self.update.optimizer_d.param_groups[0]["lr"],
            diversity=self.previews.diversity(),
        )

    @writes
    def log(self, values: dict[str, float], alarm: str | None = None) -> None:
        self.monitor.log(self.update.step, self.images, values, alarm)

    def roll_back(self, saved: dict[str, Any]) -> None:
        """Go back to a checkpoint with half the learning rates."""
        step, rollbacks = self.update.step, self.rollbacks + 1
        self.load_state_dict(saved)
        self.schedule.scale(0.5 ** (rollbacks - self.rollbacks))
        self.rollbacks = rollbacks
        self.watchdog.forget()
        self.monitor.rewind(self.update.step, self.images)
        self.monitor.say(
            f"rolled back from step {step:,} to {self.update.step:,} with half the learning rates "
            f"({rollbacks} of {self.cfg.watch.rollbacks})"
        )

    # --- pictures and scores ----------------------------------------------------------------------

    @writes
    def show_reals(self) -> None:
        self.previews.save_reals(self.run)

    @writes
    def show(self) -> None:
        self.previews.save(self.run, self.update.step, self.monitor)

    @writes
    def evaluate(self) -> None:
        """Score the averaged generator, and keep its checkpoint if it is the best so far."""
        scorer, step = self.scorer, self.update.step
        if scorer is None or not watchdog.finite([self.update.ema]):
            return
        score = scorer(self.update.ema)
        better = scorer.better(score.value, self.best)
        self.monitor.log_score(score_scalars(scorer.title, score), step)
        scorer.record(self.run, score, step)
        if better:
            self.best = {"score": scorer.name, "extractor": score.extractor}
            self.best |= {"value": score.value, "step": step}
            checkpoint.save_best(self.run, step, self.state_dict())
        self.monitor.say(
            f"step {step:,}: {scorer.title}[{score.extractor}] {score.value:.4g}, real images "
            f"{score.floor:.4g}{'; the best so far' if better else ''}"
        )

    # --- checkpoints ------------------------------------------------------------------------------

    @writes
    def save(self) -> None:
        self._save()

    def save_or_fail(self) -> None:
        """Like `save`, but raise UserError if the disk refuses."""
        if not ranks.is_first():
            return
        try:
            self._save()
        except OSError as error:
            raise UserError(
                f"out={self.run}: step {self.update.step:,} cannot be saved ({error.strerror}); "
                f"make room, and go on from the checkpoint before with resume={self.run}"
            ) from None

    def _save(self) -> None:
        """Write a checkpoint, unless a weight is not finite; delete older ones."""
        if watchdog.finite([self.update.generator, self.update.discriminator]):
            checkpoint.save(checkpoint.path_for(self.run, self.update.step), self.state_dict())
            checkpoint.keep_newest(self.run, CHECKPOINTS)
        else:
            self.monitor.warn(f"step {self.update.step:,}: not saved, a weight is not finite")
        self.saved_at = self.update.step

    def state_dict(self) -> dict[str, Any]:
        """Return all that the rest of the run depends on, as tensors and plain values."""
        return {
            "config": to_plain(self.cfg),
            "began": __version__,
            "data": self.source.card(),
            **self.update.state_dict(),
            "schedule": self.schedule.state_dict(),
            "batches": self.batches.state_dict(),
            "latents": self.latents.state_dict(),
            "monitor": self.monitor.state_dict(),
            "rollbacks": self.rollbacks,
            "best": self.best,
            "rng": resume.rng_state(self.device),
            "computed": {"device": self.device.type, "precision": self.precision},
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.update.load_state_dict(saved)
        self.schedule.load_state_dict(saved["schedule"])
        self.batches.load_state_dict(saved["batches"])
        self.latents.load_state_dict(saved["latents"])
        self.monitor.load_state_dict(saved["monitor"], self.device)
        self.rollbacks, self.best = saved["rollbacks"], saved["best"]
        resume.set_rng_state(saved["rng"], self.device)

    # --- before the first step --------------------------------------------------------------------

    def resume(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint, and set those of later steps aside.

        Raise UserError if its contents do not fit.
        """
        with checkpoint.fits(Path(self.cfg.resume or self.run), "resume"):
            self.load_state_dict(saved)
        if ranks.is_first():
            for warning in checkpoint.set_aside(self.run, self.update.step):
                self.monitor.warn(warning)
        self.monitor.say(f"going on from step {self.update.step:,} of {self.run}")
        if (before := saved["config"]["devices"]) != self.cfg.devices:
            self.monitor.say(
                f"devices={self.cfg.devices}, where there were {before}: sums round otherwise"
            )
        before = saved["computed"]["device"]
        if before != self.device.type:
            news = f"device={self.device.type}, where it was {before}: sums round otherwise"
            if (then := saved["computed"]["precision"]) != self.precision:
                news += f", and precision=auto is {self.precision}, where it was {then}"
            self.monitor.say(news)

    def introduce(self) -> None:
        """Report the data, the networks and the device."""
        cfg, update, d = self.cfg, self.update, self.cfg.dataset
        if self.source.warning:
            self.monitor.warn(self.source.warning)
        generator, discriminator = (
            sum(weight.numel() for weight in network.parameters())
            for network in (update.generator, update.discriminator)
        )
        shape = f"{d.image_size}x{d.image_size}x{d.channels}"
        device = f"{cfg.devices} x {self.device.type}" if cfg.devices > 1 else str(self.device)
        for line in (
            f"{d.name}: {len(self.source.images):,} images of {shape} on "
            f"{self.batches.images.device}, from {self.source.origin}",
            f"  sha256 {self.source.sha256}",
            f"{cfg.loss.name} on {cfg.model.name}: G {generator:,} and D {discriminator:,} "
            f"parameters, "
            f"batch {cfg.batch_size}, {cfg.optimizer.name}, {device}, "
            f"{self.precision}; {plural(cfg.steps, 'step')}",
            f"run folder: {cfg.out}",
        ):
            self.monitor.say(line)

    def compile(self) -> None:
        """Compile the networks if `compile` says so; go on with a warning if that fails."""
        d, mode = self.cfg.dataset, self.cfg.compile
        if mode == "off":
            return
        n = self.cfg.batch_size // ranks.size()
        z = torch.zeros(n, self.cfg.model.latent_dim, device=self.device)
        x = torch.zeros(n, *d.image_shape, device=self.device)
        start = time.perf_counter()
        try:
            self.update.compile(mode, x, z, graphs=not self.cfg.wants_graph(self.device.type))
        except Exception as error:  # the compiler's, of any kind
            self.monitor.warn(f"compile={mode}: {reason(error)}; going on uncompiled")
        else:
            self.monitor.say(f"compiled in {time.perf_counter() - start:.0f} s")

    def capture(self) -> None:
        """Capture the step in a CUDA graph if `graph` says so; go on with a warning if that fails,
        or if the captured steps are not those that the run would take."""
        if not self.cfg.wants_graph(self.device.type):
            if self.cfg.graph == "auto" and self.device.type == "cuda":
                self.monitor.say("graph=auto: several processes take their steps without")
            return
        start = time.perf_counter()
        try:
            gap = graph.capture(self.update, self.batches, self.latents)
        except Exception as error:  # of CUDA or PyTorch, of any kind
            self.monitor.warn(f"graph=auto: {reason(error)}; going on without")
            return
        equal = f"within {gap:.1g}" if gap else "bit for bit"
        self.monitor.say(
            f"captured the step as one CUDA graph in {time.perf_counter() - start:.0f} s; "
            f"{graph.STEPS} steps equal eager ones {equal}"
        )
