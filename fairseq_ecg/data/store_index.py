"""The columns of a store's ``index.tsv``, and their binary copy that makes a large store open at once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.table import Kind, TextColumn, read_header, read_number_lists, read_table
from fairseq_ecg.errors import DataError

INDEX_COLUMNS = (
    "idx",
    "record_id",
    "patient_id",
    "source",
    "shard",
    "offset",
    "num_samples",
    "scale",
    "leads_present",
    "lead_mean",
    "lead_std",
    "age",
    "sex",
    "date",
    "flags",
    "crc32",
    "labels",
    "likelihoods",
    "fold",
)
"""Columns of ``index.tsv``; a table may have more, which are passed over."""

_LATER = ("likelihoods", "fold")
"""Columns a table may lack: no record of it has any."""

_KINDS = {
    **dict.fromkeys(("idx", "shard", "offset", "num_samples", "crc32"), Kind.INTEGER),
    **dict.fromkeys(("scale", "age"), Kind.NUMBER),
    **dict.fromkeys(
        ("record_id", "patient_id", "source", "leads_present", "sex", "date", "flags", "labels", *_LATER),
        Kind.TEXT,
    ),
}
_NARROW = {"shard": np.int32, "num_samples": np.int32, "crc32": np.uint32, "age": np.float32}
_TEXT_PARTS = ("codes", "blob", "offsets", "hashes")
_CACHED = [
    array
    for name, kind in _KINDS.items()
    for array in ([f"{name}.{part}" for part in _TEXT_PARTS] if kind is Kind.TEXT else [name])
]
_STATISTICS = ("lead_mean", "lead_std")
_CACHE = "index.cache"
_CACHE_VERSION = 3


class StoreIndex:
    """Columns of ``index.tsv`` as arrays, memory-mapped from the cache where there is one."""

    def __init__(self, path: Path, num_leads: int, arrays: dict[str, NDArray[Any]]) -> None:
        self.path = path
        self._num_leads = num_leads
        self._arrays = arrays
        self.idx: NDArray[np.int64] = arrays["idx"]
        self.shard: NDArray[np.int32] = arrays["shard"]
        self.offset: NDArray[np.int64] = arrays["offset"]
        """First sample of the record in its shard, counted in int16 values."""
        self.num_samples: NDArray[np.int32] = arrays["num_samples"]
        self.scale: NDArray[np.float64] = arrays["scale"]
        """mV per unit."""
        self.crc32: NDArray[np.uint32] = arrays["crc32"]
        self.age: NDArray[np.float32] = arrays["age"]
        self._check_unique()

    def __len__(self) -> int:
        return len(self.idx)

    @classmethod
    def open(cls, store_dir: Path, num_leads: int) -> Self:
        """Read the index from its cache, or from the table when the cache is of another table.

        Raises:
            DataError: the table is missing or has a bad row.
        """
        path = store_dir / "index.tsv"
        if not path.is_file():
            raise DataError(f"{path} is missing; the store is not whole, prepare it again")
        arrays = _open_cache(store_dir / _CACHE, path)
        if arrays is None:
            # A store on a read-only or full disk goes without a cache, and is parsed every time.
            with suppress(OSError):
                cls.build_cache(store_dir, num_leads, with_statistics=False)
            arrays = _open_cache(store_dir / _CACHE, path)
        if arrays is None:  # no cache, or another process is swapping it at this moment
            arrays = _read_table(path)
        return cls(path, num_leads, arrays)

    @staticmethod
    def build_cache(store_dir: Path, num_leads: int, *, with_statistics: bool) -> None:
        """Write the binary copy of ``index.tsv``.

        The leads' statistics are most of the table and take longest to parse; without ``with_statistics``
        they are added when they are first asked for.
        """
        path = store_dir / "index.tsv"
        temporary = Path(tempfile.mkdtemp(prefix=f".{_CACHE}-", dir=store_dir))
        try:
            stamp = {"version": _CACHE_VERSION, "size": path.stat().st_size, "sha256": _digest(path)}
            for name, array in _read_table(path).items():
                np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            if with_statistics:
                for name, array in _read_statistics(path, num_leads).items():
                    np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            (temporary / "cache.json").write_text(json.dumps(stamp), encoding="utf-8")
            os.chmod(temporary, 0o755)
            _swap_in(temporary, store_dir / _CACHE)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def text(self, name: str) -> TextColumn:
        """A column of texts."""
        return TextColumn(*(self._arrays[f"{name}.{part}"] for part in _TEXT_PARTS))

    def lead_statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation of every record, each (records, leads), mV."""
        if "lead_mean" not in self._arrays:
            cache = self.path.parent / _CACHE
            try:
                self._arrays.update({name: _map(cache / f"{name}.npy") for name in _STATISTICS})
            except (OSError, EOFError, ValueError):
                statistics = _read_statistics(self.path, self._num_leads)
                self._arrays.update(statistics)
                _add_to_cache(cache, statistics)
        return self._arrays["lead_mean"], self._arrays["lead_std"]

    def rows_of(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Rows of the records whose record_id has these hashes; -1 where there is none."""
        column = self.text("record_id")
        order = np.argsort(column.hashes)
        position = np.searchsorted(column.hashes, hashes, sorter=order).clip(max=max(len(order) - 1, 0))
        if not len(order):
            return np.full(len(hashes), -1, dtype=np.int64)
        code = order[position]
        # record_ids are unique and codes are given in order of appearance, so the code is the row.
        return np.where(column.hashes[code] == hashes, code, -1)

    def _check_unique(self) -> None:
        column = self.text("record_id")
        if column.num_values == len(self):
            return
        row = int(np.flatnonzero(np.bincount(column.codes)[column.codes] > 1)[1])
        raise DataError(
            f"{self.path}, line {row + 2}: record_id {column[row]!r} appears twice; prepare the store again"
        )


def _read_table(path: Path) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    present = read_header(path)
    columns = read_table(
        path, {name: kind for name, kind in _KINDS.items() if name in present or name not in _LATER}
    )
    for name in _LATER:
        columns.setdefault(name, TextColumn.of([""] * len(columns["idx"])))
    for name, column in columns.items():
        if isinstance(column, TextColumn):
            arrays.update({f"{name}.{part}": getattr(column, part) for part in _TEXT_PARTS})
        else:
            kind: Any = np.dtype(_NARROW.get(name, column.dtype))
            if kind.kind in "iu" and len(column) and column.max() > np.iinfo(kind).max:
                row = int(column.argmax())
                raise DataError(f"{path}, line {row + 2}: {name} is {column[row]}, which is out of range")
            with np.errstate(over="ignore"):
                arrays[name] = column.astype(kind)
    return arrays


def _read_statistics(path: Path, num_leads: int) -> dict[str, NDArray[Any]]:
    return dict(zip(_STATISTICS, read_number_lists(path, _STATISTICS, num_leads), strict=True))


def _swap_in(new: Path, cache: Path) -> None:
    """Put a finished cache in place of the one there by renames, whoever does the same at this moment.

    A process that has opened the earlier cache keeps its maps; one that is opening it may find none.
    """
    old = Path(tempfile.mkdtemp(prefix=f".{_CACHE}-old-", dir=cache.parent))
    try:
        with suppress(FileNotFoundError):
            os.rename(cache, old)
        try:
            os.rename(new, cache)
        except OSError:  # another process was faster with the same content
            if not cache.is_dir():
                raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _add_to_cache(cache: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Put further arrays into a cache; a store that cannot be written goes without."""
    for name, array in arrays.items():
        try:
            handle, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=cache)
        except OSError:
            return
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, array, allow_pickle=False)
            os.chmod(temporary, 0o644)
            os.replace(temporary, cache / f"{name}.npy")
        except OSError:  # the disk is full, or another process has swapped the cache
            Path(temporary).unlink(missing_ok=True)
            return


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_cache(cache: Path, path: Path) -> dict[str, NDArray[Any]] | None:
    """The cached arrays; None when there is no cache or it belongs to another table."""
    try:
        stamp = json.loads((cache / "cache.json").read_text(encoding="utf-8"))
        table = path.stat()
        if stamp["version"] != _CACHE_VERSION or stamp["size"] != table.st_size:
            return None
        # A table older than its cache was not changed since. Of a copied store the times say nothing; it has
        # the same bytes. No time is kept in the cache itself: two equal stores are equal byte for byte.
        is_older = table.st_mtime_ns < (cache / "cache.json").stat().st_mtime_ns
        if not is_older and stamp["sha256"] != _digest(path):
            return None
        return {name: _map(cache / f"{name}.npy") for name in _CACHED}
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None  # a damaged cache is only a slower start


def _map(path: Path) -> NDArray[Any]:
    try:
        # A plain view of the map: indexing np.memmap itself costs microseconds per call.
        array: NDArray[Any] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError:  # an empty array cannot be mapped
        array = np.load(path, allow_pickle=False)
    return array
