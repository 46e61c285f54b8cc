"""ECGEmbedder and ECGClassifier as scikit-learn uses them."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairseq_ecg import ECGClassifier, ECGEmbedder, Record, load_encoder
from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.errors import CheckpointError, DataError
from fairseq_ecg.evaluate.protocols import fit_probe
from tests.frozen import RATE, make_model, save_checkpoint

INPUT = {"sampling_rate": RATE, "leads": STANDARD_LEADS, "device": "cpu"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("estimators") / "run", make_model())


@pytest.fixture(scope="module")
def cohort():
    """60 records, half of them with a 7 Hz wave."""
    generator = np.random.default_rng(0)
    has_wave = np.arange(60) % 2
    wave = np.sin(2 * np.pi * 7 * np.arange(400) / RATE)
    return generator.normal(0, 0.3, (60, 12, 400)) + has_wave[:, None, None] * wave, has_wave


def test_embeddings_are_those_of_the_encoder(checkpoint, cohort):
    source, _ = cohort
    embedder = ECGEmbedder(checkpoint, **INPUT)
    with pytest.raises(NotFittedError):
        embedder.transform(source)
    expected = load_encoder(checkpoint).embed(source, RATE, STANDARD_LEADS)
    assert np.array_equal(embedder.fit(source).transform(source), expected)
    assert np.array_equal(embedder.fit_transform(source), expected)
    names = embedder.get_feature_names_out()
    assert names[:2].tolist() == ["ecgembedder0", "ecgembedder1"]
    assert len(names) == expected.shape[1]
    frame = clone(embedder).set_output(transform="pandas").fit_transform(source)
    assert list(frame.columns) == list(names)
    from_encoder = ECGEmbedder(load_encoder(checkpoint), **INPUT).fit_transform(source)
    assert np.array_equal(from_encoder, expected)


def test_records_bring_their_own_rate_leads_and_length(checkpoint, cohort):
    source, _ = cohort
    record = Record(
        record_id="a",
        patient_id="p",
        source="",
        signal=source[0].astype(np.float32),
        leads=STANDARD_LEADS,
        sampling_rate=RATE,
    )
    two = replace(record, record_id="b", signal=record.signal[[1, 0], :200], leads=("II", "I"))
    fast = replace(record, record_id="c", signal=np.repeat(record.signal, 2, axis=1), sampling_rate=2 * RATE)
    embedded = ECGEmbedder(checkpoint, device="cpu").fit().transform([record, two, fast])
    encoder = load_encoder(checkpoint)
    for row, item in zip(embedded, (record, two, fast), strict=True):
        expected = encoder.embed(item.signal, item.sampling_rate, item.leads)[0]
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_parameters_survive_cloning_and_setting(checkpoint):
    for estimator in (ECGEmbedder(checkpoint, **INPUT), ECGClassifier(checkpoint, **INPUT, strength=0.5)):
        copied = clone(estimator)
        assert copied is not estimator
        assert copied.get_params() == estimator.get_params()
        assert copied.set_params(unit="uV").unit == "uV"
        assert type(estimator).__name__ in repr(estimator)


def test_an_embedder_is_a_step_of_a_pipeline(checkpoint, cohort):
    source, has_wave = cohort
    steps = (StandardScaler(), LogisticRegression())
    scores = cross_val_score(make_pipeline(ECGEmbedder(checkpoint, **INPUT), *steps), source, has_wave, cv=3)
    embedded = load_encoder(checkpoint).embed(source, RATE, STANDARD_LEADS)
    assert np.array_equal(scores, cross_val_score(make_pipeline(*steps), embedded, has_wave, cv=3))
    assert scores.mean() > 0.7


def test_a_classifier_is_the_probe_on_the_embeddings(checkpoint, cohort):
    source, has_wave = cohort
    labels = np.array(["none", "wave"])[has_wave]
    classifier = ECGClassifier(checkpoint, **INPUT, strength=0.3).fit(source[:40], labels[:40])
    assert classifier.classes_.tolist() == ["none", "wave"]
    embedded = load_encoder(checkpoint).embed(source, RATE, STANDARD_LEADS)
    target = has_wave[:40, None].astype(np.float32)
    expected = fit_probe(embedded[:40], target, 0.3).probabilities(embedded[40:])
    answers = classifier.predict_proba(source[40:])
    np.testing.assert_allclose(answers, np.hstack([1 - expected, expected]), atol=1e-12)
    assert classifier.predict(source[40:]).tolist() == np.where(expected[:, 0] > 0.5, "wave", "none").tolist()
    assert classifier.score(source[40:], labels[40:]) > 0.9


def test_several_classes_sum_to_one_and_labels_stand_alone(checkpoint, cohort):
    source, has_wave = cohort
    classes = has_wave + 2 * (np.arange(60) % 3 == 0)
    source = source + (classes >= 2)[:, None, None] * 0.4
    many = ECGClassifier(checkpoint, **INPUT).fit(source, classes)
    answers = many.predict_proba(source)
    assert answers.shape == (60, 4)
    np.testing.assert_allclose(answers.sum(axis=1), 1.0)
    assert (many.predict(source) == classes).mean() > 0.6
    target = np.stack([has_wave, classes >= 2, np.zeros(60)], axis=1).astype(np.float32)
    target[:5, 0] = np.nan
    labels = ECGClassifier(checkpoint, **INPUT).fit(source, target)
    embedded = load_encoder(checkpoint).embed(source, RATE, STANDARD_LEADS)
    expected = fit_probe(embedded, target, 0.1).probabilities(embedded)
    np.testing.assert_allclose(labels.predict_proba(source), expected, atol=1e-12)
    assert not labels.predict_proba(source)[:, 2].any()
    assert labels.predict(source).shape == (60, 3)


def test_a_grid_search_chooses_the_strength(checkpoint, cohort):
    source, has_wave = cohort
    search = GridSearchCV(
        ECGClassifier(checkpoint, **INPUT), {"strength": [1e-9, 0.1]}, cv=2, scoring="roc_auc"
    )
    search.fit(source, has_wave)
    assert set(search.cv_results_["param_strength"]) == {1e-9, 0.1}
    assert search.best_estimator_.predict(source).shape == (60,)


def test_what_cannot_be_fitted_is_refused(checkpoint, cohort, tmp_path):
    source, has_wave = cohort
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        ECGEmbedder(tmp_path / "absent", **INPUT).fit(source)
    with pytest.raises(DataError, match="does not say its sampling_rate and leads"):
        ECGEmbedder(checkpoint).fit_transform(source)
    with pytest.raises(DataError, match="two or more are needed"):
        ECGClassifier(checkpoint, **INPUT).fit(source, np.zeros(60))
    with pytest.raises(DataError, match="X has 60 records, y 59"):
        ECGClassifier(checkpoint, **INPUT).fit(source, has_wave[:59])
    with pytest.raises(DataError, match=r"y of shape \(60, 1, 1\)"):
        ECGClassifier(checkpoint, **INPUT).fit(source, has_wave[:, None, None])
    with pytest.raises(DataError, match="no label has both"):
        ECGClassifier(checkpoint, **INPUT).fit(source, np.zeros((60, 2)))
    with pytest.raises(NotFittedError):
        ECGClassifier(checkpoint, **INPUT).predict_proba(source)
