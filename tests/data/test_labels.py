"""Label definitions: the challenges', files, multi-hot targets."""

import csv
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.data.labels import BUILT_IN, LabelDefinition, label_definition
from fairseq_ecg.errors import DataError


def test_the_2021_definition_has_26_classes_with_four_joined_pairs():
    definition = label_definition("cinc2021")
    assert len(definition) == 26
    assert definition.names[0] == "AF"
    assert definition.names[14] == "NSR"
    assert definition.names[-1] == "TInv"
    pairs = {
        name: codes for name, codes in zip(definition.names, definition.codes, strict=True) if "|" in name
    }
    assert pairs == {
        "CLBBB|LBBB": {"733534002", "164909002"},
        "CRBBB|RBBB": {"713427006", "59118001"},
        "PAC|SVPB": {"284470004", "63593006"},
        "PVC|VPB": {"427172004", "17338001"},
    }


def test_the_2020_definition_has_24_classes_in_merged_order():
    definition = label_definition("cinc2020")
    expected = (
        "IAVB AF AFL Brady CRBBB|RBBB IRBBB LAnFB LAD LBBB LQRSV NSIVCB PR PAC|SVPB PVC|VPB LPR LQT QAb RAD "
        "SA SB NSR STach TAb TInv"
    )
    assert definition.names == tuple(expected.split())
    assert definition.codes[4] == {"713427006", "59118001"}


def test_the_synthetic_definition_names_every_diagnosis_of_the_corpus():
    assert label_definition("synthetic").names[:3] == ("NSR", "SB", "STach")


def test_multi_hot_is_any_code_of_the_class_and_a_record_without_codes_is_unlabelled():
    definition = LabelDefinition(("a", "b"), (frozenset({"1", "2"}), frozenset({"2", "3"})), ("", ""))
    codes = [("1",), ("2",), ("9", "3"), (), ("9",), ("1", "1")]
    slow = [
        [float(any(code in known for code in row)) if row else np.nan for known in definition.codes]
        for row in codes
    ]
    assert slow[4] == [0.0, 0.0]
    target = definition.multi_hot(codes)
    assert target.dtype == np.float32
    np.testing.assert_array_equal(target, slow)


def test_a_written_definition_reads_back_equal(tmp_path):
    definition = label_definition("cinc2021")
    definition.write(tmp_path / "label_def.csv")
    assert label_definition(tmp_path / "label_def.csv") == definition


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("index,name\n0,a\n", "no column"),
        ("index,name,codes,description\n", "no class"),
        ("index,name,codes,description\n1,a,5,\n", "index 1 where 0 is expected"),
        ("name,codes\na,\n", ":2: a class needs a name and at least one code"),
        ("name,codes\na,1\na,2\n", "differ from each other"),
    ],
)
def test_a_bad_label_file_is_refused_with_its_place(tmp_path, text, reason):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=reason):
        label_definition(path)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(DataError, match="did you mean 'cinc2021'"):
        label_definition("cinc2012")


def test_names_codes_and_descriptions_belong_together():
    with pytest.raises(DataError, match="as many names"):
        LabelDefinition(("a",), (), ())


def test_copies_for_readers_of_the_repository_equal_what_is_installed(tmp_path):
    folder = Path(__file__).resolve().parents[2] / "manifests" / "labels"
    for name in BUILT_IN:
        label_definition(name).write(tmp_path / f"{name}.csv")
        assert (folder / f"{name}.csv").read_text() == (tmp_path / f"{name}.csv").read_text()
    tables = files("fairseq_ecg") / "metrics" / "cinc_tables"
    for year in ("2020", "2021"):
        copy = (folder / f"cinc{year}_weights.csv").read_bytes()
        assert copy == (tables / year / "weights.csv").read_bytes()
    assert {path.stem for path in folder.glob("*.csv")} == {*BUILT_IN, "cinc2020_weights", "cinc2021_weights"}


def test_the_sets_of_ptbxl_are_those_of_its_statement_table(shared):
    with (shared / "data/real_ecg/ptbxl/scp_statements.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name, flag, size in (
        ("all", None, 71),
        ("diag", "diagnostic", 44),
        ("form", "form", 19),
        ("rhythm", "rhythm", 12),
    ):
        definition = label_definition(f"ptbxl_{name}")
        assert list(definition.names) == sorted(row[""] for row in rows if flag is None or row[flag] == "1.0")
        assert len(definition) == size
    for name, column, size in (("sub", "diagnostic_subclass", 23), ("super", "diagnostic_class", 5)):
        definition = label_definition(f"ptbxl_{name}")
        assert len(definition) == size
        for label, codes in zip(definition.names, definition.codes, strict=True):
            assert codes == {row[""] for row in rows if row["diagnostic"] == "1.0" and row[column] == label}


def test_a_record_is_unlabelled_where_its_codes_say_nothing_of_the_class():
    nan = np.nan
    code15 = label_definition("code15")
    codes = [("AF",), ("none_of_six",), ("none_of_six", "normal_ecg"), ("426783006",), ()]
    none = [nan] * 6
    expected = [[0, 0, 0, 0, 1, 0], [0] * 6, [0] * 6, none, none]
    np.testing.assert_array_equal(code15.target(codes), np.float32(expected))
    nine = label_definition("cpsc2018").target([("164884008", "999999"), ("10370003",), ("NORM",), ()])
    np.testing.assert_array_equal(nine[0], np.float32([0, 0, 0, 0, 0, 0, 1, 0, 0]))
    assert not nine[1].any()  # judged by somebody who uses SNOMED CT, and none of the nine
    assert np.isnan(nine[2:]).all()
    # As in the benchmark of PTB-XL: who has no diagnostic statement is not in the diagnostic sets.
    superclass = label_definition("ptbxl_super").target([("NORM", "SR"), ("SR",)])
    np.testing.assert_array_equal(superclass, np.float32([[0, 0, 0, 1, 0], [nan] * 5]))


def test_classes_of_one_file_may_be_judged_by_different_codes(tmp_path):
    (tmp_path / "l.csv").write_text("name,codes,labelled_if\nAF,164889003|AFIB,snomed|listed\nMI,IMI,SR\n")
    target = label_definition(tmp_path / "l.csv").target([("AFIB",), ("426783006",), ("SR",), ("IMI",)])
    nan = np.nan
    np.testing.assert_array_equal(target, np.float32([[1, nan], [0, nan], [nan, 0], [nan, 1]]))


def test_an_undecodable_label_file_is_refused(tmp_path):
    (tmp_path / "l.csv").write_bytes(b"name,codes\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="not a readable table"):
        label_definition(tmp_path / "l.csv")
