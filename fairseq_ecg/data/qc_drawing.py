"""Drawings of the quality page as inline SVG: bars, and traces on ECG paper.

Shapes use L lead, T time. Lengths of an ECG are millimetres of paper at 25 mm/s.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MM_PER_SEC = 25.0
_SHOWN_SEC = 10.0
_STEP_MM = 0.5
"""Width in which the smallest and the largest sample are drawn."""
_GAINS = (10.0, 5.0, 2.5, 1.0, 0.5, 0.25, 0.1)
"""mm per mV, the standard first."""
_ROW_MM = 24.0


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram."""

    label: str
    """Under the bar; may be empty."""
    range: str
    """What is counted, shown with the count when the pointer rests on the bar."""
    count: int
    is_odd: bool = False
    """Drawn in the colour of warnings."""


def histogram(title: str, bars: Sequence[Bar]) -> str:
    """Vertical bars over a base line, the highest one with its count."""
    width, height, base = 520.0, 190.0, 160.0
    highest = max((bar.count for bar in bars), default=0)
    slot = (width - 32) / max(1, len(bars))
    thickness = min(slot - 2, 46.0)
    parts = []
    for number, bar in enumerate(bars):
        middle = 16 + (number + 0.5) * slot
        size = 132.0 * bar.count / highest if highest else 0.0
        if bar.count:
            size = max(size, 1.5)
        colour = "#b3263e" if bar.is_odd else "#4a6d8c"
        parts.append(
            f'<rect x="{middle - thickness / 2:.1f}" y="{base - size:.1f}" width="{thickness:.1f}" '
            f'height="{size:.1f}" rx="1.5" fill="{colour}"><title>{escape(bar.range)}: {bar.count:,} records'
            "</title></rect>"
        )
        if bar.label:
            parts.append(
                f'<text x="{middle:.1f}" y="{base + 18:.1f}" text-anchor="middle">{escape(bar.label)}</text>'
            )
        if bar.count and (bar.count == highest or len(bars) <= 12):
            parts.append(
                f'<text x="{middle:.1f}" y="{base - size - 6:.1f}" text-anchor="middle">{bar.count:,}</text>'
            )
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}" '
        'font-size="12" fill="#68707a">'
        f'<line x1="0" x2="{width:g}" y1="{base}" y2="{base}" stroke="#c9c5be"/>{"".join(parts)}</svg>'
    )


def ecg_drawing(
    signal: NDArray[np.float32], leads: Sequence[str], sampling_rate: int, bad: Collection[str]
) -> str:
    """The first ten seconds of a record on ECG paper.

    Twelve leads lie as on a printout: three rows of four leads, 2.5 s each. Others lie one below the other.

    Shape:
        signal: (L, T), mV.
    """
    boxes = list(_boxes(len(leads), signal.shape[1] / sampling_rate))
    width = max(box.x + box.seconds * _MM_PER_SEC for box in boxes)
    rows = len({box.y for box in boxes})
    height = rows * _ROW_MM + 4
    gain = _gain(signal[:, : int(_SHOWN_SEC * sampling_rate)])
    parts = [_paper(width, height)]
    for box, lead, values in zip(boxes, leads, signal, strict=False):
        start = int(box.start_sec * sampling_rate)
        piece = values[start : start + int(box.seconds * sampling_rate)]
        colour = "#b3263e" if lead in bad else "#1d2126"
        parts.append(
            f'<polyline points="{_points(piece, box, gain, sampling_rate, height)}" fill="none" '
            f'stroke="{colour}" stroke-width="0.35" stroke-linejoin="round"/>'
            f'<text x="{box.x + 1:g}" y="{box.y - 7:g}" font-size="3.6" font-weight="600" fill="{colour}" '
            f'stroke="#fff7f6" stroke-width="0.9" paint-order="stroke">{escape(lead)}</text>'
        )
    parts.append(
        f'<text x="{width - 1:g}" y="{height - 1.2:g}" font-size="3" text-anchor="end" fill="#7d5a5a">'
        f"25 mm/s, {gain:g} mm/mV</text>"
    )
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="ECG">{"".join(parts)}</svg>'


class _Box(NamedTuple):
    """Where a lead is drawn: left end and base line in mm, and which part of it."""

    x: float
    y: float
    start_sec: float
    seconds: float


def _boxes(num_leads: int, seconds: float) -> Iterator[_Box]:
    shown = min(seconds, _SHOWN_SEC)
    columns = 4 if num_leads == 12 and shown >= 4 else 1
    rows = math.ceil(num_leads / columns)
    part = shown / columns
    for lead in range(num_leads):
        column, row = divmod(lead, rows)
        yield _Box(column * part * _MM_PER_SEC, (row + 0.5) * _ROW_MM + 2, column * part, part)


def _gain(signal: NDArray[np.float32]) -> float:
    """The largest usual gain at which a typical lead's swing fits its row."""
    swing = np.abs(signal - np.median(signal, axis=1, keepdims=True)).max(axis=1)
    high = float(np.median(swing[swing > 0])) if (swing > 0).any() else 0.0
    return next((gain for gain in _GAINS if gain * high <= _ROW_MM), _GAINS[-1])


def _points(values: NDArray[np.float32], box: _Box, gain: float, sampling_rate: int, height: float) -> str:
    """Smallest and largest value of every half millimetre, in order of time: no peak is lost."""
    step = max(1, round(_STEP_MM / _MM_PER_SEC * sampling_rate))
    heights = np.clip(box.y - gain * (values - np.median(values)), 0, height)
    # Repeated last values fill the last step; they change neither its smallest nor its largest value.
    pieces = np.pad(heights, (0, -len(heights) % step), mode="edge").reshape(-1, step)
    first = np.arange(len(pieces))[:, None] * step
    ends = np.sort(np.stack([pieces.argmin(axis=1), pieces.argmax(axis=1)], axis=1), axis=1) + first
    chosen = np.unique(ends)
    across = box.x + chosen / sampling_rate * _MM_PER_SEC
    return " ".join(
        f"{x:.1f},{y:.1f}" for x, y in zip(across.tolist(), heights[chosen].tolist(), strict=True)
    )


def _paper(width: float, height: float) -> str:
    """Squares of 1 mm and, stronger, of 5 mm."""

    def lines(step: int, colour: str, thickness: float) -> str:
        path = "".join(f"M{x} 0V{height:g}" for x in range(0, int(width) + 1, step))
        path += "".join(f"M0 {y}H{width:g}" for y in range(0, int(height) + 1, step))
        return f'<path d="{path}" stroke="{colour}" stroke-width="{thickness}" fill="none"/>'

    return (
        f'<rect width="{width:g}" height="{height:g}" fill="#fff7f6"/>'
        + lines(1, "#f8dfdc", 0.12)
        + lines(5, "#eeb9b3", 0.2)
    )
