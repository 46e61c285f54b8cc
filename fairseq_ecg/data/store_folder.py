"""A store that is being written: shards and index grow record by record, and can be taken up again.

``StoreFolder`` fills a folder; where the folder lies and when it becomes visible is its owner's affair
(``StoreWriter`` for a store made in one go, ``prepare`` for one that survives an interruption).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.encode import Encoded
from fairseq_ecg.data.store_index import INDEX_COLUMNS, StoreIndex
from fairseq_ecg.errors import DataError

SCHEMA_VERSION = 1
SHARD_BYTES = 2**31
HEADER_BYTES = 128
"""Of a shard's .npy header."""

_CHUNK = 2**20


class TextMark(NamedTuple):
    """How far a text file was written, and the CRC-32 of everything up to there."""

    size: int = 0
    crc: int = 0


class GrowingText:
    """A text file that is only appended to, and cut back to a mark when it is taken up again."""

    def __init__(self, path: Path, mark: TextMark | None = None) -> None:
        self.path = path
        self._size, self._crc = mark or TextMark()
        self._file: IO[bytes] = path.open("r+b" if mark else "wb")
        self._file.truncate(self._size)
        self._file.seek(self._size)

    @property
    def mark(self) -> TextMark:
        return TextMark(self._size, self._crc)

    def write(self, text: str) -> None:
        content = text.encode()
        self._file.write(content)
        self._size += len(content)
        self._crc = zlib.crc32(content, self._crc)

    def flush(self) -> None:
        self._file.flush()

    def close(self, *, sync: bool = False) -> None:
        if self._file.closed:
            return
        if sync:
            _sync(self._file)
        self._file.close()


def good_marks(path: Path, marks: Sequence[TextMark]) -> int:
    """How many of the first marks, in ascending order, the file on disk still agrees with."""
    size = crc = 0
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return 0
    with file:
        for number, mark in enumerate(marks):
            while size < mark.size:
                content = file.read(min(_CHUNK, mark.size - size))
                if not content:
                    return number
                size += len(content)
                crc = zlib.crc32(content, crc)
            if crc != mark.crc:
                return number
    return len(marks)


@dataclass(frozen=True)
class FolderMark:
    """How far a store was written: enough to take it up again."""

    num_records: int
    index: TextMark
    closed: tuple[tuple[int, str], ...]
    """Per finished shard the number of its values and its sha256."""
    num_values: int
    """Values in the shard that is open."""


class StoreFolder:
    """Append encoded records to the shards and the index in ``folder``.

    Args:
        folder: an existing, empty folder; or the folder ``mark`` speaks of.
        sampling_rate: Hz, of every record.
        leads: names of the rows of every record.
        choices: how the records were processed, kept in ``store.json`` word for word.
        shard_bytes: largest size of one shard.
        first_idx: ``idx`` of the first record.
        mark: take up the folder here; what was written after it is cut off.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sampling_rate: int,
        leads: Sequence[str],
        choices: Mapping[str, Any],
        shard_bytes: int = SHARD_BYTES,
        first_idx: int = 0,
        mark: FolderMark | None = None,
    ) -> None:
        self.folder = folder
        self.sampling_rate = sampling_rate
        self.leads = tuple(leads)
        self.choices = dict(choices)
        self.first_idx = first_idx
        # The .npy header counts too, so that no file is larger than what was asked for.
        self._shard_values = (shard_bytes - HEADER_BYTES) // 2
        self._closed: list[tuple[int, str]] = list(mark.closed) if mark else []
        self._record_ids: set[str] = set()
        self._patients: set[str] = set()
        self._sources: dict[str, int] = {}
        self._shard: _ShardWriter | None = None
        if mark is None:
            self._index = GrowingText(folder / "index.tsv")
            self._index.write("\t".join(INDEX_COLUMNS) + "\n")
            return
        self._index = GrowingText(folder / "index.tsv", mark.index)
        self._count_index()
        if mark.num_values:
            self._shard = _ShardWriter(self._shard_path(len(self._closed)), mark.num_values)
        for path in folder.glob("shard-*.npy"):  # begun after the mark
            if path > self._shard_path(len(self._closed) - (self._shard is None)):
                path.unlink()

    @property
    def num_records(self) -> int:
        return len(self._record_ids)

    @property
    def mark(self) -> FolderMark:
        return FolderMark(
            self.num_records,
            self._index.mark,
            tuple(self._closed),
            self._shard.num_values if self._shard else 0,
        )

    def append(self, encoded: Encoded, values: NDArray[np.int16] | bytes) -> int:
        """Write one record and return its ``idx``.

        Raises:
            DataError: its record_id was added before, or it is larger than a shard.
        """
        if encoded.record_id in self._record_ids:
            raise DataError(f"record_id {encoded.record_id!r} ({encoded.source}) is in the store already")
        if encoded.num_values > self._shard_values:
            raise DataError(
                f"a record of {encoded.num_values} samples does not fit into a shard of "
                f"{self._shard_values}; raise shard_bytes"
            )
        if self._shard and self._shard.num_values + encoded.num_values > self._shard_values:
            self._close_shard()
        if self._shard is None:
            self._shard = _ShardWriter(self._shard_path(len(self._closed)))
        offset = self._shard.append(values, encoded.num_values)
        idx = self.first_idx + self.num_records
        self._index.write(encoded.row(idx, len(self._closed), offset))
        self._count(encoded.record_id, encoded.patient_id, encoded.source)
        return idx

    def flush(self) -> None:
        """Hand everything to the operating system: a killed process loses nothing written before."""
        self._index.flush()
        if self._shard:
            self._shard.file.flush()

    def finish(self, extra: Mapping[str, Any] | None = None) -> None:
        """Complete the folder; ``store.json``, which makes it a store, comes last.

        Args:
            extra: further content of ``store.json``.
        """
        if self._shard:
            self._close_shard()
        self._index.close(sync=True)
        StoreIndex.build_cache(self.folder, len(self.leads), with_statistics=True)
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
                {"file": self._shard_path(number).name, "num_values": num_values, "sha256": sha256}
                for number, (num_values, sha256) in enumerate(self._closed)
            ],
            **(extra or {}),
        }
        with (self.folder / "store.json").open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, ensure_ascii=False)
            file.write("\n")
            _sync(file)
        sync_folder(self.folder)

    def close(self) -> None:
        """Close the files as they are."""
        if self._shard:
            self._shard.file.close()
        self._index.close()

    def _shard_path(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.npy"

    def _close_shard(self) -> None:
        assert self._shard is not None
        self._closed.append((self._shard.num_values, self._shard.close()))
        self._shard = None

    def _count(self, record_id: str, patient_id: str, source: str) -> None:
        self._record_ids.add(record_id)
        self._patients.add(patient_id)
        self._sources[source] = self._sources.get(source, 0) + 1

    def _count_index(self) -> None:
        """Count what the index lists, line by line."""
        with self._index.path.open(encoding="utf-8", newline="\n") as file:
            next(file)
            for line in file:
                _, record_id, patient_id, source, _ = line.split("\t", 4)
                self._count(record_id, patient_id, source)


def is_intact(folder: Path, mark: FolderMark) -> bool:
    """Whether the shards still hold what was written up to a mark, the index being whole up to it.

    Finished shards were synced to the disk: their size is compared. The open one may have lost what a crash
    of the machine had not let reach the disk: its records are compared with the checksums of the index.
    """
    sizes = [num_values for num_values, _ in mark.closed] + [mark.num_values] * (mark.num_values > 0)
    for number, num_values in enumerate(sizes):
        path = folder / f"shard-{number:05d}.npy"
        if not path.is_file() or path.stat().st_size < HEADER_BYTES + 2 * num_values:
            return False
    if not mark.num_values:
        return True
    columns = {name: number for number, name in enumerate(INDEX_COLUMNS)}
    read = 0
    with (
        (folder / "index.tsv").open("rb") as index,
        (folder / f"shard-{len(mark.closed):05d}.npy").open("rb") as shard,
    ):
        read += len(next(index))
        for line in index:
            read += len(line)
            if read > mark.index.size:
                break
            cells = line.decode().rstrip("\n").split("\t")
            if int(cells[columns["shard"]]) != len(mark.closed):
                continue
            num_leads = cells[columns["lead_mean"]].count(",") + 1
            shard.seek(HEADER_BYTES + 2 * int(cells[columns["offset"]]))
            content = shard.read(2 * num_leads * int(cells[columns["num_samples"]]))
            if zlib.crc32(content) != int(cells[columns["crc32"]]):
                return False
    return True


class _ShardWriter:
    """One .npy file whose length is known only at the end."""

    def __init__(self, path: Path, num_values: int = 0) -> None:
        self.path = path
        self.num_values = num_values
        self.file: BufferedRandom = path.open("r+b" if num_values else "w+b")
        self._write_header()
        self.file.truncate(HEADER_BYTES + 2 * num_values)
        self.file.seek(0, os.SEEK_END)

    def append(self, values: NDArray[np.int16] | bytes, num_values: int) -> int:
        offset = self.num_values
        self.file.write(values if isinstance(values, bytes) else values.data)
        self.num_values += num_values
        return offset

    def close(self) -> str:
        """Finish the file and return its sha256."""
        self.file.seek(0)
        self._write_header()
        _sync(self.file)
        self.file.seek(0)
        sha256 = hashlib.file_digest(self.file, "sha256").hexdigest()
        self.file.close()
        return sha256

    def _write_header(self) -> None:
        # numpy pads the header so that the array may grow along axis 0 without moving.
        header = {"descr": "<i2", "fortran_order": False, "shape": (self.num_values,)}
        np.lib.format.write_array_header_1_0(self.file, header)
        assert self.file.tell() == HEADER_BYTES


def check_replaceable(store_dir: Path, overwrite: bool) -> None:
    """Refuse to write a store where something else is, or without leave where a store is.

    Raises:
        DataError: naming the folder and the remedy.
    """
    if not os.path.lexists(store_dir):
        return
    if store_dir.is_dir() and not any(store_dir.iterdir()):
        return
    if not (store_dir / "store.json").is_file():
        raise DataError(f"{store_dir} exists and is not a store; choose another folder for the store")
    if not overwrite:
        raise DataError(f"{store_dir} exists; choose another folder, or replace it with --overwrite")


def make_parent(store_dir: Path) -> Path:
    """The folder a store will lie in, made if need be.

    Raises:
        DataError: it cannot be made.
    """
    try:
        store_dir.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{store_dir} cannot be written: {error.strerror} ({store_dir.parent}); "
            "choose a folder you may write to"
        ) from error
    return store_dir.parent


def put_in_place(folder: Path, store_dir: Path, overwrite: bool) -> None:
    """Move a finished folder to its place; an old store goes only once the new one is there."""
    check_replaceable(store_dir, overwrite)
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
    sync_folder(store_dir.parent)
    if old is not None:
        shutil.rmtree(old)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make a folder's entries last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
