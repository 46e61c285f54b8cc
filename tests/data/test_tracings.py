"""HDF5 tracings: padding, and files that are not what they should be."""

import numpy as np
import pytest

from fairseq_ecg.data.tracings import FINDINGS, count_tracings, findings, read_exam_ids, read_tracing
from fairseq_ecg.errors import DataError
from tests.data.tracing_files import tracing, write_tracings


def test_zeros_at_both_ends_are_stripped_and_those_inside_kept(tmp_path):
    samples = tracing(0, padding=5)
    samples[20:23] = 0
    samples[5, :11] = 0  # one lead is enough
    write_tracings(tmp_path / "t.hdf5", [samples])
    np.testing.assert_array_equal(read_tracing(tmp_path / "t.hdf5", 0, strip_padding=True), samples[5:-5].T)
    np.testing.assert_array_equal(read_tracing(tmp_path / "t.hdf5", 0, strip_padding=False), samples.T)


def test_a_file_that_has_been_replaced_is_read_anew(tmp_path):
    path = tmp_path / "t.hdf5"
    write_tracings(path, [tracing(0)])
    assert count_tracings(path) == 1
    write_tracings(tmp_path / "new.hdf5", [tracing(1), tracing(2)])
    (tmp_path / "new.hdf5").replace(path)
    assert count_tracings(path) == 2


def test_labels_are_the_findings_or_none_of_them_or_unknown():
    no = dict.fromkeys(FINDINGS, False)
    assert findings({**no, "AF": True, "RBBB": True}) == ("RBBB", "AF")
    assert findings(no) == ("none_of_six",)
    assert findings({**no, "AF": True, "SB": None}) == ()


def test_files_that_are_no_tracings_are_refused(tmp_path):
    import h5py

    def refused(message, **datasets):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.hdf5"
        with h5py.File(path, "w") as file:
            for name, value in datasets.items():
                file[name] = value
        with pytest.raises(DataError, match=message):
            read_exam_ids(path)

    good = np.stack([tracing(0)])
    refused("no dataset 'exam_id' in it; it holds tracings", tracings=good)
    refused("no dataset 'tracings'", exam_id=np.array([1]))
    refused("exam_id has shape", tracings=good, exam_id=np.array([1, 2]))
    refused("exam_id has shape", tracings=good, exam_id=np.array([1.5]))
    refused("tracings has shape", tracings=good[:, :, :8], exam_id=np.array([1]))
    refused("tracings has shape", tracings=good.astype(np.int16), exam_id=np.array([1]))
    outside = tmp_path / "outside.hdf5"
    write_tracings(outside, [tracing(0)], [1])
    refused("no dataset 'exam_id'", tracings=good, exam_id=h5py.ExternalLink(str(outside), "exam_id"))
    with pytest.raises(DataError, match="cannot be read: No such file"):
        count_tracings(tmp_path / "absent.hdf5")
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        count_tracings(tmp_path / "text.hdf5")


def test_rows_without_a_signal_are_refused(tmp_path):
    write_tracings(tmp_path / "t.hdf5", [np.zeros((64, 12), np.float32)])
    with pytest.raises(DataError, match="row 0: the tracing is constant: every sample is zero"):
        read_tracing(tmp_path / "t.hdf5", 0, strip_padding=True)
    with pytest.raises(DataError, match="no row 1, it has 1"):
        read_tracing(tmp_path / "t.hdf5", 1, strip_padding=True)
