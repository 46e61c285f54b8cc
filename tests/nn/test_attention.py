from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fairseq_ecg.errors import ConfigError
from fairseq_ecg.nn.attention import SelfAttention, attend_explicitly


def slow_attention(module: SelfAttention, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """One row, one head, one query at a time."""
    q, k, v = module.q_proj(x), module.k_proj(x), module.v_proj(x)
    width = x.shape[-1] // module.num_heads
    mixed, probs = torch.zeros_like(x), torch.zeros(x.shape[0], x.shape[1], x.shape[1])
    for b in range(x.shape[0]):
        keys = [f for f in range(x.shape[1]) if valid is None or valid[b, f]]
        for h in range(module.num_heads):
            part = slice(h * width, (h + 1) * width)
            for f in range(x.shape[1]):
                scores = torch.stack([q[b, f, part] @ k[b, g, part] for g in keys]) / width**0.5
                weights = scores.softmax(0)
                mixed[b, f, part] = sum(w * v[b, g, part] for w, g in zip(weights, keys, strict=True))
                probs[b, f, keys] += weights / module.num_heads
    return module.out_proj(mixed), probs


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("need_probs", [False, True])
def test_attention_is_the_equation(padded: bool, need_probs: bool) -> None:
    torch.manual_seed(0)
    module = SelfAttention(8, 2, dropout=0.0).eval()
    x = torch.randn(2, 5, 8)
    valid = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool) if padded else None
    attend = None if valid is None else valid[:, None, None, :]
    y, probs = module(x, attend, need_probs)
    expected, weights = slow_attention(module, x, valid)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    if need_probs:
        torch.testing.assert_close(probs, weights, rtol=1e-5, atol=1e-6)
    else:
        assert probs is None


def test_dropout_acts_on_the_probabilities() -> None:
    """With keys that are equal and values that are one, the output counts the kept probabilities."""
    torch.manual_seed(0)
    q, k, v = torch.zeros(1, 1, 2000, 4), torch.zeros(1, 1, 50, 4), torch.ones(1, 1, 50, 1)
    y, probs = attend_explicitly(q, k, v, None, 0.2)
    assert torch.equal(probs, torch.full_like(probs, 1 / 50))
    assert y.mean().item() == pytest.approx(1.0, abs=0.01)
    assert y.std().item() == pytest.approx((0.2 / 0.8 / 50) ** 0.5, rel=0.1)


def test_training_without_dropout_equals_evaluation() -> None:
    torch.manual_seed(0)
    module, x = SelfAttention(8, 2, dropout=0.0), torch.randn(2, 5, 8)
    assert torch.equal(module.train()(x)[0], module.eval()(x)[0])


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="encoder_attention_heads=3"):
        SelfAttention(8, 3, dropout=0.0)
