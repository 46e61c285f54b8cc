"""Self-attention over frames: the fused kernel, and an explicit form when probabilities are needed."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_ecg.errors import ConfigError
from fairseq_ecg.nn.dropout import dropout


class SelfAttention(nn.Module):
    """Multi-head self-attention with a bias in each of its four projections.

    Shape:
        x: (B, F, C).
        attend: (B, 1, 1, F), bool, True = the key may be attended to; None attends to all.
        returns: (B, F, C), and the probabilities averaged over heads (B, F, F) when asked for.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ConfigError(
                f"encoder_embed_dim={embed_dim} is not a multiple of encoder_attention_heads={num_heads}"
            )
        self.num_heads = num_heads
        self.dropout = dropout
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self, x: Tensor, attend: Tensor | None = None, need_probs: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        q, k, v = (self._heads(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        drop = self.dropout if self.training else 0.0
        probs = None
        # The CPU's fused kernel has no dropout: PyTorch would fall back to a slower explicit form.
        if need_probs or (drop > 0.0 and x.device.type == "cpu"):
            mixed, weights = attend_explicitly(q, k, v, attend, drop)
            probs = weights.mean(dim=1) if need_probs else None
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attend, dropout_p=drop)
        mixed = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return mixed, probs

    def _heads(self, x: Tensor) -> Tensor:
        # Contiguous: products of strided heads take a third longer than the copy and the product.
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2).contiguous()  # (B, H, F, C/H)


def attend_explicitly(
    q: Tensor, k: Tensor, v: Tensor, attend: Tensor | None, drop: float
) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / sqrt(d)) v, and the probabilities before dropout.

    Shape:
        q, k, v: (B, H, F, D). attend: broadcasts to (B, H, F, F), True = may be attended to.
        returns: (B, H, F, D) and (B, H, F, F).
    """
    # Scaling q touches F * D numbers, scaling the scores would touch F * F.
    scores = (q * (1.0 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1)
    if attend is not None:
        scores = scores.masked_fill(~attend, -torch.inf)
    probs = scores.softmax(dim=-1).to(v.dtype)
    return dropout(probs, drop, training=drop > 0.0) @ v, probs
