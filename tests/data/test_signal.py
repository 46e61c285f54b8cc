"""Resampling, flat and missing samples, standardisation, crop and pad."""

import math

import numpy as np
import pytest

from fairseq_ecg.data.signal import Resampling, crop, flat_rows, nan_rows, pad, resample, zscore
from fairseq_ecg.errors import DataError


def test_linear_resampling_is_the_reference_interpolation_term_by_term():
    signal = np.random.default_rng(0).normal(size=(2, 257)).astype(np.float32)
    length = 257 * 500 / 257
    step = (length - 1) / 256  # old samples lie at 0, step, 2 step, ... of the new grid
    expected = np.zeros((2, 500))
    for j in range(500):
        k = min(int(j / step), 255)
        share = j / step - k
        expected[:, j] = (1 - share) * signal[:, k] + share * signal[:, k + 1]
    resampled = resample(signal, 257, 500, Resampling.LINEAR)
    assert resampled.dtype == np.float32
    np.testing.assert_allclose(resampled, expected, atol=1e-6)


@pytest.mark.parametrize(("rate", "new_rate"), [(1000, 500), (257, 500), (500, 250), (400, 500), (500, 257)])
def test_polyphase_resampling_keeps_a_slow_sine_with_an_offset(rate, new_rate):
    # Witness: the sine itself at the new times. 4e-3: ripple of the filter's pass band; ends left out.
    def sine(sampling_rate: int) -> np.ndarray:
        return 3 + np.sin(2 * np.pi * 5 * np.arange(4 * sampling_rate) / sampling_rate)

    resampled = resample(sine(rate)[None].astype(np.float32), rate, new_rate)
    assert resampled.shape == (1, 4 * new_rate)
    assert resampled.flags.c_contiguous
    middle = slice(new_rate // 4, -new_rate // 4)
    np.testing.assert_allclose(resampled[0, middle], sine(new_rate)[middle], atol=4e-3)
    assert np.abs(resampled[0] - 3).max() < 1.1  # the offset rings at neither end


def test_polyphase_resampling_removes_what_the_new_rate_cannot_hold_and_linear_does_not():
    high = np.sin(2 * np.pi * 200 * np.arange(2000) / 1000)[None].astype(np.float32)
    assert np.abs(resample(high, 1000, 250)[0, 50:-50]).max() < 0.01
    assert np.abs(resample(high, 1000, 250, Resampling.LINEAR)).max() > 0.5


def test_resampling_to_the_same_rate_changes_nothing_and_nothing_is_left_of_a_blip():
    signal = np.ones((1, 3), np.float32)
    assert resample(signal, 500, 500) is signal
    with pytest.raises(DataError, match="too few"):
        resample(signal, 1000, 100)


def test_flat_and_missing_leads_are_found():
    signal = np.array([[1, 1, 1], [1, 1, 1.001], [np.nan, 1, 1], [np.inf, -np.inf, 0]], np.float32)
    np.testing.assert_array_equal(flat_rows(signal), [True, False, False, False])
    np.testing.assert_array_equal(nan_rows(signal), [False, False, True, True])


def test_zscore_is_the_definition_and_a_constant_lead_becomes_zero():
    signal = np.random.default_rng(0).normal(5, 3, (2, 40)).astype(np.float32)
    signal[1] = 7.1
    expected = []
    for value in signal[0]:
        mean = math.fsum(signal[0]) / 40
        deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in signal[0].astype(float)) / 40)
        expected.append((value - mean) / deviation)
    standardised = zscore(signal)
    assert standardised.dtype == np.float32
    np.testing.assert_allclose(standardised[0], expected, atol=1e-6)
    np.testing.assert_array_equal(standardised[1], 0)


def test_crop_and_pad_keep_what_is_there():
    signal = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(crop(signal, 1, 2), [[1, 2], [4, 5]])
    np.testing.assert_array_equal(pad(signal, 5), [[0, 1, 2, 0, 0], [3, 4, 5, 0, 0]])
    for start, length in ((-1, 2), (2, 2), (0, 0)):
        with pytest.raises(DataError, match="outside a record of 3"):
            crop(signal, start, length)
    with pytest.raises(DataError, match="crop first"):
        pad(signal, 2)
