"""Operations counted by hand: a multiply-add is two."""

import torch
from torch import nn

from began_cli.gan.flops import count_flops
from began_cli.gan.layers import UpConv2d

LINEAR = 2 * 4 * 5 * 7  # of a batch of 4, 5 inputs, 7 outputs
CONVOLUTION = 2 * (4 * 6 * 6) * (3 * 8) * 9  # 4 images of 6x6, 3 channels to 8, 3x3 weights


def test_products_and_convolutions_are_counted_and_nothing_else():
    x, image = torch.rand(4, 5), torch.rand(4, 3, 6, 6)
    assert count_flops(lambda: nn.Linear(5, 7)(x)) == LINEAR
    assert count_flops(lambda: nn.Conv2d(3, 8, 3, padding=1)(image)) == CONVOLUTION
    assert count_flops(lambda: x.exp() + x.sum() * 3) == 0


def test_a_backward_pass_costs_one_for_weights_and_one_for_data():
    conv, image = nn.Conv2d(3, 8, 3, padding=1), torch.rand(4, 3, 6, 6)
    assert count_flops(lambda: conv(image).sum().backward()) == 2 * CONVOLUTION
    leaf = image.requires_grad_()
    assert count_flops(lambda: conv(leaf).sum().backward()) == 3 * CONVOLUTION
    assert count_flops(lambda: torch.autograd.grad(conv(leaf).sum(), leaf)) == 2 * CONVOLUTION


def test_composed_up_sampling_takes_16_multiplications_instead_of_36():
    image = torch.rand(4, 3, 6, 6)
    composed, plain = (count_flops(lambda c=c: UpConv2d(3, 8, c)(image)) for c in (True, False))
    assert (composed, plain) == (CONVOLUTION * 16 // 9, CONVOLUTION * 36 // 9)
