"""Counting measures of multi-label classification.

F-measure, accuracy and the F- and G-beta measures are those of the PhysioNet/CinC Challenge evaluators:
undefined classes are NaN and skipped by the macro average. ``multilabel`` is what fairseq-signals logs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fairseq_ecg.errors import ConfigError
from fairseq_ecg.metrics.auroc import nanmean
from fairseq_ecg.metrics.rows import logits_and_target
from fairseq_ecg.registry import register_metric


def exact_match(labels: ArrayLike, outputs: ArrayLike) -> float:
    """Share of records whose whole label vector is right; NaN without records."""
    right = (np.asarray(labels, dtype=bool) == np.asarray(outputs, dtype=bool)).all(axis=1)
    return float(right.mean()) if right.size else float("nan")


def f_measure_classes(labels: ArrayLike, outputs: ArrayLike) -> NDArray[np.float64]:
    """2TP / (2TP + FP + FN) of every class; NaN for a class neither labelled nor predicted.

    Shape:
        labels, outputs: (N, K), bool.
        returns: (K,), float64.
    """
    true, said = np.asarray(labels, dtype=bool), np.asarray(outputs, dtype=bool)
    twice_hits = 2.0 * (true & said).sum(axis=0)
    return _ratio(twice_hits, twice_hits + (true != said).sum(axis=0))


def beta_measures(labels: ArrayLike, outputs: ArrayLike, beta: float = 2.0) -> tuple[float, float]:
    """Macro F-beta and G-beta of the 2020 Challenge: a record weighs one over its number of labels.

    Shape:
        labels, outputs: (N, K), bool.
    """
    true, said = np.asarray(labels, dtype=bool), np.asarray(outputs, dtype=bool)
    weight = 1.0 / np.maximum(true.sum(axis=1, keepdims=True), 1)  # (N, 1)
    hits = (weight * (true & said)).sum(axis=0)  # (K,)
    false_alarms = (weight * (~true & said)).sum(axis=0)
    misses = (weight * (true & ~said)).sum(axis=0)
    square = beta**2
    f_beta = _ratio((1 + square) * hits, (1 + square) * hits + false_alarms + square * misses)
    g_beta = _ratio(hits, hits + false_alarms + beta * misses)
    return nanmean(f_beta), nanmean(g_beta)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return result


@dataclass(kw_only=True)
class MultilabelConfig:
    threshold: float = 0.5
    """A class is predicted when its probability is larger than this."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ConfigError(f"threshold={self.threshold}: a probability between 0 and 1")


@register_metric("multilabel", config=MultilabelConfig)
class Multilabel:
    """Accuracy per label, exact matches, and precision, recall and F1 over all pairs pooled.

    State: one row of float64 sums: pairs, right pairs, records, exact records, hits, false alarms, misses.
    """

    def __init__(self, cfg: MultilabelConfig) -> None:
        self.cfg = cfg
        self._sums: Tensor | None = None

    def check_labels(self, codes: Sequence[Collection[str]]) -> None:
        """Any set of labels can be counted."""

    def update(self, outputs: Mapping[str, Tensor]) -> None:
        logits, target = logits_and_target(outputs)
        known = ~target.isnan()
        true, said = target > 0.5, logits.sigmoid() > self.cfg.threshold
        right = (true == said) & known
        sums = torch.stack(
            [
                known.sum(),
                right.sum(),
                known.any(dim=1).sum(),
                (known.any(dim=1) & (right == known).all(dim=1)).sum(),
                (true & said & known).sum(),
                (~true & said & known).sum(),
                (true & ~said & known).sum(),
            ]
        ).double()
        self._sums = sums if self._sums is None else self._sums + sums

    def state(self) -> dict[str, Tensor]:
        sums = torch.zeros(7, dtype=torch.float64) if self._sums is None else self._sums.cpu()
        return {"sums": sums[None]}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._sums = state["sums"].sum(dim=0)

    def reset(self) -> None:
        self._sums = None

    def compute(self) -> dict[str, float]:
        """Undefined ratios (no record, nothing predicted, nothing labelled) are NaN."""
        pairs, right, records, exact, hits, false_alarms, misses = self.state()["sums"][0].numpy()
        parts = np.array([right, exact, hits, hits, 2 * hits])
        wholes = np.array(
            [pairs, records, hits + false_alarms, hits + misses, 2 * hits + false_alarms + misses]
        )
        names = ("accuracy", "em_accuracy", "precision", "recall", "f1")
        return dict(zip(names, _ratio(parts, wholes).tolist(), strict=True))
