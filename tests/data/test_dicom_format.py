"""DICOM waveforms as records."""

import numpy as np
import pydicom
import pytest

from fairseq_ecg.data.dicom_format import read_dicom
from fairseq_ecg.data.readers.any_file import read_record
from fairseq_ecg.errors import DataError
from tests.data.waveform_files import counts, write_dicom

CODES = [
    ("2:1", "MDC", "Lead I (Einthoven)"),
    ("5.6.3-9-2", "SCPECG", "whatever"),
    ("x", "own", "Lead aVR"),
    ("x", "own", "V3"),
    ("x", "own", "Respiration"),
]


def test_leads_units_and_demographics_are_read(tmp_path):
    values = counts(5, 300)
    record = read_record(write_dicom(tmp_path / "a.dcm", values, codes=CODES, baseline="10"))
    assert record.leads == ("I", "II", "aVR", "V3")
    np.testing.assert_allclose(record.signal, (values[:4] * 2.5 + 10) / 1000, rtol=1e-6)
    assert (record.sampling_rate, record.patient_id, record.sex, record.age) == (500, "d7", "female", 63)
    assert record.date == "2001-02-03T04:05:06"
    assert record.notes == ("channel 'Respiration' is no ECG lead, left out",)


def test_the_longest_group_of_leads_is_chosen(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", counts(1, 50), codes=CODES[:1])
    other = pydicom.dcmread(write_dicom(tmp_path / "b.dcm", counts(1, 90), codes=CODES[:1]))
    dataset = pydicom.dcmread(path)
    dataset.WaveformSequence.append(other.WaveformSequence[0])
    dataset.save_as(path)
    assert read_dicom(path).num_samples == 90


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.5}, "SamplingFrequency 0.5"),
        ({"unit": "mm[Hg]"}, "is not a voltage"),
        ({"sensitivity": "0"}, "sensitivity 0.0"),
        ({"codes": [("x", "own", "Pressure")] * 2}, "no waveform of ECG leads"),
        ({"codes": CODES[:1]}, "1 channel definitions where 2 channels"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, options, message):
    path = write_dicom(tmp_path / "a.dcm", counts(2, 30), **{"codes": CODES[:2]} | options)
    with pytest.raises(DataError, match=message) as caught:
        read_dicom(path)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"no dicom" * 40)
    with pytest.raises(DataError, match="cannot be read as DICOM"):
        read_dicom(tmp_path / "a.dcm")
