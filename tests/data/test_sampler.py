from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fairseq_ecg.data.sampler import BatchSampler, group, shard
from fairseq_ecg.errors import ConfigError


def sampler(lengths: NDArray[np.int64], views: int = 1, **options: object) -> BatchSampler:
    units = np.arange(len(lengths), dtype=np.int64).reshape(-1, views)
    defaults: dict[str, object] = {"batch_size": 4, "seed": 1}
    return BatchSampler(lambda epoch: units, lengths, **{**defaults, **options})  # type: ignore[arg-type]


def equal(count: int, length: int = 2500) -> NDArray[np.int64]:
    return np.full(count, length, dtype=np.int64)


def slow_group(
    order: list[int], lengths: list[int], batch_size: int | None, max_tokens: int | None, multiple: int
) -> list[list[int]]:
    """The rule, one sample at a time, on plain lists."""

    def fits(batch: list[int]) -> bool:
        longest = max(lengths[i] for i in batch)
        return (batch_size is None or len(batch) <= batch_size) and (
            max_tokens is None or len(batch) * longest <= max_tokens
        )

    def legal(count: int) -> bool:
        return count < multiple or count % multiple == 0

    def cut(batch: list[int]) -> int:
        return max(count for count in range(1, len(batch) + 1) if legal(count))

    batches: list[list[int]] = []
    batch: list[int] = []
    for i in order:
        if fits([*batch, i]):
            batch.append(i)
            continue
        at = cut(batch)
        batches.append(batch[:at])
        batch = batch[at:]
        if batch and not fits([*batch, i]):
            batches.append(batch)
            batch = []
        batch = [*batch, i]
    while batch:
        at = cut(batch)
        batches.append(batch[:at])
        batch = batch[at:]
    return batches


@pytest.mark.parametrize(
    ("count", "batch_size", "max_tokens", "multiple", "sizes"),
    [
        (14, 10, None, 8, [8, 6]),
        (42, 16, None, 8, [16, 16, 8, 2]),
        (18, 16, None, 8, [16, 2]),
        (21, 4, None, 8, [4, 4, 4, 4, 4, 1]),
        (100, 12, None, 8, [8] * 12 + [4]),
        (20, 20, None, 8, [16, 4]),
        (300, 256, None, 8, [256, 40, 4]),
        (37, 16, None, 1, [16, 16, 5]),
        (37, 64, None, 8, [32, 5]),
        (30, None, 25000, 8, [8, 8, 8, 6]),
        (30, None, 25000, 1, [10, 10, 10]),
        (10, None, 10000, 8, [4, 4, 2]),
    ],
)
def test_batch_sizes_are_the_ones_measured_in_fairseq_signals(
    count: int, batch_size: int | None, max_tokens: int | None, multiple: int, sizes: list[int]
) -> None:
    limits = {"batch_size": batch_size, "max_tokens": max_tokens, "multiple": multiple}
    assert [len(part) for part in group(np.arange(count), equal(count), **limits)] == sizes  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(30))
def test_grouping_is_the_rule_written_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 60))
    lengths = rng.choice([1000, 2500, 5000] if seed % 3 else [2500], count)
    batch_size = None if seed % 4 == 0 else int(rng.integers(1, 20))
    max_tokens = int(rng.integers(5000, 60000)) if batch_size is None or seed % 2 else None
    multiple = int(rng.choice([1, 2, 8]))
    order = rng.permutation(count)
    got = group(order, lengths, batch_size=batch_size, max_tokens=max_tokens, multiple=multiple)
    expected = slow_group(order.tolist(), lengths.tolist(), batch_size, max_tokens, multiple)
    assert [part.tolist() for part in got] == expected


def test_a_sample_longer_than_max_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"max_tokens=2000 is less than the longest segment \(2500"):
        sampler(equal(3), batch_size=None, max_tokens=2000).epoch(1)


def test_neither_batch_size_nor_max_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="both null"):
        sampler(equal(3), batch_size=None)


def flat(batches: list[NDArray[np.int64]]) -> list[int]:
    return [int(i) for batch in batches for i in batch]


def index(of: BatchSampler, epoch: int) -> list[NDArray[np.int64]]:
    return [keys.index for keys in of.epoch(epoch)]


def test_every_sample_comes_once_per_epoch_and_the_company_changes() -> None:
    one = sampler(equal(40))
    first, second = index(one, 1), index(one, 2)
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(40))
    assert {frozenset(batch.tolist()) for batch in first} != {frozenset(batch.tolist()) for batch in second}
    again = index(sampler(equal(40)), 1)
    assert flat(again) == flat(first)
    assert flat(index(sampler(equal(40), seed=2), 1)) != flat(first)


def test_in_reference_order_the_company_stays_and_the_order_changes() -> None:
    one = sampler(equal(40), reference_order=True)
    first, second = index(one, 1), index(one, 2)
    assert {frozenset(batch.tolist()) for batch in first} == {frozenset(batch.tolist()) for batch in second}
    assert flat(first) != flat(second)


@pytest.mark.parametrize("reference_order", [False, True])
def test_samples_of_like_length_come_together(reference_order: bool) -> None:
    lengths = np.array([1000, 5000] * 20, dtype=np.int64)
    for batch in index(sampler(lengths, reference_order=reference_order), 1):
        assert len(set(lengths[batch].tolist())) == 1


def test_without_shuffling_the_manifest_s_order_stays() -> None:
    one = sampler(np.array([1000, 5000, 1000, 5000, 1000], dtype=np.int64), shuffle=False, batch_size=2)
    for epoch in (1, 2):
        assert [batch.tolist() for batch in index(one, epoch)] == [[0, 1], [2, 3], [4]]


def test_batches_keep_their_order_during_the_curriculum() -> None:
    one = sampler(np.arange(100, 140, dtype=np.int64), curriculum=2, reference_order=True)
    frozen = index(sampler(np.arange(100, 140, dtype=np.int64), curriculum=9, reference_order=True), 1)
    assert flat(index(one, 2)) == flat(frozen)
    assert flat(index(one, 3)) != flat(frozen)


def test_a_pair_s_segments_follow_each_other_as_views_0_and_1() -> None:
    one = sampler(equal(20), views=2, batch_size=3)
    for keys in one.epoch(1):
        assert keys.view.tolist() == [0, 1] * (len(keys) // 2)
        assert (keys.index[1::2] == keys.index[::2] + 1).all()
    assert [len(keys) for keys in one.epoch(1)].count(6) == 3


def test_units_are_asked_for_anew_every_epoch() -> None:
    asked: list[int] = []

    def units(epoch: int) -> NDArray[np.int64]:
        asked.append(epoch)
        return np.array([[0], [1]])

    one = BatchSampler(units, equal(2), batch_size=1, seed=0)
    one.epoch(1)
    one.epoch(2)
    assert asked == [1, 2]


def slow_shard(num_batches: int, rank: int, world_size: int, first: int) -> list[int]:
    numbers = list(range(first, num_batches))
    while len(numbers) % world_size:
        numbers.append(first + len(numbers))
    return [g for g in numbers if (g - first) % world_size == rank]


def test_shards_deal_the_batches_out_in_turn() -> None:
    for num_batches in (0, 1, 5, 6):
        for world_size in (1, 2, 3):
            for first in (0, 2, 7):
                got = [list(shard(num_batches, rank, world_size, first)) for rank in range(world_size)]
                assert len({len(part) for part in got}) == 1
                if first < num_batches:
                    assert got == [
                        slow_shard(num_batches, rank, world_size, first) for rank in range(world_size)
                    ]
                else:
                    assert got == [[]] * world_size
