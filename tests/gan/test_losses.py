"""Closed forms of the objectives, worked out by hand or by NumPy."""

import math

import numpy as np
import pytest
import torch
from conftest import settings

from began_cli.gan import losses
from began_cli.gan.losses import Reconstruction


def make(*overrides: str, shape=(1, 16, 16)):
    cfg = settings("train", *overrides)
    return losses.build(cfg.loss, shape).double()


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_k_t_on_a_hand_worked_sequence():
    """gamma 0.5, lambda 0.1: k moves by 0.1 (0.5 L(x) - L(g)); M is L(x) + |0.5 L(x) - L(g)|."""
    loss = make("loss=began_paper", "loss.gamma=0.5", "loss.lambda_k=0.1")
    steps = [
        # L(x), L(g) -> k, M
        ((2.0, 0.0), 0.1, 3.0),  # 0 + 0.1 * 1
        ((4.0, 1.0), 0.2, 5.0),  # 0.1 + 0.1 * 1
        ((1.0, 1.5), 0.1, 2.0),  # 0.2 - 0.1 * 1
        ((1.0, 9.5), 0.0, 10.0),  # 0.1 - 0.9, clipped
        ((30.0, 1.0), 1.0, 44.0),  # 0 + 1.4, clipped
    ]
    for (real, fake), k, m in steps:
        told = loss.advance(doubles(real, real), doubles(fake - 0.5, fake + 0.5))
        assert told["k_t"].item() == pytest.approx(k, abs=1e-7)
        assert told["convergence"].item() == pytest.approx(m)
        assert told["balance"].item() == pytest.approx(0.5 * real - fake)


def test_k_t_is_clamped():
    """Mistake: k_t not clamped (compare_gan, wiseodd)."""
    loss = make("loss=began_paper", "loss.lambda_k=1")
    for _ in range(5):
        assert loss.advance(doubles(100.0), doubles(0.0))["k_t"] == 1
    for _ in range(5):
        assert loss.advance(doubles(0.0), doubles(100.0))["k_t"] == 0
    loss = make(
        "loss=began_paper", "loss.lambda_k=1", "loss.k_min=0.25", "loss.k_max=0.75", "loss.k_0=0.5"
    )
    assert loss.advance(doubles(100.0), doubles(0.0))["k_t"] == 0.75
    assert loss.advance(doubles(0.0), doubles(100.0))["k_t"] == 0.25


def test_k_t_is_saved():
    """Mistake: k_t not saved, forgotten on resume (most)."""
    loss = make("loss=began_paper", "loss.lambda_k=0.1")
    loss.advance(doubles(2.0), doubles(0.5))
    again = make("loss=began_paper")
    again.load_state_dict(loss.state_dict())
    assert again.k_t == loss.k_t != 0


@pytest.mark.parametrize(("energy", "power", "root"), [("l1", 1, 1), ("l2", 2, 1), ("norm", 2, 2)])
@pytest.mark.parametrize("name", ["began", "began_paper", "began_unbalanced"])
def test_energy_is_a_mean_over_pixels_for_each_image(name, energy, power, root):
    """Mistakes: L1 summed over pixels; one norm over the whole batch; MSE for L1."""
    loss = make(f"loss={name}", f"loss.energy={energy}")
    v, r = (torch.rand(3, 1, 16, 16, dtype=torch.float64) for _ in range(2))
    values = loss.values(Reconstruction(r, torch.zeros(3, 2)), v)
    means = [np.mean(np.abs(a - b) ** power) for a, b in zip(v.numpy(), r.numpy(), strict=True)]
    np.testing.assert_allclose(values.numpy(), np.array(means) ** (1 / root), rtol=1e-12)


def black_and_white():
    """Five images; their median is black. Two are white, 2 from black at every pixel."""
    pixels = torch.zeros(5, 1, 16, 16, dtype=torch.uint8)
    pixels[3:] = 255
    return pixels


@pytest.mark.parametrize(
    ("line", "blank"),
    [
        ("loss=began loss.energy=l1", 2 * 2 / 5),
        ("loss=began loss.energy=norm", 2 * 2 / 5),
        ("loss=began loss.energy=l2", 4 * 2 / 5),
        ("loss=ebgan loss.margin=following", 2 * 16 * 2 / 5),
        ("loss=ebgan_pt loss.margin=following", 2 * 16 * 2 / 5),
    ],
)
def test_the_margin_starts_at_the_energy_of_blank_reconstructions(line, blank):
    loss = make(*line.split(), "loss.gamma=1.5")
    loss.prepare(black_and_white())
    assert loss.hinge.blank_energy.item() == pytest.approx(blank)
    assert loss.hinge.margin().item() == pytest.approx(1.5 * blank)
    assert loss.fake(doubles(0.0, 0.1)).item() == 0  # k is 0


def test_a_single_image_has_no_margin():
    """Its blank reconstruction is the image itself."""
    loss = make("loss=began")
    loss.prepare(torch.full((7, 1, 16, 16), 9, dtype=torch.uint8))
    for real in (0.0, 0.5):
        assert loss.advance(doubles(real), doubles(1.0))["k_t"].item() == 0
        assert loss.fake(doubles(0.1)).item() == 0


@pytest.mark.parametrize("line", ["loss=began", "loss=ebgan loss.margin=following"])
def test_following_margin_on_a_hand_worked_sequence(line):
    """Each step moves L by a twentieth of the way; k = clip(1 - L / 2, 0, 1); margin = 3 L."""
    loss = make(*line.split(), "loss.gamma=3")
    loss.hinge.energy.fill_(2.0)
    loss.hinge.blank_energy.fill_(2.0)
    steps = [  # L(x) -> L, k
        (1.0, 1.95, 0.025),
        (0.95, 1.9, 0.05),
        (21.9, 2.9, 0.0),
        (-97.1, -2.1, 1.0),
    ]
    before = (2.0, 0.0)
    for real, energy, k in steps:
        told = loss.advance(doubles(real - 1, real + 1), doubles(7.0))
        assert told["margin"].item() == pytest.approx(3 * before[0])  # of the step that was taken
        assert told["k_t"].item() == pytest.approx(before[1])
        assert loss.hinge.energy.item() == pytest.approx(energy)
        before = (energy, k)
        hinge = [max(0.0, 3 * energy - v) for v in (0.0, 5.6, 8.0)]
        expected = k * sum(hinge) / 3
        assert loss.fake(doubles(0.0, 5.6, 8.0)).item() == pytest.approx(expected, abs=1e-6)


def test_fakes_dearer_than_the_margin_are_left_alone():
    """Mistake: a hinge on the mean over the batch, under which one dear fake shields the others."""
    loss = make("loss=began", "loss.gamma=2")
    loss.hinge.energy.fill_(0.5)
    values = doubles(0.25, 0.75, 50.0).requires_grad_()
    loss.fake(values).backward()
    assert values.grad.tolist() == pytest.approx([-0.5 / 3, -0.5 / 3, 0.0])


def test_following_margin_is_saved():
    loss = make("loss=began")
    loss.prepare(black_and_white())
    loss.advance(doubles(0.1), doubles(0.5))
    again = make("loss=began")
    again.load_state_dict(loss.state_dict())
    assert again.hinge.margin() == loss.hinge.margin()
    assert again.hinge.k() == loss.hinge.k() > 0


def test_ebgan_energy_is_an_unsquared_norm_of_each_image():
    """Mistake: mean-squared energy, with which a margin of 10 keeps the hinge on for ever."""
    loss = make("loss=ebgan")
    v = torch.zeros(2, 1, 16, 16, dtype=torch.float64)
    r = torch.full_like(v, 0.5)
    r[1] *= 3
    values = loss.values(Reconstruction(r, v), v)
    assert values.tolist() == pytest.approx([0.5 * 16, 1.5 * 16])  # sqrt(256 * 0.5^2) = 8
    assert loss.fake(values).item() == pytest.approx(((10 - 8) + 0) / 2)


def test_ebgan_gradient_is_finite_where_the_reconstruction_is_perfect():
    loss = make("loss=ebgan")
    v = torch.zeros(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    loss.values(Reconstruction(torch.zeros_like(v), v), v).sum().backward()
    assert torch.isfinite(v.grad).all()


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([[1.0, 2.0], [1.0, 2.0], [2.0, 4.0]], 1.0),
        ([[1.0, 0.0], [0.0, 3.0]], 0.0),
        ([[1.0, 1.0], [-2.0, -2.0]], 1.0),
        ([[1.0, 0.0], [1.0, 1.0]], 0.5),
        ([[0.0, 0.0], [1.0, 0.0]], 0.0),
    ],
)
def test_pulling_away_closed_forms(codes, expected):
    """Mistakes: without the square (antipodal codes would give -1); normalised over the batch."""
    assert losses.pulling_away(doubles(*codes)).item() == pytest.approx(expected, abs=1e-12)


def test_pulling_away_has_a_gradient_at_a_code_of_zeros():
    code = torch.zeros(3, 4, requires_grad=True)
    losses.pulling_away(code).backward()
    assert torch.isfinite(code.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bgan_is_finite_and_its_gradient_is_f(dtype):
    """Mistake: BGAN by log(sigmoid): inf in float32 from f = 17, flat at 18.4 with an epsilon."""
    f = torch.tensor(
        [-1e4, -17.0, -1e-3, 0.0, 0.5, 17.0, 88.0, 1e4], dtype=dtype, requires_grad=True
    )
    loss = make("loss=bgan").to(dtype)
    value = loss.generator(f, f)
    assert torch.isfinite(value)
    (gradient,) = torch.autograd.grad(value, f)
    torch.testing.assert_close(gradient * len(f), f.detach())
    assert torch.isfinite(loss.real(f) + loss.fake(f))


def test_bgan_log_z_is_a_moving_average_of_log_mean_exp():
    loss = make("loss=bgan", "loss.log_z=true", "loss.log_z_decay=0.75")
    f = doubles(0.0, 1.0, 700.0)
    estimate = 700 + math.log((math.exp(-700) + math.exp(-699) + 1) / 3)
    assert loss.advance(f, f)["log_z"].item() == pytest.approx(0.25 * estimate)
    assert loss.advance(f, f)["log_z"].item() == pytest.approx((0.75 * 0.25 + 0.25) * estimate)
    z = float(loss.log_z)
    assert loss.generator(f, f).item() == pytest.approx(
        sum((v - z) ** 2 for v in (0.0, 1.0, 700.0)) / 6
    )


@pytest.mark.parametrize("loss", ["gan", "bgan"])
def test_r1_of_a_linear_critic_is_the_square_of_its_weights(loss):
    """f(x) = w x has the slope w everywhere. Of packs it is that of both images together."""
    critic = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 1, bias=False))
    square = (critic[1].weight ** 2).sum()
    x = torch.rand(8, 1, 16, 16)
    penalty = make(f"loss={loss}", "loss.r1=4").penalty(critic, x, x)
    torch.testing.assert_close(penalty, 2 * square)
    pair = torch.nn.Sequential(torch.nn.Unflatten(0, (-1, 2)), torch.nn.Flatten(), critic[1])
    critic[1].weight = torch.nn.Parameter(torch.rand(1, 512))
    penalty = make(f"loss={loss}", "loss.r1=4", "loss.pack=2").penalty(pair, x, x)
    torch.testing.assert_close(penalty, 2 * (critic[1].weight ** 2).sum())
    assert make(f"loss={loss}", "loss.r1=0").penalty(critic, x, x) is None


@pytest.mark.parametrize(
    ("loss", "unit"), [("ebgan", 1), ("ebgan_pt", 1), ("began", 16), ("began loss.energy=l1", 16)]
)
def test_r1_of_an_autoencoder_is_the_square_of_the_slope_of_its_energy(loss, unit):
    """Where D(v) = v / 4, E(v) is 3/4 |v|, and its slope 3/4. L(v) = E(v) / 16, or 3/4 of the mean
    of |v|; both have the slope 3/4 / 16, and L_D is in units of L, of a sixteenth."""

    def critic(v):
        return losses.Reconstruction(v / 4, v.flatten(1))

    x = torch.rand(8, 1, 16, 16)
    line = f"loss={loss}".split()
    penalty = make(*line, "loss.r1=4").penalty(critic, x, x)
    torch.testing.assert_close(penalty, torch.tensor(2 * 0.75**2 / unit))
    assert make(*line, "loss.r1=0").penalty(critic, x, x) is None


@pytest.mark.parametrize("loss", ["began", "ebgan"])
def test_r1_of_an_image_without_an_error_has_a_gradient(loss):
    weight = torch.ones((), requires_grad=True)

    def critic(v):
        return losses.Reconstruction(v * weight, v.flatten(1))

    make(f"loss={loss}", "loss.r1=4").penalty(critic, torch.rand(8, 1, 16, 16), None).backward()
    assert weight.grad == 0


def test_losses_reduce_in_single_precision():
    half = torch.full((4,), 3e4, dtype=torch.float16)
    assert torch.isfinite(make("loss=bgan").generator(make("loss=bgan").values(half, half), half))


def test_every_loss_has_a_row_in_the_settings():
    from began_cli.settings.fields import GROUPS

    for name in GROUPS["loss"]:
        assert make(f"loss={name}").critic in ("autoencoder", "score")
