"""Random numbers that are functions of what they are for: a vectorised counter hash.

A draw depends on (seed, operation, epoch, index, view, position) and on nothing else, so it is the same on
any rank, in any worker, in any batch, after any resume and on any machine. The mixing function is
SplitMix64's (Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import Keys

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15
_M1, _M2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix(value: int) -> int:
    """SplitMix64's finaliser on one 64-bit number."""
    value = (value ^ value >> 30) * _M1 & _MASK
    value = (value ^ value >> 27) * _M2 & _MASK
    return value ^ value >> 31


def mix_array(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """``mix`` of every element; works in place and returns its argument."""
    value ^= value >> np.uint64(30)
    value *= np.uint64(_M1)
    value ^= value >> np.uint64(27)
    value *= np.uint64(_M2)
    value ^= value >> np.uint64(31)
    return value


def text_key(text: str) -> int:
    """A 64-bit number for a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


class Uniform:
    """Uniform numbers in [0, 1) for one operation under one seed."""

    def __init__(self, seed: int, operation: str) -> None:
        self._key = mix(mix(seed & _MASK) + text_key(operation) & _MASK)

    def __call__(self, keys: Keys, count: int) -> NDArray[np.float64]:
        """(B, count) float64: row b is a function of its own key alone."""
        stream = self._streams(keys.epoch, keys.index, keys.view)
        steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GAMMA)
        value = mix_array(stream[:, None] + steps)  # (B, count)
        value >>= np.uint64(11)
        return value.astype(np.float64) * 2.0**-53

    def order(self, epoch: int, count: int) -> NDArray[np.int64]:
        """A permutation of ``count`` things, another one in every epoch."""
        index = np.arange(count, dtype=np.int64)
        return np.argsort(self._streams(epoch, index, np.zeros_like(index)), kind="stable")

    def _streams(self, epoch: int, index: NDArray[np.int64], view: NDArray[np.int64]) -> NDArray[np.uint64]:
        start = mix(self._key + epoch * _GAMMA & _MASK)
        value = mix_array((index.astype(np.uint64) + np.uint64(1)) * np.uint64(_GAMMA) + np.uint64(start))
        value += (view.astype(np.uint64) + np.uint64(1)) * np.uint64(_M2)
        return mix_array(value)
