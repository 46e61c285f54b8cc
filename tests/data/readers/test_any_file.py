"""One record from one file of any kind."""

import numpy as np
import pytest

from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.readers.any_file import read_record
from fairseq_ecg.errors import DataError

SIGNAL = np.random.default_rng(0).normal(size=(2, 30)).astype(np.float32)
GIVEN = {"sampling_rate": 250, "leads": ["i", "V2"], "unit": "mV"}


def test_a_wfdb_header_needs_nothing_and_contradictions_are_refused(shared):
    path = shared / "data/real_ecg/cinc2021/A0689.hea"
    record = read_record(path)
    assert record.leads == STANDARD_LEADS
    assert record.sampling_rate == 500
    assert read_record(path, sampling_rate=500, leads=STANDARD_LEADS).record_id == "A0689"
    with pytest.raises(DataError, match=r"sampling_rate=400 was given, the file says 500"):
        read_record(path, sampling_rate=400)
    with pytest.raises(DataError, match=r"leads=.* was given"):
        read_record(path, leads=["I"])
    with pytest.raises(DataError, match="the header states the unit"):
        read_record(path, unit="uV")


def test_npy_is_lead_by_time_in_the_given_unit(tmp_path):
    path = tmp_path / "r.npy"
    np.save(path, SIGNAL)
    record = read_record(path, **GIVEN | {"unit": "uV"})
    np.testing.assert_allclose(record.signal, SIGNAL / 1000, rtol=1e-6)
    assert record.leads == ("I", "V2")
    assert record.signal.dtype == np.float32
    np.save(path, SIGNAL.T)
    with pytest.raises(DataError, match=r"shape \(30, 2\) is not \(2 leads, time\)"):
        read_record(path, **GIVEN)
    np.save(path, np.array(["a"]))
    with pytest.raises(DataError, match="is not a number"):
        read_record(path, **GIVEN)
    path.write_bytes(b"no numpy")
    with pytest.raises(DataError, match=r"not a readable \.npy"):
        read_record(path, **GIVEN)


@pytest.mark.parametrize("name", ["sampling_rate", "leads", "unit"])
def test_what_the_file_does_not_say_must_be_given(tmp_path, name):
    np.save(tmp_path / "r.npy", SIGNAL)
    with pytest.raises(DataError, match=f"does not say its {name}; give {name}=") as caught:
        read_record(tmp_path / "r.npy", **{key: value for key, value in GIVEN.items() if key != name})
    assert "\n" not in str(caught.value)


def test_csv_has_a_column_per_lead_named_by_its_first_row_or_by_the_caller(tmp_path):
    path = tmp_path / "r.csv"
    rows = "\n".join(",".join(str(value) for value in row) for row in SIGNAL.T)
    path.write_text(rows + "\n")
    np.testing.assert_array_equal(read_record(path, **GIVEN).signal, SIGNAL)
    path.write_text("I,v2\n" + rows)
    named = read_record(path, sampling_rate=250, unit="mV")
    assert named.leads == ("I", "V2")
    np.testing.assert_array_equal(named.signal, SIGNAL)
    with pytest.raises(DataError, match="the file says"):
        read_record(path, **GIVEN | {"leads": ["I", "II"]})
    path.write_text("I,V2\n1,2\n3\n")
    with pytest.raises(DataError, match="not a table of numbers"):
        read_record(path, **GIVEN)
    path.write_text("")
    with pytest.raises(DataError, match="empty"):
        read_record(path, **GIVEN)


@pytest.mark.parametrize("content", [b"I,V2\n1,\xff\n", b"I,V2\n1," + b"2" * 200_000])
def test_a_csv_that_is_no_text_or_no_table_is_refused(tmp_path, content):
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"r\.csv: not a readable table"):
        read_record(tmp_path / "r.csv", **GIVEN)


def test_a_csv_that_the_disk_fails_to_give_is_refused(tmp_path, monkeypatch):
    (tmp_path / "r.csv").write_text("I,V2\n1,2\n")

    def failing(*args, **options):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.open", failing)
    with pytest.raises(DataError, match=r"r\.csv: not a readable table: .*Input/output error"):
        read_record(tmp_path / "r.csv", **GIVEN)


@pytest.mark.parametrize(
    ("suffix", "subtype"), [("wav", "PCM_16"), ("wav", "PCM_24"), ("flac", "PCM_16"), ("wav", "FLOAT")]
)
def test_sound_files_hold_integer_samples_or_floats_as_stored(tmp_path, suffix, subtype):
    import soundfile

    path = tmp_path / f"r.{suffix}"
    counts = np.random.default_rng(0).integers(-3000, 3000, (40, 2)).astype(np.int16)
    if subtype == "FLOAT":
        expected = (counts / 1000).astype(np.float32)
        soundfile.write(path, expected, 500, subtype=subtype)
        unit = "mV"
    else:
        # soundfile takes integers left-justified: as many zero bits below as the file has fewer.
        wide = counts.astype(np.int32) << (8 if subtype == "PCM_24" else 16)
        soundfile.write(path, wide, 500, subtype=subtype)
        expected, unit = counts / 1000, "uV"
    record = read_record(path, leads=["I", "II"], unit=unit)
    assert record.sampling_rate == 500
    np.testing.assert_allclose(record.signal, expected.T, rtol=1e-6)
    with pytest.raises(DataError, match="the file says 500"):
        read_record(path, sampling_rate=250, leads=["I", "II"], unit=unit)


def test_lossy_and_broken_sound_is_refused(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "r.wav", np.zeros((40, 1)), 500, subtype="ULAW")
    with pytest.raises(DataError, match="ULAW is lossy"):
        read_record(tmp_path / "r.wav", leads=["I"], unit="mV")
    (tmp_path / "r.flac").write_bytes(b"no sound")
    with pytest.raises(DataError, match="not a readable sound file"):
        read_record(tmp_path / "r.flac", leads=["I"], unit="mV")


def test_segments_of_fairseq_signals_are_read_and_standardised_ones_brought_back(tmp_path):
    from scipy.io import savemat

    feats = np.random.default_rng(0).normal(size=(12, 50))
    savemat(tmp_path / "r_0.mat", {"feats": feats, "curr_sample_rate": 500})
    record = read_record(tmp_path / "r_0.mat")
    assert record.leads == STANDARD_LEADS
    np.testing.assert_allclose(record.signal, feats, atol=1e-6)
    mean, std = np.arange(12.0)[:, None], np.full((12, 1), 0.5)
    savemat(tmp_path / "s_0.mat", {"feats": feats, "curr_sample_rate": 500, "mean": mean, "std": std})
    restored = read_record(tmp_path / "s_0.mat")
    np.testing.assert_allclose(restored.signal, feats * 0.5 + mean, atol=1e-5)
    assert restored.notes
    savemat(tmp_path / "t_0.mat", {"feats": feats[:2], "curr_sample_rate": 500})
    with pytest.raises(DataError, match="does not say its leads"):
        read_record(tmp_path / "t_0.mat")
    savemat(tmp_path / "u_0.mat", {"feats": feats, "curr_sample_rate": 500, "mean": mean[:3], "std": std})
    with pytest.raises(DataError, match="3 and 12 rows for 12 leads"):
        read_record(tmp_path / "u_0.mat")


def test_real_code15_segments_are_read(shared):
    path = sorted((shared / "data/real_ecg/code15/mat").glob("*.mat"))[0]
    record = read_record(path)
    assert record.sampling_rate == 400
    assert record.signal.shape[0] == 12


def test_other_matlab_files_say_what_is_missing(shared, tmp_path):
    with pytest.raises(DataError, match=r"give its \.hea"):
        read_record(shared / "data/real_ecg/cinc2021/A0689.mat")
    (tmp_path / "r.mat").write_bytes(b"no matlab at all, but long enough to be taken for a header" * 4)
    with pytest.raises(DataError, match="not a readable MATLAB file"):
        read_record(tmp_path / "r.mat")


def test_unknown_and_absent_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no known kind of ECG file; known: \.hea"):
        read_record(tmp_path / "r.bdf")
    with pytest.raises(DataError, match="no such file"):
        read_record(tmp_path / "r.npy", **GIVEN)
    np.save(tmp_path / "r.npy", SIGNAL)
    with pytest.raises(DataError, match="at least 1 Hz"):
        read_record(tmp_path / "r.npy", **GIVEN | {"sampling_rate": 0})
