"""Annotation files against bytes written by hand."""

import pytest

from fairseq_ecg.data.wfdb_annotation import read_annotations
from fairseq_ecg.errors import DataError
from tests.data.annotation_files import write_annotations


def test_samples_symbols_and_texts_are_read(tmp_path):
    write_annotations(
        tmp_path / "a.atr", [(18, "+", "(AFIB"), (77, "N", ""), (5000, "V", ""), (5001, "A", "x")]
    )
    found = read_annotations(tmp_path / "a.atr")
    assert found.sample.tolist() == [18, 77, 5000, 5001]
    assert found.symbols == ("+", "N", "V", "A")
    assert found.texts == ("(AFIB", "", "", "x")


def test_a_missing_or_damaged_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.atr: no such annotation file"):
        read_annotations(tmp_path / "a.atr")
    (tmp_path / "a.atr").write_bytes(b"\xff" * 7)
    with pytest.raises(DataError, match=r"a\.atr: wfdb cannot read it"):
        read_annotations(tmp_path / "a.atr")
