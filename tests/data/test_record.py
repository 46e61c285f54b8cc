"""Lead names, units, derived leads and lead order."""

import numpy as np
import pytest

from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.record import arrange_leads, derive_lead, known_leads, lead_name, mv_per_unit
from fairseq_ecg.errors import DataError


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("avr", "aVR"),
        ("AVR", "aVR"),
        ("aVR", "aVR"),
        (" Lead aVF ", "aVF"),
        ("i", "I"),
        ("MLII", "II"),
        ("v6", "V6"),
        ("vx", "VX"),
        ("D2", "II"),
        ("Resp", "Resp"),
    ],
)
def test_a_lead_has_one_spelling(written, name):
    assert lead_name(written) == name


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("mV", 1), ("mv", 1), ("uV", 1e-3), ("\u00b5V", 1e-3), ("\u03bcV", 1e-3), ("V", 1e3), ("nV", 1e-6)],
)
def test_units_are_converted_to_millivolt(unit, factor):
    assert mv_per_unit(unit) == factor


def test_a_unit_that_is_no_voltage_is_refused():
    with pytest.raises(DataError, match=r"mmHg.*not a voltage"):
        mv_per_unit("mmHg")


def test_unknown_and_repeated_leads_are_refused():
    with pytest.raises(DataError, match=r"unknown lead 'aVX'.*aVR|aVL|aVF"):
        known_leads(["I", "aVX"])
    with pytest.raises(DataError, match="every lead once"):
        known_leads(["I", "i"])


def test_derived_leads_follow_from_electrode_potentials():
    # Witness: potentials of the right arm, left arm and left leg, and the definitions of the leads.
    right, left, leg = np.random.default_rng(0).normal(size=(3, 50))
    i, ii = (left - right).astype(np.float32), (leg - right).astype(np.float32)
    expected = {
        "III": leg - left,
        "aVR": right - (left + leg) / 2,
        "aVL": left - (right + leg) / 2,
        "aVF": leg - (right + left) / 2,
    }
    for lead, values in expected.items():
        np.testing.assert_allclose(derive_lead(lead, i, ii), values, atol=1e-6)


def test_a_record_is_reordered_and_absent_leads_are_reported_rows_of_zeros():
    signal = np.arange(6, dtype=np.float32).reshape(3, 2)
    arranged = arrange_leads(signal, ["V2", "II", "I"], ["I", "III", "V1", "V2"])
    np.testing.assert_array_equal(arranged.signal, [[4, 5], [-2, -2], [0, 0], [0, 1]])
    assert arranged.present == ("I", "III", "V2")
    assert arranged.derived == ("III",)
    assert arranged.missing == ("V1",)


def test_limb_leads_are_not_derived_without_both_i_and_ii():
    arranged = arrange_leads(np.ones((1, 3), np.float32), ["I"], STANDARD_LEADS)
    assert arranged.derived == ()
    assert len(arranged.missing) == 11
    assert not arranged.signal[1:].any()


def test_a_lead_that_occurs_twice_is_refused():
    with pytest.raises(DataError, match="occur twice"):
        arrange_leads(np.ones((2, 3), np.float32), ["I", "I"], ["I"])
