"""Normalisation of records and batches by constants per lead."""

import numpy as np
import pytest
import torch

from fairseq_ecg.contracts import STANDARD_LEADS, Batch, Keys
from fairseq_ecg.data.device import normalise
from fairseq_ecg.data.normalise import Normalisation, normalise_record, ptbxl_statistics
from fairseq_ecg.data.signal import zscore
from fairseq_ecg.errors import DataError

# As published, in the order of ecg-selfsupervised.
LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6", "III", "aVR", "aVL", "aVF")
FIRST, LAST = (-0.00184586, 0.16401004), (-0.00035649, 0.14656108)


def test_constants_belong_to_the_name_of_a_lead():
    mean, deviation = ptbxl_statistics(LEADS)
    assert (mean[0], deviation[0]) == pytest.approx(FIRST)
    assert (mean[11], deviation[11]) == pytest.approx(LAST)
    reordered = ptbxl_statistics(STANDARD_LEADS)
    for place, lead in enumerate(STANDARD_LEADS):
        assert reordered[0][place] == mean[LEADS.index(lead)]
        assert reordered[1][place] == deviation[LEADS.index(lead)]
    with pytest.raises(DataError, match="'VX'"):
        ptbxl_statistics(["I", "VX"])


def test_a_record_is_normalised_as_its_contract_says():
    signal = np.random.default_rng(0).normal(size=(2, 20)).astype(np.float32)
    scaled = normalise_record(signal, ("I", "aVF"), Normalisation.PTBXL_ZSCORE)
    for row, (mean, deviation), expected in zip(signal, (FIRST, LAST), scaled, strict=True):
        np.testing.assert_allclose(expected, [(float(x) - mean) / (deviation + 1e-8) for x in row], rtol=1e-5)
    np.testing.assert_array_equal(
        normalise_record(signal, ("I", "aVF"), Normalisation.RECORD_ZSCORE), zscore(signal)
    )
    assert normalise_record(signal, ("I", "aVF"), Normalisation.NONE) is signal


def test_a_batch_is_normalised_as_its_records_are_and_padding_stays_zero():
    signal = np.random.default_rng(0).normal(size=(3, 2, 20)).astype(np.float32)
    padding = torch.zeros(3, 20, dtype=torch.bool)
    padding[1, 15:] = True
    batch = Batch(
        keys=Keys(1, np.arange(3), np.zeros(3, dtype=np.int64)),
        source=torch.from_numpy(signal.copy()),
        scale=torch.ones(3),
        patient=torch.arange(3),
        segment=torch.zeros(3, dtype=torch.int64),
        padding_mask=padding,
    )
    done = normalise(batch, "ptbxl_zscore", ("V1", "aVL")).source.numpy()
    for row in range(3):
        expected = normalise_record(signal[row], ("V1", "aVL"), Normalisation.PTBXL_ZSCORE)
        expected = np.where(padding[row].numpy(), 0, expected)
        np.testing.assert_allclose(done[row], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="12 lead names for 2"):
        normalise(batch, "ptbxl_zscore")
