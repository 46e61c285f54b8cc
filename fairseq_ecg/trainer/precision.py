"""Number formats of an update: fp32, bf16 autocast, fp16 autocast with dynamic loss scaling.

Parameters, gradients and optimizer state stay float32; only the forward pass runs in the lower precision.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from fairseq_ecg.config import CommonConfig
from fairseq_ecg.errors import ConfigError


@dataclass
class LossScaler:
    """fairseq's dynamic loss scale: doubles after a window without overflow, halves when overflows persist.

    Raises:
        FloatingPointError: from ``update`` when the scale would fall to ``min_loss_scale``.
    """

    scale: float = 128.0
    scale_window: int = 2000
    tolerance: float = 0.0
    """Share of overflows since the last change of scale below which one more does not halve it."""
    threshold: float | None = None
    """The scale never goes below this."""
    min_loss_scale: float = 1e-4
    num_iterations: int = 0
    last_overflow: int = -1
    last_rescale: int = -1
    num_overflows: int = 0

    def update(self, grad_norm: float) -> bool:
        """Take note of an update's gradient norm; True when the update must be skipped."""
        overflow = not math.isfinite(grad_norm)
        if overflow:
            self._overflow()
        elif (self.num_iterations - self.last_overflow) % self.scale_window == 0:
            self.scale *= 2.0
            self.last_rescale = self.num_iterations
        self.num_iterations += 1
        return overflow

    def _overflow(self) -> None:
        before = self.scale
        since_rescale = self.num_iterations - self.last_rescale
        self.last_overflow = self.num_iterations
        self.num_overflows += 1
        if self.num_overflows / since_rescale >= self.tolerance:
            self.scale = self.scale / 2.0 if self.threshold is None else max(self.scale / 2.0, self.threshold)
            self.last_rescale = self.num_iterations
            self.num_overflows = 0
        if self.scale <= self.min_loss_scale:
            self.scale = before
            raise FloatingPointError(
                f"the loss scale reached common.min_loss_scale={self.min_loss_scale}: gradients keep "
                "overflowing in fp16; use common.bf16=true, a lower optimization.lr or a larger batch"
            )

    def state_dict(self) -> dict[str, float]:
        return {
            "scale": self.scale,
            "num_iterations": self.num_iterations,
            "last_overflow": self.last_overflow,
            "last_rescale": self.last_rescale,
            "num_overflows": self.num_overflows,
        }

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale = float(state["scale"])
        self.num_iterations = int(state["num_iterations"])
        self.last_overflow = int(state["last_overflow"])
        self.last_rescale = int(state["last_rescale"])
        self.num_overflows = int(state["num_overflows"])


class Precision:
    """Autocast and loss scaling of one run, with nothing to decide in the update itself."""

    def __init__(
        self, cfg: CommonConfig, *, device: torch.device, world_size: int, update_freq: list[int]
    ) -> None:
        self.device = device
        self.dtype = torch.float16 if cfg.fp16 or cfg.amp else torch.bfloat16 if cfg.bf16 else None
        self.scaler: LossScaler | None = None
        if self.dtype is torch.float16:
            window = cfg.fp16_scale_window
            if window is None and len(set(update_freq)) > 1:
                raise ConfigError(
                    f"common.fp16_scale_window is needed when optimization.update_freq={update_freq} changes"
                )
            self.scaler = LossScaler(
                scale=float(cfg.fp16_init_scale),
                scale_window=window or max(1, int(2**14 / world_size / update_freq[0])),
                tolerance=cfg.fp16_scale_tolerance,
                threshold=cfg.threshold_loss_scale,
                min_loss_scale=cfg.min_loss_scale,
            )

    @property
    def name(self) -> str:
        return {None: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[self.dtype]

    @property
    def loss_scale(self) -> float:
        return self.scaler.scale if self.scaler else 1.0

    def autocast(self) -> AbstractContextManager[object]:
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def skip_flag(self, grad_norm: Tensor) -> tuple[Tensor, bool]:
        """Whether this update must be skipped, as a device flag, and as far as the host knows it now.

        Only fp16 reads the norm: its next loss scale depends on it. In fp32 and bf16 the flag stays on the
        device.
        """
        flag = (~torch.isfinite(grad_norm)).to(torch.float32)
        if self.scaler is None:
            return flag, False
        return flag, self.scaler.update(float(grad_norm))

    def state_dict(self) -> dict[str, float]:
        return self.scaler.state_dict() if self.scaler else {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        if self.scaler and state:
            self.scaler.load_state_dict(state)
