"""Which validation was the best, and when to give up waiting for a better one. Part of every checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fairseq_ecg.config import CheckpointConfig
from fairseq_ecg.errors import ConfigError, nearest


class Selection:
    """Follows ``checkpoint.best_checkpoint_metric``, any value a validation logs."""

    def __init__(self, cfg: CheckpointConfig) -> None:
        self.cfg = cfg
        self.best = -math.inf if cfg.maximize_best_checkpoint_metric else math.inf
        self.stale = 0
        """Validations since the last strict improvement."""

    def see(self, values: Mapping[str, float]) -> bool:
        """Take note of a validation; True when none was better before it.

        Raises:
            ConfigError: the metric is not among the logged ones.
        """
        self.check(values)
        value = values[self.cfg.best_checkpoint_metric]
        sign = 1.0 if self.cfg.maximize_best_checkpoint_metric else -1.0
        strictly = sign * value > sign * self.best
        improved = strictly or value == self.best
        self.stale = 0 if strictly else self.stale + 1
        if improved:
            self.best = value
        return improved

    def check(self, values: Mapping[str, float]) -> None:
        """Refuse a metric that is not among the logged ones.

        Raises:
            ConfigError: with the logged ones.
        """
        name = self.cfg.best_checkpoint_metric
        if name not in values:
            raise ConfigError(
                f"checkpoint.best_checkpoint_metric={name} is not logged here; {nearest(name, values)} "
                f"(all: {', '.join(sorted(values))})"
            )

    @property
    def exhausted(self) -> str:
        """Why early stopping ends the run; empty while it does not."""
        if self.cfg.patience <= 0 or self.stale < self.cfg.patience:
            return ""
        metric = self.cfg.best_checkpoint_metric
        return f"{metric} has not improved for checkpoint.patience={self.stale} validations"

    def state_dict(self) -> dict[str, Any]:
        return {
            "metric": self.cfg.best_checkpoint_metric,
            "best": self.best if math.isfinite(self.best) else None,
            "stale": self.stale,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore, unless the run now selects by another metric."""
        if state["metric"] == self.cfg.best_checkpoint_metric and state["best"] is not None:
            self.best, self.stale = float(state["best"]), int(state["stale"])
