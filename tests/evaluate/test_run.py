import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from fairseq_ecg.data.labels import label_definition
from fairseq_ecg.errors import ConfigError, DataError
from fairseq_ecg.evaluate.data import open_data
from fairseq_ecg.evaluate.run import Settings, _warnings, evaluate
from fairseq_ecg.evaluate.tables import check_writable, markdown_lines, text_lines, write_results
from fairseq_ecg.infer.load import Encoder
from fairseq_ecg.metrics.auroc import areas, micro_areas
from fairseq_ecg.metrics.cinc import builtin_table, challenge_score, record_sums
from tests.frozen import CODES, CONTRACT, make_manifests, make_model, save_checkpoint

FAST = Settings(num_resamples=50, min_positives=3)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    return make_manifests(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def encoder():
    return Encoder(model=make_model(), contract=CONTRACT, name="mine", sources=("elsewhere",))


@pytest.fixture(scope="module")
def evaluated(manifests, encoder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    data = open_data(manifests, "cinc2021")
    results = evaluate([encoder], data, FAST, out)
    write_results(results, out)
    return results, data, out


def test_every_number_can_be_recomputed_from_the_written_predictions(evaluated):
    results, data, out = evaluated
    table = builtin_table(2021)
    with np.load(out / "predictions.npz") as saved:
        names, target = saved["label_names"].tolist(), saved["target"]
        kept = [names.index(name) for name in results.labels]
        for row in results.rows:
            probability = saved["probability"][saved["encoder"].tolist().index(row.encoder)]
            both = areas(probability[:, kept], target[:, kept])
            assert row.metrics["auroc_macro"].value == pytest.approx(np.mean(both.auroc), abs=1e-12)
            assert row.metrics["auprc_macro"].value == pytest.approx(np.mean(both.auprc), abs=1e-12)
            micro = micro_areas(probability[:, kept], target[:, kept])
            assert row.metrics["auroc_micro"].value == pytest.approx(micro[0], abs=1e-12)
            assert row.metrics["auprc_micro"].value == pytest.approx(micro[1], abs=1e-12)
            said = probability > row.threshold
            sums = record_sums(table.weights, target > 0.5, said, table.normal_index).sum(axis=0)
            assert row.metrics["cinc_score"].value == pytest.approx(float(challenge_score(sums)), abs=1e-12)
            assert list(row.per_label) == results.labels
        assert saved["record_id"].tolist() == [item.record_id for item in data.splits["test"].inputs]


def test_an_encoder_stands_beside_its_random_twin_with_intervals(evaluated):
    results, data, _ = evaluated
    mine, twin = results.rows
    assert (mine.encoder, mine.twin, mine.is_random) == ("mine", "random init (seed 0)", False)
    assert (twin.encoder, twin.twin, twin.is_random) == ("random init (seed 0)", None, True)
    for name, difference in mine.differences.items():
        expected = mine.metrics[name].value - twin.metrics[name].value
        assert difference.value == pytest.approx(expected)
        assert difference.low <= difference.high
        assert difference.p_value <= difference.p_holm <= 1.0
    for interval in mine.metrics.values():
        assert interval.low <= interval.value <= interval.high
    assert results.num_records["test"] == len(data.splits["test"]) == 40
    assert results.num_patients == {"train": 30, "valid": 10, "test": 20}
    assert not twin.differences


def test_rare_labels_are_named_and_left_out(evaluated):
    results, data, _ = evaluated
    definition = label_definition("cinc2021")
    present = [
        name for name, codes in zip(definition.names, definition.codes, strict=True) if codes & set(CODES)
    ]
    assert results.labels == present
    assert len(results.left_out) == 23
    assert set(results.left_out.values()) == {0}
    with pytest.raises(DataError, match="no label has 100 positive test records"):
        evaluate([], data, replace(FAST, min_positives=100))


def test_the_encoder_tells_noise_from_waves_and_the_data_are_called_synthetic(evaluated):
    results, _, out = evaluated
    assert results.rows[0].metrics["auroc_macro"].value > 0.8
    assert results.is_synthetic
    for lines in (text_lines(results), markdown_lines(results)):
        assert any("SYNTHETIC" in line for line in lines)
    stored = json.loads((out / "results.json").read_text())
    assert stored["is_synthetic"] is True
    assert (
        stored["rows"][0]["metrics"]["auroc_macro"]["value"] == results.rows[0].metrics["auroc_macro"].value
    )
    rows = [line.split("\t") for line in (out / "results.tsv").read_text().splitlines()]
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(rows) == 1 + 3 * 5
    assert (out / "results.md").read_text().startswith("# Evaluation (synthetic data)\n")


def test_the_same_seed_gives_the_same_numbers(evaluated, encoder):
    results, data, _ = evaluated
    again = evaluate([encoder], data, FAST)
    assert again.to_dict() == results.to_dict()
    other = evaluate([encoder], data, replace(FAST, seed=1))
    assert other.rows[0].metrics["auroc_macro"].value == results.rows[0].metrics["auroc_macro"].value
    assert other.rows[1].metrics["auroc_macro"] != results.rows[1].metrics["auroc_macro"]


def test_test_labels_choose_nothing(evaluated, encoder):
    """Other test targets give the same probabilities, strength and threshold."""
    results, data, _ = evaluated
    test = data.splits["test"]
    order = np.random.default_rng(0).permutation(len(test))
    changed = replace(data, splits={**data.splits, "test": replace(test, target=test.target[order])})
    other = evaluate([encoder], changed, replace(FAST, min_positives=1))
    assert other.rows[0].strength == results.rows[0].strength
    assert other.rows[0].threshold == results.rows[0].threshold
    assert other.rows[0].metrics["auroc_macro"] != results.rows[0].metrics["auroc_macro"]


def test_encoders_of_one_architecture_share_a_twin_and_holm_counts_all(evaluated, encoder):
    _, data, _ = evaluated
    second = replace(encoder, name="second", model=make_model(seed=3))
    wide = replace(encoder, name="wide", model=make_model(encoder_ffn_embed_dim=48))
    results = evaluate([encoder, second, wide], data, FAST)
    assert [row.encoder for row in results.rows] == [
        "mine",
        "second",
        "wide",
        "random init (seed 0)",
        "random init (seed 0), as wide",
    ]
    assert results.rows[1].twin == "random init (seed 0)"
    p_values = [item.p_value for row in results.rows for item in row.differences.values()]
    smallest = min(p_values)
    p_holm = [item.p_holm for row in results.rows for item in row.differences.values()]
    assert min(p_holm) == pytest.approx(min(1.0, smallest * len(p_values)))
    with pytest.raises(ConfigError, match="given twice"):
        evaluate([encoder, encoder], data, FAST)


def test_shared_sources_and_patients_are_warned_of(evaluated, encoder, manifests):
    results, data, _ = evaluated
    assert results.warnings == []
    unknown = evaluate([replace(encoder, sources=())], data, FAST)
    assert "does not say which data it was trained on" in unknown.warnings[0]
    near = replace(encoder, sources=("synthetic",))
    (warning,) = evaluate([near], data, FAST).warnings
    assert "was trained on synthetic" in warning
    assert "cannot be checked here" in warning
    for subset, count in (("train", 0), ("test", 20)):
        config = {"task": {"data": str(manifests)}, "dataset": {"train_subset": subset}}
        (warning,) = evaluate([replace(near, config=config)], data, FAST).warnings
        assert f"{count} of 20 test patients are in its training manifest" in warning


@pytest.mark.parametrize("key", [("model", "model_path"), ("checkpoint", "finetune_from_model")])
def test_patients_seen_in_pre_training_are_counted_too(evaluated, encoder, manifests, tmp_path, key):
    _, data, _ = evaluated
    pretrained = save_checkpoint(tmp_path / "pretrained", make_model())
    stored = pretrained / "checkpoints" / "checkpoint_last" / "config.yaml"
    config = yaml.safe_load(stored.read_text())
    config |= {"task": {"data": str(manifests)}, "dataset": {"train_subset": "test"}}
    stored.write_text(yaml.safe_dump(config))
    group, name = key
    own = {"task": {"data": str(manifests)}, "dataset": {"train_subset": "train"}}

    def warned(start: Path) -> str:
        tuned = replace(encoder, sources=("synthetic",), config={**own, group: {name: str(start)}})
        (warning,) = _warnings([tuned], data, FAST)
        return warning

    in_manifest = "of 20 test patients are in its training manifest"
    assert f"20 {in_manifest} {manifests / 'train.tsv'} or {manifests / 'test.tsv'}" in warned(pretrained)
    moved = warned(tmp_path / "moved")
    assert f"0 {in_manifest} {manifests / 'train.tsv'}; {tmp_path / 'moved'}, which it" in moved
    stored.write_text(yaml.safe_dump({**config, "task": {"data": str(tmp_path)}}))
    assert f"0 {in_manifest} {manifests / 'train.tsv'}; {tmp_path / 'test.tsv'}, which" in warned(pretrained)


def test_test_patients_in_the_training_split_are_warned_of(evaluated, encoder):
    _, data, _ = evaluated
    leaky = replace(data, splits={**data.splits, "valid": data.splits["test"]})
    results = evaluate([encoder], leaky, FAST)
    assert "20 of 20 test patients are also in the train or valid split" in results.warnings[0]


def test_other_labels_have_no_challenge_score(encoder, manifests):
    data = open_data(manifests, str(manifests / "label_def.csv"))
    results = evaluate([encoder], data, FAST)
    assert "cinc_score" not in results.rows[0].metrics
    assert results.rows[0].threshold is None
    assert "labels are not those" in results.cinc
    assert "CinC score" not in text_lines(results)[0]
    assert "macro AUROC" in text_lines(results)[0]
    older = evaluate([encoder], open_data(manifests, "cinc2020"), FAST)
    assert older.cinc.startswith("2020 weights, all 24 classes")


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="--protocol linaer: did you mean 'linear'"):
        Settings(protocols=("head", "linaer"))
    with pytest.raises(ConfigError, match="--protocol head,head: name every protocol once"):
        Settings(protocols=("head", "head"))
    with pytest.raises(ConfigError, match="--resamples 0"):
        Settings(num_resamples=0)
    with pytest.raises(ConfigError, match="--min-positives 0"):
        Settings(min_positives=0)


def test_results_are_never_overwritten_unasked(tmp_path):
    check_writable(tmp_path / "new", False)
    (tmp_path / "new" / "results.tsv").write_text("")
    with pytest.raises(DataError, match=r"results\.tsv exists"):
        check_writable(tmp_path / "new", False)
    check_writable(tmp_path / "new", True)
    with pytest.raises(DataError, match="cannot be written"):
        check_writable(tmp_path / "new" / "results.tsv", False, ())
