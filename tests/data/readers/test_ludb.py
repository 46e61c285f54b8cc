"""LUDB: comments as labels, gains per lead, the waves' borders."""

import numpy as np
import pytest

from fairseq_ecg.data.readers.ludb import Ludb, Wave, delineation
from fairseq_ecg.errors import DataError
from fairseq_ecg.registry import NoConfig
from tests.data.annotation_files import write_annotations
from tests.data.wfdb_files import samples, write_record

COMMENTS = (
    "#<age>: >89",
    "#<sex>: F",
    "#<diagnoses>:",
    "#Rhythm: Sinus bradycardia.",
    "#Left ventricular hypertrophy.",
    "#",
    "#Left ventricular hypertrophy.",
)


@pytest.fixture
def header(tmp_path):
    path = write_record(
        tmp_path / "data", "1", samples(2), leads=("i", "avr"), gain="1716(6)/mV", comments=COMMENTS
    )
    path.write_text(path.read_text().replace("1716(6)", "1206(-2)", 1))
    write_annotations(
        path.with_suffix(".i"),
        [
            (10, "(", ""),
            (15, "p", ""),
            (20, ")", ""),
            (30, "N", ""),
            (35, ")", ""),
            (50, "(", ""),
            (60, "t", ""),
        ],
    )
    return path


def test_comments_are_labels_and_every_lead_has_its_gain(header):
    (item,) = Ludb(NoConfig()).records(header.parent.parent)
    record = item.read()
    assert (record.record_id, record.source, record.leads) == ("1", "ludb", ("I", "aVR"))
    assert record.labels == ("Rhythm: Sinus bradycardia", "Left ventricular hypertrophy")
    assert (record.age, record.sex) == (90.0, "female")
    digital = samples(2).astype(np.float64)
    expected = np.stack([(digital[0] + 2) / 1206, (digital[1] - 6) / 1716])
    np.testing.assert_allclose(record.signal, expected, rtol=1e-6)


def test_a_record_without_diagnoses_has_no_labels(tmp_path):
    write_record(tmp_path, "2", comments=("#<age>: 30",))
    assert next(Ludb(NoConfig()).records(tmp_path)).read().labels == ()


def test_borders_belong_to_their_wave_and_may_be_absent(header):
    write_annotations(header.with_suffix(".avr"), [(5, ")", ""), (9, "N", "")])
    assert delineation(header) == {
        "I": (Wave("p", 10, 15, 20), Wave("qrs", None, 30, 35), Wave("t", 50, 60, None)),
        "aVR": (Wave("qrs", None, 9, None),),
    }


def test_a_missing_annotation_file_is_named(header):
    with pytest.raises(DataError, match=r"1\.avr: no such annotation file"):
        delineation(header)
