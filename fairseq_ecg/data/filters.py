"""Filters on (lead, time) signals: high-pass, low-pass, band-pass, notch, baseline removal.

A chain is written on one line, ``highpass(cutoff=0.67)|lowpass(cutoff=40)``; ``none`` filters nothing. All
filters leave the phase as it is (run forwards and backwards, or symmetric) and work in float64. Shapes use L
lead, T time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.steps import parse_steps
from fairseq_ecg.errors import ConfigError, DataError, nearest

Wide = NDArray[np.float64]

NONE = "none"


class Step(Protocol):
    """One filter of a chain."""

    name: ClassVar[str]

    def apply(self, signal: Wide, rate: int) -> Wide:
        """Filter (L, T) float64 at ``rate`` Hz into a new array.

        Raises:
            ConfigError: the filter cannot be made at this rate.
            DataError: too few samples.
        """


@dataclass(frozen=True, kw_only=True)
class HighPass:
    """Butterworth high-pass in second-order sections, forwards and backwards."""

    name: ClassVar[str] = "highpass"
    cutoff: float = 0.67
    """Hz."""
    order: int = 5

    def apply(self, signal: Wide, rate: int) -> Wide:
        return _butterworth(self, signal, rate, self.order, self.cutoff, "highpass")


@dataclass(frozen=True, kw_only=True)
class LowPass:
    """Butterworth low-pass in second-order sections, forwards and backwards."""

    name: ClassVar[str] = "lowpass"
    cutoff: float = 40.0
    """Hz."""
    order: int = 5

    def apply(self, signal: Wide, rate: int) -> Wide:
        return _butterworth(self, signal, rate, self.order, self.cutoff, "lowpass")


@dataclass(frozen=True, kw_only=True)
class BandPass:
    """Butterworth band-pass in second-order sections, forwards and backwards."""

    name: ClassVar[str] = "bandpass"
    low: float = 0.67
    """Hz."""
    high: float = 40.0
    """Hz."""
    order: int = 4

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ConfigError(f"filter bandpass: low={self.low} must be below high={self.high} Hz")

    def apply(self, signal: Wide, rate: int) -> Wide:
        return _butterworth(self, signal, rate, self.order, [self.low, self.high], "bandpass")


@dataclass(frozen=True, kw_only=True)
class Notch:
    """Second-order notch against the hum of the mains, forwards and backwards."""

    name: ClassVar[str] = "notch"
    frequency: float = 50.0
    """Hz: 50, or 60 in the Americas."""
    quality: float = 30.0
    """Frequency over the width at -3 dB."""

    def apply(self, signal: Wide, rate: int) -> Wide:
        from scipy.signal import filtfilt, iirnotch

        _check_frequency(self.name, self.frequency, rate)
        if self.quality <= 0:
            raise ConfigError(f"filter notch: quality={self.quality} must be more than 0")
        numerator, denominator = iirnotch(self.frequency, self.quality, fs=rate)
        return _with_padding(self.name, 9, signal, lambda x: filtfilt(numerator, denominator, x, axis=1))


@dataclass(frozen=True, kw_only=True)
class MedianBaseline:
    """Baseline removal: less a running median of a running median, with the end samples repeated.

    The first window leaves no QRS complex and no P wave, the second no T wave (de Chazal et al. 2004).
    """

    name: ClassVar[str] = "median_baseline"
    short_sec: float = 0.2
    long_sec: float = 0.6

    def __post_init__(self) -> None:
        if not 0 < self.short_sec <= self.long_sec:
            raise ConfigError(
                f"filter median_baseline: short_sec={self.short_sec} must be more than 0 and at most "
                f"long_sec={self.long_sec}"
            )

    def apply(self, signal: Wide, rate: int) -> Wide:
        from scipy.ndimage import median_filter

        baseline = signal
        for seconds in (self.short_sec, self.long_sec):
            width = 2 * round(seconds * rate / 2) + 1  # odd: the window has a middle
            baseline = median_filter(baseline, size=(1, width), mode="nearest")
        return signal - baseline


@dataclass(frozen=True, kw_only=True)
class MovingAverage:
    """Mean over one period of the mains, forwards and backwards: no hum is left, nor any of its harmonics."""

    name: ClassVar[str] = "moving_average"
    frequency: float = 50.0
    """Hz."""

    def apply(self, signal: Wide, rate: int) -> Wide:
        from scipy.signal import filtfilt

        _check_frequency(self.name, self.frequency, rate)
        width = int(rate / self.frequency)
        window = np.full(width, 1 / width)
        return _with_padding(self.name, 3 * width, signal, lambda x: filtfilt(window, [1.0], x, axis=1))


STEPS: dict[str, type[Any]] = {
    step.name: step for step in (HighPass, LowPass, BandPass, Notch, MedianBaseline, MovingAverage)
}
"""Filters by the name a chain calls them."""


@dataclass(frozen=True)
class FilterChain:
    """Filters in the order in which they are applied."""

    steps: tuple[Step, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a chain from its line; ``none`` and an empty line are the chain without filters.

        Raises:
            ConfigError: bad syntax, an unknown filter or option, a value that makes no filter.
        """
        if text.strip() == NONE:
            return cls()
        return cls(tuple(step for _, step in parse_steps(text, "filter", _step_type)))

    def __bool__(self) -> bool:
        return bool(self.steps)

    def __str__(self) -> str:
        """The one spelling of this chain, with every option: equal chains have equal texts."""
        return "|".join(_spelled(step) for step in self.steps) or NONE

    def apply(self, signal: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        """Filter (L, T) without NaN at ``rate`` Hz; float32, and the very array when there is no filter."""
        if not self.steps:
            return signal
        wide = np.asarray(signal, np.float64)
        for step in self.steps:
            wide = step.apply(wide, rate)
        return np.ascontiguousarray(wide, np.float32)


def _step_type(name: str) -> type[Any]:
    if name not in STEPS:
        raise ConfigError(f"filter: unknown filter {name!r}; {nearest(name, STEPS)}")
    return STEPS[name]


def _spelled(step: Step) -> str:
    values = {item.name: getattr(step, item.name) for item in fields(type(step))}  # type: ignore[arg-type]
    return f"{step.name}({', '.join(f'{name}={value!r}' for name, value in values.items())})"


def _butterworth(
    step: Step,
    signal: Wide,
    rate: int,
    order: int,
    cutoff: float | list[float],
    kind: Literal["highpass", "lowpass", "bandpass"],
) -> Wide:
    from scipy.signal import butter, sosfiltfilt

    for frequency in cutoff if isinstance(cutoff, list) else [cutoff]:
        _check_frequency(step.name, frequency, rate)
    if order < 1:
        raise ConfigError(f"filter {step.name}: order={order} must be at least 1")
    sections = butter(order, cutoff, kind, fs=rate, output="sos")
    # scipy's own padding: three times the taps that are not zero, reflected oddly at either end.
    unused = min((sections[:, 2] == 0).sum(), (sections[:, 5] == 0).sum())
    padding = 3 * (2 * len(sections) + 1 - int(unused))
    return _with_padding(
        step.name, padding, signal, lambda x: sosfiltfilt(sections, x, axis=1, padlen=padding)
    )


def _with_padding(name: str, padding: int, signal: Wide, apply: Callable[[Wide], Any]) -> Wide:
    if signal.shape[1] <= padding:
        raise DataError(f"{signal.shape[1]} samples are too few for the filter {name}: more than {padding}")
    return np.asarray(apply(signal), np.float64)


def _check_frequency(name: str, frequency: float, rate: int) -> None:
    if not 0 < frequency < rate / 2:
        raise ConfigError(
            f"filter {name}: {frequency} Hz is not between 0 and {rate / 2:g} Hz, half the sampling rate"
        )
