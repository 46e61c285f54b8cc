from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fairseq_ecg.contracts import Batch, Keys
from fairseq_ecg.data.augment.pipeline import Pipeline
from fairseq_ecg.data.device import dequantise, normalise, prepare_source
from fairseq_ecg.errors import ConfigError, DataError


def batch(**changes: object) -> Batch:
    generator = torch.Generator().manual_seed(0)
    made = Batch(
        keys=Keys(1, np.arange(3), np.zeros(3, dtype=np.int64)),
        source=torch.randint(-3000, 3000, (3, 2, 10), generator=generator, dtype=torch.int16),
        scale=torch.tensor([0.001, 0.002, 0.005]),
        patient=torch.arange(3),
        segment=torch.zeros(3, dtype=torch.int64),
        lead_mean=torch.randn(3, 2, generator=generator),
        lead_std=torch.rand(3, 2, generator=generator) + 0.5,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def slow_prepare(given: Batch, keep: torch.Tensor | None, is_scored: bool) -> torch.Tensor:
    """Sample by sample, in double precision."""
    result = torch.zeros(given.source.shape, dtype=torch.float64)
    assert given.lead_mean is not None
    assert given.lead_std is not None
    for b in range(len(given)):
        for lead in range(given.source.shape[1]):
            for t in range(given.source.shape[2]):
                value = float(given.source[b, lead, t]) * float(given.scale[b])
                if is_scored:
                    std = float(given.lead_std[b, lead])
                    value = (value - float(given.lead_mean[b, lead])) / std if std else 0.0
                if keep is not None and not keep[b, lead]:
                    value = 0.0
                if given.padding_mask is not None and given.padding_mask[b, t]:
                    value = 0.0
                result[b, lead, t] = value
    return result.float()


def test_dequantised_units_are_millivolts_and_the_batch_stays_as_it_was() -> None:
    given = batch()
    before = given.source.clone()
    done = dequantise(given)
    torch.testing.assert_close(done.source, slow_prepare(given, None, False), rtol=1e-6, atol=0)
    assert done.source.dtype == torch.float32
    assert done.scale.tolist() == [1, 1, 1]
    assert torch.equal(given.source, before)
    assert torch.equal(dequantise(done).source, done.source)


def test_a_z_score_is_over_the_record_and_a_constant_lead_becomes_zero() -> None:
    given = batch()
    assert given.lead_std is not None
    given.lead_std[1, 0] = 0.0
    mask = torch.zeros(3, 10, dtype=torch.bool)
    mask[2, 6:] = True
    given = replace(given, padding_mask=mask)
    scored = normalise(dequantise(given), "record_zscore").source
    torch.testing.assert_close(scored, slow_prepare(given, None, True), rtol=1e-5, atol=1e-6)
    assert not scored[1, 0].any()
    assert not scored[2, :, 6:].any()
    assert torch.equal(normalise(dequantise(given), "none").source, dequantise(given).source)


@pytest.mark.parametrize("normalisation", ["none", "record_zscore"])
def test_preparation_augments_in_training_only(normalisation: str) -> None:
    pipeline = Pipeline.parse("random_lead_mask(p=0.5)")
    keep = torch.tensor([[True, False], [False, True], [True, True]])
    given = batch(draws=(keep,))
    is_scored = normalisation == "record_zscore"
    train = prepare_source(given, pipeline, normalisation, train=True)
    torch.testing.assert_close(train.source, slow_prepare(given, keep, is_scored), rtol=1e-5, atol=1e-6)
    assert train.draws == ()
    valid = prepare_source(given, pipeline, normalisation, train=False)
    torch.testing.assert_close(valid.source, slow_prepare(given, None, is_scored), rtol=1e-5, atol=1e-6)


def test_unknown_or_impossible_normalisations_are_refused() -> None:
    with pytest.raises(ConfigError, match="normalisation='zscore': one of none, record_zscore"):
        normalise(batch(), "zscore")
    with pytest.raises(DataError, match="record_zscore needs each record's mean"):
        normalise(batch(lead_mean=None), "record_zscore")
