"""From prepared stores to train, valid and test manifests: seeded, the same on every machine."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.label_files import label_matrix, write_label_files
from fairseq_ecg.data.labels import LabelDefinition
from fairseq_ecg.data.manifest import write_manifest
from fairseq_ecg.data.store_records import (
    StoreRecords,
    refuse_existing,
    root_and_folders,
    segment_samples,
    segments_of,
)
from fairseq_ecg.data.stratify import stratified_folds
from fairseq_ecg.data.uniform import text_key
from fairseq_ecg.errors import ConfigError, DataError, nearest

SPLITS = ("train", "valid", "test")
GROUPINGS = ("patient", "record", "fold", "source", "time")
DRAWN = ("patient", "record")
_SHARES = (*DRAWN, "time")
LABEL_FILES = ("y.npy", "label_def.csv", "pos_weight.txt")
_UNUSED = -1


@dataclass
class Counts:
    """Size of one split."""

    records: int = 0
    patients: int = 0
    segments: int = 0

    def __str__(self) -> str:
        return f"{self.records} records, {self.patients} patients, {self.segments} segments"


@dataclass
class SplitReport:
    """What ``split_stores`` made and what it left out."""

    splits: dict[str, Counts] = field(default_factory=dict)
    num_short_records: int = 0
    """Records shorter than one segment, left out."""
    num_tails: int = 0
    """Records whose last, incomplete segment was dropped."""
    num_unused: int = 0
    """Records whose fold is in no split."""
    was_renumbered: bool = False
    """``idx`` of several stores overlapped and was numbered anew."""
    num_unlabelled: int = 0


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """How to split.

    Args:
        segment_sec: seconds per segment; None: the whole record is one segment.
        by: what is never divided between two splits: ``patient``, ``record``, ``fold`` or ``source``; or
            ``time``: the oldest records are trained on, the newest tested, patients kept together.
        valid, test: a share of the patients or records; with ``fold`` and ``source`` comma lists of names.
        seed: of the draw.
        folds: table with the columns record_id and fold; None: the folds the stores' sources publish.
        stratify: labels that have the same share in every split.
    """

    segment_sec: float | None = 5.0
    by: str = "patient"
    valid: str | None = None
    test: str | None = None
    seed: int = 0
    folds: Path | None = None
    stratify: LabelDefinition | None = None

    def __post_init__(self) -> None:
        if self.by not in GROUPINGS:
            raise ConfigError(f"--by {self.by}: {nearest(self.by, GROUPINGS)}")
        if self.segment_sec is not None and not 0 < self.segment_sec < float("inf"):
            raise ConfigError(f"--segment-sec {self.segment_sec}: must be more than 0")
        if self.by in _SHARES and self.fraction("valid") + self.fraction("test") > 1:
            raise ConfigError(f"--valid {self.valid} and --test {self.test} are more than all there is")
        if self.by != "fold" and self.folds is not None:
            raise ConfigError("--folds FILE (columns record_id and fold) goes with --by fold")
        if self.by not in DRAWN and self.stratify is not None:
            raise ConfigError(f"--stratify goes with --by patient or record, not --by {self.by}")

    @property
    def trains(self) -> bool:
        """Whether anything is left to train on; not so when valid and test are all there is."""
        return self.by not in _SHARES or self.fraction("valid") + self.fraction("test") < 1

    def fraction(self, name: str) -> float:
        """The share of ``valid`` or ``test``; 0.1 unless given, or what the other one leaves."""
        text = getattr(self, name)
        if text is None:
            other = getattr(self, "test" if name == "valid" else "valid")
            return min(0.1, 1 - self.fraction("test" if name == "valid" else "valid")) if other else 0.1
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise ConfigError(f"--{name} {text}: with --by {self.by} this is a share from 0 to 1")
        return value

    def names(self, split: str) -> set[str]:
        """The folds or sources of ``valid`` or ``test``."""
        text = getattr(self, split)
        return {name.strip() for name in (text or "").split(",") if name.strip()}


def split_stores(
    store_dirs: Sequence[Path],
    manifest_dir: Path,
    options: SplitOptions,
    *,
    labels: LabelDefinition | None = None,
    overwrite: bool = False,
) -> SplitReport:
    """Write ``train.tsv``, ``valid.tsv``, ``test.tsv``; with ``labels`` also the label files.

    Segments follow each other without overlap from the start of a record; an incomplete last one is dropped.

    Raises:
        ConfigError: options that contradict each other or name an unknown fold or source.
        DataError: stores of different rates, existing manifests without ``overwrite``, nothing to train on.
    """
    records = StoreRecords.open(store_dirs)
    names = [f"{split}.tsv" for split in SPLITS] + ([*LABEL_FILES] if labels else [])
    refuse_existing(manifest_dir, names, overwrite)
    report = SplitReport(was_renumbered=records.was_renumbered)
    split = _assign(records, options)
    size = segment_samples(records.stores[0].sampling_rate, options.segment_sec)
    length = records.num_samples
    count = np.ones(len(length), dtype=np.int64) if size is None else length // size
    report.num_unused = int((split == _UNUSED).sum())
    report.num_short_records = int((count == 0).sum())
    report.num_tails = 0 if size is None else int(((length % size != 0) & (count > 0)).sum())
    if not (((split == 0) if options.trains else (split >= 0)) & (count > 0)).any():
        raise DataError(
            f"nothing to {'train on' if options.trains else 'write'}: {len(length)} records, "
            f"{report.num_short_records} shorter than a segment of {options.segment_sec} s; choose "
            "shorter segments or smaller --valid and --test"
        )
    root, folders = root_and_folders(store_dirs, manifest_dir)
    patients = records.group("patient")
    for number, name in enumerate(SPLITS):
        chosen = np.flatnonzero((split == number) & (count > 0))
        path = manifest_dir / f"{name}.tsv"
        if not len(chosen):
            path.unlink(missing_ok=True)  # of an earlier split that is being overwritten
            continue
        num_patients = len({patients[row] for row in chosen.tolist()})
        report.splits[name] = Counts(len(chosen), num_patients, int(count[chosen].sum()))
        rows, segment = segments_of(chosen, count)
        write_manifest(path, root, records.columns(rows, segment, size, folders))
    if labels is not None:
        members = {
            name: records.idx[(split == number) & (count > 0)]
            for number, name in enumerate(SPLITS)
            if name in report.splits
        }
        y = label_matrix(records, labels)
        report.num_unlabelled = int(np.isnan(y[records.idx]).all(axis=1).sum())
        write_label_files(manifest_dir, y, labels, members)
    return report


def _assign(records: StoreRecords, options: SplitOptions) -> NDArray[np.int64]:
    """Number of the split of every record."""
    if options.by == "time":
        return _by_time(records, options)
    if options.by in DRAWN:
        groups = records.group(options.by)
        ordered = sorted(set(groups), key=lambda name: (text_key(f"{options.seed}/{name}"), name))
        if options.stratify is not None:
            split_of = _stratified(records, groups, ordered, options)
        else:
            split_of = _cut(ordered, options)
        return np.array([split_of[name] for name in groups], dtype=np.int64)
    groups = records.group("source") if options.by == "source" else _folds(records, options)
    valid, test = options.names("valid"), options.names("test")
    known = set(groups) - {""}
    if not valid and not test:
        raise ConfigError(
            f"--by {options.by} needs names with --valid or --test, of {', '.join(sorted(known))}"
        )
    for name in sorted(valid | test):
        if name not in known:
            raise ConfigError(f"--by {options.by}: no {options.by} {name!r}; {nearest(name, known)}")
    if both := sorted(valid & test):
        raise ConfigError(f"{options.by} {both[0]!r} is in --valid and in --test; choose one")
    codes = [_UNUSED if not name else 1 if name in valid else 2 if name in test else 0 for name in groups]
    return np.array(codes, dtype=np.int64)


def _cut(ordered: Sequence[str], options: SplitOptions) -> dict[str, int]:
    """Valid from the start of the order, test behind it, the rest for training."""
    num_valid, num_test = (_share(options.fraction(name), len(ordered)) for name in ("valid", "test"))
    split_of = dict.fromkeys(ordered, 0)
    split_of.update(dict.fromkeys(ordered[:num_valid], 1))
    split_of.update(dict.fromkeys(ordered[num_valid : num_valid + num_test], 2))
    return split_of


def _stratified(
    records: StoreRecords, groups: Sequence[str], ordered: Sequence[str], options: SplitOptions
) -> dict[str, int]:
    """Patients or records so that every label has its share in every split; the unlabelled are cut apart."""
    assert options.stratify is not None
    place = {name: number for number, name in enumerate(ordered)}
    labels: list[list[int]] = [[] for _ in ordered]
    hot = options.stratify.multi_hot(records.codes())
    for record, label in zip(*np.nonzero(hot), strict=True):
        labels[place[groups[record]]].append(int(label))
    valid, test = options.fraction("valid"), options.fraction("test")
    ratios = (1 - valid - test, valid, test)
    folds = stratified_folds(labels, len(options.stratify), ratios, options.seed % 2**32)
    split_of = _cut([name for name, fold in zip(ordered, folds, strict=True) if fold < 0], options)
    split_of.update({name: int(fold) for name, fold in zip(ordered, folds, strict=True) if fold >= 0})
    return split_of


def _by_time(records: StoreRecords, options: SplitOptions) -> NDArray[np.int64]:
    """The oldest records for training, then valid, the newest for the test.

    A patient belongs where most of his records are by date (the later split of two with equally many), so
    that none lies in two splits. Records without date are left out.
    """
    dates = records.texts("date")
    order = sorted((row for row, date in enumerate(dates) if date), key=lambda row: (dates[row], row))
    if not order:
        raise DataError("--by time: no record of the stores has a date; choose --by patient")
    num_valid, num_test = (_share(options.fraction(name), len(order)) for name in ("valid", "test"))
    first_test = len(order) - num_test
    votes: dict[str, list[int]] = {}
    patients = records.group("patient")
    for rank, row in enumerate(order):
        number = 2 if rank >= first_test else 1 if rank >= first_test - num_valid else 0
        votes.setdefault(patients[row], [0, 0, 0])[number] += 1
    split_of = {
        name: max(range(3), key=lambda number: (count[number], number)) for name, count in votes.items()
    }
    codes = [split_of[patient] if date else _UNUSED for patient, date in zip(patients, dates, strict=True)]
    return np.array(codes, dtype=np.int64)


def _share(fraction: float, count: int) -> int:
    """Rounded, but at least one of three or more where anything is asked for."""
    return max(int(fraction * count + 0.5), 1 if fraction > 0 and count >= 3 else 0)


def _folds(records: StoreRecords, options: SplitOptions) -> list[str]:
    path = options.folds
    if path is None:
        folds = records.texts("fold")
        if not any(folds):
            names = ", ".join(str(store.path) for store in records.stores)
            raise DataError(
                f"{names}: no record has an official fold (readers such as ptbxl keep them); "
                "give --folds FILE with the columns record_id and fold"
            )
        return folds
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="," if path.suffix == ".csv" else "\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None
    if not rows or not {"record_id", "fold"} <= set(rows[0]):
        raise DataError(
            f"{path}: needed are the columns record_id and fold, found are {list(rows[0]) if rows else []}"
        )
    fold = {row["record_id"]: row["fold"] or "" for row in rows}
    folds = [fold.get(record, "") for record in records.texts("record_id")]
    if not any(folds):
        raise DataError(f"{path} names none of the stores' records, e.g. {records.texts('record_id')[0]!r}")
    return folds
