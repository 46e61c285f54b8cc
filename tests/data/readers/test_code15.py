"""CODE-15: parts, the stand-in row, exams.csv."""

import pickle

import numpy as np
import pytest

from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.prepare import PrepareOptions, prepare
from fairseq_ecg.data.readers.code15 import Code15, Code15Config
from fairseq_ecg.errors import DataError
from tests.data.tracing_files import tracing, write_tracings

HEADER = (
    "exam_id,age,is_male,nn_predicted_age,1dAVb,RBBB,LBBB,SB,ST,AF,"
    "patient_id,death,timey,normal_ecg,trace_file"
)
EXAMS = (
    "11,38,True,40.1,True,False,False,False,True,False,901,,,False,exams_part10.hdf5",
    "12,60,False,40.1,False,False,False,False,False,False,902,False,1.5,True,exams_part10.hdf5",
    "21,77,True,40.1,False,False,False,False,False,False,901,,,False,exams_part2.hdf5",
)
ZEROS = np.zeros((64, 12), np.float32)


@pytest.fixture
def tree(tmp_path):
    write_tracings(tmp_path / "exams_part10.hdf5", [tracing(11), tracing(12), ZEROS], [11, 12, 0])
    write_tracings(tmp_path / "exams_part2.hdf5", [tracing(21, padding=2), ZEROS], [21, 0])
    (tmp_path / "exams.csv").write_text("\n".join([HEADER, *EXAMS]) + "\n")
    return tmp_path


def items(tree, **options):
    return list(Code15(Code15Config(**options)).records(tree))


def test_exams_come_by_part_and_row_without_the_stand_in(tree):
    records = [item.read() for item in items(tree)]
    assert [record.record_id for record in records] == ["21", "11", "12"]
    assert [record.patient_id for record in records] == ["901", "901", "902"]
    assert [record.labels for record in records] == [
        ("none_of_six",),
        ("1dAVb", "ST"),
        ("none_of_six", "normal_ecg"),
    ]
    assert [(record.age, record.sex) for record in records] == [(77, "male"), (38, "male"), (60, "female")]
    assert {(record.sampling_rate, record.leads) for record in records} == {(400, STANDARD_LEADS)}
    np.testing.assert_array_equal(records[0].signal, tracing(21, padding=2)[2:-2].T)


def test_padding_and_table_can_be_left_as_they_are(tree):
    (tree / "exams.csv").unlink()
    with pytest.raises(DataError, match=r"exams\.csv is missing; .* --no-table"):
        items(tree)
    record = items(tree, table=False, strip_padding=False)[1].read()
    assert (record.record_id, record.patient_id, record.labels) == ("11", "11", ())
    np.testing.assert_array_equal(record.signal, tracing(11).T)


def test_a_missing_part_is_named_once_with_what_it_costs(tree, tmp_path_factory):
    (tree / "exams_part10.hdf5").unlink()
    store = tmp_path_factory.mktemp("out") / "s"
    report = prepare(Code15(Code15Config()), tree, store, PrepareOptions(sampling_rate=400))
    assert (report.num_records, report.num_found) == (1, 2)
    assert report.rejected == {"missing file": 1}
    assert report.first_left_out.startswith("exams_part10.hdf5: ")
    assert "the part does not exist; 2 exams of exams.csv are lost with it" in report.first_left_out
    (tree / "exams_part2.hdf5").unlink()
    with pytest.raises(
        DataError, match=r"no exams_part\*\.hdf5 in it; exams\.csv names exams_part2\.hdf5, exa"
    ):
        items(tree)


def test_a_damaged_part_costs_its_exams_only(tree):
    path = tree / "exams_part10.hdf5"
    path.write_bytes(path.read_bytes()[:600])
    good, bad = items(tree)
    assert good.read().record_id == "21"
    with pytest.raises(DataError, match=r"not a readable HDF5 file.*2 exams of exams\.csv are lost"):
        bad.read()


def test_table_and_parts_that_disagree_are_reported_per_exam(tree):
    table = tree / "exams.csv"
    table.write_text(table.read_text().replace("\n12,", "\n13,"))
    found = {item.record_id: item for item in items(tree)}
    assert set(found) == {"21", "11", "12", "13"}
    with pytest.raises(DataError, match=r"exams\.csv has no row of exam_id 12"):
        found["12"].read()
    with pytest.raises(DataError, match=r"exam_id 13 is not in it, though exams\.csv says so"):
        found["13"].read()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("38,True", "38,Yes", "is_male is 'Yes'"),
        ("True,False,False,False,True", "2,False,False,False,True", "1dAVb is '2'"),
    ],
)
def test_a_wrong_cell_costs_its_exam_only(tree, old, new, message):
    table = tree / "exams.csv"
    table.write_text(table.read_text().replace(old, new))
    found = items(tree)
    assert found[2].read().record_id == "12"
    with pytest.raises(DataError, match=message):
        found[1].read()


def test_a_part_outside_the_folder_is_refused(tree):
    table = tree / "exams.csv"
    table.write_text(table.read_text().replace("exams_part2.hdf5", "../exams_part2.hdf5"))
    with pytest.raises(DataError, match="is no path below"):
        items(tree)


def test_items_may_be_read_by_other_threads_and_processes(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    for num_workers in (0, 2):
        options = PrepareOptions(sampling_rate=400)
        prepare(Code15(Code15Config()), tree, out / str(num_workers), options, num_workers=num_workers)
    assert (out / "0" / "index.tsv").read_bytes() == (out / "2" / "index.tsv").read_bytes()
    item = items(tree)[1]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(item)).read().signal, item.read().signal)
