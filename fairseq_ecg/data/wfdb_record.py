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
from fairseq_ecg.data.wfdb_format import SignalHeader, read_physical
from fairseq_ecg.errors import DataError

PLAUSIBLE_MV = (0.25, 8.0)
"""Where the median over leads of a record's largest minus smallest value lies: 0.7 to 4 mV in the 184 records
of PTB-XL, CPSC, Georgia, Chapman-Shaoxing, Ningbo, LUDB and MIT-BIH this was set on, with room on both
sides."""

_COMMENT = re.compile(r"<?(age|sex|dx|patient)>?\s*:\s*(.*)", re.IGNORECASE)
_SEX = {"male": "male", "m": "male", "female": "female", "f": "female"}
_UNKNOWN = ("", "nan", "unknown", "n/a")


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
    found = []
    for folder, subfolders, names in os.walk(raw_dir):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [
            Path(folder, name) for name in names if name.lower().endswith(".hea") and not name.startswith(".")
        ]
    if not found:
        raise DataError(f"{raw_dir}: no .hea file in it or below; give the folder of unpacked WFDB records")
    return sorted(found, key=lambda path: path.relative_to(raw_dir).as_posix())


def parse_comments(comments: Sequence[str]) -> Comments:
    """Age, sex, codes and patient of comment lines; several ``Dx`` lines add up, unknown words are empty."""
    age, sex, patient_id = math.nan, "", ""
    codes: list[str] = []
    notes = []
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
            sex = _SEX.get(text.lower(), "")
            if not sex and text.lower() not in _UNKNOWN:
                notes.append(f"sex {text!r} not understood")
        elif text.lower() not in _UNKNOWN:
            try:
                age = float(text)
            except ValueError:
                notes.append(f"age {text!r} not understood")
                continue
            if not 0 <= age <= 120:
                notes.append(f"age {text} is implausible")
    return Comments(age, sex, tuple(dict.fromkeys(codes)), patient_id, tuple(notes))


def read_wfdb_record(path: Path | str, *, source: str = "") -> Record:
    """Read a WFDB record: samples in mV under the package's lead names, and what the comments say.

    Signals that are no voltage (pressure, respiration) are left out with a note. A gain is never corrected;
    an amplitude no ECG has is noted.

    Args:
        path: of the ``.hea`` file.
        source: name of the data set, kept in the record.

    Raises:
        DataError: the record cannot be read or its samples are not what its header announces.
    """
    path = Path(path)
    signal, header = read_physical(path)
    if header.sampling_rate < 1 or header.sampling_rate % 1:
        raise DataError(f"{path}: sampling rate {header.sampling_rate} Hz: a whole number from 1 is needed")
    signal, signals, notes = _to_mv(signal, header.signals, path)
    comments = parse_comments(header.comments)
    return Record(
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
        notes=(*notes, *_implausible_amplitude(signal, signals), *comments.notes),
    )


def _to_mv(
    signal: NDArray[np.float32], signals: Sequence[SignalHeader], path: Path
) -> tuple[NDArray[np.float32], list[SignalHeader], list[str]]:
    """Scale every voltage to mV and drop what is none."""
    notes, factors, kept = [], [], []
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


def _implausible_amplitude(signal: NDArray[np.float32], signals: Sequence[SignalHeader]) -> list[str]:
    """A remark when the amplitude is none of an ECG: most likely the header's gain is wrong."""
    spread = float(np.median(signal.max(axis=1) - signal.min(axis=1)))  # NaN leads compare as plausible
    low, high = PLAUSIBLE_MV
    if spread == 0 or not (spread < low or spread > high):
        return []
    gains = sorted({f"{item.calibration.gain:g}/{item.calibration.unit}" for item in signals})
    return [f"amplitude {spread:.3g} mV is implausible: is the gain {', '.join(gains)} of the header right?"]
