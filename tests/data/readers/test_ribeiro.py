"""The annotated test set of Ribeiro et al.: tables matched by row, the lead order, the unit."""

import numpy as np
import pytest

from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.readers.ribeiro import Ribeiro, RibeiroConfig
from fairseq_ecg.data.record import arrange_leads
from fairseq_ecg.errors import ConfigError, DataError
from tests.data.tracing_files import tracing, write_tracings

DOCUMENTED = [0, 1, 2, 4, 5, 3, 6, 7, 8, 9, 10, 11]
"""Columns of a standard tracing in the order aVL, aVF, aVR."""


def write(folder, tracings):
    (folder / "annotations").mkdir(parents=True)
    write_tracings(folder / "ecg_tracings.hdf5", tracings)
    (folder / "attributes.csv").write_text("age,sex\n61,M\n,F\n")
    (folder / "annotations" / "gold_standard.csv").write_text(
        "1dAVb,RBBB,LBBB,SB,AF,ST\n0,0,1,0,0,1\n0,0,0,0,0,0\n"
    )
    (folder / "annotations" / "dnn.csv").write_text("1dAVb,RBBB,LBBB,SB,AF,ST\n1,0,0,0,0,0\n0,0,0,0,0,0\n")


@pytest.fixture
def tree(tmp_path):
    write(tmp_path / "data", [tracing(seed)[:, DOCUMENTED] for seed in (1, 2)])
    return tmp_path


def read(tree, **options):
    return [item.read() for item in Ribeiro(RibeiroConfig(**options)).records(tree)]


def test_rows_of_the_tables_belong_to_rows_of_the_tracings(tree):
    first, second = read(tree)
    assert (first.record_id, second.record_id) == ("ribeiro_0000", "ribeiro_0001")
    assert (first.labels, second.labels) == (("LBBB", "ST"), ("none_of_six",))
    assert (first.age, first.sex, second.sex) == (61, "male", "female")
    assert np.isnan(second.age)
    assert first.sampling_rate == 400
    assert [record.labels for record in read(tree, annotator="dnn")] == [("1dAVb",), ("none_of_six",)]
    assert [record.labels for record in read(tree, annotator="none")] == [(), ()]


def test_the_documented_order_gives_every_lead_its_name(tree):
    record = read(tree)[0]
    assert record.leads[3:6] == ("aVL", "aVF", "aVR")
    arranged = arrange_leads(record.signal, record.leads, STANDARD_LEADS)
    np.testing.assert_array_equal(arranged.signal, tracing(1)[8:-8].T)
    assert record.notes == ()


@pytest.mark.parametrize(
    ("columns", "lead_order", "note"),
    [
        (DOCUMENTED, "standard", "fit leads I and II as aVL, aVF, aVR, not as aVR, aVL, aVF"),
        (range(12), "documented", "fit leads I and II as aVR, aVL, aVF, not as aVL, aVF, aVR"),
        (range(12), "standard", None),
    ],
)
def test_an_order_that_contradicts_leads_i_and_ii_is_noted(tmp_path, columns, lead_order, note):
    write(tmp_path, [tracing(seed)[:, list(columns)] for seed in (1, 2)])
    for record in read(tmp_path, lead_order=lead_order):
        assert record.notes == (() if note is None else (f"columns 4 to 6 {note}",))


def test_the_unit_is_what_was_said_and_an_odd_one_is_noted(tree):
    default, scaled = read(tree)[0], read(tree, mv_per_unit=10)[0]
    np.testing.assert_allclose(scaled.signal, default.signal * 10, rtol=1e-6)
    assert "is implausible: is mv_per_unit right?" in scaled.notes[0]


def test_tables_of_another_length_are_refused(tree):
    (tree / "data" / "attributes.csv").write_text("age,sex\n61,M\n")
    with pytest.raises(DataError, match=r"attributes\.csv has 1 rows for 2 tracings"):
        read(tree)


def test_missing_files_name_the_remedy(tree):
    with pytest.raises(DataError, match=r"crowd\.csv is missing; .*--annotator chooses another"):
        read(tree, annotator="crowd")
    with pytest.raises(DataError, match=r"ecg_tracings\.hdf5 is missing"):
        read(tree / "data" / "annotations")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lead_order": "standart"}, "did you mean 'standard'"),
        ({"mv_per_unit": 0}, "a number above 0"),
        ({"annotator": "../x"}, "the name of a table"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        RibeiroConfig(**options)
