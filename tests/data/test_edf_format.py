"""EDF and EDF+ as records."""

import numpy as np
import pytest

from fairseq_ecg.data.edf_format import read_edf
from fairseq_ecg.data.readers.any_file import read_record
from fairseq_ecg.errors import DataError
from tests.data.waveform_files import write_edf

RNG = np.random.default_rng(0)
SIGNALS = {
    "ECG II": (RNG.uniform(-3, 3, 1000), 500, "mV"),
    "EKG v5": (RNG.uniform(-3000, 3000, 1000), 500, "uV"),
    "V1": (RNG.uniform(-3, 3, 500), 250, "mV"),
    "EEG Fp1": (RNG.uniform(-30, 30, 1000), 500, "uV"),
    "SpO2": (RNG.uniform(0, 1, 2), 1, "%"),
}


def test_leads_are_read_in_mv_and_the_rest_is_named(tmp_path):
    record = read_record(write_edf(tmp_path / "a.edf", SIGNALS))
    assert record.leads == ("II", "V5")
    expected = np.stack([SIGNALS["ECG II"][0], SIGNALS["EKG v5"][0] / 1000])
    # Half a step of 10 mV in 65,535.
    np.testing.assert_allclose(record.signal, expected, atol=0.6 * 10 / 65535)
    assert (record.sampling_rate, record.patient_id, record.sex) == (500, "e9", "female")
    assert record.age == pytest.approx(60, abs=0.01)
    assert record.date == "2010-01-01T08:30:00"
    assert [note.partition(" left out")[0] for note in record.notes] == ["'EEG Fp1'", "'SpO2'", "'V1'"]


def test_truncated_foreign_and_leadless_files_are_refused(tmp_path):
    path = write_edf(tmp_path / "a.edf", SIGNALS)
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(DataError, match="truncated"):
        read_edf(path)
    path.write_bytes(content[:236] + b"99999999" + content[244:])
    with pytest.raises(DataError, match=r"99999999 data records .* truncated"):
        read_edf(path)
    path.write_bytes(b"no edf" * 100)
    with pytest.raises(DataError, match="is not an EDF file"):
        read_edf(path)
    with pytest.raises(DataError, match="no ECG lead among its signals"):
        read_edf(write_edf(path, {"SpO2": SIGNALS["SpO2"]}))


def test_an_interrupted_recording_is_refused(tmp_path):
    path = write_edf(tmp_path / "a.edf", {"ECG II": SIGNALS["ECG II"]})
    content = path.read_bytes()
    path.write_bytes(content[:192] + b"EDF+D" + content[197:])
    with pytest.raises(DataError, match=r"EDF\+D"):
        read_edf(path)
