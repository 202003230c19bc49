"""Each layer against PyTorch's own, or by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from began_cli.gan import layers


def test_composed_up_sampling_equals_nearest_then_convolution():
    layer = layers.UpConv2d(3, 5, composed=True).double()
    plain = nn.Conv2d(3, 5, 3, padding=1).double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    ours, reference = layer(x), plain(F.interpolate(x, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(ours, reference)
    weights = torch.randn_like(ours)
    got = torch.autograd.grad((ours * weights).sum(), [x, layer.weight, layer.bias])
    expected = torch.autograd.grad((reference * weights).sum(), [x, plain.weight, plain.bias])
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)
    layer.composed = False
    torch.testing.assert_close(layer(x), reference)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_elu_is_torchs_and_so_are_its_gradients(dtype):
    x = torch.cat([torch.linspace(-20, 20, 1001), torch.tensor([0.0, -1e-3, 1e-3, -1e-9, -100.0])])
    x = x.to(dtype).requires_grad_()
    tolerance = {torch.float64: 1e-15, torch.float32: 2e-7, torch.bfloat16: 4e-3}[dtype]
    ours, theirs = layers.Elu()(x), F.elu(x)
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    weights = torch.rand_like(x)
    (a,), (b,) = (torch.autograd.grad((y * weights).sum(), x) for y in (ours, theirs))
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def test_elu_can_be_differentiated_twice():
    x = torch.tensor([-3.0, -0.5, -0.01, 0.3, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layers.Elu(), x)
    assert torch.autograd.gradgradcheck(layers.Elu(), x)


def test_a_carry_mixes_input_and_output():
    carry = layers.Carry(residual=True)
    into, out = torch.tensor([8.0]), torch.tensor([4.0])
    assert carry(into, out).item() == 8
    carry.carry.fill_(0.25)
    assert carry(into, out).item() == 0.25 * 8 + 0.75 * 4
    wider = torch.zeros(2)
    assert carry(into, wider) is wider
    assert layers.Carry(residual=False)(into, out) is out


def test_the_carry_falls_linearly_to_zero():
    assert [layers.carry_at(step, 4) for step in range(7)] == [1, 0.75, 0.5, 0.25, 0, 0, 0]


def test_batch_normalisation_of_one_process_is_torchs():
    ours, theirs = layers.BatchNorm2d(3), nn.BatchNorm2d(3)
    for training in (True, True, False):
        ours.train(training)
        theirs.train(training)
        x = torch.randn(4, 3, 5, 5) * 3 + 2
        assert torch.equal(ours(x), theirs(x))
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), theirs.buffers(), strict=True))
