"""The reader's benchmark compares what it says and refuses to time readers that disagree."""

import json

import pytest

from fairseq_ecg.data.readers.synthetic import SyntheticConfig, write_corpus
from fairseq_ecg.errors import DataError
from tools import bench_reader


@pytest.fixture
def records(tmp_path):
    write_corpus(tmp_path, SyntheticConfig(num_patients=1, min_records=1, max_records=1, duration_sec=2))
    return tmp_path


def test_every_kind_of_reading_is_timed_in_pairs(records, capsys):
    bench_reader.main([str(records), "--pairs", "7", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["records"] == 1
    assert set(result["results"]) == {"digital", "physical", "record"}
    for numbers in result["results"].values():
        assert numbers["lowest"] <= numbers["ratio"] <= numbers["highest"]


def test_the_text_names_what_is_timed(records, capsys):
    bench_reader.main([str(records), "--pairs", "7"])
    text = capsys.readouterr().out
    assert "timed region: opening and parsing the header" in text
    assert "ratio median" in text


def test_fewer_than_seven_pairs_are_refused(records):
    with pytest.raises(SystemExit):
        bench_reader.main([str(records), "--pairs", "6"])


def test_readers_that_disagree_are_not_timed(records, monkeypatch):
    read = bench_reader.read_digital
    monkeypatch.setattr(bench_reader, "read_digital", lambda path: (read(path)[0] + 1, read(path)[1]))
    with pytest.raises(DataError, match="differ from wfdb's"):
        bench_reader.readable_by_both(records)


def test_a_folder_of_names_that_wfdb_refuses_is_said_so(shared, tmp_path, capsys):
    source = shared / "data/real_ecg/cinc2021"
    for suffix in (".hea", ".mat"):
        (tmp_path / f"E03823{suffix}").symlink_to(source / f"E03823{suffix}")
    with pytest.raises(DataError, match="no record that wfdb can read"):
        bench_reader.readable_by_both(tmp_path)
    assert "HeaderSyntaxError" in capsys.readouterr().out
