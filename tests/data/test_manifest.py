from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.data.manifest import Manifest, write_manifest
from fairseq_ecg.errors import DataError
from tests.data.made_stores import make_manifest, make_store

HEADER = "idx\trecord_id\tpatient_id\tsource\tsegment\tstart\tnum_samples"


def write(path: Path, *rows: str, root: str = ".", header: str = HEADER) -> Path:
    path.write_text("\n".join([f"#root\t{root}", header, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_manifest_read_back_is_what_was_written(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [500, 250, 99])
    manifest = make_manifest(tmp_path / "m.tsv", store, 100)
    assert manifest.num_rows == 7
    assert manifest.idx.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert manifest.start.tolist() == [0, 100, 200, 300, 400, 0, 100]
    assert manifest.segment.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert manifest.num_samples.tolist() == [100] * 7
    assert [manifest.record_ids[row] for row in range(7)] == ["r0"] * 5 + ["r1"] * 2
    assert manifest.record.tolist() == [0] * 5 + [1] * 2
    assert manifest.patient.tolist() == [0] * 7
    assert manifest.store_dirs() == [tmp_path / "s"]


def test_pandas_reads_a_manifest_in_one_call(tmp_path: Path) -> None:
    import pandas

    make_manifest(tmp_path / "m.tsv", make_store(tmp_path / "s", [300]), 100)
    frame = pandas.read_csv(tmp_path / "m.tsv", sep="\t", skiprows=1)
    assert frame["start"].tolist() == [0, 100, 200]


def test_records_and_patients_of_other_stores_and_sources_are_others(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.tsv",
        "0\tr\tp\ta\t0\t0\t10\tone",
        "1\tr\tp\tb\t0\t0\t10\ttwo",
        "2\tq\tp\tb\t0\t0\t10\ttwo",
        "3\tx\t\tb\t0\t0\t10\ttwo",
        "4\ty\t\tb\t0\t0\t10\ttwo",
        header=HEADER + "\tstore",
    )
    manifest = Manifest.read(path)
    assert manifest.record.tolist() == [0, 1, 2, 3, 4]
    assert manifest.patient.tolist() == [0, 1, 1, 2, 3]
    assert manifest.store_dirs() == [tmp_path / "one", tmp_path / "two"]


def test_further_columns_are_kept_as_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "m.tsv", "0\tr\tp\ta\t0\t0\t10\tAF|PVC", header=HEADER + "\tdiagnosis")
    assert Manifest.read(path).extra["diagnosis"][0] == "AF|PVC"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0\tr\tp\ta\t0\t0\tten", "line 3: num_samples is 'ten', needed is a whole number"),
        ("0\tr\tp\ta\t0\t0", "line 3: 6 fields where the header has 7"),
        ("0\tr\tp\ta\t0\t0\t0", "line 3: num_samples is 0; remove the row"),
        ("0\tr\tp\ta\t0\t0\t5\n0\tr\tp\ta\t0\t5\t5", "line 4: segment 0 of record 'r' appears twice"),
        ("", "line 3: 1 fields"),
    ],
)
def test_a_bad_row_is_refused_with_line_value_and_remedy(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Manifest.read(write(tmp_path / "m.tsv", row))


def test_an_empty_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names no segments"):
        Manifest.read(write(tmp_path / "m.tsv"))


def test_a_missing_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="make manifests with: fairseq-ecg manifest split"):
        Manifest.read(tmp_path / "m.tsv")


def test_a_root_line_without_a_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.tsv").write_text("#root\n" + HEADER + "\n")
    with pytest.raises(DataError, match="line 1: '#root'; the first line is '#root', a tab and the root"):
        Manifest.read(tmp_path / "m.tsv")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'start' is missing"):
        Manifest.read(write(tmp_path / "m.tsv", "0", header=HEADER.replace("start", "begin")))


@pytest.mark.parametrize("column", ["store", "path"])
@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/etc/passwd", "link/x", "link", ".."])
def test_a_row_outside_the_root_is_refused_unless_asked_for(tmp_path: Path, column: str, name: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    rows = ["0\tr\tp\ta\t0\t0\t10\tinside", f"1\tq\tp\ta\t0\t0\t10\t{name}"]
    path = write(tmp_path / "m.tsv", *rows, root="root", header=f"{HEADER}\t{column}")
    with pytest.raises(DataError, match=r"line 4: .* lies outside the root"):
        Manifest.read(path)
    assert Manifest.read(path, allow_outside=True).num_rows == 2


@pytest.mark.parametrize("name", ["a/b/../c", "link/x", "./a"])
def test_a_row_inside_the_root_may_take_a_detour(tmp_path: Path, name: str) -> None:
    (tmp_path / "root" / "real").mkdir(parents=True)
    (tmp_path / "root" / "link").symlink_to(tmp_path / "root" / "real")
    path = write(tmp_path / "m.tsv", f"0\tr\tp\ta\t0\t0\t10\t{name}", root="root", header=HEADER + "\tstore")
    assert Manifest.read(path).num_rows == 1


def test_a_row_is_in_a_store_or_in_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "m.tsv", "0\tr\tp\ta\t0\t0\t10\tx\ty", header=HEADER + "\tstore\tpath")
    with pytest.raises(DataError, match="a row is in a store or a file"):
        Manifest.read(path)


def test_a_failed_write_leaves_the_old_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    path.write_text("old")
    with pytest.raises(ValueError, match="shorter"):
        write_manifest(path, ".", {"idx": [1, 2], "record_id": ["a"]})
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["m.tsv"]


def test_a_large_manifest_keeps_texts_as_codes(tmp_path: Path) -> None:
    rows = [f"{i // 2}\trecord {i // 2}\tp{i // 8}\tsource\t{i % 2}\t0\t10" for i in range(2000)]
    manifest = Manifest.read(write(tmp_path / "m.tsv", *rows))
    assert (manifest.record_ids.num_values, manifest.patient_ids.num_values) == (1000, 250)
    np.testing.assert_array_equal(manifest.patient, np.arange(2000) // 8)
