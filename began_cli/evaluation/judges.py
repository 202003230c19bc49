"""The networks that judge a generator's images, and which scores they can give."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from began_cli.data.sources import Source, judge
from began_cli.device import pick_device
from began_cli.errors import UserError
from began_cli.evaluation import features, references
from began_cli.evaluation.features import Extractor, Features
from began_cli.evaluation.references import Plan
from began_cli.files import cache_home
from began_cli.gan import latents
from began_cli.generators.sampling import generate_all
from began_cli.settings.commands import COPYING, NEIGHBOURLY, SCORES, SEEDS_APART
from began_cli.settings.train import DatasetConfig

BLOCK = 1024  # images in memory at a time: 16 chunks of the generator, 4 batches
SAMPLE = 256  # generated images that are kept, to look for their nearest training images
MANY = 60_000  # training images: among more, `scores=auto` looks for no copies

Advance = Callable[[int], object]  # told how many more images are done


class Judges:
    """The extractor of the features to score, and the classifier that counts classes.

    `all` holds both, or one if the extractor itself is that classifier, if the data set has none,
    or if `classes` is False. The other arguments are settings of `began evaluate`.
    """

    def __init__(
        self,
        data: DatasetConfig,
        extractor: str,
        weights: str | None,
        device: str,
        cache: str | None = None,
        batch_size: int = 256,
        seed: int = 0,
        classes: bool = True,
    ) -> None:
        self.device, self.batch_size, self.seed = pick_device(device), batch_size, seed
        self.cache = Path(cache).expanduser() if cache else cache_home()
        shape = data.image_shape
        classifier, per_channel = judge(data.name).classifier, judge(data.name).per_channel
        name = extractor if extractor != "auto" else classifier or "inception"
        self.extractor = features.build(name, weights, shape, per_channel, self.device)
        self.all = [self.extractor]
        if classes and classifier not in (None, name):
            self.all.append(features.build(classifier, None, shape, per_channel, self.device))

    def extract_real(
        self, source: Source, plan: Plan, advance: Advance = bool
    ) -> tuple[list[Features], list[str]]:
        """Return each network's features of the plan's real images, and warnings of the cache."""
        each, warnings = [], []
        for extractor in self.all:

            def extract(extractor: Extractor = extractor) -> Features:
                blocks = (source.images[rows] for rows in plan.rows.split(BLOCK))
                return features.join([self._extract(extractor, x, advance) for x in blocks])

            made, warning = references.load_or_extract(
                extractor, source.sha256, len(plan.rows), self.cache, extract
            )
            each.append(made)
            warnings += [warning] if warning else []
        return each, warnings

    def extract_generated(
        self, network: nn.Module, n: int, dim: int, advance: Advance = bool
    ) -> tuple[Tensor, list[Features]]:
        """Return the first SAMPLE of n generated images, uint8 (N, C, H, W), and each network's
        features of all n.

        Image i has the seed SEEDS_APART (seed + 1) + i, far from those of `began sample`.
        """
        start = SEEDS_APART * (self.seed + 1)
        sample: list[Tensor] = []
        each: list[list[Features]] = [[] for _ in self.all]
        for begin in range(0, n, BLOCK):
            seeds = range(start + begin, start + min(begin + BLOCK, n))
            block = generate_all(network, latents.from_seeds(seeds, dim))
            if begin < SAMPLE:
                sample.append(block[: SAMPLE - begin])
            for parts, extractor in zip(each, self.all, strict=True):
                parts.append(self._extract(extractor, block, advance))
        return torch.cat(sample), [features.join(parts) for parts in each]

    def _extract(self, extractor: Extractor, block: Tensor, advance: Advance) -> Features:
        parts = []
        for batch in block.split(self.batch_size):
            parts.append(extractor(batch, self.batch_size, self.device))
            advance(len(batch))
        return features.join(parts)


def may_copy(asked: list[str], count: int, extractor: Extractor) -> bool:
    """Return whether scores of copying are asked for, among `count` training images."""
    quick = count <= MANY and not extractor.slow
    return bool({"all", *COPYING} & set(asked)) or ("auto" in asked and quick)


def choose_scores(
    asked: list[str],
    dataset: str,
    extractor: Extractor,
    count: int = 0,
    lacking: Mapping[str, str] = MappingProxyType({}),
) -> tuple[list[str], list[str]]:
    """Return the names of the scores to compute, in the order of SCORES, and a note for each that
    is left out.

    `count`: number of training images. `lacking`: scores that cannot be computed, and why. Raise
    UserError if one of those was asked for by name.
    """
    missing = dict(lacking)
    if judge(dataset).classifier is None:
        missing["modes"] = f"dataset={dataset} has no classifier that knows its classes"
    if not extractor.classifies:
        missing["is"] = f"{extractor.name} gives no classes of an image"
    for name in asked:
        if name in missing:
            raise UserError(f"scores={name}: {missing[name]}; leave it out")
    if not {"auto", "all"} & set(asked):
        return [name for name in SCORES if name in asked], []
    if "all" not in asked and judge(dataset).slow_neighbours:
        slow = f"neighbours among {judge(dataset).samples:,} images take minutes; "
        missing |= dict.fromkeys(NEIGHBOURLY, slow + "scores=all computes it")
    if not may_copy(asked, count, extractor):
        slow = f"{extractor.name} on {count:,} training images takes long; "
        missing |= dict.fromkeys(COPYING, slow + "scores=all computes it")
    notes = [f"'{name}' is left out: {why}" for name, why in missing.items() if name not in asked]
    return [name for name in SCORES if name not in missing or name in asked], notes
