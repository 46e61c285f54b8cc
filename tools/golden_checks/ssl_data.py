"""ecg-selfsupervised's data: resampling, lead order, stratified folds, processed folders, chunks, items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.chunks import chunk_table
from fairseq_ecg.data.normalise import Normalisation, normalise_record
from fairseq_ecg.data.readers import ecg_selfsupervised
from fairseq_ecg.data.readers.ecg_selfsupervised import EcgSelfSupervised, EcgSelfSupervisedConfig
from fairseq_ecg.data.record import FRANK_LEADS, reference_leads
from fairseq_ecg.data.signal import crop, lead_statistics, reference_resampled_length, resize_spline
from fairseq_ecg.data.stratify import stratified_folds
from tools.golden_checks.report import Report

LEADS = (*ecg_selfsupervised.LEADS, *FRANK_LEADS)
RATE = 100
"""Hz, of everything the system trains on."""


def check(folder: Path, report: Report) -> None:
    """Recompute every group of arrays of a fixture folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with np.load(folder / "io.npz", allow_pickle=False) as arrays:
        golden = {name: arrays[name] for name in arrays.files}
    for name, case in config["resample"].items():
        _check_resampling(name, case, golden, report)
    case = config["stratify"]
    folds = stratified_folds(
        case["labels"],
        case["classes"],
        [1 / case["n_folds"]] * case["n_folds"],
        case["np_seed_inside"],
    )
    report.equal("stratify/fold", folds, golden.pop("stratify/fold"))
    lengths = golden["memmap/length"].tolist()
    for name, case in config["chunks"].items():
        report.equal(f"chunks/{name}", chunk_table(lengths, **case), golden.pop(f"chunks/{name}"))
    _check_folder(folder / "processed_example", golden, report)
    for name in golden:
        report.fail(name, "unknown array")


def _check_resampling(
    name: str, case: dict[str, Any], golden: dict[str, NDArray[Any]], report: Report
) -> None:
    signal = golden.pop(f"{name}/x").T
    wanted = [lead.lower() for lead in LEADS[: case["channels"]]]
    ordered = reference_leads(signal, [lead.lower() for lead in case["lead_names"]], wanted, 0.0)
    num_samples = case["n_out"]
    length = reference_resampled_length(case["n_in"], case["fs"], RATE)
    report.equal(f"{name}/n_out", length, num_samples)
    for suffix, reference_clip in (("y", True), ("y_newer_clip", False)):
        resampled = resize_spline(ordered, num_samples, reference_clip=reference_clip).T.astype(np.float32)
        report.close(f"{name}/{suffix}", resampled, golden.pop(f"{name}/{suffix}"), atol=1e-5)


def _check_folder(folder: Path, golden: dict[str, NDArray[Any]], report: Report) -> None:
    """The records of a processed folder, and one item cut out of them and normalised."""
    items = EcgSelfSupervised(EcgSelfSupervisedConfig(raw_sampling_rate=RATE)).records(folder)
    records = [item.read() for item in items]
    signals = [record.signal for record in records]
    lengths = np.array([record.num_samples for record in records])
    report.equal("memmap/length", lengths, golden.pop("memmap/length"))
    report.equal("memmap/all", np.concatenate([signal.T for signal in signals]), golden.pop("memmap/all"))
    statistics = np.mean([lead_statistics(signal) for signal in signals], axis=0)
    for name, values in zip(("mean", "std"), statistics, strict=True):
        expected = golden.pop(f"memmap/{name}")
        report.equal(f"memmap/{name}", np.load(folder / f"{name}.npy", allow_pickle=False), expected)
        report.close(f"memmap/{name} of the records", values, expected, atol=1e-6)

    record, start, expected = (golden.pop(f"item/{name}") for name in ("record", "start", "y"))
    segment = crop(signals[int(record)], int(start), expected.shape[1])
    item = normalise_record(segment, records[int(record)].leads, Normalisation.PTBXL_ZSCORE)
    report.close("item/y", item, expected, atol=1e-6)
