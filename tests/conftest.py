"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real records and golden numbers: ``$FAIRSEQ_ECG_SHARED`` or ``../shared``."""
    path = Path(os.environ.get("FAIRSEQ_ECG_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"{path} is absent: no real records and reference numbers to test against")
    return path


@pytest.fixture(scope="session")
def manifest_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests over a tiny store: 12 patients, 24 records, 12 leads at 100 Hz, 5 s segments, 3 labels."""
    from tests.tiny_data import make_manifests

    return make_manifests(tmp_path_factory.mktemp("tiny"))
