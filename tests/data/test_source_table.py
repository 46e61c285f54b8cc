"""Tables of data sets: which cells, which meaning, which message."""

import gzip
import math

import pytest

from fairseq_ecg.data.source_table import inside, parse_age, parse_sex, parse_truth, read_source_table
from fairseq_ecg.errors import DataError


def rows(path, *columns, **options):
    return list(read_source_table(path, columns, remedy="fetch it", **options))


def test_columns_are_taken_by_name_and_others_passed_over(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffID,note,Age\n1,"a, b\nc", 40 \n\n2,,\n'.encode())
    assert rows(path, "age", "ID", optional=["sex"]) == [("40", "1", ""), ("", "2", "")]


def test_a_compressed_table_is_read(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert rows(path, "b") == [("2",)]
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError, match=r"t\.csv\.gz, after line \d+: cannot be read"):
        rows(path, "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"t\.csv is missing; fetch it"),
        ("", "column 'a' is missing; it has"),
        ("b,c\n", "column 'a' is missing; it has b, c"),
        ("a,b\n1,2\n3\n", "line 3: 1 cells where the first row has 2"),
        ("a\n" + "x" * 200_000 + "\n", "cannot be read: field larger than field limit"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path, text, message):
    path = tmp_path / "t.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        rows(path, "a")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", ""])
def test_a_path_out_of_the_folder_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="is no path below"):
        inside(tmp_path, name)


def test_a_path_inside_is_joined(tmp_path):
    assert inside(tmp_path, "a/b.hea") == tmp_path / "a" / "b.hea"


def test_ages_are_numbers_or_unknown_and_over_89_is_90():
    assert parse_age("61.5") == (61.5, ())
    assert math.isnan(parse_age("NaN")[0])
    assert parse_age("NaN")[1] == ()
    assert parse_age("> 89") == (90.0, ("age is over 89, kept as 90",))
    assert parse_age("300")[1] == ("age 300 is implausible",)
    assert parse_age("old")[1] == ("age 'old' not understood",)


def test_sexes_and_truths_are_words_or_unknown():
    assert parse_sex("MALE") == ("male", ())
    assert parse_sex("f") == ("female", ())
    assert parse_sex("Unknown") == ("", ())
    assert parse_sex("x") == ("", ("sex 'x' not understood",))
    assert [parse_truth("AF", text) for text in ("True", "0", "1.0", "")] == [True, False, True, None]
    with pytest.raises(DataError, match="AF is 'maybe', needed is True or False"):
        parse_truth("AF", "maybe")
