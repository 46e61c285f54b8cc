import numpy as np
import pytest
import torch

from fairseq_ecg.errors import ConfigError
from fairseq_ecg.metrics.classification import (
    Multilabel,
    MultilabelConfig,
    beta_measures,
    exact_match,
    f_measure_classes,
)


def case(seed):
    generator = np.random.default_rng(seed)
    return generator.random((40, 5)) < 0.3, generator.random((40, 5)) < 0.4


def slow_counts(true, said, weights):
    """Hits, false alarms and misses of one class, record by record."""
    hits = sum(w for w, t, s in zip(weights, true, said, strict=True) if t and s)
    false_alarms = sum(w for w, t, s in zip(weights, true, said, strict=True) if s and not t)
    misses = sum(w for w, t, s in zip(weights, true, said, strict=True) if t and not s)
    return hits, false_alarms, misses


def test_f_measure_is_the_definition_and_nan_for_an_unseen_class():
    labels, outputs = case(0)
    labels[:, 2] = outputs[:, 2] = False
    expected = []
    for k in range(5):
        hits, false_alarms, misses = slow_counts(labels[:, k], outputs[:, k], np.ones(40))
        whole = 2 * hits + false_alarms + misses
        expected.append(2 * hits / whole if whole else np.nan)
    np.testing.assert_allclose(f_measure_classes(labels, outputs), expected, rtol=1e-12)
    assert np.isnan(expected[2])


def test_beta_measures_weigh_a_record_by_its_number_of_labels():
    labels, outputs = case(1)
    weights = [1 / max(row.sum(), 1) for row in labels]
    f_beta, g_beta = [], []
    for k in range(5):
        hits, false_alarms, misses = slow_counts(labels[:, k], outputs[:, k], weights)
        f_beta.append(5 * hits / (5 * hits + false_alarms + 4 * misses))
        g_beta.append(hits / (hits + false_alarms + 2 * misses))
    assert beta_measures(labels, outputs) == pytest.approx((np.mean(f_beta), np.mean(g_beta)), abs=1e-12)


def test_exact_match_counts_whole_rows():
    assert exact_match([[1, 0], [1, 1]], [[1, 0], [1, 0]]) == 0.5
    assert np.isnan(exact_match(np.zeros((0, 2)), np.zeros((0, 2))))


def test_multilabel_equals_scikit_learn_over_merged_ranks():
    from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

    labels, _ = case(2)
    logits = torch.randn(labels.shape, generator=torch.Generator().manual_seed(0))
    said = logits.numpy() > 0
    ranks = [Multilabel(MultilabelConfig()) for _ in range(2)]
    for rank, part in zip(ranks, (slice(0, 13), slice(13, 40)), strict=True):
        for row in range(part.start, part.stop, 5):
            piece = slice(row, min(row + 5, part.stop))
            rank.update({"logits": logits[piece], "target": torch.tensor(labels[piece])})
    merged = Multilabel(MultilabelConfig())
    merged.load_state({"sums": torch.cat([rank.state()["sums"] for rank in ranks])})
    assert merged.compute() == pytest.approx(
        {
            "accuracy": (labels == said).mean(),
            "em_accuracy": accuracy_score(labels, said),
            "precision": precision_score(labels, said, average="micro"),
            "recall": recall_score(labels, said, average="micro"),
            "f1": f1_score(labels, said, average="micro"),
        },
        abs=1e-12,
    )
    merged.reset()
    assert all(np.isnan(value) for value in merged.compute().values())


def test_multilabel_leaves_unlabelled_pairs_out_and_uses_its_threshold():
    target = torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan], [0.0, 1.0]])
    logits = torch.tensor([[1.0, 5.0], [5.0, 5.0], [-1.0, 0.5]])
    metric = Multilabel(MultilabelConfig())
    metric.update({"logits": logits, "target": target})
    assert metric.compute() == {"accuracy": 1, "em_accuracy": 1, "precision": 1, "recall": 1, "f1": 1}
    strict = Multilabel(MultilabelConfig(threshold=0.7))
    strict.update({"logits": logits, "target": target})
    assert strict.compute()["recall"] == 0.5
    with pytest.raises(ConfigError, match=r"threshold=1\.5"):
        MultilabelConfig(threshold=1.5)
