"""Overlapping chunks of records, as ecg-selfsupervised validates and tests on them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def chunk_table(
    lengths: Iterable[int], *, chunk_length: int, min_chunk_length: int, stride: int
) -> NDArray[np.int64]:
    """Record, start and end of every chunk: (N, 3) int64.

    Chunks of ``chunk_length`` samples start every ``stride`` samples; those at the end of a record are
    shorter. From the first one on that is shorter than ``min_chunk_length`` all are left out. With
    ``chunk_length`` 0 a record is one chunk.
    """
    rows: list[NDArray[np.int64]] = [np.empty((0, 3), np.int64)]
    for record, length in enumerate(lengths):
        starts = np.arange(0, length, stride) if chunk_length else np.zeros(1, np.int64)
        ends = np.minimum(starts + chunk_length, length) if chunk_length else np.array([length])
        is_short = ends - starts < min_chunk_length
        count = int(is_short.argmax()) if is_short.any() else len(starts)
        rows.append(np.stack((np.full(count, record), starts[:count], ends[:count]), axis=1))
    return np.concatenate(rows)
