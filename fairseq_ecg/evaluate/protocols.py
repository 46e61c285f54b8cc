"""How a frozen encoder is judged. ``linear``: one logistic regression per label on its embeddings.

Regularisation is chosen on the validation split; test targets are never passed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.errors import DataError

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Values of C, the inverse of the regularisation, that are tried."""

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Decision thresholds that are tried for the Challenge score."""


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """Answers of the chosen probe.

    Shape:
        valid, test: (N, K), float64, probabilities; 0 for a label that could not be learned.
    """

    strength: float
    valid_losses: dict[float, float]
    """Mean cross-entropy on the validation split by strength."""
    valid: NDArray[np.float64]
    test: NDArray[np.float64]


def learnable(target: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(K,) True for labels with a positive and a negative training record."""
    return np.asarray((target == 1).any(axis=0) & (target == 0).any(axis=0))


@dataclass(frozen=True, eq=False)
class Probe:
    """One logistic regression per label on embeddings that are standardised by the training records.

    Shape:
        mean, std: (D,). weight: (K, D), intercept: (K,), -inf for a label that could not be learned.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    weight: NDArray[np.float64]
    intercept: NDArray[np.float64]

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, D) embeddings -> (N, K)."""
        answers: NDArray[np.float64] = (features - self.mean) / self.std @ self.weight.T + self.intercept
        return answers

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, D) embeddings -> (N, K); 0 for a label that could not be learned."""
        return _sigmoid(self.logits(features))


def fit_probe(features: NDArray[np.float32], target: NDArray[np.float32], strength: float) -> Probe:
    """Fit every label that has records with and without it; the intercept is not penalised.

    Args:
        features: (N, D) embeddings.
        target: (N, K), 0 or 1, NaN where the record has no label.
        strength: C, the inverse of the regularisation.

    Raises:
        DataError: no label can be learned, or embeddings are not finite.
    """
    _check_finite("train", features)
    usable = np.flatnonzero(learnable(target))
    if not usable.size:
        raise DataError("no label has both a positive and a negative training record")
    mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    # A constant feature carries rounding noise that must not be blown up to unit variance.
    std = np.where(std > 1e-6 * (1.0 + np.abs(mean)), std, np.inf)
    scaled = (features - mean) / std
    weight = np.zeros((target.shape[1], features.shape[1]))
    intercept = np.full(target.shape[1], -np.inf)
    for k in usable:
        known = ~np.isnan(target[:, k])
        weight[k], intercept[k] = fit_logistic(scaled[known], target[known, k], strength)
    return Probe(mean, std, weight, intercept)


def linear_probe(
    train: NDArray[np.float32],
    train_target: NDArray[np.float32],
    valid: NDArray[np.float32],
    valid_target: NDArray[np.float32],
    test: NDArray[np.float32],
    strengths: Sequence[float] = STRENGTHS,
) -> ProbeResult:
    """Fit every label for every strength, keep the strength with the smallest validation loss.

    Shape:
        train, valid, test: (N, D) embeddings.
        train_target, valid_target: (N, K), 0 or 1, NaN where the record has no label.

    Raises:
        DataError: no label can be learned, or embeddings are not finite.
    """
    for name, features in (("train", train), ("valid", valid), ("test", test)):
        _check_finite(name, features)
    usable = np.flatnonzero(learnable(train_target))
    probes = {strength: fit_probe(train, train_target, strength) for strength in strengths}
    losses = {
        strength: cross_entropy(probe.logits(valid)[:, usable], valid_target[:, usable])
        for strength, probe in probes.items()
    }
    best = min(strengths, key=lambda strength: losses[strength])
    return ProbeResult(best, losses, probes[best].probabilities(valid), probes[best].probabilities(test))


def fit_logistic(
    features: NDArray[np.float64], target: NDArray[np.float32], strength: float
) -> tuple[NDArray[np.float64], float]:
    """Weights (D,) and intercept of one label."""
    from sklearn.linear_model import LogisticRegression

    # Newton steps: ten of them where the default solver takes 150 for weak regularisation.
    model = LogisticRegression(C=strength, solver="newton-cg", max_iter=200, tol=1e-6)
    model.fit(features, target > 0.5)
    weight: NDArray[np.float64] = model.coef_[0]
    return weight, float(model.intercept_[0])


def cross_entropy(logits: NDArray[np.float64], target: NDArray[np.float32]) -> float:
    """Mean over labelled pairs, in nats; 0 when there is none."""
    known = ~np.isnan(target)
    losses = np.logaddexp(0.0, logits[known]) - logits[known] * target[known]
    return float(losses.mean()) if losses.size else 0.0


def _check_finite(name: str, features: NDArray[np.float32]) -> None:
    if not np.isfinite(features).all():
        raise DataError(f"{name} embeddings are not finite; the encoder or its input is broken")


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import expit

    probabilities: NDArray[np.float64] = expit(logits)
    return probabilities
