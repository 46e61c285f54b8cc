"""Time and batches of an epoch: what the log's rates are made of, and the grouping into updates."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import torch

from fairseq_ecg.contracts import Batch
from fairseq_ecg.data.loader import Loader


class Clock:
    """Wall time, updates, rows and loader waits since the last log line, or since the epoch began."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.start = self.mark = time.perf_counter()
        self.updates = self.updates_read = self.rows = self.rows_read = 0
        self.wait_read = 0.0

    def elapsed(self) -> float:
        return time.perf_counter() - self.start

    def read(self) -> tuple[float, int, int, float]:
        now, wait = time.perf_counter(), self.loader.wait_seconds
        updates, rows = self.updates - self.updates_read, self.rows - self.rows_read
        result = (now - self.mark, updates, rows, wait - self.wait_read)
        self.mark, self.updates_read, self.rows_read, self.wait_read = now, self.updates, self.rows, wait
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


PEAK_TFLOPS = {
    "V100": {"fp32": 15.7, "fp16": 125.0},
    "A100": {"fp32": 19.5, "fp16": 312.0, "bf16": 312.0},
    "H100": {"fp32": 67.0, "fp16": 989.0, "bf16": 989.0},
    "H200": {"fp32": 67.0, "fp16": 989.0, "bf16": 989.0},
}
"""Dense matrix products as the vendor's data sheets give them (SXM modules, no sparsity)."""


def peak_flops(device: torch.device, precision: str) -> float | None:
    """What a known GPU could do at best, in operations per second; None for others and for CPUs."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    for part, rates in PEAK_TFLOPS.items():
        if part in name:
            return rates[precision] * 1e12 if precision in rates else None
    return None
