"""The objectives of the papers. A loss knows nothing of optimizers, data or logging.

Legend: x real images, z latents, g = G(z), v either of them, all images (N, C, H, W) in [-1, 1].
D(v) is the reconstruction by an autoencoder discriminator, f(v) the logit of a score one.
A loss first turns the discriminator's output into one value an image, (N,), its energy L(v) or
E(v), or its logit f(v); everything else is a function of those values.
"""

from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from began_cli import config


class Reconstruction(NamedTuple):
    """What an autoencoder discriminator gives: images (N, C, H, W) and their code (N, code_dim)."""

    images: Tensor
    code: Tensor


class Loss(nn.Module):
    """One objective: L_D = real + fake for the discriminator, L_G for the generator.

    Its state (k_t, log Z) are buffers, so it lives on the device and travels in `state_dict`.
    """

    critic: ClassVar[Literal["autoencoder", "score"]]
    n_critic = 1
    separate_latents = False

    def prepare(self, images: Tensor) -> None:
        """Takes what it needs to know of the data: uint8 images (N, C, H, W)."""

    def values(self, output: Tensor | Reconstruction, images: Tensor) -> Tensor:
        """One value an image, (N,), from the discriminator's output for `images`."""
        raise NotImplementedError

    def real(self, values: Tensor) -> Tensor:
        """The part of L_D that real images give, a scalar."""
        return values.mean()

    def fake(self, values: Tensor) -> Tensor:
        """The part of L_D that fake images give, a scalar."""
        raise NotImplementedError

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        """L_G, a scalar, from the fakes' values and the discriminator's output for them."""
        raise NotImplementedError

    def fake_factor(self) -> Tensor | None:
        """c, where fake = c L_G, so that one backward pass serves both networks; None: no c."""
        return None

    def advance(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Moves the state on after a step, given the values (N,) of both; returns what to log."""
        return {}

    def constrain(self, discriminator: nn.Module) -> None:
        """What holds for the discriminator's weights after each of its steps."""


class ScoreLoss(Loss):
    critic = "score"

    def values(self, output: Tensor | Reconstruction, images: Tensor) -> Tensor:
        assert isinstance(output, Tensor)
        return _full(output)


class AutoencoderLoss(Loss):
    critic = "autoencoder"

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        return values.mean()


class Began(AutoencoderLoss):
    """BEGAN (1703.10717 v4, section 3.4), with k_t held in [k_min, k_max].

    L_D = L(x) - k_t L(g), L_G = L(g), k_{t+1} = clip(k_t + lambda_k (gamma L(x) - L(g))).
    """

    k_t: Tensor
    background: Tensor

    def __init__(self, c: config.BeganLossConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.c = c
        self.separate_latents = c.separate_latents
        self.register_buffer("k_t", torch.tensor(float(c.k_0)))
        self.register_buffer("background", torch.zeros(image_shape))

    def prepare(self, images: Tensor) -> None:
        """Relative energy: the background is each pixel's median over (at most 10,000) images."""
        if self.c.energy == "relative":
            some = images[:: max(1, len(images) // 10_000)].cpu()
            self.background.copy_(some.median(dim=0).values.to(torch.float32) / 127.5 - 1)

    def values(self, output: Tensor | Reconstruction, images: Tensor) -> Tensor:
        """L(v), the mean over pixels of |v - D(v)| (l1) or |v - D(v)|^2 (l2); relative divides the
        first by the same distance to the background, plus `content_floor`."""
        assert isinstance(output, Reconstruction)
        error = _full(images) - _full(output.images)
        if self.c.energy == "l2":
            return error.square().flatten(1).mean(1)
        energy = error.abs().flatten(1).mean(1)
        if self.c.energy == "relative":
            content = (_full(images) - self.background).abs().flatten(1).mean(1)
            energy = energy / (content + self.c.content_floor)
        return energy

    def fake_factor(self) -> Tensor:
        return -self.k_t

    def fake(self, values: Tensor) -> Tensor:
        return -self.k_t * values.mean()

    def advance(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        balance = self.c.gamma * real.mean() - fake.mean()
        self.k_t.add_(self.c.lambda_k * balance).clamp_(self.c.k_min, self.c.k_max)
        convergence = real.mean() + balance.abs()  # M_global, section 3.4.1
        return {"k_t": self.k_t.clone(), "balance": balance, "convergence": convergence}


class Ebgan(AutoencoderLoss):
    """EBGAN (1609.03126, equations 1 and 2): a hinge on each fake image's energy, then the mean.

    L_D = E(x) + [m - E(g)]+, L_G = E(g), E(v) = ||v - D(v)||_2 over an image's pixels.
    """

    def __init__(self, c: config.EbganLossConfig) -> None:
        super().__init__()
        self.margin = c.margin

    def values(self, output: Tensor | Reconstruction, images: Tensor) -> Tensor:
        assert isinstance(output, Reconstruction)
        error = _full(images) - _full(output.images)
        return torch.linalg.vector_norm(error.flatten(1), dim=1)

    def fake(self, values: Tensor) -> Tensor:
        return F.relu(self.margin - values).mean()


class EbganPt(Ebgan):
    """EBGAN-PT (1609.03126, section 2.4): L_G gains pt_weight times the pulling-away term."""

    def __init__(self, c: config.EbganPtLossConfig) -> None:
        super().__init__(c)
        self.pt_weight = c.pt_weight

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        assert isinstance(output, Reconstruction)
        return values.mean() + self.pt_weight * pulling_away(_full(output.code))


class Gan(ScoreLoss):
    """GAN (1406.2661) on logits; the generator's loss is non-saturating unless told otherwise."""

    def __init__(self, c: config.GanLossConfig) -> None:
        super().__init__()
        self.saturating = c.saturating

    def real(self, values: Tensor) -> Tensor:
        return F.softplus(-values).mean()

    def fake(self, values: Tensor) -> Tensor:
        return F.softplus(values).mean()

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        return -F.softplus(values).mean() if self.saturating else F.softplus(-values).mean()


class Bgan(ScoreLoss):
    """BGAN (1702.08431, section 3): L_D is GAN's; L_G = 1/2 E[f^2], or 1/2 E[(f - log Z)^2].

    log D - log(1 - D) is f itself, so no logarithm of a sigmoid is taken. log Z is a moving average
    of the log of the mean of exp f over the fakes.
    """

    log_z: Tensor

    def __init__(self, c: config.BganLossConfig) -> None:
        super().__init__()
        self.seek_log_z, self.decay = c.log_z, c.log_z_decay
        self.register_buffer("log_z", torch.tensor(0.0))

    def real(self, values: Tensor) -> Tensor:
        return F.softplus(-values).mean()

    def fake(self, values: Tensor) -> Tensor:
        return F.softplus(values).mean()

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        return 0.5 * (values - self.log_z).square().mean()

    def advance(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        if not self.seek_log_z:
            return {}
        estimate = torch.logsumexp(fake, 0) - torch.log(fake.new_tensor(float(len(fake))))
        self.log_z.lerp_(estimate.to(self.log_z.dtype), 1 - self.decay)
        return {"log_z": self.log_z.clone()}


class Wgan(ScoreLoss):
    """WGAN (1701.07875, algorithm 1): L_D = -(E f(x) - E f(g)), L_G = -E f(g).

    Every weight of the critic is clipped to [-clip, clip] after each of its steps.
    """

    def __init__(self, c: config.WganLossConfig) -> None:
        super().__init__()
        self.clip, self.n_critic = c.clip, c.n_critic
        self.register_buffer("minus_one", torch.tensor(-1.0), persistent=False)

    def real(self, values: Tensor) -> Tensor:
        return -values.mean()

    def fake(self, values: Tensor) -> Tensor:
        return values.mean()

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        return -values.mean()

    def fake_factor(self) -> Tensor:
        return self.get_buffer("minus_one")

    @torch.no_grad()
    def constrain(self, discriminator: nn.Module) -> None:
        weights: list[Tensor] = list(discriminator.parameters())
        torch._foreach_clamp_min_(weights, -self.clip)
        torch._foreach_clamp_max_(weights, self.clip)


def build(c: config.LossConfig, image_shape: tuple[int, int, int]) -> Loss:
    """The loss that the settings name, for images of `image_shape` (C, H, W)."""
    match c:
        case config.BeganLossConfig():
            return Began(c, image_shape)
        case config.EbganPtLossConfig():
            return EbganPt(c)
        case config.EbganLossConfig():
            return Ebgan(c)
        case config.BganLossConfig():
            return Bgan(c)
        case config.GanLossConfig():
            return Gan(c)
        case config.WganLossConfig():
            return Wgan(c)
    raise AssertionError(f"no loss for {type(c).__name__}")


def pulling_away(code: Tensor) -> Tensor:
    """The mean squared cosine between the codes (N, code_dim) of different images, in [0, 1].

    1609.03126, section 2.4. N is at least 2; a code of zeros counts as orthogonal to all.
    """
    unit = F.normalize(code, dim=1, eps=1e-8)
    squared = (unit @ unit.T).square()
    n = len(code)
    return (squared.sum() - squared.diagonal().sum()) / (n * (n - 1))


def _full(t: Tensor) -> Tensor:
    """At least single precision: losses are never reduced in half precision."""
    return t.to(torch.promote_types(t.dtype, torch.float32))
