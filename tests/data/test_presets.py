"""Contract presets: consistent in themselves, and what preparing by them stores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.contracts import STANDARD_LEADS, InputContract, Record
from fairseq_ecg.data.prepare import Policy, PrepareOptions, prepare_record
from fairseq_ecg.data.presets import PRESETS, preset
from fairseq_ecg.data.signal import Resampling, resample, resize
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.infer.conform import check_contract


class Item:
    """A record at hand."""

    path = Path("made.hea")
    record_id = "made"

    def __init__(self, signal: np.ndarray, rate: int, leads=STANDARD_LEADS) -> None:
        self.record = Record(
            record_id="made", patient_id="p", source="s", signal=signal, leads=leads, sampling_rate=rate
        )

    def read(self) -> Record:
        return self.record


def signal(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(12, num_samples)).astype(np.float32)


def eight(of: np.ndarray) -> np.ndarray:
    return of[[0, 1, 6, 7, 8, 9, 10, 11]]


def stored(given: np.ndarray, rate: int, options: PrepareOptions) -> np.ndarray:
    prepared = prepare_record(Item(given, rate), options)
    assert prepared.record is not None, prepared.findings
    return prepared.record.signal


def refusal(given: np.ndarray, rate: int, options: PrepareOptions) -> str:
    prepared = prepare_record(Item(given, rate), options)
    assert prepared.record is None
    return prepared.findings[-1].reason


@pytest.mark.parametrize("name", PRESETS)
def test_a_contract_can_be_met_by_embedding_and_read_back(name):
    contract = preset(name).contract
    check_contract(contract)
    assert InputContract.from_dict(contract.to_dict()) == contract
    assert (contract.sampling_rate, contract.leads) == (
        preset(name).prepare.sampling_rate,
        preset(name).prepare.leads,
    )


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("rate", [250, 400, 500, 1000])
def test_ten_seconds_of_any_rate_give_whole_segments(name, rate):
    options = PRESETS[name].prepare
    if options.same_rate_only and rate != options.sampling_rate:
        assert f"another rate: {rate} Hz, not 500 Hz" in refusal(signal(10 * rate), rate, options)
        return
    kept = stored(signal(10 * rate), rate, options)
    assert kept.dtype == np.float32
    assert np.isfinite(kept).all()
    if PRESETS[name].whole_records:
        assert kept.shape == (len(PRESETS[name].contract.leads), PRESETS[name].num_samples)
        assert PRESETS[name].segment_sec == "all"
    else:
        size = round(float(PRESETS[name].segment_sec) * PRESETS[name].prepare.sampling_rate)
        assert size == PRESETS[name].num_samples <= kept.shape[1]


def test_ecg_jepa_takes_eight_leads_of_the_first_ten_seconds_by_the_fourier_method():
    given = signal(6100)
    expected = resize(eight(given)[:, :5000], 2500, Resampling.FOURIER)
    np.testing.assert_allclose(stored(given, 500, preset("ecg_jepa").prepare), expected, atol=1e-6)


def test_the_reference_goes_by_way_of_500_hz_and_a_missing_sample_beyond_the_window_then_counts():
    given = signal(4800)  # 12 s at 400 Hz
    by_way = resize(eight(given), 6000, Resampling.FOURIER)[:, :5000]
    expected = resize(by_way, 2500, Resampling.FOURIER)
    reference = preset("ecg_jepa_reference").prepare
    np.testing.assert_allclose(stored(given, 400, reference), expected, atol=2e-6)
    given[0, 4700] = np.nan
    assert "nan lead I" in refusal(given, 400, reference)
    assert np.isfinite(stored(given, 400, preset("ecg_jepa").prepare)).all()
    given[0, 10] = np.nan
    assert "nan lead I" in refusal(given, 400, preset("ecg_jepa").prepare)


def test_ecg_jepa_leaves_out_short_records_and_those_that_begin_with_zeros():
    options = preset("ecg_jepa").prepare
    assert "too short: 9.998 s, 10 s are needed" in refusal(signal(4999), 500, options)
    given = signal(5000)
    given[[0, 1, 6, 7, 8, 9, 10, 11], :15] = 0  # the four other leads are not stored
    assert "begins with 15 samples" in refusal(given, 500, options)
    given[7, 14] = 0.001
    stored(given, 500, options)
    given[:, :14] = 0
    stored(given, 500, options)


def test_code15_rows_are_squeezed_whole_by_the_reference_and_cut_at_ten_seconds_otherwise():
    given = signal(4096)
    squeezed = stored(given, 400, preset("ecg_jepa_reference_code15").prepare)
    np.testing.assert_allclose(squeezed, resize(eight(given), 2500, Resampling.FOURIER), atol=1e-6)
    expected = resize(eight(given)[:, :4000], 2500, Resampling.FOURIER)
    np.testing.assert_allclose(stored(given, 400, preset("ecg_jepa").prepare), expected, atol=1e-6)


def test_the_reference_judges_the_start_of_code15_rows_by_all_twelve_leads():
    options = preset("ecg_jepa_reference_code15").prepare
    given = signal(4096)
    given[:, :10] = 0
    assert "begins with 10 samples" in refusal(given, 400, options)
    given[2, 4] = 0.5  # lead III, which is not stored
    stored(given, 400, options)
    assert "begins with 10" in refusal(given, 400, replace(options, reference_zero_start=False))


def test_fine_tuning_ecg_jepa_filters_what_the_other_stores():
    given = signal(5000)
    plain = stored(given, 500, preset("ecg_jepa").prepare)
    from scipy.signal import butter, sosfiltfilt

    expected = plain.astype(float)
    for cutoff, kind in ((0.67, "highpass"), (40, "lowpass")):
        expected = sosfiltfilt(butter(5, cutoff, kind, fs=250, output="sos"), expected, axis=1)
    filtered = stored(given, 500, preset("ecg_jepa_finetune").prepare)
    np.testing.assert_allclose(filtered, expected, atol=1e-6)


def test_pclr_stretches_ten_seconds_keeping_both_ends():
    for rate in (400, 500):
        given = signal(11 * rate)
        kept = stored(given, rate, preset("pclr").prepare)
        window = given[:, : 10 * rate]
        np.testing.assert_array_equal(kept[:, [0, -1]], window[:, [0, -1]])
        np.testing.assert_allclose(kept, resize(window, 4096, Resampling.ENDPOINTS), atol=1e-6)


def test_ecg_fm_and_fairseq_signals_differ_in_the_grid_and_in_what_they_leave_out():
    given = signal(2647)
    fm, wcr = preset("ecg_fm").prepare, preset("wcr").prepare
    np.testing.assert_array_equal(stored(given, 257, fm), resample(given, 257, 500, Resampling.ENDPOINTS))
    np.testing.assert_array_equal(stored(given, 257, wcr), resample(given, 257, 500, Resampling.LINEAR))
    given[3] = 0.25
    assert "flat lead aVR" in refusal(given, 257, fm)
    assert (stored(given, 257, wcr)[3] == 0).all()


def test_cpc_and_its_relatives_keep_their_own_lead_order():
    given = signal(5000)
    kept = stored(given, 500, preset("cpc").prepare)
    order = [0, 1, 6, 7, 8, 9, 10, 11, 2, 3, 4, 5]
    np.testing.assert_array_equal(kept, resample(given[order], 500, 100, Resampling.SPLINE))
    assert preset("cpc").contract.normalisation == "ptbxl_zscore"
    assert preset("ssl").contract.normalisation == "none"


def test_what_training_must_be_told_is_said():
    assert preset("wcr").task_overrides == []
    assert preset("ecg_jepa").task_overrides == ["task.leads_to_load=[I,II,V1,V2,V3,V4,V5,V6]"]
    leads, normalisation = preset("cpc").task_overrides
    assert leads == "task.leads_to_load=[I,II,V1,V2,V3,V4,V5,V6,III,aVR,aVL,aVF]"
    assert normalisation == "task.normalisation=ptbxl_zscore"


def test_policies_may_be_chosen_beside_a_contract_and_nothing_else():
    chosen = preset("ecg_fm").options({"policy_flat": Policy.ZERO, "sampling_rate": 500})
    assert chosen.policy_flat is Policy.ZERO
    assert chosen.resample is Resampling.ENDPOINTS
    with pytest.raises(ConfigError, match="--sampling-rate 250: the contract fixes it to 500"):
        preset("ecg_fm").options({"sampling_rate": 250})
    with pytest.raises(ConfigError, match="--leads"):
        preset("ecg_jepa").options({"leads": ("I", "II")})
    assert preset("ecg_jepa_finetune").options(
        {"filter": "highpass|lowpass", "leads": ("i", "II", *STANDARD_LEADS[6:])}
    ) == (preset("ecg_jepa_finetune").prepare)


def test_an_unknown_contract_names_the_nearest():
    with pytest.raises(ConfigError, match=r"--contract ecgfm.*ecg_fm"):
        preset("ecgfm")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window_sec": 0}, "window_sec"),
        ({"zero_start_sec": -1}, "zero_start_sec"),
        ({"reference_rate": 0, "resample": Resampling.FOURIER}, "reference_rate"),
        ({"reference_rate": 500}, "needs resample=fourier"),
        ({"num_samples": 2500}, "needs resample=endpoints"),
        ({"num_samples": 0, "resample": Resampling.FOURIER, "window_sec": 1}, "num_samples=0"),
        ({"num_samples": 2500, "resample": Resampling.FOURIER}, "set window_sec"),
        ({"num_samples": 4096, "resample": Resampling.ENDPOINTS, "window_sec": 10}, "are 410 Hz"),
        ({"reference_stretch": True}, "needs num_samples"),
        ({"filter": "hum"}, "unknown filter"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        PrepareOptions(**options)


def test_a_filter_applies_at_the_rate_of_the_store():
    given = signal(5000)
    from fairseq_ecg.data.filters import FilterChain

    kept = stored(given, 500, PrepareOptions(sampling_rate=250, filter="notch|highpass"))
    expected = FilterChain.parse("notch|highpass").apply(resample(given, 500, 250), 250)
    np.testing.assert_array_equal(kept, expected)
    assert "too few for the filter" in refusal(signal(15), 500, PrepareOptions(filter="highpass"))
