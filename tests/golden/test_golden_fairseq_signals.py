"""The golden checkers pass on the reference's numbers and fail when one of them is changed."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from tools.golden_checks.report import Report

SYSTEMS = ["fairseq_signals_w2v_cmsc", "fairseq_signals_classifier"]


def run(system: str, folder: Path) -> Report:
    report = Report()
    importlib.import_module(f"tools.golden_checks.{system}").check(folder, report)
    return report


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_array_agrees_with_the_reference(shared: Path, system: str) -> None:
    report = run(system, shared / "golden" / system)
    assert [line.name for line in report.lines if not line.passed] == []
    assert len(report.lines) > 20


@pytest.mark.parametrize(
    ("system", "array"),
    [
        ("fairseq_signals_w2v_cmsc", "feat__x"),
        ("fairseq_signals_w2v_cmsc", "eval__logits"),
        ("fairseq_signals_w2v_cmsc", "eval__grad_norm"),
        ("fairseq_signals_w2v_cmsc", "train__grad_sum"),
        ("fairseq_signals_w2v_cmsc", "train__log_loss_3"),
        ("fairseq_signals_w2v_cmsc", "eval__grad__quantizer.vars"),
        ("fairseq_signals_classifier", "logits"),
        ("fairseq_signals_classifier", "saliency"),
        ("fairseq_signals_classifier", "loss_sum_pos_weight"),
        ("fairseq_signals_classifier", "grad_norm"),
        ("fairseq_signals_classifier", "log_tp"),
    ],
)
def test_one_changed_number_fails(shared: Path, tmp_path: Path, system: str, array: str) -> None:
    folder = tmp_path / system
    shutil.copytree(shared / "golden" / system, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    golden = dict(np.load(folder / "io.npz"))
    changed = golden[array].copy()
    place = np.unravel_index(
        np.nanargmax(np.where(np.isfinite(changed), np.abs(changed), np.nan)), changed.shape
    )
    changed[place] = changed[place] * 1.01 + 1
    np.savez(folder / "io.npz", **{**golden, array: changed})
    assert not run(system, folder).passed


def test_an_unknown_array_fails(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fairseq_signals_w2v_cmsc"
    shutil.copytree(shared / "golden" / folder.name, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    np.savez(folder / "io.npz", **dict(np.load(folder / "io.npz")), novelty=np.zeros(2))
    report = run(folder.name, folder)
    assert [line.name for line in report.lines if not line.passed] == ["novelty"]
