"""From prepared stores to train, valid and test manifests: seeded, the same on every machine."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.manifest import write_manifest
from fairseq_ecg.data.store import Store
from fairseq_ecg.data.uniform import text_key
from fairseq_ecg.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from fairseq_ecg.data.labels import LabelDefinition

SPLITS = ("train", "valid", "test")
GROUPINGS = ("patient", "record", "fold", "source")
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
        by: what is never divided between two splits: ``patient``, ``record``, ``fold`` or ``source``.
        valid, test: a share of the patients or records; with ``fold`` and ``source`` comma lists of names.
        seed: of the draw.
        folds: table with the columns record_id and fold; None: the folds the stores' sources publish.
    """

    segment_sec: float | None = 5.0
    by: str = "patient"
    valid: str | None = None
    test: str | None = None
    seed: int = 0
    folds: Path | None = None

    def __post_init__(self) -> None:
        if self.by not in GROUPINGS:
            raise ConfigError(f"--by {self.by}: {nearest(self.by, GROUPINGS)}")
        if self.segment_sec is not None and self.segment_sec <= 0:
            raise ConfigError(f"--segment-sec {self.segment_sec}: must be more than 0")
        if self.by in ("patient", "record") and self.fraction("valid") + self.fraction("test") >= 1:
            raise ConfigError(f"--valid {self.valid} and --test {self.test} leave nothing to train on")
        if self.by != "fold" and self.folds is not None:
            raise ConfigError("--folds FILE (columns record_id and fold) goes with --by fold")

    def fraction(self, name: str) -> float:
        """The share of ``valid`` or ``test``, 0.1 unless given."""
        text = getattr(self, name)
        try:
            value = 0.1 if text is None else float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < 1:
            raise ConfigError(f"--{name} {text}: with --by {self.by} this is a share from 0 to below 1")
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
    """Write ``train.tsv``, ``valid.tsv``, ``test.tsv``; with ``labels`` also ``y.npy`` and ``label_def.csv``.

    Segments follow each other without overlap from the start of a record; an incomplete last one is dropped.

    Raises:
        ConfigError: options that contradict each other or name an unknown fold or source.
        DataError: stores of different rates, existing manifests without ``overwrite``, nothing to train on.
    """
    stores = [Store.open(path) for path in store_dirs]
    _check_stores(stores)
    names = [f"{split}.tsv" for split in SPLITS] + (["y.npy", "label_def.csv"] if labels else [])
    if (found := [name for name in names if (manifest_dir / name).exists()]) and not overwrite:
        raise DataError(
            f"{manifest_dir / found[0]} exists; choose another folder, or replace the manifests "
            "with --overwrite"
        )
    try:
        manifest_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{manifest_dir} cannot be made: {error.strerror}; choose another folder") from error
    records = _Records(stores)
    report = SplitReport(was_renumbered=records.was_renumbered)
    split = _assign(records, options)
    size = _segment_samples(stores[0].sampling_rate, options.segment_sec)
    length = records.num_samples
    count = np.ones(len(length), dtype=np.int64) if size is None else length // size
    report.num_unused = int((split == _UNUSED).sum())
    report.num_short_records = int((count == 0).sum())
    report.num_tails = 0 if size is None else int(((length % size != 0) & (count > 0)).sum())
    if not ((split == 0) & (count > 0)).any():
        raise DataError(
            f"nothing to train on: {len(length)} records, {report.num_short_records} shorter than a segment "
            f"of {options.segment_sec} s; choose shorter segments or smaller --valid and --test"
        )
    root, folders = _root_and_folders(store_dirs, manifest_dir)
    patients = records.group("patient")
    for number, name in enumerate(SPLITS):
        chosen = np.flatnonzero((split == number) & (count > 0))
        path = manifest_dir / f"{name}.tsv"
        if not len(chosen):
            path.unlink(missing_ok=True)  # of an earlier split that is being overwritten
            continue
        num_patients = len({patients[row] for row in chosen.tolist()})
        report.splits[name] = Counts(len(chosen), num_patients, int(count[chosen].sum()))
        rows = np.repeat(chosen, count[chosen])
        segment = np.arange(len(rows)) - np.repeat(np.cumsum(count[chosen]) - count[chosen], count[chosen])
        write_manifest(path, root, records.columns(rows, segment, size, folders))
    if labels is not None:
        report.num_unlabelled = _write_labels(manifest_dir, records, labels)
    return report


class _Records:
    """The records of all stores, one after the other."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = stores
        self.store = np.repeat(np.arange(len(stores)), [store.num_records for store in stores])
        self.num_samples = np.concatenate([store.index.num_samples.astype(np.int64) for store in stores])
        self.idx = np.concatenate([store.index.idx for store in stores])
        self.was_renumbered = len(np.unique(self.idx)) < len(self.idx)
        if self.was_renumbered:
            self.idx = np.arange(len(self.idx), dtype=np.int64)
        self._texts: dict[str, list[str]] = {}

    def texts(self, name: str) -> list[str]:
        """One text per record."""
        if name not in self._texts:
            self._texts[name] = [
                values[code]
                for store in self.stores
                for column in (store.index.text(name),)
                for values in (column.values(),)
                for code in column.codes.tolist()
            ]
        return self._texts[name]

    def group(self, by: str) -> list[str]:
        """What holds records together; a record without patient_id is a patient of its own."""
        if by == "patient":
            pairs = zip(self.texts("patient_id"), self.texts("record_id"), strict=True)
            return [patient or f"record {record}" for patient, record in pairs]
        return self.texts({"record": "record_id", "source": "source"}[by])

    def columns(
        self, rows: NDArray[np.int64], segment: NDArray[np.int64], size: int | None, folders: Sequence[str]
    ) -> dict[str, list[object]]:
        """The columns of a manifest of these records' segments."""

        def pick(name: str) -> list[object]:
            texts = self.texts(name)
            return [texts[row] for row in rows.tolist()]

        length = self.num_samples[rows] if size is None else np.full(len(rows), size)
        columns: dict[str, list[object]] = {
            "idx": self.idx[rows].tolist(),
            "record_id": pick("record_id"),
            "patient_id": pick("patient_id"),
            "source": pick("source"),
            "segment": segment.tolist(),
            "start": (segment * length).tolist(),
            "num_samples": length.tolist(),
        }
        if len(self.stores) > 1:
            columns["store"] = [folders[number] for number in self.store[rows].tolist()]
        return columns


def _assign(records: _Records, options: SplitOptions) -> NDArray[np.int64]:
    """Number of the split of every record."""
    if options.by in ("patient", "record"):
        groups = records.group(options.by)
        ordered = sorted(set(groups), key=lambda name: (text_key(f"{options.seed}/{name}"), name))
        num_valid, num_test = (_share(options.fraction(name), len(ordered)) for name in ("valid", "test"))
        split_of = dict.fromkeys(ordered, 0)
        split_of.update(dict.fromkeys(ordered[:num_valid], 1))
        split_of.update(dict.fromkeys(ordered[num_valid : num_valid + num_test], 2))
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


def _share(fraction: float, count: int) -> int:
    """Rounded, but at least one of three or more where anything is asked for."""
    return max(int(fraction * count + 0.5), 1 if fraction > 0 and count >= 3 else 0)


def _folds(records: _Records, options: SplitOptions) -> list[str]:
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
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if not rows or not {"record_id", "fold"} <= set(rows[0]):
        raise DataError(
            f"{path}: needed are the columns record_id and fold, found are {list(rows[0]) if rows else []}"
        )
    fold = {row["record_id"]: row["fold"] for row in rows}
    folds = [fold.get(record, "") for record in records.texts("record_id")]
    if not any(folds):
        raise DataError(f"{path} names none of the stores' records, e.g. {records.texts('record_id')[0]!r}")
    return folds


def _check_stores(stores: Sequence[Store]) -> None:
    seen: set[Path] = set()
    for store in stores:
        if store.path.resolve() in seen:
            raise ConfigError(f"{store.path} is given twice")
        seen.add(store.path.resolve())
        if store.sampling_rate != stores[0].sampling_rate:
            raise DataError(
                f"{store.path} has {store.sampling_rate} Hz, {stores[0].path} {stores[0].sampling_rate} Hz; "
                "stores of one manifest have one rate: fairseq-ecg prepare "
                f"{store.json['choices'].get('reader', 'SOURCE')} RAW_DIR STORE_DIR "
                f"--sampling-rate {stores[0].sampling_rate}"
            )
        if not store.num_records:
            raise DataError(f"{store.path} holds no records; prepare it again")


def _segment_samples(sampling_rate: int, segment_sec: float | None) -> int | None:
    if segment_sec is None:
        return None
    size = round(segment_sec * sampling_rate)
    if size < 1:
        raise ConfigError(f"--segment-sec {segment_sec} is less than one sample at {sampling_rate} Hz")
    return size


def _root_and_folders(store_dirs: Sequence[Path], manifest_dir: Path) -> tuple[str, list[str]]:
    """The root as the manifest names it, and the stores below it."""
    folders = [path.resolve() for path in store_dirs]
    root = folders[0] if len(folders) == 1 else Path(os.path.commonpath(folders))
    inside = [path.relative_to(root).as_posix() for path in folders]
    if "." in inside and len(inside) > 1:
        raise ConfigError(f"{root} is a store and holds another one; keep stores beside each other")
    return Path(os.path.relpath(root, manifest_dir.resolve())).as_posix(), inside


def _write_labels(manifest_dir: Path, records: _Records, labels: LabelDefinition) -> int:
    """Write y.npy, one row per idx; a record without any code is unlabelled. Returns how many those are."""
    texts = records.texts("labels")
    different = sorted(set(texts))
    hot = labels.multi_hot([tuple(text.split("|")) if text else () for text in different])
    hot[[not text for text in different]] = np.nan
    place = {text: row for row, text in enumerate(different)}
    y = np.full((int(records.idx.max()) + 1, len(labels.names)), np.nan, dtype=np.float32)
    y[records.idx] = hot[[place[text] for text in texts]]
    handle, name = tempfile.mkstemp(prefix=".y.npy.", dir=manifest_dir)
    with os.fdopen(handle, "wb") as file:
        np.save(file, y, allow_pickle=False)
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(name, 0o666 & ~mask)
    os.replace(name, manifest_dir / "y.npy")
    labels.write(manifest_dir / "label_def.csv")
    return sum(not text for text in texts)
