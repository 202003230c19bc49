"""The count of faces: what it reads, and what it needs."""

import count_faces
import numpy as np
import pytest
from conftest import TINY
from PIL import Image

from began_cli import images, load_generator


def test_a_missing_detector_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(count_faces, "cv2", None)
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path)])
    with pytest.raises(SystemExit) as exit:
        count_faces.main()
    assert exit.value.code == 2
    assert "pip install 'opencv-python-headless<5'" in capsys.readouterr().err


def test_samples_of_a_run_are_read_in_grey(began, digits, tmp_path):
    line = [f"dataset.root={digits}", "steps=1", *TINY, f"out={tmp_path}/run"]
    assert began("train", *line)[0] == 0
    pictures = count_faces.read_pictures(tmp_path / "run", 3)
    generator = load_generator(tmp_path / "run")
    made = images.to_uint8(generator(generator.latents(range(3))))
    np.testing.assert_array_equal(np.stack(pictures), made[:, 0].numpy())


def test_photographs_are_cropped_to_their_centre(tmp_path):
    pytest.importorskip("cv2", reason="opencv-python-headless<5")
    pixels = np.zeros((64, 128), np.uint8)
    pixels[:, 32:96] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    [picture] = count_faces.read_pictures(tmp_path, 5)
    assert picture.shape == (32, 32)
    assert (picture == 200).all()
    assert not count_faces.has_face(picture, 128)
