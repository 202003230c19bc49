import torch

from began_cli import files
from began_cli.evaluation import references
from began_cli.evaluation.features import Extractor, Features


def test_plan_with_enough_images():
    plan = references.plan(100, 30)
    first, second = (plan.rows[half].tolist() for half in plan.floor)
    assert len(first) == len(second) == plan.floor_n == 30
    assert not set(first) & set(second)
    assert plan.rows[plan.reference].tolist() == first
    assert first == references.plan(100, 30).rows[:30].tolist()  # the same ones every time
    assert first != sorted(first)  # a folder is sorted by name: the first are not like the rest


def test_plan_with_too_few_images_halves_them():
    plan = references.plan(101, 80)
    assert len(plan.rows[plan.reference]) == 80
    first, second = (plan.rows[half].tolist() for half in plan.floor)
    assert len(first) == len(second) == plan.floor_n == 50
    assert not set(first) & set(second)
    few = references.plan(20, 80)
    assert len(few.rows[few.reference]) == 20
    assert few.floor_n == 10


def extractor(sha256: str = "a" * 64, name: str = "mine") -> Extractor:
    return Extractor(name, sha256, lambda images: images.float())


class Counted:
    """Makes features, and counts how often."""

    def __init__(self, logits: bool = True) -> None:
        self.times = 0
        self.logits = torch.rand(5, 2) if logits else None
        self.features = torch.rand(5, 3)

    def __call__(self) -> Features:
        self.times += 1
        return Features(self.features, self.logits)


def test_features_are_kept(tmp_path):
    for logits in (True, False):
        make = Counted(logits)
        line = (extractor(name=f"logits-{logits}"), "data", 5, tmp_path / "new" / "cache", make)
        first, complaint = references.load_or_extract(*line)
        again, _ = references.load_or_extract(*line)
        assert make.times == 1
        assert complaint is None
        assert torch.equal(first.features, again.features)
        if make.logits is None:
            assert again.logits is None
        else:
            assert torch.equal(again.logits, make.logits)
    assert not list((tmp_path / "new" / "cache").glob("*.tmp"))


def test_another_network_data_or_number_is_another_file(tmp_path):
    make = Counted()
    for line in (
        (extractor(), "data", 5),
        (extractor("b" * 64), "data", 5),
        (extractor(), "other", 5),
        (extractor(), "data", 4),
        (extractor(name="other"), "data", 5),
    ):
        references.load_or_extract(*line, tmp_path, make)
    assert make.times == 5
    assert len(list(tmp_path.iterdir())) == 5


def test_a_damaged_file_is_made_anew(tmp_path):
    make = Counted()
    references.load_or_extract(extractor(), "data", 5, tmp_path, make)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damage in (whole[:-9], b"", b"x" * 100):
        file.write_bytes(damage)
        made, _ = references.load_or_extract(extractor(), "data", 5, tmp_path, make)
        assert torch.equal(made.features, make.features)
        assert file.read_bytes() == whole
    assert make.times == 4


def test_a_cache_that_cannot_be_written_to_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    make = Counted()
    made, complaint = references.load_or_extract(extractor(), "data", 5, tmp_path / "file", make)
    assert torch.equal(made.features, make.features)
    assert "cannot be written to" in complaint


def test_default_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_home() == tmp_path / "began"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert files.cache_home() == tmp_path / "home" / ".cache" / "began"


def test_a_plan_with_all_images():
    order = references.plan(50, 10).rows
    for more, compared in (({"extract_all": True}, 10), ({"compare_all": True}, 50)):
        plan = references.plan(50, 10, **more)
        assert sorted(plan.rows.tolist()) == list(range(50))
        assert torch.equal(plan.rows[:20], order)  # the same images as without
        assert (plan.reference, plan.floor_n) == (slice(0, compared), 10)
