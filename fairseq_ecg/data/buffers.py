"""Large arrays that are used again once nobody holds them.

Fresh memory costs a page fault per 4 KiB at its first use, which takes longer than the copy that fills it.
"""

from __future__ import annotations

import math
import sys
import threading

import numpy as np
import torch
from torch import Tensor

Buffer = np.ndarray[tuple[int], np.dtype[np.uint8]]


def _num_references(buffers: list[Buffer], place: int) -> int:
    return sys.getrefcount(buffers[place])


_FREE = _num_references([np.empty(1, dtype=np.uint8)], 0)
"""References to a buffer that only its list holds; how many Python counts depends on its version."""


class BufferPool:
    """Hands out uninitialised CPU tensors; a buffer is handed out again only when the last tensor, array or
    view on it is gone.

    Args:
        max_buffers: how many are kept; beyond that, memory comes and goes as usual.
    """

    def __init__(self, max_buffers: int = 64) -> None:
        self._max_buffers = max_buffers
        self._buffers: list[Buffer] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor whose content is whatever was there."""
        size = math.prod(shape) * dtype.itemsize
        with self._lock:
            # The tensor keeps the slice, the slice keeps its base: any user shows in the base's count.
            flat = torch.from_numpy(self._find(size)[:size])
        return flat.view(dtype).view(shape)

    def _find(self, size: int) -> Buffer:
        for place, length in enumerate(map(len, self._buffers)):
            if size <= length <= 2 * size and _num_references(self._buffers, place) == _FREE:
                return self._buffers[place]
        fresh = np.empty(size, dtype=np.uint8)
        if len(self._buffers) >= self._max_buffers:
            # The oldest free buffer has a size that is no longer asked for.
            places = range(len(self._buffers))
            free = [place for place in places if _num_references(self._buffers, place) == _FREE]
            if not free:
                return fresh
            del self._buffers[free[0]]
        self._buffers.append(fresh)
        return fresh


POOL = BufferPool()
"""Shared by the gathers and the CPU's preparation of batches."""
