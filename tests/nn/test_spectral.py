from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_ecg.nn.conv import ConvPositionalEmbedding
from fairseq_ecg.nn.spectral import correlate


def direct(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    padding = weight.shape[-1] // 2
    y = F.conv1d(x.transpose(1, 2), weight, padding=padding, groups=groups)[..., : x.shape[1]]
    return y.transpose(1, 2)


@pytest.mark.parametrize(
    ("frames", "taps"), [(31, 32), (30, 32), (20, 33), (21, 7), (5, 40), (40, 1), (1, 8)]
)
def test_values_and_gradients_are_those_of_the_convolution(frames: int, taps: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, frames, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, 4, taps, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(3, frames, 8, dtype=torch.float64)
    results = []
    for form in (direct, correlate):
        y = form(x, weight, 2)
        results.append([y.detach(), *torch.autograd.grad((y * probe).sum(), [x, weight])])
    for mine, plain in zip(*results, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-10, atol=1e-10)


def test_float32_is_as_exact_as_the_direct_form() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 156, 32), torch.randn(32, 16, 128) * 0.02
    exact = direct(x.double(), weight.double(), 2)
    error = (correlate(x, weight, 2) - exact).abs().max()
    assert error < 3 * (direct(x, weight, 2) - exact).abs().max()


def test_the_positional_embedding_takes_either_form_with_the_same_result() -> None:
    torch.manual_seed(0)
    module, x = ConvPositionalEmbedding(16, 64, 4), torch.randn(2, 50, 16)
    torch.nn.init.normal_(module.pos_conv[0].bias)
    assert module.wide
    y = module(x)
    module.wide = False
    torch.testing.assert_close(y, module(x), rtol=1e-5, atol=1e-6)
