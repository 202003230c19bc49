"""Layers that PyTorch does not have, or not as fast."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from began_cli import ranks


class UpConv2d(nn.Conv2d):
    """Nearest up-sampling by two, then a 3x3 convolution: (N, C, H, W) to (N, out, 2H, 2W).

    `composed` computes the same as one transposed convolution of stride two: an output pixel sees
    only 2x2 different inputs, so the 3x3 weights that meet the same input are added beforehand.
    """

    def __init__(self, channels: int, out_channels: int, composed: bool) -> None:
        super().__init__(channels, out_channels, 3, padding=1)
        self.composed = composed

    def forward(self, input: Tensor) -> Tensor:
        if not self.composed:
            return super().forward(F.interpolate(input, scale_factor=2.0, mode="nearest"))
        w = self.weight.flip(2, 3).transpose(0, 1)  # (in, out, 3, 3): w2, w1, w0
        w = F.pad(w, (0, 1)) + F.pad(w, (1, 0))  # w2, w2 + w1, w1 + w0, w0 along x
        w = F.pad(w, (0, 0, 0, 1)) + F.pad(w, (0, 0, 1, 0))  # and along y
        return F.conv_transpose2d(input, w, self.bias, stride=2, padding=1)


class Elu(nn.Module):
    """ELU, computed as max(x, exp(min(x, 0)) - 1) on a CPU.

    There the forward pass of `F.elu`, which uses expm1, takes five times as long. On other devices
    it is `F.elu`, one kernel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.plain = False  # true: `F.elu` everywhere

    def forward(self, input: Tensor) -> Tensor:
        if self.plain or input.device.type != "cpu":
            return F.elu(input)
        return _CpuElu.apply(input)


class _CpuElu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if x.dtype in (torch.bfloat16, torch.float16):  # exp(x) - 1 needs the digits near 1
            out = torch.maximum(x, x.float().clamp_(max=0.0).exp_().sub_(1.0).to(x.dtype))
        else:
            out = x.clamp(max=0.0).exp_().sub_(1.0)
            torch.maximum(x, out, out=out)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (out,) = ctx.saved_tensors
        return torch.ops.aten.elu_backward(gradient, 1.0, 1.0, 1.0, True, out)


class Carry(nn.Module):
    """Vanishing residuals (1703.10717, section 3.5.1): in = carry in + (1 - carry) out.

    `carry` starts at 1 and is set at every step. Without residuals, return `out` as it is.
    """

    carry: Tensor | None

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.register_buffer("carry", torch.tensor(1.0) if residual else None)

    def forward(self, into: Tensor, out: Tensor) -> Tensor:
        if self.carry is None or into.shape != out.shape:
            return out
        return torch.lerp(out, into, self.carry.to(out.dtype))


def carry_at(step: int, steps: int) -> float:
    """Return the carry at a step: 1 at step 0, falling linearly to 0 at `steps`, then 0."""
    return max(0.0, 1.0 - step / steps)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation, in training over the images of all processes.

    torch's SyncBatchNorm does the same, but on GPUs only.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or ranks.size() == 1:
            return super().forward(input)
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        var, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        variances, means = ranks.gather_with_gradient(torch.stack([var, mean])).unbind(1)
        mean = means.mean(0)
        var = (variances + (means - mean).square()).mean(0)
        n = x.numel() // x.shape[1] * ranks.size()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = var * (n / (n - 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return (x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)).to(input.dtype)
