"""Small files of the published formats, made for the tests."""

from __future__ import annotations

import base64
import datetime
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

EIGHT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def counts(num_leads: int, num_samples: int, seed: int = 0) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-900, 900, (num_leads, num_samples)).astype("<i2")


def write_muse(
    path: Path,
    values: NDArray[np.int16],
    *,
    leads: Sequence[str] = EIGHT_LEADS,
    rate: int = 500,
    changes: Mapping[str, str] | None = None,
    statements: str = "",
    doctype: str = '<!DOCTYPE RestingECG SYSTEM "restecg.dtd">',
) -> Path:
    """A MUSE file; ``changes`` replaces pieces of its text."""
    parts = [
        '<?xml version="1.0" encoding="ISO-8859-1"?>',
        doctype,
        "<RestingECG><PatientDemographics><PatientID>P 1</PatientID><PatientAge>7</PatientAge>"
        "<AgeUnits>MONTHS</AgeUnits><Gender>MALE</Gender></PatientDemographics>"
        "<TestDemographics><AcquisitionDate>02-29-2016</AcquisitionDate>"
        "<AcquisitionTime>09:17:34</AcquisitionTime></TestDemographics>",
        statements,
        f"<Waveform><WaveformType>Rhythm</WaveformType><SampleBase>{rate}</SampleBase>"
        "<SampleExponent>0</SampleExponent>",
    ]
    for name, row in zip(leads, values, strict=True):
        content = row.tobytes()
        parts.append(
            f"<LeadData><LeadByteCountTotal>{len(content)}</LeadByteCountTotal>"
            f"<LeadSampleCountTotal>{len(row)}</LeadSampleCountTotal>"
            "<LeadAmplitudeUnitsPerBit>4.88</LeadAmplitudeUnitsPerBit>"
            "<LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits>"
            f"<LeadID>{name}</LeadID><LeadSampleSize>2</LeadSampleSize><LeadOff>FALSE</LeadOff>"
            f"<LeadDataCRC32>{zlib.crc32(content)}</LeadDataCRC32>"
            f"<WaveFormData>\n{base64.encodebytes(content).decode()}</WaveFormData></LeadData>"
        )
    text = "\n".join([*parts, "</Waveform></RestingECG>"])
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text, encoding="latin-1")
    return path


def write_dicom(
    path: Path,
    values: NDArray[np.int16],
    *,
    codes: Sequence[tuple[str, str, str]],
    rate: float = 500.0,
    unit: str = "uV",
    sensitivity: str = "2.5",
    baseline: str = "0",
) -> Path:
    """A 12-lead ECG object; ``codes`` are (value, scheme, meaning) of the channels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    channels = []
    for value, scheme, meaning in codes:
        source, measure, channel = Dataset(), Dataset(), Dataset()
        source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = value, scheme, meaning
        measure.CodeValue, measure.CodingSchemeDesignator, measure.CodeMeaning = unit, "UCUM", unit
        channel.ChannelSourceSequence = [source]
        channel.ChannelSensitivity = sensitivity
        channel.ChannelSensitivityUnitsSequence = [measure]
        channel.ChannelSensitivityCorrectionFactor = "1"
        channel.ChannelBaseline = baseline
        channel.WaveformBitsStored = 16
        channels.append(channel)
    group = Dataset()
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = values.shape
    group.SamplingFrequency = str(rate)
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    group.ChannelDefinitionSequence = channels
    group.WaveformData = np.ascontiguousarray(values.T).tobytes()
    group["WaveformData"].VR = "OW"
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PatientID, dataset.PatientAge, dataset.PatientSex = "ECG", "d7", "063Y", "F"
    dataset.AcquisitionDateTime = "20010203040506.25"
    dataset.WaveformSequence = [group]
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_edf(
    path: Path, signals: Mapping[str, tuple[NDArray[np.float64], float, str]], *, is_plus: bool = True
) -> Path:
    """An EDF+ file; label -> (values, rate, unit)."""
    import edfio

    made = [
        edfio.EdfSignal(
            values,
            sampling_frequency=rate,
            label=label,
            physical_dimension=unit,
            physical_range=(-5000, 5000) if unit == "uV" else (-5, 5),
        )
        for label, (values, rate, unit) in signals.items()
    ]
    patient = edfio.Patient(code="e9", sex="F", birthdate=datetime.date(1950, 1, 1))
    recording = edfio.Recording(startdate=datetime.date(2010, 1, 1))
    edf = edfio.Edf(made, patient=patient, recording=recording, starttime=datetime.time(8, 30, 0))
    edf.write(path)
    return path
