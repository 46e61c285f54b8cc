"""Pure functions on (lead, time) signals: resample, find flat and missing samples, standardise, crop and pad.

Nothing here changes its input. Shapes use L lead, T time, S segment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.errors import DataError

Signal = NDArray[np.float32]
Float = TypeVar("Float", np.float32, np.float64)

PLAUSIBLE_MV = (0.25, 8.0)
"""Where the median over leads of a record's largest minus smallest value lies: 0.7 to 4 mV in the 184 records
of PTB-XL, CPSC, Georgia, Chapman-Shaoxing, Ningbo, LUDB and MIT-BIH this was set on, with room on both
sides."""


class Resampling(StrEnum):
    """How samples at a new rate are made of the old ones."""

    POLYPHASE = "polyphase"
    """Filters against aliasing (Kaiser window, zero phase)."""
    LINEAR = "linear"
    """fairseq-signals' interpolation: no filter, and a grid stretched a little."""
    ENDPOINTS = "endpoints"
    """Linear interpolation that keeps the first and the last sample (ECG-FM, PCLR): no filter."""
    FOURIER = "fourier"
    """Cuts the discrete spectrum (ECG-JEPA): a record is taken as one period."""
    SPLINE = "spline"
    """Gaussian smoothing and cubic splines, as scikit-image's ``resize`` (CPC, SimCLR, BYOL, SwAV)."""


class ConstantLead(StrEnum):
    """What standardising makes of a lead that is constant."""

    ZERO = "zero"
    NAN = "nan"
    CONSTANT = "constant"
    """Centred but not divided."""


def resampled_length(num_samples: int, rate: int, new_rate: int) -> int:
    """Whole samples at ``new_rate`` in the time that ``num_samples`` at ``rate`` last."""
    return num_samples * new_rate // rate


def reference_resampled_length(num_samples: int, rate: int, new_rate: int) -> int:
    """The length ECG-JEPA and ecg-selfsupervised compute, by way of a rounded ratio of the rates.

    At some rates (116, 124, 258, ... Hz) it is one sample short of ``resampled_length`` now and then.
    """
    return int(num_samples * (new_rate / rate))


def resample(
    signal: NDArray[Float], rate: int, new_rate: int, method: Resampling = Resampling.POLYPHASE
) -> NDArray[Float]:
    """Change the sampling rate.

    ``polyphase`` takes a straight line from first to last sample out before it filters, so that an offset
    rings at neither end. ``linear`` reads new sample j at old position j N / N' scaled to end on the last
    sample, i.e. new positions linspace(0, N' - 1, N) hold the old samples, with N' = N new_rate / rate not
    rounded. The other methods are those of ``resize``.

    Shape:
        signal: (L, T), float32 or float64; returns (L, T * new_rate // rate) of the same type. A missing
            sample spoils its surroundings, or its whole lead (``fourier``, ``spline``).

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
        resampled = interpolate(signal, old, np.arange(length, dtype=np.float64))
    elif method is Resampling.POLYPHASE:
        from scipy.signal import resample_poly

        divisor = math.gcd(rate, new_rate)
        resampled = resample_poly(signal, new_rate // divisor, rate // divisor, axis=1, padtype="line")
        resampled = resampled[:, :length]
    else:
        resampled = resize(signal, length, method)
    return np.ascontiguousarray(resampled, signal.dtype)


def resize(signal: NDArray[Any], num_samples: int, method: Resampling) -> NDArray[np.float64]:
    """Bring a signal to a number of samples, whatever rate that is, in float64.

    ``endpoints``: linear interpolation on an axis on which the first old and new samples coincide, and the
    last ones (Diamant et al. 2022; McKeen et al. 2024); one sample becomes a constant. ``fourier``: the
    discrete spectrum is cut or extended by zeros (Kim 2024). ``spline``: see ``resize_spline``.

    Shape:
        signal: (L, T), T >= 1; returns (L, num_samples) float64. One NaN makes a whole lead NaN except with
        ``endpoints``.

    Raises:
        DataError: nothing to resample, or no sample asked for.
        ValueError: ``polyphase`` and ``linear`` need rates: see ``resample``.
    """
    length = signal.shape[1]
    if length < 1 or num_samples < 1:
        raise DataError(f"{length} samples cannot be resampled to {num_samples}")
    wide = np.asarray(signal, np.float64)
    if method is Resampling.ENDPOINTS:
        return interpolate(wide, np.linspace(0, 1, length), np.linspace(0, 1, num_samples))
    if method is Resampling.FOURIER:
        from scipy.signal import resample as resample_fourier

        return np.asarray(resample_fourier(wide, num_samples, axis=1), np.float64)
    if method is Resampling.SPLINE:
        return resize_spline(wide, num_samples)
    raise ValueError(f"{method} is defined by two rates, not by a number of samples")


def interpolate(
    signal: NDArray[Any], old: NDArray[np.float64], new: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Samples that lie at the places ``old``, read at the places ``new``: (L, T) -> (L, len(new))."""
    return np.stack([np.interp(new, old, row) for row in signal])


def resize_spline(
    signal: NDArray[Any], num_samples: int, *, reference_clip: bool = True
) -> NDArray[np.float64]:
    """Smooth and interpolate by cubic B-splines, as scikit-image's ``resize`` of order 3.

    With f = T / num_samples: for f > 1 a Gaussian of deviation (f - 1) / 2, cut at four deviations; then the
    spline at positions f (i + 0.5) - 0.5; both with the signal mirrored about its end samples.

    Args:
        signal: (L, T).
        num_samples: length of the result.
        reference_clip: clip to the range of the smoothed signal, as scikit-image 0.17 does, with which CPC
            and its relatives were trained; otherwise to the range before smoothing, as from 0.19 on.
    """
    from scipy.ndimage import gaussian_filter1d, map_coordinates

    wide = np.asarray(signal, np.float64)
    factor = wide.shape[1] / num_samples
    smooth = wide
    if factor > 1:
        smooth = gaussian_filter1d(wide, (factor - 1) / 2, axis=1, mode="mirror")
    places = (factor * (np.arange(num_samples) + 0.5) - 0.5)[None]
    splines = np.stack([map_coordinates(row, places, order=3, mode="mirror") for row in smooth])
    bounds = smooth if reference_clip else wide
    low, high = bounds.min(axis=1, keepdims=True), bounds.max(axis=1, keepdims=True)
    return np.asarray(splines.clip(low, high), np.float64)


def stack_leads(
    leads: Mapping[str, NDArray[Any]], wanted: Sequence[str], num_samples: int
) -> NDArray[np.float64]:
    """Leads of unequal length that last equally long, brought to one length by ``endpoints`` interpolation.

    Shape:
        leads: (T,) per name; returns (len(wanted), num_samples) float64, in the order of ``wanted``.

    Raises:
        DataError: a wanted lead is missing, another one is there, or one holds no samples.
    """
    if set(leads) != set(wanted):
        missing, extra = sorted(set(wanted) - set(leads)), sorted(set(leads) - set(wanted))
        raise DataError(f"leads {','.join(wanted)} are needed: {missing} are missing, {extra} are too many")
    rows = []
    for name in wanted:
        try:
            row = resize(np.asarray(leads[name])[None], num_samples, Resampling.ENDPOINTS)
        except DataError as error:
            raise DataError(f"lead {name}: {error}") from None
        rows.append(row[0])
    return np.stack(rows)


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


def reference_flat_rows(signal: NDArray[Any]) -> NDArray[np.bool_]:
    """(L,) True where all samples equal the mean that was computed of them, as ECG-FM's tables say it.

    A constant whose mean is not exact in float64 is missed; ``flat_rows`` finds it.
    """
    wide = np.asarray(signal, np.float64)
    return np.asarray((wide == wide.mean(axis=1, keepdims=True)).all(axis=1))


def zero_padding(signal: NDArray[Any]) -> tuple[int, int]:
    """How many samples at the start and at the end are exactly zero in all leads; (T, 0) when all are."""
    used = np.flatnonzero(signal.any(axis=0))
    if not len(used):
        return signal.shape[1], 0
    return int(used[0]), int(signal.shape[1] - 1 - used[-1])


def strip_zero_padding(signal: NDArray[Any]) -> NDArray[Any]:
    """The view without the samples at either end that are zero in all leads."""
    leading, trailing = zero_padding(signal)
    return signal[:, leading : signal.shape[1] - trailing]


def lead_statistics(signal: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(L,) mean and population deviation of every lead, summed in float64; NaN for a lead with NaN."""
    centred = signal.astype(np.float64)
    mean = centred.sum(axis=1) / signal.shape[1]
    centred -= mean[:, None]
    # The product without a temporary is three times as fast as numpy.std.
    return mean, np.sqrt(np.einsum("lt,lt->l", centred, centred) / signal.shape[1])


def zscore(signal: Signal, constant: ConstantLead = ConstantLead.ZERO) -> Signal:
    """Each lead to mean 0 and standard deviation 1 over its record; a lead with NaN becomes NaN.

    Sums are taken in float64; the deviation is the population's, as in fairseq-signals' preprocessing.
    """
    mean, deviation = lead_statistics(signal)
    centred = signal - mean[:, None]
    flat = flat_rows(signal)[:, None]
    scored = centred / np.where(flat, 1.0, deviation[:, None])
    if constant is not ConstantLead.CONSTANT:
        scored = np.where(flat, 0.0 if constant is ConstantLead.ZERO else np.nan, scored)
    return np.asarray(scored, np.float32)


def segments(signal: NDArray[Any], num_samples: int) -> NDArray[Any]:
    """Consecutive whole segments; a rest at the end is left out.

    Shape:
        signal: (L, T); returns a view (T // num_samples, L, num_samples).
    """
    count = signal.shape[1] // num_samples
    whole = signal[:, : count * num_samples].reshape(len(signal), count, num_samples)
    return whole.transpose(1, 0, 2)


def crop(signal: NDArray[Float], start: int, num_samples: int) -> NDArray[Float]:
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
