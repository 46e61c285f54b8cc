from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.data import table
from fairseq_ecg.data.table import Kind, TextColumn, read_number_lists, read_table
from fairseq_ecg.errors import DataError

KINDS = {"n": Kind.INTEGER, "x": Kind.NUMBER, "t": Kind.TEXT}


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8"))
    return path


def slow_read(path: Path) -> list[list[str]]:
    """The obvious reader."""
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]


@pytest.mark.parametrize("chunk_bytes", [7, 64, 2**20])
def test_a_table_is_what_splitting_its_lines_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(table, "CHUNK_BYTES", chunk_bytes)
    rng = np.random.default_rng(0)
    texts = ["", "a", "Ä€", "longer text", "a b", "a", "ab", "ba"]
    rows = [
        (str(rng.integers(0, 10**12)), rng.choice(["", repr(float(rng.normal()))]), texts[rng.integers(8)])
        for _ in range(300)
    ]
    path = write(tmp_path / "t.tsv", "n\tx\tt\n" + "".join("\t".join(row) + "\n" for row in rows))
    columns = read_table(path, KINDS)
    expected = slow_read(path)
    assert columns["n"].tolist() == [int(row[0]) for row in expected]
    np.testing.assert_array_equal(columns["x"], [float(row[1] or "nan") for row in expected])
    column = columns["t"]
    assert [column[row] for row in range(len(column))] == [row[2] for row in expected]
    assert column.values() == list(dict.fromkeys(row[2] for row in expected))


def test_texts_coded_from_a_list_equal_texts_read_from_a_file(tmp_path: Path) -> None:
    texts = ["b", "a", "b", "", "Ä"]
    column = TextColumn.of(texts)
    read = read_table(write(tmp_path / "t.tsv", "t\n" + "\n".join(texts) + "\n"), {"t": Kind.TEXT})["t"]
    for mine, theirs in ((column.codes, read.codes), (column.hashes, read.hashes), (column.blob, read.blob)):
        np.testing.assert_array_equal(mine, theirs)


def test_windows_line_ends_and_a_missing_last_line_end_are_accepted(tmp_path: Path) -> None:
    columns = read_table(write(tmp_path / "t.tsv", "n\tx\tt\r\n1\t2.5\ta\r\n2\t\tb"), KINDS)
    assert columns["n"].tolist() == [1, 2]
    assert columns["t"].values() == ["a", "b"]


def test_only_asked_columns_are_read(tmp_path: Path) -> None:
    assert list(read_table(write(tmp_path / "t.tsv", "a\tn\nbad\t3\n"), {"n": Kind.INTEGER})) == ["n"]


def test_a_table_without_rows_is_empty(tmp_path: Path) -> None:
    columns = read_table(write(tmp_path / "t.tsv", "n\tx\tt\n"), KINDS)
    assert [len(column) for column in columns.values()] == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n\tx\tt\n1\t2\ta\n1\t2\n", "line 3: 2 fields where the header has 3"),
        ("n\tx\tt\n1\t2\ta\n-5\t2\ta\n", "line 3: n is '-5', needed is a whole number"),
        ("n\tx\tt\n1.5\t2\ta\n", "line 2: n is '1.5'"),
        ("n\tx\tt\n\t2\ta\n", "line 2: n is ''"),
        ("n\tx\tt\n1\t2\ta\n1\tzwei\ta\n", "line 3: x is 'zwei', needed is a number"),
        ("n\tx\n1\t2\n", "column 't' is missing"),
        ("n\tn\n1\t2\n", "a column name appears twice"),
    ],
)
def test_a_bad_table_is_refused_with_line_and_value(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path / "t.tsv", text), KINDS)


def test_number_lists_round_trip_float32(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    lines = [",".join(str(value) for value in row) for row in values]
    path = write(tmp_path / "t.tsv", "a\tb\n" + "".join(f"x\t{line}\n" for line in lines))
    np.testing.assert_array_equal(read_number_lists(path, ["b"], 3)[0], values)


def test_number_lists_of_wrong_lengths_that_add_up_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv", "b\n1,2,3\n1,2\n1,2,3,4\n")
    with pytest.raises(DataError, match="line 3: b is '1,2', needed are 3 numbers"):
        read_number_lists(path, ["b"], 3)


def test_texts_that_differ_in_one_byte_or_in_length_have_different_hashes() -> None:
    texts = ["a" * n for n in range(30)] + ["a" * n + "b" + "a" * (20 - n) for n in range(21)]
    texts += [f"JS{i:07d}" for i in range(20000)]
    column = TextColumn.of(texts)
    assert len(np.unique(column.hashes)) == len(set(texts)) == column.num_values


def test_a_text_s_hash_does_not_depend_on_what_surrounds_it(tmp_path: Path) -> None:
    texts = ["", "a", "eight by", "nine byte", "sixteen bytes ok", "seventeen bytes..", "Ä"]
    alone = [int(TextColumn.of([text]).hashes[0]) for text in texts]
    rows = "".join(f"{'x' * i}\t{text}\t{'y' * i}\n" for i, text in enumerate(texts))
    column = read_table(write(tmp_path / "t.tsv", f"a\tt\tb\n{rows}"), {"t": Kind.TEXT})["t"]
    assert [int(column.hashes[code]) for code in column.codes] == alone
