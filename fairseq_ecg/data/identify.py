"""Manifests for patient identification: classes to train on, and a gallery and a probe to find in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.manifest import write_manifest
from fairseq_ecg.data.store_records import (
    StoreRecords,
    refuse_existing,
    root_and_folders,
    segment_samples,
    segments_of,
)
from fairseq_ecg.data.uniform import text_key
from fairseq_ecg.errors import ConfigError, DataError, nearest

FILES = ("train", "valid_gallery", "valid_probe")
UNITS = ("records", "segments")


@dataclass(frozen=True, kw_only=True)
class IdentifyOptions:
    """How gallery and probe are chosen.

    Args:
        segment_sec: seconds per segment; None: the whole record is one segment.
        valid: share of the patients with a gallery and a probe that are held out.
        seed: of the draw.
        between: a patient's gallery and probe are two ``records``, or two ``segments`` that may be of one.
        exclude: sources that are not trained on.
    """

    segment_sec: float | None = 5.0
    valid: float = 0.2
    seed: int = 0
    between: str = "records"
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.valid <= 1:
            raise ConfigError(f"--valid {self.valid}: a share from 0 to 1")
        if self.between not in UNITS:
            raise ConfigError(f"--between {self.between}: {nearest(self.between, UNITS)}")
        if self.segment_sec is not None and not 0 < self.segment_sec < float("inf"):
            raise ConfigError(f"--segment-sec {self.segment_sec}: must be more than 0")


@dataclass
class IdentifyReport:
    """What ``identify`` wrote and left out."""

    num_classes: int = 0
    num_train_segments: int = 0
    num_valid_patients: int = 0
    num_single: int = 0
    """Patients of the evaluation stores without a second record or segment."""
    num_shared: int = 0
    """Training records left out: the patient, or the very same samples, are in gallery or probe."""
    files: list[Path] = field(default_factory=list)


def identify(
    store_dirs: Sequence[Path],
    manifest_dir: Path,
    options: IdentifyOptions,
    *,
    evaluate: Sequence[Path] = (),
    overwrite: bool = False,
) -> IdentifyReport:
    """Write ``train.tsv``, ``valid_gallery.tsv`` and ``valid_probe.tsv`` with a column ``label``.

    Labels count the patients of the training from 0 without gap, and those of gallery and probe likewise.
    With ``evaluate`` all gallery and probe patients are of these stores and the others are trained on. A
    patient's first segment of his first record (by date, then name) is the gallery's, that of the second
    record the probe's.

    Raises:
        ConfigError: options that contradict each other.
        DataError: no patient to train on, or none with two records.
    """
    refuse_existing(manifest_dir, [f"{name}.tsv" for name in FILES], overwrite)
    dirs = [*store_dirs, *evaluate]
    records = StoreRecords.open(dirs)
    size = segment_samples(records.stores[0].sampling_rate, options.segment_sec)
    count = np.ones(len(records), np.int64) if size is None else records.num_samples // size
    sources, patients = records.texts("source"), records.group("patient")
    keys = [f"{source}\t{patient}" for source, patient in zip(sources, patients, strict=True)]
    is_held = records.store >= len(store_dirs)
    signals = _signals(records)
    units = _units(records, keys, count, options.between, signals, is_held if evaluate else None)
    held = _held_out(units, options, is_all=bool(evaluate))
    pairs = {key: units[key][:2] for key in held}
    report = IdentifyReport(num_valid_patients=len(pairs))
    if evaluate:
        report.num_single = len({keys[row] for row in np.flatnonzero(is_held)}) - len(units)
    train = _training_rows(records, keys, is_held, pairs, options, count, signals, report)
    if not len(train):
        raise DataError("no patient is left to train on; choose a smaller --valid or other stores")
    if options.valid > 0 and not pairs:
        raise DataError(
            f"no patient has two {options.between} of {options.segment_sec} s for gallery and probe; choose "
            "--between segments, shorter segments or --valid 0"
        )
    root, folders = root_and_folders(dirs, manifest_dir)
    classes = {key: label for label, key in enumerate(sorted({keys[row] for row in train.tolist()}))}
    report.num_classes = len(classes)
    rows, segment = segments_of(train, count)
    report.num_train_segments = len(rows)
    parts = {"train": (rows, segment, [classes[keys[row]] for row in rows.tolist()])}
    for place, name in enumerate(FILES[1:]):
        chosen = [pairs[key][place] for key in sorted(pairs)]
        row, number = (np.array([unit[i] for unit in chosen], dtype=np.int64) for i in (0, 1))
        parts[name] = (row, number, list(range(len(chosen))))
    for name, (row, number, label) in parts.items():
        path = manifest_dir / f"{name}.tsv"
        if not len(row):
            path.unlink(missing_ok=True)  # of an earlier run that is being overwritten
            continue
        write_manifest(path, root, {**records.columns(row, number, size, folders), "label": label})
        report.files.append(path)
    return report


_Unit = tuple[int, int]


def _units(
    records: StoreRecords,
    keys: Sequence[str],
    count: NDArray[np.int64],
    between: str,
    signals: Sequence[tuple[int, int]],
    among: NDArray[np.bool_] | None,
) -> dict[str, list[_Unit]]:
    """Patient -> (record's row, segment) of two or more candidates, oldest first; others are left out.

    A record with the samples of an earlier one is no candidate: as a probe it would be found for certain.
    """
    dates, names = records.texts("date"), records.texts("record_id")
    rows = [row for row in np.flatnonzero(count > 0).tolist() if among is None or among[row]]
    found: dict[str, list[_Unit]] = {}
    seen: set[tuple[str, tuple[int, int]]] = set()
    for row in sorted(rows, key=lambda row: (dates[row], names[row])):
        if (keys[row], signals[row]) in seen:
            continue
        seen.add((keys[row], signals[row]))
        own = found.setdefault(keys[row], [])
        own.extend(
            (row, segment) for segment in range(2 if between == "segments" else 1) if segment < count[row]
        )
    return {key: units for key, units in found.items() if len(units) > 1}


def _signals(records: StoreRecords) -> list[tuple[int, int]]:
    """Length and checksum of every record's samples: the same for records that are copies."""
    sums = np.concatenate([store.index.crc32 for store in records.stores])
    return list(zip(records.num_samples.tolist(), sums.tolist(), strict=True))


def _held_out(units: dict[str, list[_Unit]], options: IdentifyOptions, *, is_all: bool) -> list[str]:
    if is_all:
        return sorted(units)
    ordered = sorted(units, key=lambda key: (text_key(f"{options.seed}/{key}"), key))
    return ordered[: int(options.valid * len(ordered) + 0.5)]


def _training_rows(
    records: StoreRecords,
    keys: Sequence[str],
    is_held: NDArray[np.bool_],
    pairs: dict[str, list[_Unit]],
    options: IdentifyOptions,
    count: NDArray[np.int64],
    signals: Sequence[tuple[int, int]],
    report: IdentifyReport,
) -> NDArray[np.int64]:
    """Records to train on: no patient and no signal of gallery or probe among them."""
    sources = records.texts("source")
    for name in options.exclude:
        if name not in sources:
            raise ConfigError(f"--exclude {name}: no such source; {nearest(name, sources)}")
    seen = {signals[row] for units in pairs.values() for row, _ in units}
    rows = []
    for row in np.flatnonzero((count > 0) & ~is_held).tolist():
        if sources[row] in options.exclude:
            continue
        if keys[row] in pairs or signals[row] in seen:
            # A held-out patient's other records are unused; what is of another patient's name is a duplicate.
            report.num_shared += 1
            continue
        rows.append(row)
    return np.array(rows, dtype=np.int64)
