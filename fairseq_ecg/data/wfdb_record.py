"""WFDB records with challenge comments as ``Record``: what the readers of WFDB folders share.

Comments come in two dialects, ``#Dx: 426783006`` (original challenge files) and ``# Dx: 426783006``
(PhysioNet release 1.0.3), and are matched without regard to case (PTB writes ``# age: 81``). An own line, ``#
Patient: ID``, names the patient where the source knows one; without it every record is its own patient.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.record import lead_name, mv_per_unit
from fairseq_ecg.data.signal import implausible_amplitude
from fairseq_ecg.data.source_table import parse_age, parse_sex
from fairseq_ecg.data.wfdb_format import (
    Calibration,
    Header,
    SignalHeader,
    read_digital,
    read_physical,
    to_physical,
)
from fairseq_ecg.errors import DataError

_COMMENT = re.compile(r"<?(age|sex|dx|patient)>?\s*:\s*(.*)", re.IGNORECASE)


class Comments(NamedTuple):
    """What a header's comments say of the patient."""

    age: float
    sex: str
    codes: tuple[str, ...]
    patient_id: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class WfdbItem:
    """A header file that has been found but not read."""

    path: Path
    source: str

    @property
    def record_id(self) -> str:
        return self.path.stem

    def read(self) -> Record:
        return read_wfdb_record(self.path, source=self.source)


def find_headers(raw_dir: Path) -> list[Path]:
    """All ``.hea`` files of a folder tree, sorted by relative path; hidden files and folders are left out.

    Raises:
        DataError: ``raw_dir`` is not a folder or holds none.
    """
    if not raw_dir.is_dir():
        raise DataError(f"{raw_dir}: no such folder; give the folder that holds the .hea files")
    found = []  # texts: paths of a million records would take a gigabyte and a minute
    for folder, subfolders, names in os.walk(raw_dir):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [
            f"{folder}{os.sep}{name}"
            for name in names
            if name.lower().endswith(".hea") and not name.startswith(".")
        ]
    if not found:
        raise DataError(f"{raw_dir}: no .hea file in it or below; give the folder of unpacked WFDB records")
    return [Path(path) for path in sorted(found)]


def parse_comments(comments: Sequence[str]) -> Comments:
    """Age, sex, codes and patient of comment lines; several ``Dx`` lines add up, unknown words are empty."""
    age, sex, patient_id = math.nan, "", ""
    codes: list[str] = []
    notes: list[str] = []
    for comment in comments:
        match = _COMMENT.fullmatch(comment)
        if match is None:
            continue
        key, text = match[1].lower(), match[2].strip()
        if key == "dx":
            codes += [code.strip() for code in text.split(",") if code.strip()]
        elif key == "patient":
            patient_id = text
        elif key == "sex":
            sex, remarks = parse_sex(text)
            notes += remarks
        else:
            stated, remarks = parse_age(text)
            age = age if math.isnan(stated) else stated
            notes += remarks
    return Comments(age, sex, tuple(dict.fromkeys(codes)), patient_id, tuple(notes))


def read_wfdb_record(path: Path | str, *, source: str = "", gain: float | None = None) -> Record:
    """Read a WFDB record: samples in mV under the package's lead names, and what the comments say.

    Signals that are no voltage (pressure, respiration) are left out with a note. A gain is never corrected
    unasked; an amplitude no ECG has is noted.

    Args:
        path: of the ``.hea`` file.
        source: name of the data set, kept in the record.
        gain: ADC units per mV to use in place of the header's.

    Raises:
        DataError: the record cannot be read or its samples are not what its header announces.
    """
    return read_with_header(path, source=source, gain=gain)[0]


def read_with_header(
    path: Path | str, *, source: str = "", gain: float | None = None
) -> tuple[Record, Header]:
    """As ``read_wfdb_record``, with the header for what a data set says in comments of its own."""
    path = Path(path)
    replaced: tuple[str, ...] = ()
    if gain is None:
        signal, header = read_physical(path)
    else:
        digital, header = read_digital(path)
        stated = sorted({f"{item.calibration.gain:g}/{item.calibration.unit}" for item in header.signals})
        if stated != [f"{gain:g}/mV"]:
            replaced = (f"gain {', '.join(stated)} of the header replaced by {gain:g}/mV",)
        signals = [
            item._replace(calibration=Calibration(gain, item.calibration.baseline, "mV", True))
            for item in header.signals
        ]
        header = header._replace(signals=tuple(signals))
        signal = to_physical(digital, header)
    if header.sampling_rate < 1 or header.sampling_rate % 1:
        raise DataError(f"{path}: sampling rate {header.sampling_rate} Hz: a whole number from 1 is needed")
    signal, signals, notes = _to_mv(signal, header.signals, path)
    comments = parse_comments(header.comments)
    record = Record(
        record_id=path.stem,
        patient_id=comments.patient_id or path.stem,
        source=source,
        signal=signal,
        leads=tuple(lead_name(item.name) for item in signals),
        sampling_rate=int(header.sampling_rate),
        labels=comments.codes,
        age=comments.age,
        sex=comments.sex,
        date=header.date,
        notes=(*replaced, *notes, *_implausible_gain(signal, signals), *comments.notes),
    )
    return record, header


def _to_mv(
    signal: NDArray[np.float32], signals: Sequence[SignalHeader], path: Path
) -> tuple[NDArray[np.float32], list[SignalHeader], list[str]]:
    """Scale every voltage to mV and drop what is none."""
    notes: list[str] = []
    factors, kept = [], []
    for row, item in enumerate(signals):
        if not item.calibration.stated:
            notes.append(f"{item.name}: no gain in the header, {item.calibration.gain:g} per mV assumed")
        try:
            factors.append(mv_per_unit(item.calibration.unit))
            kept.append(row)
        except DataError as error:
            notes.append(f"{item.name} left out: {error}")
    if not kept:
        raise DataError(f"{path}: none of its signals is a voltage: {'; '.join(notes)}")
    if len(kept) < len(signals):
        signal = signal[kept]
    if any(factor != 1 for factor in factors):
        signal = signal * np.array(factors, np.float32)[:, None]
    return signal, [signals[row] for row in kept], notes


def _implausible_gain(signal: NDArray[np.float32], signals: Sequence[SignalHeader]) -> list[str]:
    """A remark when the amplitude is none of an ECG: most likely the header's gain is wrong."""
    spread = implausible_amplitude(signal)
    if spread is None:
        return []
    gains = sorted({f"{item.calibration.gain:g}/{item.calibration.unit}" for item in signals})
    return [f"amplitude {spread:.3g} mV is implausible: is the gain {', '.join(gains)} of the header right?"]
