"""Records from WFDB headers with challenge comments."""

import csv
import math
import re

import numpy as np
import pytest

from fairseq_ecg.data.wfdb_record import find_headers, parse_comments, read_wfdb_record
from fairseq_ecg.errors import DataError
from tests.data.wfdb_files import samples, write_record


@pytest.mark.parametrize("space", ["", " "])
def test_both_header_dialects_say_the_same(tmp_path, space):
    comments = [f"#{space}Age: 74", f"#{space}Sex: Male", f"#{space}Dx: 426783006,164889003"]
    record = read_wfdb_record(write_record(tmp_path, "A0001", comments=comments))
    assert (record.age, record.sex, record.labels) == (74, "male", ("426783006", "164889003"))
    assert record.patient_id == record.record_id == "A0001"
    assert record.notes == ()


@pytest.mark.parametrize(
    ("text", "sex"),
    [("Male", "male"), ("F", "female"), ("female", "female"), ("M", "male"), ("Unknown", ""), ("", "")],
)
def test_every_spelling_of_sex_is_understood(text, sex):
    parsed = parse_comments([f"Sex: {text}"])
    assert parsed.sex == sex
    assert parsed.notes == ()


def test_unknown_ages_are_nan_and_odd_ones_are_noted():
    assert math.isnan(parse_comments(["Age: NaN"]).age)
    assert math.isnan(parse_comments([]).age)
    assert parse_comments(["<age>: 64"]).age == 64
    odd = parse_comments(["Age: 300", "Sex: x"])
    assert odd.age == 300
    assert odd.notes == ("age 300 is implausible", "sex 'x' not understood")
    assert parse_comments(["age: 5a"]).notes == ("age '5a' not understood",)


def test_dx_lines_add_up_without_repeats_and_may_be_empty():
    parsed = parse_comments(["Dx: 1,2", "Dx: 2, 3,", "Dx:", "Diagnose: 9", "Patient: P7"])
    assert parsed.codes == ("1", "2", "3")
    assert parsed.patient_id == "P7"


def test_units_become_millivolt_and_other_signals_are_left_out_with_a_note(tmp_path):
    path = write_record(tmp_path, "r", samples(3, 20), leads=("i", "ABP", "v1"))
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace("1000/mV", "1/uV")
    lines[2] = lines[2].replace("1000/mV", "10/mmHg")
    path.write_text("\n".join(lines))
    record = read_wfdb_record(path)
    assert record.leads == ("I", "V1")
    np.testing.assert_allclose(record.signal, samples(3, 20)[[0, 2]] / 1000, rtol=1e-6)
    assert any("ABP left out" in note for note in record.notes)
    path.write_text("\n".join(line.replace("1/uV", "1/bpm").replace("1000/mV", "1/bpm") for line in lines))
    with pytest.raises(DataError, match="none of its signals is a voltage"):
        read_wfdb_record(path)


def test_an_implausible_gain_is_noted_and_never_corrected(shared):
    folder = shared / "data/real_ecg/cinc2020_early_headers"
    for name, gain in (("S0001", "2e\\+06/mV"), ("E00001", "4880/mV")):
        record = read_wfdb_record(folder / f"{name}.hea")
        assert len(record.notes) == 1
        assert np.ptp(record.signal, axis=1).max() < 0.5
        assert re.search(f"implausible.*{gain}", record.notes[0])
    assert read_wfdb_record(folder / "A0001.hea").notes == ()


def test_a_gain_the_header_does_not_state_is_noted(tmp_path):
    record = read_wfdb_record(write_record(tmp_path, "r", gain="0"))
    assert record.notes[0] == "I: no gain in the header, 200 per mV assumed"


def test_a_rate_that_is_not_whole_is_refused(tmp_path):
    path = write_record(tmp_path, "r")
    path.write_text(path.read_text().replace("r 12 500", "r 12 257.5"))
    with pytest.raises(DataError, match=r"257\.5 Hz: a whole number"):
        read_wfdb_record(path)


def test_real_challenge_records_have_the_labels_age_and_sex_of_their_table(shared):
    folder = shared / "data/real_ecg/cinc2021"
    with open(folder / "records.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 72
    for row in rows:
        record = read_wfdb_record(folder / f"{row['record']}.hea", source="physionet2021")
        assert "|".join(record.labels) == row["dx"]
        assert record.sex == row["sex"].lower()
        assert record.age == float(row["age"])
        assert record.signal.shape == (int(row["n_leads"]), int(row["n_samples"]))
        assert record.sampling_rate == int(row["fs"])


def test_headers_are_found_in_nested_folders_in_a_fixed_order_without_hidden_ones(tmp_path):
    for place in ("b/g1/E2", "b/E1", "a/HR3", ".hidden/X", "c/.Y"):
        path = tmp_path / f"{place}.hea"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "Z.HEA").touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_headers(tmp_path)]
    assert found == ["Z.HEA", "a/HR3.hea", "b/E1.hea", "b/g1/E2.hea"]


def test_a_folder_without_headers_or_no_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no \.hea file"):
        find_headers(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        find_headers(tmp_path / "none")
