"""Resampling to a number of samples and the other preprocessing of published systems, by slow witnesses."""

import cmath
import math

import numpy as np
import pytest

from fairseq_ecg.data.signal import (
    ConstantLead,
    Resampling,
    lead_statistics,
    reference_flat_rows,
    reference_resampled_length,
    resample,
    resize,
    resize_spline,
    segments,
    stack_leads,
    strip_zero_padding,
    zero_padding,
    zscore,
)
from fairseq_ecg.errors import DataError


def noise(num_leads: int, num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_leads, num_samples)).astype(np.float32)


@pytest.mark.parametrize(("length", "num_samples"), [(7, 20), (20, 7), (5, 5), (2, 3), (9, 1)])
def test_endpoints_interpolation_keeps_both_ends_and_is_linear_between(length, num_samples):
    signal = noise(2, length)
    expected = np.zeros((2, num_samples))
    for j in range(num_samples):
        place = j * (length - 1) / (num_samples - 1) if num_samples > 1 else 0.0
        k = min(int(place), length - 2)
        before, after = signal[:, k].astype(float), signal[:, k + 1].astype(float)
        expected[:, j] = (1 - (place - k)) * before + (place - k) * after
    resized = resize(signal, num_samples, Resampling.ENDPOINTS)
    assert resized.dtype == np.float64
    np.testing.assert_allclose(resized, expected, atol=1e-12)


def slow_fourier(row: np.ndarray, num_samples: int) -> list[float]:
    """The trigonometric polynomial of lowest frequencies through the samples, read on the new grid.

    The shorter length's highest frequency, if that is even, is shared by both signs.
    """
    length = len(row)
    shortest = min(length, num_samples)
    coefficients = {}
    for k in range(-(shortest // 2), shortest // 2 + 1):
        total = sum(float(x) * cmath.exp(-2j * math.pi * k * n / length) for n, x in enumerate(row)) / length
        if 2 * abs(k) < shortest:
            coefficients[k] = total
        elif shortest % 2 == 0:
            # Cutting folds the two halves of the edge onto each other; extending splits it.
            coefficients[k] = total if num_samples < length else total / 2
    return [
        sum(c * cmath.exp(2j * math.pi * k * j / num_samples) for k, c in coefficients.items()).real
        for j in range(num_samples)
    ]


@pytest.mark.parametrize(("length", "num_samples"), [(16, 9), (15, 24), (9, 9), (12, 25), (25, 11)])
def test_fourier_resampling_is_the_trigonometric_polynomial_of_the_samples(length, num_samples):
    signal = noise(2, length)
    expected = [slow_fourier(row, num_samples) for row in signal]
    np.testing.assert_allclose(resize(signal, num_samples, Resampling.FOURIER), expected, atol=1e-10)


def test_fourier_resampling_carries_a_periodic_sine_over_and_spreads_a_nan_over_its_lead():
    grid = np.arange(500) / 500
    sine = np.sin(2 * np.pi * 3 * grid)[None]
    resized = resize(sine, 200, Resampling.FOURIER)
    np.testing.assert_allclose(resized[0], np.sin(2 * np.pi * 3 * np.arange(200) / 200), atol=1e-12)
    broken = np.vstack([sine, sine])
    broken[1, 7] = np.nan
    resized = resize(broken, 200, Resampling.FOURIER)
    assert np.isfinite(resized[0]).all()
    assert np.isnan(resized[1]).all()


def mirrored(row: list[float], index: int) -> float:
    """Samples beyond an end are those before it; the end itself is not repeated."""
    period = 2 * (len(row) - 1)
    index %= period
    return row[index if index < len(row) else period - index]


def slow_spline(row: list[float], num_samples: int, clip_to_smooth: bool) -> list[float]:
    factor = len(row) / num_samples
    smooth = row
    if factor > 1:
        sigma = (factor - 1) / 2
        radius = int(4 * sigma + 0.5)
        weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
        smooth = [
            sum(w * mirrored(row, i + k) for k, w in zip(range(-radius, radius + 1), weights, strict=True))
            / sum(weights)
            for i in range(len(row))
        ]
    # Coefficients c of the cubic B-spline: (c[i-1] + 4 c[i] + c[i+1]) / 6 is sample i.
    matrix = np.zeros((len(row), len(row)))
    for i in range(len(row)):
        for k, weight in ((-1, 1 / 6), (0, 4 / 6), (1, 1 / 6)):
            index = (i + k) % (2 * (len(row) - 1))
            matrix[i, index if index < len(row) else 2 * (len(row) - 1) - index] += weight
    c = np.linalg.solve(matrix, smooth).tolist()
    bounds = smooth if clip_to_smooth else row
    values = []
    for j in range(num_samples):
        place = factor * (j + 0.5) - 0.5
        base = math.floor(place)
        total = 0.0
        for i in range(base - 1, base + 3):
            d = abs(place - i)
            weight = (4 - 6 * d * d + 3 * d**3) / 6 if d < 1 else max(2 - d, 0.0) ** 3 / 6
            total += weight * mirrored(c, i)
        values.append(min(max(total, min(bounds)), max(bounds)))
    return values


@pytest.mark.parametrize(("length", "num_samples"), [(50, 10), (33, 13), (20, 31), (12, 12)])
@pytest.mark.parametrize("reference_clip", [True, False])
def test_spline_resampling_smooths_interpolates_and_clips_as_written_out(length, num_samples, reference_clip):
    signal = noise(2, length, seed=length)
    expected = [slow_spline([float(x) for x in row], num_samples, reference_clip) for row in signal]
    resized = resize_spline(signal, num_samples, reference_clip=reference_clip)
    np.testing.assert_allclose(resized, expected, atol=1e-10)


@pytest.mark.parametrize("method", [Resampling.ENDPOINTS, Resampling.FOURIER, Resampling.SPLINE])
def test_resampling_to_a_rate_is_resizing_to_the_whole_samples_of_that_time(method):
    signal = noise(2, 257)
    resampled = resample(signal, 257, 100, method)
    assert resampled.dtype == np.float32
    assert resampled.flags.c_contiguous
    np.testing.assert_array_equal(resampled, resize(signal, 100, method).astype(np.float32))


def test_the_reference_length_is_the_whole_samples_but_for_rounding():
    lengths = range(1, 9999)
    short = [n for n in lengths if reference_resampled_length(n, 116, 100) != n * 100 // 116]
    assert short
    for n in short:
        assert n * 100 % 116 == 0  # only where the exact quotient is whole can rounding lose a sample
        assert reference_resampled_length(n, 116, 100) == n * 100 // 116 - 1
    assert reference_resampled_length(5000, 500, 100) == 1000


def test_a_signal_in_double_precision_stays_so():
    signal = noise(2, 100).astype(np.float64) + 1e-12
    for method in Resampling:
        resampled = resample(signal, 250, 100, method)
        assert resampled.dtype == np.float64
        single = resample(signal.astype(np.float32), 250, 100, method)
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, resampled, atol=1e-6)


def test_what_cannot_be_resized_is_refused():
    with pytest.raises(DataError, match="0 samples cannot"):
        resize(np.ones((1, 0)), 3, Resampling.ENDPOINTS)
    with pytest.raises(DataError, match="to 0"):
        resize(np.ones((1, 3)), 0, Resampling.FOURIER)
    with pytest.raises(ValueError, match="two rates"):
        resize(np.ones((1, 3)), 2, Resampling.LINEAR)


def test_leads_of_unequal_length_are_stacked_in_the_wanted_order():
    leads = {"V1": np.array([0.0, 1.0]), "I": np.array([5.0]), "II": np.array([0.0, 3.0, 0.0])}
    stacked = stack_leads(leads, ("I", "II", "V1"), 5)
    np.testing.assert_allclose(stacked, [[5] * 5, [0, 1.5, 3, 1.5, 0], [0, 0.25, 0.5, 0.75, 1]], atol=1e-15)
    with pytest.raises(DataError, match=r"\['V2'\] are missing, \['V1'\] are too many"):
        stack_leads(leads, ("I", "II", "V2"), 5)
    with pytest.raises(DataError, match="lead I: 0 samples"):
        stack_leads({**leads, "I": np.array([])}, ("I", "II", "V1"), 5)


def test_zero_padding_is_what_all_leads_share():
    signal = np.zeros((2, 9), np.float32)
    signal[0, 3:6], signal[1, 2] = 1, -1
    assert zero_padding(signal) == (2, 3)
    np.testing.assert_array_equal(strip_zero_padding(signal), signal[:, 2:6])
    assert zero_padding(np.zeros((2, 4))) == (4, 0)
    assert strip_zero_padding(np.zeros((2, 4))).shape == (2, 0)
    signal[1, 0] = np.nan  # a missing sample is no padding
    assert zero_padding(signal) == (0, 3)


def test_a_constant_whose_computed_mean_differs_is_missed_by_the_reference_rule_only():
    signal = np.vstack([np.full(1001, 0.1), np.full(1001, 0.25), np.arange(1001.0)])
    exact_mean = float(signal[0].mean()) == 0.1
    assert reference_flat_rows(signal).tolist() == [exact_mean, True, False]


def test_statistics_are_those_of_the_definition_and_nan_stays_in_its_lead():
    signal = noise(3, 40) * 3 + 5
    signal[2, 3] = np.nan
    mean, deviation = lead_statistics(signal)
    for lead in (0, 1):
        expected = math.fsum(map(float, signal[lead])) / 40
        assert mean[lead] == pytest.approx(expected, abs=1e-12)
        square = math.fsum((float(x) - expected) ** 2 for x in signal[lead]) / 40
        assert deviation[lead] == pytest.approx(math.sqrt(square), abs=1e-12)
    assert np.isnan([mean[2], deviation[2]]).all()
    scored = zscore(signal)
    assert np.isnan(scored[2]).all()
    assert np.isfinite(scored[:2]).all()


def test_each_strategy_makes_its_own_of_a_constant_lead():
    signal = noise(2, 30)
    signal[1] = 7.1
    others = zscore(signal)[0]
    for strategy, expected in (
        (ConstantLead.ZERO, 0.0),
        (ConstantLead.NAN, np.nan),
        (ConstantLead.CONSTANT, 0.0),
    ):
        scored = zscore(signal, strategy)
        np.testing.assert_array_equal(scored[0], others)
        np.testing.assert_allclose(scored[1], expected, atol=1e-6)


def test_segments_follow_each_other_and_the_rest_is_left_out():
    signal = np.arange(14, dtype=np.float32).reshape(2, 7)
    cut = segments(signal, 3)
    np.testing.assert_array_equal(cut, [[[0, 1, 2], [7, 8, 9]], [[3, 4, 5], [10, 11, 12]]])
    assert segments(signal, 8).shape == (0, 2, 8)
