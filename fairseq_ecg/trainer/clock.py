"""Time and batches of an epoch: what the log's rates are made of, and the grouping into updates."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from fairseq_ecg.contracts import Batch
from fairseq_ecg.data.loader import Loader


class Clock:
    """Wall time, rows and loader waits since the last log line."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.start = self.mark = time.perf_counter()
        self.rows, self.rows_read, self.wait_read = 0, 0, 0.0

    def elapsed(self) -> float:
        return time.perf_counter() - self.start

    def read(self) -> tuple[float, int, float]:
        now, wait = time.perf_counter(), self.loader.wait_seconds
        result = (now - self.mark, self.rows - self.rows_read, wait - self.wait_read)
        self.mark, self.rows_read, self.wait_read = now, self.rows, wait
        return result


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of ``size`` micro-batches; the last one may be shorter."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
