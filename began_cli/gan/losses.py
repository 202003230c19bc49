"""The objectives of the papers. A loss knows nothing of optimizers, data or logging.

Legend: x real images, z latents, g = G(z), v either of them, all images (N, C, H, W) in [-1, 1].
D(v) is the reconstruction by an autoencoder discriminator, f(v) the logit of a score one.
A loss first turns the discriminator's output into one value an image, (N,), its energy L(v) or
E(v), or its logit f(v); everything else is a function of those values.
"""

import math
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from began_cli import ranks
from began_cli.images import to_float
from began_cli.settings.train import (
    BeganLossConfig,
    BeganPaperLossConfig,
    BeganUnbalancedLossConfig,
    BganDiscreteLossConfig,
    BganLossConfig,
    EbganLossConfig,
    EbganPtLossConfig,
    GanLossConfig,
    LossConfig,
    TrainConfig,
    WganGpLossConfig,
    WganLossConfig,
)


class Reconstruction(NamedTuple):
    """Output of an autoencoder discriminator: images (N, C, H, W) and their code (N, code_dim)."""

    images: Tensor
    code: Tensor


class Loss(nn.Module):
    """One objective: L_D = real + fake for the discriminator, L_G for the generator.

    A subclass names its settings, `class Wgan(WassersteinLoss, settings=WganLossConfig)`, and is
    then found by them. Its state (k_t, log Z) are buffers: it lives on the device and is part of
    `state_dict`.
    """

    critic: ClassVar[Literal["autoencoder", "score"]]
    batch_norm: ClassVar[bool] = True  # whether a discriminator may normalise over the batch
    binary: ClassVar[bool] = False  # whether images are black and white, drawn pixel by pixel
    chance: ClassVar[float | None] = None  # L_D of a discriminator that cannot tell, if it is fixed
    by_image: ClassVar[bool] = False  # whether each image counts in L_D and L_G by its value alone
    n_critic = 1  # steps of the discriminator for one of the generator
    separate_latents = False  # whether D's fakes have latents of their own

    def __init_subclass__(cls, settings: type[LossConfig] | None = None) -> None:
        super().__init_subclass__()
        if settings is not None:
            _CLASSES[settings] = cls

    def __init__(self, c: Any, image_shape: tuple[int, int, int]) -> None:
        """`c` are the settings of the loss, `image_shape` is (C, H, W)."""
        super().__init__()
        self.c = c

    def prepare(self, images: Tensor) -> None:
        """Measure what the loss needs to know of the data: uint8 images (N, C, H, W)."""

    def values(self, output: Tensor | Reconstruction, images: Tensor) -> Tensor:
        """Return one value an image, (N,), from the discriminator's output for `images`."""
        raise NotImplementedError

    def real(self, values: Tensor) -> Tensor:
        """Return the part of L_D that comes from real images, a scalar."""
        return values.mean()

    def fake(self, values: Tensor) -> Tensor:
        """Return the part of L_D that comes from fakes, a scalar."""
        raise NotImplementedError

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        """Return L_G, a scalar, from the fakes' values and the discriminator's output for them."""
        raise NotImplementedError

    def fake_factor(self) -> Tensor | None:
        """Return c if fake = c L_G, so that one backward pass serves both networks, else None."""
        return None

    def advance(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Update the state after a step from the values (N,) of both; return scalars to log."""
        return {}

    def penalty(self, discriminator: nn.Module, x: Tensor, g: Tensor) -> Tensor | None:
        """Return a further part of L_D, a scalar, that needs passes of its own, or None."""
        return None

    def slopes(self, discriminator: nn.Module, images: Tensor) -> Tensor:
        """Return the gradients of the sum of the values of images (N, C, H, W), for all the pixels
        of each pack: (N / pack, pack C H W). They can be differentiated again."""
        v = images.requires_grad_()
        values = self.values(discriminator(v), v)
        (slopes,) = torch.autograd.grad(values.sum(), v, create_graph=True)
        return slopes.reshape(len(values), -1)

    def constrain(self, discriminator: nn.Module) -> None:
        """Constrain the discriminator's weights after each of its steps."""

    @classmethod
    def collapse_remedy(cls, run: TrainConfig) -> str:
        """Return what to change in the settings of a run whose samples have become alike."""
        return f"lower optimizer.lr_g={run.optimizer.lr_g:g}, or raise batch_size"


_CLASSES: dict[type[LossConfig], type[Loss]] = {}


def class_of(c: LossConfig) -> type[Loss]:
    """Return the class of the loss that has these settings."""
    return _CLASSES[type(c)]


def build(c: LossConfig, image_shape: tuple[int, int, int]) -> Loss:
    """Return the loss that has these settings, for images of `image_shape` (C, H, W)."""
    return class_of(c)(c, image_shape)


class PenalisedLoss(Loss):
    """A loss whose L_D gains a penalty on the slope of the discriminator at real images."""

    EVERY = 4  # one image in four is penalised: the pass costs several others

    def penalty(self, discriminator: nn.Module, x: Tensor, g: Tensor) -> Tensor | None:
        """Return r1 / 2 E|grad v(x)|^2, where v is the logit or energy, or None if r1 is 0.

        1801.04406, equation 9. The mean is over one image in four, or one pack of images that D
        judges together; over all if four do not divide their number.
        """
        if self.c.r1 == 0:
            return None
        packs = x.detach().unflatten(0, (-1, self.c.images_a_value))
        if len(packs) % self.EVERY == 0:
            packs = packs[:: self.EVERY]
        slopes = self.slopes(discriminator, packs.flatten(0, 1))
        return self.c.r1 / 2 * slopes.square().sum() / len(packs)


class ScoreLoss(Loss):
    """A loss whose discriminator gives each image a logit f."""

    critic = "score"

    def values(self, output: Tensor | Reconstruction, images: Tensor) -> Tensor:
        assert isinstance(output, Tensor)
        return _full(output)


class LogisticLoss(ScoreLoss):
    """L_D = -E log D(x) - E log(1 - D(g)), D = sigmoid(f), on logits (1406.2661, equation 1)."""

    chance = 2 * math.log(2)
    by_image = True

    def real(self, values: Tensor) -> Tensor:
        return F.softplus(-values).mean()

    def fake(self, values: Tensor) -> Tensor:
        return F.softplus(values).mean()


class AutoencoderLoss(Loss):
    """A loss whose discriminator is an autoencoder; L_G is the mean energy of the fakes."""

    critic = "autoencoder"
    by_image = True

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        return values.mean()


class FollowingMargin(nn.Module):
    """A hinge on the energy of each fake, with a margin that follows the energy of real images.

    Its loss is k mean_i [gamma L - L(g_i)]+, where L is a moving average of the mean energy of real
    images. k = clip(1 - L / L_blank, 0, 1), where L_blank is their mean energy if every
    reconstruction is blank, that is, each pixel's median over the data: a discriminator that cannot
    yet reconstruct real images does not learn to spoil fakes.
    """

    DECAY = 0.95  # of the moving average, a step
    IMAGES = 2000  # at most, to measure L_blank

    energy: Tensor
    blank_energy: Tensor

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("energy", torch.tensor(1.0))
        self.register_buffer("blank_energy", torch.tensor(1.0))

    def prepare(self, loss: Loss, images: Tensor) -> None:
        """Measure L_blank, and start the moving average from it: k is 0 at first."""
        some = images[:: -(-len(images) // self.IMAGES)].cpu()
        blank = to_float(some.median(dim=0, keepdim=True).values)
        some = to_float(some)
        energies = loss.values(Reconstruction(blank.expand_as(some), blank), some)
        self.blank_energy.copy_(energies.mean())
        self.energy.copy_(self.blank_energy)

    def margin(self) -> Tensor:
        """Return gamma L."""
        return self.gamma * self.energy

    def k(self) -> Tensor:
        """Return the weight of the hinge, 0 to 1; 0 if all images of the data are the same."""
        return (1 - self.energy / self.blank_energy).nan_to_num(0).clamp(0, 1)

    def forward(self, values: Tensor) -> Tensor:
        """Return the loss, a scalar, of fakes with energies `values`, (N,)."""
        return self.k() * F.relu(self.margin() - values).mean()

    def advance(self, real: Tensor) -> dict[str, Tensor]:
        """Update the moving average from the energies of real images, (N,)."""
        scalars = {"k_t": self.k(), "margin": self.margin()}
        self.energy.lerp_(real.mean(), 1 - self.DECAY)
        return scalars


class BeganLoss(AutoencoderLoss):
    """A loss with BEGAN's energy, the mean over pixels of |v - D(v)|^eta (1703.10717, equation 1).

    `l1` is eta = 1, `l2` is eta = 2, and `norm` the square root of that.
    """

    def values(self, output: Tensor | Reconstruction, images: Tensor) -> Tensor:
        assert isinstance(output, Reconstruction)
        error = (_full(images) - _full(output.images)).flatten(1)
        if self.c.energy == "l1":
            return error.abs().mean(1)
        if self.c.energy == "l2":
            return error.square().mean(1)
        return _norms(error) / math.sqrt(error.shape[1])


class Began(PenalisedLoss, BeganLoss, settings=BeganLossConfig):
    """BEGAN with a following margin (docs/margin.md): L_D = L(x) + `FollowingMargin`, L_G = L(g).

    Where 1703.10717 raises the mean energy of the fakes by a controlled weight k_t, the hinge
    raises that of each fake, up to gamma times the energy of real images.
    """

    def __init__(self, c: BeganLossConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__(c, image_shape)
        self.hinge = FollowingMargin(c.gamma)

    def prepare(self, images: Tensor) -> None:
        self.hinge.prepare(self, images)

    def fake(self, values: Tensor) -> Tensor:
        return self.hinge(values)

    def penalty(self, discriminator: nn.Module, x: Tensor, g: Tensor) -> Tensor | None:
        """Return `PenalisedLoss.penalty` times sqrt(C H W): for energy=norm it is EBGAN's, in units
        of an energy that is smaller by that factor."""
        penalty = super().penalty(discriminator, x, g)
        return None if penalty is None else math.sqrt(x[0].numel()) * penalty

    def advance(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return {**self.hinge.advance(real), **equilibrium(self.c.gamma, real, fake)}

    @classmethod
    def collapse_remedy(cls, run: TrainConfig) -> str:
        assert isinstance(run.loss, BeganLossConfig)
        return _raise_gamma(run.loss.gamma)


class BeganUnbalanced(BeganLoss, settings=BeganUnbalancedLossConfig):
    """BEGAN without equilibrium (1703.10717 v4, equation 2): L_D = L(x) - L(g), L_G = L(g)."""

    def __init__(self, c: BeganUnbalancedLossConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__(c, image_shape)
        self.separate_latents = c.separate_latents
        self.register_buffer("k_t", torch.tensor(1.0), persistent=False)

    def fake_factor(self) -> Tensor:
        return -self.get_buffer("k_t")

    def fake(self, values: Tensor) -> Tensor:
        return -self.get_buffer("k_t") * values.mean()


class BeganPaper(BeganUnbalanced, settings=BeganPaperLossConfig):
    """BEGAN (1703.10717 v4, section 3.4), with k_t held in [k_min, k_max].

    L_D = L(x) - k_t L(g), L_G = L(g), k_{t+1} = clip(k_t + lambda_k (gamma L(x) - L(g))).
    """

    k_t: Tensor

    def __init__(self, c: BeganPaperLossConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__(c, image_shape)
        self.register_buffer("k_t", torch.tensor(float(c.k_0)))

    def advance(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        c, scalars = self.c, equilibrium(self.c.gamma, real, fake)
        self.k_t.add_(c.lambda_k * scalars["balance"]).clamp_(c.k_min, c.k_max)
        return {"k_t": self.k_t.clone(), **scalars}

    @classmethod
    def collapse_remedy(cls, run: TrainConfig) -> str:
        assert isinstance(run.loss, BeganPaperLossConfig)
        return f"use loss=began, or raise loss.gamma={run.loss.gamma:g}"


def equilibrium(gamma: float, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Return the balance gamma L(x) - L(g), and M_global = L(x) + |balance| (1703.10717, section
    3.4.1), from the energies (N,) of both."""
    balance = gamma * real.mean() - fake.mean()
    return {"balance": balance, "convergence": real.mean() + balance.abs()}


class Ebgan(PenalisedLoss, AutoencoderLoss, settings=EbganLossConfig):
    """EBGAN (1609.03126, equations 1 and 2): a hinge on each fake image's energy, then the mean.

    L_D = E(x) + [m - E(g)]+, L_G = E(g), E(v) = ||v - D(v)||_2 over an image's pixels.
    """

    def __init__(self, c: EbganLossConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__(c, image_shape)
        self.hinge = None if c.gamma is None else FollowingMargin(c.gamma)

    def values(self, output: Tensor | Reconstruction, images: Tensor) -> Tensor:
        assert isinstance(output, Reconstruction)
        return _norms((_full(images) - _full(output.images)).flatten(1))

    def prepare(self, images: Tensor) -> None:
        if self.hinge:
            self.hinge.prepare(self, images)

    def fake(self, values: Tensor) -> Tensor:
        return self.hinge(values) if self.hinge else F.relu(self.c.margin - values).mean()

    def advance(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return self.hinge.advance(real) if self.hinge else {}

    @classmethod
    def collapse_remedy(cls, run: TrainConfig) -> str:
        assert isinstance(run.loss, EbganLossConfig)
        return _raise_gamma(run.loss.gamma) or "use loss=ebgan_pt, or loss.margin=following"


class EbganPt(Ebgan, settings=EbganPtLossConfig):
    """EBGAN-PT (1609.03126, section 2.4): L_G gains pt_weight times the pulling-away term."""

    by_image = False

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        assert isinstance(output, Reconstruction)
        code = _full(output.code)
        if self.c.pt_global and ranks.size() > 1:
            code = ranks.gather_with_gradient(code).flatten(0, 1)
        return values.mean() + self.c.pt_weight * pulling_away(code)

    @classmethod
    def collapse_remedy(cls, run: TrainConfig) -> str:
        assert isinstance(run.loss, EbganPtLossConfig)
        other = _raise_gamma(run.loss.gamma) or "use loss.margin=following"
        return f"raise loss.pt_weight={run.loss.pt_weight:g}, or {other}"


class Gan(PenalisedLoss, LogisticLoss, settings=GanLossConfig):
    """GAN (1406.2661) on logits; the generator's loss is non-saturating unless told otherwise."""

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        return -F.softplus(values).mean() if self.c.saturating else F.softplus(-values).mean()


class Bgan(PenalisedLoss, LogisticLoss, settings=BganLossConfig):
    """BGAN (1702.08431, section 3): L_D is GAN's; L_G = 1/2 E[f^2], or 1/2 E[(f - log Z)^2].

    log D - log(1 - D) is f itself, so no logarithm of a sigmoid is taken. log Z is a moving average
    of the log of the mean of exp f over the fakes.
    """

    log_z: Tensor

    def __init__(self, c: BganLossConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__(c, image_shape)
        self.register_buffer("log_z", torch.tensor(0.0))

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        return 0.5 * (values - self.log_z).square().mean()

    def advance(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        if not self.c.log_z:
            return {}
        estimate = torch.logsumexp(fake, 0) - math.log(len(fake))
        self.log_z.lerp_(estimate.to(self.log_z.dtype), 1 - self.c.log_z_decay)
        return {"log_z": self.log_z.clone()}


class BganDiscrete(LogisticLoss, settings=BganDiscreteLossConfig):
    """BGAN for discrete data (1702.08431, section 2, algorithm 1): importance-weighted REINFORCE.

    The generator gives each pixel's probability of being white. M images x_m are drawn for each z;
    L_G = -E_z[sum_m w_m log g(x_m | z)], w_m = exp f(x_m) normalised over m and held constant.
    L_D is GAN's, over real images made black and white and all the drawn ones.
    """

    binary = True

    def draw(self, logits: Tensor) -> Tensor:
        """Draw M black (-1) and white (1) images for each row of logits (N, C, H, W): (M, N, …)."""
        n = len(logits) * ranks.size()  # everyone draws for all: the numbers are those of one
        luck = torch.rand(
            n, self.c.samples, *logits.shape[1:], dtype=logits.dtype, device=logits.device
        )
        white = ranks.share(luck).transpose(0, 1) < logits.detach().sigmoid()
        return white.to(logits.dtype) * 2 - 1

    def reinforce(self, logits: Tensor, drawn: Tensor, values: Tensor) -> Tensor:
        """Return L_G, a scalar, from logits (N, C, H, W), drawn (M, N, …) and f(drawn), (M, N)."""
        white = (drawn + 1) / 2
        each = logits.expand_as(white)
        log_g = -F.binary_cross_entropy_with_logits(each, white, reduction="none").flatten(2).sum(2)
        return -(values.detach().softmax(0) * log_g).sum(0).mean()


class WassersteinLoss(ScoreLoss):
    """L_D = -(E f(x) - E f(g)), L_G = -E f(g), `n_critic` steps of D for one of G (1701.07875)."""

    def __init__(
        self, c: WganLossConfig | WganGpLossConfig, image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__(c, image_shape)
        self.n_critic = c.n_critic
        self.register_buffer("minus_one", torch.tensor(-1.0), persistent=False)

    def real(self, values: Tensor) -> Tensor:
        return -values.mean()

    def fake(self, values: Tensor) -> Tensor:
        return values.mean()

    def generator(self, values: Tensor, output: Tensor | Reconstruction) -> Tensor:
        return -values.mean()

    def fake_factor(self) -> Tensor:
        return self.get_buffer("minus_one")


class Wgan(WassersteinLoss, settings=WganLossConfig):
    """WGAN (1701.07875, algorithm 1): after each step of D its weights are clipped to +-clip."""

    @torch.no_grad()
    def constrain(self, discriminator: nn.Module) -> None:
        weights: list[Tensor] = list(discriminator.parameters())
        torch._foreach_clamp_min_(weights, -self.c.clip)
        torch._foreach_clamp_max_(weights, self.c.clip)


class WganGp(WassersteinLoss, settings=WganGpLossConfig):
    """WGAN-GP (1704.00028, algorithm 1): instead of the clipping L_D gains the gradient penalty."""

    batch_norm = False  # the penalty is of each image by itself; section 4
    chance = 0.0  # a clipped critic's L_D stays near 0 even when it can tell

    def penalty(self, discriminator: nn.Module, x: Tensor, g: Tensor) -> Tensor:
        """Return lambda E[(|grad f(v)|_2 - 1)^2] at v = e x + (1 - e) g, with e ~ U[0, 1] drawn for
        each image, or for each pack of images that D judges together."""
        packs = len(x) // self.c.pack * ranks.size()  # everyone draws for all
        e = ranks.share(torch.rand(packs, 1, 1, 1, dtype=x.dtype, device=x.device))
        e = e.repeat_interleave(self.c.pack, 0, output_size=len(x))
        slopes = self.slopes(discriminator, torch.lerp(g.detach(), x, e))
        norm = torch.linalg.vector_norm(slopes, dim=1)
        return self.c.gp_weight * (norm - 1).square().mean()


def pulling_away(code: Tensor) -> Tensor:
    """Return the mean squared cosine between the codes (N, code_dim) of different images: 0 to 1.

    1609.03126, section 2.4. N is at least 2; a code of zeros counts as orthogonal to all.
    """
    unit = F.normalize(code, dim=1, eps=1e-8)
    squared = (unit @ unit.T).square()
    n = len(code)
    return (squared.sum() - squared.diagonal().sum()) / (n * (n - 1))


def _raise_gamma(gamma: float | None) -> str:
    """Return what to change if a following margin does not keep the samples apart, if there is one.

    While k is 0 the margin has no weight.
    """
    if gamma is None:
        return ""
    return f"raise loss.gamma={gamma:g}, or optimizer.lr_d while k_t is 0"


def _norms(errors: Tensor) -> Tensor:
    """Return the norm of each row; below 1e-6 it is 0, and so are its derivatives. The second one,
    which a penalty takes, is NaN at 0 for vector_norm."""
    squares = errors.square().sum(1)
    positive = squares > 1e-12
    return torch.where(positive, squares, 1).sqrt() * positive


def _full(t: Tensor) -> Tensor:
    """Return `t` in single precision at least: losses are never reduced in half precision."""
    return t.to(torch.promote_types(t.dtype, torch.float32))
