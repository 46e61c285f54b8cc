"""An augmentation is a small draw per sample and a batched application on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fairseq_ecg.contracts import Keys
from fairseq_ecg.data.uniform import Uniform
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.registry import register_augmentation


@dataclass(kw_only=True)
class RandomLeadGainConfig:
    low: float = 0.8
    """Smallest factor."""
    high: float = 1.25
    """Largest factor."""

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ConfigError(
                f"random_lead_gain(low={self.low}, high={self.high}): factors are positive, low first"
            )


@register_augmentation("random_lead_gain", config=RandomLeadGainConfig)
class RandomLeadGain:
    """Scale each lead by a factor of its own, as electrodes and amplifiers do."""

    def __init__(self, cfg: RandomLeadGainConfig) -> None:
        self.cfg = cfg

    def draw(self, uniform: Uniform, keys: Keys, num_leads: int, num_samples: int) -> Tensor:
        """(B, L) float32 factors. ``uniform`` is a hash of (seed, epoch, sample, view), no global RNG."""
        numbers = uniform(keys, num_leads)
        return torch.from_numpy(self.cfg.low + (self.cfg.high - self.cfg.low) * numbers).float()

    def apply(self, source: Tensor, draw: Tensor) -> Tensor:
        """(B, L, T) -> (B, L, T); the input stays as it is."""
        return source * draw[..., None]
