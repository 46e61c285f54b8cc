"""Frozen encoders as scikit-learn estimators: embeddings as features, and the linear probe on them.

X is an array (records, leads, time) of one rate and one lead order, or a list of ``Record``, each with its
own. Both are brought to the input contract of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from fairseq_ecg.contracts import Record
from fairseq_ecg.errors import DataError
from fairseq_ecg.evaluate.protocols import fit_probe
from fairseq_ecg.infer.embed import embed
from fairseq_ecg.infer.inputs import Part, RecordInput
from fairseq_ecg.infer.load import Encoder, load_encoder, pick_device

Records = ArrayLike | Sequence[Record]


class ECGEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """One vector per record, from the frozen encoder of a checkpoint.

    Args:
        checkpoint: what ``load_encoder`` takes, or an encoder it has returned.
        sampling_rate: Hz of array input.
        leads: names of the leads of array input, in order.
        unit: of the values of array input.
        device: cpu, cuda, cuda:1; None: a GPU if there is one.
    """

    def __init__(
        self,
        checkpoint: str | Path | Encoder,
        *,
        sampling_rate: int | None = None,
        leads: Sequence[str] | None = None,
        unit: str = "mV",
        device: str | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.sampling_rate = sampling_rate
        self.leads = leads
        self.unit = unit
        self.device = device

    def fit(self, X: Records | None = None, y: object = None) -> Self:
        """Load the encoder; nothing is learned from X and y.

        Raises:
            CheckpointError: the checkpoint cannot be used.
        """
        given = self.checkpoint
        encoder = given if isinstance(given, Encoder) else load_encoder(given)
        self.encoder_ = encoder.to(pick_device(self.device))
        self._n_features_out = encoder.embed_dim
        return self

    def transform(self, X: Records) -> NDArray[np.float32]:
        """(records, dim).

        Raises:
            DataError: a record cannot be brought to the encoder's contract, or an array comes without
                ``sampling_rate`` and ``leads``.
        """
        check_is_fitted(self)
        if isinstance(X, list | tuple) and X and all(isinstance(item, Record) for item in X):
            return embed(self.encoder_, [_input(record) for record in X]).embedding
        if self.sampling_rate is None or self.leads is None:
            raise DataError("an array does not say its sampling_rate and leads; give both to the estimator")
        return self.encoder_.embed(np.asarray(X), self.sampling_rate, self.leads, self.unit)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.two_d_array = False
        return tags


class ECGClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Logistic regression per label on embeddings of a frozen encoder, as ``fairseq-ecg evaluate`` fits it.

    y is (records,) with one class per record, or (records, labels) with 0, 1 and NaN for unlabelled.

    Args:
        checkpoint, sampling_rate, leads, unit, device: as of ``ECGEmbedder``.
        strength: C, the inverse of the regularisation.
    """

    def __init__(
        self,
        checkpoint: str | Path | Encoder,
        *,
        sampling_rate: int | None = None,
        leads: Sequence[str] | None = None,
        unit: str = "mV",
        device: str | None = None,
        strength: float = 0.1,
    ) -> None:
        self.checkpoint = checkpoint
        self.sampling_rate = sampling_rate
        self.leads = leads
        self.unit = unit
        self.device = device
        self.strength = strength

    def fit(self, X: Records, y: ArrayLike) -> Self:
        """Embed the records and fit the probe.

        Raises:
            CheckpointError: the checkpoint cannot be used.
            DataError: a record or y cannot be used, or no label has records with and without it.
        """
        given = np.asarray(y)
        if given.ndim == 1:
            self.classes_, codes = np.unique(given, return_inverse=True)
            if len(self.classes_) < 2:
                raise DataError(f"y holds the class {self.classes_.tolist()} only; two or more are needed")
            # Two classes are one label, present or absent.
            first = 1 if len(self.classes_) == 2 else 0
            target = codes[:, None] == np.arange(first, len(self.classes_))
        elif given.ndim == 2:
            self.classes_, target = np.arange(given.shape[1]), given
        else:
            raise DataError(f"y of shape {given.shape} is neither (records,) nor (records, labels)")
        self.is_multilabel_ = given.ndim == 2
        self.embedder_ = ECGEmbedder(
            self.checkpoint,
            sampling_rate=self.sampling_rate,
            leads=self.leads,
            unit=self.unit,
            device=self.device,
        ).fit()
        features = self.embedder_.transform(X)
        if len(features) != len(target):
            raise DataError(f"X has {len(features)} records, y {len(target)}")
        self.probe_ = fit_probe(features, target.astype(np.float32), self.strength)
        return self

    def predict_proba(self, X: Records) -> NDArray[np.float64]:
        """(records, classes), which sum to 1; (records, labels) when y was (records, labels).

        A label that all or none of the records had has probability 0.
        """
        check_is_fitted(self)
        answers = self.probe_.probabilities(self.embedder_.transform(X))
        if self.is_multilabel_:
            return answers
        if len(self.classes_) == 2:
            return np.hstack([1.0 - answers, answers])
        normalised: NDArray[np.float64] = answers / answers.sum(axis=1, keepdims=True)
        return normalised

    def predict(self, X: Records) -> NDArray[Any]:
        """(records,) the most probable class; (records, labels) 0 or 1 when y was (records, labels)."""
        probabilities = self.predict_proba(X)
        if self.is_multilabel_:
            return (probabilities > 0.5).astype(np.int64)
        chosen: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return chosen

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.two_d_array = False
        tags.classifier_tags.multi_label = True
        return tags


def _input(record: Record) -> RecordInput:
    part = Part(record.signal, record.sampling_rate, record.leads)
    return RecordInput(
        record_id=record.record_id,
        patient_id=record.patient_id,
        source=record.source,
        idx=-1,
        codes=record.labels,
        read=lambda: [part],
    )
