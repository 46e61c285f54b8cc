import numpy as np
import pytest

from fairseq_ecg.errors import DataError
from fairseq_ecg.metrics.auroc import areas
from fairseq_ecg.metrics.bootstrap import (
    holm,
    paired_difference,
    percentile_interval,
    resample_patients,
    resampled_areas,
    resampled_challenge_score,
    resampled_micro_areas,
)
from fairseq_ecg.metrics.cinc import challenge_score


def case(seed=0, num_records=90, num_classes=5, decimals=1):
    generator = np.random.default_rng(seed)
    target = (generator.random((num_records, num_classes)) < 0.25).astype(float)
    target[:, 0] = 0.0
    target[3, 0] = 1.0  # absent from about a third of the resamples
    scores = (generator.normal(size=target.shape) + target).round(decimals)
    patients = [f"p{index // 3}" for index in range(num_records)]
    return scores, target, patients


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_areas_of_every_resample_equal_scikit_learn_on_the_repeated_records(decimals):
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, target, patients = case(decimals=decimals)
    weights = resample_patients(patients, 40, seed=1)
    resampled = resampled_areas(scores, target, weights)
    pooled = resampled_micro_areas(scores, target, weights)
    for r, row in enumerate(weights):
        rows = np.repeat(np.arange(len(scores)), row)
        for k in range(scores.shape[1]):
            if target[rows, k].any():
                expected = roc_auc_score(target[rows, k], scores[rows, k])
                assert resampled.auroc[r, k] == pytest.approx(expected, abs=1e-12)
                expected = average_precision_score(target[rows, k], scores[rows, k])
                assert resampled.auprc[r, k] == pytest.approx(expected, abs=1e-12)
            else:
                assert np.isnan(resampled.auroc[r, k])
                assert np.isnan(resampled.auprc[r, k])
        truth, values = target[rows].ravel(), scores[rows].ravel()
        assert pooled.auroc[r, 0] == pytest.approx(roc_auc_score(truth, values), abs=1e-12)
        assert pooled.auprc[r, 0] == pytest.approx(average_precision_score(truth, values), abs=1e-12)
    assert np.isnan(resampled.auroc[:, 0]).any()


def test_a_resample_of_ones_is_the_data_itself_and_unlabelled_pairs_are_left_out():
    scores, target, _ = case()
    target[::4, 1] = np.nan
    target[:, 2] = 1.0
    ones = np.ones((1, len(scores)), dtype=np.int32)
    both = areas(scores, target)
    np.testing.assert_allclose(resampled_areas(scores, target, ones).auroc[0], both.auroc, atol=1e-12)
    np.testing.assert_allclose(resampled_areas(scores, target, ones).auprc[0], both.auprc, atol=1e-12)


def test_blocks_of_resamples_do_not_change_the_result(monkeypatch):
    scores, target, patients = case()
    weights = resample_patients(patients, 50, seed=2)
    whole = resampled_areas(scores, target, weights)
    monkeypatch.setattr("fairseq_ecg.metrics.bootstrap._BLOCK_BYTES", 1)
    np.testing.assert_array_equal(resampled_areas(scores, target, weights).auroc, whole.auroc)


def test_patients_are_drawn_whole_and_by_the_seed():
    patients = np.array(["b", "a", "b", "c", "a"])
    weights = resample_patients(patients, 200, seed=0)
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert np.array_equal(weights[:, 1], weights[:, 4])
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert np.array_equal(weights, resample_patients(patients, 200, seed=0))
    assert not np.array_equal(weights, resample_patients(patients, 200, seed=1))
    order = [3, 1, 0, 4, 2]
    assert np.array_equal(weights[:, order], resample_patients(patients[order], 200, seed=0))
    with pytest.raises(DataError, match="no record"):
        resample_patients([], 1, seed=0)


def test_challenge_scores_are_those_of_the_repeated_records():
    sums = np.random.default_rng(0).random((12, 3))
    weights = resample_patients([str(index) for index in range(12)], 5, seed=0)
    expected = [challenge_score(np.repeat(sums, row, axis=0).sum(axis=0)) for row in weights]
    np.testing.assert_allclose(resampled_challenge_score(sums, weights), expected, rtol=1e-12)


def test_intervals_are_percentiles_of_the_defined_resamples():
    values = np.append(np.arange(101.0), np.nan)
    interval = percentile_interval(7.0, values)
    assert interval.value == 7.0
    assert (interval.low, interval.high) == pytest.approx((2.5, 97.5))
    assert np.isnan(percentile_interval(7.0, np.array([np.nan])).low)


def test_an_interval_covers_the_mean_of_a_coin():
    """95 % intervals of a known proportion miss it in about 5 % of samples (300 of them: 0.05 +- 0.04)."""
    generator = np.random.default_rng(0)
    missed = 0
    for trial in range(300):
        flips = generator.random(80) < 0.5
        weights = resample_patients([str(index) for index in range(80)], 200, seed=trial)
        interval = percentile_interval(float(flips.mean()), weights @ flips / 80)
        missed += not interval.low <= 0.5 <= interval.high
    assert 0.01 <= missed / 300 <= 0.10


def test_paired_differences_count_resamples_on_either_side_of_zero():
    first = np.array([1.0, 1.0, 1.0, 0.0, np.nan])
    difference = paired_difference(0.5, first, np.full(5, 0.5))
    assert difference.p_value == pytest.approx(2 * 2 / 5)
    assert difference.interval.value == 0.5
    assert paired_difference(0.0, first, first).p_value == 1.0
    assert np.isnan(paired_difference(0.0, np.array([np.nan]), np.array([1.0])).p_value)


def test_holm_steps_down_and_skips_undefined_tests():
    assert holm([0.01, 0.04, 0.03, float("nan")])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(holm([0.01, float("nan")])[1])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
