"""The protocol ``head``: a checkpoint's own classifier, record by record."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fairseq_ecg.cli.main import main
from fairseq_ecg.data.labels import label_definition
from fairseq_ecg.data.store import Store
from fairseq_ecg.errors import CheckpointError, ConfigError
from fairseq_ecg.evaluate.data import open_data
from fairseq_ecg.evaluate.protocols import THRESHOLDS
from fairseq_ecg.evaluate.run import Settings, evaluate
from fairseq_ecg.evaluate.tables import markdown_lines, text_lines
from fairseq_ecg.infer.embed import classify
from fairseq_ecg.infer.load import Encoder
from fairseq_ecg.metrics.cinc import builtin_table
from tests.frozen import CONTRACT, NUM_SAMPLES, make_classifier, make_manifests, make_model, save_checkpoint

NAMES = label_definition("cinc2021").names
FAST = Settings(protocols=("head",), num_resamples=50, min_positives=3)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    return make_manifests(tmp_path_factory.mktemp("head"))


@pytest.fixture(scope="module")
def tuned():
    model = make_classifier(num_labels=len(NAMES))
    return Encoder(
        model=model, contract=CONTRACT, name="tuned", sources=("elsewhere",), label_names=NAMES, batch_size=7
    )


@pytest.fixture(scope="module")
def data(manifests):
    return open_data(manifests, "cinc2021")


def slow_probabilities(model, store, record_id):
    """One record: every segment alone through the model, sigmoid, mean."""
    row = next(row for row in range(store.num_records) if store.record_id(row) == record_id)
    signal = store.read(row)
    answers = []
    for start in range(0, signal.shape[1], NUM_SAMPLES):
        with torch.no_grad():
            logits = model(torch.from_numpy(signal[None, :, start : start + NUM_SAMPLES])).logits[0]
        answers.append([1 / (1 + np.exp(-float(value))) for value in logits])
    return np.mean(answers, axis=0)


def slow_score(table, labels, said):
    """The Challenge's definition, pair by pair."""

    def earned(answers):
        total = 0.0
        for label, answer in zip(labels, answers, strict=True):
            size = max((label | answer).sum(), 1)
            for j in np.flatnonzero(label):
                for k in np.flatnonzero(answer):
                    total += table.weights[j, k] / size
        return total

    normal = np.zeros_like(labels)
    normal[:, table.normal_index] = True
    return (earned(said) - earned(normal)) / (earned(labels) - earned(normal))


def test_a_record_has_the_mean_probability_of_its_segments(tuned, data, manifests, tmp_path):
    evaluate([tuned], data, FAST, tmp_path)
    store = Store.open(manifests.parent / "store")
    with np.load(tmp_path / "predictions.npz") as saved:
        assert (saved["encoder"].tolist(), saved["protocol"].tolist()) == (["tuned"], ["head"])
        for record_id, probability in zip(saved["record_id"], saved["probability"][0], strict=True):
            expected = slow_probabilities(tuned.model, store, record_id)
            np.testing.assert_allclose(probability, expected, atol=1e-6)


def test_the_threshold_is_the_best_one_of_the_validation_split(tuned, data, tmp_path):
    (row,) = evaluate([tuned], data, FAST, tmp_path).rows
    table = builtin_table(2021)
    valid, test = data.splits["valid"], data.splits["test"]
    answers = classify(tuned, valid.inputs)
    scores = [slow_score(table, valid.target > 0.5, answers > threshold) for threshold in THRESHOLDS]
    assert row.threshold == THRESHOLDS[int(np.argmax(scores))]
    assert len(set(np.round(scores, 9))) > 3, "the thresholds must matter"
    with np.load(tmp_path / "predictions.npz") as saved:
        expected = slow_score(table, test.target > 0.5, saved["probability"][0] > row.threshold)
    assert row.metrics["cinc_score"].value == pytest.approx(expected, abs=1e-9)


def test_a_head_has_intervals_but_no_twin_and_no_differences(tuned, data):
    results = evaluate([tuned], data, FAST)
    (row,) = results.rows
    assert (row.protocol, row.twin, row.is_random, row.strength, row.differences) == (
        "head",
        None,
        False,
        None,
        {},
    )
    for interval in row.metrics.values():
        assert interval.low <= interval.value <= interval.high
    assert len(results.labels) == 3
    assert len(results.left_out) == 23
    assert list(row.per_label) == results.labels
    assert any("own classifier" in line for line in text_lines(results))


def test_both_protocols_stand_in_one_table(tuned, data, tmp_path):
    both = replace(FAST, protocols=("linear", "head"))
    results = evaluate([tuned], data, both, tmp_path)
    assert [(row.encoder, row.protocol, row.twin) for row in results.rows] == [
        ("tuned", "linear", "random init (seed 0)"),
        ("tuned", "head", None),
        ("random init (seed 0)", "linear", None),
    ]
    linear, head, twin = results.rows
    assert head == evaluate([tuned], data, FAST).rows[0]
    alone = evaluate([tuned], data, replace(FAST, protocols=("linear",)))
    assert [linear, twin] == alone.rows
    with np.load(tmp_path / "predictions.npz") as saved:
        assert saved["protocol"].tolist() == ["linear", "head", "linear"]
        assert saved["probability"].shape == (3, 40, 26)
    head_line = next(line for line in markdown_lines(results) if line.startswith("| encoder"))
    assert head_line.startswith("| encoder | protocol | n | patients | macro AUROC")


def test_other_test_labels_choose_no_other_threshold(tuned, data):
    test = data.splits["test"]
    order = np.random.default_rng(0).permutation(len(test))
    changed = replace(data, splits={**data.splits, "test": replace(test, target=test.target[order])})
    (row,), (other,) = evaluate([tuned], data, FAST).rows, evaluate([tuned], changed, FAST).rows
    assert other.threshold == row.threshold
    assert other.metrics != row.metrics


def test_a_checkpoint_without_a_head_or_of_other_labels_is_refused(tuned, data):
    plain = Encoder(model=make_model(), contract=CONTRACT, name="plain")
    with pytest.raises(
        CheckpointError, match="plain: EcgTransformer has no classifier head; give a fine-tuned"
    ):
        evaluate([tuned, plain], data, FAST)
    swapped = (NAMES[1], NAMES[0], *NAMES[2:])
    with pytest.raises(
        ConfigError, match=r"tuned was trained on 26 labels.*label 0 is 'AFL' there and 'AF' here"
    ):
        evaluate([replace(tuned, label_names=swapped)], data, FAST)
    three = replace(tuned, model=make_classifier(), label_names=())
    with pytest.raises(ConfigError, match="tuned answers 3 labels, the data have 26; give --labels"):
        evaluate([three], data, FAST)
    named = replace(three, label_names=NAMES[:3])
    with pytest.raises(
        ConfigError, match="tuned was trained on 3 labels, the data have 26; label 3 is 'none' there"
    ):
        evaluate([named], data, FAST)


def test_a_checkpoint_that_does_not_name_its_labels_is_warned_of(tuned, data):
    assert evaluate([tuned], data, FAST).warnings == []
    (warning,) = evaluate([replace(tuned, label_names=())], data, FAST).warnings
    assert warning.startswith("tuned does not name its labels")


def test_the_command_runs_both_protocols_of_a_fine_tuned_checkpoint(manifests, tmp_path, capsys):
    names = ("label0", "label1", "label2")
    run = save_checkpoint(tmp_path / "run", make_classifier(), sources=("elsewhere",), label_names=names)
    labels = ["--labels", str(manifests / "label_def.csv")]
    command = [
        "evaluate",
        str(run),
        "--data",
        str(manifests),
        *labels,
        "--resamples",
        "20",
        "--device",
        "cpu",
    ]
    assert main([*command, "--protocol", "linear,head", "--out", str(tmp_path / "scores")]) == 0
    shown = capsys.readouterr().out
    assert "own classifier" in shown
    stored = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert [row["protocol"] for row in stored["rows"]] == ["linear", "head", "linear"]
    table = (tmp_path / "scores" / "results.tsv").read_text().splitlines()
    assert {line.split("\t")[1] for line in table[1:]} == {"linear", "head"}
    assert not any(line.split("\t")[1:3] == ["head", "difference"] for line in table)

    other = save_checkpoint(tmp_path / "other", make_classifier(), label_names=("a", "b", "c"))
    argv = ["evaluate", str(other), *command[2:], "--protocol", "head", "--out", str(tmp_path / "no")]
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "was trained on 3 labels, the data have 3; label 0 is 'a' there and 'label0' here" in line
    plain = save_checkpoint(tmp_path / "plain", make_model())
    assert main(["evaluate", str(plain), *argv[2:]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no classifier head" in line
    assert main(["evaluate", str(plain), *argv[2:], "--protocol", "haed"]) == 2
    assert "--protocol haed: did you mean 'head'?" in capsys.readouterr().err
