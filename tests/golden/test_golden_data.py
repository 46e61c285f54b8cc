"""Preparation as published systems do it, against their numbers; every checker fails when one is changed.

Three fixtures lie beside this file, so that numbers are compared on any machine; the others are read from the
shared folder where there is one.
"""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tools.check_golden import cases_of
from tools.golden_checks.report import Report

HERE = Path(__file__).parent
LOCAL = ("preprocess", "ssl_data", "fairseq_signals_data")
SHARED = (
    "preprocess",
    "ssl_data",
    "fairseq_signals_data",
    "pclr_preprocess",
    "ecg_jepa_data_code15",
    "ecg_jepa_data_cpsc",
    "ecg_jepa_data_ptbxl",
    "ecg_jepa_data_shaoxing",
)


def run(folder: Path) -> Report:
    report = Report()
    system, cases = cases_of(folder)
    for case in cases:
        importlib.import_module(f"tools.golden_checks.{system}").check(case, report)
    return report


def failures(report: Report) -> list[str]:
    return [line.name for line in report.lines if not line.passed]


def copied(folder: Path, to: Path) -> Path:
    """A copy that may be written to."""
    shutil.copytree(folder, to / folder.name, copy_function=shutil.copyfile)
    for path in (to, *to.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    return to / folder.name


def change(folder: Path, array: str) -> None:
    """Change the largest number of an array, or a whole number by one."""
    golden = dict(np.load(folder / "io.npz", allow_pickle=False))
    changed = np.atleast_1d(golden[array].copy())
    shown = np.where(np.isfinite(changed), np.abs(changed.astype(float)), -1)
    place = np.unravel_index(np.argmax(shown), changed.shape)
    if changed.dtype.kind == "b":
        changed[place] = ~changed[place]
    else:
        changed[place] = changed[place] + (1 if changed.dtype.kind in "iu" else 0.001)
    np.savez(folder / "io.npz", **{**golden, array: changed.reshape(golden[array].shape)})


@pytest.mark.parametrize("name", LOCAL)
def test_the_fixtures_of_the_repository_agree(name: str) -> None:
    report = run(HERE / name)
    assert failures(report) == []
    assert len(report.lines) > 20


@pytest.mark.parametrize("name", SHARED)
def test_every_fixture_agrees(shared: Path, name: str) -> None:
    report = run(shared / "golden" / name)
    assert failures(report) == []
    assert len(report.lines) >= 5


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("preprocess", "r1_360hz_flat_and_nan/resampled"),
        ("preprocess", "r1_360hz_flat_and_nan/standardized_constant"),
        ("preprocess", "r1_360hz_flat_and_nan/input_std"),
        ("ssl_data", "resample1/y"),
        ("ssl_data", "resample3/y_newer_clip"),
        ("ssl_data", "stratify/fold"),
        ("ssl_data", "chunks/odd"),
        ("ssl_data", "memmap/all"),
        ("ssl_data", "item/y"),
        ("fairseq_signals_data", "feats__georgia__E00002_1"),
        ("fairseq_signals_data", "resampled_feats__cpsc_2018__A0003_2"),
        ("fairseq_signals_data", "label__cpsc_2018__A0001_0"),
        ("fairseq_signals_data", "cmsc_batch__source"),
        ("fairseq_signals_data", "cmsc_batch__same_patient"),
        ("fairseq_signals_data", "cls_batch__source_leads_I_II_V1_padded"),
        ("fairseq_signals_data", "cls_batch__label"),
    ],
)
def test_one_changed_number_fails(tmp_path: Path, name: str, array: str) -> None:
    folder = copied(HERE / name, tmp_path)
    change(folder, array)
    assert failures(run(folder))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("pclr_preprocess", "out_2500"),
        ("pclr_preprocess", "uv_out_every16"),
        ("ecg_jepa_data_code15", "waves"),
        ("ecg_jepa_data_code15", "file_indices"),
        ("ecg_jepa_data_cpsc", "waves_test"),
        ("ecg_jepa_data_cpsc", "labels_train_multilabel"),
        ("ecg_jepa_data_ptbxl", "waves_train_f32"),
        ("ecg_jepa_data_ptbxl", "float64_checksum_train"),
        ("ecg_jepa_data_ptbxl", "labels_test_multiclass"),
        ("ecg_jepa_data_shaoxing", "waves_500hz_head"),
        ("ecg_jepa_data_shaoxing", "float64_checksum"),
    ],
)
def test_one_changed_number_of_a_shared_fixture_fails(
    shared: Path, tmp_path: Path, name: str, array: str
) -> None:
    folder = copied(shared / "golden" / name, tmp_path)
    change(folder, array)
    assert failures(run(folder))


@pytest.mark.parametrize("name", LOCAL)
def test_an_array_that_nothing_computes_fails(tmp_path: Path, name: str) -> None:
    folder = copied(HERE / name, tmp_path)
    np.savez(folder / "io.npz", **dict(np.load(folder / "io.npz", allow_pickle=False)), novelty=np.zeros(2))
    assert failures(run(folder)) == ["novelty"]


def test_a_record_that_is_kept_and_should_not_be_fails(shared: Path, tmp_path: Path) -> None:
    folder = copied(shared / "golden" / "ecg_jepa_data_shaoxing", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    kept = next(record for record in config["records"] if record["kept"])
    kept["kept"] = False
    (folder / "config.json").write_text(json.dumps(config))
    assert failures(run(folder)) == ["kept"]


def test_a_pair_manifest_that_differs_fails(tmp_path: Path) -> None:
    folder = copied(HERE / "fairseq_signals_data", tmp_path)
    path = folder / "expected_manifests" / "cmsc" / "valid.tsv"
    path.write_text(path.read_text().replace("2,3", "1,2"))
    assert failures(run(folder)) == ["cmsc/valid.tsv"]
