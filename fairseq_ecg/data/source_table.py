"""The tables data sets ship beside their signals: rows as texts, and what their cells mean.

Cells are kept as texts until a record is read, so that a wrong one costs its record and not the preparation.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from fairseq_ecg.errors import DataError

OLDEST_STATED = 89
"""Ages above it are not stated in de-identified data (HIPAA); PTB-XL writes 300, LUDB ``>89``, MIMIC 91."""

_SEX = {"male": "male", "m": "male", "female": "female", "f": "female"}
_UNKNOWN = ("", "nan", "unknown", "n/a", "none")
_TRUTH = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def read_source_table(
    path: Path, columns: Sequence[str], *, optional: Sequence[str] = (), remedy: str
) -> Iterator[tuple[str, ...]]:
    """The cells of some columns of a CSV (``.gz`` too), row by row, stripped; others are passed over.

    Column names are matched without regard to case, which releases of one data set change.

    Args:
        path: the table; its first row names the columns.
        columns: needed ones.
        optional: columns that may be absent; their cells are then empty.
        remedy: ends the message when the file is not there.

    Raises:
        DataError: no such file, not a table, a needed column is absent, a row is too short.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing; {remedy}")
    line = 1
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as binary:
            rows = csv.reader(text.decode("utf-8-sig", errors="replace") for text in binary)
            names = [name.strip().lower() for name in next(rows, [])]
            if missing := [name for name in columns if name.lower() not in names]:
                shown = " ".join(", ".join(names)[:300].split())
                raise DataError(f"{path}: column {missing[0]!r} is missing; it has {shown}")
            place = {name: number for number, name in enumerate(names)}
            wanted = [place.get(name.lower(), -1) for name in (*columns, *optional)]
            for row in rows:
                line = rows.line_num
                if not row:
                    continue
                if len(row) < len(names):
                    raise DataError(
                        f"{path}, line {line}: {len(row)} cells where the first row has {len(names)}; "
                        "the file is damaged, fetch it again"
                    )
                yield tuple([row[number].strip() if number >= 0 else "" for number in wanted])
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise DataError(f"{path}, after line {line}: cannot be read: {error}") from None


def inside(raw_dir: Path, relative: str) -> Path:
    """The path a table names, below the folder it speaks of.

    Raises:
        DataError: it leads out of the folder.
    """
    is_name = "\0" not in relative and all(len(part.encode()) < 256 for part in Path(relative).parts)
    if not is_name or Path(relative).is_absolute() or ".." in Path(relative).parts or not relative:
        raise DataError(f"the table names {relative[:200]!r}, which is no path below {raw_dir}")
    return raw_dir / relative


def parse_age(text: str) -> tuple[float, tuple[str, ...]]:
    """Years, NaN when unknown, and remarks; "over 89" is 90."""
    if text.lower() in _UNKNOWN:
        return math.nan, ()
    if text.replace(" ", "") == f">{OLDEST_STATED}":
        return oldest()
    try:
        age = float(text)
    except ValueError:
        return math.nan, (f"age {text!r} not understood",)
    return age, () if 0 <= age <= 120 else (f"age {text} is implausible",)


def oldest() -> tuple[float, tuple[str, ...]]:
    """The age of whom the source only says to be over 89."""
    return OLDEST_STATED + 1.0, (f"age is over {OLDEST_STATED}, kept as {OLDEST_STATED + 1}",)


def parse_sex(text: str) -> tuple[str, tuple[str, ...]]:
    """``female``, ``male`` or empty, and a remark when the word is not understood."""
    sex = _SEX.get(text.lower(), "")
    return sex, () if sex or text.lower() in _UNKNOWN else (f"sex {text!r} not understood",)


def parse_truth(name: str, text: str) -> bool | None:
    """A yes or no; None for an empty cell.

    Raises:
        DataError: neither.
    """
    if text.lower() in _UNKNOWN:
        return None
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise DataError(f"{name} is {text!r}, needed is True or False") from None
