"""What settings may be: ranges, and rules across fields. Raises UserError, naming the setting."""

import math
import re
from typing import Any

from began_cli.errors import UserError
from began_cli.settings.commands import (
    CompareConfig,
    EvaluateConfig,
    ExportConfig,
    InterpolateConfig,
    SampleConfig,
)
from began_cli.settings.train import (
    AdamWOptimizerConfig,
    BeganLossConfig,
    BeganModelConfig,
    BeganUnbalancedLossConfig,
    BganDiscreteLossConfig,
    BganLossConfig,
    DatasetConfig,
    EbganLossConfig,
    EbganPtLossConfig,
    FileDatasetConfig,
    FolderDatasetConfig,
    LinearScheduleConfig,
    LossConfig,
    MlpModelConfig,
    ModelConfig,
    OptimizerConfig,
    PlateauScheduleConfig,
    RingDatasetConfig,
    ScheduleConfig,
    ScoreLossConfig,
    StackedMnistDatasetConfig,
    TrainConfig,
    WganGpLossConfig,
    WganLossConfig,
)


def check_train(c: TrainConfig) -> None:
    """Raises UserError for the first setting that is out of its range."""
    at_least("steps", c.steps, 1)
    at_least("batch_size", c.batch_size, 1)
    for name in ("log_every", "sample_every", "checkpoint_every"):
        at_least(name, getattr(c, name), 1)
    at_least("evaluate_every", c.evaluate_every, 0)
    if c.evaluate_every and c.dataset.channels == 2:
        raise UserError(f"evaluate_every: dataset={c.dataset.name} has points, not images to score")
    require(
        2 <= c.evaluation.n <= SEEDS_APART, "evaluation.n", c.evaluation.n, f"2 to {SEEDS_APART}"
    )
    one_of("evaluation.score", c.evaluation.score, *FEATURE_SCORES)
    require(0 <= c.seed < 2**63, "seed", c.seed, "a whole number from 0 to 2^63 - 1")
    one_of("watchdog", c.watchdog, "warn", "stop", "rollback")
    at_least("watch.patience", c.watch.patience, 1)
    within("watch.diversity", c.watch.diversity, 0.0, 1.0, "[)")
    at_least("watch.rollbacks", c.watch.rollbacks, 0)
    one_of("disk_full", c.disk_full, "continue", "stop")
    one_of("precision", c.precision, "auto", "fp32", "bf16", "fp16")
    at_least("accumulate", c.accumulate, 1)
    at_least("devices", c.devices, 1)
    whole = c.batch_size % c.accumulate == 0
    require(whole, "accumulate", c.accumulate, f"a number that divides batch_size={c.batch_size}")
    part = c.batch_size // c.accumulate
    whole = part % c.devices == 0
    require(whole, "devices", c.devices, f"a number that divides the {part} images at once")
    one_of("compile", c.compile, "off", "default", "max")
    within("ema.decay", c.ema.decay, 0.0, 1.0, "[)")
    check_device("device", c.device)
    check_dataset(c.dataset)
    check_model(c.model, c.dataset)
    check_loss(c.loss, c.dataset, part, c.devices)
    check_optimizer(c.optimizer)
    if c.precision == "fp16" and c.optimizer.name == "rmsprop":
        raise UserError(
            "precision=fp16: rmsprop cannot leave out the steps that overflow without waiting for "
            "the device; use precision=bf16, or optimizer=adam"
        )
    check_schedule(c.schedule, c.loss)


def check_dataset(c: DatasetConfig) -> None:
    at_least("dataset.width", c.width, 1)
    if c.device != "auto":
        check_device("dataset.device", c.device)
    if isinstance(c, FileDatasetConfig):
        require(c.root != "", "dataset.root", c.root, "a folder")
    if isinstance(c, FolderDatasetConfig):
        meant = c.cache is None or c.cache.lower() not in ("", "true", "false", "none")
        require(meant, "dataset.cache", c.cache, "auto, null for none, or a folder")
    if isinstance(c, RingDatasetConfig):
        require(c.image_size == 1, "dataset.image_size", c.image_size, "1: a point is one pixel")
        require(c.channels == 2, "dataset.channels", c.channels, "2: a point is x and y")
        at_least("dataset.modes", c.modes, 1)
        require(0 < c.radius < 1, "dataset.radius", c.radius, "a number between 0 and 1")
        require(0 < c.spread < 1, "dataset.spread", c.spread, "a number between 0 and 1")
        return
    require(
        c.image_size in [8 * 2**k for k in range(1, 8)],
        "dataset.image_size",
        c.image_size,
        "8 times a power of two: 16, 32, 64, 128, 256, 512 or 1024",
    )
    require(c.channels in (1, 3), "dataset.channels", c.channels, "1 (grey) or 3 (colour)")
    if isinstance(c, StackedMnistDatasetConfig):
        require(c.channels == 3, "dataset.channels", c.channels, "3: three digits an image")


def check_model(c: ModelConfig, data: DatasetConfig) -> None:
    at_least("model.width", c.width, 1)
    at_least("model.latent_dim", c.latent_dim, 1)
    at_least("model.code_dim", c.code_dim, 1)
    one_of("model.output", c.output, "linear", "tanh")
    one_of("model.init", c.init, "orthogonal", "normal", "torch")
    require(0 < c.gain < math.inf, "model.gain", c.gain, "a number above 0")
    if isinstance(c, MlpModelConfig):
        at_least("model.layers", c.layers, 1)
        within("model.dropout", c.dropout, 0.0, 1.0, "[)")
    elif data.image_size < 16:
        raise UserError(
            f"model={c.name}: its convolutions need images of 16 pixels or more, and "
            f"dataset={data.name} has points; use model=mlp"
        )
    if isinstance(c, BeganModelConfig):
        one_of("model.upsample", c.upsample, "auto", "composed", "nearest")
        one_of("model.first_stage", c.first_stage, "grow", "flat")
        at_least("model.carry_steps", c.carry_steps, 1)


def check_loss(c: LossConfig, data: DatasetConfig, at_once: int, devices: int) -> None:
    """`at_once` is the number of images that pass through the networks together, on all devices."""
    if isinstance(c, BeganUnbalancedLossConfig):
        one_of("loss.energy", c.energy, "l1", "l2", "relative")
        require(c.content_floor > 0, "loss.content_floor", c.content_floor, "a number above 0")
    if isinstance(c, BeganLossConfig):
        require(0 <= c.gamma < math.inf, "loss.gamma", c.gamma, "0 or more (the paper: 0 to 1)")
        require(0 <= c.lambda_k < math.inf, "loss.lambda_k", c.lambda_k, "0 or more")
        require(c.k_min <= c.k_max, "loss.k_min", c.k_min, f"at most loss.k_max={c.k_max}")
        within("loss.k_0", c.k_0, c.k_min, c.k_max, "[]")
    if isinstance(c, EbganLossConfig):
        ok = c.margin == "auto" or (not isinstance(c.margin, str) and 0 < c.margin < math.inf)
        require(ok, "loss.margin", c.margin, "a number above 0, or auto")
        at_least("loss.margin_steps", c.margin_steps, 1)
    if isinstance(c, EbganPtLossConfig):
        require(0 <= c.pt_weight < math.inf, "loss.pt_weight", c.pt_weight, "0 or more")
        require(
            (at_once if c.pt_global else at_once // devices) >= 2,
            "batch_size",
            at_once,
            "2 or more images for each of the accumulated parts: pulling away needs two",
        )
    if isinstance(c, ScoreLossConfig):
        at_least("loss.pack", c.pack, 1)
        each = at_once // devices
        whole = each % c.pack == 0
        require(whole, "loss.pack", c.pack, f"a number that divides the {each} images at once")
    if isinstance(c, BganLossConfig):
        within("loss.log_z_decay", c.log_z_decay, 0.0, 1.0, "[)")
    if isinstance(c, BganDiscreteLossConfig):
        at_least("loss.samples", c.samples, 2)
        if data.channels != 1:
            grey = "" if data.name == "ring" else "dataset.channels=1, or "
            raise UserError(
                f"loss=bgan_discrete makes black and white images, and dataset={data.name} has "
                f"{data.channels} channels; use {grey}loss=bgan"
            )
    if isinstance(c, WganLossConfig):
        require(0 < c.clip < math.inf, "loss.clip", c.clip, "a number above 0")
        at_least("loss.n_critic", c.n_critic, 1)
    if isinstance(c, WganGpLossConfig):
        require(0 <= c.gp_weight < math.inf, "loss.gp_weight", c.gp_weight, "0 or more")
        at_least("loss.n_critic", c.n_critic, 1)


def check_optimizer(c: OptimizerConfig) -> None:
    for name in ("lr", "lr_g", "lr_d"):
        value = getattr(c, name)
        require(
            0 < value < math.inf, f"optimizer.{name}", value, "a number above 0, such as 0.0001"
        )
    require(
        len(c.betas) == 2 and all(0 <= b < 1 for b in c.betas),
        "optimizer.betas",
        c.betas,
        "two numbers from 0 to below 1, such as [0.5,0.999]",
    )
    require(0 < c.eps < math.inf, "optimizer.eps", c.eps, "a number above 0, such as 1e-8")
    if isinstance(c, AdamWOptimizerConfig):
        value = c.weight_decay
        require(0 <= value < math.inf, "optimizer.weight_decay", value, "0 or more")


def check_schedule(c: ScheduleConfig, loss: LossConfig) -> None:
    if isinstance(c, PlateauScheduleConfig):
        if not isinstance(loss, BeganLossConfig):
            raise UserError(
                f"schedule=plateau follows M_global, which loss={loss.name} does not have; "
                "use schedule=constant or schedule=linear"
            )
        at_least("schedule.window", c.window, 1)
        at_least("schedule.cooldown", c.cooldown, 0)
        within("schedule.threshold", c.threshold, 0.0, 1.0, "[)")
        require(0 <= c.floor < math.inf, "schedule.floor", c.floor, "a learning rate, 0 or more")
    if isinstance(c, LinearScheduleConfig):
        at_least("schedule.start", c.start, 0)
        require(c.end > c.start, "schedule.end", c.end, f"more than schedule.start={c.start}")


def check_sample(c: SampleConfig) -> None:
    one_of("mode", c.mode, "generate", "reconstruct")
    one_of("format", c.format, "png", "grid", "npz")
    check_device("device", c.device)
    if (c.mode == "reconstruct") != (c.images is not None):
        raise UserError(f"mode={c.mode}: images=… and mode=reconstruct belong together")
    if c.mode == "reconstruct" and c.format != "grid":
        raise UserError(f"format={c.format}: mode=reconstruct makes pictures; leave format=grid")
    seeds = seed_list(c.seeds)
    if c.n is not None:
        at_least("n", c.n, 1)
        if seeds is not None and len(seeds) != c.n:
            raise UserError(f"n={c.n} but seeds={c.seeds} names {len(seeds)}: give one of the two")
    c.seeds = seeds if seeds is not None else list(range(c.n or 64))
    c.n = len(c.seeds)


def check_interpolate(c: InterpolateConfig) -> None:
    one_of("path", c.path, "between", "mirror", "loop", "traverse")
    if c.rows is not None:
        at_least("rows", c.rows, 1)
    at_least("steps", c.steps, 2)
    one_of("mode", c.mode, "lerp", "slerp")
    one_of("error", c.error, "l1", "l2")
    one_of("start", c.start, "random", "encoder")
    at_least("restarts", c.restarts, 1)
    at_least("search_steps", c.search_steps, 1)
    require(0 < c.search_lr < math.inf, "search_lr", c.search_lr, "a number above 0, such as 0.1")
    one_of("format", c.format, "png", "gif", "webp", "npz")
    require(1 <= c.fps <= 50, "fps", c.fps, "1 to 50 frames a second")
    check_device("device", c.device)
    given = [name for name in ("seeds", "images", "latents") if getattr(c, name) is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)}: a path has ends of one kind; give one of them")
    if c.path == "mirror" and c.images is None:
        raise UserError("path=mirror: goes from an image to its mirror; name some with images=…")
    if c.path == "traverse" and c.mode == "slerp":
        raise UserError("mode=slerp: an axis is a straight line; path=traverse wants mode=lerp")
    if c.axes is not None and c.path != "traverse":
        raise UserError(f"axes={c.axes}: path={c.path} has none; use path=traverse")
    c.axes = seed_list(c.axes, "axes")
    if c.axes is not None:
        require(c.rows in (None, len(c.axes)), "rows", c.rows, f"{len(c.axes)}, one an axis")
        c.rows = len(c.axes)
    c.seeds = seed_list(c.seeds)


def check_export(c: ExportConfig) -> None:
    one_of("format", c.format, *EXPORTS)
    if c.out is not None:
        ending = EXPORTS[c.format]
        require(c.out.endswith(ending), "out", c.out, f"a file whose name ends in {ending}")


EXPORTS = {"safetensors": ".safetensors", "onnx": ".onnx", "torch": ".pt2"}
FEATURE_SCORES = ("fid", "kid", "is", "precision", "recall", "density", "coverage")
NEIGHBOURLY = ("precision", "recall", "density", "coverage")  # that look at k neighbours
SCORES = (*FEATURE_SCORES, "modes", "ndb", "nearest")
SEEDS_APART = 1_000_000  # between the images of two seeds of `began evaluate`


def check_evaluate(c: EvaluateConfig) -> None:
    if c.n is not None:
        require(2 <= c.n <= SEEDS_APART, "n", c.n, f"a whole number from 2 to {SEEDS_APART}")
    require(0 <= c.seed < SEEDS_APART, "seed", c.seed, f"0 to {SEEDS_APART - 1}")
    at_least("k", c.k, 1)
    at_least("kid_subset", c.kid_subset, 2)
    at_least("bins", c.bins, 2)
    at_least("batch_size", c.batch_size, 1)
    check_device("device", c.device)
    scores = c.scores if isinstance(c.scores, list) else [c.scores]
    require(bool(scores), "scores", c.scores, "one score or more")
    for score in scores:
        one_of("scores", str(score), "auto", "all", *SCORES)
    c.scores = [str(score) for score in scores]


def check_compare(c: CompareConfig) -> None:
    given = c.runs if isinstance(c.runs, list) else [c.runs]
    if not given or any(each is None for each in given):
        raise UserError("runs: which ones? began compare SWEEP, or RUN RUN …, their folders")
    at_least("n", c.n, 1)
    check_device("device", c.device)
    c.runs = [str(each) for each in given]


CHECKS = {
    "train": check_train,
    "sample": check_sample,
    "interpolate": check_interpolate,
    "export": check_export,
    "evaluate": check_evaluate,
    "compare": check_compare,
}


def require(ok: bool, setting: str, value: Any, wants: str) -> None:
    if not ok:
        raise UserError(f"{setting}={value}: wants {wants}")


def at_least(setting: str, value: int, least: int) -> None:
    require(value >= least, setting, value, f"a whole number, {least} or more")


def one_of(setting: str, value: str, *choices: str) -> None:
    require(value in choices, setting, value, f"one of {', '.join(choices)}")


def within(setting: str, value: float, low: float, high: float, ends: str) -> None:
    """`ends` is one of `[]`, `[)`: whether `high` itself is allowed."""
    ok = low <= value <= high if ends == "[]" else low <= value < high
    require(
        ok, setting, value, f"a number from {low:g} to {'' if ends == '[]' else 'below '}{high:g}"
    )


def check_device(setting: str, value: str) -> None:
    require(
        re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value) is not None,
        setting,
        value,
        "auto, cpu, mps, cuda or cuda:N",
    )


def seed_list(value: Any, setting: str = "seeds") -> list[int] | None:
    """`7`, `0-63`, `"0-3,8"` or `[0,3,8]` as a list of seeds; None for None."""
    if value is None:
        return None
    parts = value if isinstance(value, list) else str(value).split(",")
    seeds: list[int] = []
    for part in parts:
        match = re.fullmatch(r"\s*(\d{1,18})(?:\s*-\s*(\d{1,18}))?\s*", str(part))
        require(match is not None, setting, value, "7, 0-63 or [0,3,8]")
        assert match is not None
        first, last = int(match[1]), int(match[2] or match[1])
        require(first <= last < first + 10**7, setting, value, "a range that rises, such as 0-63")
        seeds.extend(range(first, last + 1))
    require(bool(seeds), setting, value, "one seed or more")
    return seeds
