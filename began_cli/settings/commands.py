"""The settings of every command but train, as dataclasses. Their values stand in `conf/`.

`check` holds the rules that concern several settings. After it `normalise` replaces what a user
may write in several ways by one form.
"""

from dataclasses import dataclass
from typing import Any

from began_cli.errors import UserError
from began_cli.files import ending_of
from began_cli.settings import checks
from began_cli.settings.checks import Rule, above_zero, at_least, one_of, read_numbers, require
from began_cli.settings.fields import command, setting

FEATURE_SCORES = ("fid", "kid", "is", "precision", "recall", "density", "coverage")
NEIGHBOURLY = ("precision", "recall", "density", "coverage")  # that look at k neighbours
COPYING = ("authpct", "c_t")  # that look for copies of training images
SCORES = (*FEATURE_SCORES, "vendi", "modes", "ndb", "nearest", *COPYING)
SEEDS_APART = 1_000_000  # between the images of two seeds of `began evaluate`
REFERENCES = ("train", "test")  # splits that samples are compared with
# What a file holds, by its ending
EXPORTS = {".safetensors": "safetensors", ".onnx": "onnx", ".pt2": "torch"}
SHEETS = {".png": "grid", ".npz": "npz"}
PATHS_DRAWN = {".png": "png", ".gif": "gif", ".webp": "webp", ".npz": "npz"}


def choose_format(out: str | None, format: str | None, formats: dict[str, str]) -> str:
    """Return the format to write: `format`, or else that of the ending of `out`.

    `formats` has the format of each ending; the first is the default. Raise UserError if `out` has
    an ending of none of them, or of another format.
    """
    ending, known = ending_of(out), " or ".join(formats)
    if not ending:
        return format or next(iter(formats.values()))
    wants = f"a file whose name ends in {known}, or a folder, a name without an ending"
    require(ending in formats, "out", out, wants)
    if format not in (None, formats[ending]):
        raise UserError(
            f"format={format}: the ending of out={out} means format={formats[ending]}; give one of "
            "the two"
        )
    return formats[ending]


@dataclass(frozen=True, slots=True)
class Protocol:
    """A published way to score: how many samples, against which real images, by which network."""

    n: int
    reference: str  # of REFERENCES
    extractor: str
    whole: bool = False  # compare with all images of the split, not with n of them
    dataset: str | None = None  # the only one that it is for


PROTOCOLS = {
    "lucic": Protocol(10_000, "test", "inception"),  # 1711.10337
    "50k": Protocol(50_000, "train", "inception", whole=True),  # 1706.08500
    "pacgan": Protocol(26_000, "train", "auto", dataset="stacked_mnist"),  # 1712.04086
}


@command("sample")
class SampleConfig:
    ckpt: str | None = setting(path=True)
    mode: str = setting(one_of("generate", "reconstruct"))
    images: Any = setting(path=True)
    n: int | None = setting(at_least(1))
    seeds: Any = setting()
    format: str | None = setting(one_of("png", "grid", "npz"))
    out: str | None = setting(path=True)
    device: str = setting(checks.device())

    def check(self) -> None:
        """Raise UserError for settings that do not fit each other."""
        if (self.mode == "reconstruct") != (self.images is not None):
            raise UserError(f"mode={self.mode}: images=… and mode=reconstruct belong together")
        if self.mode == "reconstruct":
            fits = self.format in (None, "grid")
            require(fits, "format", self.format, "grid for reconstructions")
            folder = "a folder: mode=reconstruct writes several files"
            require(not ending_of(self.out), "out", self.out, folder)
        if self.format == "png" and ending_of(self.out):
            raise UserError(
                f"out={self.out}: is one file, and format=png writes one per image; name a folder, "
                "or leave format=png out"
            )
        choose_format(self.out, self.format, SHEETS)
        seeds = read_numbers(self.seeds, "seeds")
        if seeds is not None and self.n not in (None, len(seeds)):
            raise UserError(
                f"n={self.n} but seeds={self.seeds} names {len(seeds)}: give one of the two"
            )

    def normalise(self) -> None:
        """Make `seeds` a list, and choose the format."""
        self.seeds = read_numbers(self.seeds, "seeds") or list(range(self.n or 64))
        self.format = choose_format(self.out, self.format, SHEETS)


@command("interpolate")
class InterpolateConfig:
    ckpt: str | None = setting(path=True)
    path: str = setting(one_of("between", "mirror", "loop", "traverse"))
    rows: int | None = setting(at_least(1))
    steps: int = setting(at_least(2))
    mode: str = setting(one_of("lerp", "slerp"))
    seeds: Any = setting()
    images: Any = setting(path=True)
    latents: str | None = setting(path=True)
    axes: Any = setting()
    error: str = setting(one_of("l1", "l2"))
    start: str = setting(one_of("random", "encoder"))
    restarts: int = setting(at_least(1))
    search_steps: int = setting(at_least(1))
    search_lr: float = setting(above_zero(", such as 0.1"))
    format: str | None = setting(one_of(*PATHS_DRAWN.values()))
    fps: float = setting(Rule(lambda value: 1 <= value <= 50, "1 to 50 frames a second"))
    ease: bool = setting()
    out: str | None = setting(path=True)
    device: str = setting(checks.device())

    def check(self) -> None:
        """Raise UserError for settings that do not fit each other."""
        given = [n for n in ("seeds", "images", "latents") if getattr(self, n) is not None]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)}: a path has ends of one kind; give one of them")
        if self.path == "mirror" and self.images is None:
            raise UserError(
                "path=mirror: goes from an image to its mirror; name some with images=…"
            )
        if self.path == "traverse" and self.mode == "slerp":
            raise UserError("mode=slerp: an axis is a straight line; path=traverse wants mode=lerp")
        if self.axes is not None and self.path != "traverse":
            raise UserError(f"axes={self.axes}: path={self.path} has none; use path=traverse")
        choose_format(self.out, self.format, PATHS_DRAWN)
        if (axes := read_numbers(self.axes, "axes")) is not None:
            require(self.rows in (None, len(axes)), "rows", self.rows, f"{len(axes)}, one an axis")

    def normalise(self) -> None:
        """Make `seeds` and `axes` lists, give every axis a row, and choose the format."""
        self.format = choose_format(self.out, self.format, PATHS_DRAWN)
        self.seeds, self.axes = read_numbers(self.seeds, "seeds"), read_numbers(self.axes, "axes")
        if self.axes is not None:
            self.rows = len(self.axes)


@command("compare")
class CompareConfig:
    runs: Any = setting(path=True)
    n: int = setting(at_least(1))
    out: str | None = setting(path=True)
    device: str = setting(checks.device())

    def check(self) -> None:
        """Raise UserError if `runs` names none."""
        if None in _as_list(self.runs) or not _as_list(self.runs):
            raise UserError("runs: which ones? began compare SWEEP, or RUN RUN …, their folders")

    def normalise(self) -> None:
        """Make `runs` a list."""
        self.runs = [str(run) for run in _as_list(self.runs)]


@command("export")
class ExportConfig:
    ckpt: str | None = setting(path=True)
    format: str | None = setting(one_of(*EXPORTS.values()))
    out: str | None = setting(path=True)

    def check(self) -> None:
        """Raise UserError if the name of the file does not fit its format."""
        choose_format(self.out, self.format, EXPORTS)

    def normalise(self) -> None:
        """Choose the format."""
        self.format = choose_format(self.out, self.format, EXPORTS)


@command("explore")
class ExploreConfig:
    ckpt: str | None = setting(path=True)
    beside: str | None = setting(path=True)
    host: str = setting(Rule(bool, "an address, such as 127.0.0.1"))
    port: int | None = setting(Rule(lambda port: 1 <= port <= 65535, "1 to 65535"))
    browser: bool = setting()
    device: str = setting(checks.device())


@command("evaluate")
class EvaluateConfig:
    ckpt: Any = setting(path=True)
    protocol: str | None = setting(one_of(*PROTOCOLS))
    n: int | None = setting(
        Rule(lambda n: 2 <= n <= SEEDS_APART, f"a whole number from 2 to {SEEDS_APART}")
    )
    seed: int = setting(Rule(lambda seed: 0 <= seed < SEEDS_APART, f"0 to {SEEDS_APART - 1}"))
    scores: Any = setting()
    reference: str = setting(one_of("auto", *REFERENCES))
    extractor: str = setting(path=True)
    weights: str | None = setting(path=True)
    k: int = setting(at_least(1))
    kid_subset: int = setting(at_least(2))
    bins: int = setting(at_least(2))
    cells: int = setting(at_least(1))
    root: str | None = setting(path=True)
    test_root: str | None = setting(path=True)
    batch_size: int = setting(at_least(1))
    device: str = setting(checks.device())
    cache: str | None = setting(path=True)
    out: str | None = setting(path=True)

    def check(self) -> None:
        """Raise UserError for an unknown score, and settings that do not fit each other."""
        ckpts = _as_list(self.ckpt)
        if not ckpts or (None in ckpts and len(ckpts) > 1):
            raise UserError("ckpt: which ones? ckpt=[RUN,RUN], run folders or checkpoints")
        scores = _as_list(self.scores)
        require(bool(scores), "scores", self.scores, "one score or more")
        for score in scores:
            known = one_of("auto", "all", *SCORES)
            require(known.holds(score), "scores", score, known.wants)
        if self.protocol is None:
            return
        for name in ("n", "reference", "extractor"):
            value, fixed = getattr(self, name), getattr(PROTOCOLS[self.protocol], name)
            if value not in (None, "auto", fixed):
                raise UserError(
                    f"{name}={value}: protocol={self.protocol} has {name}={fixed}; leave out one"
                )

    def normalise(self) -> None:
        """Make `ckpt` and `scores` lists, and fill in what the protocol sets."""
        if self.protocol is not None:
            protocol = PROTOCOLS[self.protocol]
            self.n, self.reference = protocol.n, protocol.reference
            self.extractor = protocol.extractor
        self.reference = "train" if self.reference == "auto" else self.reference
        self.ckpt = [None if ckpt is None else str(ckpt) for ckpt in _as_list(self.ckpt)]
        self.scores = [str(score) for score in _as_list(self.scores)]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
