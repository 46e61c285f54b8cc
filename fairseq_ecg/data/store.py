"""Prepared store: records at one rate, written once, read by memory map.

A store is a folder with ``shard-00000.npy ...`` (flat int16 arrays), ``index.tsv`` (one row per record) and
``store.json`` (rate, leads, every processing choice, counts, a sha256 per shard). A record is one contiguous
(lead, sample) block of its own length. ``index.tsv`` is the truth; ``index.cache`` holds the same columns as
binary arrays, is rebuilt when the table changes, and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.store_index import INDEX_COLUMNS, StoreIndex
from fairseq_ecg.errors import DataError

SCHEMA_VERSION = 1
UNIT_MV = 0.001
"""mV per int16 unit unless a record needs more room: 1 uV."""
_MAX_UNIT = 32767


class StoreWriter:
    """Write records into a new store; the folder appears, whole, when the writer is closed.

    Everything is written to a hidden folder beside ``store_dir`` that is synced and renamed at the end, so a
    killed preparation leaves neither half a store nor damages the one that was there.

    Args:
        store_dir: folder to make.
        sampling_rate: Hz, of every record.
        leads: names of the rows of every record.
        choices: how the records were processed, kept in ``store.json`` word for word.
        overwrite: replace the store that is there. Anything else that is there is never replaced.
        shard_bytes: largest size of one shard's samples.
        first_idx: ``idx`` of the first record, so that stores made in one job share one numbering.

    Raises:
        DataError: ``store_dir`` exists, or its parent cannot be written.
    """

    def __init__(
        self,
        store_dir: Path,
        *,
        sampling_rate: int,
        leads: Sequence[str],
        choices: Mapping[str, Any],
        overwrite: bool = False,
        shard_bytes: int = 2**31,
        first_idx: int = 0,
    ) -> None:
        self.store_dir = store_dir
        self.sampling_rate = sampling_rate
        self.leads = tuple(leads)
        self.choices = dict(choices)
        self.num_records = 0
        self._overwrite = overwrite
        self._first_idx = first_idx
        # The .npy header counts too, so that no file is larger than what was asked for.
        self._shard_values = (shard_bytes - _HEADER_BYTES) // 2
        _check_replaceable(store_dir, overwrite)
        try:
            store_dir.parent.mkdir(parents=True, exist_ok=True)
            name = tempfile.mkdtemp(prefix=f".{store_dir.name}.writing-", dir=store_dir.parent)
        except OSError as error:
            raise DataError(
                f"{store_dir} cannot be written: {error.strerror} ({store_dir.parent}); "
                "choose a folder you may write to"
            ) from error
        self._temporary: Path | None = Path(name)
        os.chmod(self._temporary, 0o777 & ~_umask())
        self._shards: list[_ShardWriter] = []
        self._record_ids: set[str] = set()
        self._patients: set[str] = set()
        self._sources: dict[str, int] = {}
        self._index: IO[str] = (self._temporary / "index.tsv").open("w", encoding="utf-8", newline="\n")
        self._index.write("\t".join(INDEX_COLUMNS) + "\n")

    def add(self, record: Record, *, leads_present: Sequence[str], flags: Sequence[str] = ()) -> int:
        """Append one record and return its ``idx``.

        Amplitudes are kept in steps of 1 uV, or in the smallest larger multiple of it in which the record's
        largest amplitude still fits.

        Args:
            record: its signal is (lead, time) float32, mV, at the store's rate and in the store's lead order.
            leads_present: leads the record has; the rows of the others are zeros.
            flags: remarks about quality.

        Raises:
            DataError: another rate or shape, values that are not finite, a record_id added before.
        """
        values, scale = self._quantised(record)
        if record.likelihoods and len(record.likelihoods) != len(record.labels):
            raise DataError(
                f"record {record.record_id!r} has {len(record.likelihoods)} likelihoods for "
                f"{len(record.labels)} labels; a reader gives one per label or none"
            )
        if record.record_id in self._record_ids:
            raise DataError(f"record_id {record.record_id!r} ({record.source}) is in the store already")
        shard, offset = self._append(values)
        idx = self._first_idx + self.num_records
        mean, std = _lead_statistics(record.signal)
        row = {
            "idx": str(idx),
            "record_id": record.record_id,
            "patient_id": record.patient_id,
            "source": record.source,
            "shard": str(shard),
            "offset": str(offset),
            "num_samples": str(record.num_samples),
            "scale": repr(scale),
            "leads_present": ",".join(leads_present),
            "lead_mean": ",".join(str(value) for value in mean),
            "lead_std": ",".join(str(value) for value in std),
            "age": "" if math.isnan(record.age) else f"{record.age:g}",
            "sex": record.sex,
            "date": record.date,
            "flags": "|".join(flags),
            "crc32": str(zlib.crc32(values.data)),
            "labels": "|".join(record.labels),
            "likelihoods": "|".join(f"{value:g}" for value in record.likelihoods),
            "fold": record.fold,
        }
        for name, text in row.items():
            if any(mark in text for mark in "\t\n\r"):
                raise DataError(
                    f"record {record.record_id!r}: {name} {text!r} holds a tab or a line end, "
                    "which a table cannot keep"
                )
        self._index.write("\t".join(row[name] for name in INDEX_COLUMNS) + "\n")
        self._record_ids.add(record.record_id)
        self._patients.add(record.patient_id)
        self._sources[record.source] = self._sources.get(record.source, 0) + 1
        self.num_records += 1
        return idx

    def close(self) -> None:
        """Finish the store and move it into place."""
        if self._temporary is None:
            return
        folder = self._temporary
        try:
            for shard in self._shards:
                shard.close()
            _sync_and_close(self._index)
            StoreIndex.build_cache(folder, len(self.leads), with_statistics=True)
            self._write_json(folder)
            _sync_folder(folder)
            _replace(folder, self.store_dir, self._overwrite)
        except BaseException:
            self.abort()
            raise
        self._temporary = None

    def abort(self) -> None:
        """Give up: remove what was written, leave what was there before."""
        if self._temporary is None:
            return
        for shard in self._shards:
            shard.file.close()
        self._index.close()
        shutil.rmtree(self._temporary)
        self._temporary = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _quantised(self, record: Record) -> tuple[NDArray[np.int16], float]:
        signal, name = record.signal, f"record {record.record_id!r}"
        if record.sampling_rate != self.sampling_rate:
            raise DataError(f"{name} has {record.sampling_rate} Hz, the store {self.sampling_rate} Hz")
        if signal.ndim != 2 or signal.shape[0] != len(self.leads) or signal.shape[1] == 0:
            raise DataError(f"{name} has shape {signal.shape}, the store needs ({len(self.leads)}, time)")
        peak = float(np.abs(signal).max())
        if not math.isfinite(peak):
            raise DataError(f"{name} holds values that are not finite; repair or leave out before storing")
        micro_volts = max(1, math.ceil(peak * 1000 / _MAX_UNIT))
        scale = micro_volts / 1000
        return np.rint(signal * np.float32(1 / scale)).clip(-_MAX_UNIT, _MAX_UNIT).astype("<i2"), scale

    def _append(self, values: NDArray[np.int16]) -> tuple[int, int]:
        if values.size > self._shard_values:
            raise DataError(
                f"a record of {values.size} samples does not fit into a shard of {self._shard_values}; "
                "raise shard_bytes"
            )
        assert self._temporary is not None
        if not self._shards or self._shards[-1].num_values + values.size > self._shard_values:
            if self._shards:
                self._shards[-1].close()
            path = self._temporary / f"shard-{len(self._shards):05d}.npy"
            self._shards.append(_ShardWriter(path))
        return len(self._shards) - 1, self._shards[-1].append(values)

    def _write_json(self, folder: Path) -> None:
        content = {
            "schema_version": SCHEMA_VERSION,
            "sampling_rate": self.sampling_rate,
            "leads": list(self.leads),
            "unit": "mV",
            "choices": self.choices,
            "counts": {
                "records": self.num_records,
                "patients": len(self._patients),
                "sources": dict(sorted(self._sources.items())),
            },
            "shards": [
                {"file": shard.path.name, "num_values": shard.num_values, "sha256": shard.sha256}
                for shard in self._shards
            ],
        }
        with (folder / "store.json").open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, ensure_ascii=False)
            file.write("\n")
            _sync(file)


class Store:
    """A prepared store, opened for reading.

    Attributes:
        path: the folder.
        sampling_rate: Hz.
        leads: names of the rows of every record.
        json: the content of ``store.json``.
        index: the columns of ``index.tsv``.
        shards: flat int16 memory maps.
    """

    def __init__(self, path: Path, content: dict[str, Any], index: StoreIndex) -> None:
        self.path = path
        self.json = content
        self.sampling_rate = int(content["sampling_rate"])
        self.leads: tuple[str, ...] = tuple(content["leads"])
        self.index = index
        self.shards: list[NDArray[np.int16]] = [_open_shard(path, shard) for shard in content["shards"]]
        self._check_extents()

    @classmethod
    def open(cls, store_dir: Path) -> Self:
        """Open a store folder: a second or less for a million records.

        Raises:
            DataError: not a store, a newer schema, a shard that is missing or has another size than it had
                when written, rows that point outside their shard.
        """
        path = store_dir / "store.json"
        if not path.is_file():
            raise DataError(
                f"{store_dir} is not a prepared store (it has no store.json); "
                f"make one with: fairseq-ecg prepare SOURCE RAW_DIR {store_dir}"
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content["schema_version"]
            missing = {"sampling_rate", "leads", "shards", "unit"} - set(content)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is damaged ({error}); prepare the store again") from error
        if version != SCHEMA_VERSION or missing or content["unit"] != "mV":
            raise DataError(
                f"{path} has schema_version {version}, this version reads {SCHEMA_VERSION} in mV; "
                "prepare the store again"
            )
        return cls(store_dir, content, StoreIndex.open(store_dir, len(content["leads"])))

    @property
    def num_records(self) -> int:
        return len(self.index)

    def raw(self, row: int) -> NDArray[np.int16]:
        """(lead, time) int16 units of one record, a view of the memory map."""
        start, num_samples = int(self.index.offset[row]), int(self.index.num_samples[row])
        shard = self.shards[int(self.index.shard[row])]
        return shard[start : start + len(self.leads) * num_samples].reshape(len(self.leads), num_samples)

    def read(self, row: int) -> NDArray[np.float32]:
        """(lead, time) float32 mV of one whole record."""
        return self.raw(row).astype(np.float32) * np.float32(self.index.scale[row])

    def is_intact(self, row: int) -> bool:
        """Whether a record's samples still have the checksum they were written with."""
        return zlib.crc32(np.ascontiguousarray(self.raw(row)).data) == int(self.index.crc32[row])

    def labels(self, row: int) -> tuple[str, ...]:
        """Codes of the record, as its source gives them."""
        return _split(self.index.text("labels")[row], "|")

    def likelihoods(self, row: int) -> tuple[float, ...]:
        """Certainty of each label, where the source states it; else empty."""
        return tuple(float(text) for text in _split(self.index.text("likelihoods")[row], "|"))

    def fold(self, row: int) -> str:
        """Part of the split its source publishes; empty when it publishes none."""
        return self.index.text("fold")[row]

    def flags(self, row: int) -> tuple[str, ...]:
        return _split(self.index.text("flags")[row], "|")

    def leads_present(self, row: int) -> tuple[str, ...]:
        return _split(self.index.text("leads_present")[row], ",")

    def record_id(self, row: int) -> str:
        return self.index.text("record_id")[row]

    def patient_id(self, row: int) -> str:
        return self.index.text("patient_id")[row]

    def source(self, row: int) -> str:
        return self.index.text("source")[row]

    def sex(self, row: int) -> str:
        return self.index.text("sex")[row]

    def age(self, row: int) -> float:
        """Years; NaN when unknown."""
        return float(self.index.age[row])

    def rows_of(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Rows of the records with these hashes of their record_id; -1 where the store has no such record."""
        return self.index.rows_of(hashes)

    def _check_extents(self) -> None:
        index = self.index
        sizes = np.array([shard.size for shard in self.shards], dtype=np.int64)
        wrong = index.shard >= len(sizes)
        if not wrong.any():
            end = index.offset + index.num_samples * len(self.leads)
            wrong = end > sizes[index.shard] if len(sizes) else np.zeros(len(index), dtype=bool)
        wrong |= index.num_samples == 0
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"{self.path / 'index.tsv'}, line {row + 2}: record {self.record_id(row)!r} lies outside its "
                f"shard (shard {index.shard[row]}, offset {index.offset[row]}, "
                f"num_samples {index.num_samples[row]}); "
                "prepare the store again"
            )


_HEADER_BYTES = 128


class _ShardWriter:
    """One .npy file whose length is known only at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_values = 0
        self.sha256 = ""
        self.file: BufferedRandom = path.open("w+b")
        self._write_header()

    def append(self, values: NDArray[np.int16]) -> int:
        offset = self.num_values
        self.file.write(values.data)
        self.num_values += values.size
        return offset

    def close(self) -> None:
        if self.file.closed:
            return
        self.file.seek(0)
        self._write_header()
        _sync(self.file)
        self.file.seek(0)
        self.sha256 = hashlib.file_digest(self.file, "sha256").hexdigest()
        self.file.close()

    def _write_header(self) -> None:
        # numpy pads the header so that the array may grow along axis 0 without moving.
        header = {"descr": "<i2", "fortran_order": False, "shape": (self.num_values,)}
        np.lib.format.write_array_header_1_0(self.file, header)
        assert self.file.tell() == _HEADER_BYTES


def _open_shard(store_dir: Path, shard: Mapping[str, Any]) -> NDArray[np.int16]:
    path = store_dir / shard["file"]
    expected = _HEADER_BYTES + 2 * int(shard["num_values"])
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; the store is not whole") from error
    if size != expected:
        raise DataError(
            f"{path} has {size} bytes, {expected} were written; the file is truncated or damaged, "
            "copy or prepare the store again"
        )
    if shard["num_values"] == 0:
        return np.zeros(0, dtype=np.int16)
    # Copy-on-write: PyTorch wants memory it may write to; the file is never changed.
    shape = (int(shard["num_values"]),)
    return np.asarray(np.memmap(path, dtype="<i2", mode="c", offset=_HEADER_BYTES, shape=shape))


def _lead_statistics(signal: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation (divisor N) of each lead over the whole record, mV."""
    wide = signal.astype(np.float64)
    return wide.mean(axis=1).astype(np.float32), wide.std(axis=1).astype(np.float32)


def _split(text: str, mark: str) -> tuple[str, ...]:
    return tuple(text.split(mark)) if text else ()


def _check_replaceable(store_dir: Path, overwrite: bool) -> None:
    if not os.path.lexists(store_dir):
        return
    if store_dir.is_dir() and not any(store_dir.iterdir()):
        return
    if not (store_dir / "store.json").is_file():
        raise DataError(f"{store_dir} exists and is not a store; choose another folder for the store")
    if not overwrite:
        raise DataError(f"{store_dir} exists; choose another folder, or replace it with --overwrite")


def _replace(folder: Path, store_dir: Path, overwrite: bool) -> None:
    """Move a finished folder to its place; an old store goes only once the new one is there."""
    _check_replaceable(store_dir, overwrite)
    old: Path | None = None
    if store_dir.is_dir() and any(store_dir.iterdir()):
        old = Path(tempfile.mkdtemp(prefix=f".{store_dir.name}.old-", dir=store_dir.parent))
        os.rename(store_dir, old)
    try:
        os.rename(folder, store_dir)
    except OSError:
        if old is not None:
            os.rename(old, store_dir)
        raise
    _sync_folder(store_dir.parent)
    if old is not None:
        shutil.rmtree(old)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_and_close(file: IO[Any]) -> None:
    _sync(file)
    file.close()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
