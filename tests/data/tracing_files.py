"""Writes small HDF5 files of tracings for the tests of their readers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NUM_SAMPLES = 64


def tracing(seed: int, padding: int = 8) -> NDArray[np.float32]:
    """(time, 12) noise of 1 mV between zeros; limb leads keep Einthoven's and Goldberger's equations."""
    rng = np.random.default_rng(seed)
    used = rng.normal(0, 0.7, (NUM_SAMPLES - 2 * padding, 12)).astype(np.float32)
    one, two = used[:, 0], used[:, 1]
    used[:, 2], used[:, 3] = two - one, -(one + two) / 2
    used[:, 4], used[:, 5] = one - two / 2, two - one / 2
    return np.pad(used, ((padding, padding), (0, 0)))


def write_tracings(
    path: Path, tracings: Sequence[NDArray[np.float32]], exam_ids: Sequence[int] | None = None
) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["tracings"] = np.stack(tracings)
        if exam_ids is not None:
            file["exam_id"] = np.array(exam_ids, np.int64)
