"""The step against a plain reference: separate forward passes, autograd, no tricks."""

import copy

import pytest
import torch
from conftest import TINY, settings
from torch.nn import functional as F
from torch.optim import SGD
from torch.profiler import ProfilerActivity, profile

from began_cli.data.batches import Batches
from began_cli.gan import graph, layers, losses, networks
from began_cli.gan.build import build
from began_cli.gan.flops import count_flops
from began_cli.gan.latents import LatentStream
from began_cli.gan.update import Update
from began_cli.settings.fields import GROUPS

CPU = torch.device("cpu")
MODELS = ("began", "dcgan", "mlp")


def make(
    loss: str, model: str, *more: str, dtype=torch.float64, lr=0.0, amp=None, accumulate=1
) -> Update:
    cfg = settings("train", f"loss={loss}", f"model={model}", *TINY, *more)
    d = cfg.dataset
    objective = losses.build(cfg.loss, d.image_shape).to(dtype)
    if getattr(objective, "hinge", None):
        objective.hinge.energy.fill_(0.5)  # of a blank energy of 1: k = 0.5
    generator = networks.build_generator(cfg, CPU).to(dtype)
    critic = networks.build_discriminator(cfg, CPU).to(dtype)
    return Update(
        generator,
        critic,
        objective,
        SGD(generator.parameters(), lr),
        SGD(critic.parameters(), lr),
        cfg.ema.decay,
        amp,
        accumulate=accumulate,
    )


def batch(n=4, dtype=torch.float64):
    x = torch.rand(n, 1, 16, 16, dtype=dtype) * 2 - 1
    return x, torch.rand(n, 8, dtype=dtype) * 2 - 1


def l1_each(out, v):
    return (v - out.images).abs().mean(dim=(1, 2, 3))


def l1(out, v):
    return l1_each(out, v).mean()


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
        ("began_paper", "loss.k_0=0"),
        lambda rx, x, rg, g: l1(rx, x),
        lambda rg, g: l1(rg, g),
    ),
    "began k=0.5": (
        ("began_paper", "loss.k_0=0.5"),
        lambda rx, x, rg, g: l1(rx, x) - 0.5 * l1(rg, g),
        lambda rg, g: l1(rg, g),
    ),
    "began k=1": (
        ("began_paper", "loss.k_0=1"),
        lambda rx, x, rg, g: l1(rx, x) - l1(rg, g),
        lambda rg, g: l1(rg, g),
    ),
    "began l2": (
        ("began_paper", "loss.k_0=0.5", "loss.energy=l2"),
        lambda rx, x, rg, g: F.mse_loss(rx.images, x) - 0.5 * F.mse_loss(rg.images, g),
        lambda rg, g: F.mse_loss(rg.images, g),
    ),
    "began_unbalanced": (
        ("began_unbalanced",),
        lambda rx, x, rg, g: l1(rx, x) - l1(rg, g),
        lambda rg, g: l1(rg, g),
    ),
    "began norm": (
        ("began_paper", "loss.k_0=0.5", "loss.energy=norm"),
        lambda rx, x, rg, g: (norms(rx, x).mean() - 0.5 * norms(rg, g).mean()) / 16,
        lambda rg, g: norms(rg, g).mean() / 16,
    ),
    "began": (  # gamma L = 0.75, k = 0.5
        ("began", "loss.energy=l1", "loss.gamma=1.5", "loss.r1=0"),
        lambda rx, x, rg, g: l1(rx, x) + 0.5 * F.relu(0.75 - l1_each(rg, g)).mean(),
        lambda rg, g: l1(rg, g),
    ),
    "ebgan following": (
        ("ebgan", "loss.margin=following", "loss.gamma=20", "loss.r1=0"),
        lambda rx, x, rg, g: norms(rx, x).mean() + 0.5 * F.relu(10 - norms(rg, g)).mean(),
        lambda rg, g: norms(rg, g).mean(),
    ),
    "bgan log Z": (
        ("bgan", "loss.r1=0", "loss.log_z=true"),
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
        ("bgan", "loss.r1=0"),
        lambda fx, x, fg, g: bce(fx, 1.0) + bce(fg, 0.0),
        lambda fg, g: 0.5 * torch.mean(torch.log(fg.sigmoid() / (1 - fg.sigmoid())) ** 2),
    ),
    "gan": (
        ("gan", "loss.r1=0"),
        lambda fx, x, fg, g: bce(fx, 1.0) + bce(fg, 0.0),
        lambda fg, g: bce(fg, 1.0),
    ),
    "gan saturating": (
        ("gan", "loss.r1=0", "loss.saturating=true"),
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
    update.loss.c.margin = m = float(energies.sort().values[1:3].mean())
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
    update = make("began_paper", "began", "loss.k_0=0")
    x, z = batch()
    critic = copy.deepcopy(update.discriminator)
    expected = torch.autograd.grad(l1(critic(x), x), list(critic.parameters()))
    update.joint_step(x, z)
    for weight, grad in zip(update.discriminator.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, grad, rtol=1e-9, atol=1e-15)


def test_generators_gradient_passes_through_both_sides_of_its_error():
    """Mistake: G(z) detached in the target of L_G. A finite difference sees the whole gradient."""
    update = make("began_paper", "began", "loss.k_0=0.5")
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


@pytest.mark.parametrize("n", [8, 6])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["gan", "bgan", "began", "ebgan following", "ebgan_pt"])
def test_r1_equals_the_plain_reference(name, model, n):
    """Equation 9 of 1801.04406, at one real image in four, or at all if four do not divide n.

    began's energy is a mean over 256 pixels, and its penalty sqrt(256) times as large.
    """
    overrides, loss_d, loss_g = REFERENCES[name]
    update = make(overrides[0], model, *overrides[1:], "loss.r1=3")
    x, z = batch(n)
    critic = copy.deepcopy(update.discriminator)
    v = (x[[0, 4]] if n == 8 else x).clone().requires_grad_()
    energy = {"began": l1_each, "ebgan following": norms, "ebgan_pt": norms}.get(name)
    values = energy(critic(v), v) if energy else critic(v)
    slopes = torch.autograd.grad(values.sum(), v, create_graph=True)[0]
    penalty = (24 if name == "began" else 1.5) * sum((slope**2).sum() for slope in slopes) / len(v)
    more = torch.autograd.grad(penalty, list(critic.parameters()), materialize_grads=True)
    d, _, grad_d, grad_g = reference(update, x, z, loss_d, loss_g)
    d = d + penalty
    grad_d = [a + b for a, b in zip(grad_d, more, strict=True)]

    measures = update.joint_step(x, z).scalars
    torch.testing.assert_close(measures["loss_d"], d.detach(), rtol=1e-6, atol=1e-12)
    real = energy(critic(x), x).mean() if energy else bce(critic(x), 1.0)
    torch.testing.assert_close(measures["loss_real"], real.detach(), rtol=1e-6, atol=1e-12)
    if not energy:  # an autoencoder's loss_fake is an energy, not the hinge
        assert measures["loss_real"] + measures["loss_fake"] < measures["loss_d"]
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
    luck = torch.rand(2, 3, 1, 16, 16, dtype=p.dtype)  # of each latent, three times
    drawn = (luck.transpose(0, 1) < p.detach()).to(p.dtype)
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
    update = make("began_paper", "began", "model.residual=true")
    x, z = batch()
    assert update.ema[0].carry.carry == 1
    for step, expected in ((0, 1.0), (8_000, 0.5), (16_000, 0.0), (20_000, 0.0)):
        update.step = step
        update(lambda: x, lambda: z)
        for network in (update.generator, update.discriminator, update.ema):
            carries = [m.carry for m in network.modules() if isinstance(m, layers.Carry)]
            assert carries
            assert all(carry == expected for carry in carries)


def test_separate_latents_use_other_fakes_for_the_discriminator():
    update = make("began_paper", "began", "loss.k_0=0.5", "loss.separate_latents=true")
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
    clip = update.loss.c.clip
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


@pytest.mark.parametrize("loss", GROUPS["loss"])
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


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("line", "alone", "coupled"),
    [
        ("began_paper", 6, 6),
        ("began", 6, 7),
        ("wgan", 6, 6),
        ("gan loss.r1=0", 6, 7),
        ("bgan loss.r1=0", 6, 7),
        ("ebgan", 6, 7),
        ("ebgan_pt", 7, 7),
    ],
)
def test_work_is_the_minimum(line, alone, coupled, model):
    """6D + 3G, or 7D + 3G if D couples images, less the data gradients of first layers that nobody
    needs. EBGAN-PT's loss couples them."""
    loss, *more = line.split()
    update = make(loss, model, *more, dtype=torch.float32)
    normalises = any("Norm" in type(m).__name__ for m in update.discriminator.modules())
    passes = coupled if normalises else alone
    x, z = batch(dtype=torch.float32)
    one_d = count_flops(lambda: update.discriminator(x))
    one_g = count_flops(lambda: update.generator(z))
    first_d = next(m for m in update.discriminator.modules() if hasattr(m, "weight"))
    first_g = next(m for m in update.generator.modules() if hasattr(m, "weight"))
    first_d = count_flops(lambda: first_d(x.flatten(1) if model == "mlp" else x))
    first_g = count_flops(lambda: first_g(z))
    pull = count_flops(lambda: losses.pulling_away(torch.zeros(4, 64))) if loss == "ebgan_pt" else 0

    expected = passes * one_d + 3 * one_g - (passes - 5) * first_d - first_g + 3 * pull
    assert count_flops(lambda: update.joint_step(x, z)) == expected


@pytest.mark.parametrize(
    "line",
    [
        "gan",
        "bgan",
        "gan loss.pack=2",
        "ebgan model.code_norm=false",
        "began model.code_norm=false",
    ],
)
def test_one_backward_pass_gives_the_gradients_of_two(line):
    """With half of the hinges idle, and with logits so large that D is sure of its fakes."""
    loss, *more = line.split()
    one = make(loss, "began", *more, dtype=torch.float32)
    x, z = batch(16, torch.float32)
    with torch.no_grad():
        g = one.generator(z)
        middle = float(one.loss.values(one.discriminator(g), g).median())
        if loss == "ebgan":
            one.loss.c.margin = middle
        elif loss == "began":
            one.loss.hinge.energy.fill_(middle / one.loss.c.gamma)
        else:
            one.discriminator.encoder.last.weight.mul_(40 / abs(middle))
    two = copy.deepcopy(one)
    two._by_image = False
    assert count_flops(lambda: one.joint_step(x, z)) < count_flops(lambda: two.joint_step(x, z))
    for network in ("generator", "discriminator"):
        ours, theirs = (list(getattr(u, network).parameters()) for u in (one, two))
        for a, b in zip(ours, theirs, strict=True):
            largest = float(b.grad.abs().max())
            torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-5 * largest)


def test_work_of_the_other_steps():
    """Separate latents 8D + 4G; a critic's step 6D + G; M drawn images (3M + 3)D + 3G."""
    x, z = batch(dtype=torch.float32)
    update = make("began_paper", "began", "loss.separate_latents=true", dtype=torch.float32)
    one_d, one_g = (
        count_flops(lambda: update.discriminator(x)),
        count_flops(lambda: update.generator(z)),
    )
    first_d = count_flops(lambda: update.discriminator.encoder.first(x))
    first_g = count_flops(lambda: update.generator[0].h0(z))
    step = count_flops(lambda: update.joint_step(x, z, lambda: z))
    assert step == 8 * one_d + 4 * one_g - 2 * first_d - first_g

    update = make("wgan", "began", dtype=torch.float32)
    one_d, one_g = (
        count_flops(lambda: update.discriminator(x)),
        count_flops(lambda: update.generator(z)),
    )
    assert count_flops(lambda: update.critic_step(x, z)) == 6 * one_d + one_g - 2 * first_d

    # 6D + 3G and the penalty, by itself; with r1 of one image in four.
    for line, share in ((["wgan_gp", "began"], 1), (["bgan", "began"], 1 / 4)):
        update = make(*line, dtype=torch.float32)
        critic = update.discriminator
        alone = count_flops(
            lambda u=update, c=critic: u.loss.penalty(c, x, x).backward(inputs=u._weights_d)
        )
        assert 5 * one_d * share < alone < 7 * one_d * share
        step = count_flops(lambda u=update: u.joint_step(x, z))
        assert step == 6 * one_d + 3 * one_g - first_d - first_g + alone

    update = make("bgan_discrete", "began", "loss.samples=5", dtype=torch.float32)
    step = count_flops(lambda: update.discrete_step(update.loss, x, z))
    assert step == 18 * one_d + 3 * one_g - 6 * first_d - first_g


@pytest.mark.parametrize("model", ["began", "mlp"])  # without batch normalisation
@pytest.mark.parametrize(
    "loss",
    [
        *("began_paper", "ebgan", "bgan", "gan", "wgan", "began_unbalanced"),
        *("bgan loss.log_z=true", "began_paper loss.separate_latents=true"),
    ],
)
def test_accumulated_parts_make_the_step_of_the_whole_batch(loss, model):
    line = loss.split()
    line += ["loss.margin=5"] if "ebgan" in loss else []
    line += ["model.code_norm=false"]
    whole, parts = (make(*line[:1], model, *line[1:], lr=0.1, accumulate=n) for n in (1, 3))
    parts.generator.load_state_dict(whole.generator.state_dict())
    parts.discriminator.load_state_dict(whole.discriminator.state_dict())
    x, z = batch(6)
    other = batch(6)[1]
    if line[0] == "began_paper":
        whole.loss.k_t.fill_(0.3)
        parts.loss.k_t.fill_(0.3)
    for _ in range(2):
        seen = [update.joint_step(x, z, lambda: other) for update in (whole, parts)]
        for name, value in seen[0].scalars.items():
            torch.testing.assert_close(seen[1].scalars[name], value, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(seen[0].fake, seen[1].fake)
        whole.critic_step(x, z)
        parts.critic_step(x, z)
    for name in ("generator", "discriminator"):
        a_weights, b_weights = (getattr(update, name).parameters() for update in (whole, parts))
        for a, b in zip(a_weights, b_weights, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10)


def test_accumulated_discrete_step_has_the_mean_of_its_parts():
    update = make("bgan_discrete", "mlp", "loss.samples=3", accumulate=2)
    alone = copy.deepcopy(update)
    alone.accumulate, alone._share = 1, torch.ones(())
    x, z = batch(4)
    torch.manual_seed(1)
    measures = update.discrete_step(update.loss, x, z)
    torch.manual_seed(1)
    sums: dict[str, torch.Tensor] = {}
    for part in range(2):
        rows = slice(2 * part, 2 * part + 2)
        for network in (alone.generator, alone.discriminator):
            network.zero_grad()
        alone.discrete_step(alone.loss, x[rows], z[rows])
        for name, weight in alone.generator.named_parameters():
            sums[name] = sums.get(name, 0) + weight.grad / 2
    for name, weight in update.generator.named_parameters():
        torch.testing.assert_close(weight.grad, sums[name])
    assert measures.fake.shape == (12,)


def test_fp16_scales_the_gradients_and_leaves_out_steps_that_overflow():
    """Unscaled afterwards, the weights' gradients are fp32's; an infinite one moves nothing."""
    full = make("gan", "mlp", dtype=torch.float32)
    half = make("gan", "mlp", dtype=torch.float32, amp=torch.float16)
    half.generator.load_state_dict(full.generator.state_dict())
    half.discriminator.load_state_dict(full.discriminator.state_dict())
    x, z = batch(8, dtype=torch.float32)
    full.joint_step(x, z)
    half.joint_step(x, z)  # GradScaler divides by its scale before the optimizer's step
    for a, b in zip(full.discriminator.parameters(), half.discriminator.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0.05, atol=1e-3)

    half.optimizer_d.param_groups[0]["lr"] = 0.1
    before = [weight.clone() for weight in half.discriminator.parameters()]
    scale = half.scaler.get_scale()
    half.joint_step(x * float("inf"), z)
    for a, b in zip(before, half.discriminator.parameters(), strict=True):
        assert torch.equal(a, b)
    assert half.scaler.get_scale() == scale / 2


def test_scale_of_fp16_comes_back():
    update = make("gan", "mlp", dtype=torch.float32, amp=torch.float16)
    x, z = batch(4, dtype=torch.float32)
    update.joint_step(x * float("inf"), z)
    again = make("gan", "mlp", dtype=torch.float32, amp=torch.float16)
    again.load_state_dict(update.state_dict())
    assert again.scaler.get_scale() == update.scaler.get_scale() == 2.0**15


@pytest.mark.parametrize(
    "loss",
    [
        "began_paper",
        "began",
        "gan",
        *(pytest.param(loss, marks=pytest.mark.slow) for loss in ("ebgan_pt", "wgan_gp")),
    ],
)
def test_compiled_networks_compute_the_same(loss):
    plain, compiled = (make(loss, "began", dtype=torch.float32, lr=0.01) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    x, z = batch(dtype=torch.float32)
    state = torch.get_rng_state()
    compiled.compile("default", x, z)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(plain.generator.parameters(), compiled.generator.parameters(), strict=True):
        assert torch.equal(a, b)
    measured = []
    for update in (plain, compiled):
        torch.manual_seed(3)
        update.critic_step(x, z)
        measured.append(update.joint_step(x, z).scalars)
    for name, value in measured[0].items():
        torch.testing.assert_close(measured[1][name], value, rtol=1e-4, atol=1e-6)
    for a, b in zip(plain.generator.parameters(), compiled.generator.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_compiler_that_fails_leaves_all_as_it_was(monkeypatch):
    update = make("gan", "dcgan", dtype=torch.float32)
    kept = copy.deepcopy(update.discriminator.state_dict())
    monkeypatch.setattr(torch, "compile", lambda *_, **__: lambda *_: 1 / 0)
    x, z = batch(dtype=torch.float32)
    with pytest.raises(ZeroDivisionError):
        update.compile("max", x, z)
    assert all(torch.equal(kept[k], v) for k, v in update.discriminator.state_dict().items())
    update.joint_step(x, z)  # as it is


@pytest.fixture
def compilations(monkeypatch):
    """A list that grows by one with each compilation; nothing is compiled to machine code."""
    seen, compile = [], torch.compile

    def backend(module, inputs):
        seen.append(module)
        return module.forward

    monkeypatch.setattr(
        torch,
        "compile",
        lambda function, mode, dynamic: compile(function, backend=backend, dynamic=dynamic),
    )
    return seen


def test_every_run_of_a_sweep_in_one_process_is_compiled(compilations):
    """Mistake: after 8 versions of a function Dynamo gives up, and goes on without a word."""
    x, z = batch(dtype=torch.float32)
    each = []
    for _ in range(10):
        before = len(compilations)
        update = make("gan", "mlp", dtype=torch.float32)
        update.compile("default", x, z)
        update.joint_step(x, z)
        each.append(len(compilations) - before)
    assert min(each) == max(each) > 0


def small_run(*line: str) -> tuple[Update, Batches, LatentStream]:
    cfg = settings("train", *TINY, "model=mlp", *line)
    pixels = torch.randint(0, 256, (50, 1, 16, 16), dtype=torch.uint8)
    update = build(cfg, pixels, CPU)
    return update, Batches(pixels, 4, 0, CPU), LatentStream(4, 8, 0, CPU)


def test_a_state_that_is_loaded_later_stays_where_it_is_in_memory():
    """A roll-back in a run whose step is a CUDA graph."""
    update, batches, latents = small_run("loss=began_paper")
    update(batches, latents)
    saved = copy.deepcopy(update.state_dict())
    tensors = graph.state_tensors(update)
    values = [tensor.detach().clone() for tensor in tensors]
    update(batches, latents)
    assert not all(map(torch.equal, tensors, values))
    update.load_state_dict(saved)
    assert [t.data_ptr() for t in graph.state_tensors(update)] == [t.data_ptr() for t in tensors]
    assert all(map(torch.equal, tensors, values))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop"])
def test_the_state_of_a_run_on_a_gpu_is_loaded_on_a_cpu(optimizer):
    """Its optimizers keep everything on the device; here that would be refused."""
    update, batches, latents = small_run("loss=gan", f"optimizer={optimizer}")
    update(batches, latents)
    saved = copy.deepcopy(update.state_dict())
    for name in ("optimizer_g", "optimizer_d"):
        for group in saved[name]["param_groups"]:
            group |= {"capturable": True}
    again = small_run("loss=gan", f"optimizer={optimizer}")[0]
    again.load_state_dict(saved)
    x, z = batches(), latents()
    for each in (update, again):
        each.joint_step(x, z)
    ours, theirs = graph.state_tensors(update), graph.state_tensors(again)
    assert all(map(torch.equal, ours, theirs))


def test_the_state_of_another_precision_is_laid_out_as_the_weights():
    """Mistake: a CPU's run goes on in bf16, and fused Adam refuses moments with other strides."""
    line = ("loss=gan", "model=began")
    full, batches, latents = small_run(*line)
    full(batches, latents)
    cfg = settings("train", *line, *TINY)
    half = build(cfg, torch.zeros(4, 1, 16, 16, dtype=torch.uint8), CPU, torch.bfloat16)
    half.load_state_dict(copy.deepcopy(full.state_dict()))
    for optimizer in (half.optimizer_g, half.optimizer_d):
        for weight, slots in optimizer.state.items():
            assert slots["exp_avg"].stride() == slots["exp_avg_sq"].stride() == weight.stride()
    assert all(map(torch.equal, graph.state_tensors(full), graph.state_tensors(half)))


@pytest.mark.parametrize(
    ("line", "draws"),
    [
        ("loss=gan", (1, 1)),
        ("loss=wgan loss.n_critic=3", (3, 3)),
        ("loss=began_paper loss.separate_latents=true", (1, 2)),
        ("loss=bgan_discrete", (1, 1)),
    ],
)
def test_draws_of_a_step_are_known_before(line, draws):
    update, batches, latents = small_run(*line.split())
    drawn = [0, 0]

    def counted(k, stream):
        drawn[k] += 1
        return stream()

    update(lambda: counted(0, batches), lambda: counted(1, latents))
    assert update.draws == tuple(drawn) == draws


def test_packed_images_are_judged_together():
    """PacGAN: the critic's input is the images' channels side by side, its value one a pack."""
    update = make("wgan_gp", "mlp", "loss.pack=2")
    x, z = batch(6)
    values = update.discriminator(x)
    assert values.shape == (3,)
    changed = x.clone()
    changed[1] += 1
    differs = update.discriminator(changed) != values
    assert differs.tolist() == [True, False, False]
    torch.manual_seed(5)
    e = torch.rand(3, 1, dtype=torch.float64)
    g = update.generator(z).detach()
    both = (e * x.reshape(3, -1) + (1 - e) * g.reshape(3, -1)).requires_grad_()
    slopes = torch.autograd.grad(update.discriminator(both.view(6, 1, 16, 16)).sum(), both)[0]
    torch.manual_seed(5)
    penalty = update.loss.penalty(update.discriminator, x, g)
    expected = 10 * ((slopes.norm(dim=1) - 1) ** 2).mean()
    torch.testing.assert_close(penalty.detach(), expected)
