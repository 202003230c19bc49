"""The public schemes of scripts/reproduce_baselines.py do what their names say."""

import copy
import json
import math
import sys

import pytest
import reproduce_baselines as baselines
import torch
from benchmark import make_noise
from common import compose_settings
from torch import nn

from began_cli.gan import losses
from began_cli.training.setup import build_parts

CPU = torch.device("cpu")
LINE = ["dataset=mnist", "dataset.image_size=16", "dataset.width=4", "batch_size=4"]


def theirs(name: str, *more: str):
    """A baseline, and the parts of ours with the same weights and streams."""
    scheme = baselines.SCHEMES[name]
    cfg = compose_settings([*scheme.line.split(), *LINE, *more])
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        made.append(build_parts(cfg, make_noise(cfg), CPU))
    return scheme.baseline(made[0].update, cfg.loss), made[1]


def gradients(network):
    return torch.cat([weight.grad.flatten() for weight in network.parameters()])


class Logit(nn.Module):
    """A discriminator that says f of every image, or f more than another says."""

    def __init__(self, f, inner=None):
        super().__init__()
        self.f, self.inner = f, inner

    def forward(self, v):
        return torch.full((len(v),), self.f) if self.inner is None else self.inner(v) + self.f


class Blank(nn.Module):
    """An autoencoder that makes everything black."""

    def forward(self, v):
        return losses.Reconstruction(torch.full_like(v, -1.0), v.flatten(1))


def check_gradients_of_a_step(plain, ours, tolerance):
    x, z = ours.batches(), ours.latents()
    plain.step(x, z)
    ours.update(lambda: x, lambda: z)
    for name in ("generator", "discriminator"):
        a, b = gradients(getattr(plain, name)), gradients(getattr(ours.update, name))
        assert (a - b).norm() <= tolerance * b.norm()


# --- BEGAN ----------------------------------------------------------------------------------------


def test_three_passes_give_our_gradients_and_our_averaged_generator_while_k_t_is_in_0_1():
    plain, ours = theirs("plain_began", "loss.k_0=0.4")
    check_gradients_of_a_step(plain, ours, 1e-5)
    for _ in range(3):
        x, z = ours.batches(), ours.latents()
        plain.step(x, z)
        ours.update(lambda x=x: x, lambda z=z: z)
    assert plain.k_t == pytest.approx(ours.update.loss.k_t.item(), rel=1e-5)
    for a, b in zip(plain.ema.parameters(), ours.update.ema.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


def test_plain_k_t_leaves_0_1_on_both_sides():
    """k + 0.5 (0.5 L(x) - L(G(z))): 0 + 0.5 (0.05 - 0.45) = -0.2; 1 + 0.5 (0.45 - 0.05) = 1.2."""
    plain, _ = theirs("plain_began", "loss.lambda_k=0.5", "loss.gamma=0.5")
    plain.control(0.1, 0.45)
    assert plain.k_t == pytest.approx(-0.2)
    plain.k_t = 1.0
    plain.control(0.9, 0.05)
    assert plain.k_t == pytest.approx(1.2)


def test_summed_k_t_stays_in_0_1():
    summed, _ = theirs("summed_began", "loss.lambda_k=0.5")
    summed.control(0.1, 0.45)
    assert summed.k_t == 0.0
    summed.k_t = 1.0
    summed.control(0.9, 0.05)
    assert summed.k_t == 1.0


def test_one_summed_backward_lets_d_learn_from_the_reals_alone_at_k_t_1():
    """L_D + L_G = L(x) - 1 L(G(z)) + L(G(z)); for G it is L(G(z)), as it should be."""
    summed, ours = theirs("summed_began", "loss.k_0=1")
    x, z = ours.batches(), ours.latents()
    critic = copy.deepcopy(summed.discriminator)
    (x - critic(x).images).abs().mean().backward()
    summed.step(x, z)
    ours.update(lambda: x, lambda: z)
    expected = gradients(critic)
    assert (gradients(summed.discriminator) - expected).norm() <= 1e-4 * expected.norm()
    expected = gradients(ours.update.generator)
    assert (gradients(summed.generator) - expected).norm() <= 1e-4 * expected.norm()
    assert (gradients(ours.update.discriminator) - gradients(critic)).norm() > 0.1


# --- BGAN -----------------------------------------------------------------------------------------


def test_the_log_sigmoid_loss_is_half_the_squared_logit_where_it_is_finite():
    plain, ours = theirs("log_sigmoid_bgan")
    plain.discriminator = Logit(1.5)
    value = plain.value(torch.zeros(4, 1, 16, 16))
    assert plain.loss_g(value).item() == pytest.approx(1.125, rel=1e-5)
    # Cross-entropy of D = sigmoid(1.5) = 0.8176: -log 0.8176 - log 0.1824.
    assert plain.loss_d(value, value).item() == pytest.approx(0.2014 + 1.7014, abs=1e-4)
    f = torch.full((4,), 1.5)
    assert ours.update.loss.generator(f, f).item() == 1.125


@pytest.mark.parametrize("f", [200.0, 20.0, -200.0])
def test_the_log_sigmoid_loss_is_not_finite_where_ours_is(f):
    plain, ours = theirs("log_sigmoid_bgan")
    plain.discriminator = Logit(f)
    assert plain.loss_g(plain.value(torch.zeros(4, 1, 16, 16))).item() == math.inf
    logits = torch.full((4,), f)
    assert ours.update.loss.generator(logits, logits).item() == pytest.approx(f * f / 2)


def test_one_step_at_logits_near_20_breaks_the_log_sigmoid_generator_and_not_ours():
    plain, ours = theirs("log_sigmoid_bgan")
    x, z = ours.batches(), ours.latents()
    for scheme in (plain, ours.update):
        scheme.discriminator = Logit(20.0, scheme.discriminator)
    for _ in range(2):  # the second from images that are not finite
        plain.step(x, z)
        ours.update(lambda: x, lambda: z)
    assert not any(weight.isfinite().any() for weight in plain.generator.parameters())
    assert all(weight.isfinite().all() for weight in ours.update.generator.parameters())


def test_the_log_sigmoid_step_gives_our_gradients_at_small_logits():
    plain, ours = theirs("log_sigmoid_bgan")
    check_gradients_of_a_step(plain, ours, 1e-4)


# --- EBGAN ----------------------------------------------------------------------------------------


def test_mse_energy_is_the_squared_norm_over_the_pixels():
    plain, ours = theirs("mse_ebgan")
    plain.discriminator = Blank()
    v = ours.batches()
    norm = ours.update.loss.values(Blank()(v), v)
    assert plain.value(v).tolist() == pytest.approx((norm.square() / 256).tolist(), rel=1e-5)
    white = plain.value(torch.ones(2, 1, 16, 16))
    assert white.tolist() == [4.0, 4.0]  # the most there is, far below the margin


def test_the_papers_margin_keeps_the_hinge_of_the_mse_on_where_the_norms_is_off():
    """Fakes at norm 16 = MSE 1: [10 - 16]+ = 0 and gives no gradient; [10 - 1]+ = 9 gives one."""
    plain, ours = theirs("mse_ebgan")
    norm = torch.full((4,), 16.0)
    mse = (norm.square() / 256).requires_grad_()
    real = torch.zeros(4)
    assert ours.update.loss.fake(norm).item() == 0
    loss = plain.loss_d(real, mse)
    assert loss.item() == 9
    loss.backward()
    assert mse.grad.tolist() == [-0.25] * 4


# --- the comparison -------------------------------------------------------------------------------


@pytest.fixture
def contender():
    def make(name: str):
        cfg = compose_settings([*baselines.SCHEMES[name].line.split(), *LINE, "device=cpu"])
        return baselines.Contender(name, cfg, make_noise(cfg))

    return make


@pytest.mark.parametrize("name", ["bgan", "log_sigmoid_bgan"])
def test_a_step_that_breaks_the_weights_is_named(name, contender, monkeypatch):
    """Three steps a turn; the generator is broken before the second of the second turn."""
    each = contender(name)
    whole, taken = each.step, []

    def step(x, z):
        taken.append(1)
        if len(taken) == 5:
            with torch.no_grad():
                next(each.update.generator.parameters()).fill_(math.nan)
        return whole(x, z)

    each.step = step
    ticks = iter(range(1000))
    monkeypatch.setattr(baselines.time, "perf_counter", lambda: next(ticks))
    each.train(3)
    assert (each.steps, each.broken) == (3, None)
    each.train(3)
    assert (each.steps, each.broken, each.is_done(1e9)) == (6, 5, True)
    assert each.row(100)["verdict"] == "NaN at step 5"


def test_rows_tell_the_first_score_that_was_low_enough_and_the_last_ones(contender):
    each = contender("bgan")
    points = [(20, 10, 300.0, 0.1), (40, 20, 90.0, 0.9), (60, 30, 120.0, 0.24)]
    each.curve = [baselines.Point(*point) for point in points]
    each.steps = 30
    row = each.row(100)
    assert (row["images"], row["seconds to FID"], row["FID"]) == (120, 40, 120.0)
    assert row["verdict"] == "collapsed"
    assert each.row(50)["seconds to FID"] is None
    each.curve[-1] = baselines.Point(60, 30, 120.0, 0.26)
    assert each.row(100)["verdict"] == "ok"


def test_the_line_prints_a_table_and_writes_every_score(monkeypatch, tmp_path, capsys):
    line = ["reproduce_baselines.py", "--seconds", "0.02", "--slice", "0.01", "--seeds", "0", "1"]
    line += ["--only", "bgan", "mse_ebgan", "--json", str(tmp_path / "all.json"), *LINE]
    line += ["device=cpu", "evaluation.extractor=pixels", "evaluation.n=64"]
    monkeypatch.setattr(sys, "argv", line)
    source = make_noise(compose_settings([*LINE]))
    monkeypatch.setattr(baselines.sources, "load", lambda c: source)
    baselines.main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[:2] for row in rows] == [
        [name, seed] for seed in "01" for name in ("bgan", "mse_ebgan")
    ]
    written = json.loads((tmp_path / "all.json").read_text())
    assert written["extractor"].startswith("pixels@")
    for scheme in written["schemes"]:
        assert scheme["curve"][-1]["seconds"] >= 0.02
        assert scheme["curve"][-1]["steps"] == scheme["steps"]


@pytest.mark.parametrize(
    "line",
    [["--fid", "nan"], ["--json", "."], ["--", "+loss=gan"], ["--", "nosuch=1"], ["--only", "x"]],
)
def test_what_cannot_be_is_refused_before_any_training(monkeypatch, capsys, line):
    monkeypatch.setattr(baselines.Contender, "train", lambda *_: pytest.fail("it trained"))
    monkeypatch.setattr(sys, "argv", ["x", *line])
    with pytest.raises(SystemExit) as ended:
        baselines.main()
    assert ended.value.code == 2
    assert line[-1].lstrip("+").partition("=")[0] in capsys.readouterr().err
