"""The objectives of the papers. A loss knows nothing of optimizers, data or logging.

Legend: x real images, z latents, g = G(z), v either of them, all images (N, C, H, W) in [-1, 1].
D(v) is the reconstruction by an autoencoder discriminator, f(v) the logit of a score one.
A loss first turns the discriminator's output into one value an image, (N,), its energy L(v) or
E(v), or its logit f(v); everything else is a function of those values.
"""

import math
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from began_cli import ranks
from began_cli.images import to_float
from began_cli.settings.train import (
    BeganLossConfig,
    BeganUnbalancedLossConfig,
    BganDiscreteLossConfig,
    BganLossConfig,
    EbganLossConfig,
    EbganPtLossConfig,
    GanLossConfig,
    LossConfig,
    WganGpLossConfig,
    WganLossConfig,
)


class Reconstruction(NamedTuple):
    """What an autoencoder discriminator gives: images (N, C, H, W) and their code (N, code_dim)."""

    images: Tensor
    code: Tensor


class Loss(nn.Module):
    """One objective: L_D = real + fake for the discriminator, L_G for the generator.

    Its state (k_t, log Z) are buffers, so it lives on the device and travels in `state_dict`.
    """

    critic: ClassVar[Literal["autoencoder", "score"]]
    n_critic = 1  # steps of the discriminator for one of the generator
    separate_latents = False  # whether D's fakes have latents of their own

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

    def penalty(self, discriminator: nn.Module, x: Tensor, g: Tensor) -> Tensor | None:
        """A further part of L_D, a scalar, that needs passes of its own; None: there is none."""
        return None

    def constrain(self, discriminator: nn.Module) -> None:
        """What holds for the discriminator's weights after each of its steps."""


class ScoreLoss(Loss):
    critic = "score"

    def values(self, output: Tensor | Reconstruction, images: Tensor) -> Tensor:
        assert isinstance(output, Tensor)
        return _full(output)


class LogisticLoss(ScoreLoss):
    """L_D = -E log D(x) - E log(1 - D(g)), D = sigmoid(f), on logits (1406.2661, equation 1)."""

    def real(self, values: Tensor) -> Tensor:
        return F.softplus(-values).mean()

    def fake(self, values: Tensor) -> Tensor:
        return F.softplus(values).mean()


class AutoencoderLoss(Loss):
    critic = "autoencoder"

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        return values.mean()


class BeganUnbalanced(AutoencoderLoss):
    """BEGAN without equilibrium (1703.10717 v4, equation 2): L_D = L(x) - L(g), L_G = L(g)."""

    background: Tensor

    def __init__(self, c: BeganUnbalancedLossConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.energy, self.content_floor = c.energy, c.content_floor
        self.separate_latents = c.separate_latents
        self.register_buffer("k_t", torch.tensor(1.0), persistent=False)
        self.register_buffer("background", torch.zeros(image_shape))

    def prepare(self, images: Tensor) -> None:
        """Relative energy: the background is each pixel's median over (at most 10,000) images."""
        if self.energy == "relative":
            some = images[:: -(-len(images) // 10_000)].cpu()
            self.background.copy_(to_float(some.median(dim=0).values))

    def values(self, output: Tensor | Reconstruction, images: Tensor) -> Tensor:
        """L(v), the mean over pixels of |v - D(v)| (l1) or |v - D(v)|^2 (l2); relative divides the
        first by the same distance to the background, plus `content_floor`."""
        assert isinstance(output, Reconstruction)
        error = _full(images) - _full(output.images)
        if self.energy == "l2":
            return error.square().flatten(1).mean(1)
        energy = error.abs().flatten(1).mean(1)
        if self.energy == "relative":
            content = (_full(images) - self.background).abs().flatten(1).mean(1)
            energy = energy / (content + self.content_floor)
        return energy

    def fake_factor(self) -> Tensor:
        return -self.get_buffer("k_t")

    def fake(self, values: Tensor) -> Tensor:
        return -self.get_buffer("k_t") * values.mean()


class Began(BeganUnbalanced):
    """BEGAN (1703.10717 v4, section 3.4), with k_t held in [k_min, k_max].

    L_D = L(x) - k_t L(g), L_G = L(g), k_{t+1} = clip(k_t + lambda_k (gamma L(x) - L(g))).
    """

    k_t: Tensor

    def __init__(self, c: BeganLossConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__(c, image_shape)
        self.gamma, self.lambda_k, self.k_min, self.k_max = c.gamma, c.lambda_k, c.k_min, c.k_max
        self.register_buffer("k_t", torch.tensor(float(c.k_0)))

    def advance(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        balance = self.gamma * real.mean() - fake.mean()
        self.k_t.add_(self.lambda_k * balance).clamp_(self.k_min, self.k_max)
        convergence = real.mean() + balance.abs()  # M_global, section 3.4.1
        return {"k_t": self.k_t.clone(), "balance": balance, "convergence": convergence}


class Ebgan(AutoencoderLoss):
    """EBGAN (1609.03126, equations 1 and 2): a hinge on each fake image's energy, then the mean.

    L_D = E(x) + [m - E(g)]+, L_G = E(g), E(v) = ||v - D(v)||_2 over an image's pixels.
    """

    def __init__(self, c: EbganLossConfig) -> None:
        super().__init__()
        assert isinstance(c.margin, float | int)  # `auto` has been settled by gan/margin.py
        self.margin = c.margin

    def values(self, output: Tensor | Reconstruction, images: Tensor) -> Tensor:
        assert isinstance(output, Reconstruction)
        error = _full(images) - _full(output.images)
        return torch.linalg.vector_norm(error.flatten(1), dim=1)

    def fake(self, values: Tensor) -> Tensor:
        return F.relu(self.margin - values).mean()


class EbganPt(Ebgan):
    """EBGAN-PT (1609.03126, section 2.4): L_G gains pt_weight times the pulling-away term."""

    def __init__(self, c: EbganPtLossConfig) -> None:
        super().__init__(c)
        self.pt_weight, self.pt_global = c.pt_weight, c.pt_global

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        assert isinstance(output, Reconstruction)
        code = _full(output.code)
        if self.pt_global and ranks.size() > 1:
            code = ranks.gather_with_gradient(code).flatten(0, 1)
        return values.mean() + self.pt_weight * pulling_away(code)


class Gan(LogisticLoss):
    """GAN (1406.2661) on logits; the generator's loss is non-saturating unless told otherwise."""

    def __init__(self, c: GanLossConfig) -> None:
        super().__init__()
        self.saturating = c.saturating

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        return -F.softplus(values).mean() if self.saturating else F.softplus(-values).mean()


class Bgan(LogisticLoss):
    """BGAN (1702.08431, section 3): L_D is GAN's; L_G = 1/2 E[f^2], or 1/2 E[(f - log Z)^2].

    log D - log(1 - D) is f itself, so no logarithm of a sigmoid is taken. log Z is a moving average
    of the log of the mean of exp f over the fakes.
    """

    log_z: Tensor

    def __init__(self, c: BganLossConfig) -> None:
        super().__init__()
        self.seek_log_z, self.decay = c.log_z, c.log_z_decay
        self.register_buffer("log_z", torch.tensor(0.0))

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        return 0.5 * (values - self.log_z).square().mean()

    def advance(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        if not self.seek_log_z:
            return {}
        estimate = torch.logsumexp(fake, 0) - math.log(len(fake))
        self.log_z.lerp_(estimate.to(self.log_z.dtype), 1 - self.decay)
        return {"log_z": self.log_z.clone()}


class BganDiscrete(LogisticLoss):
    """BGAN for discrete data (1702.08431, section 2, algorithm 1): importance-weighted REINFORCE.

    The generator gives each pixel's probability of being white. M images x_m are drawn for each z;
    L_G = -E_z[sum_m w_m log g(x_m | z)], w_m = exp f(x_m) normalised over m and held constant.
    L_D is GAN's, over real images made black and white and all the drawn ones.
    """

    def __init__(self, c: BganDiscreteLossConfig) -> None:
        super().__init__()
        self.samples = c.samples

    def draw(self, logits: Tensor) -> Tensor:
        """M black (-1) and white (1) images a row of logits (N, C, H, W): (M, N, C, H, W)."""
        n = len(logits) * ranks.size()  # everyone draws for all: the numbers are those of one
        luck = torch.rand(
            n, self.samples, *logits.shape[1:], dtype=logits.dtype, device=logits.device
        )
        white = ranks.share(luck).transpose(0, 1) < logits.detach().sigmoid()
        return white.to(logits.dtype) * 2 - 1

    def reinforce(self, logits: Tensor, drawn: Tensor, values: Tensor) -> Tensor:
        """L_G, a scalar, from logits (N, C, H, W), drawn (M, N, C, H, W) and f(drawn), (M, N)."""
        white = (drawn + 1) / 2
        each = logits.expand_as(white)
        log_g = -F.binary_cross_entropy_with_logits(each, white, reduction="none").flatten(2).sum(2)
        return -(values.detach().softmax(0) * log_g).sum(0).mean()


class Wgan(ScoreLoss):
    """WGAN (1701.07875, algorithm 1): L_D = -(E f(x) - E f(g)), L_G = -E f(g).

    Every weight of the critic is clipped to [-clip, clip] after each of its steps.
    """

    def __init__(self, n_critic: int, clip: float | None) -> None:
        super().__init__()
        self.n_critic, self.clip = n_critic, clip
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
        if self.clip is not None:
            weights: list[Tensor] = list(discriminator.parameters())
            torch._foreach_clamp_min_(weights, -self.clip)
            torch._foreach_clamp_max_(weights, self.clip)


class WganGp(Wgan):
    """WGAN-GP (1704.00028, algorithm 1): instead of the clipping L_D gains the gradient penalty."""

    def __init__(self, c: WganGpLossConfig) -> None:
        super().__init__(c.n_critic, clip=None)
        self.gp_weight, self.pack = c.gp_weight, c.pack

    def penalty(self, discriminator: nn.Module, x: Tensor, g: Tensor) -> Tensor:
        """lambda E[(|grad f(v)|_2 - 1)^2] at v = e x + (1 - e) g, e ~ U[0, 1] for each image, or
        each pack of images that D looks at together."""
        packs = len(x) // self.pack * ranks.size()  # everyone draws for all
        e = ranks.share(torch.rand(packs, 1, 1, 1, dtype=x.dtype, device=x.device))
        e = e.repeat_interleave(self.pack, 0, output_size=len(x))
        v = torch.lerp(g.detach(), x, e).requires_grad_()
        (slope,) = torch.autograd.grad(_full(discriminator(v)).sum(), v, create_graph=True)
        norm = torch.linalg.vector_norm(slope.reshape(len(x) // self.pack, -1), dim=1)
        return self.gp_weight * (norm - 1).square().mean()


def build(c: LossConfig, image_shape: tuple[int, int, int]) -> Loss:
    """The loss that the settings name, for images of `image_shape` (C, H, W)."""
    match c:
        case BeganLossConfig():
            return Began(c, image_shape)
        case BeganUnbalancedLossConfig():
            return BeganUnbalanced(c, image_shape)
        case EbganPtLossConfig():
            return EbganPt(c)
        case EbganLossConfig():
            return Ebgan(c)
        case BganLossConfig():
            return Bgan(c)
        case BganDiscreteLossConfig():
            return BganDiscrete(c)
        case GanLossConfig():
            return Gan(c)
        case WganLossConfig():
            return Wgan(c.n_critic, c.clip)
        case WganGpLossConfig():
            return WganGp(c)
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
