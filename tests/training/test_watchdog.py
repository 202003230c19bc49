"""Each rule by a real cause, and a healthy run on which all are silent."""

import math

import pytest
import torch
from conftest import TINY, settings
from torch import nn

from began_cli.generators import checkpoint
from began_cli.training.watchdog import Watchdog, finite

FROZEN = ("loss=gan", "model=began", "optimizer.lr_g=1e-12", "model.init=normal")


def split(loss_d):
    return {"loss_d": loss_d, "loss_real": loss_d / 2, "loss_fake": loss_d / 2}


CALM = split(0.5) | {"diversity": 0.9, "k_t": 0.3}


def speaks(watchdog, *, times=1, weights_finite=True, **values):
    said = [watchdog.look(CALM | values, weights_finite) for _ in range(times)]
    return [[alarm.rule for alarm in alarms] for alarms in said]


def test_rules_speak_once_after_their_patience():
    dog = Watchdog(
        settings("train", "loss=gan", "watch.patience=3", "watch.diversity=0.25"), "fp32"
    )
    low = {"diversity": 0.1}
    assert speaks(dog, times=5, **low) == [[], [], ["collapse"], [], []]
    assert speaks(dog) == [[]]
    assert speaks(dog, times=3, **low)[-1] == ["collapse"]  # it passed, and came again
    assert speaks(dog, times=3, **split(1.386)) == [[], [], ["blind"]]
    assert speaks(dog, loss_g=math.nan) == [["not finite"]]
    assert speaks(dog, weights_finite=False) == [[]]  # still the same trouble


@pytest.mark.parametrize(("precision", "end"), [("fp32", "=0.0002"), ("bf16", "precision=fp32")])
def test_half_precision_may_be_why_a_value_is_not_finite(precision, end):
    """Also where `precision=auto` stands for it."""
    dog = Watchdog(settings("train", "loss=gan"), precision)
    [alarm] = dog.look(CALM | {"loss_g": math.nan}, True)
    assert alarm.advice.endswith(end)


def test_a_penalty_may_be_why_the_critic_is_blind():
    line = ("loss=bgan", "loss.r1=50", "watch.patience=1")
    [alarm] = Watchdog(settings("train", *line), "fp32").look(CALM | split(1.386), True)
    assert "lower loss.r1=50, or raise optimizer.lr_d=0.0004 or" in alarm.advice


def test_a_critic_that_pays_for_its_slope_is_not_blind():
    """L_D may exceed 2 log 2 by its penalty."""
    dog = Watchdog(settings("train", "loss=gan", "watch.patience=1"), "fp32")
    assert speaks(dog, **split(1.36) | {"loss_d": 1.39}) == [[]]


def test_a_floor_that_was_chosen_may_be_rested_on():
    line = ("loss=began_paper", "loss.k_min=0.35", "loss.k_0=0.35", "watch.patience=2")
    dog = Watchdog(settings("train", *line), "fp32")
    said = [dog.look(CALM | {"k_t": 0.35, "convergence": 1.0 + i}, True) for i in range(5)]
    assert said == [[]] * 5


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("loss=began_paper", "use loss=began, or raise loss.gamma=0.5"),
        (
            "loss=began loss.gamma=1.5",
            "raise loss.gamma=1.5, or optimizer.lr_d while k_t is 0",
        ),
        ("loss=ebgan", "use loss=ebgan_pt, or loss.margin=following"),
        ("loss=ebgan_pt", "raise loss.pt_weight=0.1, or use loss.margin=following"),
        (
            "loss=ebgan_pt loss.margin=following",
            "raise loss.pt_weight=0.1, or raise loss.gamma=2, or optimizer.lr_d while k_t is 0",
        ),
    ],
)
def test_a_collapse_names_its_remedy(line, advice):
    dog = Watchdog(settings("train", *line.split(), "watch.patience=1"), "fp32")
    alarms = dog.look(CALM | {"k_t": 0.1, "diversity": 0.1}, True)
    [said] = [alarm.advice for alarm in alarms if alarm.rule == "collapse"]
    assert said.endswith(f"collapsed; {advice}")


@pytest.mark.parametrize(
    ("line", "loss_d", "advice"),
    [
        ("loss=bgan", 0.01, "the discriminator always wins: lower optimizer.lr_d=0.0004, or raise"),
        ("loss=gan", 0.01, "the discriminator always wins: lower optimizer.lr_d=0.0002, or raise"),
        ("loss=gan", 0.5, "lower optimizer.lr_g=0.001, or raise batch_size"),
        ("loss=wgan_gp", -5.0, "lower optimizer.lr_g="),  # a critic's L_D is a distance
    ],
)
def test_a_collapse_behind_a_winning_d_is_no_fault_of_the_generators_rate(line, loss_d, advice):
    dog = Watchdog(settings("train", line, "watch.patience=3"), "fp32")
    for logged in (loss_d, 1.2, loss_d):  # a D that wins loses now and then
        alarms = dog.look(split(logged) | {"diversity": 0.1}, True)
    [alarm] = [alarm for alarm in alarms if alarm.rule == "collapse"]
    assert f"collapsed; {advice}" in alarm.advice


@pytest.mark.parametrize("line", ["loss=began", "loss=ebgan loss.margin=following"])
def test_a_d_that_reconstructs_no_better_than_blank_is_told(line):
    dog = Watchdog(settings("train", *line.split(), "watch.patience=3"), "fp32")
    assert speaks(dog, times=3, k_t=0.0, margin=0.5) == [[], [], ["pinned"]]
    assert speaks(dog, times=3, k_t=1e-3, margin=0.5) == [[]] * 3


def test_a_d_that_always_wins_is_said_before_the_samples_collapse():
    dog = Watchdog(settings("train", "loss=bgan_discrete", "watch.patience=3"), "fp32")
    assert speaks(dog, times=4, **split(0.01)) == [[], [], ["winning"], []]
    assert speaks(dog, times=2, **split(0.9)) == [[], []]
    assert ["winning"] in speaks(dog, times=5, **split(0.01))  # it passed, and came again
    for loss, loss_d in (("wgan_gp", -0.01), ("wgan", -0.01), ("began", 0.01), ("ebgan", 0.01)):
        dog = Watchdog(settings("train", f"loss={loss}", "watch.patience=3"), "fp32")
        assert speaks(dog, times=5, **split(loss_d)) == [[]] * 5


def test_finite_sees_one_bad_weight():
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    assert finite([a, b])
    b.bias.data[1] = math.inf
    assert not finite([a, b])


def train(began, digits, tmp_path, *more, steps=60):
    line = [f"dataset.root={digits}", f"hydra.run.dir={tmp_path}/r", *TINY, "log_every=2"]
    return began("train", *line, f"steps={steps}", "watch.patience=3", *more)


def test_rate_too_high(began, digits, tmp_path):
    code, out, _ = train(began, digits, tmp_path, "loss=bgan", "optimizer.lr=1e20", "model=began")
    assert code == 0
    text = " ".join(out.split())
    assert "not finite; lower optimizer.lr=1e+20" in text
    assert "not saved" in text


def test_k_t_pinned_below_by_gamma_0(began, digits, tmp_path):
    code, out, _ = train(began, digits, tmp_path, "loss=began_paper", "loss.gamma=0")
    assert code == 0
    assert "raise loss.gamma=0" in " ".join(out.split())


def test_k_t_pinned_above_by_lambda_k(began, digits, tmp_path):
    more = ("loss=began_paper", "loss.lambda_k=1", "loss.gamma=1000")
    code, out, _ = train(began, digits, tmp_path, *more)
    assert code == 0
    assert "lower loss.gamma=1000 or loss.lambda_k=1" in " ".join(out.split())


def test_m_global_at_rest(began, digits, tmp_path):
    more = ("loss=began_paper", "optimizer.lr=1e-12", "batch_size=200", "loss.lambda_k=0")
    code, out, _ = train(began, digits, tmp_path, *more, steps=12)
    assert code == 0
    assert "M_global has rested" in " ".join(out.split())


def test_collapse(began, digits, tmp_path):
    """A generator that hardly learns shows the grey of its first weights again and again."""
    more = (*FROZEN, "watch.diversity=0.25")
    code, out, _ = train(began, digits, tmp_path, *more)
    assert code == 0
    assert "the generator has collapsed" in " ".join(out.split())


def test_blind_critic(began, digits, tmp_path):
    more = ("loss=gan", "model=mlp", "model.init=normal", "optimizer.lr=1e-12")
    code, out, _ = train(began, digits, tmp_path, *more)
    assert code == 0
    assert "no longer tells real from fake" in " ".join(out.split())


def test_a_healthy_run_is_left_alone(began, tmp_path):
    line = ["dataset=ring", f"hydra.run.dir={tmp_path}/r", "loss=gan", "steps=1500"]
    code, out, _ = began("train", *line, "log_every=100", "model.width=32", "watch.patience=3")
    assert code == 0
    assert "watchdog" not in out


def test_stop(began, digits, tmp_path):
    more = (*FROZEN, "watchdog=stop")
    code, _, err = train(began, digits, tmp_path, *more)
    assert code == 2
    assert "stopped by the watchdog at step 6: " in err.splitlines()[-1]
    assert checkpoint.read(f"{tmp_path}/r")[1]["step"] == 6


def test_roll_back_to_the_last_checkpoint_with_half_the_rates(began, digits, tmp_path):
    more = (*FROZEN, "watchdog=rollback")
    more += ("checkpoint_every=2", "watch.rollbacks=2")
    code, out, err = train(began, digits, tmp_path, *more)
    assert code == 2
    assert "rolled back from step 6 to 4 with half the learning rates (1 of 2)" in out
    assert "after 2 roll-backs" in err.splitlines()[-1]
    saved = checkpoint.read(f"{tmp_path}/r")[1]
    assert saved["rollbacks"] == 2
    assert saved["optimizer_g"]["param_groups"][0]["lr"] == pytest.approx(0.25e-12)
    assert saved["optimizer_d"]["param_groups"][0]["lr"] == pytest.approx(0.25 * 2e-4)
    assert all(torch.isfinite(weight).all() for weight in saved["generator"].values())
    steps = [
        line.split('"step": ')[1].split(",")[0]
        for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(set(steps), key=int)
