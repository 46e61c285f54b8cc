"""The synthetic corpus on disk: WFDB that others can read, the same for the same options."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.data.readers.synthetic import Synthetic, SyntheticConfig, write_corpus
from fairseq_ecg.data.synthetic import DIAGNOSES
from fairseq_ecg.errors import ConfigError, DataError

SMALL = {"num_patients": 3, "duration_sec": 2.0}


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("SYN*"))
    }


def test_records_come_back_through_the_wfdb_reader_with_patient_labels_and_date(tmp_path):
    items = list(Synthetic(SyntheticConfig(**SMALL)).records(tmp_path))
    records = [item.read() for item in items]
    patients = [record.patient_id for record in records]
    assert sorted(set(patients)) == ["SYN000000", "SYN000001", "SYN000002"]
    codes = {code for code, _ in DIAGNOSES.values()}
    for record in records:
        assert 2 <= patients.count(record.patient_id) <= 4
        assert record.source == "synthetic"
        assert record.signal.shape == (12, 1000)
        assert set(record.labels) <= codes
        assert record.labels
        assert record.sex in ("male", "female")
        assert 18 <= record.age <= 92
    dates = [record.date for record in records if record.patient_id == "SYN000000"]
    assert dates == sorted(dates)
    assert dates[0].startswith("2020-")


def test_wfdb_and_scipy_read_the_files_as_we_do(tmp_path):
    import wfdb
    from scipy.io import loadmat

    item = next(Synthetic(SyntheticConfig(**SMALL)).records(tmp_path))
    record = item.read()
    stem = item.path.with_suffix("")
    np.testing.assert_allclose(wfdb.rdrecord(str(stem)).p_signal.T, record.signal, atol=1e-6)
    np.testing.assert_array_equal(loadmat(f"{stem}.mat")["val"], np.rint(record.signal * 1000))


def test_a_larger_corpus_begins_with_the_smaller_one_and_another_seed_differs(tmp_path):
    write_corpus(tmp_path / "small", SyntheticConfig(**SMALL))
    write_corpus(tmp_path / "large", SyntheticConfig(**SMALL | {"num_patients": 5}))
    write_corpus(tmp_path / "other", SyntheticConfig(**SMALL, seed=1))
    small, large, other = (digest(tmp_path / name) for name in ("small", "large", "other"))
    assert small.items() <= large.items()
    assert len(large) > len(small)
    assert not set(small.values()) & set(other.values())


def test_a_whole_corpus_of_the_same_options_is_kept_and_another_one_needs_overwrite(tmp_path):
    write_corpus(tmp_path, SyntheticConfig(**SMALL))
    path = tmp_path / "g1" / "SYN000000_0.mat"
    before = path.stat().st_mtime_ns
    write_corpus(tmp_path, SyntheticConfig(**SMALL))
    assert path.stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"other options.*--overwrite"):
        write_corpus(tmp_path, SyntheticConfig(**SMALL | {"num_patients": 1}))
    assert len(digest(tmp_path)) > 8
    write_corpus(tmp_path, SyntheticConfig(**SMALL | {"num_patients": 1}, overwrite=True))
    assert {name[:13] for name in digest(tmp_path)} == {"g1/SYN000000_"}


def test_an_interrupted_corpus_is_not_taken_for_a_whole_one(tmp_path):
    write_corpus(tmp_path, SyntheticConfig(**SMALL))
    (tmp_path / "synthetic.json").unlink()
    with pytest.raises(DataError, match="no finished synthetic corpus"):
        write_corpus(tmp_path, SyntheticConfig(**SMALL))
    write_corpus(tmp_path, SyntheticConfig(**SMALL, overwrite=True))
    assert (tmp_path / "synthetic.json").is_file()


def test_a_folder_with_other_files_is_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="is not empty"):
            write_corpus(tmp_path, SyntheticConfig(**SMALL, overwrite=overwrite))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="cannot be written"):
        write_corpus(tmp_path / "raw", SyntheticConfig(**SMALL))


def test_a_raw_folder_that_is_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "raw").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_corpus(tmp_path / "raw" / "deeper", SyntheticConfig(**SMALL))


@pytest.mark.parametrize(
    "options",
    [{"num_patients": 0}, {"min_records": 3, "max_records": 2}, {"duration_sec": 1.0}, {"seed": -1}],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        SyntheticConfig(**options)
