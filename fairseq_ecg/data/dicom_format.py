"""DICOM waveforms (12-lead, general and ambulatory ECG objects) as one record."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.raw_files import check_size, one_line
from fairseq_ecg.data.record import lead_name, mv_per_unit
from fairseq_ecg.errors import DataError

# Lead codes of ISO/IEEE 11073 (MDC "2:n") and SCP-ECG ("5.6.3-9-n") end in the same numbers.
_LEAD_NUMBERS = {
    1: "I",
    2: "II",
    61: "III",
    62: "aVR",
    63: "aVL",
    64: "aVF",
    **{number: f"V{number - 2}" for number in range(3, 9)},
}
_TYPES = {
    ("SB", 8): "i1",
    ("UB", 8): "u1",
    ("SS", 16): "<i2",
    ("US", 16): "<u2",
    ("SL", 32): "<i4",
    ("UL", 32): "<u4",
}
_SEX = {"M": "male", "F": "female"}


def read_dicom(path: Path) -> Record:
    """Read the longest multiplex group that holds leads of an ECG.

    Raises:
        DataError: not a DICOM file, no ECG waveform in it, damaged samples, an unknown unit or coding.
    """
    import pydicom

    check_size(path)
    try:
        dataset = pydicom.dcmread(path)
        groups = [_group(group, path) for group in dataset.get("WaveformSequence") or []]
        found = [group for group in groups if group is not None]
        if not found:
            raise DataError(f"{path}: no waveform of ECG leads in it")
        signal, leads, rate, notes = max(found, key=lambda group: group[0].shape[1])
        return Record(
            record_id=path.stem,
            patient_id=_word(dataset, "PatientID") or path.stem,
            source="dicom",
            signal=signal,
            leads=leads,
            sampling_rate=rate,
            age=_age(_word(dataset, "PatientAge")),
            sex=_SEX.get(_word(dataset, "PatientSex").upper(), ""),
            date=_date(_word(dataset, "AcquisitionDateTime") or _word(dataset, "StudyDate")),
            notes=notes,
        )
    except DataError:
        raise
    except Exception as error:  # pydicom raises two dozen kinds, and any of them, for damaged files
        raise DataError(f"{path} cannot be read as DICOM: {one_line(error)}; it may be truncated") from None


_Group = tuple[NDArray[np.float32], tuple[str, ...], int, tuple[str, ...]]


def _group(group: Any, path: Path) -> _Group | None:
    """Samples, leads, rate and notes of one multiplex group; None when none of its channels is a lead."""
    num_channels, num_samples = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    kind = (str(group.WaveformSampleInterpretation), int(group.WaveformBitsAllocated))
    rate = float(group.SamplingFrequency)
    if kind not in _TYPES:
        raise DataError(f"{path}: samples of {kind[1]} bits coded {kind[0]!r}; known: {list(_TYPES)}")
    if not 1 <= rate <= 1e5 or rate % 1:
        raise DataError(f"{path}: SamplingFrequency {rate} Hz: a whole number from 1 is needed")
    content = bytes(group.WaveformData)
    needed = num_channels * num_samples * np.dtype(_TYPES[kind]).itemsize
    channels = list(group.ChannelDefinitionSequence)
    if num_channels < 1 or num_samples < 1 or len(content) < needed or len(channels) != num_channels:
        raise DataError(
            f"{path}: {len(content)} bytes and {len(channels)} channel definitions where {num_channels} "
            f"channels of {num_samples} samples are announced; truncated"
        )
    counts = np.frombuffer(content[:needed], _TYPES[kind]).reshape(num_samples, num_channels).T
    rows, leads, notes = [], [], []
    for channel, values in zip(channels, counts, strict=True):
        name = _lead(channel)
        if not name:
            notes.append(f"channel {_source_name(channel)[:40]!r} is no ECG lead, left out")
            continue
        rows.append(_physical(channel, values, f"{path}: lead {name}"))
        leads.append(name)
    if not rows:
        return None
    return np.stack(rows), tuple(leads), int(rate), tuple(notes)


def _physical(channel: Any, values: NDArray[Any], where: str) -> NDArray[np.float32]:
    """(time,) mV: (samples times sensitivity times correction) plus baseline, in the stated unit."""
    if channel.get("ChannelSensitivity") is None or not channel.get("ChannelSensitivityUnitsSequence"):
        raise DataError(f"{where}: no ChannelSensitivity with a unit, so its samples are no voltages")
    sensitivity = float(channel.ChannelSensitivity)
    correction = float(channel.get("ChannelSensitivityCorrectionFactor") or 1)
    baseline = float(channel.get("ChannelBaseline") or 0)
    unit = str(channel.ChannelSensitivityUnitsSequence[0].CodeValue)
    if not (math.isfinite(sensitivity * correction) and sensitivity * correction and math.isfinite(baseline)):
        raise DataError(f"{where}: sensitivity {sensitivity}, correction {correction}, baseline {baseline}")
    physical = values.astype(np.float64) * (sensitivity * correction) + baseline
    with np.errstate(over="ignore"):
        signal = (physical * mv_per_unit(unit)).astype(np.float32)
    if not np.isfinite(signal).all():
        raise DataError(f"{where}: sensitivity {sensitivity} {unit} gives no finite voltages")
    return signal


def _source_name(channel: Any) -> str:
    source = channel.get("ChannelSourceSequence")
    return str(source[0].get("CodeMeaning") or "") if source else str(channel.get("ChannelLabel") or "")


def _lead(channel: Any) -> str:
    """Lead of a channel, by its code, else by the meaning's words; empty when it is none."""
    source = channel.get("ChannelSourceSequence")
    if source:
        code = re.fullmatch(r"(?:2:|5\.6\.3-9-)([0-9]{1,3})", str(source[0].get("CodeValue") or ""))
        if code and int(code[1]) in _LEAD_NUMBERS:
            return _LEAD_NUMBERS[int(code[1])]
    name = lead_name(re.sub(r"\(.*?\)", "", _source_name(channel)))
    return name if name in STANDARD_LEADS else ""


def _word(dataset: Any, name: str) -> str:
    value = dataset.get(name)
    return " ".join(str(value).split()) if value is not None else ""


def _age(text: str) -> float:
    """Years of DICOM's age string: ``063Y``, ``018M``, ``010W``, ``005D``."""
    match = re.fullmatch(r"([0-9]{1,3})([YMWD])", text.upper())
    return (
        int(match[1]) * {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}[match[2]]
        if match
        else math.nan
    )


def _date(text: str) -> str:
    """``20010203040506...`` -> ``2001-02-03T04:05:06``; empty when it is no date."""
    import datetime

    digits = re.match(r"[0-9]*", text)
    assert digits is not None
    number = digits[0]
    try:
        if len(number) >= 14:
            return datetime.datetime.strptime(number[:14], "%Y%m%d%H%M%S").isoformat()
        return datetime.datetime.strptime(number[:8], "%Y%m%d").date().isoformat()
    except ValueError:
        return ""
