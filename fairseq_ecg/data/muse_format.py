"""GE MUSE XML (``RestingECG``): samples, demographics and statements of one file."""

from __future__ import annotations

import base64
import binascii
import math
import re
import zlib
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.record import lead_name, mv_per_unit
from fairseq_ecg.data.safe_xml import parse_xml
from fairseq_ecg.errors import DataError

_UNITS = {"MICROVOLTS": "uV", "MILLIVOLTS": "mV", "NANOVOLTS": "nV", "VOLTS": "V"}
_YEARS = {"YEARS": 1.0, "MONTHS": 1 / 12, "WEEKS": 7 / 365.25, "DAYS": 1 / 365.25, "HOURS": 1 / 8766}
_SEX = {"MALE": "male", "FEMALE": "female"}
MAX_RATE = 100_000


def read_muse(path: Path, *, waveform: str = "Rhythm") -> Record:
    """Read one file as it was recorded: usually I, II, V1 to V6.

    Statements of the (confirmed) diagnosis are kept as labels, text by text. Every lead's samples are checked
    against the CRC32, byte count and sample count beside them.

    Args:
        path: the XML file.
        waveform: ``Rhythm`` (the whole recording) or ``Median`` (one averaged beat).

    Raises:
        DataError: not such a file, damaged samples, leads of different lengths, an unknown unit or rate.
    """
    root = parse_xml(path)
    if root.tag != "RestingECG":
        raise DataError(f"{path}: the root is <{root.tag[:40]}>, a MUSE file has <RestingECG>")
    chosen = [
        item for item in root.findall("Waveform") if _text(item, "WaveformType").lower() == waveform.lower()
    ]
    if len(chosen) != 1:
        raise DataError(f"{path}: {len(chosen)} waveforms of type {waveform}, one is needed")
    rate = _sampling_rate(chosen[0], path)
    leads, rows, notes = [], [], []
    for item in chosen[0].findall("LeadData"):
        name = _text(item, "LeadID")
        leads.append(lead_name(name))
        rows.append(_samples(item, f"{path}: lead {name[:20]!r}"))
        if _text(item, "LeadOff").upper() == "TRUE":
            notes.append(f"{name}: marked as lead off")
    if not rows:
        raise DataError(f"{path}: the {waveform} waveform has no LeadData")
    if len({len(row) for row in rows}) != 1:
        raise DataError(f"{path}: leads of different lengths {sorted({len(row) for row in rows})}")
    patient = root.find("PatientDemographics")
    test = root.find("TestDemographics")
    date, date_notes = _date(test)
    return Record(
        record_id=path.stem,
        patient_id=_text(patient, "PatientID") or path.stem,
        source="muse_xml",
        signal=np.stack(rows),
        leads=tuple(leads),
        sampling_rate=rate,
        labels=_statements(root),
        age=_age(patient),
        sex=_SEX.get(_text(patient, "Gender").upper(), ""),
        date=date,
        notes=(*notes, *date_notes),
    )


def _text(parent: Element | None, name: str) -> str:
    """A child's text with white space collapsed; empty when there is none."""
    return " ".join((parent.findtext(name) or "").split()) if parent is not None else ""


def _integer(parent: Element, name: str, where: str, default: int | None = None) -> int:
    text = _text(parent, name)
    if not text and default is not None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,12}", text):
        raise DataError(f"{where}: {name} is {text[:40]!r}, a whole number is needed")
    return int(text)


def _sampling_rate(waveform: Element, path: Path) -> int:
    """SampleBase times ten to the power of SampleExponent."""
    base = _integer(waveform, "SampleBase", str(path))
    exponent = _integer(waveform, "SampleExponent", str(path), default=0)
    rate = base * 10.0 ** max(-20, min(exponent, 20))
    if not 1 <= rate <= MAX_RATE or rate % 1:
        raise DataError(
            f"{path}: SampleBase {base}, SampleExponent {exponent}: a whole rate from 1 to {MAX_RATE} Hz is "
            "needed"
        )
    return int(rate)


def _samples(item: Element, where: str) -> NDArray[np.float32]:
    """(time,) mV of one LeadData."""
    size = _integer(item, "LeadSampleSize", where, default=2)
    if size not in (2, 4):
        raise DataError(f"{where}: LeadSampleSize {size}, known are 2 and 4 bytes")
    try:
        content = base64.b64decode("".join((item.findtext("WaveFormData") or "").split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where}: WaveFormData is corrupt, not base64: {error}") from None
    num_bytes = _integer(item, "LeadByteCountTotal", where, default=len(content))
    num_samples = _integer(item, "LeadSampleCountTotal", where, default=len(content) // size)
    if not content or num_bytes != len(content) or num_samples * size != len(content):
        raise DataError(
            f"{where}: {len(content)} bytes where {num_bytes} bytes, {num_samples} samples of {size} are "
            "announced; truncated"
        )
    stated = _text(item, "LeadDataCRC32")
    if stated and stated != str(zlib.crc32(content)):
        raise DataError(
            f"{where}: corrupt: CRC32 {zlib.crc32(content)} where {stated[:20]} is stated; export it again"
        )
    for name in ("LeadTimeOffset", "LeadOffsetFirstSample"):
        if _integer(item, name, where, default=0):
            raise DataError(f"{where}: {name} {_text(item, name)}: leads that start apart cannot be aligned")
    text = _text(item, "LeadAmplitudeUnitsPerBit")
    try:
        per_bit = float(text)
    except ValueError:
        per_bit = math.nan
    if not 0 < per_bit < 1e6:
        raise DataError(f"{where}: LeadAmplitudeUnitsPerBit is {text[:40]!r}, a positive number is needed")
    unit = _text(item, "LeadAmplitudeUnits").upper()
    if unit not in _UNITS:
        raise DataError(f"{where}: LeadAmplitudeUnits {unit[:40]!r}, known are {', '.join(_UNITS)}")
    counts = np.frombuffer(content, "<i2" if size == 2 else "<i4").astype(np.float64)
    return (counts * (per_bit * mv_per_unit(_UNITS[unit]))).astype(np.float32)


def _statements(root: Element) -> tuple[str, ...]:
    """Statements of the diagnosis, each joined up to its end of line; the original one when unconfirmed."""
    for name in ("Diagnosis", "OriginalDiagnosis"):
        statements, parts = [], []
        for item in root.findall(f"{name}/DiagnosisStatement"):
            if text := _text(item, "StmtText"):
                parts.append(text.replace("|", "/"))
            if parts and "ENDSLINE" in [
                (flag.text or "").strip().upper() for flag in item.findall("StmtFlag")
            ]:
                statements.append(" ".join(parts))
                parts = []
        if parts:
            statements.append(" ".join(parts))
        if statements:
            return tuple(dict.fromkeys(statements))
    return ()


def _age(patient: Element | None) -> float:
    text, unit = _text(patient, "PatientAge"), _text(patient, "AgeUnits").upper() or "YEARS"
    if not re.fullmatch(r"[0-9]{1,4}", text) or unit not in _YEARS:
        return math.nan
    age = int(text) * _YEARS[unit]
    return age if age <= 130 else math.nan


def _date(test: Element | None) -> tuple[str, list[str]]:
    """ISO 8601 of MUSE's month-day-year."""
    import datetime

    text, time = _text(test, "AcquisitionDate"), _text(test, "AcquisitionTime")
    if not text:
        return "", []
    try:
        day = datetime.datetime.strptime(text, "%m-%d-%Y").date().isoformat()
        return day + (f"T{datetime.time.fromisoformat(time).isoformat()}" if time else ""), []
    except ValueError:
        return "", [f"date {f'{text} {time}'.strip()[:40]!r} not understood"]
