"""PTB-XL (Wagner et al. 2020, PhysioNet ptb-xl 1.0.1 to 1.0.3, CC BY 4.0): 21,799 ECGs of 18,869 patients.

Files: ``ptbxl_database.csv``, ``scp_statements.csv`` and the WFDB trees ``records100`` and ``records500``,
the same ECGs at two rates. A store of up to 100 Hz is made of ``records100``, any other of ``records500``.

Columns used: ecg_id, patient_id (written as 15709.0), age, sex (0 male, 1 female), recording_date,
scp_codes, strat_fold, filename_lr, filename_hr. Labels are the SCP codes in the order of the table, with
the likelihood in percent beside them; 0 means that no likelihood is known, so statements of 0 count unless
``min_likelihood`` says otherwise. ``strat_fold`` (1 to 10; 9 and 10 were checked by a human) is kept as the
official fold. The report's text, height, weight, device, infarction stadium and the remarks on noise are
not kept.

Oddities: age 300 stands for "over 89" and is kept as 90; headers write AVR, AVL, AVF; most ECGs end with a
short constant stretch, which stays.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.source_table import inside, oldest, parse_age, read_source_table
from fairseq_ecg.data.wfdb_record import read_wfdb_record
from fairseq_ecg.errors import ConfigError, DataError, nearest
from fairseq_ecg.registry import register_reader

SOURCE = "ptbxl"
TABLE = "ptbxl_database.csv"
STATEMENTS = "scp_statements.csv"
FILES = ("auto", "records100", "records500")

_COLUMNS = ("patient_id", "age", "sex", "scp_codes", "strat_fold")
_LOW_RATE = 100
_AGE_OVER_89 = 300
_SEX = {"0": "male", "1": "female", "0.0": "male", "1.0": "female"}


@dataclass(kw_only=True)
class PtbXlConfig:
    sampling_rate: int = 500
    """Hz of the store: decides which files are read."""
    files: str = "auto"
    """auto (by the rate), records100 or records500."""
    min_likelihood: float = 0.0
    """Percent; statements below it are no labels. 0 keeps those of unknown likelihood."""

    def __post_init__(self) -> None:
        if self.files not in FILES:
            raise ConfigError(f"files={self.files}: {nearest(self.files, FILES)}")
        if not 0 <= self.min_likelihood <= 100:
            raise ConfigError(f"min_likelihood={self.min_likelihood}: percent from 0 to 100")

    @property
    def folder(self) -> str:
        if self.files != "auto":
            return self.files
        return "records100" if self.sampling_rate <= _LOW_RATE else "records500"


class Row(NamedTuple):
    """Cells of ptbxl_database.csv, as text."""

    patient_id: str
    age: str
    sex: str
    scp_codes: str
    strat_fold: str
    date: str


@dataclass(frozen=True, slots=True)
class PtbXlItem:
    """An ECG of the table that has not been read."""

    raw_dir: Path
    file_name: str
    row: Row
    known_codes: frozenset[str]
    """Of scp_statements.csv."""
    min_likelihood: float

    @property
    def path(self) -> Path:
        return self.raw_dir / f"{self.file_name}.hea"

    @property
    def record_id(self) -> str:
        return self.file_name.rpartition("/")[2]

    def read(self) -> Record:
        likelihoods = _parse_statements(self.row.scp_codes)
        unknown = sorted(likelihoods.keys() - self.known_codes)
        kept = {code: value for code, value in likelihoods.items() if value >= self.min_likelihood}
        record = read_wfdb_record(inside(self.raw_dir, f"{self.file_name}.hea"), source=SOURCE)
        age, notes = _age(self.row.age)
        if self.row.sex not in ("", *_SEX):
            raise DataError(f"sex is {self.row.sex!r} in {TABLE}, needed is 0 (male) or 1 (female)")
        return replace(
            record,
            patient_id=_whole(self.row.patient_id, "patient_id") or record.record_id,
            labels=tuple(kept),
            likelihoods=tuple(kept.values()),
            fold=_whole(self.row.strat_fold, "strat_fold"),
            age=age,
            sex=_SEX.get(self.row.sex, ""),
            date=self.row.date.replace(" ", "T"),
            notes=(
                *record.notes,
                *notes,
                *([f"codes {', '.join(unknown)} are not in {STATEMENTS}"] if unknown else []),
            ),
        )


@register_reader("ptbxl", config=PtbXlConfig)
class PtbXl:
    """PTB-XL at 100 or 500 Hz: official folds, patients, SCP codes with likelihoods."""

    def __init__(self, cfg: PtbXlConfig) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[PtbXlItem]:
        """The rows of ptbxl_database.csv in their order.

        Raises:
            DataError: a table or the folder of signals is missing.
        """
        remedy = "give the folder of the unpacked data set, which holds it"
        statements = read_source_table(
            raw_dir / STATEMENTS, ("", "diagnostic", "form", "rhythm"), remedy=remedy
        )
        known = frozenset(row[0] for row in statements)
        name = "filename_lr" if self.cfg.folder == "records100" else "filename_hr"
        table = read_source_table(
            raw_dir / TABLE, (name, *_COLUMNS), optional=("recording_date",), remedy=remedy
        )
        rows = list(table)
        if not (raw_dir / self.cfg.folder).is_dir():
            other = "records500" if self.cfg.folder == "records100" else "records100"
            raise DataError(
                f"{raw_dir / self.cfg.folder} is missing, which a store of {self.cfg.sampling_rate} Hz is "
                f"made of; fetch it, or resample the other files with --files {other}"
            )
        return (PtbXlItem(raw_dir, row[0], Row(*row[1:]), known, self.cfg.min_likelihood) for row in rows)


def _parse_statements(text: str) -> dict[str, float]:
    """``{'NORM': 100.0, 'SR': 0.0}`` as code -> likelihood, in the order written."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, dict) or not all(
        isinstance(code, str) and isinstance(number, int | float) for code, number in value.items()
    ):
        raise DataError(f"scp_codes is {text[:80]!r}, needed is a dictionary of codes and likelihoods")
    return {code: float(number) for code, number in value.items()}


def _age(text: str) -> tuple[float, tuple[str, ...]]:
    age, notes = parse_age(text)
    return oldest() if age == _AGE_OVER_89 else (age, notes)


def _whole(text: str, name: str) -> str:
    """``15709.0`` as ``15709``; empty stays empty."""
    if not text:
        return ""
    try:
        value = float(text)
        if not math.isfinite(value) or value % 1:
            raise ValueError
    except ValueError:
        raise DataError(f"{name} is {text!r} in {TABLE}, needed is a whole number") from None
    return str(int(value))
