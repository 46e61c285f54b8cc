from __future__ import annotations

import hashlib

import numpy as np
import pytest

from fairseq_ecg.contracts import Keys
from fairseq_ecg.data.uniform import Uniform

MASK = 2**64 - 1
FROZEN = [0.514963, 0.000988]


def slow_mix(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def slow_uniform(seed: int, operation: str, epoch: int, index: int, view: int, position: int) -> float:
    """One number, in Python's integers."""
    gamma = 0x9E3779B97F4A7C15
    name = int.from_bytes(hashlib.blake2b(operation.encode(), digest_size=8).digest(), "little")
    key = slow_mix((slow_mix(seed & MASK) + name) & MASK)
    start = slow_mix((key + epoch * gamma) & MASK)
    stream = slow_mix(((index + 1) * gamma + start) & MASK)
    stream = slow_mix((stream + (view + 1) * 0x94D049BB133111EB) & MASK)
    return (slow_mix((stream + (position + 1) * gamma) & MASK) >> 11) / 2**53


def keys(count: int, epoch: int = 1, first: int = 0) -> Keys:
    index = np.arange(first, first + count, dtype=np.int64)
    return Keys(epoch, index, np.zeros_like(index))


@pytest.mark.parametrize("seed", [0, 1, -3, 2**63 + 5])
def test_the_vectorised_hash_is_the_scalar_one(seed: int) -> None:
    some = Keys(9, np.array([0, 5, 2**40]), np.array([0, 1, 1]))
    got = Uniform(seed, "operation")(some, 3)
    expected = [
        [slow_uniform(seed, "operation", 9, index, view, position) for position in range(3)]
        for index, view in zip(some.index.tolist(), some.view.tolist(), strict=True)
    ]
    assert got.tolist() == expected


def test_the_numbers_are_the_same_on_every_machine() -> None:
    # Frozen: a change would change every run's draws.
    got = Uniform(1, "augment/0/random_lead_mask")(keys(1), 2)[0].tolist()
    assert got == [slow_uniform(1, "augment/0/random_lead_mask", 1, 0, 0, i) for i in range(2)]
    assert [round(value, 6) for value in got] == FROZEN


def test_a_row_depends_on_its_own_key_alone() -> None:
    uniform = Uniform(3, "x")
    whole = uniform(keys(50), 4)
    for place in (0, 17, 49):
        np.testing.assert_array_equal(uniform(keys(1, first=place), 4)[0], whole[place])
    np.testing.assert_array_equal(uniform(keys(50), 2), whole[:, :2])


def test_another_seed_operation_epoch_view_or_index_gives_other_numbers() -> None:
    base = keys(100)
    draws = [
        Uniform(1, "x")(base, 1),
        Uniform(2, "x")(base, 1),
        Uniform(1, "y")(base, 1),
        Uniform(1, "x")(keys(100, epoch=2), 1),
        Uniform(1, "x")(Keys(1, base.index, base.view + 1), 1),
        Uniform(1, "x")(keys(100, first=100), 1),
    ]
    assert len(np.unique(np.concatenate(draws))) == 600


def test_the_numbers_are_uniform_and_uncorrelated() -> None:
    draws = Uniform(0, "x")(keys(20000), 8)
    assert draws.min() >= 0
    assert draws.max() < 1
    count, _ = np.histogram(draws, bins=64, range=(0, 1))
    expected = draws.size / 64
    chi2 = float(((count - expected) ** 2 / expected).sum())
    assert 63 - 5 * 126**0.5 < chi2 < 63 + 5 * 126**0.5  # mean 63, variance 126: five deviations
    bound = 5 / 20000**0.5
    correlation = np.corrcoef(draws.T) - np.eye(8)
    assert np.abs(correlation).max() < bound
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < bound  # neighbouring indices
    for bit in range(1, 12):  # every leading bit is one half of the time
        share = (np.floor(draws * 2**bit) % 2).mean()
        assert abs(share - 0.5) < 5 * 0.5 / draws.size**0.5


def test_an_order_is_a_permutation_that_changes_with_the_epoch() -> None:
    uniform = Uniform(5, "x")
    first, second = uniform.order(1, 1000), uniform.order(2, 1000)
    assert sorted(first.tolist()) == list(range(1000))
    assert not np.array_equal(first, second)
    assert abs(np.corrcoef(np.arange(1000), first)[0, 1]) < 5 / 1000**0.5
