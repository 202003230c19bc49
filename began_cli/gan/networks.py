"""The networks. A family provides an encoder and a decoder; everything else consists of the two.

A generator is a decoder of latents. An autoencoder discriminator is an encoder and a decoder of its
code; a score discriminator is an encoder with one output. So every loss runs on every family.
Images are (N, C, H, W) in [-1, 1], latents (N, latent_dim).
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from began_cli.gan import losses
from began_cli.gan.layers import BatchNorm2d, Carry, Elu, UpConv2d
from began_cli.gan.losses import Reconstruction
from began_cli.settings.train import (
    BeganModelConfig,
    DatasetConfig,
    DcganModelConfig,
    MlpModelConfig,
    ModelConfig,
    TrainConfig,
)

# --- BEGAN: 3x3 convolutions and ELU, no normalisation (1703.10717, figure 1) ---------------------


class BeganEncoder(nn.Module):
    """Images to (N, outputs). Scale i of S has i*n channels; the way to the next is strided.

    With `flat` the first scale does not widen, so that scale i has (i - 1)*n from the second on.
    """

    def __init__(
        self, size: int, channels: int, n: int, outputs: int, residual: bool, flat: bool
    ) -> None:
        super().__init__()
        scales = began_scales(size)
        widths = [max(1, i - flat) * n for i in range(1, scales + 1)]
        self.first = nn.Conv2d(channels, n, 3, padding=1)
        self.same, self.wider = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            last = i == scales - 1
            self.same.append(nn.Conv2d(width, width, 3, padding=1))
            out, stride = (width, 1) if last else (widths[i + 1], 2)
            self.wider.append(nn.Conv2d(width, out, 3, stride, padding=1))
        self.carry, self.elu = Carry(residual), Elu()
        self.last = nn.Linear(widths[-1] * 8 * 8, outputs)

    def forward(self, images: Tensor) -> Tensor:
        h = self.elu(self.first(images))
        for same, wider in zip(self.same, self.wider, strict=True):
            h = self.carry(h, self.elu(same(h)))
            h = self.carry(h, self.elu(wider(h)))  # carries nothing where it strides
        return self.last(h.flatten(1))


class BeganDecoder(nn.Module):
    """(N, inputs) to images: from 8x8 up, n channels throughout, linear output."""

    def __init__(
        self,
        size: int,
        channels: int,
        n: int,
        inputs: int,
        skips: bool,
        residual: bool,
        composed: bool,
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
        self.carry, self.elu = Carry(residual), Elu()
        self.last = nn.Conv2d(n, channels, 3, padding=1)

    def forward(self, code: Tensor) -> Tensor:
        h = h0 = self.h0(code).view(-1, self.n, 8, 8)
        for i, (first, second) in enumerate(zip(self.firsts, self.seconds, strict=True)):
            if self.skips and i:
                # Joined before the up-sampling: the same as after it, at a quarter of the size.
                h = torch.cat([h, F.interpolate(h0, size=h.shape[-1], mode="nearest")], 1)
            h = self.carry(h, self.elu(first(h)))  # carries nothing where it up-samples
            h = self.carry(h, self.elu(second(h)))
        return self.last(h)


def began_scales(size: int) -> int:
    """Return the number of scales, S = log2(size / 8) + 1."""
    return int(math.log2(size // 8)) + 1


# --- DCGAN: 4x4 strided convolutions, batch normalisation (1511.06434) ----------------------------


def dcgan_widths(size: int, width: int) -> list[int]:
    """Return the channels at size/2, size/4, … 4: doubled at each, at most eightfold."""
    return [width * min(2**i, 8) for i in range(int(math.log2(size // 4)))]


Norm = Callable[[int], nn.Module]


def layer_norm(channels: int) -> nn.Module:
    """Return a layer that normalises each image by itself (1704.00028, section 4)."""
    return nn.GroupNorm(1, channels)


def dcgan_encoder(size: int, channels: int, width: int, outputs: int, norm: Norm) -> nn.Sequential:
    """Return a network from images to (N, outputs): LeakyReLU, `norm` after all but the first."""
    widths = dcgan_widths(size, width)
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), norm(b), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * 4 * 4, outputs))


def dcgan_decoder(size: int, channels: int, width: int, inputs: int) -> nn.Sequential:
    """Return a network from (N, inputs) to images before tanh: ReLU, batch norm but on the last."""
    widths = dcgan_widths(size, width)[::-1]
    layers: list[nn.Module] = [
        nn.Linear(inputs, widths[0] * 4 * 4, bias=False),
        nn.Unflatten(1, (widths[0], 4, 4)),
        BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    for a, b in itertools.pairwise(widths):
        layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1))


# --- fully connected (1609.03126, appendix) -------------------------------------------------------


def mlp(inputs: int, width: int, layers: int, outputs: int, dropout: float) -> nn.Sequential:
    """Return a network with `layers` hidden layers of `width` units, LeakyReLU and dropout."""
    stack: list[nn.Module] = []
    for i in range(layers):
        stack += [nn.Linear(inputs if i == 0 else width, width), nn.LeakyReLU(0.2)]
        stack += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*stack, nn.Linear(width, outputs))


# --- every family -> every network ----------------------------------------------------------------


class Autoencoder(nn.Module):
    """An autoencoder discriminator: images to their reconstruction and code."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images: Tensor) -> Reconstruction:
        code = self.encoder(images)
        return Reconstruction(self.decoder(code), code)


class CodeNorm(BatchNorm2d):
    """Batch normalisation of codes, (N, code_dim).

    It couples the images of a batch, so fakes that are alike cannot all be reconstructed well.
    """

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input[:, :, None, None]).flatten(1)


class Score(nn.Module):
    """A score discriminator: images to logits f, (N,), or one for each `pack` of them, (N / pack,).

    Packed images are judged together, as channels of one (1712.04086, section 3).
    """

    def __init__(self, encoder: nn.Module, pack: int) -> None:
        super().__init__()
        self.encoder, self.pack = encoder, pack

    def forward(self, images: Tensor) -> Tensor:
        n, channels, *size = images.shape
        packed = images.reshape(n // self.pack, self.pack * channels, *size)
        return self.encoder(packed).squeeze(1)


def couples_images(network: nn.Module) -> bool:
    """Return whether the output for an image depends on the others of the batch."""
    return any(isinstance(layer, BatchNorm2d) for layer in network.modules())


class BlackAndWhite(nn.Module):
    """A generator of black and white images: its logits are those of each pixel being white.

    Its output is the mean of each pixel, (N, C, H, W) in [-1, 1].
    """

    def __init__(self, logits: nn.Module) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, latents: Tensor) -> Tensor:
        return torch.tanh(self.logits(latents) / 2)  # 2 sigmoid(logits) - 1


def build_generator(cfg: TrainConfig, device: torch.device) -> nn.Module:
    """Return the generator that the settings name: latents (N, model.latent_dim) to images.

    The initial weights come from the global random state on the CPU: they are the same anywhere.
    """
    family = _family(cfg.model, cfg.dataset, device)
    decoder = family.decoder(cfg.model.latent_dim, 0.0)
    binary = losses.class_of(cfg.loss).binary
    generator = BlackAndWhite(decoder) if binary else nn.Sequential(decoder, family.output)
    return generator.apply(_initialiser(cfg.model)).to(device)


def build_discriminator(cfg: TrainConfig, device: torch.device) -> nn.Module:
    """Return the discriminator that the settings name, with fresh weights: an `Autoencoder` or a
    `Score`, as the loss asks."""
    model, kind = cfg.model, losses.class_of(cfg.loss)
    pack = cfg.loss.images_a_value
    family = _family(model, cfg.dataset, device, pack)
    dropout = model.dropout if isinstance(model, MlpModelConfig) else 0.0
    norm = BatchNorm2d if kind.batch_norm else layer_norm
    if kind.critic == "score":
        network: nn.Module = Score(family.encoder(1, dropout, norm), pack)
    else:
        encoder = family.encoder(model.code_dim, dropout, norm)
        if model.code_norm:
            encoder = nn.Sequential(encoder, CodeNorm(model.code_dim))
        decoder = nn.Sequential(family.decoder(model.code_dim, dropout), family.output)
        network = Autoencoder(encoder, decoder)
    return network.apply(_initialiser(model)).to(device)


class _Family(NamedTuple):
    encoder: Callable[[int, float, Norm], nn.Module]  # outputs, dropout, normalisation
    decoder: Callable[[int, float], nn.Module]  # inputs, dropout
    output: nn.Module  # the last function of a decoder


def _family(
    model: ModelConfig, data: DatasetConfig, device: torch.device, pack: int = 1
) -> _Family:
    """Return the family of `model`; an encoder sees `pack` images as one."""
    size, channels, width = data.image_size, data.channels, model.width
    seen = channels * pack
    output = nn.Tanh() if model.output == "tanh" else nn.Identity()
    shape = data.image_shape
    match model:
        case BeganModelConfig():
            residual, flat = model.residual, model.first_stage == "flat"
            skips, upsample = model.skips, model.upsample
            if upsample == "auto":  # MPS computes transposed convolutions slowly
                upsample = "nearest" if device.type == "mps" else "composed"
            composed = upsample == "composed"
            return _Family(
                lambda outputs, _, __: BeganEncoder(size, seen, width, outputs, residual, flat),
                lambda inputs, _: BeganDecoder(
                    size, channels, width, inputs, skips, residual, composed
                ),
                output,
            )
        case DcganModelConfig():
            return _Family(
                lambda outputs, _, norm: dcgan_encoder(size, seen, width, outputs, norm),
                lambda inputs, _: dcgan_decoder(size, channels, width, inputs),
                output,
            )
        case MlpModelConfig():
            pixels, layers = math.prod(shape), model.layers
            return _Family(
                lambda outputs, dropout, _: nn.Sequential(
                    nn.Flatten(), *mlp(pixels * pack, width, layers, outputs, dropout)
                ),
                lambda inputs, dropout: nn.Sequential(
                    *mlp(inputs, width, layers, pixels, dropout), nn.Unflatten(1, shape)
                ),
                output,
            )
    raise AssertionError(f"no networks for {type(model).__name__}")


def _initialiser(model: ModelConfig) -> Callable[[nn.Module], None]:
    """Return a function that sets a layer's initial weights, and its biases to zero.

    torch: PyTorch's own. orthogonal: with a gain; an autoencoder leaves its blank start sooner.
    normal: DCGAN's, weights ~ N(0, 0.02), those of batch normalisation ~ N(1, 0.02).
    """

    def initialise(layer: nn.Module) -> None:
        if model.init == "torch":
            return
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if model.init == "orthogonal":
                nn.init.orthogonal_(layer.weight, model.gain)
            else:
                nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, BatchNorm2d | nn.GroupNorm) and model.init == "normal":
            nn.init.normal_(layer.weight, 1.0, 0.02)

    return initialise
