import numpy as np
import pytest
import torch

from fairseq_ecg.errors import ConfigError, DataError
from fairseq_ecg.metrics.cinc import (
    EQUIVALENT_2020,
    SINUS_RHYTHM,
    CincConfig,
    CincScore,
    builtin_table,
    challenge_score,
    confusion,
    read_table,
    record_sums,
)


def slow_sum(weights, labels, outputs):
    """The definition, pair by pair."""
    total = 0.0
    for true, said in zip(labels, outputs, strict=True):
        share = max(sum(true | said), 1)
        for j in range(len(weights)):
            for k in range(len(weights)):
                if true[j] and said[k] and not np.isnan(weights[j, k]):
                    total += weights[j, k] / share
    return total


def case(seed, num_classes=4):
    generator = np.random.default_rng(seed)
    weights = generator.random((num_classes, num_classes))
    weights[0, 1] = np.nan
    return weights, generator.random((30, num_classes)) < 0.4, generator.random((30, num_classes)) < 0.3


def test_the_sums_are_the_definition_with_asymmetric_weights():
    weights, labels, outputs = case(0)
    inactive = np.zeros_like(labels)
    inactive[:, 2] = True
    expected = [slow_sum(weights, labels, answer) for answer in (outputs, labels, inactive)]
    sums = record_sums(weights, labels, outputs, normal_index=2).sum(axis=0)
    np.testing.assert_allclose(sums, expected, rtol=1e-12)
    observed, correct, nothing = expected
    assert challenge_score(sums) == pytest.approx((observed - nothing) / (correct - nothing), abs=1e-12)
    assert np.nansum(weights * confusion(labels, outputs)) == pytest.approx(observed, abs=1e-12)


def test_labels_score_one_sinus_rhythm_zero_and_nothing_to_win_zero():
    table = builtin_table(2021)
    labels = np.random.default_rng(1).random((50, 26)) < 0.1
    normal = np.zeros_like(labels)
    normal[:, table.normal_index] = True
    for outputs, expected in ((labels, 1.0), (normal, 0.0)):
        sums = record_sums(table.weights, labels, outputs, table.normal_index).sum(axis=0)
        assert challenge_score(sums) == pytest.approx(expected, abs=1e-12)
    sums = record_sums(table.weights, normal, normal, table.normal_index).sum(axis=0)
    assert challenge_score(sums) == 0.0


def test_the_official_tables_have_their_classes():
    table = builtin_table(2021)
    assert (len(table), table.normal_index) == (26, 14)
    assert table.names[4] == "164909002|733534002"
    assert np.array_equal(table.weights, table.weights.T)
    older = builtin_table(2020)
    assert (len(older), older.normal_index) == (24, 20)
    for code, representative in EQUIVALENT_2020.items():
        index = older.names.index(representative)
        assert older.codes[index] == {code, representative}
    assert np.all(np.diag(older.weights) == 1.0)
    with pytest.raises(ConfigError, match="year=2019"):
        builtin_table(2019)


def test_labels_in_any_order_find_their_columns_and_other_labels_are_refused():
    table = builtin_table(2021)
    codes = [*table.codes[::-1], frozenset({"1"})]
    assert table.columns(codes) == list(range(25, -1, -1))
    with pytest.raises(
        DataError, match=r"2 of its 26 classes are no label of the data \(164889003, 164890007\)"
    ):
        table.columns(table.codes[2:])
    with pytest.raises(DataError, match=r"164909002\|733534002"):
        table.columns([codes - {"733534002"} for codes in table.codes])


def write(tmp_path, text):
    path = tmp_path / "weights.csv"
    path.write_text(text)
    return path


def test_a_table_is_read_with_joined_names_and_unusable_cells(tmp_path):
    path = write(tmp_path, f", b|a , {SINUS_RHYTHM}\nb|a, 1.0, x\n{SINUS_RHYTHM},0.25,inf\n")
    table = read_table(path)
    assert table.names == ("a|b", SINUS_RHYTHM)
    np.testing.assert_array_equal(table.weights, [[1.0, np.nan], [0.25, np.nan]])
    np.testing.assert_array_equal(table.multi_hot([{"a"}, {"c", SINUS_RHYTHM}]), [[1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line"),
        (",a,b\nb,1,0\na,0,1\n", "row names"),
        (",a,b\na,1\nb,0,1\n", "row a must have 2 weights"),
        (",a,a|b\na,1,0\na|b,0,1\n", "repeats a code"),
    ],
)
def test_a_malformed_table_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path, text))


def test_a_missing_table_and_contradicting_equivalents_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="are one class but their weights differ"):
        read_table(write(tmp_path, ",713427006,59118001\n713427006,1,1\n59118001,0.5,1\n"), year=2020)


def batch(labels, outputs):
    return {"logits": torch.tensor(outputs).float() * 2 - 1, "target": torch.tensor(labels).float()}


def test_the_metric_streams_over_batches_and_ranks():
    table = builtin_table(2021)
    generator = np.random.default_rng(3)
    labels, outputs = generator.random((40, 26)) < 0.1, generator.random((40, 26)) < 0.1
    ranks = [CincScore(CincConfig()), CincScore(CincConfig())]
    for start in range(0, 40, 8):
        ranks[start % 16 // 8].update(batch(labels[start : start + 8], outputs[start : start + 8]))
    merged = CincScore(CincConfig())
    merged.load_state({"sums": torch.cat([rank.state()["sums"] for rank in ranks])})
    sums = record_sums(table.weights, labels, outputs, table.normal_index).sum(axis=0)
    assert merged.compute()["cinc_score"] == pytest.approx(float(challenge_score(sums)), abs=1e-12)
    merged.reset()
    assert merged.compute() == {"cinc_score": 0.0}


def test_the_metric_reads_label_columns_by_their_codes():
    table = builtin_table(2021)
    generator = np.random.default_rng(4)
    labels, outputs = generator.random((40, 26)) < 0.1, generator.random((40, 26)) < 0.1
    plain, shuffled = CincScore(CincConfig()), CincScore(CincConfig())
    order = generator.permutation(26)
    shuffled.check_labels([table.codes[index] for index in order])
    plain.update(batch(labels, outputs))
    shuffled.update(batch(labels[:, order], outputs[:, order]))
    assert plain.compute() == shuffled.compute()


def test_the_metric_takes_a_custom_table_and_threshold(tmp_path):
    path = write(tmp_path, f",a,{SINUS_RHYTHM}\na,1,0.5\n{SINUS_RHYTHM},0.5,1\n")
    labels = np.array([[True, False]])
    scores = {}
    for threshold in (0.5, 0.9):
        metric = CincScore(CincConfig(weights_file=str(path), threshold=threshold))
        metric.update(batch(labels, labels))
        scores[threshold] = metric.compute()["cinc_score"]
    assert scores[0.5] == 1.0
    assert scores[0.9] < 0.0
    assert CincScore(CincConfig(year=2020)).table.names == builtin_table(2020).names


def test_the_metric_refuses_impossible_input(tmp_path):
    metric = CincScore(CincConfig())
    with pytest.raises(DataError, match="4 classes but the weight table has 26"):
        metric.update({"logits": torch.zeros(2, 4), "target": torch.zeros(2, 4)})
    with pytest.raises(DataError, match="NaN logits"):
        metric.update({"logits": torch.full((1, 26), torch.nan), "target": torch.zeros(1, 26)})
    partial = torch.zeros(1, 26)
    partial[0, 3] = torch.nan
    with pytest.raises(DataError, match="1 records have labels for some classes"):
        metric.update({"logits": torch.zeros(1, 26), "target": partial})
    with pytest.raises(DataError, match="no class is sinus rhythm"):
        CincScore(CincConfig(weights_file=str(write(tmp_path, ",a\na,1\n"))))
    with pytest.raises(ConfigError, match="year=2019"):
        CincConfig(year=2019)
    with pytest.raises(ConfigError, match="threshold=-1"):
        CincConfig(threshold=-1)


def test_unlabelled_records_earn_nothing():
    metric = CincScore(CincConfig())
    metric.update({"logits": torch.zeros(3, 26), "target": torch.full((3, 26), torch.nan)})
    metric.update({"logits": torch.zeros(0, 26), "target": torch.zeros(0, 26)})
    assert metric.state()["sums"].tolist() == [[0.0, 0.0, 0.0]]
