"""Score generators against one data set. What depends on the real images alone is computed once."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from began_cli.data import sources
from began_cli.data.sources import Source
from began_cli.errors import UserError
from began_cli.evaluation import floors, references, scores
from began_cli.evaluation.copying import Copying
from began_cli.evaluation.coverage import Nearest
from began_cli.evaluation.features import Features
from began_cli.evaluation.judges import SAMPLE, Advance, Judges, choose_scores, may_copy
from began_cli.evaluation.scores import Options, Score
from began_cli.generators.load import Trained
from began_cli.settings.commands import COPYING, PROTOCOLS, EvaluateConfig
from began_cli.settings.train import DatasetConfig, FileDatasetConfig, FolderDatasetConfig

SHOWN = 16  # images on the sheet of nearest training images


@dataclass(slots=True)
class Evaluation:
    """The scores of one generator."""

    scores: dict[str, Score]
    notes: list[str]  # what the user must know to trust them
    counts: dict[str, Any] = field(default_factory=dict)  # of classes and attributes, plain values
    sheet: Tensor | None = None  # samples beside their nearest training images, (N, C, H, W)
    columns: int = 0  # of the sheet


class Evaluator:
    """The judges of a data set, its real images, and their features and floors.

    `prepare` must be called once before `score`.
    """

    def __init__(self, c: EvaluateConfig, data: DatasetConfig) -> None:
        """Load the images and networks. Raise UserError for settings that they do not allow."""
        self.data, self.reference = data, c.reference
        self.n = c.n or sources.judge(data.name).samples
        self.options = Options(
            k=c.k, kid_subset=c.kid_subset, bins=c.bins, cells=c.cells, seed=c.seed
        )
        protocol = PROTOCOLS[c.protocol] if c.protocol else None
        if protocol and protocol.dataset not in (None, data.name):
            raise UserError(
                f"protocol={c.protocol}: is for dataset={protocol.dataset}, and this generator "
                f"was trained on dataset={data.name}"
            )
        self.judges = Judges(data, c.extractor, c.weights, c.device, c.cache, c.batch_size, c.seed)
        self.train = load_real_images(data, c.root)
        self.test, lacking = None, {}
        asked = c.reference == "test" or c.test_root is not None
        if asked or may_copy(c.scores, len(self.train.images), self.judges.extractor):
            try:
                self.test = load_test_images(data, c.root, c.test_root, self.train)
            except UserError as error:
                if c.reference == "test":
                    raise UserError(f"reference=test: {error}") from None
                if c.test_root is not None:
                    raise
                lacking["c_t"] = str(error)
        self.wanted, self.notes = choose_scores(
            c.scores, data.name, self.judges.extractor, len(self.train.images), lacking
        )
        self.copying = [name for name in self.wanted if name in COPYING]
        self.others = [name for name in self.wanted if name not in COPYING]
        if lacking and "authpct" in self.wanted:
            self.notes.append(f"authpct has no floor: {lacking['c_t']}")
        whole = protocol is not None and protocol.whole
        self.plan = references.plan(len(self.train.images), self.n, bool(self.copying), whole)
        self.test_plan = references.plan(len(self.test.images) if self.test else 0, self.n)
        self._check_enough(c.protocol)

    def _check_enough(self, protocol: str | None) -> None:
        """Raise UserError if there are too few images for a wanted score."""
        scores.check_enough(f"n={self.n}", self.n, self.options, self.wanted)
        count = len(self.train.images)
        if "nearest" in self.wanted and count <= floors.NEIGHBOURS:
            least = floors.NEIGHBOURS + 1
            raise UserError(f"root: {count} real images: nearest wants {least} or more")
        tests = len(self.test.images) if self.test else 0
        if self.reference == "train":
            half = f"root: {count} real images, {self.plan.floor_n} in each half for the floor"
            scores.check_enough(half, self.plan.floor_n, self.options, self.others)
        else:
            if protocol and tests < self.n:
                raise UserError(
                    f"protocol={protocol}: wants {self.n:,} test images, and there are {tests:,}"
                )
            for name, n in (("root", count), ("test_root", tests)):
                scores.check_enough(f"{name}: {n} real images", n, self.options, self.others)
        if "c_t" in self.wanted:
            half = self.test_plan.floor_n
            words = f"test_root: {tests} test images, {half} in each half for the floor"
            scores.check_enough(words, half, self.options, ["c_t"])

    @property
    def compared(self) -> Source:
        """The data set that the samples are compared with."""
        if self.reference == "train":
            return self.train
        assert self.test is not None
        return self.test

    @property
    def compared_n(self) -> int:
        """How many of its images the samples are compared with."""
        plan = self.plan if self.reference == "train" else self.test_plan
        return plan.reference.stop

    @property
    def names(self) -> list[str]:
        """The names of the scores that `score` returns, in the order of SCORES."""
        names = [self.judges.extractor.rename(name) for name in self.wanted]
        if "modes" in names:
            names.insert(names.index("modes") + 1, "modes_kl")
        return names

    def count_samples(self) -> int:
        """Return how many images pass through the judges in `score`, all judges together."""
        return len(self.judges.all) * self.n

    def count_real(self) -> int:
        """Return the same of `prepare`."""
        tests = len(self.test_plan.rows) if self._needs_test else 0
        return len(self.judges.all) * (len(self.plan.rows) + tests)

    @property
    def _needs_test(self) -> bool:
        return self.test is not None and (self.reference == "test" or bool(self.copying))

    def prepare(self, advance: Advance = bool) -> None:
        """Extract the features of the real images, or read cached ones; score the floors."""
        real, warnings = self.judges.extract_real(self.train, self.plan, advance)
        self.notes += warnings
        test: list[Features] = []
        if self._needs_test:
            assert self.test is not None
            test, warnings = self.judges.extract_real(self.test, self.test_plan, advance)
            self.notes += warnings
        first, second = self.plan.floor
        if self.reference == "train":
            self.real = [each[self.plan.reference] for each in real]
            unseen, against = real[0][second], real[0][first]
        else:
            self.real = [each[self.test_plan.reference] for each in test]
            unseen, against = real[0][self.plan.reference], self.real[0]
        self.floors = scores.evaluate(unseen, against, self.options, self.others)
        self.floor_n = len(unseen)
        if "nearest" in self.wanted:
            self.spacing = floors.measure_spacing(self.train.images, self.plan.rows[:SAMPLE])
        if self.copying:
            self._prepare_copying(real[0].features, test[0] if test else None)

    def _prepare_copying(self, train: Tensor, test: Features | None) -> None:
        self.copies = Copying(train, self.options.cells, self.options.seed)
        self.unseen: Tensor | None = None
        self.copying_floors = {name: (math.nan, 0) for name in self.copying}
        if test is None:
            return
        first, second = (test[half].features for half in self.test_plan.floor)
        self.unseen = test[self.test_plan.reference].features
        for name, samples, others in (("authpct", self.unseen, None), ("c_t", second, first)):
            if name in self.copying:
                values = floors.score_copying(self.copies, samples, others, [name])
                self.copying_floors[name] = (values[name], len(samples))

    def score(self, trained: Trained, advance: Advance = bool) -> Evaluation:
        """Return the scores of a generator that was trained on the same data settings."""
        dim, extractor = trained.card["latents"]["dim"], self.judges.extractor
        sample, fake = self.judges.extract_generated(trained.network, self.n, dim, advance)
        caveats = self._find_caveats((trained.state or trained.card)["data"])
        result = Evaluation({}, self.notes + caveats)
        values = scores.evaluate(fake[0], self.real[0], self.options, self.others)
        made = floors.pair(extractor.label, values, self.floors, self.floor_n)
        if "modes" in self.wanted:
            judged = self.judges.all[-1], fake[-1], self.real[-1]
            made |= floors.score_modes(*judged)
            result.counts = dict(floors.count_classes(*judged))
            if shares := floors.count_attributes(*judged):
                plain = {name: dataclasses.asdict(each) for name, each in shares.items()}
                result.counts["attributes"] = plain
        if "nearest" in self.wanted:
            near, made["nearest"] = floors.score_nearest(sample, self.train.images, self.spacing)
            result.sheet = draw_nearest(sample, self.train.images, near)
            result.columns = 1 + near.rows.shape[1]
        if self.copying:
            values = floors.score_copying(self.copies, fake[0].features, self.unseen, self.copying)
            for name, value in values.items():
                made[name] = Score(extractor.label, value, *self.copying_floors[name])
        result.scores = {extractor.rename(name): score for name, score in made.items()}
        return result

    def _find_caveats(self, trained_on: dict[str, Any]) -> list[str]:
        """Return what the user must know to trust the scores of a generator."""
        caveats, count = [], len(self.train.images)
        if self.judges.extractor.note:
            caveats.append(self.judges.extractor.note)
        if self.train.sha256 != trained_on.get("sha256"):
            caveats.append(
                f"scored against {count:,} images of {self.train.origin}, and trained on "
                f"{trained_on.get('count'):,} of {trained_on.get('origin')}"
            )
        if self.reference == "train" and count < 2 * self.n:
            caveats.append(
                f"{count:,} real images: the floor is half of them against the other half"
            )
        if self.n <= (width := self.real[0].features.shape[1]):
            caveats.append(
                f"N={self.n} is not above the {width} features: FID is far too low or too high"
            )
        return caveats


def load_real_images(data: DatasetConfig, root: str | None) -> Source:
    """Load the data set of the training, from the folder `root` if that is given."""
    data = _place(data, root)
    try:
        return sources.load(data)
    except UserError as error:
        raise UserError(f"root: no real images to score against: {error}") from None


def load_test_images(
    data: DatasetConfig, root: str | None, test_root: str | None, train: Source
) -> Source:
    """Load the data set's test split; for dataset=folder, the images in the folder `test_root`.

    Raise UserError if there is none, or if its images are those of the training.
    """
    if isinstance(data, FolderDatasetConfig):
        if test_root is None:
            raise UserError("dataset=folder has no test images; give some as test_root=…")
        try:
            test = sources.load(dataclasses.replace(data, root=test_root))
        except UserError as error:
            raise UserError(f"test_root: {error}") from None
    elif test_root is not None:
        raise UserError(f"test_root={test_root}: dataset={data.name} has a test split of its own")
    else:
        test = sources.load_test(_place(data, root))
    if test.sha256 == train.sha256:
        raise UserError("the test images are the training images")
    return test


def _place(data: DatasetConfig, root: str | None) -> DatasetConfig:
    """Return the settings with `dataset.root` replaced by `root`, if that is given."""
    if root is None:
        return data
    if not isinstance(data, FileDatasetConfig):
        raise UserError(
            f"root={root}: dataset={data.name} is not read from a folder; leave out root"
        )
    return dataclasses.replace(data, root=root)


def draw_nearest(sample: Tensor, data: Tensor, near: Nearest) -> Tensor:
    """Return a row of images for each sample: itself, then the training images nearest to it."""
    rows = torch.cat([sample[:SHOWN, None], data[near.rows[:SHOWN]]], dim=1)
    return rows.flatten(0, 1)
