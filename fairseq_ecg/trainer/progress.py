"""How far a run has come: the counters an exact resume starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass
class Progress:
    num_updates: int = 0
    """Updates attempted; skipped ones count."""
    epoch: int = 1
    batches_done: int = 0
    """Global micro-batches of this epoch that were trained on (not merely loaded)."""
    segments: int = 0
    schedule_start: int = 0
    """Update at which the learning-rate schedule began (``checkpoint.reset_lr_scheduler``)."""
    train_seconds: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for item in fields(self):
            setattr(self, item.name, type(getattr(self, item.name))(state[item.name]))
