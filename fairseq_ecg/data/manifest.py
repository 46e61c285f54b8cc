"""Manifests: which segments of which records make a split.

A manifest is a UTF-8 TSV. Its first line is ``#root<TAB>path`` (relative to the manifest's folder, or
absolute), its second the column names, then one row per segment, a view of a record:

* ``idx``: the record's row in label arrays; ``record_id``, ``patient_id``, ``source``: texts;
* ``segment``: number of the segment in its record; ``start``, ``num_samples``: where it lies, in samples;
* ``store``: folder of the prepared store below the root (without this column the root is the store);
* ``path``: instead of a store, the record's own file below the root;
* ``sampling_rate``, ``leads`` (comma list), ``unit``: beside ``path``, what the file does not say of itself;
* ``label``: class number (identification), when every row has one;
* any further columns are labels, kept as texts.

fairseq-signals' manifests (no ``#root``) are recognised and read by ``legacy``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.legacy import read_legacy_manifest
from fairseq_ecg.data.table import Kind, TextColumn, read_header, read_table
from fairseq_ecg.data.whole_file import whole_file
from fairseq_ecg.errors import DataError

ROOT_MARK = "#root"
COLUMNS = ("idx", "record_id", "patient_id", "source", "segment", "start", "num_samples")
_KINDS = {
    "idx": Kind.INTEGER,
    "record_id": Kind.TEXT,
    "patient_id": Kind.TEXT,
    "source": Kind.TEXT,
    "segment": Kind.INTEGER,
    "start": Kind.INTEGER,
    "num_samples": Kind.INTEGER,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Manifest:
    """The rows of one manifest as arrays.

    Shape:
        idx, segment, start, num_samples, record, patient: (N,) int64. ``record`` and ``patient`` are codes:
            equal for rows of one record or patient. A patient belongs to one source, since data sets number
            their patients independently; a row without patient_id is a patient of its own record.
        pairs: (P, 2) int64 rows that the manifest itself pairs, or None.
        label: (N,) int64 class that the manifest itself names, or None.
    """

    path: Path
    root: Path
    idx: NDArray[np.int64]
    segment: NDArray[np.int64]
    start: NDArray[np.int64]
    num_samples: NDArray[np.int64]
    record: NDArray[np.int64]
    patient: NDArray[np.int64]
    record_ids: TextColumn
    patient_ids: TextColumn
    sources: TextColumn
    stores: TextColumn | None = None
    """Store folders below the root; None: the root is the store, or ``files`` are named."""
    files: TextColumn | None = None
    """Files below the root, one record or segment each."""
    is_legacy: bool = False
    """Rows are fairseq-signals' .mat segments."""
    pairs: NDArray[np.int64] | None = None
    label: NDArray[np.int64] | None = None
    extra: Mapping[str, TextColumn] = field(default_factory=dict)
    """Further columns by name."""

    @property
    def num_rows(self) -> int:
        return len(self.idx)

    @classmethod
    def read(cls, path: Path, *, allow_outside: bool = False) -> Self:
        """Read a manifest of either format.

        Args:
            path: the .tsv file.
            allow_outside: accept rows that name stores or files outside the root.

        Raises:
            DataError: an unreadable file, a missing column, a bad value, an empty manifest or a row that
                leaves the root, with the line.
        """
        line = _first_line(path)
        if not line.startswith(ROOT_MARK):
            legacy = cls(**read_legacy_manifest(path))
            legacy.validate(allow_outside=allow_outside)
            return legacy
        mark, _, text = line.partition("\t")
        if mark != ROOT_MARK or not text.strip():
            raise DataError(
                f"{path}, line 1: {line[:80]!r}; the first line is '#root', a tab and the root folder"
            )
        root = path.parent / text.strip()
        names = read_header(path, skip_lines=1)
        kinds = {**_KINDS, **{name: Kind.TEXT for name in names if name not in _KINDS}}
        columns = read_table(path, kinds, skip_lines=1)
        integers = {name: columns[name] for name in ("idx", "segment", "start", "num_samples")}
        texts = {name: column for name, column in columns.items() if isinstance(column, TextColumn)}
        if "store" in texts and "path" in texts:
            raise DataError(f"{path}, line 2: has the columns store and path; a row is in a store or a file")
        place = texts.pop("store", None)
        files = texts.pop("path", None)
        manifest = cls(
            path=path,
            root=root,
            record_ids=texts["record_id"],
            patient_ids=texts["patient_id"],
            sources=texts["source"],
            record=_combine(texts["record_id"].codes, (place or files or texts["source"]).codes),
            patient=_patients(texts["patient_id"], texts["source"], texts["record_id"]),
            stores=place,
            files=files,
            label=_classes(texts.get("label")),
            extra={name: column for name, column in texts.items() if name not in _KINDS},
            **integers,  # type: ignore[arg-type]
        )
        manifest.validate(allow_outside=allow_outside)
        return manifest

    def validate(self, *, allow_outside: bool = False) -> None:
        """Check what can be checked without opening a store.

        Raises:
            DataError: no rows, empty segments, the same segment twice, paths that leave the root.
        """
        if not self.num_rows:
            raise DataError(f"{self.path} names no segments; make it again with: fairseq-ecg manifest split")
        if (empty := np.flatnonzero(self.num_samples == 0)).size:
            raise DataError(f"{self.path}, line {self.line(int(empty[0]))}: num_samples is 0; remove the row")
        order = np.lexsort((self.segment, self.record))
        same = (np.diff(self.record[order]) == 0) & (np.diff(self.segment[order]) == 0)
        if same.any():
            row = int(order[np.flatnonzero(same)[0] + 1])
            raise DataError(
                f"{self.path}, line {self.line(row)}: segment {self.segment[row]} of record "
                f"{self.record_ids[row]!r} appears twice; remove one row"
            )
        self._check_paths()
        for column in (self.stores, self.files):
            if column is not None and not allow_outside:
                self._check_inside(column)

    def line(self, row: int) -> int:
        """Number of a row's line in the file, from 1."""
        return row + (2 if self.is_legacy else 3) + (1 if self.is_legacy and self.pairs is not None else 0)

    def store_dirs(self) -> list[Path]:
        """Folders of the stores, by code of ``stores``."""
        return [self.root] if self.stores is None else [self.root / name for name in self.stores.values()]

    def _check_paths(self) -> None:
        """Refuse names that no file can have, which the system would refuse in words of its own."""
        for column in (self.stores, self.files):
            for name in [] if column is None else column.values():
                if not _can_name_a_file(name):
                    raise DataError(f"{self.path}: {name[:80]!r} cannot name a file; the manifest is damaged")
        if not _can_name_a_file(str(self.root)):
            raise DataError(f"{self.path}, line 1: {str(self.root)[:80]!r} cannot name a folder")

    def _check_inside(self, column: TextColumn) -> None:
        root = os.path.realpath(self.root)
        inside: dict[str, bool] = {}
        for code, name in enumerate(column.values()):
            folder = os.path.join(root, os.path.dirname(name))
            path = os.path.join(root, name)
            # A manifest may name a million files: folders are resolved once, files only where they are links.
            if folder not in inside:
                inside[folder] = _is_inside(folder, root)
            is_plain = os.path.basename(name) not in ("", "..") and not os.path.islink(path)
            if not inside[folder] or not (is_plain or _is_inside(path, root)):
                row = int(np.flatnonzero(column.codes == code)[0])
                raise DataError(
                    f"{self.path}, line {self.line(row)}: {name!r} lies outside the root {self.root}; "
                    "correct the row or the root (training reads it with task.allow_outside_root=true)"
                )


def _can_name_a_file(name: str) -> bool:
    return "\0" not in name and len(name) < 4000 and max(map(len, name.encode().split(b"/"))) < 256


def _classes(column: TextColumn | None) -> NDArray[np.int64] | None:
    """A column ``label`` of class numbers (identification); texts stay labels of another kind."""
    if column is None:
        return None
    values = column.values()
    if not all(text.isascii() and text.isdigit() and len(text) < 10 for text in values):
        return None
    return np.array([int(text) for text in values], dtype=np.int64)[column.codes]


def _is_inside(path: str, root: str) -> bool:
    """Whether a path lies below the root once its links are followed."""
    return os.path.commonpath((os.path.realpath(path), root)) == root


def write_manifest(path: Path, root: str, columns: Mapping[str, Sequence[object]]) -> None:
    """Write a manifest under a temporary name and move it into place.

    Args:
        path: file to write.
        root: what line 1 names.
        columns: values by column name, all of one length.
    """
    lines = [f"{ROOT_MARK}\t{root}", "\t".join(columns)]
    lines += ["\t".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    write_text(path, "\n".join(lines) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            line = file.readline(1 << 16)
    except OSError as error:
        raise DataError(
            f"manifest {path} cannot be read: {error.strerror}; "
            "make manifests with: fairseq-ecg manifest split STORE_DIR MANIFEST_DIR"
        ) from error
    return line.decode("utf-8-sig", errors="replace").rstrip("\r\n")


def _combine(first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.int64]:
    """Codes of pairs of codes, numbered in order of first appearance."""
    both = first.astype(np.int64) * (int(second.max(initial=0)) + 1) + second
    _, index, inverse = np.unique(both, return_index=True, return_inverse=True)
    rank = np.empty(len(index), dtype=np.int64)
    rank[np.argsort(index)] = np.arange(len(index))
    return rank[inverse]


def _patients(patients: TextColumn, sources: TextColumn, records: TextColumn) -> NDArray[np.int64]:
    codes = patients.codes
    if "" in patients.values():
        unknown = codes == patients.values().index("")
        codes = np.where(unknown, patients.num_values + records.codes, codes).astype(np.int32)
    return _combine(codes, sources.codes)
