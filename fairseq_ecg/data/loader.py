"""Batches of one rank, gathered ahead of the update by threads, in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from types import TracebackType
from typing import Any, Protocol, Self

from torch import Tensor

from fairseq_ecg.contracts import Batch, Keys
from fairseq_ecg.data.sampler import BatchSampler, shard


class Gatherer(Protocol):
    """What the loader asks of a dataset."""

    def gather(self, keys: Keys, batch_index: int = 0, weight: float = 1.0) -> Batch: ...


class Loader:
    """Iterate over the micro-batches g = first_batch + rank, + world_size, ... of one epoch.

    Every rank yields equally many. Where an epoch's number of micro-batches is no multiple of the ranks, the
    last ranks end with a stand-in: the rows of the epoch's first micro-batch under a number of their own and
    with weight 0. Threads only copy memory, so the result does not depend on their number.

    Args:
        dataset: gathers one batch per call; called from several threads at once.
        sampler: the epoch's batches, the same on every rank.
        epoch: from 1.
        rank, world_size: which part of the epoch this is.
        first_batch: global number of the first micro-batch, after a resume.
        num_workers: threads; 0 gathers in the calling thread.
        buffer_size: batches kept ready ahead of the consumer.
        pin_memory: put batches into page-locked memory, from which a GPU copies while the host goes on.
    """

    def __init__(
        self,
        dataset: Gatherer,
        sampler: BatchSampler,
        *,
        epoch: int,
        rank: int = 0,
        world_size: int = 1,
        first_batch: int = 0,
        num_workers: int = 0,
        buffer_size: int = 10,
        pin_memory: bool = False,
    ) -> None:
        self._dataset = dataset
        self._batches = sampler.epoch(epoch)
        self._numbers = shard(len(self._batches), rank, world_size, first_batch)
        self._buffer_size = max(1, buffer_size)
        self._pin_memory = pin_memory
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="gather") if num_workers else None
        self._pending: deque[Future[Batch]] = deque()
        self._next = 0
        self.wait_seconds = 0.0
        """How long the consumer has waited for batches."""

    def __len__(self) -> int:
        """Micro-batches of this rank, stand-ins included."""
        return len(self._numbers)

    @property
    def num_batches(self) -> int:
        """Micro-batches of the whole epoch on all ranks."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            DataError: what the gathering of this batch raised.
        """
        start = time.perf_counter()
        try:
            if self._pool is None:
                if self._next >= len(self._numbers):
                    raise StopIteration
                self._next += 1
                return self._gather(self._numbers[self._next - 1])
            self._submit()
            if not self._pending:
                raise StopIteration
            batch = self._pending.popleft().result()
            self._submit()
            return batch
        except BaseException:
            self.close()
            raise
        finally:
            self.wait_seconds += time.perf_counter() - start

    def close(self) -> None:
        """End the threads; batches not yet asked for are dropped. May be called twice."""
        self._next = len(self._numbers)
        self._pending.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self) -> None:
        assert self._pool is not None
        while len(self._pending) < self._buffer_size and self._next < len(self._numbers):
            self._pending.append(self._pool.submit(self._gather, self._numbers[self._next]))
            self._next += 1

    def _gather(self, number: int) -> Batch:
        exists = number < len(self._batches)
        keys = self._batches[number if exists else 0]
        batch = self._dataset.gather(keys, batch_index=number, weight=1.0 if exists else 0.0)
        return pinned(batch) if self._pin_memory else batch


def pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory."""
    values = {item.name: getattr(batch, item.name) for item in fields(batch)}
    moved: dict[str, Any] = {
        name: value.pin_memory() for name, value in values.items() if isinstance(value, Tensor)
    }
    moved["draws"] = tuple(draw.pin_memory() for draw in batch.draws)
    return replace(batch, **moved)
