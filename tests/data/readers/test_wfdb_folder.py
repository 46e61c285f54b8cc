"""Any WFDB folder: names, segments, FLAC."""

import numpy as np
import pytest

from fairseq_ecg.data.readers.wfdb import WfdbConfig, WfdbFolder
from fairseq_ecg.errors import ConfigError, DataError
from tests.data.wfdb_files import LEADS, samples, write_record


def read(folder, **options):
    return [item.read() for item in WfdbFolder(WfdbConfig(**options)).records(folder)]


def test_records_carry_the_source_and_what_the_header_says(tmp_path):
    write_record(tmp_path, "x", comments=("#Age: 50", "#Patient: P7"))
    (record,) = read(tmp_path, source_name="mine")
    assert (record.record_id, record.patient_id, record.source, record.age) == ("x", "P7", "mine", 50)


def test_ids_may_be_paths_where_names_repeat(tmp_path):
    write_record(tmp_path / "a", "1")
    write_record(tmp_path / "b", "1", comments=("#Patient: P",))
    assert [record.record_id for record in read(tmp_path)] == ["1", "1"]
    records = read(tmp_path, record_ids="path")
    assert [record.record_id for record in records] == ["a/1", "b/1"]
    assert [record.patient_id for record in records] == ["a/1", "P"]
    with pytest.raises(ConfigError, match="did you mean 'path'"):
        WfdbConfig(record_ids="paths")


def test_segments_are_one_record(tmp_path):
    digital = samples(2)
    write_record(tmp_path, "m_1", digital[:, :400], leads=("I", "V1"), comments=())
    write_record(tmp_path, "m_2", digital[:, 400:], leads=("I", "V1"), comments=())
    (tmp_path / "m.hea").write_text("m/2 2 500 1000\nm_1 400\nm_2 600\n")
    (record,) = read(tmp_path)
    assert (record.record_id, record.leads) == ("m", ("I", "V1"))
    np.testing.assert_allclose(record.signal, digital / 1000, atol=1e-6)


def test_flac_gives_the_samples_that_were_compressed(tmp_path):
    import wfdb

    digital = samples(2)
    wfdb.wrsamp(
        "f",
        fs=500,
        units=["mV"] * 2,
        sig_name=["I", "V1"],
        d_signal=digital.T.astype(np.int64),
        fmt=["516"] * 2,
        adc_gain=[1000.0] * 2,
        baseline=[0] * 2,
        write_dir=str(tmp_path),
    )
    assert (tmp_path / "f.dat").read_bytes()[:4] == b"fLaC"
    (record,) = read(tmp_path)
    np.testing.assert_array_equal(record.signal, digital / np.float32(1000))


def test_a_header_that_cannot_be_read_is_left_to_its_record(tmp_path):
    write_record(tmp_path, "good", leads=LEADS)
    (tmp_path / "bad.hea").write_text("")
    bad, good = WfdbFolder(WfdbConfig()).records(tmp_path)
    assert good.read().leads == LEADS
    with pytest.raises(DataError, match="no record line"):
        bad.read()
