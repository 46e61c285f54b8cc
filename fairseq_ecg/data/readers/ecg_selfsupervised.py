"""Processed folders of ecg-selfsupervised (Mehari & Strodthoff 2022): records it has resampled already.

Files: ``memmap.npy``, despite its name bare float32 samples (time, lead) of all records one after the other,
and ``memmap_meta.npz`` with ``start``, ``length``, ``file_idx`` of every record and ``shape``, ``filenames``
of every file of samples. Leads are I, II, V1 ... V6, III, aVR, aVL, aVF, amplitudes mV, NaN where a sample is
missing; the rate is in no file and usually 100 Hz.

Labels, folds and names are in ``df_memmap.pkl`` alone, a pickle, which is not read: records are named by the
folder and their row, every one its own patient. To keep labels, prepare the original data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.source_table import inside
from fairseq_ecg.errors import ConfigError, DataError
from fairseq_ecg.registry import register_reader

LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6", "III", "aVR", "aVL", "aVF")
META = "memmap_meta.npz"
_FIELDS = ("start", "length", "file_idx", "shape", "filenames")


@dataclass(kw_only=True)
class EcgSelfSupervisedConfig:
    raw_sampling_rate: int = 100
    """Hz the folder was processed to."""

    def __post_init__(self) -> None:
        if self.raw_sampling_rate < 1:
            raise ConfigError(f"raw_sampling_rate={self.raw_sampling_rate}: at least 1 Hz")


@dataclass(frozen=True, slots=True)
class MemmapItem:
    """A record of a processed folder that has not been read."""

    path: Path
    row: int
    start: int
    num_samples: int
    shape: tuple[int, int]
    sampling_rate: int

    @property
    def source(self) -> str:
        return self.path.parent.name

    @property
    def record_id(self) -> str:
        return f"{self.source}_{self.row}"

    def read(self) -> Record:
        end = self.start + self.num_samples
        if not 0 <= self.start < end <= self.shape[0]:
            raise DataError(
                f"{self.path}: row {self.row} of {META} says samples {self.start} to {end} of {self.shape[0]}"
            )
        return Record(
            record_id=self.record_id,
            patient_id=self.record_id,
            source=self.source,
            signal=np.ascontiguousarray(self._samples()[self.start : end].T),
            leads=LEADS,
            sampling_rate=self.sampling_rate,
        )

    def _samples(self) -> NDArray[np.float32]:
        """(time, lead), mapped."""
        try:
            size = self.path.stat().st_size
            if size != 4 * self.shape[0] * self.shape[1]:
                raise DataError(
                    f"{self.path} has {size} bytes, {self.shape[0]} x {self.shape[1]} float32 samples are "
                    f"named in {META}"
                )
            return np.memmap(self.path, np.dtype("<f4"), "r", shape=self.shape)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}") from None


@register_reader("ecg_selfsupervised", config=EcgSelfSupervisedConfig)
class EcgSelfSupervised:
    """Processed folders of ecg-selfsupervised: memmap.npy and memmap_meta.npz, signals without labels."""

    def __init__(self, cfg: EcgSelfSupervisedConfig) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[MemmapItem]:
        """The records by row.

        Raises:
            DataError: memmap_meta.npz is missing, damaged, or of other leads.
        """
        meta = _read_meta(raw_dir / META)
        rows = zip(meta["start"].tolist(), meta["length"].tolist(), meta["file_idx"].tolist(), strict=True)
        files = [inside(raw_dir, str(name)) for name in meta["filenames"]]
        shapes = [(int(length), int(width)) for length, width in meta["shape"]]
        return iter(
            [
                MemmapItem(files[file], row, start, length, shapes[file], self.cfg.raw_sampling_rate)
                for row, (start, length, file) in enumerate(rows)
            ]
        )


def _read_meta(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            meta = {name: arrays[name] for name in _FIELDS}
    except FileNotFoundError:
        raise DataError(f"{path} is missing; give a folder that ecg-selfsupervised has processed") from None
    except Exception as error:  # NumPy raises half a dozen kinds for a file that is not what its name says
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    numbers = [meta[name] for name in ("start", "length", "file_idx")]
    shape, names = meta["shape"], meta["filenames"]
    is_whole = all(
        array.ndim == 1 and array.dtype.kind == "i" and len(array) == len(numbers[0]) for array in numbers
    )
    if not is_whole or names.ndim != 1 or shape.dtype.kind != "i" or shape.shape != (len(names), 2):
        raise DataError(f"{path}: {', '.join(_FIELDS)} do not describe records in files")
    if not len(numbers[0]) or not 0 <= numbers[2].min() <= numbers[2].max() < len(names):
        raise DataError(f"{path} names no record, or one in a file it does not name")
    if (shape[:, 1] != len(LEADS)).any():
        raise DataError(f"{path}: {shape[:, 1].tolist()} leads per file, {len(LEADS)} are needed")
    return meta
