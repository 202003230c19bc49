import errno
import os
import pickle

import pytest
import torch

from began_cli.errors import UserError
from began_cli.generators import checkpoint


def state(**more):
    parts = dict.fromkeys(checkpoint.WHOLE - {"format"}, 0)
    return parts | {
        "config": {},
        "data": {},
        "monitor": {},
        "step": 3,
        "weights": torch.arange(1000.0),
        **more,
    }


def test_round_trip(tmp_path):
    path = checkpoint.path_for(tmp_path, 3)
    checkpoint.save(path, state())
    assert path.name == "step-00000003.pt"
    assert torch.equal(checkpoint.load(path)["weights"], torch.arange(1000.0))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_old_checkpoint_stands_until_the_new_one_is_whole(tmp_path, monkeypatch):
    """Mistake: the old checkpoint is deleted before the new one is written (StudioGAN)."""
    path = checkpoint.path_for(tmp_path, 3)
    checkpoint.save(path, state())
    before = path.read_bytes()
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
            with pytest.raises(OSError, match="full"):
                checkpoint.save(path, state(step=4))
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]


def test_newest_are_kept_by_number(tmp_path):
    for step in (999, 100_000_000, 1000):
        checkpoint.save(checkpoint.path_for(tmp_path, step), state())
    checkpoint.keep_newest(tmp_path, 2)
    assert [path.stem for path in checkpoint.find_all(tmp_path)] == [
        "step-00001000",
        "step-100000000",
    ]
    assert checkpoint.find_candidates(str(tmp_path))[0].stem == "step-100000000"


def test_run_of_a_checkpoint(tmp_path):
    assert checkpoint.run_of(checkpoint.path_for(tmp_path / "r", 3)) == tmp_path / "r"
    assert checkpoint.run_of(checkpoint.best_path(tmp_path / "r", 3)) == tmp_path / "r"
    assert checkpoint.run_of(tmp_path / "mine.pt") == tmp_path


def test_best_is_the_newest_and_replaces_the_one_before(tmp_path):
    for step in (4, 2):
        checkpoint.save_best(tmp_path, step, state(step=step))
        assert checkpoint.find_candidates(f"{tmp_path}/best") == [
            checkpoint.best_path(tmp_path, step)
        ]
    assert checkpoint.find_all(tmp_path) == []


def test_later_checkpoints_are_set_aside_and_leftovers_swept(tmp_path):
    for step in (2, 4):
        checkpoint.save(checkpoint.path_for(tmp_path, step), state())
    leftover = tmp_path / "checkpoints" / ".step-00000006.pt.1a2b.tmp"
    leftover.touch()
    (message,) = checkpoint.set_aside(tmp_path, 2)
    checkpoint.remove_leftovers(tmp_path)
    assert "step-00000004.pt is of a later step" in message
    assert checkpoint.find_all(tmp_path) == [checkpoint.path_for(tmp_path, 2)]
    assert not leftover.exists()


def test_what_was_set_aside_goes_when_the_run_has_come_as_far(tmp_path):
    for step in (2, 4, 6):
        checkpoint.save(checkpoint.path_for(tmp_path, step), state())
    checkpoint.save(checkpoint.best_path(tmp_path, 5), state())
    checkpoint.set_aside(tmp_path, 2)
    left = {3: {4, 5, 6}, 4: {5, 6}, 5: {6}, 6: set()}
    for step, expected in left.items():
        checkpoint.save(checkpoint.path_for(tmp_path, step), state())
        checkpoint.keep_newest(tmp_path, 2)
        aside = (tmp_path / "checkpoints").glob("*.superseded")
        assert {checkpoint.step_of(path) for path in aside} == expected
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_newest_run_is_found(tmp_path):
    for i, run in enumerate(("b", "a")):
        path = checkpoint.path_for(tmp_path / "outputs" / run, 1)
        checkpoint.save(path, state())
        os.utime(path, (i, i))
    assert checkpoint.find_candidates(None)[0].parts[-3] == "a"


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_a_pickle_is_never_executed(tmp_path):
    bomb = tmp_path / "bomb.pt"
    bomb.write_bytes(pickle.dumps(Payload(str(tmp_path / "ran"))))
    with pytest.raises(UserError, match=r"bomb\.pt"):
        checkpoint.load(bomb)
    torch.save({"config": {}, "step": 1, "format": 2, "x": Payload(str(tmp_path / "ran"))}, bomb)
    with pytest.raises(UserError, match=r"bomb\.pt"):
        checkpoint.load(bomb)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("tenth", range(10))
def test_a_file_cut_short_is_refused(tmp_path, tenth):
    path = checkpoint.path_for(tmp_path, 3)
    checkpoint.save(path, state())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * tenth // 10])
    with pytest.raises(UserError, match="cut short"):
        checkpoint.load(path)


def test_the_checkpoint_before_a_damaged_one_is_used_if_it_is_whole(tmp_path):
    older, newer = (checkpoint.path_for(tmp_path, step) for step in (3, 4))
    for path in (older, newer):
        checkpoint.save(path, state())
    newer.write_bytes(newer.read_bytes()[:1000])
    path, _, (warning,) = checkpoint.read(str(tmp_path))
    assert path == older
    assert warning.endswith("cut short; using the one before")
    older.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of its checkpoints can be read; .* cut short$"):
        checkpoint.read(str(tmp_path))


class FailingFile:
    """A file whose n-th write fails; counts them."""

    def __init__(self, file, n, code):
        self.file, self.n, self.code, self.count = file, n, code, 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.count += 1
        if self.count == self.n:
            raise OSError(self.code, os.strerror(self.code))
        return self.file.write(data)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_is_the_systems_error_and_leaves_the_old_file(
    tmp_path, monkeypatch, code
):
    """At every write of a save, also where torch turns the error into one of its own."""
    path = checkpoint.path_for(tmp_path, 3)
    checkpoint.save(path, state())
    whole = path.read_bytes()
    files = []

    def opening(n):
        return lambda *how: files.append(FailingFile(open(*how), n, code)) or files[-1]

    monkeypatch.setattr(checkpoint, "open", opening(0), raising=False)
    checkpoint.save(tmp_path / "other.pt", state())
    writes = files[-1].count
    assert writes > 10
    for n in range(1, writes + 1):
        monkeypatch.setattr(checkpoint, "open", opening(n))
        with pytest.raises(OSError, match=os.strerror(code)):
            checkpoint.save(path, {**state(), "step": 4})
        assert path.read_bytes() == whole
        assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_flipped_bit_is_noticed(tmp_path):
    path = checkpoint.path_for(tmp_path, 3)
    checkpoint.save(path, state())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"step": 3},
        {"format": 1, "step": 1},
        {"format": 2, "step": 1},
        {"config": {}, "step": 1, "format": 99},
    ],
)
def test_files_that_are_not_ours(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"not a (whole )?checkpoint|format (1|99),"):
        checkpoint.load(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {"name": "began", "energy": "l1", "content_floor": 0.05, "lambda_k": 0.001},
            {"name": "began_paper", "energy": "l1", "lambda_k": 0.001},
        ),
        (
            {"name": "ebgan", "margin": 3.5, "margin_steps": 9},
            {"margin": 3.5, "gamma": None, "r1": 0.0},
        ),
        ({"name": "ebgan", "margin": 10, "gamma": 1.25}, {"margin": 10, "gamma": None}),
        (
            {"name": "ebgan_pt", "margin": "following", "gamma": 1.5},
            {"margin": "following", "gamma": 1.5},
        ),
        ({"name": "gan", "pack": 1}, {"name": "gan", "pack": 1, "r1": 0.0}),
        ({"name": "bgan", "r1": 1.0}, {"name": "bgan", "r1": 1.0}),
        (
            {"name": "began", "energy": "norm", "gamma": 1.5},
            {"name": "began", "gamma": 1.5, "r1": 0.0},
        ),
    ],
)
def test_settings_of_earlier_runs_get_todays_names(tmp_path, old, new):
    path = checkpoint.path_for(tmp_path, 3)
    config = {"loss": old, "model": {"name": "dcgan"}, "dataset": {"name": "mnist"}}
    checkpoint.save(path, state(config=config, loss={"k_t": 0.5, "background": torch.zeros(3)}))
    read = checkpoint.load(path)
    assert new.items() <= read["config"]["loss"].items()
    assert not {"content_floor", "margin_steps"} & read["config"]["loss"].keys()
    assert read["config"]["model"] == {"name": "dcgan", "code_norm": False}
    assert read["config"]["dataset"] == {"name": "mnist", "r1": 0.0, "margin": 10}
    assert read["loss"] == {"k_t": 0.5}


def test_relative_energy_is_refused_by_name(tmp_path):
    path = checkpoint.path_for(tmp_path, 3)
    checkpoint.save(path, state(config={"loss": {"name": "began", "energy": "relative"}}))
    with pytest.raises(UserError, match=r"loss\.energy=relative, which this began does not have"):
        checkpoint.load(path)
