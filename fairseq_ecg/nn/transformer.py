"""The transformer of the ECG encoder family: post-norm (default) or pre-norm layers, LayerDrop, saliency."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_ecg.nn.attention import SelfAttention
from fairseq_ecg.nn.dropout import dropout


class TransformerLayer(nn.Module):
    """Self-attention and a feed-forward network, each with a residual and a layer norm."""

    def __init__(
        self,
        embed_dim: int,
        ffn_dim: int,
        num_heads: int,
        *,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float,
        norm_first: bool,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.activation_dropout = activation_dropout
        self.norm_first = norm_first
        self.self_attn = SelfAttention(embed_dim, num_heads, attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(embed_dim)
        self.fc1 = nn.Linear(embed_dim, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, embed_dim)
        self.final_layer_norm = nn.LayerNorm(embed_dim)

    def forward(
        self, x: Tensor, attend: Tensor | None = None, need_probs: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        if self.norm_first:
            mixed, probs = self.self_attn(self.self_attn_layer_norm(x), attend, need_probs)
            x = x + self._drop(mixed)
            return x + self._drop(self._ffn(self.final_layer_norm(x))), probs
        mixed, probs = self.self_attn(x, attend, need_probs)
        x = self.self_attn_layer_norm(x + self._drop(mixed))
        return self.final_layer_norm(x + self._drop(self._ffn(x))), probs

    def _ffn(self, x: Tensor) -> Tensor:
        # The kernel evaluates erf in float32 for every input type, as the reference does by casting.
        hidden = dropout(F.gelu(self.fc1(x)), self.activation_dropout, self.training)
        projected: Tensor = self.fc2(hidden)
        return projected

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)


class TransformerEncoder(nn.Module):
    """A stack of layers with one more layer norm: before them (post-norm) or after them (pre-norm).

    LayerDrop keeps each layer with probability ``1 - layerdrop``. The draw comes from the generator of the
    input's device and both outcomes are computed and selected: shapes and graph stay the same, nothing waits
    for the device, and every parameter takes part in every backward pass (with a zero gradient when dropped),
    which DistributedDataParallel relies on. It regularises; it does not save time.

    Shape:
        x: (B, F, C). padding_mask: (B, F), bool, True = padding.
        returns: (B, F, C), and attention probabilities (B, layers, F, F) when asked for.
    """

    def __init__(
        self, layers: list[TransformerLayer], embed_dim: int, *, dropout: float, layerdrop: float
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.layerdrop = layerdrop
        self.norm_first = layers[0].norm_first
        self.layers = nn.ModuleList(layers)
        self.layer_norm = nn.LayerNorm(embed_dim)
        self.apply(_init_linear)

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, need_probs: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        attend = None
        if padding_mask is not None:
            x = x.masked_fill(padding_mask[..., None], 0.0)
            # A row of padding alone attends to everything: a softmax over nothing would be NaN.
            attend = (~padding_mask | padding_mask.all(dim=1, keepdim=True))[:, None, None, :]
        if not self.norm_first:
            x = self.layer_norm(x)
        x = dropout(x, self.dropout, self.training)
        collected = []
        for layer in self.layers:
            y, probs = layer(x, attend, need_probs)
            if self.training and self.layerdrop > 0.0:
                y = torch.where(torch.rand((), device=x.device) > self.layerdrop, y, x)
            x = y
            if probs is not None:
                collected.append(probs)
        if self.norm_first:
            x = self.layer_norm(x)
        return x, torch.stack(collected, dim=1) if collected else None


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
