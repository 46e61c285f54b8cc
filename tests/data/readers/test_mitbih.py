"""MIT-BIH: what occurs in a record, who the patient is."""

import math

import pytest

from fairseq_ecg.data.readers.mitbih import MitBih
from fairseq_ecg.errors import DataError
from fairseq_ecg.registry import NoConfig
from tests.data.annotation_files import write_annotations
from tests.data.wfdb_files import samples, write_record


def write(folder, name, comments=("# 69 M 1085 1629 x1",), leads=("MLII", "V5")):
    return write_record(
        folder, name, samples(2), leads=leads, sampling_rate=360, gain="200(1024)/mV", comments=comments
    )


def read(folder):
    return {item.record_id: item.read() for item in MitBih(NoConfig()).records(folder)}


def test_rhythms_and_beats_that_occur_are_labels(tmp_path):
    path = write(tmp_path, "200")
    beats = [(18, "+", "(N"), (77, "N", ""), (90, "V", ""), (95, "~", ""), (99, "+", "(AFIB"), (120, "V", "")]
    write_annotations(path.with_suffix(".atr"), beats)
    record = read(tmp_path)["200"]
    assert record.labels == ("rhythm:AFIB", "rhythm:N", "beat:N", "beat:V")
    assert (record.age, record.sex, record.patient_id, record.source) == (69, "male", "200", "mitbih")
    assert (record.sampling_rate, record.leads, record.notes) == (360, ("II", "V5"), ())


def test_two_records_are_of_one_man(tmp_path):
    write(tmp_path, "201", leads=("V5", "MLII"))
    write(tmp_path, "202", comments=("# Aldomet", "# -1 F 1 2 x1"))
    records = read(tmp_path)
    assert {record.patient_id for record in records.values()} == {"201"}
    assert records["201"].leads == ("V5", "II")
    assert math.isnan(records["202"].age)
    assert records["202"].sex == "female"
    assert records["202"].notes == ("no 202.atr beside it: no labels",)


def test_damaged_annotations_cost_the_record(tmp_path):
    write(tmp_path, "100").with_suffix(".atr").write_bytes(b"\xff" * 7)
    with pytest.raises(DataError, match=r"100\.atr: wfdb cannot read it"):
        read(tmp_path)
