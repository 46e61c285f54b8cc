"""PTB-XL: tables, folds, labels, both rates."""

import shutil

import numpy as np
import pytest

from fairseq_ecg.data.readers.ptbxl import PtbXl, PtbXlConfig
from fairseq_ecg.errors import ConfigError, DataError
from tests.data.wfdb_files import samples, write_record

LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
HEADER = "ecg_id,patient_id,age,sex,recording_date,report,scp_codes,strat_fold,filename_lr,filename_hr"
ROWS = (
    "1,15709.0,56.0,1,1984-11-09 09:17:34,sinus,\"{'NORM': 100.0, 'SR': 0.0}\",3",
    "2,13243.0,300.0,0,1984-11-14 12:55:37,,\"{'IMI': 15.0}\",10",
)


@pytest.fixture
def tree(tmp_path):
    lines = [HEADER]
    for number, row in enumerate(ROWS, 1):
        names = [f"records{rate}/00000/{number:05}_{kind}" for rate, kind in ((100, "lr"), (500, "hr"))]
        lines.append(",".join([row, *names]))
        for name, rate in zip(names, (100, 500), strict=True):
            digital = samples(num_samples=rate, seed=number)
            folder, _, stem = name.rpartition("/")
            write_record(
                tmp_path / folder,
                stem,
                digital,
                leads=LEADS,
                sampling_rate=rate,
                gain="1000.0(0)/mV",
                comments=(),
            )
    (tmp_path / "ptbxl_database.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "scp_statements.csv").write_text(
        ",description,diagnostic,form,rhythm\nNORM,n,1.0,,\nIMI,i,1.0,,\nSR,s,,,1.0\n"
    )
    return tmp_path


def read(tree, **options):
    return [item.read() for item in PtbXl(PtbXlConfig(**options)).records(tree)]


def test_rows_of_the_table_become_records(tree):
    first, second = read(tree)
    assert (first.record_id, first.patient_id, first.source) == ("00001_hr", "15709", "ptbxl")
    assert (first.labels, first.likelihoods, first.fold) == (("NORM", "SR"), (100.0, 0.0), "3")
    assert (first.age, first.sex, first.date) == (56.0, "female", "1984-11-09T09:17:34")
    assert first.leads[3:6] == ("aVR", "aVL", "aVF")
    assert first.notes == ()
    np.testing.assert_array_equal(first.signal, samples(num_samples=500, seed=1) / np.float32(1000))
    assert (second.age, second.sex, second.fold) == (90.0, "male", "10")
    assert second.notes == ("age is over 89, kept as 90",)


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({"sampling_rate": 100}, 100),
        ({"sampling_rate": 50}, 100),
        ({"sampling_rate": 250}, 500),
        ({"sampling_rate": 100, "files": "records500"}, 500),
    ],
)
def test_the_rate_of_the_store_chooses_the_files(tree, options, rate):
    assert {record.sampling_rate for record in read(tree, **options)} == {rate}


def test_statements_below_a_likelihood_are_no_labels(tree):
    first, second = read(tree, min_likelihood=50)
    assert (first.labels, first.likelihoods) == (("NORM",), (100.0,))
    assert second.labels == ()


def test_missing_files_name_the_remedy(tree):
    shutil.rmtree(tree / "records100")
    with pytest.raises(DataError, match=r"records100 is missing.*--files records500"):
        PtbXl(PtbXlConfig(sampling_rate=100)).records(tree)
    (tree / "scp_statements.csv").unlink()
    with pytest.raises(DataError, match=r"scp_statements\.csv is missing; give the folder"):
        PtbXl(PtbXlConfig()).records(tree)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{'IMI': 15.0}", "{'IMI': }", "scp_codes is .* needed is a dictionary"),
        ("{'IMI': 15.0}", "{'IMI': 'x'}", "scp_codes is .* needed is a dictionary"),
        ("13243.0", "13243.5", r"patient_id is '13243\.5'"),
        (",300.0,0,", ",300.0,2,", "sex is '2' .* needed is 0"),
        ("records500/00000/00002_hr", "../00002_hr", "is no path below"),
        ("records500/00000/00002_hr", "records500/00000/x_hr", "cannot be read: No such file"),
    ],
)
def test_a_wrong_cell_costs_its_record_only(tree, old, new, message):
    table = tree / "ptbxl_database.csv"
    table.write_text(table.read_text().replace(old, new))
    first, second = PtbXl(PtbXlConfig()).records(tree)
    assert first.read().labels == ("NORM", "SR")
    with pytest.raises(DataError, match=message):
        second.read()


def test_an_unknown_code_is_noted(tree):
    table = tree / "ptbxl_database.csv"
    table.write_text(table.read_text().replace("'IMI'", "'IMJ'"))
    assert "codes IMJ are not in scp_statements.csv" in read(tree)[1].notes


def test_options_that_cannot_be_meant_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'records100'"):
        PtbXlConfig(files="record100")
    with pytest.raises(ConfigError, match="percent from 0 to 100"):
        PtbXlConfig(min_likelihood=101)
