import numpy as np
import pytest

from fairseq_ecg.errors import DataError
from fairseq_ecg.evaluate.protocols import cross_entropy, fit_logistic, learnable, linear_probe


def case(num_records=200, num_features=6, num_labels=3, seed=0):
    generator = np.random.default_rng(seed)
    features = generator.normal(2.0, 3.0, (num_records, num_features)).astype(np.float32)
    weights = np.random.default_rng(100).normal(size=(num_features, num_labels))
    logits = (features - 2.0) @ weights / 3.0 + generator.logistic(size=(num_records, num_labels))
    return features, (logits > 0.5).astype(np.float32)


def gradient(features, target, weight, intercept, strength):
    """Of C * cross-entropy + |w|^2 / 2, term by term."""
    slope_weight, slope_intercept = weight.copy(), 0.0
    for row, truth in zip(features, target, strict=True):
        error = 1 / (1 + np.exp(-(row @ weight + intercept))) - truth
        slope_weight += strength * error * row
        slope_intercept += strength * error
    return np.append(slope_weight, slope_intercept)


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_a_fit_has_no_slope_left(strength):
    features, target = case()
    scaled = ((features - features.mean(axis=0)) / features.std(axis=0)).astype(np.float64)
    weight, intercept = fit_logistic(scaled, target[:, 0], strength)
    slope = gradient(scaled, target[:, 0], weight, intercept, strength)
    assert (
        np.abs(slope).max() < 1e-3 * np.abs(gradient(scaled, target[:, 0], 0 * weight, 0.0, strength)).max()
    )


def test_the_strength_with_the_smallest_validation_loss_is_chosen():
    train, valid, test = case(seed=0), case(seed=1), case(seed=2)
    result = linear_probe(*train, *valid, test[0], strengths=(1e-6, 0.1))
    assert result.strength == 0.1
    assert result.valid_losses[0.1] < result.valid_losses[1e-6]
    inverted = linear_probe(*train, valid[0], 1 - valid[1], test[0], strengths=(1e-6, 0.1))
    assert inverted.strength == 1e-6


def test_probabilities_of_the_chosen_probe_are_those_of_its_fit():
    train, valid, test = case(seed=0), case(seed=1), case(seed=2)
    result = linear_probe(*train, *valid, test[0], strengths=(0.1,))
    mean, std = train[0].mean(axis=0, dtype=float), train[0].std(axis=0, dtype=float)
    for k in range(3):
        weight, intercept = fit_logistic((train[0] - mean) / std, train[1][:, k], 0.1)
        expected = 1 / (1 + np.exp(-((test[0] - mean) / std @ weight + intercept)))
        np.testing.assert_allclose(result.test[:, k], expected, atol=1e-9)
        assert ((result.test[:, k] > 0.5) == (test[1][:, k] > 0.5)).mean() > 0.7


def test_constant_features_and_unlabelled_records_change_nothing():
    (features, target), valid, test = case(seed=0), case(seed=1), case(seed=2)
    plain = linear_probe(features, target, *valid, test[0])
    constant = np.full((len(features), 1), 0.1, dtype=np.float32)
    widened = [
        np.hstack([part, constant[: len(part)]]) if len(part) <= len(constant) else part
        for part in (features, valid[0], test[0])
    ]
    masked_target = np.vstack([target, np.full((5, 3), np.nan, dtype=np.float32)])
    known = np.vstack([widened[0], widened[0].mean(axis=0, keepdims=True).repeat(5, axis=0)])
    wide = linear_probe(widened[0], target, widened[1], valid[1], widened[2])
    np.testing.assert_allclose(wide.test, plain.test, atol=1e-6)
    masked = linear_probe(known, masked_target, widened[1], valid[1], widened[2])
    np.testing.assert_allclose(masked.test, plain.test, atol=0.05)


def test_a_label_that_cannot_be_learned_is_never_predicted():
    (features, target), valid, test = case(seed=0), case(seed=1), case(seed=2)
    target[:, 1] = 0.0
    assert learnable(target).tolist() == [True, False, True]
    result = linear_probe(features, target, *valid, test[0])
    assert not result.test[:, 1].any()
    assert not result.valid[:, 1].any()
    assert np.isfinite(list(result.valid_losses.values())).all()
    with pytest.raises(DataError, match="no label has both"):
        linear_probe(features, np.zeros_like(target), *valid, test[0])


def test_broken_embeddings_are_refused():
    train, valid, test = case(seed=0), case(seed=1), case(seed=2)
    test[0][3, 1] = np.nan
    with pytest.raises(DataError, match="test embeddings are not finite"):
        linear_probe(*train, *valid, test[0])


def test_cross_entropy_is_the_definition_over_labelled_pairs():
    logits, target = np.array([[0.3, -2.0], [1.0, 5.0]]), np.array([[1.0, 0.0], [np.nan, 1.0]], np.float32)
    probability = 1 / (1 + np.exp(-logits))
    expected = -(np.log(probability[0, 0]) + np.log(1 - probability[0, 1]) + np.log(probability[1, 1])) / 3
    assert cross_entropy(logits, target) == pytest.approx(expected)
    assert cross_entropy(logits, np.full((2, 2), np.nan, np.float32)) == 0.0
