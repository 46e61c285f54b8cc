"""MIT-BIH Arrhythmia Database (Moody and Mark 2001, PhysioNet mitdb 1.0.0, ODC-By 1.0): 48 records.

Two leads at 360 Hz, 30 minutes, 11 bits over 10 mV, mostly a modified lead II (MLII, read as II) and V1 or
V5; the order and the leads differ between records and are taken by name. ``.atr`` holds beats and rhythm
changes.

Labels say what occurs anywhere in the record: ``rhythm:AFIB`` for every rhythm, ``beat:V`` for every symbol
of a beat. For shorter pieces read ``read_annotations(path.with_suffix(".atr"))``. Age and sex come from the
first comment ("69 M 1085 1629 x1"; age -1 is unknown). Records 201 and 202 are of one man, who keeps the id
201: 47 patients.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.source_table import parse_age, parse_sex
from fairseq_ecg.data.wfdb_annotation import BEATS, read_annotations
from fairseq_ecg.data.wfdb_record import find_headers, read_with_header
from fairseq_ecg.registry import NoConfig, register_reader

SOURCE = "mitbih"
_SAME_PATIENT = {"202": "201"}
_PERSON = re.compile(r"(-?\d+)\s+([MF])\b.*")


@dataclass(frozen=True, slots=True)
class MitBihItem:
    """A header that has been found but not read."""

    path: Path

    @property
    def record_id(self) -> str:
        return self.path.stem

    def read(self) -> Record:
        record, header = read_with_header(self.path, source=SOURCE)
        age, sex, notes = _person(header.comments)
        annotations = self.path.with_suffix(".atr")
        labels: tuple[str, ...] = ()
        if annotations.is_file():
            labels = _labels(annotations)
        else:
            notes += (f"no {annotations.name} beside it: no labels",)
        return replace(
            record,
            patient_id=_SAME_PATIENT.get(record.record_id, record.record_id),
            labels=labels,
            age=age,
            sex=sex,
            notes=(*record.notes, *notes),
        )


@register_reader("mitbih", config=NoConfig)
class MitBih:
    """MIT-BIH Arrhythmia Database: two leads, 360 Hz, half-hour records, beats and rhythms as labels."""

    def __init__(self, cfg: NoConfig) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[MitBihItem]:
        """The headers below ``raw_dir``, by relative path.

        Raises:
            DataError: there is none.
        """
        return (MitBihItem(path) for path in find_headers(raw_dir))


def _labels(path: Path) -> tuple[str, ...]:
    annotations = read_annotations(path)
    pairs = list(zip(annotations.symbols, annotations.texts, strict=True))
    rhythms = {text.removeprefix("(") for symbol, text in pairs if symbol == "+" and text}
    beats = {symbol for symbol, _ in pairs if symbol in BEATS}
    return (*(f"rhythm:{name}" for name in sorted(rhythms)), *(f"beat:{name}" for name in sorted(beats)))


def _person(comments: Sequence[str]) -> tuple[float, str, tuple[str, ...]]:
    """Age, sex and remarks of the first comment that states them."""
    match = next((match for line in comments if (match := _PERSON.fullmatch(line))), None)
    if match is None:
        return math.nan, "", ()
    age, notes = (math.nan, ()) if match[1] == "-1" else parse_age(match[1])
    return age, parse_sex(match[2])[0], notes
