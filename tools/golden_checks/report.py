"""What every golden checker writes to: one line per compared array, with its errors and its tolerance."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Line:
    """The comparison of one array with its golden value."""

    name: str
    abs_error: float
    rel_error: float
    tolerance: str
    passed: bool
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Report:
    """Comparisons of one fixture folder, in the order they were made."""

    lines: list[Line] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return bool(self.lines) and all(line.passed for line in self.lines)

    def close(
        self, name: str, actual: ArrayLike, expected: ArrayLike, *, atol: float = 0.0, rtol: float = 0.0
    ) -> None:
        """Pass when ``|actual - expected| <= atol + rtol * |expected|`` everywhere.

        NaN must meet NaN, an infinity the same infinity, and the shapes must be equal.
        """
        mine, theirs = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
        tolerance = " + ".join(
            text for text in (f"{atol:g}" if atol else "", f"{rtol:g}*|x|" if rtol else "") if text
        )
        if mine.shape != theirs.shape:
            note = f"shape {mine.shape}, expected {theirs.shape}"
            self.lines.append(Line(name, np.inf, np.inf, tolerance or "exact", False, note))
            return
        finite = np.isfinite(theirs)
        same_special = bool(
            np.array_equal(np.isfinite(mine), finite)
            and np.array_equal(mine[~finite], theirs[~finite], equal_nan=True)
        )
        comparable = finite & np.isfinite(mine)
        difference = np.abs(np.subtract(mine, theirs, out=np.zeros_like(theirs), where=comparable))
        size = np.abs(np.where(finite, theirs, 0.0))
        passed = same_special and bool(np.all(difference <= atol + rtol * size))
        abs_error = float(difference.max(initial=0.0))
        rel_error = float((difference / np.where(size > 0, size, 1.0)).max(initial=0.0))
        note = "" if same_special else "NaN or infinity in other places"
        self.lines.append(Line(name, abs_error, rel_error, tolerance or "exact", passed, note))

    def equal(self, name: str, actual: Any, expected: Any) -> None:
        """Pass when two arrays, lists or strings are exactly the same."""
        if isinstance(expected, np.ndarray) or isinstance(actual, np.ndarray):
            mine, theirs = np.asarray(actual), np.asarray(expected)
            passed = mine.shape == theirs.shape and bool(np.all(mine == theirs))
            note = "" if passed else f"{mine.shape} and {theirs.shape}: values differ"
        else:
            passed = actual == expected
            note = "" if passed else f"got {str(actual)[:80]!r}, expected {str(expected)[:80]!r}"
        error = 0.0 if passed else np.inf
        self.lines.append(Line(name, error, error, "exact", passed, note))

    def fail(self, name: str, note: str) -> None:
        """Record a check that could not be made."""
        self.lines.append(Line(name, np.inf, np.inf, "", False, note))
