"""Pure functions on (lead, time) signals: resample, find flat and missing samples, standardise, crop and pad.

Nothing here changes its input. Shapes use L lead, T time.
"""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.errors import DataError

Signal = NDArray[np.float32]

PLAUSIBLE_MV = (0.25, 8.0)
"""Where the median over leads of a record's largest minus smallest value lies: 0.7 to 4 mV in the 184 records
of PTB-XL, CPSC, Georgia, Chapman-Shaoxing, Ningbo, LUDB and MIT-BIH this was set on, with room on both
sides."""


class Resampling(StrEnum):
    POLYPHASE = "polyphase"
    LINEAR = "linear"


def resampled_length(num_samples: int, rate: int, new_rate: int) -> int:
    """Whole samples at ``new_rate`` in the time that ``num_samples`` at ``rate`` last."""
    return num_samples * new_rate // rate


def resample(signal: Signal, rate: int, new_rate: int, method: Resampling = Resampling.POLYPHASE) -> Signal:
    """Change the sampling rate.

    ``polyphase`` filters against aliasing (Kaiser window, zero phase), with a straight line from first to
    last sample taken out so that an offset rings at neither end. ``linear`` is fairseq-signals'
    interpolation, which does not filter and stretches the grid a little: new sample j is read at old position
    j N / N' scaled to end on the last sample, i.e. new positions linspace(0, N' - 1, N) hold the old samples.

    Shape:
        signal: (L, T) without NaN; returns (L, T * new_rate // rate) float32.

    Raises:
        DataError: too short to leave a single sample.
    """
    if rate == new_rate:
        return signal
    num_samples = signal.shape[1]
    length = resampled_length(num_samples, rate, new_rate)
    if length < 1:
        raise DataError(f"{num_samples} samples at {rate} Hz are too few to resample to {new_rate} Hz")
    if method is Resampling.LINEAR:
        old = np.linspace(0, num_samples * new_rate / rate - 1, num_samples)
        new = np.arange(length)
        return np.stack([np.interp(new, old, row) for row in signal]).astype(np.float32)
    from scipy.signal import resample_poly

    divisor = math.gcd(rate, new_rate)
    resampled = resample_poly(signal, new_rate // divisor, rate // divisor, axis=1, padtype="line")
    return np.ascontiguousarray(resampled[:, :length], np.float32)


def nan_rows(signal: Signal) -> NDArray[np.bool_]:
    """(L,) True where a lead holds a sample that is not finite."""
    # A sum is finite exactly when all terms are: one pass, no temporary of the signal's size.
    with np.errstate(invalid="ignore", over="ignore"):
        suspect = ~np.isfinite(signal.sum(axis=1, dtype=np.float64))
    return np.asarray(suspect)


def flat_rows(signal: Signal) -> NDArray[np.bool_]:
    """(L,) True where a lead is constant over the whole record; a lead with NaN is not."""
    return np.asarray(signal.max(axis=1) == signal.min(axis=1))


def implausible_amplitude(signal: Signal) -> float | None:
    """The median over leads of largest minus smallest value in mV when no ECG has it, else None.

    All-zero signals are not judged here: they are found as flat.
    """
    spread = _median(signal.max(axis=1) - signal.min(axis=1))  # NaN leads compare as plausible
    low, high = PLAUSIBLE_MV
    return spread if spread != 0 and (spread < low or spread > high) else None


def _median(values: NDArray[np.float32]) -> float:
    """The median of a few values, five times as fast as numpy's; NaN when one is NaN."""
    if np.isnan(values).any():
        return math.nan
    ordered = sorted(values.tolist())
    middle = len(ordered) // 2
    return float(ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)


def zscore(signal: Signal) -> Signal:
    """Each lead to mean 0 and standard deviation 1 over its record; a constant lead to zeros.

    Sums are taken in float64; the deviation is the population's, as in fairseq-signals' preprocessing.
    """
    centred = signal - signal.mean(axis=1, keepdims=True, dtype=np.float64)
    deviation = np.sqrt(np.mean(centred**2, axis=1, keepdims=True))
    constant = flat_rows(signal)[:, None]
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, deviation)).astype(np.float32)


def crop(signal: Signal, start: int, num_samples: int) -> Signal:
    """The view of ``num_samples`` from ``start``.

    Raises:
        DataError: the cut leaves the record.
    """
    if start < 0 or num_samples < 1 or start + num_samples > signal.shape[1]:
        raise DataError(
            f"samples {start} to {start + num_samples} lie outside a record of {signal.shape[1]} samples"
        )
    return signal[:, start : start + num_samples]


def pad(signal: Signal, num_samples: int) -> Signal:
    """Zeros after the end up to ``num_samples``.

    Raises:
        DataError: the signal is longer.
    """
    missing = num_samples - signal.shape[1]
    if missing < 0:
        raise DataError(f"{signal.shape[1]} samples cannot be padded to {num_samples}: crop first")
    return np.pad(signal, ((0, 0), (0, missing)))
