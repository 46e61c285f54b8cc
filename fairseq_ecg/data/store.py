"""Prepared store: records at one rate, written once, read by memory map.

A store is a folder with ``shard-00000.npy ...`` (flat int16 arrays), ``index.tsv`` (one row per record) and
``store.json`` (rate, leads, every processing choice, counts, a sha256 per shard). A record is one contiguous
(lead, sample) block of its own length. ``index.tsv`` is the truth; ``index.cache`` holds the same columns as
binary arrays, is rebuilt when the table changes, and may be deleted at any time.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.encode import encode
from fairseq_ecg.data.store_folder import (
    HEADER_BYTES,
    SCHEMA_VERSION,
    SHARD_BYTES,
    StoreFolder,
    check_replaceable,
    make_parent,
    put_in_place,
)
from fairseq_ecg.data.store_index import StoreIndex
from fairseq_ecg.errors import DataError


class StoreWriter:
    """Write records into a new store; the folder appears, whole, when the writer is closed.

    Everything is written to a hidden folder beside ``store_dir`` that is synced and renamed at the end, so a
    killed process leaves neither half a store nor damages the one that was there.

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
        shard_bytes: int = SHARD_BYTES,
        first_idx: int = 0,
    ) -> None:
        self.store_dir = store_dir
        self._overwrite = overwrite
        check_replaceable(store_dir, overwrite)
        parent = make_parent(store_dir)
        try:
            name = tempfile.mkdtemp(prefix=f".{store_dir.name}.writing-", dir=parent)
        except OSError as error:
            raise DataError(
                f"{store_dir} cannot be written: {error.strerror} ({parent}); "
                "choose a folder you may write to"
            ) from error
        self._temporary: Path | None = Path(name)
        os.chmod(name, 0o777 & ~_umask())
        self._folder = StoreFolder(
            self._temporary,
            sampling_rate=sampling_rate,
            leads=leads,
            choices=choices,
            shard_bytes=shard_bytes,
            first_idx=first_idx,
        )

    @property
    def num_records(self) -> int:
        return self._folder.num_records

    def add(self, record: Record, *, leads_present: Sequence[str], flags: Sequence[str] = ()) -> int:
        """Append one record, as ``encode`` describes it, and return its ``idx``.

        Raises:
            DataError: ``encode`` refuses it, or its record_id was added before.
        """
        encoded, values = encode(
            record,
            sampling_rate=self._folder.sampling_rate,
            leads=self._folder.leads,
            leads_present=leads_present,
            flags=flags,
        )
        return self._folder.append(encoded, values)

    def close(self) -> None:
        """Finish the store and move it into place."""
        if self._temporary is None:
            return
        try:
            self._folder.finish()
            put_in_place(self._temporary, self.store_dir, self._overwrite)
        except BaseException:
            self.abort()
            raise
        self._temporary = None

    def abort(self) -> None:
        """Give up: remove what was written, leave what was there before."""
        if self._temporary is None:
            return
        self._folder.close()
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
            missing = {"sampling_rate", "leads", "shards", "unit", "counts"} - set(content)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(f"{path} is damaged ({error}); prepare the store again") from error
        if version != SCHEMA_VERSION or missing or content["unit"] != "mV":
            raise DataError(
                f"{path} has schema_version {version}, this version reads {SCHEMA_VERSION} in mV; "
                "prepare the store again"
            )
        _check_content(path, content)
        index = StoreIndex.open(store_dir, len(content["leads"]))
        if content["counts"]["records"] != len(index):
            raise DataError(
                f"{store_dir / 'index.tsv'} has {len(index)} records, {path.name} says "
                f"{content['counts']['records']}; the store is not whole, copy or prepare it again"
            )
        return cls(store_dir, content, index)

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
            # In floating point, which a damaged offset cannot overflow.
            end = index.offset.astype(np.float64) + index.num_samples.astype(np.float64) * len(self.leads)
            wrong = end > sizes[index.shard] if len(sizes) else np.zeros(len(index), dtype=bool)
        wrong |= (
            (index.num_samples <= 0) | (index.offset < 0) | ~(np.isfinite(index.scale) & (index.scale > 0))
        )
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"{self.path / 'index.tsv'}, line {row + 2}: record {self.record_id(row)!r} lies outside its "
                f"shard or has no scale (shard {index.shard[row]}, offset {index.offset[row]}, "
                f"num_samples {index.num_samples[row]}, scale {index.scale[row]}); "
                "prepare the store again"
            )


def _check_content(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a ``store.json`` whose values are not of their kind, or name files outside the store.

    Raises:
        DataError: naming the key.
    """

    def is_count(value: Any, least: int) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**50

    leads, shards, counts = content["leads"], content["shards"], content["counts"]
    sound = {
        "sampling_rate": is_count(content["sampling_rate"], 1),
        "leads": isinstance(leads, list) and leads and all(isinstance(lead, str) for lead in leads),
        "counts": isinstance(counts, dict) and is_count(counts.get("records"), 0),
        "choices": isinstance(content.get("choices"), dict),
        "shards": isinstance(shards, list)
        and all(
            isinstance(shard, dict)
            and is_count(shard.get("num_values"), 0)
            and isinstance(shard.get("file"), str)
            and "\0" not in shard["file"]
            and Path(shard["file"]).name == shard["file"] != ".."
            for shard in shards
        ),
    }
    if wrong := [key for key, is_sound in sound.items() if not is_sound]:
        shown = str(content.get(wrong[0]))[:80]
        raise DataError(f"{path} is damaged: {wrong[0]} is {shown!r}; copy or prepare the store again")


def _open_shard(store_dir: Path, shard: Mapping[str, Any]) -> NDArray[np.int16]:
    path = store_dir / shard["file"]
    expected = HEADER_BYTES + 2 * int(shard["num_values"])
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
    return np.asarray(np.memmap(path, dtype="<i2", mode="c", offset=HEADER_BYTES, shape=shape))


def _split(text: str, mark: str) -> tuple[str, ...]:
    return tuple(text.split(mark)) if text else ()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
