"""A store and manifests small enough to train on in every test: noise with a patient's own slow wave."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.manifest import write_manifest
from fairseq_ecg.data.store import StoreWriter

RATE = 100
NUM_LABELS = 3
SEGMENT = 5 * RATE


def make_manifests(
    folder: Path, *, num_patients: int = 12, records_per_patient: int = 2, seconds: int = 10, seed: int = 0
) -> Path:
    """Write ``folder/store`` and ``folder/manifests`` with train, valid and test; return the latter.

    Patients are split 8 : 2 : 2 (in twelfths); label k of a patient is bit k of its number, and shows as a
    wave of its own frequency, so that it can be learnt.
    """
    rng = np.random.default_rng(seed)
    time = np.arange(seconds * RATE) / RATE
    rows: dict[str, list[tuple[object, ...]]] = {"train": [], "valid": [], "test": []}
    labels = []
    with StoreWriter(
        folder / "store", sampling_rate=RATE, leads=STANDARD_LEADS, choices={"made_for": "tests"}
    ) as writer:
        for patient in range(num_patients):
            bits = [(patient >> k) & 1 for k in range(NUM_LABELS)]
            wave = sum(bit * np.sin(2 * np.pi * (3 + 4 * k) * time) for k, bit in enumerate(bits))
            split = "train" if patient % 6 < 4 else "valid" if patient % 6 == 4 else "test"
            for number in range(records_per_patient):
                noise = rng.normal(0.0, 0.3, (len(STANDARD_LEADS), len(time)))
                gains = rng.uniform(0.5, 1.5, (len(STANDARD_LEADS), 1))
                record = Record(
                    record_id=f"r{patient:03d}_{number}",
                    patient_id=f"p{patient:03d}",
                    source="tiny",
                    signal=(gains * wave + noise).astype(np.float32),
                    leads=STANDARD_LEADS,
                    sampling_rate=RATE,
                )
                idx = writer.add(record, leads_present=STANDARD_LEADS)
                labels.append(bits)
                for segment in range(len(time) // SEGMENT):
                    rows[split].append(
                        (
                            idx,
                            record.record_id,
                            record.patient_id,
                            "tiny",
                            segment,
                            segment * SEGMENT,
                            SEGMENT,
                        )
                    )
    manifests = folder / "manifests"
    manifests.mkdir()
    names = ("idx", "record_id", "patient_id", "source", "segment", "start", "num_samples")
    for split, split_rows in rows.items():
        columns = {name: [row[i] for row in split_rows] for i, name in enumerate(names)}
        write_manifest(manifests / f"{split}.tsv", "../store", columns)
    np.save(manifests / "y.npy", np.array(labels, dtype=np.float32))
    names_of_labels = "".join(f"{k},label{k},code{k},\n" for k in range(NUM_LABELS))
    (manifests / "label_def.csv").write_text("index,name,codes,description\n" + names_of_labels)
    return manifests
