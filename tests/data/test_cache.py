"""A folder is decoded once."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from conftest import settings
from PIL import Image

from began_cli.data import cache, folder, sources


@pytest.fixture
def photos(tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    for i in range(5):
        Image.effect_noise((40, 30), 60 + i).save(place / f"{i}.png")
    return place


def load(photos, *more: str) -> sources.Source:
    line = ["dataset=folder", f"dataset.root={photos}", "dataset.image_size=16", *more]
    return sources.load(settings("train", *line).dataset)


@pytest.fixture
def decodings(monkeypatch):
    """Count the images that are decoded."""
    seen = []
    real = folder.read_image
    monkeypatch.setattr(folder, "read_image", lambda *a: seen.append(a[0]) or real(*a))
    return seen


def entries(tmp_path):
    return sorted(path.name for path in (tmp_path / "xdg-cache" / "began").iterdir())


def test_the_second_time_nothing_is_decoded(photos, decodings, tmp_path):
    first, again = load(photos), load(photos)
    assert len(decodings) == 5
    assert torch.equal(first.images, again.images)
    plain = load(photos, "dataset.cache=null")
    assert torch.equal(plain.images, again.images)
    assert plain.sha256 == first.sha256 == again.sha256
    assert len(decodings) == 10
    elsewhere = load(photos, f"dataset.cache={tmp_path}/mine")
    assert torch.equal(elsewhere.images, again.images)
    assert len(list((tmp_path / "mine").iterdir())) == 1


@pytest.mark.parametrize("change", ["touched", "new", "gone", "renamed"])
def test_a_changed_folder_is_decoded_anew_and_the_old_entry_goes(
    photos, decodings, tmp_path, change
):
    load(photos)
    before = entries(tmp_path)
    if change == "touched":
        os.utime(photos / "3.png", (1, 1))
    elif change == "new":
        Image.new("RGB", (20, 20)).save(photos / "new.png")
    elif change == "gone":
        (photos / "3.png").unlink()
    else:
        (photos / "3.png").rename(photos / "33.png")
    images = load(photos).images
    assert len(images) == {"new": 6, "gone": 4}.get(change, 5)
    assert len(decodings) == 5 + len(images)
    assert len(entries(tmp_path)) == 1
    assert entries(tmp_path) != before


def test_other_sizes_and_colours_have_entries_of_their_own(photos, decodings, tmp_path):
    for more in ((), ("dataset.channels=1",), ("dataset.image_size=32",), ()):
        load(photos, *more)
    assert len(decodings) == 15
    assert len(entries(tmp_path)) == 3


@pytest.mark.parametrize("damage", ["short", "card", "gone"])
def test_an_entry_that_is_not_whole_is_made_again(photos, decodings, tmp_path, damage):
    whole = load(photos).images.clone()
    place = tmp_path / "xdg-cache" / "began" / entries(tmp_path)[0]
    if damage == "short":
        (place / "pixels").write_bytes(b"123")
    elif damage == "card":
        (place / "card.json").write_text("{")
    else:
        (place / "pixels").unlink()
    assert torch.equal(load(photos).images, whole)
    assert len(decodings) == 10
    assert cache.read(place) is not None


def test_two_that_start_together(photos):
    found: list[torch.Tensor] = []
    together = [threading.Thread(target=lambda: found.append(load_plain())) for _ in range(4)]
    dataset = settings("train", "dataset=folder", f"dataset.root={photos}").dataset

    def load_plain():
        return sources.load(dataset).images

    for one in together:
        one.start()
    for one in together:
        one.join()
    assert len(found) == 4
    assert all(torch.equal(found[0], other) for other in found)


def test_a_process_killed_while_decoding_leaves_nothing_for_long(photos, tmp_path, monkeypatch):
    load(photos)
    name = entries(tmp_path)[0]
    left = tmp_path / "xdg-cache" / "began" / f".{name}.killed"
    left.mkdir()
    (left / "pixels").write_bytes(b"half")
    os.utime(photos / "1.png", (1, 1))
    load(photos)
    assert left.exists()  # it may still be at it
    os.utime(left, (1, 1))
    os.utime(photos / "2.png", (1, 1))
    load(photos)
    assert not left.exists()


def test_card_has_the_shape_and_the_hash_of_the_pixels(photos, tmp_path):
    source = load(photos)
    place = tmp_path / "xdg-cache" / "began" / entries(tmp_path)[0]
    card = json.loads((place / "card.json").read_text())
    assert card["shape"] == [5, 3, 16, 16]
    assert card["sha256"] == cache.hash_images(source.images)
    pixels = np.fromfile(place / "pixels", np.uint8).reshape(5, 3, 16, 16)
    assert (pixels == source.images.numpy()).all()


def test_forgotten_pages_are_read_again(photos, monkeypatch):
    monkeypatch.setattr(cache, "SMALL", 0)
    source = load(photos)
    before = source.images.clone()
    source.forget()
    assert torch.equal(source.images, before)


@pytest.mark.slow
def test_a_large_cache_stays_on_the_disk(tmp_path):
    """200,000 images of 64x64: 2.4 GB; an epoch through them takes less than 1 GiB of memory."""
    place = tmp_path / "a-b"
    place.mkdir()
    block = np.random.default_rng(0).integers(0, 256, (1000, 3, 64, 64), dtype=np.uint8).tobytes()
    with (place / "pixels").open("wb") as file:
        for _ in range(200):
            file.write(block)
    (place / "card.json").write_text(json.dumps({"shape": [200_000, 3, 64, 64], "sha256": "x"}))
    code = f"""
import resource, torch
from pathlib import Path
from began_cli.data import cache
from began_cli.data.batches import Batches
held = cache.read(Path({str(place)!r}))
batches = Batches(held.images, 64, 0, torch.device("cpu"), forget=held.forget)
for _ in range(3125):
    batches()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 2**30
