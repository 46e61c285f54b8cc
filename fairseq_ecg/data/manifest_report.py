"""What a manifest names: whether it can be read, and how much of what it is."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.segments import FileSegments, StoreSegments, open_segments
from fairseq_ecg.data.store import Store
from fairseq_ecg.errors import DataError

_SHOWN = 5


def check_manifest(manifest: Manifest, *, is_fast: bool) -> int:
    """Read every record (or file) a manifest names; returns how many there are.

    Raises:
        DataError: a row that points nowhere, a file that cannot be read, samples with another checksum.
    """
    if manifest.files is not None:
        segments = FileSegments(manifest, STANDARD_LEADS, None)
        failures = [] if is_fast else _unreadable(segments)
        if is_fast:
            failures = [
                f"line {manifest.line(row)}: {manifest.files[row]} is missing"
                for row in range(manifest.num_rows)
                if not (manifest.root / manifest.files[row]).is_file()
            ]
        if failures:
            raise DataError(_listed(manifest.path, failures, "segments cannot be read"))
        return len(np.unique(manifest.record))
    stored = open_segments(manifest, Store.open(manifest.store_dirs()[0]).leads, None)
    assert isinstance(stored, StoreSegments)
    _, rows = np.unique(manifest.record, return_index=True)
    if not is_fast:
        broken = [
            f"record {manifest.record_ids[row]!r} in {store.path}"
            for row in rows.tolist()
            for store, place in (stored.locate(row),)
            if not store.is_intact(place)
        ]
        if broken:
            raise DataError(_listed(manifest.path, broken, "records have another checksum than when written"))
    return len(rows)


def leaks(manifests: Sequence[Manifest], *, is_fast: bool) -> list[str]:
    """What lies in several manifests or several times in one, one remark each: patients, records, signals.

    Signals are compared by the stores' checksums, or by the files' content (not with ``is_fast``).
    """
    found = [
        f"{count} patients are in {first.path} and in {second.path}"
        for first, second, count in shared_patients(manifests)
    ]
    seen: dict[object, tuple[str, Path]] = {}
    counts: Counter[tuple[Path, Path]] = Counter()
    examples: dict[tuple[Path, Path], str] = {}
    for manifest in manifests:
        for record, signal in _signals(manifest, is_fast):
            name, path = seen.setdefault(signal, (record, manifest.path))
            if name != record:
                counts[path, manifest.path] += 1
                examples.setdefault((path, manifest.path), f"{name!r} and {record!r}")
    for (first_path, second_path), count in counts.items():
        where = (
            f"within {first_path}" if first_path == second_path else f"in {first_path} and in {second_path}"
        )
        example = examples[first_path, second_path]
        found.append(f"{count} records have the samples of another one {where}, e.g. {example}")
    return found


def shared_sources(manifests: Sequence[Manifest], sources: Sequence[str]) -> list[str]:
    """Sources of the manifests that are among others, whatever their spelling (``ptb-xl``, ``ptbxl``)."""
    known = {_plain(name) for name in sources}
    return sorted({name for item in manifests for name in item.sources.values() if _plain(name) in known})


def _plain(name: str) -> str:
    return "".join(mark for mark in name.lower() if mark.isalnum())


def _signals(manifest: Manifest, is_fast: bool) -> Iterator[tuple[str, object]]:
    """Name of every record (or file) and what tells its samples from others'."""
    if manifest.files is not None:
        for name in [] if is_fast else sorted(set(manifest.files.values())):
            with (manifest.root / name).open("rb") as file:
                yield str(manifest.root / name), hashlib.file_digest(file, "sha256").digest()
        return
    stored = open_segments(manifest, Store.open(manifest.store_dirs()[0]).leads, None)
    assert isinstance(stored, StoreSegments)
    _, rows = np.unique(manifest.record, return_index=True)
    for row in rows.tolist():
        store, place = stored.locate(row)
        samples, crc = int(store.index.num_samples[place]), int(store.index.crc32[place])
        yield f"{store.path.name}/{store.record_id(place)}", (store.leads, samples, crc)


def shared_patients(manifests: Sequence[Manifest]) -> Iterator[tuple[Manifest, Manifest, int]]:
    """Pairs of manifests with patients in common, and how many; a gallery and its probe are meant to have."""
    patients = [_patients(manifest) for manifest in manifests]
    for (first, mine), (second, theirs) in combinations(zip(manifests, patients, strict=True), 2):
        stems = {first.path.stem.rpartition("_")[::2], second.path.stem.rpartition("_")[::2]}
        if {part for _, part in stems} == {"gallery", "probe"} and len({name for name, _ in stems}) == 1:
            continue
        if both := mine & theirs:
            yield first, second, len(both)


def describe(manifest: Manifest) -> list[str]:
    """Counts, lengths, sources and labels of one manifest, one line each."""
    num_records, num_patients = len(np.unique(manifest.record)), len(np.unique(manifest.patient))
    lines = [
        f"{manifest.path}: {num_records} records, {num_patients} patients, {manifest.num_rows} segments",
        f"  samples per segment: {manifest.num_samples.min()} to {manifest.num_samples.max()}",
    ]
    if manifest.files is None:
        rate = Store.open(manifest.store_dirs()[0]).sampling_rate
        lines.append(f"  {manifest.num_samples.sum() / rate / 3600:.2f} hours at {rate} Hz")
    count = np.bincount(manifest.sources.codes, minlength=manifest.sources.num_values)
    for name, number in zip(manifest.sources.values(), count.tolist(), strict=True):
        lines.append(f"  source {name or '(none)'}: {number} segments")
    return lines + _label_lines(manifest)


def _label_lines(manifest: Manifest) -> list[str]:
    folder = manifest.path.parent
    if manifest.is_legacy or not (folder / "y.npy").is_file() or not (folder / "label_def.csv").is_file():
        return []
    with (folder / "label_def.csv").open(encoding="utf-8", newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    y = np.load(folder / "y.npy", mmap_mode="r", allow_pickle=False)
    if y.ndim != 2 or y.shape[1] != len(names) or len(y) <= manifest.idx.max():
        raise DataError(
            f"{folder / 'y.npy'} has shape {y.shape}, label_def.csv has {len(names)} classes and "
            f"{manifest.path} idx up to {manifest.idx.max()}; make all of them again with: "
            "fairseq-ecg manifest split ... --labels NAME --overwrite"
        )
    y = y[np.unique(manifest.idx)]
    positive = np.nansum(y, axis=0).astype(int)
    unlabelled = int(np.isnan(y).all(axis=1).sum())
    return [f"  {unlabelled} records are unlabelled"] + [
        f"  label {name}: {number} records" for name, number in zip(names, positive, strict=True)
    ]


def _patients(manifest: Manifest) -> set[tuple[str, str]]:
    """(source, patient_id), or (source, record_id) where the patient is not known."""
    _, rows = np.unique(manifest.patient, return_index=True)
    return {
        (manifest.sources[row], manifest.patient_ids[row] or f"record {manifest.record_ids[row]}")
        for row in rows.tolist()
    }


def _unreadable(segments: FileSegments) -> list[str]:
    failures = []
    for row in range(segments.manifest.num_rows):
        try:
            segments.witness(row)
        except DataError as error:
            failures.append(f"line {segments.manifest.line(row)}: {error}")
    return failures


def _listed(path: Path, failures: Sequence[str], what: str) -> str:
    more = f" and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
    return f"{path}: {len(failures)} {what}: {'; '.join(failures[:_SHOWN])}{more}"
