"""The tests can't have DINOv2's weights: those here are random, and the network a small one."""

import json
import math
import pickle
import sys

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image
from safetensors.torch import save_file
from scipy.special import erf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from began_cli.errors import UserError
from began_cli.evaluation import dinov2, features
from began_cli.evaluation.judges import choose_scores

timm = pytest.importorskip("timm")
CPU = torch.device("cpu")
WIDTH, HEADS, DEPTH = 192, 3, 3
IMAGES = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator())


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """A ViT of DINOv2's layers with 1.5 million weights in place of 304 million."""
    monkeypatch.setitem(dinov2.MODELS, "dinov2", ("dinov2-l", "tiny"))
    create = timm.create_model

    def tiny(name, **options):
        assert name == "tiny"
        small = {"embed_dim": WIDTH, "num_heads": HEADS, "depth": DEPTH}
        return create("vit_small_patch14_dinov2", **small, **options)

    monkeypatch.setattr(timm, "create_model", tiny)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Weights as in Meta's file: for 518 pixels a side, with the mask token."""
    generator = torch.Generator().manual_seed(0)
    size = {"embed_dim": WIDTH, "num_heads": HEADS, "depth": DEPTH}
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, **size)
    state = {"mask_token": torch.zeros(1, WIDTH)}
    for name, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        near_one = name.endswith(("gamma", "norm1.weight", "norm2.weight", "norm.weight"))
        state[name] = 1 + 0.1 * noise if near_one else noise * 0.05
    return state


def cubic(x: float) -> float:
    """Keys' kernel with a = -0.75, PyTorch's."""
    x, a = abs(x), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resampling(m: int, n: int, scale: float) -> np.ndarray:
    """The matrix (n, m) of bicubic interpolation of m values; the border is repeated."""
    matrix = np.zeros((n, m))
    for i in range(n):
        centre = (i + 0.5) / scale - 0.5
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[i, min(max(j, 0), m - 1)] += cubic(centre - j)
    return matrix


def forward(state, image: np.ndarray) -> np.ndarray:
    """The class token of a ViT with LayerScale for one image (224, 224, 3), in NumPy float64."""
    w = {name: value.double().numpy() for name, value in state.items()}

    def norm(x, name):
        y = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
        return y * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def gelu(x):
        return x * 0.5 * (1 + erf(x / math.sqrt(2)))

    x = (image / 255 - dinov2.MEAN) / dinov2.STD
    patches = x.reshape(16, 14, 16, 14, 3).transpose(0, 2, 4, 1, 3).reshape(256, -1)
    kernel = w["patch_embed.proj.weight"].reshape(WIDTH, -1)
    tokens = patches @ kernel.T + w["patch_embed.proj.bias"]
    grid = w["pos_embed"][0, 1:].reshape(37, 37, WIDTH)
    weights = resampling(37, 16, 16.1 / 37)
    grid = np.einsum("ia,jb,abd->ijd", weights, weights, grid).reshape(256, WIDTH)
    x = np.concatenate([w["cls_token"][0] + w["pos_embed"][0, :1], tokens + grid])
    for i in range(DEPTH):
        block = f"blocks.{i}."
        qkv = linear(norm(x, block + "norm1"), block + "attn.qkv")
        q, k, v = (
            part.reshape(257, HEADS, -1).transpose(1, 0, 2) for part in np.split(qkv, 3, axis=1)
        )
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH / HEADS)
        share = np.exp(scores - scores.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        mixed = (share @ v).transpose(1, 0, 2).reshape(257, WIDTH)
        x = x + w[block + "ls1.gamma"] * linear(mixed, block + "attn.proj")
        hidden = gelu(linear(norm(x, block + "norm2"), block + "mlp.fc1"))
        x = x + w[block + "ls2.gamma"] * linear(hidden, block + "mlp.fc2")
    return norm(x, "norm")[0]


def test_the_features_are_those_of_numpy_float64(state, tmp_path):
    torch.save(state, tmp_path / "meta.pth")
    extractor = features.build("dinov2", str(tmp_path / "meta.pth"), (3, 32, 32), False, CPU)
    assert extractor.label == f"dinov2-l@{features.hash_file(tmp_path / 'meta.pth')[:8]}"
    made = extractor(IMAGES, 8, CPU).features.numpy()
    for row, pixels in zip(made, IMAGES.permute(0, 2, 3, 1).numpy(), strict=True):
        image = Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC)
        expected = forward(state, np.asarray(image, dtype=np.float64))
        assert row == pytest.approx(expected, abs=1e-3 * np.abs(expected).max())
    assert np.abs(made[0] - made[1]).max() > 0.1  # the image matters


def test_pictures_are_resized_as_by_torchvision_on_pil_images():
    from torchvision import transforms

    picture = Image.fromarray(IMAGES[0].permute(1, 2, 0).numpy())
    mode = transforms.InterpolationMode.BICUBIC
    expected = transforms.Compose([transforms.Resize((224, 224), mode), transforms.ToTensor()])
    made = dinov2.resize(IMAGES)
    assert made.shape == (2, 3, 224, 224)
    assert torch.equal(made[0].float() / 255, expected(picture))


def test_a_run_logs_its_frechet_distance_as_fd(state, tmp_path, began):
    torch.save(state, tmp_path / "meta.pth")
    line = ["evaluation.extractor=dinov2", "evaluation.weights=meta.pth", "evaluation.n=20"]
    code, out, err = began("train", "steps=1", "evaluate_every=1", "out=run", *line, *TINY)
    assert (code, err) == (0, "")
    assert "step 1: fd[dinov2-l@" in out
    tags = EventAccumulator(str(tmp_path / "run")).Reload().Tags()["scalars"]
    assert [tag[:23] for tag in tags if "evaluation" in tag] == ["evaluation/fd/dinov2-l-"] * 2
    (made,) = json.loads((tmp_path / "run/evaluation.json").read_text())["evaluations"]
    assert list(made["scores"]) == ["fd"]


def test_copies_are_not_looked_for_by_default(state, tmp_path):
    """Some 20,000 images through a large network take hours on a CPU."""
    torch.save(state, tmp_path / "meta.pth")
    extractor = features.build("dinov2", str(tmp_path / "meta.pth"), (3, 32, 32), False, CPU)
    for asked, copies in ((["auto"], False), (["all"], True), (["auto", "c_t"], True)):
        wanted, notes = choose_scores(asked, "avatars", extractor, 20_000)
        assert ("c_t" in wanted) is copies
        left_out = any("dinov2-l on 20,000 training images takes long" in note for note in notes)
        assert left_out is not copies


def test_features_that_are_not_finite_are_refused(state, tmp_path):
    torch.save(state | {"norm.weight": torch.full((WIDTH,), math.nan)}, tmp_path / "nan.pth")
    extractor = features.build("dinov2", str(tmp_path / "nan.pth"), (3, 32, 32), False, CPU)
    with pytest.raises(UserError, match="extractor=dinov2-l: its features are not finite"):
        extractor(IMAGES, 8, CPU)


def test_grey_images_and_safetensors(state, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({name: value for name, value in state.items() if name != "mask_token"}, path)
    extractor = features.build("dinov2", str(path), (1, 32, 32), False, CPU)
    assert extractor.note == "the grey images are made colour for dinov2-l"
    grey = IMAGES[:, :1]
    made = extractor(grey, 8, CPU).features
    assert torch.equal(made, extractor(grey.expand(-1, 3, -1, -1), 8, CPU).features)
    assert [extractor.rename(name) for name in ("fid", "kid")] == ["fd", "kid"]


def test_weights_from_the_cache_or_the_network(state, tmp_path, monkeypatch):
    import huggingface_hub

    path = tmp_path / "model.safetensors"
    save_file(state, path)
    asked = []

    def cached(repository, name, local_files_only=False):
        asked.append((repository, name, local_files_only))
        if local_files_only:
            raise OSError("not in the cache")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", cached)
    assert dinov2.load("dinov2", None, CPU)[1] == path
    assert asked == [("timm/tiny", "model.safetensors", only) for only in (True, False)]

    def offline(*place, **options):
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(UserError, match=r"cannot be downloaded \(no route\); give model.safe"):
        dinov2.load("dinov2", None, CPU)


class _Code:
    """A pickle of it would make the folder `ran`."""

    def __reduce__(self):
        import os

        return os.mkdir, ("ran",)


def test_bad_weights_are_one_line(state, tmp_path):
    def other_network(path):
        torch.save({"fc.weight": torch.zeros(2, 2)}, path)

    def fewer_blocks(path):
        torch.save({k: v for k, v in state.items() if not k.startswith("blocks.2.")}, path)

    def registers(path):
        torch.save(state | {"register_tokens": torch.zeros(1, 4, WIDTH)}, path)

    def cut_short(path):
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:5000])

    def cut_short_safetensors(path):
        save_file(state, path)
        path.write_bytes(path.read_bytes()[:5000])

    def code(path):
        torch.save({"pos_embed": _Code()}, path)

    def bare_code(path):
        path.write_bytes(pickle.dumps(_Code()))

    def no_table(path):
        torch.save([1, 2], path)

    cases = [
        (other_network, "a.pth", "not those of dinov2-l"),
        (fewer_blocks, "i.pth", "not those of dinov2-l .* 14 tensors are missing"),
        (registers, "b.pth", "not those of dinov2-l .*such as register_tokens"),
        (cut_short, "c.pth", "cannot be read"),
        (cut_short_safetensors, "d.safetensors", "cannot be read"),
        (code, "e.pth", "it may hold code"),
        (bare_code, "f.pth", "it may hold code"),
        (no_table, "g.pth", "no table of tensors"),
        (lambda path: None, "h.pth", "no such file"),
    ]
    for write, name, message in cases:
        path = tmp_path / name
        write(path)
        with pytest.raises(UserError, match=f"^weights={path}: .*{message}") as caught:
            features.build("dinov2", str(path), (3, 32, 32), False, CPU)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"extractor=dinov2: needs timm; pip install 'began\[dino]"):
        features.build("dinov2", None, (3, 32, 32), False, CPU)


def test_the_networks_have_the_papers_sizes(monkeypatch):
    """ViT-L has 24 layers of width 1024, ViT-B 12 of width 768 (2304.07193, table 17)."""
    monkeypatch.undo()
    for name, depth, d in (("dinov2", 24, 1024), ("dinov2-b", 12, 768)):
        with torch.device("meta"):
            network = timm.create_model(dinov2.MODELS[name][1], num_classes=0, img_size=224)
        block = 12 * d * d + 15 * d  # two norms, q k v and their mixing, the MLP, two scales
        ends = 3 * 14 * 14 * d + d + (1 + 1 + 256) * d + 2 * d
        assert sum(x.numel() for x in network.parameters()) == depth * block + ends
