"""CODE-15 % (Ribeiro et al. 2021, Zenodo record 4916206, CC BY 4.0): 345,779 exams of 233,770 patients.

Files: ``exams.csv`` and the HDF5 parts ``exams_part0.hdf5`` to ``exams_part17.hdf5``, unpacked, in one
folder.

* A part holds ``exam_id`` (exams + 1) and ``tracings`` (exams + 1, 4096, 12) at 400 Hz in the order I, II,
  III, aVR, aVL, aVF, V1 ... V6. Its last row is a stand-in, exam_id 0 and all zeros, and is passed over.
* Exams of 10.2 s (4096 samples) or 7.3 s (2934) lie centred between zeros, which are stripped.
* The files state no unit; the sizes are those of mV, and they are read as mV without conversion.
* ``exams.csv``: exam_id, age, is_male, nn_predicted_age, 1dAVb, RBBB, LBBB, SB, ST, AF, patient_id, death,
  timey, normal_ecg, trace_file. Labels are the six findings that are True, ``none_of_six`` where there is
  none, and ``normal_ecg``. The predicted age and the follow-up (death, timey) are not kept.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.source_table import inside, parse_age, parse_truth, read_source_table
from fairseq_ecg.data.tracings import FINDINGS, SAMPLING_RATE, findings, read_exam_ids, read_tracing
from fairseq_ecg.errors import DataError
from fairseq_ecg.registry import register_reader

SOURCE = "code15"
TABLE = "exams.csv"
_NORMAL = "normal_ecg"
_COLUMNS = ("exam_id", "trace_file", "patient_id", "age", "is_male", *FINDINGS, _NORMAL)


@dataclass(kw_only=True)
class Code15Config:
    table: bool = True
    """Read exams.csv; without it records have neither patients nor labels."""
    strip_padding: bool = True
    """Leave out the zeros before and after each exam."""


class Exam(NamedTuple):
    """What exams.csv says of an exam, as text."""

    patient_id: str
    age: str
    is_male: str
    answers: tuple[str, ...]
    """Of ``FINDINGS`` and normal_ecg."""


@dataclass(frozen=True, slots=True)
class Code15Item:
    """An exam that has been found but not read."""

    path: Path
    row: int
    exam_id: int
    exam: Exam | None
    strip_padding: bool

    @property
    def record_id(self) -> str:
        return str(self.exam_id)

    def read(self) -> Record:
        signal = read_tracing(self.path, self.row, strip_padding=self.strip_padding)
        age, notes = parse_age(self.exam.age) if self.exam else parse_age("")
        return Record(
            record_id=self.record_id,
            patient_id=(self.exam.patient_id if self.exam else "") or self.record_id,
            source=SOURCE,
            signal=signal,
            leads=STANDARD_LEADS,
            sampling_rate=SAMPLING_RATE,
            labels=_labels(self.exam) if self.exam else (),
            age=age,
            sex=_sex(self.exam) if self.exam else "",
            notes=notes,
        )


@dataclass(frozen=True, slots=True)
class AbsentItem:
    """Exams that cannot be read, all for one reason."""

    path: Path
    record_id: str
    reason: str

    def read(self) -> Record:
        raise DataError(self.reason)


@register_reader("code15", config=Code15Config)
class Code15:
    """CODE-15 %: HDF5 parts and exams.csv, 400 Hz, padding stripped, six findings."""

    def __init__(self, cfg: Code15Config) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[Code15Item | AbsentItem]:
        """The exams by part and row. A part that is named and not there is one item, unreadable.

        Raises:
            DataError: no part is there, or exams.csv is missing or damaged.
        """
        exams, part_of = self._read_table(raw_dir)
        named = sorted(set(part_of.values()) or {path.name for path in raw_dir.glob("*.hdf5")}, key=_natural)
        present = [name for name in named if inside(raw_dir, name).is_file()]
        if not present:
            wanted = f"; {TABLE} names {', '.join(named)}" if named else ""
            raise DataError(f"{raw_dir}: no exams_part*.hdf5 in it{wanted}; unpack the parts there")
        return self._items(raw_dir, named, exams, part_of)

    def _read_table(self, raw_dir: Path) -> tuple[dict[int, Exam], dict[int, str]]:
        """Exams and their part by exam_id; equal texts are kept once."""
        exams: dict[int, Exam] = {}
        part_of: dict[int, str] = {}
        if not self.cfg.table:
            return exams, part_of
        shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        remedy = "it lies beside the parts in Zenodo record 4916206; --no-table reads the tracings alone"
        for row in read_source_table(raw_dir / TABLE, _COLUMNS, remedy=remedy):
            try:
                exam_id = int(row[0])
            except ValueError:
                raise DataError(f"{raw_dir / TABLE}: exam_id {row[0]!r} is no whole number") from None
            answers = shared.setdefault(row[5:], row[5:])
            exams[exam_id] = Exam(row[2], sys.intern(row[3]), sys.intern(row[4]), answers)
            part_of[exam_id] = sys.intern(row[1])
        return exams, part_of

    def _items(
        self, raw_dir: Path, named: list[str], exams: dict[int, Exam], part_of: dict[int, str]
    ) -> Iterator[Code15Item | AbsentItem]:
        expected: dict[str, set[int]] = {name: set() for name in named}
        for exam_id, name in part_of.items():
            expected[name].add(exam_id)
        for name in named:
            path, count = inside(raw_dir, name), len(expected[name])
            lost = f"; {count} exams of {TABLE} are lost with it" if count else ""
            if not path.is_file():
                yield AbsentItem(path, name, f"{path}: the part does not exist{lost}; fetch it")
                continue
            try:
                ids = read_exam_ids(path).tolist()
            except DataError as error:
                yield AbsentItem(path, name, f"{error}{lost}")
                continue
            for row, exam_id in enumerate(ids):
                if exam_id == 0 and 0 not in exams:
                    continue  # the stand-in at the end of a part
                if self.cfg.table and exam_id not in exams:
                    yield AbsentItem(path, str(exam_id), f"{path}: {TABLE} has no row of exam_id {exam_id}")
                    continue
                yield Code15Item(path, row, exam_id, exams.get(exam_id), self.cfg.strip_padding)
            for exam_id in sorted(expected[name].difference(ids)):
                reason = f"{path}: exam_id {exam_id} is not in it, though {TABLE} says so"
                yield AbsentItem(path, str(exam_id), reason)


def _labels(exam: Exam) -> tuple[str, ...]:
    answers = {
        name: parse_truth(name, text) for name, text in zip((*FINDINGS, _NORMAL), exam.answers, strict=True)
    }
    return (*findings(answers), *([_NORMAL] if answers[_NORMAL] else []))


def _sex(exam: Exam) -> str:
    is_male = parse_truth("is_male", exam.is_male)
    return "" if is_male is None else "male" if is_male else "female"


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sorts part10 behind part9."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]
