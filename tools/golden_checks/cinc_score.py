"""Checker of the Challenge score cases: arrays, and from files where the case has them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.errors import DataError
from fairseq_ecg.metrics.cinc import SINUS_RHYTHM, ScoreTable, builtin_table, confusion
from fairseq_ecg.metrics.cinc_files import (
    Outputs,
    Scores,
    find_headers,
    read_labels,
    read_outputs,
    score,
    write_class_scores,
    write_scores,
)
from tools.golden_checks.report import Report

ATOL = 1e-9
NUMBERS = (
    "auroc",
    "auprc",
    "accuracy",
    "f_measure",
    "f_beta_measure",
    "g_beta_measure",
    "challenge_metric",
    "auroc_classes",
    "auprc_classes",
    "f_measure_classes",
)


def check(folder: Path, report: Report) -> None:
    """Recompute one case; a case with ``labels/`` is read from its files first."""
    config = json.loads((folder / "config.json").read_text())
    year = int(config["year"])
    with np.load(folder / "io.npz") as archive:
        golden = dict(archive)
    prefixes = ("strict_", "lenient_") if "strict_labels" in golden else ("",)
    table = _table(config, golden, f"{prefixes[0]}normal_index", year)
    report.close("weights", table.weights, golden["weights"], atol=ATOL)
    outputs = Outputs(golden["binary_outputs"], golden["scalar_outputs"])
    if (folder / "labels").is_dir():
        headers = find_headers(folder / "labels")
        report.equal("record_ids", [path.stem for path in headers], golden["record_ids"].tolist())
        outputs = read_outputs(headers, folder / "outputs", table, year)
        report.equal("binary_outputs", outputs.binary, golden["binary_outputs"])
        report.close("scalar_outputs", outputs.scalar, golden["scalar_outputs"], atol=ATOL)
    for prefix in prefixes:
        labels = golden[f"{prefix}labels"]
        if (folder / "labels").is_dir():
            labels = read_labels(headers, table, strict=prefix != "lenient_")
            report.equal(f"{prefix}labels", labels, golden[f"{prefix}labels"])
        scores = score(table, labels, outputs)
        _compare(report, prefix, scores, golden)
        report.close(
            f"{prefix}confusion", confusion(labels, outputs.binary), golden[f"{prefix}confusion"], atol=ATOL
        )
        report.equal(f"{prefix}normal_index", table.normal_index, int(golden[f"{prefix}normal_index"]))
    if (folder / "scores.csv").is_file():
        _compare_reports(report, folder, scores, table, year)


def _table(config: dict[str, Any], golden: dict[str, NDArray[Any]], normal: str, year: int) -> ScoreTable:
    """The packaged table, or for cases with weights of their own, one whose classes are numbered."""
    official = builtin_table(year)
    if "official" in str(config.get("weights", "official")) and len(golden["weights"]) == len(official):
        return official
    names = [f"class {index}" for index in range(len(golden["weights"]))]
    names[int(config.get("normal_index", golden[normal]))] = SINUS_RHYTHM
    return ScoreTable(
        tuple(names), tuple(frozenset({name}) for name in names), golden["weights"], "weights of the case"
    )


def _compare(report: Report, prefix: str, scores: Scores, golden: dict[str, NDArray[Any]]) -> None:
    for name in NUMBERS:
        report.close(f"{prefix}{name}", getattr(scores, name), golden[f"{prefix}{name}"], atol=ATOL)
    for name, value in zip(("observed", "correct", "inactive"), scores.sums, strict=True):
        report.close(f"{prefix}{name}_score", value, golden[f"{prefix}{name}_score"], atol=ATOL)


def _compare_reports(report: Report, folder: Path, scores: Scores, table: ScoreTable, year: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        written = {
            "scores.csv": Path(scratch, "scores.csv"),
            "class_scores.csv": Path(scratch, "classes.csv"),
        }
        write_scores(written["scores.csv"], scores, year)
        write_class_scores(written["class_scores.csv"], scores, table)
        for name, path in written.items():
            try:
                expected = (folder / name).read_bytes()
            except OSError as error:
                raise DataError(f"{folder / name} cannot be read: {error.strerror}") from error
            report.equal(name, path.read_bytes(), expected)
