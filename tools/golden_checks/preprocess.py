"""ECG-FM's preparation: strip padding, reorder, resample, standardise, segment; its tables and .mat files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.legacy import read_mat_segment
from fairseq_ecg.data.record import reference_leads
from fairseq_ecg.data.signal import (
    ConstantLead,
    Resampling,
    lead_statistics,
    nan_rows,
    reference_flat_rows,
    resample,
    segments,
    strip_zero_padding,
    zero_padding,
    zscore,
)
from tools.golden_checks.report import Report


def check(folder: Path, report: Report) -> None:
    """Recompute every record of a fixture folder from its input on."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with np.load(folder / "io.npz", allow_pickle=False) as arrays:
        known: set[str] = set()
        for name, record in config["records"].items():
            golden = {key.split("/", 1)[1]: arrays[key] for key in arrays.files if key.startswith(f"{name}/")}
            known |= {f"{name}/{key}" for key in golden}
            _check_record(name, config, record, golden, report)
        for key in sorted(set(arrays.files) - known):
            report.fail(key, "belongs to no record of config.json")


def _check_record(
    name: str, config: dict[str, Any], record: dict[str, Any], golden: dict[str, NDArray[Any]], report: Report
) -> None:
    signal = golden["input"]
    if "input_padded" in golden:
        padded = golden["input_padded"]
        report.equal(
            f"{name}/zero_padding_stripped", list(zero_padding(padded)), record["zero_padding_stripped"]
        )
        report.equal(f"{name}/input", strip_zero_padding(padded), signal)
    report.equal(f"{name}/n_samples", signal.shape[1], record["n_samples"])
    # The reference takes the chosen leads once each and in their standard order.
    leads = [config["lead_order"][index] for index in sorted(set(record["leads_to_load"]))]
    ordered = reference_leads(signal, record["lead_names"], leads, np.nan)
    mean, deviation = lead_statistics(ordered)
    report.close(f"{name}/input_mean", mean, golden["input_mean"], atol=1e-6)
    report.close(f"{name}/input_std", deviation, golden["input_std"], atol=1e-6)

    rate = config["desired_sample_rate"]
    resampled = resample(ordered, record["fs"], rate, Resampling.ENDPOINTS)
    report.close(f"{name}/resampled", resampled, golden["resampled"], atol=1e-5)
    mean, deviation = (values[:, None] for values in lead_statistics(resampled))
    report.close(f"{name}/mean", mean, golden["mean"], atol=1e-6)
    report.close(f"{name}/std", deviation, golden["std"], atol=1e-6)
    standardised = {strategy: zscore(resampled, ConstantLead(strategy)) for strategy in record["strategies"]}
    for strategy, values in standardised.items():
        report.close(f"{name}/standardized_{strategy}", values, golden[f"standardized_{strategy}"], atol=1e-5)

    cut = segments(standardised[record["strategies"][0]], int(config["segment_seconds"] * rate))
    found = _findings(ordered, leads, record["lead_names"])
    found |= {
        "resampled_n_samples": resampled.shape[1],
        "n_segments": len(cut),
        "segment_file_suffixes": [f"_{index}.mat" for index in range(len(cut))],
        "segment_size": cut.shape[2] if len(cut) else None,
    }
    for key, expected in record["expect"].items():
        if key in found:
            report.equal(f"{name}/{key}", found[key], expected)
        elif key.startswith("mat_keys_"):
            if expected is not None:
                _check_mat_file(f"{name}/{key}", expected, record, rate, resampled, report)
        else:
            report.fail(f"{name}/{key}", "unknown expectation")


def _findings(ordered: NDArray[Any], leads: list[str], names: list[str]) -> dict[str, Any]:
    """The columns of ECG-FM's table of records that tell about leads."""
    gone = np.isnan(ordered).all(axis=1)
    constant = reference_flat_rows(ordered)
    return {
        "avail_leads": [lead for lead in leads if lead in names],
        "nan_any": bool(nan_rows(ordered).any()),
        "nan_leads_any": bool(gone.any()),
        "nan_leads": [lead for lead, is_gone in zip(leads, gone, strict=True) if is_gone],
        "constant_leads_any": bool(constant.any()),
        "constant_leads": [lead for lead, is_flat in zip(leads, constant, strict=True) if is_flat],
    }


def _check_mat_file(
    name: str, keys: list[str], record: dict[str, Any], rate: int, signal: NDArray[Any], report: Report
) -> None:
    """A file with these keys, as the reference writes it, is read as what it holds."""
    from scipy.io import savemat

    mean, deviation = (values[:, None] for values in lead_statistics(signal))
    content = {
        "feats": np.nan_to_num(signal).astype(np.float64),
        "idx": 7,
        "org_sample_rate": record["fs"],
        "curr_sample_rate": rate,
        "org_sample_size": record["n_samples"],
        "curr_sample_size": signal.shape[1],
        "mean": mean,
        "std": deviation,
        "segment_i": 1,
    }
    if unknown := sorted(set(keys) - set(content)):
        report.fail(name, f"unknown keys {unknown}")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record_1.mat"
        savemat(path, {key: content[key] for key in keys})
        segment = read_mat_segment(path)
    is_same = np.array_equal(segment.signal, np.nan_to_num(signal))
    report.equal(name, (is_same, segment.sampling_rate, segment.idx), (True, rate, 7))
