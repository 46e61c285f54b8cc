"""When a run ends: limits of updates, epochs and rate, and signals."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from fairseq_ecg.config import OptimizationConfig
from fairseq_ecg.trainer.progress import Progress


def limit_reached(cfg: OptimizationConfig, progress: Progress, rate: float) -> str:
    """Which limit of ``optimization`` is reached; empty while none is."""
    if 0 < cfg.max_update <= progress.num_updates:
        return f"optimization.max_update={cfg.max_update}"
    if 0 < cfg.max_epoch < progress.epoch:
        return f"optimization.max_epoch={cfg.max_epoch}"
    if rate <= cfg.stop_min_lr:
        return f"the learning rate {rate:g} is at optimization.stop_min_lr={cfg.stop_min_lr:g}"
    return ""


class SignalWatch:
    """Notes SIGTERM and SIGUSR1 (what batch systems send before they kill) instead of dying of them."""

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.received: int = 0
        self.previous: dict[int, Any] = {}

    @property
    def name(self) -> str:
        return signal.Signals(self.received).name if self.received else "on another rank"

    def __enter__(self) -> Self:
        # Python delivers signals to the main thread only; a run inside a thread leaves them to its host.
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
