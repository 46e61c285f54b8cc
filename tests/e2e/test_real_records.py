"""From the open PhysioNet 2021 records to a CinC score, by the commands a user types."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.cli.main import main
from fairseq_ecg.data.labels import label_definition
from fairseq_ecg.data.store import Store
from tests.training import TINY_MODEL, TINY_RUN


@pytest.fixture(scope="module")
def records(shared: Path) -> Path:
    folder = shared / "data" / "real_ecg" / "cinc2021"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: the real records of PhysioNet 2021 cannot be tested")
    return folder


@pytest.fixture(scope="module")
def work(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared store and manifests of the 72 records."""
    work = tmp_path_factory.mktemp("real")
    assert main(["prepare", "physionet2021", str(records), str(work / "store")]) == 0
    split = ["manifest", "split", str(work / "store"), str(work / "manifests"), "--labels", "cinc2021"]
    assert main([*split, "--valid", "0.2", "--test", "0.2"]) == 0
    return work


@pytest.fixture(scope="module")
def pretrained(work: Path) -> Path:
    """20 updates of a small model, stopped after 12 and resumed."""
    run = work / "pretrained"
    common = [
        "train",
        "--config-name=w2v_cmsc_rlm",
        f"task.data={work / 'manifests'}",
        f"checkpoint.save_dir={run}",
        *TINY_MODEL,
        *TINY_RUN,
        "model.final_dim=8",
        "dataset.batch_size=4",
    ]
    assert main([*common, "optimization.max_update=12"]) == 0
    assert main([*common, "optimization.max_update=20"]) == 0
    return run


def table_of(records: Path) -> dict[str, dict[str, str]]:
    with (records / "records.csv").open(newline="") as file:
        return {row["record"]: row for row in csv.DictReader(file)}


def test_all_records_are_prepared_with_their_labels(records, work):
    store, table = Store.open(work / "store"), table_of(records)
    assert store.num_records == len(table) == 72
    for row in range(store.num_records):
        expected = table[store.record_id(row)]
        assert "|".join(store.labels(row)) == expected["dx"]
        assert store.read(row).shape == (12, int(expected["n_samples"]))


def test_flat_leads_are_flagged_and_only_those(work):
    store = Store.open(work / "store")
    flagged = {store.record_id(row): store.flags(row) for row in range(store.num_records)}
    flat = {name: flags for name, flags in flagged.items() if any("flat" in flag for flag in flags)}
    assert set(flat) == {"JS20004", "JS20008"}
    for flags in flat.values():
        assert all(lead in " ".join(flags) for lead in ("V2", "V4", "V6"))


def test_pretraining_resumes_on_real_records(pretrained):
    lines = [json.loads(line) for line in (pretrained / "log.jsonl").read_text().splitlines()]
    updates = [line["num_updates"] for line in lines if line["kind"] == "train_inner"]
    assert updates == list(range(1, 21))
    assert any("resumed u0000012" in line.get("text", "") for line in lines)
    assert all(np.isfinite(line["loss"]) for line in lines if line["kind"] == "train_inner")


def slow_challenge_score(labels, outputs, weights, normal):
    """The official definition, recording by recording and class by class."""

    def weighted(said):
        total = 0.0
        for label, output in zip(labels, said, strict=True):
            size = max(int((label | output).sum()), 1)
            for j in np.flatnonzero(label):
                for k in np.flatnonzero(output):
                    total += weights[j, k] / size
        return total

    always_normal = np.zeros_like(labels)
    always_normal[:, normal] = True
    inactive = weighted(always_normal)
    return (weighted(outputs) - inactive) / (weighted(labels) - inactive)


def test_fine_tuning_logs_the_score_of_its_written_predictions(work, pretrained, shared):
    run, arrays = work / "diagnosis", work / "arrays"
    weights_file = shared / "data" / "cinc2021" / "weights.csv"
    data = [f"task.data={work / 'manifests'}", "dataset.num_workers=0", "common.cpu=true"]
    score = ["criterion.report_cinc_score=True", f"criterion.weights_file={weights_file}"]
    tune = ["train", "--config-name=diagnosis", *data, *score, *TINY_RUN, *TINY_MODEL]
    tune += [f"model.model_path={pretrained}", f"checkpoint.save_dir={run}", "optimization.max_update=10"]
    assert main([*tune, "dataset.batch_size=8"]) == 0
    validate = [
        "validate",
        f"common_eval.path={run}",
        *data,
        "dataset.valid_subset=test",
        "dataset.batch_size=5",
    ]
    # A low threshold, so that the hardly trained model says something.
    validate += ["criterion.threshold=0.3", "common_eval.extract=[output,encoder_out]"]
    assert main([*validate, f"common_eval.results_path={arrays}"]) == 0

    logits, targets = np.load(arrays / "outputs_test.npy"), np.load(arrays / "targets_test.npy")
    rows = (arrays / "rows_test.tsv").read_text().splitlines()
    assert len(rows) - 1 == len(logits) == len(targets)
    outputs = 1 / (1 + np.exp(-logits.astype(np.float64))) > 0.3
    assert outputs.any()
    with weights_file.open(newline="") as file:
        table = list(csv.reader(file))
    weights = np.array([[float(cell) for cell in row[1:]] for row in table[1:]])
    normal = next(i for i, name in enumerate(table[0][1:]) if "426783006" in name.split("|"))
    expected = slow_challenge_score(targets > 0.5, outputs, weights, normal)
    logged = run_validation(validate)
    assert logged["cinc_score"] == pytest.approx(expected, abs=1e-6)

    definition = label_definition("cinc2021")
    assert targets.shape[1] == len(definition.names) == 26
    assert np.load(arrays / "encoder_out_test.npy").shape == (len(logits), 156, 16)


def run_validation(arguments: list[str]) -> dict[str, float]:
    """The same command once more, for the values it prints."""
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main([argument for argument in arguments if "extract" not in argument]) == 0
    values = {}
    for line in text.getvalue().splitlines():
        subset, name, value = line.split()
        assert subset == "test"
        values[name] = float(value)
    return values
