"""Learning-rate schedules as pure functions of (number of updates, epoch), so that resuming needs no state.

Rates and names are fairseq-signals' (``fixed``, ``tri_stage``, ``step``). ``num_updates`` counts finished
updates, so ``rate(0, 1)`` is the rate of the first update; epochs count from 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from fairseq_ecg.errors import ConfigError
from fairseq_ecg.registry import register_lr_scheduler


class Schedule(Protocol):
    def rate(self, num_updates: int, epoch: int) -> float: ...


@dataclass(kw_only=True)
class FixedScheduleConfig:
    force_anneal: int | None = None
    """Epoch from which the rate shrinks every epoch."""
    lr_shrink: float = 0.1
    warmup_updates: int = 0
    """Updates over which the rate grows linearly to its first value."""


@register_lr_scheduler("fixed", config=FixedScheduleConfig)
class FixedSchedule:
    """One rate per epoch from ``optimization.lr``, linear warm-up, optional shrinking from an epoch on."""

    def __init__(self, cfg: FixedScheduleConfig, *, lr: list[float], max_update: int) -> None:
        self.cfg, self.lr = cfg, lr

    def rate(self, num_updates: int, epoch: int) -> float:
        if self.cfg.force_anneal is None or epoch < self.cfg.force_anneal:
            rate = self.lr[min(epoch, len(self.lr)) - 1]
        else:
            rate = self.lr[-1] * self.cfg.lr_shrink ** (epoch + 1 - self.cfg.force_anneal)
        if num_updates < self.cfg.warmup_updates:
            rate *= (num_updates + 1) / self.cfg.warmup_updates
        return rate


@dataclass(kw_only=True)
class TriStageScheduleConfig:
    warmup_steps: int = 0
    hold_steps: int = 0
    decay_steps: int = 0
    phase_ratio: list[float] | None = None
    """Shares of ``optimization.max_update`` for warm-up, hold and decay; replaces the three counts."""
    init_lr_scale: float = 0.01
    final_lr_scale: float = 0.01

    def __post_init__(self) -> None:
        if self.phase_ratio is not None and (
            len(self.phase_ratio) != 3 or not math.isclose(sum(self.phase_ratio), 1.0, abs_tol=1e-6)
        ):
            raise ConfigError(
                f"lr_scheduler.phase_ratio={self.phase_ratio}: three shares that sum to 1, e.g. [0.1,0.2,0.7]"
            )


@register_lr_scheduler("tri_stage", config=TriStageScheduleConfig)
class TriStageSchedule:
    """Linear warm-up, constant, exponential decay (Baevski et al. 2020, arXiv 2006.11477, section 4.2)."""

    def __init__(self, cfg: TriStageScheduleConfig, *, lr: list[float], max_update: int) -> None:
        if len(lr) != 1:
            raise ConfigError(f"lr_scheduler=tri_stage needs exactly one rate, not optimization.lr={lr}")
        self.peak = lr[0]
        self.initial = cfg.init_lr_scale * self.peak
        self.final_scale = cfg.final_lr_scale
        if cfg.phase_ratio is None:
            self.warmup, self.hold, self.decay = cfg.warmup_steps, cfg.hold_steps, cfg.decay_steps
        elif max_update <= 0:
            raise ConfigError(
                "lr_scheduler.phase_ratio needs optimization.max_update; set it or give the steps"
            )
        else:
            self.warmup, self.hold, self.decay = (int(max_update * ratio) for ratio in cfg.phase_ratio)

    def rate(self, num_updates: int, epoch: int) -> float:
        if num_updates < self.warmup:
            return self.initial + (self.peak - self.initial) / self.warmup * num_updates
        since_decay = num_updates - self.warmup - self.hold
        if since_decay < 0:
            return self.peak
        if since_decay <= self.decay:
            share = since_decay / self.decay if self.decay else 0.0
            return float(self.peak * self.final_scale**share)
        return self.final_scale * self.peak


@dataclass(kw_only=True)
class StepScheduleConfig:
    warmup_updates: int = 0
    warmup_init_lr: float = -1.0
    """Rate of the first update; negative: ``min_lr``."""
    min_lr: float = 0.0
    lr_decay_period: int = 25000
    """Updates between two decays."""
    lr_decay: float = 0.5

    def __post_init__(self) -> None:
        if self.lr_decay_period < 1:
            raise ConfigError(f"lr_scheduler.lr_decay_period={self.lr_decay_period}: must be at least 1")


@register_lr_scheduler("step", config=StepScheduleConfig)
class StepSchedule:
    """Linear warm-up, then times ``lr_decay`` every ``lr_decay_period`` updates, down to ``min_lr``."""

    def __init__(self, cfg: StepScheduleConfig, *, lr: list[float], max_update: int) -> None:
        if len(lr) != 1:
            raise ConfigError(f"lr_scheduler=step needs exactly one rate, not optimization.lr={lr}")
        self.cfg, self.lr = cfg, lr[0]
        self.start = cfg.warmup_init_lr if cfg.warmup_init_lr >= 0 else cfg.min_lr

    def rate(self, num_updates: int, epoch: int) -> float:
        if num_updates < self.cfg.warmup_updates:
            return self.start + (self.lr - self.start) / self.cfg.warmup_updates * num_updates
        periods = (num_updates - self.cfg.warmup_updates) // self.cfg.lr_decay_period
        return max(self.lr * self.cfg.lr_decay**periods, self.cfg.min_lr)
