"""The settings as dataclasses: one per group entry and per command.

Their values stand in `conf/`, nowhere else; `settings.py` reads and checks them.
"""

from dataclasses import dataclass

from omegaconf import MISSING

from began_cli.settings.commands import (
    CompareConfig,
    EvaluateConfig,
    ExportConfig,
    InterpolateConfig,
    SampleConfig,
)

# --- losses: one dataclass each, so that a setting which a loss does not have is refused ---------


@dataclass(slots=True)
class LossConfig:
    name: str = MISSING


@dataclass(slots=True)
class BeganUnbalancedLossConfig(LossConfig):
    energy: str = MISSING
    content_floor: float = MISSING
    separate_latents: bool = MISSING


@dataclass(slots=True)
class BeganLossConfig(BeganUnbalancedLossConfig):
    gamma: float = MISSING
    lambda_k: float = MISSING
    k_0: float = MISSING
    k_min: float = MISSING
    k_max: float = MISSING


@dataclass(slots=True)
class EbganLossConfig(LossConfig):
    margin: int | float | str = MISSING
    margin_steps: int = MISSING


@dataclass(slots=True)
class EbganPtLossConfig(EbganLossConfig):
    pt_weight: float = MISSING
    pt_global: bool = MISSING


@dataclass(slots=True)
class ScoreLossConfig(LossConfig):
    pack: int = MISSING


@dataclass(slots=True)
class BganLossConfig(ScoreLossConfig):
    log_z: bool = MISSING
    log_z_decay: float = MISSING


@dataclass(slots=True)
class BganDiscreteLossConfig(LossConfig):
    samples: int = MISSING


@dataclass(slots=True)
class GanLossConfig(ScoreLossConfig):
    saturating: bool = MISSING


@dataclass(slots=True)
class WganLossConfig(ScoreLossConfig):
    clip: float = MISSING
    n_critic: int = MISSING


@dataclass(slots=True)
class WganGpLossConfig(ScoreLossConfig):
    gp_weight: float = MISSING
    n_critic: int = MISSING


LOSSES: dict[str, type[LossConfig]] = {
    "began": BeganLossConfig,
    "began_unbalanced": BeganUnbalancedLossConfig,
    "ebgan": EbganLossConfig,
    "ebgan_pt": EbganPtLossConfig,
    "bgan": BganLossConfig,
    "bgan_discrete": BganDiscreteLossConfig,
    "gan": GanLossConfig,
    "wgan": WganLossConfig,
    "wgan_gp": WganGpLossConfig,
}

# --- networks ------------------------------------------------------------------------------------


@dataclass(slots=True)
class ModelConfig:
    name: str = MISSING
    width: int = MISSING
    latent_dim: int = MISSING
    code_dim: int = MISSING
    output: str = MISSING
    init: str = MISSING
    gain: float = MISSING


@dataclass(slots=True)
class BeganModelConfig(ModelConfig):
    skips: bool = MISSING
    residual: bool = MISSING
    carry_steps: int = MISSING
    first_stage: str = MISSING
    upsample: str = MISSING


@dataclass(slots=True)
class DcganModelConfig(ModelConfig):
    pass


@dataclass(slots=True)
class MlpModelConfig(ModelConfig):
    layers: int = MISSING
    dropout: float = MISSING


MODELS: dict[str, type[ModelConfig]] = {
    "began": BeganModelConfig,
    "dcgan": DcganModelConfig,
    "mlp": MlpModelConfig,
}

# --- data sets -----------------------------------------------------------------------------------


@dataclass(slots=True)
class DatasetConfig:
    name: str = MISSING
    image_size: int = MISSING
    channels: int = MISSING
    width: int = MISSING
    device: str = MISSING


@dataclass(slots=True)
class FileDatasetConfig(DatasetConfig):
    root: str = MISSING
    flip: bool = MISSING


@dataclass(slots=True)
class MnistDatasetConfig(FileDatasetConfig):
    fallback: bool = MISSING


@dataclass(slots=True)
class StackedMnistDatasetConfig(MnistDatasetConfig):
    pass


@dataclass(slots=True)
class FolderDatasetConfig(FileDatasetConfig):
    cache: str | None = MISSING
    skip_broken: bool = MISSING


@dataclass(slots=True)
class RingDatasetConfig(DatasetConfig):
    modes: int = MISSING
    radius: float = MISSING
    spread: float = MISSING


DATASETS: dict[str, type[DatasetConfig]] = {
    "mnist": MnistDatasetConfig,
    "fashion_mnist": FileDatasetConfig,
    "cifar10": FileDatasetConfig,
    "stacked_mnist": StackedMnistDatasetConfig,
    "folder": FolderDatasetConfig,
    "ring": RingDatasetConfig,
}

# --- optimizers and schedules --------------------------------------------------------------------


@dataclass(slots=True)
class OptimizerConfig:
    name: str = MISSING
    lr: float = MISSING
    lr_g: float = MISSING
    lr_d: float = MISSING
    betas: list[float] = MISSING
    eps: float = MISSING


@dataclass(slots=True)
class AdamWOptimizerConfig(OptimizerConfig):
    weight_decay: float = MISSING


OPTIMIZERS: dict[str, type[OptimizerConfig]] = {
    "adam": OptimizerConfig,
    "adamw": AdamWOptimizerConfig,
    "rmsprop": OptimizerConfig,
}


@dataclass(slots=True)
class ScheduleConfig:
    name: str = MISSING


@dataclass(slots=True)
class PlateauScheduleConfig(ScheduleConfig):
    window: int = MISSING
    threshold: float = MISSING
    cooldown: int = MISSING
    floor: float = MISSING


@dataclass(slots=True)
class LinearScheduleConfig(ScheduleConfig):
    start: int = MISSING
    end: int = MISSING


SCHEDULES: dict[str, type[ScheduleConfig]] = {
    "constant": ScheduleConfig,
    "linear": LinearScheduleConfig,
    "plateau": PlateauScheduleConfig,
}

# --- the rest, and the commands ------------------------------------------------------------------


@dataclass(slots=True)
class EmaConfig:
    decay: float = MISSING


@dataclass(slots=True)
class WatchConfig:
    patience: int = MISSING
    diversity: float = MISSING
    rollbacks: int = MISSING


@dataclass(slots=True)
class EvaluationConfig:
    n: int = MISSING
    score: str = MISSING
    extractor: str = MISSING
    weights: str | None = MISSING


@dataclass(slots=True)
class TrainConfig:
    loss: LossConfig = MISSING
    dataset: DatasetConfig = MISSING
    model: ModelConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    schedule: ScheduleConfig = MISSING
    ema: EmaConfig = MISSING
    steps: int = MISSING
    batch_size: int = MISSING
    seed: int = MISSING
    device: str = MISSING
    devices: int = MISSING
    precision: str = MISSING
    accumulate: int = MISSING
    compile: str = MISSING
    log_every: int = MISSING
    sample_every: int = MISSING
    checkpoint_every: int = MISSING
    evaluate_every: int = MISSING
    evaluation: EvaluationConfig = MISSING
    watchdog: str = MISSING
    watch: WatchConfig = MISSING
    disk_full: str = MISSING
    dry_run: bool = MISSING
    resume: str | None = MISSING
    out: str = MISSING


COMMANDS: dict[str, type] = {
    "train": TrainConfig,
    "sample": SampleConfig,
    "interpolate": InterpolateConfig,
    "compare": CompareConfig,
    "export": ExportConfig,
    "evaluate": EvaluateConfig,
}

GROUPS: dict[str, dict[str, type]] = {
    "loss": LOSSES,
    "model": MODELS,
    "dataset": DATASETS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
