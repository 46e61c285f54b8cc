"""EDF and EDF+ recordings (Kemp 1992, Kemp and Olivan 2003) as one record."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.raw_files import check_size, one_line
from fairseq_ecg.data.record import EXTRA_LEADS, FRANK_LEADS, lead_name, mv_per_unit
from fairseq_ecg.errors import DataError

_KNOWN = (*STANDARD_LEADS, *FRANK_LEADS, *EXTRA_LEADS)
_SEX = {"M": "male", "F": "female"}


def read_edf(path: Path) -> Record:
    """Read the ECG leads of a continuous EDF or EDF+ file.

    Labels are matched with and without the standard's prefix (``ECG V1``, ``EKG V1``, ``V1``). Signals that
    are no voltage, no lead, or of another rate than most leads are left out with a note.

    Raises:
        DataError: not such a file, truncated, discontinuous, or without any lead.
    """
    import edfio

    size = check_size(path)
    _check_extent(path, size)
    try:
        edf = edfio.read_edf(path, lazy_load_data=True, header_encoding="latin-1")
        return _record(edf, path)
    except DataError:
        raise
    except Exception as error:  # edfio raises whatever its parsing of a damaged header meets
        raise DataError(f"{path} cannot be read as EDF: {one_line(error)}; it may be damaged") from None


def _record(edf: Any, path: Path) -> Record:
    chosen, notes = [], []
    for signal in edf.signals:
        name = _lead(signal.label)
        try:
            factor = mv_per_unit(signal.physical_dimension)
        except DataError as error:
            notes.append(f"{signal.label!r} left out: {error}")
            continue
        if name not in _KNOWN:
            notes.append(f"{signal.label!r} left out: no known lead")
            continue
        chosen.append((name, signal, factor))
    if not chosen:
        raise DataError(f"{path}: no ECG lead among its signals: {'; '.join(notes)[:300]}")
    rate = Counter(signal.sampling_frequency for _, signal, _ in chosen).most_common(1)[0][0]
    if not 1 <= rate <= 1e5 or rate % 1:
        raise DataError(f"{path}: {rate} samples per second: a whole number from 1 is needed")
    kept = []
    for name, signal, factor in chosen:
        if signal.sampling_frequency == rate:
            kept.append((name, np.asarray(signal.data, np.float64) * factor))
        else:
            notes.append(f"{signal.label!r} left out: {signal.sampling_frequency:g} Hz, not {rate:g} Hz")
    with np.errstate(over="ignore"):
        values = np.stack([data for _, data in kept]).astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"{path}: the stated physical range gives no finite voltages")
    patient, sex, age = _patient(edf)
    return Record(
        record_id=path.stem,
        patient_id=patient or path.stem,
        source="edf",
        signal=values,
        leads=tuple(name for name, _ in kept),
        sampling_rate=int(rate),
        age=age,
        sex=sex,
        date=_date(edf),
        notes=tuple(" ".join(note.split()) for note in notes),
    )


def _check_extent(path: Path, size: int) -> None:
    """Compare the file's size with its header before anything is allocated for it."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
            num_signals = int(head[252:256])
            if not 1 <= num_signals <= 4096 or size < 256 * (num_signals + 1):
                raise ValueError
            file.seek(256 + 216 * num_signals)
            counts = [int(file.read(8)) for _ in range(num_signals)]
        num_records = int(head[236:244])
        if head[192:197] == b"EDF+D":
            raise DataError(f"{path}: EDF+D (interrupted recording); cut it into continuous files")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise DataError(
            f"{path} is not an EDF file: its header holds no counts of signals and samples"
        ) from None
    needed = 256 * (num_signals + 1) + 2 * sum(counts) * num_records
    if min(counts) < 1 or num_records < 1 or size < needed:
        raise DataError(
            f"{path}: {size} bytes where {num_records} data records of {sum(counts)} samples are announced "
            f"({needed}); truncated"
        )


def _lead(label: str) -> str:
    return lead_name(re.sub(r"^(ecg|ekg)[\s_:-]*", "", label.strip(), flags=re.IGNORECASE) or label)


def _patient(edf: Any) -> tuple[str, str, float]:
    """Code, sex and age of EDF+'s patient field; a plain EDF's free text is not taken apart."""
    try:
        patient = edf.patient
        code = "" if patient.code == "X" else str(patient.code)
        sex = _SEX.get(str(patient.sex), "")
    except Exception:  # plain EDF: the field has no sub-fields
        return "", "", math.nan
    try:
        age = (edf.recording.startdate - patient.birthdate).days / 365.25
    except Exception:  # anonymised, as it should be
        return code, sex, math.nan
    return code, sex, age if 0 <= age <= 130 else math.nan


def _date(edf: Any) -> str:
    try:
        return str(edf.startdatetime.isoformat(timespec="seconds"))
    except Exception:  # anonymised or damaged; the samples do not depend on it
        return ""
