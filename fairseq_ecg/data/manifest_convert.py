"""Manifests of other flows, to and from this package's.

These are fairseq-signals' TSVs, and the ``meta_split.csv`` and ``segmented_split.csv`` of its newer scripts
(ECG-FM).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.label_files import write_y
from fairseq_ecg.data.labels import LabelDefinition, label_definition, read_label_array
from fairseq_ecg.data.legacy import read_mat_segment
from fairseq_ecg.data.legacy_export import segment_stems, write_plain, write_segments
from fairseq_ecg.data.manifest import Manifest, write_manifest, write_text
from fairseq_ecg.data.manifest_edit import manifest_columns, read_folder
from fairseq_ecg.data.store_records import (
    StoreRecords,
    refuse_existing,
    root_and_folders,
    segment_samples,
    segments_of,
)
from fairseq_ecg.errors import ConfigError, DataError, nearest

FORMATS = ("fairseq_ecg", "fairseq_signals", "meta_split")


@dataclass
class ConvertReport:
    """What was written."""

    rows: dict[str, int] = field(default_factory=dict)
    """File name -> rows."""
    num_files: int = 0
    """.mat segments written."""
    num_unmatched: int = 0
    """Rows of a split table that no record of the stores belongs to."""
    notes: list[str] = field(default_factory=list)


def convert(
    source: Path,
    out_dir: Path,
    to: str,
    *,
    stores: Sequence[Path] = (),
    segment_sec: float | None = 5.0,
    overwrite: bool = False,
) -> ConvertReport:
    """Bring manifests into another format.

    Args:
        source: a folder of manifests or one file; or ``meta_split.csv`` (with ``stores`` that hold its
            records) or ``segmented_split.csv`` (which names .mat files).
        out_dir: folder to write to; .mat segments go to its folder ``segments``.
        to: ``fairseq_ecg``, ``fairseq_signals`` or ``meta_split``.
        stores: prepared stores, for ``meta_split.csv``.
        segment_sec: seconds per segment, for ``meta_split.csv``.
        overwrite: replace manifests that are there.

    Raises:
        ConfigError: an unknown format, or one the source is in already.
        DataError: a table or manifest that cannot be used.
    """
    if to not in FORMATS:
        raise ConfigError(f"--to {to}: {nearest(to, FORMATS)}")
    if source.suffix.lower() == ".csv":
        if to == "meta_split":
            raise ConfigError(f"{source} is in this format already")
        return _from_table(source, out_dir, to, stores, segment_sec, overwrite)
    manifests = read_folder(source)
    if stores:
        raise ConfigError(f"--stores belongs to a meta_split.csv; {source} names its own")
    if len({manifest.is_legacy for manifest in manifests.values()}) > 1:
        raise DataError(f"{source} mixes manifests of this package and of fairseq-signals")
    is_legacy = next(iter(manifests.values())).is_legacy
    if to == ("fairseq_signals" if is_legacy else "fairseq_ecg"):
        raise ConfigError(f"{source} is in the format {to} already")
    names = list(manifests) if to != "meta_split" else ["meta_split.csv", "segmented_split.csv"]
    refuse_existing(out_dir, names, overwrite)
    if to == "fairseq_ecg":
        return _from_legacy(manifests, out_dir)
    folder = source if source.is_dir() else source.parent
    return _to_legacy(manifests, out_dir, to, folder)


def _from_legacy(manifests: dict[str, Manifest], out_dir: Path) -> ConvertReport:
    """.mat segments stay where they are and become rows of files; labels they hold become y.npy."""
    report = ConvertReport()
    numbers: dict[str, int] = {}
    labels: dict[int, NDArray[np.float32]] = {}
    for name, manifest in manifests.items():
        root = manifest.root.resolve()
        columns = manifest_columns(manifest, np.arange(manifest.num_rows), root)
        columns["idx"] = [
            numbers.setdefault(f"{root}/{record}", len(numbers)) for record in columns["record_id"]
        ]
        patients: dict[int, str] = {}
        for row, idx in enumerate(columns["idx"]):
            assert isinstance(idx, int)
            if idx not in patients:
                segment = read_mat_segment(root / str(columns["path"][row]))
                patients[idx] = str(columns["record_id"][row] if segment.patient is None else segment.patient)
                if segment.label is not None:
                    labels[idx] = segment.label
        columns["patient_id"] = [patients[int(str(idx))] for idx in columns["idx"]]
        if manifest.label is not None:
            columns["label"] = manifest.label.tolist()
        # What makes several segments of one record is their name; each lies in a file of its own.
        write_manifest(out_dir / name, Path(os.path.relpath(root, out_dir.resolve())).as_posix(), columns)
        report.rows[name] = manifest.num_rows
    if labels:
        _write_found_labels(out_dir, labels, len(numbers), report)
    return report


def _write_found_labels(
    out_dir: Path, labels: dict[int, NDArray[np.float32]], num_records: int, report: ConvertReport
) -> None:
    widths = {len(label) for label in labels.values()}
    if len(widths) > 1:
        raise DataError(f"the .mat files hold labels of different lengths {sorted(widths)}")
    width = widths.pop()
    challenge = label_definition("cinc2021")
    if width == len(challenge):
        definition = challenge
        report.notes.append("26 labels per file were taken for the classes of cinc2021, in its order")
    else:
        names = tuple(f"label_{index}" for index in range(width))
        definition = LabelDefinition(names, tuple(frozenset([name]) for name in names), ("",) * width)
    y = np.full((num_records, width), np.nan, dtype=np.float32)
    for idx, label in labels.items():
        y[idx] = label
    write_y(out_dir, y)
    definition.write(out_dir / "label_def.csv")


def _to_legacy(manifests: dict[str, Manifest], out_dir: Path, to: str, folder: Path) -> ConvertReport:
    report = ConvertReport()
    root = (out_dir / "segments").resolve()
    meta: dict[tuple[object, ...], None] = {}
    numbers: dict[str, int] = {}
    cut: list[tuple[object, ...]] = []
    for name, manifest in manifests.items():
        if manifest.is_legacy and manifest.files is not None:
            files = [str(manifest.root.resolve() / manifest.files[row]) for row in range(manifest.num_rows)]
            stems = dict(enumerate(manifest.record_ids.values()))
        elif manifest.files is not None:
            raise DataError(f"{manifest.path} names single files; prepare a store of them and split that")
        else:
            stems = segment_stems(manifest)
            report.num_files += write_segments(manifest, np.arange(manifest.num_rows), stems, root)
            files = [
                f"{stems[int(manifest.record[row])]}_{manifest.segment[row]}.mat"
                for row in range(manifest.num_rows)
            ]
        if to == "fairseq_signals":
            labels = [] if manifest.label is None else [manifest.label]
            write_plain(
                out_dir / name,
                root,
                (
                    (files[row], manifest.num_samples[row], *(column[row] for column in labels))
                    for row in range(manifest.num_rows)
                ),
            )
            report.rows[name] = manifest.num_rows
            continue
        split = Path(name).stem
        for row in range(manifest.num_rows):
            stem = stems[int(manifest.record[row])].replace("/", "_")
            # fairseq-signals' own manifests have no idx: their records are numbered in order.
            number = numbers.setdefault(stem, len(numbers))
            idx = number if manifest.is_legacy else int(manifest.idx[row])
            meta[idx, f"{stem}.mat", split] = None
            path = files[row] if manifest.is_legacy else str(root / files[row])
            cut.append(
                (idx, f"{stem}_{manifest.segment[row]}.mat", path, int(manifest.num_samples[row]), split)
            )
    if to == "meta_split":
        _write_csv(out_dir / "meta_split.csv", ("idx", "save_file", "split"), list(meta))
        _write_csv(out_dir / "segmented_split.csv", ("idx", "save_file", "path", "sample_size", "split"), cut)
        report.rows = {"meta_split.csv": len(meta), "segmented_split.csv": len(cut)}
    elif (folder / "y.npy").is_file():
        y = read_label_array(folder / "y.npy")
        write_y(out_dir, y)
        unknown = int(np.isnan(y).any(axis=1).sum())
        if unknown:
            report.notes.append(
                f"{unknown} rows of y.npy hold NaN (unlabelled); fairseq-signals does not mask them"
            )
    return report


def _from_table(
    source: Path, out_dir: Path, to: str, stores: Sequence[Path], segment_sec: float | None, overwrite: bool
) -> ConvertReport:
    rows = _read_table(source)
    splits = list(dict.fromkeys(row["split"] for row in rows))
    for split in splits:
        if not split or not split.isprintable() or "/" in split or split.startswith(".") or len(split) > 100:
            raise DataError(f"{source}: split {split!r} cannot name a manifest")
    if stores:
        if to != "fairseq_ecg":
            raise ConfigError(
                "a table joined with stores becomes manifests of this package: --to fairseq_ecg"
            )
        refuse_existing(out_dir, [f"{split}.tsv" for split in splits], overwrite)
        return _join(source, rows, splits, out_dir, stores, segment_sec)
    if "sample_size" not in rows[0] or "path" not in rows[0]:
        raise ConfigError(
            f"{source} names records, not segments: give the stores that hold them with --stores STORE_DIR, "
            "or convert segmented_split.csv"
        )
    refuse_existing(out_dir, [f"{split}.tsv" for split in splits], overwrite)
    return _from_segmented(source, rows, splits, out_dir, to)


def _join(
    source: Path,
    rows: Sequence[dict[str, str]],
    splits: Sequence[str],
    out_dir: Path,
    stores: Sequence[Path],
    segment_sec: float | None,
) -> ConvertReport:
    """Find every row's record in the stores by its file's name, and cut its segments anew."""
    records = StoreRecords.open(stores)
    size = segment_samples(records.stores[0].sampling_rate, segment_sec)
    count = np.ones(len(records), np.int64) if size is None else records.num_samples // size
    names, sources = records.texts("record_id"), records.texts("source")
    known: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        known.setdefault(name.replace("/", "_"), []).append(place)
    report = ConvertReport()
    chosen: dict[str, list[int]] = {split: [] for split in splits}
    taken: dict[int, str] = {}
    for line, row in enumerate(rows, 2):
        stem = row["save_file"].removesuffix(".mat")
        if "sample_size" in row:  # a row per segment, numbered behind the record's name
            stem = stem.rpartition("_")[0] or stem
        found = _find(stem, known, sources)
        if found is None:
            report.num_unmatched += 1
        elif (other := taken.setdefault(found, row["split"])) != row["split"]:
            raise DataError(
                f"{source}, line {line}: record {names[found]!r} is in {other} and in {row['split']}"
            )
        elif found not in chosen[row["split"]][-1:]:
            chosen[row["split"]].append(found)
    if not taken:
        raise DataError(
            f"{source}: none of its {len(rows)} records is in the stores, e.g. {rows[0]['save_file']!r}; the "
            f"stores have names such as {names[0]!r}"
        )
    root, folders = root_and_folders(stores, out_dir)
    for split, members in chosen.items():
        unique = np.array([row for row in dict.fromkeys(members) if count[row]], dtype=np.int64)
        if not len(unique):
            continue
        at, segment = segments_of(unique, count)
        write_manifest(out_dir / f"{split}.tsv", root, records.columns(at, segment, size, folders))
        report.rows[f"{split}.tsv"] = len(at)
    return report


def _find(stem: str, known: dict[str, list[int]], sources: Sequence[str]) -> int | None:
    """The record of ``source_some_folders_record``: the longest end of the name that is a record."""
    parts = stem.split("_")
    for start in range(len(parts)):
        candidates = known.get("_".join(parts[start:]), [])
        if len(candidates) > 1:
            candidates = [row for row in candidates if sources[row] and sources[row] in stem]
        if len(candidates) == 1:
            return candidates[0]
    return None


def _from_segmented(
    source: Path, rows: Sequence[dict[str, str]], splits: Sequence[str], out_dir: Path, to: str
) -> ConvertReport:
    """Rows that name .mat segments, below their common folder."""
    paths = [Path(os.path.abspath(source.parent / row["path"])) for row in rows]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    sizes = [row["sample_size"] for row in rows]
    for line, size in enumerate(sizes, 2):
        if not (size.isascii() and size.isdigit() and int(size[:12]) > 0):
            raise DataError(
                f"{source}, line {line}: sample_size is {size!r}, a whole number from 1 is needed"
            )
    report = ConvertReport()
    numbers: dict[str, int] = {}
    for split in splits:
        members = [row for row in range(len(rows)) if rows[row]["split"] == split]
        files = [paths[row].relative_to(root).as_posix() for row in members]
        report.rows[f"{split}.tsv"] = len(members)
        if to == "fairseq_signals":
            write_plain(
                out_dir / f"{split}.tsv", root, zip(files, (sizes[row] for row in members), strict=True)
            )
            continue
        parts = [file.removesuffix(".mat").rpartition("_") for file in files]
        ids = [record if mark and part.isdigit() else record + mark + part for record, mark, part in parts]
        segments = [int(part) if mark and part.isdigit() else 0 for _, mark, part in parts]
        given = [rows[row].get("idx", "") for row in members]
        columns: dict[str, list[object]] = {
            "idx": [
                int(idx) if idx.isascii() and idx.isdigit() else numbers.setdefault(record, len(numbers))
                for idx, record in zip(given, ids, strict=True)
            ],
            "record_id": [*ids],
            "patient_id": [""] * len(members),
            "source": [rows[row].get("source") or "" for row in members],
            "segment": [*segments],
            "start": [0] * len(members),
            "num_samples": [sizes[row] for row in members],
            "path": [*files],
        }
        relative = Path(os.path.relpath(root, out_dir.resolve())).as_posix()
        write_manifest(out_dir / f"{split}.tsv", relative, columns)
    return report


def _read_table(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [{name: (row[name] or "").strip() for name in row if name} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, AttributeError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None
    if not rows or not {"save_file", "split"} <= set(rows[0]):
        raise DataError(
            f"{path}: needed are the columns save_file and split, found are {list(rows[0]) if rows else []}"
        )
    return rows


def _write_csv(path: Path, names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    for row in rows:
        if any(mark in str(cell) for cell in row for mark in ',"\n'):
            raise DataError(f"{path}: {row} holds a comma, a quote or a line end; rename the record")
    lines = [",".join(names), *(",".join(map(str, row)) for row in rows)]
    write_text(path, "\n".join(lines) + "\n")
