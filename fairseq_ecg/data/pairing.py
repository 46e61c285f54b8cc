"""Which segments make one unit of a batch: a policy of the sampler, not rows of the manifest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.uniform import Uniform
from fairseq_ecg.errors import DataError


class Segments(Protocol):
    """What pairing reads of a manifest."""

    @property
    def record(self) -> NDArray[np.int64]: ...
    @property
    def segment(self) -> NDArray[np.int64]: ...
    @property
    def pairs(self) -> NDArray[np.int64] | None: ...


Pairing = Callable[[Segments, int, int], NDArray[np.int64]]
"""(manifest, epoch, seed) -> (units, views) rows of the manifest."""


def single(manifest: Segments, epoch: int, seed: int) -> NDArray[np.int64]:
    """Every segment is a unit: (N, 1)."""
    return np.arange(len(manifest.record), dtype=np.int64)[:, None]


def segment_pairs(manifest: Segments, epoch: int, seed: int) -> NDArray[np.int64]:
    """Two consecutive segments of a record are a unit: (P, 2), the earlier one first (CMSC; Kiyasseh 2021,
    arXiv 2005.13249).

    Segments are paired in their order, none twice. A record with an odd number of them leaves one over: the
    last, or the first, by a draw of the epoch. Pairs that a manifest names itself are taken as they are.

    Raises:
        DataError: no record has two segments.
    """
    if manifest.pairs is not None:
        return manifest.pairs
    order = np.lexsort((manifest.segment, manifest.record))
    record = manifest.record[order]
    first = np.flatnonzero(np.diff(record, prepend=-1) != 0)
    count = np.diff(first, append=len(record))
    rank = np.arange(len(record)) - np.repeat(first, count)
    skipped = np.zeros(len(first), dtype=np.int64)
    odd = count % 2 == 1
    if np.any(odd & (count > 1)):
        shuffled = Uniform(seed, "pairing/leftover").order(epoch, len(first))
        skipped[odd] = shuffled[odd] % 2
    rank -= np.repeat(skipped, count)
    opens = (rank >= 0) & (rank % 2 == 0) & (rank + 1 < np.repeat(count - skipped, count))
    place = np.flatnonzero(opens)
    if not len(place):
        raise DataError(
            "no record of the manifest has two segments, so there are no segment pairs; make the manifest "
            "with shorter segments (fairseq-ecg manifest split ... --segment-sec)"
        )
    return np.stack((order[place], order[place + 1]), axis=1).astype(np.int64)


PAIRINGS: dict[str, Pairing] = {"single": single, "segment_pairs": segment_pairs}
"""By the batch layout a criterion asks for."""
