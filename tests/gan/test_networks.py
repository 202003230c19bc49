"""Shapes, sizes and identities of the networks."""

import pytest
import torch
from conftest import settings
from torch import nn
from torch.nn import functional as F

from began_cli.gan import networks

CPU = torch.device("cpu")


def build(*overrides: str, critic="autoencoder"):
    loss = {"autoencoder": "loss=ebgan", "score": "loss=bgan"}[critic]
    cfg = settings("train", loss, "dataset=folder", "dataset.root=x", *overrides)
    return (
        networks.build_generator(cfg, CPU),
        networks.build_discriminator(cfg, CPU),
    )


def count(*modules: nn.Module) -> int:
    return sum(weight.numel() for module in modules for weight in module.parameters())


@pytest.mark.parametrize(
    ("size", "n", "skips", "millions"),
    [
        (32, 64, False, 2.91),
        (32, 64, True, 3.06),
        (64, 64, False, 4.61),
        (64, 64, True, 4.83),
        (64, 128, False, 15.27),
        (64, 128, True, 16.15),
        (128, 128, False, 24.35),
        (128, 128, True, 25.53),
    ],
)
def test_began_has_the_papers_number_of_parameters(size, n, skips, millions):
    with torch.device("meta"):
        cfg = settings(
            *("train", "dataset=folder", "dataset.root=x", "model=began", "model.gain=1"),
            *(f"dataset.image_size={size}", f"model.width={n}", f"model.skips={skips}"),
        )
        model = cfg.model
        d = networks.Autoencoder(
            networks.BeganEncoder(size, 3, n, 64, False, False),
            networks.BeganDecoder(size, 3, n, 64, model.skips, False, True),
        )
        g = networks.BeganDecoder(size, 3, n, 64, model.skips, False, True)
    assert round(count(g, d) / 1e6, 2) == millions


@pytest.mark.parametrize("model", ["began", "dcgan", "mlp"])
@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(model, size, channels):
    line = (f"model={model}", f"dataset.image_size={size}", f"dataset.channels={channels}")
    g, d = build(*line, "dataset.width=2", "model.latent_dim=7", "model.code_dim=5")
    v = g(torch.rand(3, 7))
    assert v.shape == (3, channels, size, size)
    out = d(v)
    assert out.images.shape == v.shape
    assert out.code.shape == (3, 5)
    _, score = build(*line, "dataset.width=2", critic="score")
    assert score(v).shape == (3,)


def test_strided_convolution_is_the_papers_subsampling():
    """A stride-1 convolution, ELU, then every other pixel: the same at four times the work."""
    encoder = networks.BeganEncoder(16, 1, 4, 8, False, False).double()
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    h = F.elu(encoder.first(x))
    for i, (same, wider) in enumerate(zip(encoder.same, encoder.wider, strict=True)):
        h = F.elu(same(h))
        h = F.elu(F.conv2d(h, wider.weight, wider.bias, padding=1))
        h = h[:, :, ::2, ::2] if i == 0 else h
    torch.testing.assert_close(encoder(x), encoder.last(h.flatten(1)))


def test_skips_join_h0_after_each_up_sampling():
    decoder = networks.BeganDecoder(32, 1, 4, 8, skips=True, residual=False, composed=True).double()
    z = torch.randn(2, 8, dtype=torch.float64)
    h = h0 = decoder.h0(z).view(2, 4, 8, 8)
    for i, (first, second) in enumerate(zip(decoder.firsts, decoder.seconds, strict=True)):
        if i:
            h = F.interpolate(h, scale_factor=2, mode="nearest")
            h = torch.cat([h, F.interpolate(h0, size=h.shape[-1], mode="nearest")], 1)
        h = F.elu(F.conv2d(h, first.weight, first.bias, padding=1))
        h = F.elu(second(h))
    torch.testing.assert_close(decoder(z), decoder.last(h))


def test_residuals_at_a_carry_of_one_pass_their_input_on():
    decoder = networks.BeganDecoder(16, 1, 4, 8, skips=False, residual=True, composed=True)
    plain = networks.BeganDecoder(16, 1, 4, 8, skips=False, residual=False, composed=True)
    plain.load_state_dict(decoder.state_dict(), strict=False)
    z = torch.randn(2, 8)
    h = decoder.h0(z).view(2, 4, 8, 8)
    torch.testing.assert_close(decoder(z), decoder.last(F.elu(decoder.firsts[1](h))))
    decoder.carry.carry.fill_(0.0)
    torch.testing.assert_close(decoder(z), plain(z))


def test_flat_first_stage_widens_one_scale_later():
    def widths(flat):
        encoder = networks.BeganEncoder(64, 3, 8, 5, residual=False, flat=flat)
        return [(layer.in_channels, layer.out_channels) for layer in encoder.wider]

    assert widths(False) == [(8, 16), (16, 24), (24, 32), (32, 32)]
    assert widths(True) == [(8, 8), (8, 16), (16, 24), (24, 24)]


@pytest.mark.parametrize("model", ["began", "dcgan", "mlp"])
def test_initial_weights_are_a_setting(model):
    for init, deviation in (("normal", 0.02), ("torch", None), ("orthogonal", None)):
        torch.manual_seed(0)
        g, _ = build(f"model={model}", f"model.init={init}", "dataset.image_size=16")
        w = next(m for m in g.modules() if isinstance(m, nn.Linear)).weight.detach()
        if deviation:
            assert w.std().item() == pytest.approx(deviation, rel=0.1)
        elif init == "torch":  # U[-1/sqrt(fan in), 1/sqrt(fan in)]
            assert w.abs().max() <= w.shape[1] ** -0.5
        else:
            gain = 1.0 if model == "dcgan" else 1.2
            torch.testing.assert_close(w.T @ w, torch.eye(w.shape[1]) * gain**2, atol=1e-4, rtol=0)


def test_mlp_has_its_layers_width_and_dropout_in_the_discriminator_alone():
    line = ("model=mlp", "model.layers=3", "model.width=11", "model.dropout=0.5")
    g, d = build(*line, "dataset.image_size=16")
    assert [m.out_features for m in g.modules() if isinstance(m, nn.Linear)] == [11, 11, 11, 768]
    assert not [m for m in g.modules() if isinstance(m, nn.Dropout)]
    assert [m.p for m in d.encoder.modules() if isinstance(m, nn.Dropout)] == [0.5] * 3


def test_black_and_white_generator_shows_each_pixels_mean():
    logits = nn.Linear(3, 4)
    z = torch.randn(2, 3)
    expected = 2 * logits(z).sigmoid() - 1
    torch.testing.assert_close(networks.BlackAndWhite(logits)(z), expected)


def test_initial_weights_are_orthogonal_with_gain():
    g, _ = build("model=began", "dataset.image_size=16", "dataset.width=4", "model.gain=1.2")
    w = g[0].seconds[0].weight.detach().flatten(1)
    torch.testing.assert_close(w @ w.T, torch.eye(len(w)) * 1.44, atol=1e-5, rtol=0)
    assert all((m.bias == 0).all() for m in g.modules() if isinstance(m, nn.Conv2d | nn.Linear))


def test_output_of_began_is_linear():
    g, _ = build("model=began", "dataset.image_size=16", "dataset.width=4")
    assert isinstance(g[0].last, nn.Conv2d)
    assert g(torch.full((1, 64), 100.0)).abs().max() > 1
