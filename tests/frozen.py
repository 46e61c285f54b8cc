"""A store, manifests and checkpoints for tests of what uses an encoder without training it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fairseq_ecg.config import CheckpointConfig, Choice
from fairseq_ecg.contracts import STANDARD_LEADS, InputContract, Record
from fairseq_ecg.data.manifest import write_manifest
from fairseq_ecg.data.store import StoreWriter
from fairseq_ecg.models.classifier import EcgTransformerClassifier, EcgTransformerClassifierConfig
from fairseq_ecg.models.ecg_transformer import EcgTransformer, EcgTransformerConfig

RATE = 100
NUM_SAMPLES = 200
CODES = ("164889003", "164890007", "426783006")
"""Atrial fibrillation, atrial flutter, sinus rhythm."""
NOT_SCORED = "106068003"
"""Atrial rhythm: a diagnosis, but no class of the challenges."""

_NAMES = {EcgTransformer: "ecg_transformer", EcgTransformerClassifier: "ecg_transformer_classifier"}

CONTRACT = InputContract(sampling_rate=RATE, num_samples=NUM_SAMPLES)


def make_model(seed: int = 0, **options: object) -> EcgTransformer:
    torch.manual_seed(seed)
    tiny = EcgTransformerConfig.tiny()
    return EcgTransformer(EcgTransformerConfig(**{**vars(tiny), **options})).eval()


def make_classifier(seed: int = 0, num_labels: int = 3) -> EcgTransformerClassifier:
    """A classifier whose head has weights large enough to say something."""
    torch.manual_seed(seed)
    tiny = vars(EcgTransformerClassifierConfig.tiny())
    model = EcgTransformerClassifier(
        EcgTransformerClassifierConfig(**{**tiny, "num_labels": num_labels})
    ).eval()
    with torch.no_grad():
        model.proj.weight *= 4
    return model


def save_checkpoint(
    folder: Path,
    model: EcgTransformer | EcgTransformerClassifier,
    *,
    sources: tuple[str, ...] = (),
    contract: InputContract = CONTRACT,
    label_names: tuple[str, ...] = (),
) -> Path:
    """Write a run folder with one checkpoint; returns the run folder."""
    from fairseq_ecg.trainer.checkpoint import CheckpointFolder

    checkpoints = CheckpointFolder(CheckpointConfig(save_dir=str(folder)))
    checkpoints.prepare()
    config = {
        "model": Choice(_NAMES[type(model)], model.cfg).to_dict(),
        "contract": contract.to_dict(),
        "label_names": list(label_names),
        "thresholds": None,
        "sources": list(sources),
        "task": {"_name": "ecg_pretraining", "data": str(folder.parent / "manifests")},
        "dataset": {"train_subset": "train"},
    }
    checkpoints.save(
        tensors=model.state_dict(),
        optimizer=None,
        state={"num_updates": 1},
        config=config,
        links=["checkpoint_last"],
    )
    return folder


def make_manifests(
    folder: Path, *, num_patients: int = 60, seed: int = 0, source: str = "synthetic", seconds: int = 4
) -> Path:
    """Write ``folder/store`` and ``folder/manifests``; two records per patient, three codes.

    A code shows as a wave of its own frequency; patients are split 3 : 1 : 2.
    """
    generator = np.random.default_rng(seed)
    time = np.arange(seconds * RATE) / RATE
    rows: dict[str, list[tuple[object, ...]]] = {"train": [], "valid": [], "test": []}
    with StoreWriter(
        folder / "store", sampling_rate=RATE, leads=STANDARD_LEADS, choices={"made_for": "tests"}
    ) as writer:
        for patient in range(num_patients):
            present = generator.random(len(CODES)) < 0.4
            split = ("train", "valid", "test", "train", "test", "train")[patient % 6]
            for number in range(2):
                wave = sum(on * np.sin(2 * np.pi * (2 + 5 * k) * time) for k, on in enumerate(present))
                noise = generator.normal(0.0, 0.2, (len(STANDARD_LEADS), len(time)))
                record = Record(
                    record_id=f"r{patient:03d}_{number}",
                    patient_id=f"p{patient:03d}",
                    source=source,
                    signal=(generator.uniform(0.5, 1.5, (len(STANDARD_LEADS), 1)) * wave + noise).astype(
                        "f4"
                    ),
                    leads=STANDARD_LEADS,
                    sampling_rate=RATE,
                    labels=tuple(code for code, on in zip(CODES, present, strict=True) if on)
                    or (NOT_SCORED,),
                )
                idx = writer.add(record, leads_present=STANDARD_LEADS)
                for segment in range(len(time) // NUM_SAMPLES):
                    start = segment * NUM_SAMPLES
                    rows[split].append(
                        (idx, record.record_id, record.patient_id, source, segment, start, NUM_SAMPLES)
                    )
    manifests = folder / "manifests"
    manifests.mkdir()
    names = ("idx", "record_id", "patient_id", "source", "segment", "start", "num_samples")
    for split, split_rows in rows.items():
        columns = {name: [row[i] for row in split_rows] for i, name in enumerate(names)}
        write_manifest(manifests / f"{split}.tsv", "../store", columns)
    lines = [f"{k},label{k},{code},\n" for k, code in enumerate(CODES)]
    (manifests / "label_def.csv").write_text("index,name,codes,description\n" + "".join(lines))
    return manifests
