"""Means over time that leave padding out."""

from __future__ import annotations

from torch import Tensor


def masked_mean(frames: Tensor, padding_mask: Tensor | None = None) -> Tensor:
    """Mean over the frames that are not padding; a row of padding alone gives zeros.

    The reference divides by the number of non-zero values, which is the same unless a feature is exactly zero
    (as every value that a dropout before the pooling removed is: its mean then grows with the dropout).

    Shape:
        frames: (B, F, C).
        padding_mask: (B, F), bool, True = padding.
        returns: (B, C).
    """
    if padding_mask is None:
        return frames.mean(dim=1)
    total = frames.masked_fill(padding_mask[..., None], 0.0).sum(dim=1)
    count = (~padding_mask).sum(dim=1, keepdim=True).clamp(min=1)
    return total / count.to(total.dtype)
