"""The step against a plain reference: separate forward passes, autograd, no tricks."""

import copy

import pytest
import torch
from conftest import TINY, settings
from torch.nn import functional as F
from torch.optim import SGD
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from began_cli import config
from began_cli.data.batches import Batches
from began_cli.gan import losses, networks
from began_cli.gan.build import build
from began_cli.gan.latents import LatentStream
from began_cli.gan.update import Update

MODELS = ("began", "dcgan", "mlp")


def make(loss: str, model: str, *more: str, dtype=torch.float64, lr=0.0) -> Update:
    cfg = settings("train", f"loss={loss}", f"model={model}", *TINY, *more)
    d = cfg.dataset
    objective = losses.build(cfg.loss, (d.channels, d.image_size, d.image_size)).to(dtype)
    generator = networks.build_generator(cfg.model, d, cfg.loss).to(dtype)
    critic = networks.build_discriminator(cfg.model, d, cfg.loss, objective.critic).to(dtype)
    return Update(
        generator,
        critic,
        objective,
        SGD(generator.parameters(), lr),
        SGD(critic.parameters(), lr),
        cfg.ema.decay,
    )


def batch(n=4, dtype=torch.float64):
    x = torch.rand(n, 1, 16, 16, dtype=dtype) * 2 - 1
    return x, torch.rand(n, 8, dtype=dtype) * 2 - 1


def l1(out, v):
    return (v - out.images).abs().mean(dim=(1, 2, 3)).mean()


def relative(out, v):
    """The background is 0, mid-grey, until `prepare` has seen images."""
    error = (v - out.images).abs().sum(dim=(1, 2, 3)) / 256
    return (error / (v.abs().sum(dim=(1, 2, 3)) / 256 + 0.25)).mean()


def norms(out, v):
    return ((v - out.images) ** 2).sum(dim=(1, 2, 3)).sqrt()


def pulling(code):
    total = torch.zeros((), dtype=code.dtype)
    for i in range(len(code)):
        for j in range(len(code)):
            if i != j:
                total = total + F.cosine_similarity(code[i], code[j], dim=0) ** 2
    return total / (len(code) * (len(code) - 1))


def bce(logits, label):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


# name -> (overrides, L_D(D(x), x, D(g), g), L_G(D(g), g))
REFERENCES = {
    "began k=0": (
        ("began", "loss.k_0=0"),
        lambda rx, x, rg, g: l1(rx, x),
        lambda rg, g: l1(rg, g),
    ),
    "began k=0.5": (
        ("began", "loss.k_0=0.5"),
        lambda rx, x, rg, g: l1(rx, x) - 0.5 * l1(rg, g),
        lambda rg, g: l1(rg, g),
    ),
    "began k=1": (
        ("began", "loss.k_0=1"),
        lambda rx, x, rg, g: l1(rx, x) - l1(rg, g),
        lambda rg, g: l1(rg, g),
    ),
    "began l2": (
        ("began", "loss.k_0=0.5", "loss.energy=l2"),
        lambda rx, x, rg, g: F.mse_loss(rx.images, x) - 0.5 * F.mse_loss(rg.images, g),
        lambda rg, g: F.mse_loss(rg.images, g),
    ),
    "began_unbalanced": (
        ("began_unbalanced",),
        lambda rx, x, rg, g: l1(rx, x) - l1(rg, g),
        lambda rg, g: l1(rg, g),
    ),
    "began relative": (
        ("began", "loss.k_0=0.5", "loss.energy=relative", "loss.content_floor=0.25"),
        lambda rx, x, rg, g: relative(rx, x) - 0.5 * relative(rg, g),
        lambda rg, g: relative(rg, g),
    ),
    "bgan log Z": (
        ("bgan", "loss.log_z=true"),
        lambda fx, x, fg, g: bce(fx, 1.0) + bce(fg, 0.0),
        lambda fg, g: 0.5 * torch.mean((fg - 0.0) ** 2),  # log Z is 0 at first
    ),
    "ebgan hinge on": (
        ("ebgan", "loss.margin=1000"),
        lambda rx, x, rg, g: (norms(rx, x) + 1000 - norms(rg, g)).mean(),
        lambda rg, g: norms(rg, g).mean(),
    ),
    "ebgan hinge off": (
        ("ebgan", "loss.margin=0.001"),
        lambda rx, x, rg, g: norms(rx, x).mean() + 0 * norms(rg, g).mean(),
        lambda rg, g: norms(rg, g).mean(),
    ),
    "ebgan_pt": (
        ("ebgan_pt", "loss.margin=1000"),
        lambda rx, x, rg, g: (norms(rx, x) + 1000 - norms(rg, g)).mean(),
        lambda rg, g: norms(rg, g).mean() + 0.1 * pulling(rg.code),
    ),
    "bgan": (
        ("bgan",),
        lambda fx, x, fg, g: bce(fx, 1.0) + bce(fg, 0.0),
        lambda fg, g: 0.5 * torch.mean(torch.log(fg.sigmoid() / (1 - fg.sigmoid())) ** 2),
    ),
    "gan": (
        ("gan",),
        lambda fx, x, fg, g: bce(fx, 1.0) + bce(fg, 0.0),
        lambda fg, g: bce(fg, 1.0),
    ),
    "gan saturating": (
        ("gan", "loss.saturating=true"),
        lambda fx, x, fg, g: bce(fx, 1.0) + bce(fg, 0.0),
        lambda fg, g: torch.log(1 - fg.sigmoid()).mean(),
    ),
    "wgan": (
        ("wgan",),
        lambda fx, x, fg, g: -(fx.mean() - fg.mean()),
        lambda fg, g: -fg.mean(),
    ),
}


def reference(update: Update, x, z, loss_d, loss_g):
    """L_D, L_G and the gradients of both networks, by the book."""
    generator, critic = copy.deepcopy(update.generator), copy.deepcopy(update.discriminator)
    g = generator(z).detach()
    d = loss_d(critic(x), x, critic(g), g)
    grad_d = torch.autograd.grad(d, list(critic.parameters()))
    g = generator(z)
    lg = loss_g(critic(g), g)
    grad_g = torch.autograd.grad(lg, list(generator.parameters()))
    return d, lg, grad_d, grad_g


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", REFERENCES)
def test_step_equals_the_plain_reference(name, model):
    overrides, loss_d, loss_g = REFERENCES[name]
    update = make(overrides[0], model, *overrides[1:])
    x, z = batch()
    d, lg, grad_d, grad_g = reference(update, x, z, loss_d, loss_g)

    measures = update.joint_step(x, z).scalars

    close = {"rtol": 1e-6, "atol": 1e-12}
    torch.testing.assert_close(measures["loss_d"], d.detach(), **close)
    torch.testing.assert_close(measures["loss_g"], lg.detach(), **close)
    for weight, grad in zip(update.discriminator.parameters(), grad_d, strict=True):
        torch.testing.assert_close(weight.grad, grad, **close)
    for weight, grad in zip(update.generator.parameters(), grad_g, strict=True):
        torch.testing.assert_close(weight.grad, grad, **close)


@pytest.mark.parametrize("model", MODELS)
def test_ebgan_hinge_is_per_sample_not_on_the_batch_mean(model):
    """Mistake: hinge on the batch mean. The margin lies between the batch's energies."""
    update = make("ebgan", model)
    x, z = batch()
    critic = copy.deepcopy(update.discriminator)
    with torch.no_grad():
        g = update.generator(z)
        energies = norms(copy.deepcopy(critic)(g), g)
    update.loss.margin = m = float(energies.sort().values[1:3].mean())
    assert 0 < int((energies < m).sum()) < 4

    d, _, grad_d, _ = reference(
        update,
        x,
        z,
        lambda rx, x, rg, g: (norms(rx, x) + (m - norms(rg, g)).clamp(min=0)).mean(),
        lambda rg, g: norms(rg, g).mean(),
    )
    measures = update.joint_step(x, z).scalars
    torch.testing.assert_close(measures["loss_d"], d.detach(), rtol=1e-9, atol=0)
    for weight, grad in zip(update.discriminator.parameters(), grad_d, strict=True):
        torch.testing.assert_close(weight.grad, grad, rtol=1e-6, atol=1e-12)


def test_generators_loss_does_not_reach_the_discriminator():
    """Mistake: D also minimises L_G. At k_t = 0 D's gradient is that of L(x) alone."""
    update = make("began", "began", "loss.k_0=0")
    x, z = batch()
    critic = copy.deepcopy(update.discriminator)
    expected = torch.autograd.grad(l1(critic(x), x), list(critic.parameters()))
    update.joint_step(x, z)
    for weight, grad in zip(update.discriminator.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, grad, rtol=1e-9, atol=1e-15)


def test_generators_gradient_passes_through_both_sides_of_its_error():
    """Mistake: G(z) detached in the target of L_G. A finite difference sees the whole gradient."""
    update = make("began", "began", "loss.k_0=0.5")
    x, z = batch()
    update.joint_step(x, z)
    weight = update.generator[0].last.bias
    analytic, eps = weight.grad.clone(), 1e-6

    def loss_g():
        with torch.no_grad():
            g = update.generator(z)
            return l1(update.discriminator(g), g).item()

    with torch.no_grad():
        weight += eps
        above = loss_g()
        weight -= 2 * eps
        below = loss_g()
    assert (above - below) / (2 * eps) == pytest.approx(analytic.item(), rel=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_wgan_gp_equals_the_plain_reference(model):
    """Algorithm 1 of 1704.00028, with the same mixtures of real and fake."""
    update = make("wgan_gp", model)
    x, z = batch()
    generator, critic = copy.deepcopy(update.generator), copy.deepcopy(update.discriminator)
    torch.manual_seed(5)
    e = torch.rand(4, 1, 1, 1, dtype=torch.float64)
    g = generator(z).detach()
    mixed = (e * x + (1 - e) * g).requires_grad_()
    slopes = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)[0]
    penalty = 10 * sum((slope.square().sum().sqrt() - 1) ** 2 for slope in slopes) / 4
    d = critic(g).mean() - critic(x).mean() + penalty
    grad_d = torch.autograd.grad(d, list(critic.parameters()))
    grad_g = torch.autograd.grad(-critic(generator(z)).mean(), list(generator.parameters()))

    torch.manual_seed(5)
    measures = update.joint_step(x, z).scalars
    torch.testing.assert_close(measures["loss_d"], d.detach(), rtol=1e-6, atol=1e-12)
    for network, grads in ((update.discriminator, grad_d), (update.generator, grad_g)):
        for weight, grad in zip(network.parameters(), grads, strict=True):
            torch.testing.assert_close(weight.grad, grad, rtol=1e-6, atol=1e-12)


def test_a_gradient_penalty_is_of_each_image_by_itself():
    """Batch normalisation would tie the images of a batch together; its critic has none."""
    update = make("wgan_gp", "dcgan", "dataset.image_size=32")
    kinds = [type(m).__name__ for m in update.discriminator.modules()]
    assert "GroupNorm" in kinds
    assert "BatchNorm2d" not in kinds
    assert "BatchNorm2d" in [type(m).__name__ for m in update.generator.modules()]


def test_bgan_discrete_equals_the_plain_reference():
    update = make("bgan_discrete", "dcgan", "loss.samples=3")
    x, z = batch(2)
    generator, critic = copy.deepcopy(update.generator), copy.deepcopy(update.discriminator)
    torch.manual_seed(5)
    measures = update.discrete_step(update.loss, x, z).scalars

    torch.manual_seed(5)
    p = generator.logits(z).sigmoid()
    drawn = torch.bernoulli(p.detach().expand(3, 2, 1, 16, 16))
    f = critic((2 * drawn - 1).flatten(0, 1))
    real = critic(torch.sign(x))
    d = bce(real, 1.0) + bce(f, 0.0)
    grad_d = torch.autograd.grad(d, list(critic.parameters()), retain_graph=True)
    w = f.detach().view(3, 2).exp()
    loss_g = 0
    for i in range(2):
        for m in range(3):
            likelihood = torch.where(drawn[m, i] > 0, p[i], 1 - p[i])
            loss_g = loss_g - w[m, i] / w[:, i].sum() * likelihood.log().sum() / 2
    grad_g = torch.autograd.grad(loss_g, list(generator.parameters()))

    torch.testing.assert_close(measures["loss_d"], d.detach(), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(measures["loss_g"], loss_g.detach(), rtol=1e-6, atol=1e-12)
    for network, grads in ((update.discriminator, grad_d), (update.generator, grad_g)):
        for weight, grad in zip(network.parameters(), grads, strict=True):
            torch.testing.assert_close(weight.grad, grad, rtol=1e-6, atol=1e-10)


def test_bgan_discrete_learns_the_chances_of_a_pixel():
    """D that likes white makes every pixel whiter: the estimator points the right way."""
    update = make("bgan_discrete", "mlp", "loss.samples=8", lr=0.05)
    _, z = batch(16)
    before = update.generator(z).mean()
    for _ in range(60):
        logits = update.generator.logits(z)
        drawn = update.loss.draw(logits)
        values = drawn.flatten(2).mean(2) * 10
        update.optimizer_g.zero_grad()
        update.loss.reinforce(logits, drawn, values).backward()
        update.optimizer_g.step()
    assert update.generator(z).mean() > before + 0.05


def test_vanishing_residuals_carry():
    """in = carry in + (1 - carry) out: 1 at step 0, 0.5 at 8,000, 0 from 16,000 on."""
    update = make("began", "began", "model.residual=true")
    x, z = batch()
    assert update.ema[0].carry.carry == 1
    for step, expected in ((0, 1.0), (8_000, 0.5), (16_000, 0.0), (20_000, 0.0)):
        update.step = step
        update(lambda: x, lambda: z)
        for network in (update.generator, update.discriminator, update.ema):
            carries = [m.carry for m in network.modules() if isinstance(m, networks.Carry)]
            assert carries
            assert all(carry == expected for carry in carries)


def test_separate_latents_use_other_fakes_for_the_discriminator():
    update = make("began", "began", "loss.k_0=0.5", "loss.separate_latents=true")
    x, z = batch()
    _, other = batch()
    generator, critic = copy.deepcopy(update.generator), copy.deepcopy(update.discriminator)
    g = generator(other).detach()
    d = l1(critic(x), x) - 0.5 * l1(critic(g), g)
    grad_d = torch.autograd.grad(d, list(critic.parameters()))
    g = generator(z)
    grad_g = torch.autograd.grad(l1(critic(g), g), list(generator.parameters()))

    update.joint_step(x, z, lambda: other)
    for network, grads in ((update.discriminator, grad_d), (update.generator, grad_g)):
        for weight, grad in zip(network.parameters(), grads, strict=True):
            torch.testing.assert_close(weight.grad, grad, rtol=1e-6, atol=1e-12)


def test_critic_steps_before_the_generators():
    update = make("wgan", "began", lr=0.01)
    seen = []
    x, z = batch()
    update(lambda: seen.append(1) or x, lambda: z)
    assert len(seen) == update.loss.n_critic == 5


@pytest.mark.parametrize("n_critic", [1, 3])
def test_wgan_weights_are_clipped_after_every_step(n_critic):
    """Mistake: clipped before the step, or only some weights."""
    update = make("wgan", "dcgan", f"loss.n_critic={n_critic}", lr=10.0)
    x, z = batch()
    clip = update.loss.clip
    for _ in range(3):
        update(lambda: x, lambda: z)
        for weight in update.discriminator.parameters():
            assert weight.abs().max() <= clip


def test_ema_is_a_moving_average():
    update = make("gan", "began", lr=0.5)
    update.ema_decay, update.step = 0.9, 10**6
    before = update.ema[0].last.weight.clone()
    x, z = batch()
    update.joint_step(x, z)
    expected = 0.9 * before + 0.1 * update.generator[0].last.weight
    torch.testing.assert_close(update.ema[0].last.weight, expected)
    assert not update.ema[0].last.weight.requires_grad


@pytest.mark.parametrize("loss", config.LOSSES)
def test_a_step_reads_nothing_back_from_the_device(loss):
    """`item`, `bool(tensor)` and `tolist` all end in aten::_local_scalar_dense.

    Adam on a CPU reads its own step counters, which live in main memory and not with the weights;
    on a GPU its fused form keeps them there and reads none. Those reads are not counted.
    """
    cfg = settings("train", f"loss={loss}", *TINY)
    pixels = torch.randint(0, 256, (50, 1, 16, 16), dtype=torch.uint8)
    update = build(cfg, pixels, torch.device("cpu"))
    batches = Batches(pixels, 4, 0, torch.device("cpu"))
    stream = LatentStream(4, 8, 0, torch.device("cpu"))
    update(batches, stream)  # the optimizers make their state at the first step
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        update(batches, stream)
        torch.ones(()).item()  # the one read that must be seen
    assert any(event.name == "aten::convolution_backward" for event in seen.events())
    reads = [event for event in seen.events() if event.name == "aten::_local_scalar_dense"]
    assert len([event for event in reads if not in_optimizer(event)]) == 1


def in_optimizer(event) -> bool:
    while event is not None:
        if event.name.startswith("Optimizer.step#"):
            return True
        event = event.cpu_parent
    return False


class CountFlops(TorchDispatchMode):
    """torch's own counts an operator; its FlopCounterMode trips over `autograd.grad` to a leaf."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            count = flop_registry[func._overloadpacket]
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def flops(work) -> int:
    with CountFlops() as counter:
        work()
    return counter.total


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("loss", "passes"),
    [("began", 6), ("wgan", 6), ("gan", 7), ("bgan", 7), ("ebgan", 7), ("ebgan_pt", 7)],
)
def test_work_is_the_minimum(loss, passes, model):
    """6D + 3G or 7D + 3G, less the data gradients of first layers that nobody needs."""
    update = make(loss, model, dtype=torch.float32)
    x, z = batch(dtype=torch.float32)
    one_d = flops(lambda: update.discriminator(x))
    one_g = flops(lambda: update.generator(z))
    first_d = next(m for m in update.discriminator.modules() if hasattr(m, "weight"))
    first_g = next(m for m in update.generator.modules() if hasattr(m, "weight"))
    first_d = flops(lambda: first_d(x.flatten(1) if model == "mlp" else x))
    first_g = flops(lambda: first_g(z))
    pull = flops(lambda: losses.pulling_away(torch.zeros(4, 64))) if loss == "ebgan_pt" else 0

    expected = passes * one_d + 3 * one_g - (passes - 5) * first_d - first_g + 3 * pull
    assert flops(lambda: update.joint_step(x, z)) == expected


def test_work_of_the_other_steps():
    """Separate latents 8D + 4G; a critic's step 6D + G; M drawn images (3M + 3)D + 3G."""
    x, z = batch(dtype=torch.float32)
    update = make("began", "began", "loss.separate_latents=true", dtype=torch.float32)
    one_d, one_g = flops(lambda: update.discriminator(x)), flops(lambda: update.generator(z))
    first_d = flops(lambda: update.discriminator.encoder.first(x))
    first_g = flops(lambda: update.generator[0].h0(z))
    step = flops(lambda: update.joint_step(x, z, lambda: z))
    assert step == 8 * one_d + 4 * one_g - 2 * first_d - first_g

    update = make("wgan", "began", dtype=torch.float32)
    one_d, one_g = flops(lambda: update.discriminator(x)), flops(lambda: update.generator(z))
    assert flops(lambda: update.critic_step(x, z)) == 6 * one_d + one_g - 2 * first_d

    update = make("wgan_gp", "began", dtype=torch.float32)  # 6D + 3G and the penalty, by itself
    critic = update.discriminator
    alone = flops(lambda: update.loss.penalty(critic, x, x).backward(inputs=update._weights_d))
    assert 5 * one_d < alone < 7 * one_d
    step = flops(lambda: update.joint_step(x, z))
    assert step == 6 * one_d + 3 * one_g - first_d - first_g + alone

    update = make("bgan_discrete", "began", "loss.samples=5", dtype=torch.float32)
    step = flops(lambda: update.discrete_step(update.loss, x, z))
    assert step == 18 * one_d + 3 * one_g - 6 * first_d - first_g
