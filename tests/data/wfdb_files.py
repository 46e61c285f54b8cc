"""Writes small WFDB records, right or broken in a chosen way, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def samples(num_leads: int = 12, num_samples: int = 1000, seed: int = 0) -> np.ndarray:
    """(lead, time) int16 noise of about 1 mV at 1000 per mV."""
    return np.random.default_rng(seed).integers(-700, 700, (num_leads, num_samples)).astype(np.int16)


def write_record(
    folder: Path,
    name: str,
    digital: np.ndarray | None = None,
    *,
    leads: Sequence[str] = LEADS,
    sampling_rate: int = 500,
    gain: str = "1000/mV",
    comments: Sequence[str] = ("#Age: 74", "#Sex: Male", "#Dx: 426783006"),
) -> Path:
    """A record in the layout of the challenge data; returns the path of its header."""
    folder.mkdir(parents=True, exist_ok=True)
    digital = samples(len(leads)) if digital is None else digital
    lines = [f"{name} {len(leads)} {sampling_rate} {digital.shape[1]}"]
    for lead, row in zip(leads, digital, strict=True):
        checksum = int(np.int64(row.astype(np.int64).sum()).astype(np.int16))
        lines.append(f"{name}.mat 16+24 {gain} 16 0 {row[0]} {checksum} 0 {lead}")
    path = folder / f"{name}.hea"
    path.write_text("\n".join([*lines, *comments]) + "\n")
    (folder / f"{name}.mat").write_bytes(bytes(24) + digital.T.astype("<i2").tobytes())
    return path
