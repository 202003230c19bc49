import numpy as np
import torch
from PIL import Image

from began_cli import images
from began_cli.commands.sample import generate
from began_cli.gan import latents
from began_cli.run import checkpoint


def strip_image(path, column: int) -> np.ndarray:
    sheet = np.asarray(Image.open(path))
    return sheet[2:18, 2 + 18 * column : 18 + 18 * column, 0]


def test_strips(began, tiny_run, tmp_path):
    line = [f"ckpt={tiny_run}", "rows=2", "steps=3", "out=o", "seeds=[4,5,6,7]"]
    code, _out, err = began("interpolate", *line)
    assert code == 0, err
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert names == {"lerp.png", "lerp-row-00.png", "lerp-row-01.png"}
    assert Image.open(tmp_path / "o" / "lerp.png").size == (3 * 18 + 2, 2 * 18 + 2)

    generator, trained = checkpoint.generator_of(
        checkpoint.read(str(tiny_run))[1], torch.device("cpu")
    )
    a, b = latents.from_seeds([4, 5], trained.model.latent_dim)
    middle = a + (b - a) / 2
    for column, z in enumerate((a, middle, b)):  # the ends, and the mean latent between
        (expected,) = generate(generator, z[None])
        assert (
            strip_image(tmp_path / "o" / "lerp-row-00.png", column) == expected[0, 0].numpy()
        ).all()


def test_animation_goes_to_and_fro(began, tiny_run, tmp_path):
    line = [f"ckpt={tiny_run}", "rows=2", "steps=4", "format=gif", "mode=slerp", "fps=10", "out=o"]
    assert began("interpolate", *line)[0] == 0
    with Image.open(tmp_path / "o" / "slerp.gif") as gif:
        shown = 0
        for i in range(gif.n_frames):
            gif.seek(i)
            shown += gif.info["duration"]
        assert gif.info["loop"] == 0
    assert shown == 600  # 0 1 2 3 2 1, each for 100 ms


def test_pixels_round_and_clip():
    v = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0, -1 + 2 / 255]).view(6, 1, 1, 1)
    assert images.to_uint8(v).flatten().tolist() == [0, 0, 128, 255, 255, 1]
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(images.to_uint8(images.to_float(every)), every)


def test_generated_pixels_are_not_rescaled_by_their_batch():
    """Mistake: fakes rescaled by the batch's own minimum and maximum (mimicry)."""
    faint = torch.full((2, 1, 4, 4), 0.1)
    assert images.to_uint8(faint).unique().tolist() == [140]  # (0.1 + 1) * 127.5
