"""Quality of a record as it was read: one row of ``qc.tsv`` for every record found, left out ones included.

Nothing here decides anything; policies do (``prepare``). Shapes use L lead, T time. Amplitudes are mV.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.signal import PLAUSIBLE_MV

QC_FILE = "qc.tsv"
QC_COLUMNS = (
    "record_id",
    "source",
    "kept",
    "sampling_rate",
    "duration_sec",
    "amplitude_mv",
    "heart_rate",
    "flat",
    "nan",
    "clipped",
    "missing",
    "score",
    "reason",
)
"""``kept`` is yes or no; ``sampling_rate`` and ``duration_sec`` are those of the raw record; the four kinds
of bad leads are comma lists of names; ``reason`` says why a record was left out. What could not be measured
is empty."""

TYPICAL_MV = 1.5
"""Amplitude of an ordinary record: the median over leads of largest minus smallest value."""

CLIPPED_SEC = 0.02
"""A lead is clipped when its largest or smallest value stands this long ..."""
CLIPPED_MV = 0.5
"""... this far or farther from the lead's mean. Half the width of a T wave's rounded top is under 15 ms."""

_RATE_LEADS = ("II", "V5")
_RATE_HZ = 50
_RATE_SEC = 30.0
_BEATS_PER_MINUTE = (30.0, 220.0)
_SMOOTHING = np.array([1, 2, 3, 2, 1], np.float32) / 9


_REASONS = {
    "duplicate": "duplicate",
    "too short": "too short",
    "another rate": "another rate",
    "begins with": "zero start",
    "truncated": "truncated",
    "corrupt": "corrupt",
    "nan lead": "nan lead",
    "flat lead": "flat lead",
    "missing lead": "missing lead",
    "is constant": "constant",
    "cannot be read": "missing file",
    "does not exist": "missing file",
}
"""Words of a reason -> what the summary counts it as."""


def reason_kind(reason: str) -> str:
    """The word a reason is counted under."""
    return next((kind for words, kind in _REASONS.items() if words in reason), "unusable")


class Extremes(NamedTuple):
    """Smallest and largest value of each lead: (L,) each, NaN where a sample is NaN."""

    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]

    @classmethod
    def of(cls, signal: NDArray[np.float32]) -> Extremes:
        return cls(signal.min(axis=1), signal.max(axis=1))

    @property
    def broken(self) -> NDArray[np.bool_]:
        """(L,) True where a lead holds a sample that is not finite."""
        return ~(np.isfinite(self.lowest) & np.isfinite(self.highest))

    @property
    def flat(self) -> NDArray[np.bool_]:
        """(L,) True where a lead is constant; a lead with NaN is not."""
        return np.asarray(self.lowest == self.highest)


class Quality(NamedTuple):
    """A row of ``qc.tsv``."""

    record_id: str
    source: str = ""
    sampling_rate: int = 0
    num_samples: int = 0
    num_leads: int = 0
    amplitude_mv: float = math.nan
    heart_rate: float = math.nan
    """Beats per minute."""
    flat: tuple[str, ...] = ()
    nan: tuple[str, ...] = ()
    clipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    reason: str = ""
    """Why the record was left out; empty when it was kept."""

    @property
    def score(self) -> float:
        """How unlike a good record this one is, 0 for the best.

        The share of leads that are flat, have missing samples or are clipped, plus the number of doublings
        by which the amplitude leaves the plausible range, plus a tenth of those that part it from a typical
        one.
        """
        score = 0.0
        if self.num_leads:
            score += len({*self.flat, *self.nan, *self.clipped}) / self.num_leads
        if self.amplitude_mv > 0:
            low, high = PLAUSIBLE_MV
            octaves = math.log2(self.amplitude_mv)
            score += max(0.0, math.log2(low) - octaves, octaves - math.log2(high))
            score += 0.1 * abs(octaves - math.log2(TYPICAL_MV))
        return score

    def line(self) -> str:
        """Tab-separated, with the line end; tabs and line ends in texts become spaces."""
        measured = self.sampling_rate > 0
        return "\t".join(
            (
                _cell(self.record_id),
                _cell(self.source),
                "no" if self.reason else "yes",
                str(self.sampling_rate) if measured else "",
                f"{self.num_samples / self.sampling_rate:.3f}" if measured else "",
                "" if math.isnan(self.amplitude_mv) else f"{self.amplitude_mv:.3f}",
                "" if math.isnan(self.heart_rate) else f"{self.heart_rate:.0f}",
                ",".join(self.flat),
                ",".join(self.nan),
                ",".join(self.clipped),
                ",".join(self.missing),
                f"{self.score:.3f}" if measured else "",
                _cell(self.reason) + "\n",
            )
        )


def _cell(text: str) -> str:
    return " ".join(text.split())


def amplitude(extremes: Extremes, present: Sequence[bool]) -> float:
    """Median over the recorded leads of largest minus smallest value; NaN when no lead has one."""
    spreads = sorted(
        spread
        for spread, counts in zip((extremes.highest - extremes.lowest).tolist(), present, strict=True)
        if counts and spread > 0
    )
    middle = len(spreads) // 2
    if not spreads:
        return math.nan
    return float(spreads[middle]) if len(spreads) % 2 else (spreads[middle - 1] + spreads[middle]) / 2


def clipped_rows(signal: NDArray[np.float32], extremes: Extremes, sampling_rate: int) -> NDArray[np.bool_]:
    """(L,) True where a lead's largest or smallest value stands for ``CLIPPED_SEC``, ``CLIPPED_MV`` from its
    mean.

    Shape:
        signal: (L, T), mV, as recorded: resampling rounds the corners by which clipping is known.
    """
    run = max(3, math.ceil(CLIPPED_SEC * sampling_rate))
    if signal.shape[1] < run:
        return np.zeros(len(signal), np.bool_)
    # A run that long holds two neighbours of this comb: few leads need a closer look.
    comb = np.ascontiguousarray(signal[:, :: run // 2])
    stands = (
        np.maximum(comb[:, :-1], comb[:, 1:]).min(axis=1) == extremes.lowest,
        np.minimum(comb[:, :-1], comb[:, 1:]).max(axis=1) == extremes.highest,
    )
    clipped = np.zeros(len(signal), np.bool_)
    for extreme, suspect in zip(extremes, stands, strict=True):
        for row in np.flatnonzero(suspect):
            if abs(float(extreme[row]) - float(signal[row].mean(dtype=np.float64))) >= CLIPPED_MV:
                clipped[row] |= _longest_run(signal[row] == extreme[row]) >= run
    return clipped


def _longest_run(chosen: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], chosen, [False]))))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def heart_rate(signal: NDArray[np.float32], leads: Sequence[str], sampling_rate: int) -> float:
    """Beats per minute by autocorrelation of the slope's size in up to two leads; NaN without a rhythm.

    A rough figure for a histogram, of the first half minute; no detector of beats.

    Shape:
        signal: (L, T), mV, without NaN.
    """
    rows = [row for row, lead in enumerate(leads) if lead in _RATE_LEADS] or list(range(min(2, len(leads))))
    step = max(1, round(sampling_rate / _RATE_HZ))
    length = min(signal.shape[1], int(_RATE_SEC * sampling_rate)) // step
    rate = sampling_rate / step
    shortest, longest = (int(rate * 60 / limit) for limit in reversed(_BEATS_PER_MINUTE))
    if length < 2 * shortest or length < 3:
        return math.nan
    slope = np.zeros(length - 1, np.float32)
    for row in rows:
        # Faster than a sum over a short axis.
        pooled = np.einsum("ns->n", signal[row, : length * step].reshape(length, step))
        slope += np.abs(pooled[1:] - pooled[:-1])
    # Smoothed over 0.1 s, so that a period between two lags is not lost to one of twice the length.
    slope = np.convolve(slope, _SMOOTHING, mode="same")
    slope -= slope.mean()
    num_lags = min(longest + 2, 3 * len(slope) // 4)
    # Zeros for the lags that are looked at keep the end of the slope from meeting its beginning.
    spectrum = np.fft.rfft(slope, -(-(len(slope) + num_lags) // 64) * 64)
    lags = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:num_lags]
    lags /= np.arange(len(slope), len(slope) - num_lags, -1)
    inner = lags[1:-1]
    peaks = np.flatnonzero((inner >= lags[:-2]) & (inner > lags[2:])) + 1
    peaks = peaks[peaks >= shortest]
    if not len(peaks) or lags[peaks].max() < 0.2 * lags[0]:
        return math.nan
    # Every multiple of the beat's period is a peak too: the first of those that are nearly as high.
    lag = int(peaks[lags[peaks] >= 0.8 * lags[peaks].max()][0])
    before, at, after = lags[lag - 1 : lag + 2].tolist()
    curvature = before - 2 * at + after
    return 60 * rate / (lag + (0.5 * (before - after) / curvature if curvature else 0.0))
