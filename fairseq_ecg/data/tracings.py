"""HDF5 files of ``tracings`` (exams, time, 12), as the telehealth network of Minas Gerais publishes them.

Shared by the readers of CODE-15 and of its test set. Shapes use L lead, T time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.signal import strip_zero_padding
from fairseq_ecg.errors import DataError

FINDINGS = ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST")
"""First-degree AV block, bundle branch blocks, sinus bradycardia, atrial fibrillation, sinus tachycardia."""

NO_FINDING = "none_of_six"
"""Label of an exam that has been annotated and has none of ``FINDINGS``: not the same as no annotation."""

SAMPLING_RATE = 400

_TRACINGS = "tracings"
_NUM_LEADS = 12
_MAX_SAMPLES = 1 << 16
"""More than two minutes: such a row is no exam but a damaged file."""
_CHUNK_CACHE_BYTES = 128 << 20
"""Rows of a compressed file share chunks; without room for them every row decompresses all of them again."""


def count_tracings(path: Path) -> int:
    """How many rows a file has.

    Raises:
        DataError: not such a file.
    """
    return int(_tracings(path).shape[0])


def read_exam_ids(path: Path) -> NDArray[np.int64]:
    """The dataset ``exam_id``, one number per row of ``tracings``.

    Raises:
        DataError: it is missing, no whole numbers, or not one per row.
    """
    ids = _dataset(path, "exam_id")
    num_rows = count_tracings(path)
    if ids.dtype.kind not in "iu" or ids.shape != (num_rows,):
        raise DataError(
            f"{path}: exam_id has shape {ids.shape} and type {ids.dtype}, needed is one whole number for "
            f"each of {num_rows} tracings"
        )
    return np.asarray(_read(path, ids, slice(None)), np.int64)


def read_tracing(path: Path, row: int, *, strip_padding: bool) -> NDArray[np.float32]:
    """One exam as (L, T).

    Args:
        path: of the HDF5 file.
        row: of the dataset ``tracings``.
        strip_padding: leave out the samples at both ends that are zero in every lead.

    Raises:
        DataError: the file cannot be read, or every sample of the exam is zero.
    """
    tracings = _tracings(path)
    if not row < tracings.shape[0]:
        raise DataError(f"{path}: no row {row}, it has {tracings.shape[0]}")
    samples = np.asarray(_read(path, tracings, row), np.float32).T
    used = strip_zero_padding(samples)
    if not used.shape[1]:
        raise DataError(f"{path}, row {row}: the tracing is constant: every sample is zero")
    return np.ascontiguousarray(used if strip_padding else samples)


def findings(is_present: Mapping[str, bool | None]) -> tuple[str, ...]:
    """Labels of an exam from its answers by name; none at all when a finding has not been annotated."""
    if any(is_present[name] is None for name in FINDINGS):
        return ()
    return tuple(name for name in FINDINGS if is_present[name]) or (NO_FINDING,)


def _tracings(path: Path) -> Any:
    dataset = _dataset(path, _TRACINGS)
    shape = dataset.shape
    if (
        dataset.dtype.kind != "f"
        or len(shape) != 3
        or shape[2] != _NUM_LEADS
        or not 0 < shape[1] <= _MAX_SAMPLES
    ):
        raise DataError(
            f"{path}: tracings has shape {shape} and type {dataset.dtype}, needed is (exams, time, 12) of "
            "floating point numbers"
        )
    return dataset


def _dataset(path: Path, name: str) -> Any:
    """A dataset that lies in this file and nowhere else."""
    import h5py

    file = _opened(path)
    try:
        link = file.get(name, getlink=True)
        dataset = file[name] if isinstance(link, h5py.HardLink) else None
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise DataError(f"{path}: no dataset {name!r} in it; it holds {', '.join(list(file)[:10])}")
        return dataset
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: damaged HDF5 file: {error}; fetch it again") from None


def _read(path: Path, dataset: Any, selection: Any) -> Any:
    try:
        return dataset[selection]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise DataError(f"{path}: damaged HDF5 file: {error}; fetch it again") from None


def _opened(path: Path) -> Any:
    """The file, kept open: opening costs ten times as much as reading a row."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    # A handle must not be used by another process, nor for a file that has been replaced.
    return _open(path, status.st_ino, status.st_mtime_ns, status.st_size, os.getpid())


@lru_cache(maxsize=2)
def _open(path: Path, inode: int, modified_ns: int, size: int, process: int) -> Any:
    import h5py

    try:
        return h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE_BYTES, rdcc_nslots=10007, locking=False)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a readable HDF5 file: {error}; fetch it again") from None
