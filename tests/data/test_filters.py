"""Filters against their definitions: difference equations run sample by sample, sines, medians."""

import math

import numpy as np
import pytest
from scipy.signal import butter, iirnotch

from fairseq_ecg.data.filters import NONE, STEPS, FilterChain
from fairseq_ecg.errors import ConfigError, DataError

RATE = 250


def sine(frequency: float, seconds: float = 8.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)[None].astype(np.float32)


def slow_sections(values: list[float], sections: np.ndarray) -> list[float]:
    """Second-order sections one after the other, started in the steady state of the first value."""
    for b0, b1, b2, _, a1, a2 in sections:
        # Steady state of the transposed form for the constant input values[0].
        gain = (b0 + b1 + b2) / (1 + a1 + a2)
        z1, z2 = (gain - b0) * values[0], (b2 - a2 * gain) * values[0]
        filtered = []
        for x in values:
            y = b0 * x + z1
            z1, z2 = b1 * x - a1 * y + z2, b2 * x - a2 * y
            filtered.append(y)
        values = filtered
    return values


def slow_zero_phase(signal: np.ndarray, sections: np.ndarray, padding: int) -> np.ndarray:
    """Forwards and backwards over a signal reflected oddly at both ends."""
    x = [float(value) for value in signal]
    before = [2 * x[0] - x[k] for k in range(padding, 0, -1)]
    after = [2 * x[-1] - x[-1 - k] for k in range(1, padding + 1)]
    forwards = slow_sections(before + x + after, sections)
    backwards = slow_sections(forwards[::-1], sections)[::-1]
    return np.array(backwards[padding : padding + len(x)])


@pytest.mark.parametrize(
    ("text", "design", "padding"),
    [
        ("highpass(cutoff=0.67, order=5)", (5, 0.67, "highpass"), 18),
        ("lowpass(cutoff=40)", (5, 40, "lowpass"), 18),
        ("bandpass(low=1, high=30, order=3)", (3, [1, 30], "bandpass"), 21),
    ],
)
def test_butterworth_filters_are_the_difference_equation_forwards_and_backwards(text, design, padding):
    signal = np.random.default_rng(0).normal(1, 1, (2, 400)).astype(np.float32)
    sections = butter(*design, fs=RATE, output="sos")
    expected = [slow_zero_phase(row, sections, padding) for row in signal]
    filtered = FilterChain.parse(text).apply(signal, RATE)
    assert filtered.dtype == np.float32
    np.testing.assert_allclose(filtered, expected, atol=2e-6)


def test_the_notch_is_the_difference_equation_and_takes_out_its_frequency_alone():
    numerator, denominator = iirnotch(50, 30, fs=RATE)
    signal = np.random.default_rng(1).normal(0, 1, 300).astype(np.float32)
    expected = slow_zero_phase(signal, np.array([[*numerator, *denominator]]), 9)
    chain = FilterChain.parse("notch")
    np.testing.assert_allclose(chain.apply(signal[None], RATE)[0], expected, atol=2e-6)
    middle = slice(RATE, -RATE)
    assert np.abs(chain.apply(sine(50), RATE)[0, middle]).max() < 0.02
    np.testing.assert_allclose(chain.apply(sine(10), RATE)[0, middle], sine(10)[0, middle], atol=2e-3)


def test_the_median_baseline_is_two_running_medians_with_repeated_ends():
    signal = np.random.default_rng(2).normal(0, 1, (2, 120)).astype(np.float32)

    def slow_median(values: list[float], half: int) -> list[float]:
        found = []
        for i in range(len(values)):
            window = [values[min(max(k, 0), len(values) - 1)] for k in range(i - half, i + half + 1)]
            found.append(sorted(window)[half])
        return found

    expected = []
    for row in signal.astype(float):
        baseline = slow_median(slow_median(list(row), 5), 15)  # 0.1 s and 0.3 s at 100 Hz
        expected.append([value - low for value, low in zip(row, baseline, strict=True)])
    filtered = FilterChain.parse("median_baseline(short_sec=0.1, long_sec=0.3)").apply(signal, 100)
    np.testing.assert_allclose(filtered, expected, atol=1e-6)


def test_the_median_baseline_keeps_beats_and_removes_drift():
    beats = np.zeros((1, 8 * RATE), np.float32)
    beats[0, 100::RATE] = 1.0
    drift = 2 * sine(0.1)
    filtered = FilterChain.parse("median_baseline").apply(beats + drift, RATE)
    middle = slice(RATE, -RATE)
    np.testing.assert_allclose(filtered[0, middle], beats[0, middle], atol=0.1)


def test_the_moving_average_is_a_triangle_over_two_periods_of_the_hum():
    signal = np.random.default_rng(3).normal(0, 1, 200).astype(np.float32)
    filtered = FilterChain.parse("moving_average(frequency=50)").apply(signal[None], RATE)[0]
    for i in (40, 90, 150):
        expected = math.fsum((5 - abs(k)) * float(signal[i + k]) for k in range(-4, 5)) / 25
        assert filtered[i] == pytest.approx(expected, abs=1e-6)
    assert np.abs(FilterChain.parse("moving_average").apply(sine(50), RATE)[0, RATE:-RATE]).max() < 1e-6


def test_a_chain_is_its_filters_in_order_and_leaves_its_input_alone():
    signal = np.random.default_rng(4).normal(1, 1, (1, 500)).astype(np.float32)
    before = signal.copy()
    chain = FilterChain.parse("highpass(cutoff=0.5)|notch(frequency=60)|lowpass")
    expected = signal.astype(np.float64)
    for step in chain.steps:
        expected = step.apply(expected, RATE)
    assert [step.name for step in chain.steps] == ["highpass", "notch", "lowpass"]
    np.testing.assert_array_equal(chain.apply(signal, RATE), expected.astype(np.float32))
    np.testing.assert_array_equal(signal, before)


@pytest.mark.parametrize("text", ["", " ", NONE])
def test_no_filter_returns_the_very_signal(text):
    signal = np.ones((1, 3), np.float32)
    chain = FilterChain.parse(text)
    assert chain.apply(signal, RATE) is signal
    assert str(chain) == NONE


def test_a_chain_has_one_spelling_that_reads_back():
    chain = FilterChain.parse("lowpass | notch(frequency=60)")
    assert str(chain) == "lowpass(cutoff=40.0, order=5)|notch(frequency=60.0, quality=30.0)"
    assert FilterChain.parse(str(chain)) == chain
    for name in STEPS:
        assert FilterChain.parse(str(FilterChain.parse(name))) == FilterChain.parse(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("higpass", "unknown filter 'higpass'.*highpass"),
        ("highpass(cutof=1)", "no option 'cutof'.*cutoff"),
        ("highpass(cutoff='a')", "needed is float"),
        ("highpass(0.5)", "is not a step"),
        ("highpass(", "cannot be read"),
        ("bandpass(low=40, high=1)", "must be below"),
        ("median_baseline(short_sec=1.0)", "short_sec"),
    ],
)
def test_a_chain_that_cannot_be_meant_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        FilterChain.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "lowpass(cutoff=125)",
        "highpass(cutoff=0)",
        "notch(frequency=130)",
        "moving_average(frequency=200)",
        "lowpass(order=0)",
        "notch(quality=0)",
    ],
)
def test_a_filter_that_the_rate_does_not_allow_is_refused(text):
    with pytest.raises(ConfigError, match="filter"):
        FilterChain.parse(text).apply(sine(1), RATE)


@pytest.mark.parametrize("text", ["highpass", "notch", "moving_average"])
def test_a_signal_too_short_for_a_filter_is_refused(text):
    with pytest.raises(DataError, match="too few for the filter"):
        FilterChain.parse(text).apply(np.ones((1, 9), np.float32), RATE)
