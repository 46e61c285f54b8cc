"""Seeded batches: which samples meet in which micro-batch of which epoch, the same on every rank."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import Keys
from fairseq_ecg.data.uniform import Uniform
from fairseq_ecg.errors import ConfigError

Batches = list[NDArray[np.int64]]


class BatchSampler:
    """The global list of micro-batches of every epoch.

    By default the composition of the batches is drawn anew in every epoch: in-batch negatives change, and a
    sample meets other samples each time. Units of like length come together when lengths differ.

    Args:
        units: epoch -> (units, views) rows of the manifest (see ``pairing``).
        num_samples: (rows,) length of every row of the manifest.
        batch_size: units per batch; None: no limit but ``max_tokens``.
        seed: of the order.
        shuffle: False: manifest order, the same in every epoch.
        max_tokens: limit of units in a batch times its longest length.
        required_batch_size_multiple: batches of at least this many units are cut to a multiple of it.
        reference_order: fairseq-signals' order: batches are formed once and only their order changes.
        curriculum: in the first epochs, up to this one, batches keep their order.
        max_sample_size: longer units count with this length.
        enable_padding: with it, ``max_tokens`` counts full lengths, since nothing is cropped.
    """

    def __init__(
        self,
        units: Callable[[int], NDArray[np.int64]],
        num_samples: NDArray[np.int64],
        *,
        batch_size: int | None,
        seed: int,
        shuffle: bool = True,
        max_tokens: int | None = None,
        required_batch_size_multiple: int = 1,
        reference_order: bool = False,
        curriculum: int = 0,
        max_sample_size: int | None = None,
        enable_padding: bool = False,
    ) -> None:
        if batch_size is None and max_tokens is None:
            raise ConfigError(
                "dataset.batch_size and dataset.max_tokens are both null; "
                "give one of them, e.g. dataset.batch_size=64"
            )
        self._units = units
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._max_tokens = max_tokens
        self._multiple = required_batch_size_multiple
        self._reference_order = reference_order
        self._curriculum = curriculum
        self._max_sample_size = max_sample_size
        self._enable_padding = enable_padding

    def epoch(self, epoch: int) -> list[Keys]:
        """Keys of every global micro-batch of an epoch (counted from 1), in order.

        A pair's two rows follow each other as views 0 and 1.
        """
        units = self._units(epoch)
        views = np.arange(units.shape[1], dtype=np.int64)
        return [
            Keys(epoch, units[batch].reshape(-1), np.tile(views, len(batch)))
            for batch in self.unit_batches(epoch, units)
        ]

    def unit_batches(self, epoch: int, units: NDArray[np.int64]) -> Batches:
        """The same as numbers of units."""
        lengths = self._num_samples[units].max(axis=1) if len(units) else np.zeros(0, dtype=np.int64)
        capped = lengths if self._max_sample_size is None else np.minimum(lengths, self._max_sample_size)
        batches = group(
            self._order(epoch, capped),
            lengths if self._enable_padding else capped,
            batch_size=self._batch_size,
            max_tokens=self._max_tokens,
            multiple=self._multiple,
        )
        if not self._shuffle or self._curriculum >= epoch:
            return batches
        if self._reference_order:
            place = reference_epoch_order(len(batches), self._seed, epoch)
        else:
            place = Uniform(self._seed, "sampler/batches").order(epoch, len(batches))
        return [batches[i] for i in place.tolist()]

    def _order(self, epoch: int, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self._shuffle:
            return np.arange(len(lengths), dtype=np.int64)
        if self._reference_order:
            return reference_order(lengths, self._seed)
        order = Uniform(self._seed, "sampler/units").order(epoch, len(lengths))
        return order[np.argsort(-lengths[order], kind="stable")]


def reference_order(lengths: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """fairseq-signals' order of samples: longest first, equal lengths by descending legacy permutation."""
    rank = np.random.RandomState(seed).permutation(len(lengths))
    return np.lexsort((rank, lengths))[::-1].astype(np.int64)


def reference_epoch_order(num_batches: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """fairseq-signals' order of the frozen batches in an epoch (from 1)."""
    place = np.arange(num_batches, dtype=np.int64)
    np.random.RandomState(seed + epoch).shuffle(place)
    return place


def shard(num_batches: int, rank: int, world_size: int, first_batch: int = 0) -> range:
    """Global numbers of the micro-batches of one rank: every ``world_size``-th from ``first_batch`` on.

    Every rank gets equally many; numbers from ``num_batches`` on stand for batches that do not exist.
    """
    per_rank = -(-max(num_batches - first_batch, 0) // world_size)
    return range(first_batch + rank, first_batch + rank + per_rank * world_size, world_size)


def group(
    order: NDArray[np.int64],
    lengths: NDArray[np.int64],
    *,
    batch_size: int | None,
    max_tokens: int | None,
    multiple: int,
) -> Batches:
    """Fill batches greedily in the given order.

    A batch holds at most ``batch_size`` samples, and their number times the longest length is at most
    ``max_tokens``. A full batch of ``multiple`` or more samples is cut to a multiple of it; the rest opens
    the next batch, or is a batch of its own where the next sample does not fit to it.

    Raises:
        ConfigError: one sample alone is longer than ``max_tokens``.
    """
    if max_tokens is not None and len(order) and lengths[order].max() > max_tokens:
        raise ConfigError(
            f"dataset.max_tokens={max_tokens} is less than the longest segment ({lengths[order].max()} "
            "samples); raise it, or limit the segments with task.max_sample_size"
        )
    if len(order) and lengths[order].min() == lengths[order].max():
        return _group_equal(order, int(lengths[order[0]]), batch_size, max_tokens, multiple)
    batches: Batches = []
    start = longest = 0
    sizes = lengths[order].tolist()
    for i, size in enumerate(sizes):
        if _fits(i - start + 1, max(longest, size), batch_size, max_tokens):
            longest = max(longest, size)
            continue
        cut = start + _legal(i - start, multiple)
        batches.append(order[start:cut])
        start = cut
        longest = max(sizes[start : i + 1])
        if start < i and not _fits(i - start + 1, longest, batch_size, max_tokens):
            batches.append(order[start:i])
            start, longest = i, size
    while start < len(order):
        cut = start + _legal(len(order) - start, multiple)
        batches.append(order[start:cut])
        start = cut
    return batches


def _group_equal(
    order: NDArray[np.int64], length: int, batch_size: int | None, max_tokens: int | None, multiple: int
) -> Batches:
    limits = [len(order)]
    if batch_size is not None:
        limits.append(batch_size)
    if max_tokens is not None:
        limits.append(max_tokens // length if length else len(order))
    size = _legal(max(1, min(limits)), multiple)
    whole = len(order) // size * size
    rest = len(order) - whole
    cut = whole + _legal(rest, multiple)
    return [order[i : i + size] for i in range(0, whole, size)] + [
        part for part in (order[whole:cut], order[cut:]) if len(part)
    ]


def _fits(count: int, longest: int, batch_size: int | None, max_tokens: int | None) -> bool:
    return (batch_size is None or count <= batch_size) and (
        max_tokens is None or count * longest <= max_tokens
    )


def _legal(count: int, multiple: int) -> int:
    """The largest number up to ``count`` that is below ``multiple`` or a multiple of it."""
    return count if count < multiple else count // multiple * multiple
