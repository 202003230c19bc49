import copy

import pytest
import torch
from torch.optim import SGD

from began_cli.settings.train import LinearScheduleConfig, PlateauScheduleConfig, ScheduleConfig
from began_cli.training import schedule


def make(c, lr=1.0):
    optimizers = [SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr * rate) for rate in (1, 2)]
    return schedule.build(c, optimizers), optimizers


def rates(optimizers):
    return [optimizer.param_groups[0]["lr"] for optimizer in optimizers]


def plateau(window=2, threshold=0.01, cooldown=0, floor=0.0):
    return PlateauScheduleConfig("plateau", window, threshold, cooldown, floor)


def feed(plan, values, start=0):
    return [
        plan.after(start + i + 1, {"convergence": torch.tensor(v)}) for i, v in enumerate(values)
    ]


def test_halves_when_the_mean_of_a_window_is_not_better_by_the_threshold():
    plan, optimizers = make(plateau())
    said = feed(plan, [1.5, 0.5])  # mean 1.0, the first
    said += feed(plan, [1.0, 0.96], 2)  # 0.98: better by 2 %
    assert rates(optimizers) == [1.0, 2.0]
    assert said == [None] * 4
    said = feed(plan, [0.98, 0.97], 4)  # 0.975: better by half a per cent
    assert rates(optimizers) == [0.5, 1.0]
    assert said[0] is None
    assert "step 6" in said[1]
    assert "0.5 and 1" in said[1]
    feed(plan, [0.9, 0.9], 6)
    assert rates(optimizers) == [0.5, 1.0]


def test_cooldown_counts_windows_that_begin_after_it():
    plan, optimizers = make(plateau(window=1, cooldown=2))
    feed(plan, [1.0] * 7)
    # Stalls at 2; the windows that begin at 2 and 3 rest; then at 5, and not before 8.
    assert rates(optimizers)[0] == 0.25


def test_floor():
    plan, optimizers = make(plateau(window=1, floor=0.3))
    feed(plan, [1.0] * 9)
    assert rates(optimizers) == [0.3, 0.3]
    assert feed(plan, [1.0] * 3, 9) == [None] * 3  # nothing changes, nothing is said


def test_a_rate_below_the_floor_stays():
    plan, optimizers = make(plateau(window=1, floor=0.3), lr=0.1)
    feed(plan, [1.0] * 5)
    assert rates(optimizers) == [0.1, 0.2]


@pytest.mark.parametrize("cut", range(1, 12))
def test_state_comes_back_in_the_middle_of_a_window(cut):
    values = [3.0, 2.9, 2.9, 2.0, 2.0, 2.1, 2.0, 1.9, 2.0, 1.0, 1.0, 1.0]
    whole, optimizers = make(plateau(window=3, cooldown=3))
    feed(whole, values)
    first, halves = make(plateau(window=3, cooldown=3))
    feed(first, values[:cut])
    second, again = make(plateau(window=3, cooldown=3))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for new, old in zip(again, halves, strict=True):
        new.load_state_dict(old.state_dict())
    feed(second, values[cut:], cut)
    assert rates(again) == rates(optimizers)
    assert second.best == pytest.approx(whole.best)


def test_linear():
    plan, optimizers = make(LinearScheduleConfig("linear", start=2, end=6))
    seen = []
    for step in range(1, 8):
        plan.after(step, {})
        seen.append(rates(optimizers)[0])
    assert seen == [1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


def test_constant():
    plan, optimizers = make(ScheduleConfig("constant"))
    assert plan.after(1, {}) is None
    assert rates(optimizers) == [1.0, 2.0]
