"""The networks: a family gives an encoder and a decoder, everything else is made of these two.

A generator is a decoder of latents. An autoencoder discriminator is an encoder and a decoder of its
code; a score discriminator is an encoder with one output. So every loss runs on every family.
Images are (N, C, H, W) in [-1, 1], latents (N, latent_dim).
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from began_cli import config
from began_cli.gan.losses import Reconstruction

# --- BEGAN: 3x3 convolutions and ELU, no normalisation (1703.10717, figure 1) ---------------------


class UpConv2d(nn.Conv2d):
    """Nearest up-sampling by two, then a 3x3 convolution: (N, C, H, W) to (N, out, 2H, 2W).

    `composed` computes the same as one transposed convolution of stride two: an output pixel sees
    only 2x2 different inputs, so the 3x3 weights that meet the same input are added beforehand.
    """

    def __init__(self, channels: int, out_channels: int, composed: bool) -> None:
        super().__init__(channels, out_channels, 3, padding=1)
        self.composed = composed

    def forward(self, input: Tensor) -> Tensor:
        if not self.composed:
            return super().forward(F.interpolate(input, scale_factor=2.0, mode="nearest"))
        w = self.weight.flip(2, 3).transpose(0, 1)  # (in, out, 3, 3): w2, w1, w0
        w = F.pad(w, (0, 1)) + F.pad(w, (1, 0))  # w2, w2 + w1, w1 + w0, w0 along x
        w = F.pad(w, (0, 0, 0, 1)) + F.pad(w, (0, 0, 1, 0))  # and along y
        return F.conv_transpose2d(input, w, self.bias, stride=2, padding=1)


class BeganEncoder(nn.Module):
    """Images to (N, outputs). Scale i of S has i*n channels; the step to the next is strided."""

    def __init__(self, size: int, channels: int, n: int, outputs: int) -> None:
        super().__init__()
        scales = began_scales(size)
        self.first = nn.Conv2d(channels, n, 3, padding=1)
        self.same, self.wider = nn.ModuleList(), nn.ModuleList()
        for i in range(1, scales + 1):
            self.same.append(nn.Conv2d(i * n, i * n, 3, padding=1))
            last = i == scales
            wide, stride = (i * n, 1) if last else ((i + 1) * n, 2)
            self.wider.append(nn.Conv2d(i * n, wide, 3, stride, padding=1))
        self.last = nn.Linear(scales * n * 8 * 8, outputs)

    def forward(self, images: Tensor) -> Tensor:
        h = F.elu(self.first(images))
        for same, wider in zip(self.same, self.wider, strict=True):
            h = F.elu(wider(F.elu(same(h))))
        return self.last(h.flatten(1))


class BeganDecoder(nn.Module):
    """(N, inputs) to images: from 8x8 up, n channels throughout, linear output."""

    def __init__(
        self, size: int, channels: int, n: int, inputs: int, skips: bool, composed: bool
    ) -> None:
        super().__init__()
        self.n, self.skips = n, skips
        self.h0 = nn.Linear(inputs, n * 8 * 8)
        entry = 2 * n if skips else n
        self.firsts, self.seconds = nn.ModuleList(), nn.ModuleList()
        for i in range(began_scales(size)):
            first = UpConv2d(entry, n, composed) if i else nn.Conv2d(n, n, 3, padding=1)
            self.firsts.append(first)
            self.seconds.append(nn.Conv2d(n, n, 3, padding=1))
        self.last = nn.Conv2d(n, channels, 3, padding=1)

    def forward(self, code: Tensor) -> Tensor:
        h = h0 = self.h0(code).view(-1, self.n, 8, 8)
        for i, (first, second) in enumerate(zip(self.firsts, self.seconds, strict=True)):
            if self.skips and i:
                # Joined before the up-sampling: the same as after it, at a quarter of the size.
                h = torch.cat([h, F.interpolate(h0, size=h.shape[-1], mode="nearest")], 1)
            h = F.elu(second(F.elu(first(h))))
        return self.last(h)


def began_scales(size: int) -> int:
    """S = log2(size / 8) + 1."""
    return int(math.log2(size // 8)) + 1


# --- DCGAN: 4x4 strided convolutions, batch normalisation (1511.06434) ----------------------------


def dcgan_widths(size: int, width: int) -> list[int]:
    """Channels at size/2, size/4, … 4: doubled at each, at most eightfold."""
    return [width * min(2**i, 8) for i in range(int(math.log2(size // 4)))]


def dcgan_encoder(size: int, channels: int, width: int, outputs: int) -> nn.Sequential:
    """Images to (N, outputs): LeakyReLU, batch normalisation on all convolutions but the first."""
    widths = dcgan_widths(size, width)
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * 4 * 4, outputs))


def dcgan_decoder(size: int, channels: int, width: int, inputs: int) -> nn.Sequential:
    """(N, inputs) to images: ReLU, batch normalisation on all layers but the last, tanh."""
    widths = dcgan_widths(size, width)[::-1]
    layers: list[nn.Module] = [
        nn.Linear(inputs, widths[0] * 4 * 4, bias=False),
        nn.Unflatten(1, (widths[0], 4, 4)),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    for a, b in itertools.pairwise(widths):
        layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1), nn.Tanh())


# --- every family -> every network ----------------------------------------------------------------


class Autoencoder(nn.Module):
    """An autoencoder discriminator: images to their reconstruction and code."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images: Tensor) -> Reconstruction:
        code = self.encoder(images)
        return Reconstruction(self.decoder(code), code)


class Score(nn.Module):
    """A score discriminator: images to logits f, (N,)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images).squeeze(1)


def build_generator(model: config.ModelConfig, data: config.DatasetConfig) -> nn.Module:
    """Latents (N, model.latent_dim) to images, with fresh initial weights (the global RNG's)."""
    _, decoder, initialise = _family(model, data)
    return decoder(model.latent_dim).apply(initialise)


def build_discriminator(
    model: config.ModelConfig, data: config.DatasetConfig, critic: str
) -> nn.Module:
    """An `Autoencoder` or a `Score`, as the loss's `critic` asks, with fresh initial weights."""
    encoder, decoder, initialise = _family(model, data)
    if critic == "score":
        return Score(encoder(1)).apply(initialise)
    return Autoencoder(encoder(model.code_dim), decoder(model.code_dim)).apply(initialise)


Family = tuple[Callable[[int], nn.Module], Callable[[int], nn.Module], Callable[[nn.Module], None]]


def _family(model: config.ModelConfig, data: config.DatasetConfig) -> Family:
    size, channels, width = data.image_size, data.channels, model.width
    match model:
        case config.BeganModelConfig():
            composed = model.upsample == "composed"
            return (
                lambda outputs: BeganEncoder(size, channels, width, outputs),
                lambda inputs: BeganDecoder(size, channels, width, inputs, model.skips, composed),
                lambda module: orthogonal(module, model.gain),
            )
        case config.DcganModelConfig():
            return (
                lambda outputs: dcgan_encoder(size, channels, width, outputs),
                lambda inputs: dcgan_decoder(size, channels, width, inputs),
                normal,
            )
    raise AssertionError(f"no networks for {type(model).__name__}")


def orthogonal(module: nn.Module, gain: float) -> None:
    """Orthogonal weights and zero biases; leaves a plain BEGAN autoencoder's "blank" start soon."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(module.weight, gain)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def normal(module: nn.Module) -> None:
    """DCGAN's: weights ~ N(0, 0.02), batch normalisation's ~ N(1, 0.02), zero biases."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d):
        nn.init.normal_(module.weight, float(isinstance(module, nn.BatchNorm2d)), 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
