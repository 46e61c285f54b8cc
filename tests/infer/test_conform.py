import numpy as np
import pytest

from fairseq_ecg.contracts import STANDARD_LEADS, InputContract
from fairseq_ecg.data.filters import FilterChain
from fairseq_ecg.data.normalise import Normalisation, normalise_record
from fairseq_ecg.data.signal import resample, zscore
from fairseq_ecg.errors import ConfigError, DataError
from fairseq_ecg.infer.conform import conform, cut

CONTRACT = InputContract(sampling_rate=100, num_samples=200)


def signal(num_leads=12, num_samples=500, seed=0):
    return np.random.default_rng(seed).normal(size=(num_leads, num_samples)).astype(np.float32)


def test_input_as_the_contract_wants_it_is_left_alone():
    source = signal()
    conformed = conform(source, sampling_rate=100, leads=STANDARD_LEADS, unit="mV", contract=CONTRACT)
    assert np.array_equal(conformed.signal, source)
    assert conformed.notes == ()


def test_leads_are_ordered_by_name_in_any_spelling():
    source = signal()
    order = np.random.default_rng(1).permutation(12)
    shuffled = [STANDARD_LEADS[index].upper() for index in order]
    conformed = conform(source[order], sampling_rate=100, leads=shuffled, unit="mV", contract=CONTRACT)
    assert np.array_equal(conformed.signal, source)


def test_missing_leads_are_derived_or_zero_and_said():
    source = signal(3)
    conformed = conform(source, sampling_rate=100, leads=("I", "II", "V7"), unit="mV", contract=CONTRACT)
    np.testing.assert_allclose(conformed.signal[2], source[1] - source[0], rtol=1e-6)
    assert not conformed.signal[6:].any()
    assert conformed.notes == (
        "derived III, aVR, aVL, aVF from I and II",
        "filled V1, V2, V3, V4, V5, V6 with zeros",
        "left out V7",
    )


def test_unit_rate_and_normalisation_are_converted():
    source = signal(num_samples=1000)
    contract = InputContract(sampling_rate=100, num_samples=200, normalisation="record_zscore")
    conformed = conform(source * 1000, sampling_rate=250, leads=STANDARD_LEADS, unit="uV", contract=contract)
    np.testing.assert_allclose(conformed.signal, zscore(resample(source, 250, 100)), atol=1e-5)
    assert conformed.notes == ("uV converted to mV", "resampled from 250 to 100 Hz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"leads": [*STANDARD_LEADS[:11], "VX7"]}, "unknown lead 'VX7'"),
        ({"leads": STANDARD_LEADS[:11]}, r"rec: shape \(12, 500\) is not \(11 leads, time\)"),
        ({"leads": ["I", *STANDARD_LEADS[:11]]}, "name every lead once"),
        ({"unit": "adu"}, "unit 'adu' is not a voltage"),
        ({"sampling_rate": 0}, "sampling_rate=0"),
    ],
)
def test_what_cannot_be_known_is_refused(changes, message):
    given = {"sampling_rate": 100, "leads": STANDARD_LEADS, "unit": "mV", **changes}
    with pytest.raises(DataError, match=message):
        conform(signal(), contract=CONTRACT, name="rec", **given)


def test_values_that_are_not_finite_and_foreign_leads_are_refused():
    broken = signal()
    broken[3, 7] = np.nan
    with pytest.raises(DataError, match="rec: values of lead aVR are not finite"):
        conform(broken, sampling_rate=100, leads=STANDARD_LEADS, unit="mV", contract=CONTRACT, name="rec")
    with pytest.raises(DataError, match="none of the leads the model reads"):
        conform(signal(1), sampling_rate=100, leads=["VX"], unit="mV", contract=CONTRACT)


@pytest.mark.parametrize("change", [{"filter": "comb"}, {"normalisation": "minmax"}, {"unit": "uV"}])
def test_a_contract_that_cannot_be_met_is_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change.values()))):
        conform(
            signal(), sampling_rate=100, leads=STANDARD_LEADS, unit="mV", contract=InputContract(**change)
        )


def test_a_record_is_cut_into_whole_segments_and_a_short_one_padded():
    source = signal(num_samples=500)
    segments = cut(source, 200)
    assert segments.source.shape == (2, 12, 200)
    assert np.array_equal(segments.source[1], source[:, 200:400])
    assert segments.num_samples.tolist() == [200, 200]
    short = cut(source[:, :150], 200)
    assert np.array_equal(short.source[0, :, :150], source[:, :150])
    assert not short.source[0, :, 150:].any()
    assert short.num_samples.tolist() == [150]


def test_filters_and_constants_of_a_contract_are_applied_and_said():
    source = signal()
    contract = InputContract(
        sampling_rate=100, num_samples=200, filter="lowpass(cutoff=20)", normalisation="ptbxl_zscore"
    )
    conformed = conform(source, sampling_rate=100, leads=STANDARD_LEADS, unit="mV", contract=contract)
    filtered = FilterChain.parse("lowpass(cutoff=20)").apply(source, 100)
    expected = normalise_record(filtered, STANDARD_LEADS, Normalisation.PTBXL_ZSCORE)
    np.testing.assert_array_equal(conformed.signal, expected)
    assert conformed.notes == ("filtered by lowpass(cutoff=20.0, order=5)",)
