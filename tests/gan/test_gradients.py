"""Gradients between the passes of a step. tests/test_ranks.py sums those of real processes."""

import torch
import torch.distributed as dist

from began_cli import ranks
from began_cli.gan.gradients import Gradients


def make_weights() -> list[torch.Tensor]:
    return [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([[3.0]], requires_grad=True)]


def backward(weights: list[torch.Tensor]) -> None:
    """Add the gradients of w^2, 2 w."""
    sum(weight.square().sum() for weight in weights).backward()


def test_scaling_reaches_the_passes_so_far():
    weights = make_weights()
    gradients = Gradients(weights)
    backward(weights)
    gradients.scale(torch.tensor(3.0))
    backward(weights)
    gradients.sum_over_processes()  # of one
    assert [weight.grad.flatten().tolist() for weight in weights] == [[8, 16], [24]]
    gradients.clear()
    assert all(weight.grad is None for weight in weights)


def test_gradients_that_are_kept_stay_at_their_address():
    weights = make_weights()
    gradients = Gradients(weights)
    gradients.keep_in_place(True)  # before a CUDA graph could make them in its own memory
    assert all(not weight.grad.any() for weight in weights)
    gradients.clear()
    backward(weights)
    addresses = [weight.grad.data_ptr() for weight in weights]
    gradients.clear()
    assert all(not weight.grad.any() for weight in weights)
    backward(weights)
    assert [weight.grad.data_ptr() for weight in weights] == addresses
    gradients.keep_in_place(False)
    gradients.clear()
    assert all(weight.grad is None for weight in weights)


def test_those_of_several_processes_are_summed_in_one_message(monkeypatch):
    messages = []
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda flat: messages.append(flat.mul_(2).clone()))
    weights = make_weights()
    gradients = Gradients(weights)
    for _ in range(2):
        gradients.clear()
        backward(weights)
        gradients.sum_over_processes()  # with another process that has the same
        assert [weight.grad.flatten().tolist() for weight in weights] == [[4, 8], [12]]
    assert [message.tolist() for message in messages] == [[4, 8, 12]] * 2
