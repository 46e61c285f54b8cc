"""MIMIC-IV-ECG (Gow et al. 2023, PhysioNet mimic-iv-ecg 1.0, ODbL 1.0): about 800,000 ECGs, 160,000 patients.

Files: ``record_list.csv`` (subject_id, study_id, file_name, ecg_time, path) and the WFDB tree ``files``; 12
leads at 500 Hz, 10 s. Optional: ``machine_measurements.csv`` (study_id, report_0 ... report_17,
measurements), and ``patients.csv(.gz)`` of MIMIC-IV (subject_id, gender, anchor_age, anchor_year;
credentialed access).

* **Lead order.** The files hold aVF before aVL: I, II, III, aVR, aVF, aVL, V1 ... V6. Leads are taken by
  the names in each header, never by place.
* Dates are shifted per patient by an unknown number of years; only differences within a patient mean
  anything.
* record_id is study_id, patient_id is subject_id. Machine statements, when asked for, become labels as
  written; they are joined by study_id, not by row.
* Ages come from patients.csv, as anchor_age plus the years since anchor_year; anchor_age 91 stands for
  "over 89" and gives 90. Some leads have missing samples, left to ``--policy-nan``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.source_table import OLDEST_STATED, inside, oldest, parse_sex, read_source_table
from fairseq_ecg.data.wfdb_record import read_wfdb_record
from fairseq_ecg.errors import DataError
from fairseq_ecg.registry import register_reader

SOURCE = "mimic_iv_ecg"
RECORDS = "record_list.csv"
MEASUREMENTS = "machine_measurements.csv"

_NUM_REPORTS = 18
_DATE_LENGTH = 10
"""Characters of the date in ``2180-07-23 08:44:00``."""


@dataclass(kw_only=True)
class MimicIvEcgConfig:
    machine_statements: bool = False
    """Labels: the machine's statements of machine_measurements.csv."""
    patients: Path | None = None
    """patients.csv or patients.csv.gz of MIMIC-IV: sex and age."""
    only_present: bool = False
    """Pass over records of the list whose header is not there: for a partial download."""


class Person(NamedTuple):
    """A row of MIMIC-IV's patients table, as text."""

    gender: str
    anchor_age: str
    anchor_year: str


@dataclass(frozen=True, slots=True)
class MimicItem:
    """An ECG of the list that has not been read."""

    raw_dir: Path
    file_name: str
    subject_id: str
    study_id: str
    time: str
    statements: tuple[str, ...]
    person: Person | None

    @property
    def path(self) -> Path:
        return self.raw_dir / f"{self.file_name}.hea"

    @property
    def record_id(self) -> str:
        return self.study_id

    def read(self) -> Record:
        record = read_wfdb_record(inside(self.raw_dir, f"{self.file_name}.hea"), source=SOURCE)
        sex, sex_notes = parse_sex(self.person.gender) if self.person else (record.sex, ())
        age, age_notes = _age(self.person, self.time) if self.person else (record.age, ())
        return replace(
            record,
            record_id=self.study_id,
            patient_id=self.subject_id,
            labels=self.statements,
            age=age,
            sex=sex,
            date=self.time.replace(" ", "T") or record.date,
            notes=(*record.notes, *sex_notes, *age_notes),
        )


@register_reader("mimic_iv_ecg", config=MimicIvEcgConfig)
class MimicIvEcg:
    """MIMIC-IV-ECG: record_list.csv and its WFDB tree, leads by name (aVF comes before aVL)."""

    def __init__(self, cfg: MimicIvEcgConfig) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[MimicItem]:
        """The rows of record_list.csv in their order.

        Raises:
            DataError: a table that is needed is missing or damaged, or none of its records is there.
        """
        listed = read_source_table(
            raw_dir / RECORDS,
            ("path", "subject_id", "study_id"),
            optional=("ecg_time",),
            remedy="give the folder of the data set, which holds it",
        )
        statements = self._read_statements(raw_dir)
        people = self._read_people()
        items = (
            MimicItem(raw_dir, path, subject, study, time, statements.get(study, ()), people.get(subject))
            for path, subject, study, time in listed
        )
        if not self.cfg.only_present:
            return items
        present = [item for item in items if item.path.is_file()]
        if not present:
            raise DataError(f"{raw_dir}: none of the records that {RECORDS} names is there")
        return iter(present)

    def _read_statements(self, raw_dir: Path) -> dict[str, tuple[str, ...]]:
        """Statements by study_id; equal lists are kept once."""
        if not self.cfg.machine_statements:
            return {}
        rows = read_source_table(
            raw_dir / MEASUREMENTS,
            ("study_id", "report_0"),
            optional=[f"report_{number}" for number in range(1, _NUM_REPORTS)],
            remedy=f"--machine-statements needs it; it lies beside {RECORDS}",
        )
        shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        statements: dict[str, tuple[str, ...]] = {}
        for study, *reports in rows:
            # The index joins labels by "|".
            said = tuple(dict.fromkeys(text.replace("|", "/") for text in reports if text))
            statements[study] = shared.setdefault(said, said)
        return statements

    def _read_people(self) -> dict[str, Person]:
        if self.cfg.patients is None:
            return {}
        columns = ("subject_id", "gender", "anchor_age", "anchor_year")
        rows = read_source_table(
            self.cfg.patients, columns, remedy="--patients names a file of MIMIC-IV hosp"
        )
        return {row[0]: Person(*row[1:]) for row in rows}


def _age(person: Person, time: str) -> tuple[float, tuple[str, ...]]:
    """Years at the time of the ECG, to the year: dates keep their distance within a patient."""
    try:
        anchor_age = int(person.anchor_age)
        age = anchor_age + int(time[:4]) - int(person.anchor_year)
    except ValueError:
        return math.nan, (f"age of {tuple(person[1:])} at {time[:_DATE_LENGTH]!r} not understood",)
    if anchor_age > OLDEST_STATED:
        return oldest()
    return float(age), () if 0 <= age <= 120 else (f"age {age} is implausible",)
