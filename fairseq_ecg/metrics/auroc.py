"""Areas under the ROC and precision-recall curves, with ties grouped, per class, macro and micro.

The definitions are those of the PhysioNet/CinC Challenge evaluators: a class without a positive or without a
negative record has no AUROC, a class without a positive one no AUPRC (NaN), and macro averages skip them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairseq_ecg.errors import DataError
from fairseq_ecg.metrics.rows import RowMetric
from fairseq_ecg.registry import register_metric


@dataclass(frozen=True)
class Areas:
    """Both areas of every class; NaN where one is undefined.

    Shape:
        auroc, auprc: (K,), float64.
    """

    auroc: NDArray[np.float64]
    auprc: NDArray[np.float64]


def class_areas(scores: ArrayLike, target: ArrayLike) -> tuple[float, float]:
    """AUROC and AUPRC of one class; scores are compared exactly, so infinities are legal.

    Shape:
        scores: (N,), any real type.
        target: (N,), true where the class is present.

    Raises:
        DataError: a score is NaN.
    """
    values, positive = np.asarray(scores), np.asarray(target, dtype=bool)
    if np.isnan(values).any():
        raise DataError("AUROC of NaN scores is undefined; look for the non-finite model output first")
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if num_positive == 0:
        return np.nan, np.nan
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    # One point per distinct score: everything at least as large is positive.
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    true_positive = np.cumsum(positive[order])[ends]  # (G,)
    false_positive = ends + 1 - true_positive
    tpr = np.concatenate(([0.0], true_positive / num_positive))
    auprc = float(np.sum(np.diff(tpr) * true_positive / (ends + 1)))
    if num_negative == 0:
        return np.nan, auprc
    tnr = np.concatenate(([1.0], 1.0 - false_positive / num_negative))
    auroc = float(np.sum(0.5 * np.diff(tpr) * (tnr[1:] + tnr[:-1])))
    return auroc, auprc


def areas(scores: ArrayLike, target: ArrayLike) -> Areas:
    """Both areas of every class.

    Shape:
        scores: (N, K).
        target: (N, K), 0 or 1, NaN where the record has no label for the class: such pairs are left out.
    """
    values, labels = _matrices(scores, target)
    pairs = np.full((2, values.shape[1]), np.nan)
    for column in range(values.shape[1]):
        known = ~np.isnan(labels[:, column])
        pairs[:, column] = class_areas(values[known, column], labels[known, column] > 0.5)
    return Areas(auroc=pairs[0], auprc=pairs[1])


def micro_areas(scores: ArrayLike, target: ArrayLike) -> tuple[float, float]:
    """AUROC and AUPRC of all (record, class) pairs pooled, unlabelled pairs left out."""
    values, labels = _matrices(scores, target)
    known = ~np.isnan(labels)
    return class_areas(values[known], labels[known] > 0.5)


def nanmean(values: NDArray[np.float64]) -> float:
    """Mean of the finite entries, NaN when there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _matrices(scores: ArrayLike, target: ArrayLike) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
    values, labels = np.asarray(scores), np.asarray(target, dtype=np.float64)
    if values.ndim != 2 or values.shape != labels.shape:
        raise DataError(f"scores {values.shape} and labels {labels.shape} must both be (records, classes)")
    return values, labels


@register_metric("auroc")
class Auroc(RowMetric):
    """Area under the ROC curve: the mean over classes with both outcomes, and all pairs pooled."""

    def compute(self) -> dict[str, float]:
        scores, target = self.rows()
        return {
            "auroc_macro": nanmean(areas(scores, target).auroc),
            "auroc_micro": micro_areas(scores, target)[0],
        }


@register_metric("auprc")
class Auprc(RowMetric):
    """Average precision (area under the precision-recall steps): mean over classes, and all pairs pooled."""

    def compute(self) -> dict[str, float]:
        scores, target = self.rows()
        return {
            "auprc_macro": nanmean(areas(scores, target).auprc),
            "auprc_micro": micro_areas(scores, target)[1],
        }
