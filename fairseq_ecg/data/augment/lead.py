"""Augmentations that act on whole leads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fairseq_ecg.contracts import Keys
from fairseq_ecg.data.uniform import Uniform
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.registry import register_augmentation


@dataclass(kw_only=True)
class RandomLeadMaskConfig:
    p: float = 0.5
    """Probability of masking each lead."""
    prob: float = 1.0
    """Probability that a sample is masked at all."""

    def __post_init__(self) -> None:
        for name in ("p", "prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"random_lead_mask({name}={getattr(self, name)}): a probability lies in 0 to 1"
                )


@register_augmentation("random_lead_mask", config=RandomLeadMaskConfig)
class RandomLeadMask:
    """Zero each lead with probability ``p`` (RLM; Oh et al. 2022, arXiv 2203.06889)."""

    def __init__(self, cfg: RandomLeadMaskConfig) -> None:
        self.cfg = cfg

    def draw(self, uniform: Uniform, keys: Keys, num_leads: int, num_samples: int) -> Tensor:
        """(B, L) bool, True = keep. All leads of a sample may be masked, as in the paper's code."""
        numbers = uniform(keys, num_leads + 1)
        keep = (numbers[:, 1:] >= self.cfg.p) | (numbers[:, :1] >= self.cfg.prob)
        return torch.from_numpy(keep)

    def lead_gain(self, draw: Tensor) -> Tensor:
        """(B, L): what ``apply`` multiplies every lead with."""
        return draw.float()

    def apply(self, source: Tensor, draw: Tensor) -> Tensor:
        """(B, L, T) -> (B, L, T) with the masked leads zero."""
        return source * draw[..., None]
