"""The settings of a training run as dataclasses: one an option of each group, so that a setting
which a loss, network or data set does not have is refused. Their values stand in `conf/`.

`check` holds the rules that concern several settings; it may assume that each value by itself is
in its range.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from began_cli.errors import UserError
from began_cli.settings import checks
from began_cli.settings.checks import Rule, above_zero, at_least, fraction, from_zero, one_of
from began_cli.settings.commands import FEATURE_SCORES, SEEDS_APART
from began_cli.settings.fields import command, names_with, option, setting

# --- losses ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class LossConfig:
    name: str = setting()

    @property
    def images_a_value(self) -> int:
        """How many images the discriminator judges together."""
        return 1

    def check(self, run: "TrainConfig") -> None:
        """Raise UserError if the loss does not fit the other settings of the run."""


_GAMMA = "only loss=began, began_paper and loss.margin=following compare the energies by a ratio"
_R1 = "only loss=began, ebgan, ebgan_pt, gan and bgan have it; wgan_gp has loss.gp_weight"
_MARGIN = Rule(
    lambda value: (
        value == "following" or (isinstance(value, int | float) and above_zero().holds(value))
    ),
    "a number above 0, or following",
)


@option("loss", "began")
class BeganLossConfig(LossConfig):
    energy: str = setting(one_of("l1", "l2", "norm"))
    gamma: float = setting(above_zero(), only=_GAMMA)
    r1: float = setting(from_zero(), only=_R1)


@option("loss", "began_unbalanced")
class BeganUnbalancedLossConfig(LossConfig):
    energy: str = setting(one_of("l1", "l2", "norm"))
    separate_latents: bool = setting()


@option("loss", "began_paper")
class BeganPaperLossConfig(BeganUnbalancedLossConfig):
    gamma: float = setting(from_zero("0 or more (the paper: 0 to 1)"), only=_GAMMA)
    lambda_k: float = setting(from_zero(), only="only loss=began_paper controls k_t")
    k_0: float = setting()
    k_min: float = setting()
    k_max: float = setting()

    def check(self, run: "TrainConfig") -> None:
        low, high = self.k_min, self.k_max
        checks.require(low <= high, "loss.k_min", low, f"at most loss.k_max={high}")
        within = low <= self.k_0 <= high
        checks.require(within, "loss.k_0", self.k_0, f"a number from {low:g} to {high:g}")


@option("loss", "ebgan")
class EbganLossConfig(LossConfig):
    margin: int | float | str = setting(
        _MARGIN, only="only loss=ebgan and ebgan_pt have a margin that can be set"
    )
    gamma: float | None = setting(above_zero(), only=_GAMMA)
    r1: float = setting(from_zero(), only=_R1)

    def check(self, run: "TrainConfig") -> None:
        follows = self.margin == "following"
        wants = "a number above 0" if follows else "null: only loss.margin=following has it"
        checks.require(follows == (self.gamma is not None), "loss.gamma", self.gamma, wants)


@option("loss", "ebgan_pt")
class EbganPtLossConfig(EbganLossConfig):
    pt_weight: float = setting(
        from_zero(), only="only loss=ebgan_pt pulls away; that needs an autoencoder's code"
    )
    pt_global: bool = setting()

    def check(self, run: "TrainConfig") -> None:
        EbganLossConfig.check(self, run)
        at_once = run.images_at_once
        checks.require(
            (at_once if self.pt_global else run.images_a_device) >= 2,
            "batch_size",
            at_once,
            "2 or more images for each of the accumulated parts: pulling away needs two",
        )


@dataclass(slots=True)
class ScoreLossConfig(LossConfig):
    pack: int = setting(
        at_least(1),
        only="only score discriminators judge images together: loss=gan, bgan, wgan or wgan_gp",
    )

    @property
    def images_a_value(self) -> int:
        return self.pack

    def check(self, run: "TrainConfig") -> None:
        n = run.images_a_device
        wants = f"a number that divides the {n} images at once"
        checks.require(n % self.pack == 0, "loss.pack", self.pack, wants)


@dataclass(slots=True)
class PenalisedScoreLossConfig(ScoreLossConfig):
    r1: float = setting(from_zero(), only=_R1)


@option("loss", "gan")
class GanLossConfig(PenalisedScoreLossConfig):
    saturating: bool = setting()


@option("loss", "bgan")
class BganLossConfig(PenalisedScoreLossConfig):
    log_z: bool = setting()
    log_z_decay: float = setting(fraction())


@option("loss", "bgan_discrete")
class BganDiscreteLossConfig(LossConfig):
    samples: int = setting(at_least(2))

    def check(self, run: "TrainConfig") -> None:
        data = run.dataset
        if data.channels != 1:
            advice = "loss=bgan"
            with suppress(UserError):  # of a data set that cannot be grey
                replace(data, channels=1).check()
                advice = f"dataset.channels=1, or {advice}"
            raise UserError(
                f"loss=bgan_discrete makes black and white images, and dataset={data.name} has "
                f"{data.channels} channels; use {advice}"
            )


@option("loss", "wgan")
class WganLossConfig(ScoreLossConfig):
    clip: float = setting(above_zero())
    n_critic: int = setting(at_least(1))


@option("loss", "wgan_gp")
class WganGpLossConfig(ScoreLossConfig):
    gp_weight: float = setting(from_zero())
    n_critic: int = setting(at_least(1))


# --- networks -------------------------------------------------------------------------------------


@dataclass(slots=True)
class ModelConfig:
    name: str = setting()
    width: int = setting(at_least(1))
    latent_dim: int = setting(at_least(1))
    code_dim: int = setting(at_least(1))
    code_norm: bool = setting()
    output: str = setting(one_of("linear", "tanh"))
    init: str = setting(one_of("orthogonal", "normal", "torch"))
    gain: float = setting(above_zero())

    def check(self, data: "DatasetConfig") -> None:
        """Raise UserError if the networks cannot take such images."""
        if data.image_size < 16:
            raise UserError(
                f"model={self.name}: its convolutions need images of 16 pixels or more, and "
                f"dataset={data.name} has points; use model=mlp"
            )


@option("model", "began")
class BeganModelConfig(ModelConfig):
    skips: bool = setting()
    residual: bool = setting()
    carry_steps: int = setting(at_least(1))
    first_stage: str = setting(one_of("grow", "flat"))
    upsample: str = setting(one_of("auto", "composed", "nearest"))


@option("model", "dcgan")
class DcganModelConfig(ModelConfig):
    pass


@option("model", "mlp")
class MlpModelConfig(ModelConfig):
    layers: int = setting(at_least(1))
    dropout: float = setting(fraction())

    def check(self, data: "DatasetConfig") -> None:
        """Accept images of any size, and points."""


# --- data sets ------------------------------------------------------------------------------------

SIZES = tuple(8 * 2**k for k in range(1, 8))


@dataclass(slots=True)
class DatasetConfig:
    name: str = setting()
    image_size: int = setting()
    channels: int = setting()
    width: int = setting(at_least(1))
    r1: float = setting(from_zero())
    margin: Any = setting(_MARGIN)  # int | float | str: OmegaConf cannot expand a union here
    device: str = setting(checks.device("auto"), resumable=True)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of an image, (C, H, W)."""
        return self.channels, self.image_size, self.image_size

    def check(self) -> None:
        """Raise UserError if there are no such images."""
        checks.require(
            self.image_size in SIZES,
            "dataset.image_size",
            self.image_size,
            "8 times a power of two: 16, 32, 64, 128, 256, 512 or 1024",
        )
        channels = self.channels
        checks.require(channels in (1, 3), "dataset.channels", channels, "1 (grey) or 3 (colour)")


@option("dataset", "fashion_mnist", "cifar10")
class FileDatasetConfig(DatasetConfig):
    root: str = setting(Rule(bool, "a folder"), path=True, resumable=True)
    flip: bool = setting()


@option("dataset", "mnist")
class MnistDatasetConfig(FileDatasetConfig):
    fallback: bool = setting(resumable=True)


@option("dataset", "stacked_mnist")
class StackedMnistDatasetConfig(MnistDatasetConfig):
    def check(self) -> None:
        MnistDatasetConfig.check(self)
        wants = "3: three digits an image"
        checks.require(self.channels == 3, "dataset.channels", self.channels, wants)


@option("dataset", "folder")
class FolderDatasetConfig(FileDatasetConfig):
    cache: str | None = setting(
        Rule(
            lambda value: value.lower() not in ("", "true", "false", "none"),
            "auto, null for none, or a folder",
        ),
        path=True,
        resumable=True,
    )
    skip_broken: bool = setting()


@option("dataset", "avatars")
class AvatarsDatasetConfig(DatasetConfig):
    def check(self) -> None:
        size, channels = self.image_size, self.channels
        checks.require(size in (16, 32, 64), "dataset.image_size", size, "16, 32 or 64")
        checks.require(channels == 3, "dataset.channels", channels, "3: avatars are in colour")


@option("dataset", "ring")
class RingDatasetConfig(DatasetConfig):
    modes: int = setting(at_least(1))
    radius: float = setting(checks.inside_unit())
    spread: float = setting(checks.inside_unit())

    def check(self) -> None:
        size, channels = self.image_size, self.channels
        checks.require(size == 1, "dataset.image_size", size, "1: a point is one pixel")
        checks.require(channels == 2, "dataset.channels", channels, "2: a point is x and y")


# --- optimizers and schedules ---------------------------------------------------------------------


@option("optimizer", "adam", "rmsprop")
class OptimizerConfig:
    name: str = setting()
    lr: float = setting(above_zero(", such as 0.0001"))
    lr_g: float = setting(above_zero(", such as 0.0001"))
    lr_d: float = setting(above_zero(", such as 0.0001"))
    betas: list[float] = setting(
        Rule(
            lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
            "two numbers from 0 to below 1, such as [0.5,0.999]",
        )
    )
    eps: float = setting(above_zero(", such as 1e-8"))


@option("optimizer", "adamw")
class AdamWOptimizerConfig(OptimizerConfig):
    weight_decay: float = setting(from_zero())


@option("schedule", "constant")
class ScheduleConfig:
    name: str = setting()

    def check(self, run: "TrainConfig") -> None:
        """Raise UserError if the schedule does not fit the other settings of the run."""


@option("schedule", "plateau")
class PlateauScheduleConfig(ScheduleConfig):
    window: int = setting(at_least(1))
    threshold: float = setting(fraction())
    cooldown: int = setting(at_least(0))
    floor: float = setting(from_zero("a learning rate, 0 or more"))

    def check(self, run: "TrainConfig") -> None:
        if not isinstance(run.loss, BeganLossConfig | BeganPaperLossConfig):
            raise UserError(
                f"schedule=plateau follows M_global, which loss={run.loss.name} does not have; "
                "use schedule=constant or schedule=linear"
            )


@option("schedule", "linear")
class LinearScheduleConfig(ScheduleConfig):
    start: int = setting(at_least(0))
    end: int = setting()

    def check(self, run: "TrainConfig") -> None:
        wants = f"more than schedule.start={self.start}"
        checks.require(self.end > self.start, "schedule.end", self.end, wants)


# --- the run --------------------------------------------------------------------------------------


@dataclass(slots=True)
class EmaConfig:
    decay: float = setting(fraction())


@dataclass(slots=True)
class WatchConfig:
    patience: int = setting(at_least(1), resumable=True)
    diversity: float = setting(fraction(), resumable=True)
    rollbacks: int = setting(at_least(0), resumable=True)


@dataclass(slots=True)
class EvaluationConfig:
    n: int = setting(
        Rule(lambda value: 2 <= value <= SEEDS_APART, f"2 to {SEEDS_APART}"), resumable=True
    )
    score: str = setting(one_of(*FEATURE_SCORES), resumable=True)
    extractor: str = setting(path=True, resumable=True)
    weights: str | None = setting(path=True, resumable=True)


@command("train")
class TrainConfig:
    loss: LossConfig = setting()
    dataset: DatasetConfig = setting()
    model: ModelConfig = setting()
    optimizer: OptimizerConfig = setting()
    schedule: ScheduleConfig = setting()
    ema: EmaConfig = setting()
    steps: int = setting(at_least(1), resumable=True)
    batch_size: int = setting(at_least(1))
    seed: int = setting(Rule(lambda seed: 0 <= seed < 2**63, "a whole number from 0 to 2^63 - 1"))
    device: str = setting(checks.device(), resumable=True)
    devices: int = setting(at_least(1), resumable=True)
    precision: str = setting(one_of("auto", "fp32", "tf32", "bf16", "fp16"))
    accumulate: int = setting(at_least(1))
    compile: str = setting(one_of("off", "default", "max"), resumable=True)
    graph: str = setting(one_of("auto", "off"), resumable=True)
    log_every: int = setting(at_least(1), resumable=True)
    sample_every: int = setting(at_least(1), resumable=True)
    checkpoint_every: int = setting(at_least(1), resumable=True)
    evaluate_every: int = setting(at_least(0), resumable=True)
    evaluation: EvaluationConfig = setting()
    watchdog: str = setting(one_of("warn", "stop", "rollback"), resumable=True)
    watch: WatchConfig = setting()
    disk_full: str = setting(one_of("continue", "stop"), resumable=True)
    dry_run: bool = setting(resumable=True)
    show: bool = setting(resumable=True)
    resume: str | None = setting(path=True, resumable=True)
    out: str = setting(path=True, resumable=True)

    def wants_graph(self, device: str) -> bool:
        """Return whether the step is to be captured in a CUDA graph on a `device` of this kind."""
        return self.graph == "auto" and device == "cuda" and self.devices == 1

    @property
    def images_at_once(self) -> int:
        """The images that pass through the networks together, on all devices."""
        return self.batch_size // self.accumulate

    @property
    def images_a_device(self) -> int:
        """The images that pass through the networks of one device together."""
        return self.images_at_once // self.devices

    def check(self) -> None:
        """Raise UserError for settings that do not fit each other."""
        n, at_once = self.batch_size, self.images_at_once
        whole = n % self.accumulate == 0
        checks.require(
            whole, "accumulate", self.accumulate, f"a number that divides batch_size={n}"
        )
        whole = at_once % self.devices == 0
        wants = f"a number that divides the {at_once} images at once"
        checks.require(whole, "devices", self.devices, wants)
        self.dataset.check()
        self.model.check(self.dataset)
        self.loss.check(self)
        self.schedule.check(self)
        scores = isinstance(self.loss, ScoreLossConfig | BganDiscreteLossConfig)
        if self.model.code_norm and not scores:
            wants = "2 or more images for each of the accumulated parts, or model.code_norm=false"
            checks.require(at_once >= 2, "batch_size", at_once, wants)
        if self.evaluate_every and self.dataset.channels == 2:
            raise UserError(
                f"evaluate_every: dataset={self.dataset.name} has points, not images to score"
            )
        if self.precision == "fp16" and self.optimizer.name == "rmsprop":
            raise UserError(
                "precision=fp16: rmsprop cannot leave out the steps that overflow without waiting "
                "for the device; use precision=bf16, or optimizer=adam"
            )


# Dotted names of settings: those of every command and option, which are all registered by now.
RESUMABLE = names_with("resumable")
PATHS = names_with("path")
