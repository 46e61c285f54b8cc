from __future__ import annotations

import pytest
import torch

from fairseq_ecg.nn.dropout import Dropout, drop_level, dropout, dropout_factor


def test_the_share_of_zeros_is_the_documented_probability() -> None:
    torch.manual_seed(0)
    n = 4_000_001  # not a multiple of four
    for p in (0.1, 0.5, 0.9):
        exact = drop_level(p) / 65536
        y = dropout(torch.ones(n), p, training=True)
        share = (y == 0).float().mean().item()
        assert share == pytest.approx(exact, abs=5 * (exact * (1 - exact) / n) ** 0.5)
        assert y[y != 0].unique().tolist() == pytest.approx([1 / (1 - exact)])
        assert exact == pytest.approx(p, abs=1 / 131072)


def test_neighbouring_elements_are_independent() -> None:
    """Four elements share a word of the generator; none of its parts may predict another."""
    torch.manual_seed(0)
    kept = (dropout_factor(torch.empty(1_000_000), drop_level(0.3)) > 0).float().view(-1, 4)
    correlation = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlation.abs().max() < 5 / 250_000**0.5


def test_the_gradient_is_the_mask_times_the_scale() -> None:
    torch.manual_seed(0)
    x = torch.randn(100, 7, requires_grad=True)
    y = dropout(x, 0.4, training=True)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(y == 0, 0.0, y.detach() / x.detach()), rtol=1e-6, atol=0)


def test_draws_follow_the_seed_and_differ_from_call_to_call() -> None:
    x = torch.ones(1000)
    torch.manual_seed(5)
    first, second = dropout(x, 0.5, training=True), dropout(x, 0.5, training=True)
    torch.manual_seed(5)
    assert torch.equal(first, dropout(x, 0.5, training=True))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_type_is_kept(dtype: torch.dtype) -> None:
    assert dropout(torch.ones(10, dtype=dtype), 0.1, training=True).dtype == dtype


def test_nothing_happens_outside_training() -> None:
    module, x = Dropout(0.5).eval(), torch.ones(50)
    assert module(x) is x
    assert Dropout(0.0)(x) is x
