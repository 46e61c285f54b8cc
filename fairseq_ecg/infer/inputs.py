"""What can be given to an encoder: manifests, prepared stores and record files, one record at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.readers.any_file import SUFFIXES, read_record
from fairseq_ecg.data.segments import read_row
from fairseq_ecg.data.store import Store
from fairseq_ecg.data.wfdb_record import find_headers
from fairseq_ecg.errors import DataError


@dataclass(frozen=True)
class Part:
    """A signal and the pieces of it that belong to the input.

    Shape:
        signal: (L, T), float32, mV.
        spans: start and num_samples of each piece, in samples of ``signal``; None: all of it.
    """

    signal: NDArray[np.float32]
    sampling_rate: int
    leads: tuple[str, ...]
    spans: tuple[tuple[int, int], ...] | None = None
    patient_id: str = ""
    """Where only the file says it."""


@dataclass(frozen=True)
class RecordInput:
    """One record that has been found but not read."""

    record_id: str
    patient_id: str
    """Empty when it is only known after reading."""
    source: str
    idx: int
    """Row in label arrays; -1 where there is none."""
    codes: tuple[str, ...] | None
    """Diagnosis codes; None when they are only known after reading, or not at all."""
    read: Callable[[], list[Part]]
    """Reads the samples; raises DataError when that fails."""


@dataclass(frozen=True)
class FileOptions:
    """What files that do not describe themselves need: see ``read_record``.

    A manifest's columns of these names come first.
    """

    sampling_rate: int | None = None
    leads: tuple[str, ...] | None = None
    unit: str | None = None


def find_inputs(path: Path, options: FileOptions) -> list[RecordInput]:
    """The records of a manifest (.tsv), a prepared store, a record file, or a folder of WFDB records.

    Raises:
        DataError: nothing of the kind is there.
    """
    if path.suffix.lower() == ".tsv":
        return list(manifest_inputs(Manifest.read(path), options))
    if (path / "store.json").is_file():
        return list(store_inputs(Store.open(path)))
    if path.is_dir():
        return [file_input(header, options) for header in find_headers(path)]
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return [file_input(path, options)]
    raise DataError(
        f"{path}: no manifest (.tsv), prepared store, folder of records or record file "
        f"({', '.join(SUFFIXES)}) is there"
    )


def store_inputs(store: Store) -> Iterator[RecordInput]:
    """Whole records of a store, in its order."""
    for row in range(store.num_records):
        yield RecordInput(
            record_id=store.record_id(row),
            patient_id=store.patient_id(row),
            source=store.source(row),
            idx=int(store.index.idx[row]),
            codes=store.labels(row),
            read=_StoreRecord(store, row, None),
        )


def file_input(path: Path, options: FileOptions) -> RecordInput:
    """One record file; patient and codes are not known before it is read."""
    return RecordInput(path.stem, "", "", -1, None, _FileRecord(path, options))


def manifest_inputs(manifest: Manifest, options: FileOptions) -> Iterator[RecordInput]:
    """Records of a manifest in order of first appearance, each with the segments the manifest names.

    Raises:
        DataError: a store is missing, or lacks a record.
    """
    order = np.argsort(manifest.record, kind="stable")
    starts = np.flatnonzero(np.diff(manifest.record[order], prepend=-1))
    groups = np.split(order, starts[1:])
    by_record = (
        _grouped_files(manifest, options) if manifest.files is not None else _grouped_store_rows(manifest)
    )
    for rows in sorted(groups, key=lambda rows: int(rows[0])):
        first = int(rows[0])
        codes, read = by_record(rows)
        record_id = manifest.record_ids[first]
        yield RecordInput(
            record_id=record_id,
            patient_id=manifest.patient_ids[first] or record_id,
            source=manifest.sources[first],
            idx=int(manifest.idx[first]),
            codes=codes,
            read=read,
        )


Reading = tuple[tuple[str, ...] | None, Callable[[], list[Part]]]


def _grouped_store_rows(manifest: Manifest) -> Callable[[NDArray[np.int64]], Reading]:
    stores = [Store.open(folder) for folder in manifest.store_dirs()]
    hashes = manifest.record_ids.hashes[manifest.record_ids.codes]
    code_of_row = (
        np.zeros(manifest.num_rows, dtype=np.int64) if manifest.stores is None else manifest.stores.codes
    )
    place = np.full(manifest.num_rows, -1, dtype=np.int64)
    for code, store in enumerate(stores):
        inside = code_of_row == code
        place[inside] = store.rows_of(hashes[inside])
    if (absent := np.flatnonzero(place < 0)).size:
        row = int(absent[0])
        raise DataError(
            f"{manifest.path}, line {manifest.line(row)}: record {manifest.record_ids[row]!r} is not in the "
            f"store {stores[int(code_of_row[row])].path}; make the manifest again from this store"
        )

    def reading(rows: NDArray[np.int64]) -> Reading:
        store, row = stores[int(code_of_row[rows[0]])], int(place[rows[0]])
        spans = tuple((int(manifest.start[r]), int(manifest.num_samples[r])) for r in rows)
        return store.labels(row), _StoreRecord(store, row, spans)

    return reading


def _grouped_files(manifest: Manifest, options: FileOptions) -> Callable[[NDArray[np.int64]], Reading]:
    def reading(rows: NDArray[np.int64]) -> Reading:
        return None, _FileRows(manifest, tuple(rows.tolist()), options)

    return reading


@dataclass(frozen=True)
class _StoreRecord:
    store: Store
    row: int
    spans: tuple[tuple[int, int], ...] | None

    def __call__(self) -> list[Part]:
        signal = self.store.read(self.row)
        return [Part(signal, self.store.sampling_rate, self.store.leads, self.spans)]


@dataclass(frozen=True)
class _FileRecord:
    path: Path
    options: FileOptions

    def __call__(self) -> list[Part]:
        record = read_record(self.path, **vars(self.options))
        return [Part(record.signal, record.sampling_rate, record.leads, None, record.patient_id)]


@dataclass(frozen=True)
class _FileRows:
    """Segments of one file, or of one file each as fairseq-signals writes them."""

    manifest: Manifest
    rows: tuple[int, ...]
    options: FileOptions

    def __call__(self) -> list[Part]:
        manifest, parts = self.manifest, []
        assert manifest.files is not None
        record: Record | None = None
        last: str | None = None
        for row in self.rows:
            if record is None or manifest.files[row] != last:
                record, last = read_row(manifest, row, **vars(self.options)), manifest.files[row]
            spans = ((int(manifest.start[row]), int(manifest.num_samples[row])),)
            parts.append(Part(record.signal, record.sampling_rate, record.leads, spans, record.patient_id))
        return parts
