"""Normalisations an input contract can name, on whole records in mV; ``device`` applies them to batches.

Shapes use L lead, T time.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.signal import zscore
from fairseq_ecg.errors import DataError


class Normalisation(StrEnum):
    NONE = "none"
    """mV as recorded (fairseq-signals, ECG-JEPA, PCLR, SimCLR, BYOL, SwAV)."""
    RECORD_ZSCORE = "record_zscore"
    """Each lead by its mean and deviation over its whole record (ECG-FM)."""
    PTBXL_ZSCORE = "ptbxl_zscore"
    """Each lead by the mean and deviation it has in PTB-XL at 100 Hz, whatever the data (CPC)."""


_PTBXL = {
    "I": (-0.00184586, 0.16401004),
    "II": (-0.00130277, 0.1647168),
    "V1": (0.00017031, 0.23374124),
    "V2": (-0.00091313, 0.33767231),
    "V3": (-0.00148835, 0.33362807),
    "V4": (-0.00174687, 0.30583013),
    "V5": (-0.00077071, 0.2731171),
    "V6": (-0.00207407, 0.27554379),
    "III": (0.00054329, 0.17128962),
    "aVR": (0.00155546, 0.14030828),
    "aVL": (-0.00114379, 0.14606956),
    "aVF": (-0.00035649, 0.14656108),
}
"""Mean and deviation in mV (Mehari & Strodthoff 2022), with which their CPC models were trained."""

PTBXL_EPS = 1e-8
"""Added to the deviation."""


def ptbxl_statistics(leads: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(L,) mean and deviation in mV of leads in PTB-XL.

    Raises:
        DataError: a lead that is none of the twelve.
    """
    if unknown := [lead for lead in leads if lead not in _PTBXL]:
        raise DataError(f"ptbxl_zscore knows no mean of lead {unknown[0]!r}, only of {', '.join(_PTBXL)}")
    mean, deviation = np.array([_PTBXL[lead] for lead in leads], np.float32).T
    return mean, deviation


def normalise_record(
    signal: NDArray[np.float32], leads: Sequence[str], normalisation: Normalisation
) -> NDArray[np.float32]:
    """Normalise a whole record, (L, T) float32 in mV; the very array when there is nothing to do."""
    if normalisation is Normalisation.RECORD_ZSCORE:
        return zscore(signal)
    if normalisation is Normalisation.PTBXL_ZSCORE:
        return ptbxl_zscore(signal, *ptbxl_statistics(leads))
    return signal


def ptbxl_zscore(
    signal: NDArray[np.float32], mean: NDArray[np.float32], deviation: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(x - mean) / (deviation + 1e-8) per lead, in float32."""
    return (signal - mean[:, None]) / (deviation[:, None] + np.float32(PTBXL_EPS))
