"""Iterative stratification: splits in which every label has its share (Sechidis et al. 2011)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stratified_folds(
    labels: Sequence[Sequence[int]], num_classes: int, ratios: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """Fold of every sample; -1 for samples without label.

    Again and again the rarest label is taken, and its samples go where that label is needed most, else where
    samples are; what is left to chance is drawn. The order and the draws are those of ecg-selfsupervised:
    samples with most occurrences of the label first, then the last ones; ties by NumPy's legacy generator.

    Args:
        labels: classes of every sample; a class may occur several times (a patient with several records).
        num_classes: classes are below it.
        ratios: share of every fold; a fold with 0 gets nothing.
        seed: of the draws.
    """
    occurrences = [Counter(classes) for classes in labels]
    holders: list[set[int]] = [set() for _ in range(num_classes)]
    remaining = np.zeros(num_classes, dtype=np.int64)
    for sample, counts in enumerate(occurrences):
        for label, count in counts.items():
            holders[label].add(sample)
            remaining[label] += count
    share = np.asarray(ratios, dtype=np.float64)
    need = share * remaining[:, None]  # (K, folds)
    total = share * len(labels)
    usable = np.flatnonzero(share > 0)
    draw = np.random.RandomState(seed)
    fold = np.full(len(labels), -1, dtype=np.int64)
    while remaining.any():
        label = int(np.argmin(np.where(remaining > 0, remaining, np.iinfo(np.int64).max)))
        members = sorted(
            holders[label], key=lambda sample: (occurrences[sample][label], sample), reverse=True
        )
        for sample in members:
            best = usable[need[label, usable] == need[label, usable].max()]
            best = best[total[best] == total[best].max()]
            chosen = int(best[0] if len(best) == 1 else best[draw.randint(0, len(best))])
            fold[sample] = chosen
            total[chosen] -= 1
            for other, count in occurrences[sample].items():
                need[other, chosen] -= count
                remaining[other] -= count
                holders[other].discard(sample)
    return fold
