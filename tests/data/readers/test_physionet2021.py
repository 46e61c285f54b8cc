"""Challenge folders: which records, in which order, of which database."""

import csv
from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.data.readers.physionet2021 import PhysioNet2021, PhysioNet2021Config, database_of
from fairseq_ecg.errors import ConfigError, DataError
from tests.data.wfdb_files import samples, write_record


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / f"{name}.hea"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("place", "database"),
    [
        ("georgia/g1/X1", "georgia"),
        ("training/ptb-xl/g3/HR00001", "ptb-xl"),
        ("A0001", "cpsc_2018"),
        ("Q0001", "cpsc_2018_extra"),
        ("E00001", "georgia"),
        ("S0001", "ptb"),
        ("I0001", "st_petersburg_incart"),
        ("JS10646", "chapman_shaoxing"),
        ("JS10647", "ningbo"),
        ("00001_hr", "physionet2021"),
        ("XX1", "physionet2021"),
        ("WFDBRecords/01/010/JS00001", "chapman_shaoxing"),
        ("WFDBRecords/46/460/JS45551", "ningbo"),
        ("WFDB_Ga/E1", "georgia"),
        ("Training_2/x", "cpsc_2018_extra"),
        ("ICBEB2018/x", "cpsc_2018"),
    ],
)
def test_the_database_is_told_by_the_folder_or_else_by_the_name(tmp_path, place, database):
    assert database_of(tmp_path / f"{place}.hea", tmp_path) == database


def test_the_folder_that_is_given_may_itself_be_the_database(tmp_path):
    assert database_of(tmp_path / "ningbo" / "g1" / "X.hea", tmp_path / "ningbo") == "ningbo"


def test_chosen_databases_are_read_and_the_rest_left_alone(tmp_path):
    touch(tmp_path, "ptb/g1/S0001", "georgia/g1/E00001", "georgia/g2/E00002")
    reader = PhysioNet2021(PhysioNet2021Config(databases=["georgia"]))
    assert [item.record_id for item in reader.records(tmp_path)] == ["E00001", "E00002"]
    with pytest.raises(DataError, match=r"no record of \['ningbo'\]; it holds \['georgia', 'ptb'\]"):
        PhysioNet2021(PhysioNet2021Config(databases=["ningbo"])).records(tmp_path)


def test_an_unknown_database_suggests_the_nearest():
    with pytest.raises(ConfigError, match="unknown 'ptbxl': did you mean 'ptb-xl'"):
        PhysioNet2021Config(databases=["ptbxl"])


def test_real_records_are_all_found_under_their_databases(shared):
    folder = shared / "data/real_ecg/cinc2021"
    items = list(PhysioNet2021(PhysioNet2021Config()).records(folder))
    assert len(items) == 72
    names = {
        "CPSC": "cpsc_2018",
        "Georgia": "georgia",
        "PTB-XL": "ptb-xl",
        "Chapman-Shaoxing": "chapman_shaoxing",
        "Ningbo": "ningbo",
    }
    with open(folder / "records.csv", newline="") as file:
        expected = {row["record"]: names[row["source_db"]] for row in csv.DictReader(file)}
    assert {item.record_id: item.source for item in items} == expected
    assert items[0].read().source == items[0].source


def test_the_groups_of_the_release_are_folds(tmp_path):
    write_record(tmp_path / "cpsc_2018/g1", "A0001")
    write_record(tmp_path / "cpsc_2018/g7", "A6001")
    write_record(tmp_path / "WFDBRecords/01/010", "JS00001")
    items = PhysioNet2021(PhysioNet2021Config()).records(tmp_path)
    assert {item.record_id: item.read().fold for item in items} == {
        "JS00001": "",
        "A0001": "g1",
        "A6001": "g7",
    }


def test_a_gain_of_the_early_headers_is_noted_and_may_be_replaced(tmp_path):
    digital = samples(seed=3)
    write_record(tmp_path, "HR00001", digital, gain="200/mV")
    write_record(tmp_path, "JS00001", digital, gain="200/mV")  # nothing is known against it
    plain = {item.record_id: item.read() for item in PhysioNet2021(PhysioNet2021Config()).records(tmp_path)}
    assert plain["HR00001"].notes == (
        "gain 200/mV: ptb-xl has 1000/mV in release 1.0.3, early headers of 2020 are wrong: --gain 1000",
    )
    assert plain["JS00001"].notes == ()
    np.testing.assert_array_equal(plain["HR00001"].signal, digital / np.float32(200))
    told = next(PhysioNet2021(PhysioNet2021Config(gain=1000)).records(tmp_path)).read()
    np.testing.assert_array_equal(told.signal, digital / np.float32(1000))
    assert told.notes == ("gain 200/mV of the header replaced by 1000/mV",)
    with pytest.raises(ConfigError, match="gain=0: ADC units per mV, more than 0"):
        PhysioNet2021Config(gain=0)
