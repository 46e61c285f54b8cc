from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fairseq_ecg.contracts import Batch, Keys
from fairseq_ecg.criteria.binary_cross_entropy import (
    BinaryCrossEntropyWithLogits,
    BinaryCrossEntropyWithLogitsConfig,
    masked_binary_cross_entropy,
)
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.models.classifier import EcgTransformerClassifier, EcgTransformerClassifierConfig
from fairseq_ecg.models.ecg_transformer import EcgTransformer, EcgTransformerConfig


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_the_equation_over_labelled_entries(weighted: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 3, requires_grad=True)
    target = torch.randint(0, 2, (5, 3)).float()
    target[1, 2] = target[4, 0] = torch.nan
    weight = torch.tensor([1.0, 0.5, 2.0]) if weighted else None
    pos_weight = torch.tensor([3.0, 1.0, 0.2]) if weighted else None
    loss, count = masked_binary_cross_entropy(logits, target, weight=weight, pos_weight=pos_weight)
    expected = 0.0
    for b in range(5):
        for k in range(3):
            y = target[b, k].item()
            if not math.isnan(y):
                p = 1 / (1 + math.exp(-logits[b, k].item()))
                w, v = (weight[k].item(), pos_weight[k].item()) if weighted else (1.0, 1.0)
                expected -= w * (v * y * math.log(p) + (1 - y) * math.log(1 - p))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert count == 13
    loss.backward()
    assert logits.grad[1, 2] == 0 == logits.grad[4, 0]
    assert torch.isfinite(logits.grad).all()


def batch(target: torch.Tensor) -> Batch:
    rows = np.arange(len(target))
    return Batch(
        keys=Keys(0, rows, rows * 0),
        source=torch.randn(len(target), 12, 100),
        scale=torch.ones(len(target)),
        patient=torch.arange(len(target)),
        segment=torch.zeros(len(target), dtype=torch.int64),
        padding_mask=torch.arange(100).expand(len(target), 100) >= 80,
        target=target,
    )


def test_the_criterion_returns_sums_and_what_metrics_need() -> None:
    cfg = EcgTransformerClassifierConfig.tiny()
    cfg.saliency = True
    model = EcgTransformerClassifier(cfg).eval()
    criterion = BinaryCrossEntropyWithLogits(BinaryCrossEntropyWithLogitsConfig(pos_weight=[1.0, 2.0, 3.0]))
    criterion.validate_model(model)
    target = torch.tensor([[1.0, 0.0, torch.nan], [0.0, 1.0, 1.0]])
    step = criterion(model, batch(target))
    assert step.sample_size == 5
    assert not list(criterion.parameters())
    assert set(step.outputs) == {"logits", "target", "encoder_out", "padding_mask", "saliency"}
    assert all(not value.requires_grad for value in step.outputs.values())
    assert step.outputs["padding_mask"].tolist() == [[False] * 5 + [True]] * 2
    total, size = step.logs["loss"]
    torch.testing.assert_close(total, step.loss.detach())
    assert size == 5


def test_metrics_are_asked_for_by_name() -> None:
    plain = BinaryCrossEntropyWithLogits(BinaryCrossEntropyWithLogitsConfig(threshold=0.3))
    assert plain.metrics() == {"multilabel": {"threshold": 0.3}}
    full = BinaryCrossEntropyWithLogitsConfig(report_auc=True, report_cinc_score=True, weights_file="w.csv")
    assert BinaryCrossEntropyWithLogits(full).metrics() == {
        "multilabel": {"threshold": 0.5},
        "auroc": {},
        "auprc": {},
        "cinc": {"weights_file": "w.csv", "threshold": 0.5},
    }


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="threshold"):
        BinaryCrossEntropyWithLogitsConfig(threshold=2.0)
    with pytest.raises(ConfigError, match="auc_average"):
        BinaryCrossEntropyWithLogitsConfig(auc_average="weighted")
    with pytest.raises(ConfigError, match=r"entry -1\.0"):
        BinaryCrossEntropyWithLogitsConfig(pos_weight=[-1.0])
    model = EcgTransformerClassifier(EcgTransformerClassifierConfig.tiny())
    short = BinaryCrossEntropyWithLogits(BinaryCrossEntropyWithLogitsConfig(pos_weight=[1.0]))
    with pytest.raises(ConfigError, match=r"pos_weight has 1 entries, model\.num_labels is 3"):
        short.validate_model(model)
    with pytest.raises(ConfigError, match="needs a classifier"):
        short.validate_model(EcgTransformer(EcgTransformerConfig.tiny()))


def test_a_batch_without_labels_gives_outputs_and_an_empty_loss() -> None:
    """Extraction from unlabelled records: logits count, the loss has no term."""
    model = EcgTransformerClassifier(EcgTransformerClassifierConfig.tiny()).eval()
    criterion = BinaryCrossEntropyWithLogits(BinaryCrossEntropyWithLogitsConfig())
    rows = np.arange(2)
    batch = Batch(
        keys=Keys(1, rows, rows * 0),
        source=torch.randn(2, 12, 320),
        scale=torch.ones(2),
        patient=torch.arange(2),
        segment=torch.zeros(2, dtype=torch.int64),
    )
    step = criterion(model, batch)
    assert step.outputs["logits"].shape == (2, 3)
    assert step.outputs["target"].isnan().all()
    assert (float(step.loss.detach()), float(step.sample_size)) == (0.0, 0.0)
