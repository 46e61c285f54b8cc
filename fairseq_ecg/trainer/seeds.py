"""The seed of a micro-batch: a function of (seed, epoch, global batch index) and of nothing else.

Dropout, time masks, negatives and Gumbel noise are drawn from torch's generators, which are seeded anew
before every micro-batch: they are the same on whichever rank it runs and after any resume.
"""

from __future__ import annotations

import torch

from fairseq_ecg.data.uniform import mix, text_key

MASK = (1 << 64) - 1


def derive_seed(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit seed for one purpose, independent of those for others."""
    state = mix(seed & MASK) ^ text_key(purpose)
    for number in numbers:
        state = mix((state + number + 1) & MASK)
    return state >> 1


def seed_batch(seed: int, epoch: int, batch_index: int) -> None:
    """Seed the generators of the CPU and of every GPU for one micro-batch."""
    torch.manual_seed(derive_seed(seed, "batch", epoch, batch_index))
