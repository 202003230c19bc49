import os
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from began_cli.data import avatars
from began_cli.errors import UserError
from began_cli.evaluation import features
from began_cli.files import ending_of, output_file, output_folder, replacing, writing


def test_a_file_is_replaced_only_if_the_block_succeeds(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with suppress(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old"
    with replacing(path) as temporary, replacing(path, ".png") as other:
        assert temporary != other  # two writers of one file do not meet
        assert temporary.parent == other.parent == tmp_path
        assert other.suffix == ".png"
        assert path.read_text() == "old"
        temporary.write_text("new")
        other.write_text("newer")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_durable_write_flushes_the_file_before_the_rename_and_the_folder_after(
    tmp_path, monkeypatch
):
    path, events = tmp_path / "a.txt", []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle):
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        fsync(handle)

    def note_replace(*line):
        events.append("rename")
        replace(*line)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    with replacing(path, durable=True) as temporary:
        temporary.write_text("new")
    assert events == ["file", "rename", "folder"]
    events.clear()
    with replacing(path) as temporary:
        temporary.write_text("newer")
    assert events == ["rename"]


def test_an_output_folder_is_made_or_refused(tmp_path):
    assert output_folder(f"{tmp_path}/a/b") == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^out=.*file/deep: cannot be written to"):
        output_folder(tmp_path / "file" / "deep")


def test_an_error_of_the_system_names_out(tmp_path):
    why = r"^out=here: cannot write .*gone/x \(No such file"
    with pytest.raises(UserError, match=why), writing(Path("here")):
        (tmp_path / "gone" / "x").write_text("")


def test_a_damaged_file_of_began_is_named(tmp_path, monkeypatch):
    whole = (avatars.FOLDER / "test.npy.xz").read_bytes()
    monkeypatch.setattr(avatars, "FOLDER", tmp_path)
    for content in (None, b"", whole[:100_000], whole[:-9] + bytes(9), b"no archive"):
        if content is not None:
            (tmp_path / "test.npy.xz").write_bytes(content)
        with pytest.raises(UserError, match=r"test.npy.xz: comes with began, and .+ install began"):
            avatars.read("test", 16)
    monkeypatch.setattr(features, "HOME", tmp_path)
    for content in (None, b"no weights"):
        if content is not None:
            (tmp_path / "mnist-cnn.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=r"mnist-cnn.safetensors: comes with began, and"):
            features.build("mnist-cnn", None, (1, 32, 32), False, torch.device("cpu"))


def test_a_name_with_an_ending_is_a_file_and_without_a_folder(tmp_path):
    (tmp_path / "old.png").mkdir()
    names = {"a.png": ".png", "deep/b.GIF": ".gif", "~/c.npz": ".npz", "x.y/d.jpg": ".jpg"}
    names |= dict.fromkeys(["a", "x.y/a", "a.png/", "gamma-0.5", ".hidden", "old.png"], "")
    assert {name: ending_of(name) for name in names} == names
    assert ending_of(None) == ""


def test_the_file_to_write(tmp_path):
    default = tmp_path / "run"
    assert output_file(None, default, "x.png") == default / "x.png"
    assert default.is_dir()
    assert output_file("made", default, "x.png") == Path("made/x.png")
    assert output_file("deep/er/y.png", default, "x.png") == Path("deep/er/y.png")
    assert Path("deep/er").is_dir()
    Path("file").write_text("")
    with pytest.raises(UserError, match=r"^out=file: is a file; give another folder"):
        output_file("file/y.png", default, "x.png")
