"""Bootstrap over patients: percentile intervals and paired differences of classification metrics.

Patients are drawn with replacement and bring all their records (a record-wise bootstrap would call repeated
records of one patient independent). A resample is a weight per record, so that a metric of 1,000 resamples is
one weighted computation instead of 1,000 sorts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairseq_ecg.errors import DataError
from fairseq_ecg.metrics.cinc import challenge_score

_BLOCK_BYTES = 1 << 20
"""Size of the block of weights a class is summed over: small enough to stay in the cache."""


def resample_patients(
    patients: Sequence[str] | NDArray[np.generic], num_resamples: int, seed: int
) -> NDArray[np.int32]:
    """How often each resample contains each record.

    The draw depends on the seed and the set of patients alone, not on the order of the records.

    Shape:
        patients: (N,), any ids.
        returns: (R, N), int32.

    Raises:
        DataError: there is no record.
    """
    if len(patients) == 0:
        raise DataError("no record to resample")
    names, patient_of_record = np.unique(np.asarray(patients), return_inverse=True)
    generator = np.random.default_rng(seed)
    counts = np.empty((num_resamples, len(names)), dtype=np.int32)
    for row in counts:
        row[:] = np.bincount(generator.integers(0, len(names), size=len(names)), minlength=len(names))
    return counts[:, patient_of_record]


@dataclass(frozen=True)
class ResampledAreas:
    """Areas of every resample; NaN where a class lacks an outcome in it.

    Shape:
        auroc, auprc: (R, K), float64.
    """

    auroc: NDArray[np.float64]
    auprc: NDArray[np.float64]


def resampled_areas(scores: ArrayLike, target: ArrayLike, weights: NDArray[np.int32]) -> ResampledAreas:
    """AUROC and AUPRC per class of every resample.

    Shape:
        scores: (N, K).
        target: (N, K), 0 or 1, NaN where the record has no label for the class.
        weights: (R, N), from ``resample_patients``.
    """
    values, labels = np.asarray(scores), np.asarray(target, dtype=np.float64)
    records = np.arange(len(values))
    classes = [_Ranking.of(values[:, k], labels[:, k], records) for k in range(values.shape[1])]
    return _weighted_areas(classes, weights)


def resampled_micro_areas(scores: ArrayLike, target: ArrayLike, weights: NDArray[np.int32]) -> ResampledAreas:
    """AUROC and AUPRC of all (record, class) pairs pooled, (R, 1); shapes as in ``resampled_areas``."""
    values, labels = np.asarray(scores), np.asarray(target, dtype=np.float64)
    records = np.repeat(np.arange(len(values)), values.shape[1])
    return _weighted_areas([_Ranking.of(values.ravel(), labels.ravel(), records)], weights)


def resampled_challenge_score(
    record_sums: NDArray[np.float64], weights: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Challenge score of every resample, (R,), from what each record adds to its three sums, (N, 3)."""
    return challenge_score(weights.astype(np.float64) @ record_sums)


@dataclass(frozen=True)
class _Ranking:
    """One class in descending order of its score, cut where the score of a positive record begins or ends.

    Only scores that a positive record has matter: between two of them negative records are summed.

    Shape:
        positive, negative: records in descending order of score.
        positive_cuts: (G,), first positive record of each of the G distinct positive scores.
        negative_cuts: (2G,), for each of them, negative records above it and at or above it.
    """

    positive: NDArray[np.intp]
    negative: NDArray[np.intp]
    positive_cuts: NDArray[np.intp]
    negative_cuts: NDArray[np.intp]

    @classmethod
    def of(
        cls, scores: NDArray[np.generic], target: NDArray[np.float64], records: NDArray[np.intp]
    ) -> _Ranking:
        if np.isnan(scores).any():
            raise DataError("AUROC of NaN scores is undefined; look for the non-finite model output first")
        falling = -scores.astype(np.float64)
        order = np.argsort(falling, kind="stable")
        order = order[~np.isnan(target[order])]
        is_positive = target[order] > 0.5
        positive, negative = order[is_positive], order[~is_positive]
        levels, positive_cuts = np.unique(falling[positive], return_index=True)
        bounds = [np.searchsorted(falling[negative], levels, side=side) for side in ("left", "right")]
        return cls(records[positive], records[negative], positive_cuts, np.stack(bounds, axis=1).ravel())


def _weighted_areas(classes: Sequence[_Ranking], weights: NDArray[np.int32]) -> ResampledAreas:
    auroc = np.full((len(weights), len(classes)), np.nan)
    auprc = np.full_like(auroc, np.nan)
    longest = max((max(len(item.positive), len(item.negative)) for item in classes), default=1)
    for block in _blocks(len(weights), longest):
        by_record = np.ascontiguousarray(weights[block].T)  # (N, r): a record's weights side by side
        for k, ranking in enumerate(classes):
            auroc[block, k], auprc[block, k] = _block_areas(ranking, by_record)
    return ResampledAreas(auroc, auprc)


def _blocks(num_resamples: int, num_records: int) -> Iterator[slice]:
    size = max(16, _BLOCK_BYTES // (4 * max(num_records, 1)))
    for start in range(0, num_resamples, size):
        yield slice(start, min(start + size, num_resamples))


def _block_areas(
    ranking: _Ranking, by_record: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUROC and AUPRC of one class in a block of resamples; counts are exact until the division."""
    undefined = np.full(by_record.shape[1], np.nan)
    if len(ranking.positive) == 0:
        return undefined, undefined
    hits = np.add.reduceat(by_record[ranking.positive], ranking.positive_cuts, axis=0).astype(
        np.float64
    )  # (G, r)
    below = _sums_up_to(by_record, ranking.negative, ranking.negative_cuts)  # (2G, r)
    above, at_or_above = below[0::2], below[1::2]
    num_negative = by_record[ranking.negative].sum(axis=0, dtype=np.float64)
    true_positive = np.cumsum(hits, axis=0)
    num_positive = true_positive[-1]
    some_positive, both = num_positive > 0, (num_positive > 0) & (num_negative > 0)
    # A positive record wins against every negative one below it and half against those at its score.
    wins = (hits * (num_negative - 0.5 * (above + at_or_above))).sum(axis=0)
    auroc = np.divide(wins, num_positive * num_negative, out=undefined.copy(), where=both)
    answered = true_positive + at_or_above
    precision = np.divide(true_positive, answered, out=np.zeros_like(answered), where=answered > 0)
    auprc = np.divide((hits * precision).sum(axis=0), num_positive, out=undefined.copy(), where=some_positive)
    return auroc, auprc


def _sums_up_to(
    by_record: NDArray[np.int32], records: NDArray[np.intp], cuts: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Sum of the first ``cut`` records' weights for every cut, (len(cuts), r); cuts never fall."""
    # reduceat gives the element itself for an empty piece, so only the distinct, inner cuts are summed.
    inner = np.unique(np.append(0, cuts[cuts < len(records)]))
    totals = np.zeros((len(inner) + 1, by_record.shape[1]), dtype=np.float64)
    if len(records):
        np.cumsum(np.add.reduceat(by_record[records], inner, axis=0), axis=0, out=totals[1:])
    return totals[np.searchsorted(np.append(inner, len(records)), cuts)]


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval over resamples."""

    value: float
    low: float
    high: float


def percentile_interval(value: float, resampled: NDArray[np.float64], level: float = 0.95) -> Interval:
    """Interval that holds the middle ``level`` of the resamples; undefined resamples are left out."""
    finite = resampled[np.isfinite(resampled)]
    if not finite.size:
        return Interval(value, float("nan"), float("nan"))
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(finite, [tail, 100.0 - tail])
    return Interval(value, float(low), float(high))


@dataclass(frozen=True)
class Difference:
    """A difference of two systems on the same records, and its two-sided p-value."""

    interval: Interval
    p_value: float


def paired_difference(
    value: float, first: NDArray[np.float64], second: NDArray[np.float64], level: float = 0.95
) -> Difference:
    """Compare two systems resample by resample.

    The p-value is two-sided: twice the smaller share of resamples on either side of zero, one resample being
    counted as if it had fallen on both sides, so that it is never zero.

    Args:
        value: the difference on the records themselves.
        first: (R,) metric of the first system.
        second: (R,) metric of the second system in the same resamples.
        level: width of the interval.
    """
    differences = first - second
    differences = differences[np.isfinite(differences)]
    if not differences.size:
        return Difference(Interval(value, float("nan"), float("nan")), float("nan"))
    smaller = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p_value = min(1.0, 2.0 * (smaller + 1) / (len(differences) + 1))
    return Difference(percentile_interval(value, differences, level), p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979) for several comparisons; NaN stays NaN and is not counted."""
    adjusted = [float("nan")] * len(p_values)
    order = sorted((p, index) for index, p in enumerate(p_values) if not np.isnan(p))
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[index] = largest
    return adjusted
