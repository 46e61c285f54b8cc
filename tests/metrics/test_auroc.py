import numpy as np
import pytest
import torch

import fairseq_ecg.metrics.classification  # noqa: F401  (registers multilabel)
from fairseq_ecg.errors import DataError
from fairseq_ecg.metrics.auroc import Auprc, Auroc, areas, class_areas, micro_areas, nanmean
from fairseq_ecg.registry import METRICS, NoConfig


def slow_auroc(scores, target):
    """Share of (positive, negative) pairs in the right order, a tie counting one half."""
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in scores[target] for n in scores[~target]]
    return sum(wins) / len(wins) if wins else float("nan")


def slow_auprc(scores, target):
    """Precision at every distinct score, weighted by the recall gained there."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        said = scores >= threshold
        gained = (said & target).sum() / target.sum()
        total += (gained - recall) * (said & target).sum() / said.sum()
        recall = gained
    return total


def case(seed, num_records=60, num_classes=4, decimals=1):
    generator = np.random.default_rng(seed)
    target = generator.random((num_records, num_classes)) < 0.3
    return (generator.normal(size=target.shape) + target).round(decimals), target


@pytest.mark.parametrize("seed", [0, 1])
def test_areas_are_the_definitions_with_ties(seed):
    scores, target = case(seed)
    both = areas(scores, target)
    for k in range(scores.shape[1]):
        assert both.auroc[k] == pytest.approx(slow_auroc(scores[:, k], target[:, k]), abs=1e-12)
        assert both.auprc[k] == pytest.approx(slow_auprc(scores[:, k], target[:, k]), abs=1e-12)


def test_areas_equal_scikit_learn_where_both_outcomes_occur():
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, target = case(2, num_records=500)
    assert nanmean(areas(scores, target).auroc) == pytest.approx(roc_auc_score(target, scores), abs=1e-12)
    pooled = micro_areas(scores, target)
    assert pooled[0] == pytest.approx(roc_auc_score(target, scores, average="micro"), abs=1e-12)
    assert pooled[1] == pytest.approx(average_precision_score(target, scores, average="micro"), abs=1e-12)


def test_classes_without_both_outcomes_are_undefined_and_skipped():
    scores = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    target = np.array([[0, 1, 0], [0, 1, 1]])
    both = areas(scores, target)
    np.testing.assert_array_equal(both.auroc, [np.nan, np.nan, 1.0])
    np.testing.assert_array_equal(both.auprc, [np.nan, 1.0, 1.0])
    assert nanmean(both.auroc) == 1.0
    assert np.isnan(nanmean(np.array([np.nan])))


def test_constant_scores_rank_nothing_and_infinities_are_scores():
    assert class_areas(np.zeros(4), np.array([1, 0, 0, 0])) == (0.5, 0.25)
    assert class_areas(np.array([np.inf, np.inf, 0.0]), np.array([1, 0, 0])) == (0.75, 0.5)


def test_unlabelled_pairs_are_left_out():
    scores, target = case(3)
    masked = target.astype(float)
    masked[::3, 0] = np.nan
    kept = np.arange(len(scores)) % 3 != 0
    expected = class_areas(scores[kept, 0], target[kept, 0])
    assert (areas(scores, masked).auroc[0], areas(scores, masked).auprc[0]) == expected


def test_nan_scores_and_wrong_shapes_are_refused():
    with pytest.raises(DataError, match="NaN scores"):
        class_areas(np.array([np.nan, 0.0]), np.array([1, 0]))
    with pytest.raises(DataError, match=r"\(2, 3\) and labels \(2, 2\)"):
        areas(np.zeros((2, 3)), np.zeros((2, 2)))


def test_accumulated_batches_merge_to_the_whole():
    scores, target = (torch.tensor(part, dtype=torch.float32) for part in case(4))
    target[5] = torch.nan
    whole = areas(scores.numpy(), target.numpy())
    for name, expected in (("auroc", whole.auroc), ("auprc", whole.auprc)):
        ranks = [METRICS.build(name), METRICS.build(name)]
        for start in range(0, len(scores), 7):
            part = slice(start, start + 7)
            ranks[(start // 7) % 2].update({"logits": scores[part], "target": target[part]})
        states = [rank.state() for rank in ranks]
        merged = METRICS.build(name)
        merged.load_state({key: torch.cat([state[key] for state in states]) for key in states[0]})
        assert merged.compute()[f"{name}_macro"] == pytest.approx(nanmean(expected), abs=1e-12)
        assert set(merged.compute()) == {f"{name}_macro", f"{name}_micro"}


def test_a_batch_without_rows_fixes_the_shape_that_ranks_exchange():
    empty = {"logits": torch.zeros(0, 3), "target": torch.zeros(0, 3)}
    for name, shape in (("auroc", (0, 3)), ("auprc", (0, 3)), ("multilabel", (1, 7))):
        metric = METRICS.build(name)
        metric.update(empty)
        assert {tuple(value.shape) for value in metric.state().values()} == {shape}
        assert all(np.isnan(value) for value in metric.compute().values())


def test_reset_forgets_and_an_empty_validation_is_undefined():
    metric = Auroc(NoConfig())
    metric.update({"logits": torch.randn(4, 2), "target": torch.ones(4, 2)})
    metric.reset()
    assert all(np.isnan(value) for value in metric.compute().values())
    assert metric.state()["logits"].shape[0] == 0


def test_a_metric_refuses_nan_logits_and_missing_outputs():
    metric = Auprc(NoConfig())
    metric.update({"logits": torch.tensor([[torch.nan], [0.0]]), "target": torch.ones(2, 1)})
    with pytest.raises(DataError, match="1 of 2 records have NaN logits"):
        metric.compute()
    with pytest.raises(DataError, match="lack \\['target'\\]"):
        metric.update({"logits": torch.zeros(1, 1)})
    with pytest.raises(DataError, match="must both be"):
        metric.update({"logits": torch.zeros(1, 1), "target": torch.zeros(1, 2)})
