from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from fairseq_ecg.data.pairing import PAIRINGS, segment_pairs, single
from fairseq_ecg.errors import DataError


@dataclass
class Rows:
    record: NDArray[np.int64]
    segment: NDArray[np.int64]
    pairs: NDArray[np.int64] | None = None


def rows(*records: int) -> Rows:
    """A manifest with this many segments per record, in shuffled order."""
    both = [(record, segment) for record, count in enumerate(records) for segment in range(count)]
    order = np.random.default_rng(0).permutation(len(both))
    return Rows(
        np.array([both[i][0] for i in order], dtype=np.int64),
        np.array([both[i][1] for i in order], dtype=np.int64),
    )


def slow_pairs(manifest: Rows) -> dict[int, list[tuple[int, int]]]:
    """record -> the segment numbers of its pairs, for even counts."""
    result: dict[int, list[tuple[int, int]]] = {}
    for record in sorted(set(manifest.record.tolist())):
        segments = sorted(manifest.segment[manifest.record == record].tolist())
        result[record] = [
            (segments[i], segments[i + 1]) for i in range(0, len(segments) - len(segments) % 2, 2)
        ]
    return result


def found_pairs(manifest: Rows, epoch: int = 1, seed: int = 0) -> dict[int, list[tuple[int, int]]]:
    result: dict[int, list[tuple[int, int]]] = {record: [] for record in set(manifest.record.tolist())}
    for first, second in segment_pairs(manifest, epoch, seed).tolist():
        assert manifest.record[first] == manifest.record[second]
        result[int(manifest.record[first])].append(
            (int(manifest.segment[first]), int(manifest.segment[second]))
        )
    return {record: sorted(pairs) for record, pairs in result.items()}


def test_single_names_every_row_once() -> None:
    assert single(rows(2, 3), 1, 0).tolist() == [[0], [1], [2], [3], [4]]
    assert set(PAIRINGS) >= {"single", "segment_pairs"}


def test_even_records_are_paired_in_order_whatever_the_epoch() -> None:
    manifest = rows(2, 4, 0, 6, 2)
    for epoch in range(3):
        assert found_pairs(manifest, epoch) == slow_pairs(manifest)


def test_an_odd_record_leaves_its_first_or_last_segment_over_by_a_draw() -> None:
    manifest = rows(*[3, 5] * 30, 1)
    seen: set[tuple[tuple[int, int], ...]] = set()
    for epoch in range(4):
        pairs = found_pairs(manifest, epoch)
        assert pairs[60] == []
        seen |= {tuple(value) for record, value in pairs.items() if record < 60}
    assert seen == {
        ((0, 1),),
        ((1, 2),),
        ((0, 1), (2, 3)),
        ((1, 2), (3, 4)),
    }
    assert found_pairs(manifest, 1) != found_pairs(manifest, 2)
    assert found_pairs(manifest, 1, seed=0) != found_pairs(manifest, 1, seed=1)
    assert found_pairs(manifest, 1) == found_pairs(manifest, 1)


def test_pairs_that_the_manifest_names_are_taken_as_they_are() -> None:
    manifest = rows(2, 2)
    manifest.pairs = np.array([[3, 0]])
    assert segment_pairs(manifest, 1, 0).tolist() == [[3, 0]]


def test_a_manifest_without_any_pair_is_refused() -> None:
    with pytest.raises(DataError, match="no record of the manifest has two segments"):
        segment_pairs(rows(1, 1, 1), 1, 0)
