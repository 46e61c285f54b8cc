from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fairseq_ecg.contracts import Batch, Keys
from fairseq_ecg.criteria.cmsc import Cmsc, CmscConfig, cmsc_loss
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.models.classifier import EcgTransformerClassifier, EcgTransformerClassifierConfig
from fairseq_ecg.models.ecg_transformer import EcgTransformer, EcgTransformerConfig
from fairseq_ecg.trainer.checkpoint import read_state
from fairseq_ecg.trainer.trainer import Trainer
from tests.training import pretraining


def slow_cmsc(z: Tensor, patient: list[int], segment: list[int], temp: float) -> tuple[Tensor, int]:
    """Every positive pair against every candidate, in both directions."""
    z = torch.stack([row / max(row.detach().norm().item(), 1e-8) for row in z])
    first = [i for i, s in enumerate(segment) if s == 0]
    second = [i for i, s in enumerate(segment) if s == 1]
    total, count = torch.zeros(()), 0
    for i in first:
        for j in second:
            if patient[i] == patient[j]:
                count += 1
                score = torch.exp(z[i] @ z[j] / temp)
                total = total - torch.log(score / sum(torch.exp(z[i] @ z[k] / temp) for k in second))
                total = total - torch.log(score / sum(torch.exp(z[k] @ z[j] / temp) for k in first))
    return total / (2 * count), count


@pytest.mark.parametrize(
    ("patient", "segment"),
    [
        ([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]),
        ([0, 0, 1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 0, 1, 0, 1]),  # patients met twice
        ([4, 4, 4, 4], [0, 1, 0, 1]),
        ([3, 5, 3, 5, 9], [1, 0, 0, 1, 0]),  # another order, and a segment alone
    ],
)
def test_cmsc_is_the_equation_with_its_gradient(patient: list[int], segment: list[int]) -> None:
    torch.manual_seed(0)
    z = torch.randn(len(patient), 5, requires_grad=True)
    loss, count = cmsc_loss(z, torch.tensor(patient), torch.tensor(segment), 0.3)
    expected, num = slow_cmsc(z, patient, segment, 0.3)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    assert count == num
    mine, slow = torch.autograd.grad(loss, z)[0], torch.autograd.grad(expected, z)[0]
    torch.testing.assert_close(mine, slow, rtol=1e-4, atol=1e-6)


def test_a_batch_without_positives_gives_zero_and_finite_gradients() -> None:
    z = torch.randn(4, 3, requires_grad=True)
    loss, count = cmsc_loss(z, torch.arange(4), torch.zeros(4, dtype=torch.int64))
    loss.backward()
    assert loss == 0
    assert count == 0
    assert torch.isfinite(z.grad).all()


def pairs(num_pairs: int) -> Batch:
    """Two segments of each patient."""
    rows = np.arange(2 * num_pairs)
    return Batch(
        keys=Keys(0, rows, rows % 2),
        source=torch.randn(len(rows), 12, 100),
        scale=torch.ones(len(rows)),
        patient=torch.from_numpy(rows // 2),
        segment=torch.from_numpy(rows % 2),
    )


def test_the_criterion_sums_over_positive_pairs() -> None:
    torch.manual_seed(0)
    model = EcgTransformer(EcgTransformerConfig.tiny()).eval()
    patient, segment = torch.tensor([0, 0, 1, 1, 0, 0]), torch.tensor([0, 1] * 3)
    rows = np.arange(6)
    batch = Batch(
        keys=Keys(0, rows, rows * 0),
        source=torch.randn(6, 12, 100),
        scale=torch.ones(6),
        patient=patient,
        segment=segment,
    )
    step = Cmsc(CmscConfig(temp=0.2))(model, batch)
    mean, count = cmsc_loss(model(batch.source).pooled(), patient, segment, 0.2)
    assert step.sample_size == count == 5
    torch.testing.assert_close(step.loss / step.sample_size, mean)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="temp"):
        CmscConfig(temp=0.0)
    with pytest.raises(ConfigError, match="needs an encoder"):
        Cmsc(CmscConfig()).validate_model(torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="needs a model that returns its frames, this one returns Tensor"):
        Cmsc(CmscConfig())(lambda source, padding_mask: source, pairs(2))


def test_cmsc_trains_the_frames_of_whatever_model_answers_with_them() -> None:
    torch.manual_seed(0)
    classifier = EcgTransformerClassifier(EcgTransformerClassifierConfig.tiny()).eval()
    batch = pairs(4)
    step = Cmsc(CmscConfig())(classifier, batch)
    alone = Cmsc(CmscConfig())(classifier.encoder, batch)
    assert (step.loss, step.sample_size) == (alone.loss, alone.sample_size)


def test_the_pretraining_recipe_runs_with_cmsc_alone(manifest_dir: Path, tmp_path: Path) -> None:
    cfg = pretraining(manifest_dir, tmp_path, "criterion=cmsc", "optimization.max_update=2")
    results = Trainer.from_config(cfg).run()
    assert math.isfinite(results["loss"])
    assert read_state(tmp_path / "checkpoints" / "checkpoint_last")["num_updates"] == 2
