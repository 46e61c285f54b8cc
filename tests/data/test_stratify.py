"""Iterative stratification."""

import json

import numpy as np

from fairseq_ecg.data.stratify import stratified_folds


def test_the_reference_folds_are_reproduced(shared):
    folder = shared / "golden/ssl_data"
    config = json.loads((folder / "config.json").read_text())["stratify"]
    expected = np.load(folder / "io.npz")["stratify/fold"]
    found = stratified_folds(
        config["labels"], config["classes"], [1 / config["n_folds"]] * config["n_folds"], 0
    )
    np.testing.assert_array_equal(found, expected)


def test_every_label_has_its_share_and_an_empty_fold_stays_empty():
    rng = np.random.default_rng(0)
    labels = [sorted(set(rng.choice(5, 2, p=[0.6, 0.25, 0.1, 0.04, 0.01]).tolist())) for _ in range(2000)]
    fold = stratified_folds(labels, 5, [0.8, 0.2, 0.0], seed=3)
    assert set(fold.tolist()) == {0, 1}
    for label in range(5):
        held = np.array([label in classes for classes in labels])
        # One sample may go either way per label, and labels that share samples disturb each other.
        assert abs((held & (fold == 1)).sum() - 0.2 * held.sum()) <= 3


def test_samples_without_label_are_left_to_the_caller():
    assert stratified_folds([[], [0], []], 1, [0.5, 0.5], seed=0).tolist().count(-1) == 2
