"""Label definitions: which codes make which class, and codes of records as multi-hot targets.

Shapes use N record, K class.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.synthetic import DIAGNOSES
from fairseq_ecg.errors import DataError, nearest

_FILES = (
    "code15",
    "cpsc2018",
    "ptbxl_all",
    "ptbxl_diag",
    "ptbxl_form",
    "ptbxl_rhythm",
    "ptbxl_sub",
    "ptbxl_super",
)
"""Kept as tables in ``label_definitions``."""

BUILT_IN = ("cinc2020", "cinc2021", *_FILES, "synthetic")

COLUMNS = ("index", "name", "codes", "description", "labelled_if")
"""Of a ``label_def.csv``; ``codes`` and ``labelled_if`` are joined by ``|``."""

ANY, SNOMED, LISTED = "any", "snomed", "listed"
"""When a record counts as judged for a class: it has any code; it has a SNOMED CT code; it has a code that a
class of the same definition names. Other words are codes that show it too (``none_of_six`` of CODE-15)."""

# The 2020 table lists the codes of these pairs as separate rows; its rules score them as one class, at the
# place of the first. The 2021 table has them joined already.
_EQUIVALENT_2020 = {"59118001": "713427006", "63593006": "284470004", "17338001": "427172004"}


@dataclass(frozen=True)
class LabelDefinition:
    """Classes in the order of the target's columns. A class is present when a record has any of its codes."""

    names: tuple[str, ...]
    codes: tuple[frozenset[str], ...]
    descriptions: tuple[str, ...]
    labelled_if: tuple[frozenset[str], ...] = ()
    """Per class; without it ``any`` for all."""

    def __post_init__(self) -> None:
        if not self.labelled_if:
            object.__setattr__(self, "labelled_if", (frozenset([ANY]),) * len(self.names))
        if not len(self.names) == len(self.codes) == len(self.descriptions) == len(self.labelled_if):
            raise DataError("a label definition needs as many names as code sets and descriptions")
        if not self.names or len(set(self.names)) != len(self.names):
            raise DataError(f"label names must be given and differ from each other: {list(self.names)}")

    def __len__(self) -> int:
        return len(self.names)

    def multi_hot(self, codes_of_records: Iterable[Sequence[str]]) -> NDArray[np.float32]:
        """(N, K) float32: 1 where a record has a code of the class, 0 where it has none of them.

        A record with codes of no class at all is negative for every class. A record without any code was not
        diagnosed: it is unlabelled, its row is NaN.
        """
        columns: dict[str, list[int]] = {}
        for column, codes in enumerate(self.codes):
            for code in codes:
                columns.setdefault(code, []).append(column)
        records = list(codes_of_records)
        target = np.zeros((len(records), len(self)), np.float32)
        for row, found in zip(target, records, strict=True):
            row[[column for code in found for column in columns.get(code, ())]] = 1
            if not found:
                row[:] = np.nan
        return target

    def target(self, codes_of_records: Iterable[Sequence[str]]) -> NDArray[np.float32]:
        """(N, K) float32 like ``multi_hot``, but NaN where nobody has judged the record for the class.

        A record of another data set, whose codes say nothing of a class, is not a negative example of it.
        """
        records = list(codes_of_records)
        target = self.multi_hot(records)
        listed = frozenset(
            code
            for codes, tests in zip(self.codes, self.labelled_if, strict=True)
            if LISTED in tests
            for code in codes
        )
        for tests in set(self.labelled_if):
            known = listed | tests if LISTED in tests else tests
            columns = [column for column, other in enumerate(self.labelled_if) if other == tests]
            unknown = [
                row
                for row, codes in enumerate(records)
                if not (codes and ANY in tests)
                and not (SNOMED in tests and any(is_snomed(code) for code in codes))
                and known.isdisjoint(codes)
            ]
            part = np.ix_(unknown, columns)
            target[part] = np.where(target[part] > 0, target[part], np.nan)
        return target

    def rows(self) -> list[tuple[str, ...]]:
        """The cells of ``COLUMNS``, class by class; the codes of a class in sorted order."""
        parts = zip(self.names, self.codes, self.descriptions, self.labelled_if, strict=True)
        return [
            (str(index), name, "|".join(sorted(codes)), text, "|".join(sorted(tests)))
            for index, (name, codes, text, tests) in enumerate(parts)
        ]

    def write(self, path: Path) -> None:
        """Write ``label_def.csv``."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(self.rows())


def is_snomed(code: str) -> bool:
    """Whether a code has the form of a SNOMED CT concept: 6 to 18 digits."""
    return code.isascii() and code.isdigit() and 6 <= len(code) <= 18


def label_definition(name_or_path: str | Path) -> LabelDefinition:
    """A built-in definition by its name in ``BUILT_IN``, or one read from a ``label_def.csv``.

    Raises:
        DataError: neither such a name nor such a file, or the file is not as documented in
        manifests/README.md.
    """
    if str(name_or_path) == "synthetic":
        return _synthetic()
    if str(name_or_path) in _FILES:
        resource = files("fairseq_ecg") / "data" / "label_definitions" / f"{name_or_path}.csv"
        return _parse(str(name_or_path), io.StringIO(resource.read_text(encoding="utf-8")))
    if str(name_or_path) in BUILT_IN:
        return _challenge(str(name_or_path).removeprefix("cinc"))
    path = Path(name_or_path)
    if not path.is_file():
        raise DataError(
            f"labels {str(name_or_path)!r}: no such file and no built-in definition: "
            f"{nearest(str(name_or_path), BUILT_IN)}"
        )
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return _parse(str(path), file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table: {error}") from None


def read_label_array(path: Path) -> NDArray[np.float32]:
    """A label array such as ``y.npy``: (R, K), row = ``idx`` of the manifests, NaN = unlabelled.

    Raises:
        DataError: it cannot be read, is not two-dimensional, or holds what is neither a label from 0 to 1 nor
            NaN.
    """
    again = "make it again: fairseq-ecg manifest split ... --labels NAME"
    if not path.is_file():
        raise DataError(f"label file {path} does not exist; {again}")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        # numpy offers to unpickle what it does not know, which is no remedy.
        reason = "it is no .npy file" if "pickle" in str(error) else str(error)
        raise DataError(f"label file {path} is not a readable label array: {reason}; {again}") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fbiu":
        found = f"shape {array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else "several arrays"
        raise DataError(f"label file {path} has {found}; needed are numbers of shape (idx, label); {again}")
    with np.errstate(invalid="ignore"):
        wrong = np.argwhere((array < 0) | (array > 1))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise DataError(
            f"label file {path}, row {row}, label {column}: {array[row, column]} is no label; "
            "needed are 0, 1, a probability between them, or NaN for unlabelled"
        )
    return array.astype(np.float32)


def _parse(path: str, file: Iterable[str]) -> LabelDefinition:
    reader = csv.DictReader(file)
    if missing := {"name", "codes"} - set(reader.fieldnames or ()):
        raise DataError(f"{path}: no column {sorted(missing)}; the columns are {','.join(COLUMNS)}")
    names: list[str] = []
    codes: list[frozenset[str]] = []
    descriptions: list[str] = []
    tests: list[frozenset[str]] = []
    for row in reader:
        line = f"{path}:{reader.line_num}"
        if row.get("index") not in (None, "", str(len(names))):
            raise DataError(f"{line}: index {row['index']} where {len(names)} is expected")
        found = _set(row["codes"])
        if not row["name"] or not found:
            raise DataError(f"{line}: a class needs a name and at least one code")
        names.append(row["name"].strip())
        codes.append(found)
        descriptions.append((row.get("description") or "").strip())
        tests.append(_set(row.get("labelled_if")) or frozenset([ANY]))
    if not names:
        raise DataError(f"{path}: no class in it")
    return LabelDefinition(tuple(names), tuple(codes), tuple(descriptions), tuple(tests))


def _set(cell: str | None) -> frozenset[str]:
    return frozenset(part.strip() for part in (cell or "").split("|") if part.strip())


def _synthetic() -> LabelDefinition:
    """The diagnoses of the synthetic corpus, those that the challenges do not score included."""
    codes, descriptions = zip(*DIAGNOSES.values(), strict=True)
    return LabelDefinition(tuple(DIAGNOSES), tuple(frozenset([code]) for code in codes), descriptions)


def _challenge(year: str) -> LabelDefinition:
    """Classes of a challenge in the order of its ``weights.csv``, named by abbreviations (``PVC|VPB``)."""
    known = {row[1]: row for row in _table(year, "dx_mapping_scored.csv")[1:]}
    classes: dict[str, list[str]] = {}
    for cell in _table(year, "weights.csv")[0][1:]:
        members = cell.split("|")
        first = _EQUIVALENT_2020.get(members[0], members[0]) if year == "2020" else members[0]
        classes.setdefault(first, []).extend(members)
    return LabelDefinition(
        tuple("|".join(known[code][2] for code in codes) for codes in classes.values()),
        tuple(frozenset(codes) for codes in classes.values()),
        tuple(" / ".join(known[code][0] for code in codes) for codes in classes.values()),
        (frozenset([SNOMED]),) * len(classes),
    )


def _table(year: str, name: str) -> list[list[str]]:
    resource = files("fairseq_ecg") / "metrics" / "cinc_tables" / year / name
    rows = csv.reader(io.StringIO(resource.read_text(encoding="utf-8-sig")))
    return [[cell.strip() for cell in row] for row in rows if row]
