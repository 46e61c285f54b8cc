"""Label definitions: the challenges', files, multi-hot targets."""

import numpy as np
import pytest

from fairseq_ecg.data.labels import LabelDefinition, label_definition
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
