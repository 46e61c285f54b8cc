"""Small stores and manifests for the tests of the data side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.manifest import Manifest, write_manifest
from fairseq_ecg.data.store import Store, StoreWriter

RATE = 100


def signals(lengths: Sequence[int], num_leads: int = 12, seed: int = 0) -> list[NDArray[np.float32]]:
    """Smooth-ish random signals of a few mV."""
    rng = np.random.default_rng(seed)
    return [rng.normal(0.1, 0.8, (num_leads, length)).astype(np.float32) for length in lengths]


def make_store(
    path: Path,
    lengths: Sequence[int],
    *,
    leads: Sequence[str] = STANDARD_LEADS,
    rate: int = RATE,
    shard_bytes: int = 2**31,
    first_idx: int = 0,
    records_per_patient: int = 2,
    source: str = "made",
    seed: int = 0,
    folds: Sequence[str] = (),
    dates: Sequence[str] = (),
    labels: Sequence[Sequence[str]] = (),
    prefix: str = "",
) -> Store:
    """A store of random records ``r0, r1, ...`` of these lengths, of patients ``p0, p1, ...``."""
    default = (("426177001", "164889003"), ("426783006",))
    with StoreWriter(
        path,
        sampling_rate=rate,
        leads=leads,
        choices={"reader": "made"},
        shard_bytes=shard_bytes,
        first_idx=first_idx,
    ) as writer:
        for i, signal in enumerate(signals(lengths, len(leads), seed)):
            record = Record(
                record_id=f"{prefix}r{i}",
                patient_id=f"{prefix}p{i // records_per_patient}",
                source=source,
                signal=signal,
                leads=tuple(leads),
                sampling_rate=rate,
                labels=tuple(labels[i]) if labels else default[i % 2],
                age=40.0 + i,
                sex="female",
                fold=folds[i] if folds else "",
                date=dates[i] if dates else "",
            )
            writer.add(record, leads_present=leads)
    return Store.open(path)


def make_manifest(path: Path, store: Store, size: int | None) -> Manifest:
    """All segments of ``size`` samples of a store (whole records with None)."""
    columns: dict[str, list[object]] = {
        name: [] for name in ("idx", "record_id", "patient_id", "source", "segment", "start", "num_samples")
    }
    for row in range(store.num_records):
        total = int(store.index.num_samples[row])
        length = total if size is None else size
        for segment in range(total // length):
            values = (
                int(store.index.idx[row]),
                store.record_id(row),
                store.patient_id(row),
                store.source(row),
                segment,
                segment * length,
                length,
            )
            for name, value in zip(columns, values, strict=True):
                columns[name].append(value)
    write_manifest(path, str(store.path), columns)
    return Manifest.read(path)
