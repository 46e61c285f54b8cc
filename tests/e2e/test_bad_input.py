"""Bad input by the commands a user types: records are left out or repaired, the rest is one line."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from fairseq_ecg.cli.main import main
from fairseq_ecg.data.store import Store
from fairseq_ecg.trainer.checkpoint import read_tensors
from fairseq_ecg.trainer.runfolder import held
from tests.data.wfdb_files import samples, write_record
from tests.tiny_data import NUM_LABELS, make_manifests
from tests.training import TINY_MODEL, TINY_RUN

PRETRAINING = ("model.latent_vars=6", "model.final_dim=8", "model.num_negatives=5", "model.mask_length=3")


def pretrain(data: Path, save_dir: Path, *overrides: str) -> list[str]:
    common = [f"task.data={data}", f"checkpoint.save_dir={save_dir}", *TINY_MODEL, *TINY_RUN, *PRETRAINING]
    return ["train", "--config-name=w2v_cmsc_rlm", *common, "optimization.max_update=2", *overrides]


def diagnose(data: Path, save_dir: Path, *overrides: str) -> list[str]:
    common = [f"task.data={data}", f"checkpoint.save_dir={save_dir}", *TINY_MODEL, *TINY_RUN]
    limits = ["optimization.max_update=2", "dataset.valid_subset=valid", f"model.num_labels={NUM_LABELS}"]
    return ["train", "--config-name=diagnosis", *common, *limits, *overrides]


def validate(checkpoint: Path, *overrides: str) -> list[str]:
    return ["validate", f"common_eval.path={checkpoint}", "common.cpu=true", *overrides]


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Run a command that must be refused; returns its one line."""

    def run(argv: list[str]) -> str:
        capsys.readouterr()
        assert main([str(word) for word in argv]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        prefix = f"fairseq-ecg {argv[0]}: error: "
        assert line.startswith(prefix)
        return line.removeprefix(prefix)

    return run


@pytest.fixture
def data(manifest_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny manifests and their store, to damage."""
    shutil.copytree(manifest_dir.parent, tmp_path / "data")
    return tmp_path / "data" / manifest_dir.name


@pytest.fixture(scope="module")
def finished(manifest_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    assert main(diagnose(manifest_dir, run)) == 0
    return run


@pytest.fixture
def trained(finished: Path, tmp_path: Path) -> Path:
    """A copy of a run of two updates, to damage."""
    shutil.copytree(finished, tmp_path / "trained", symlinks=True)
    return tmp_path / "trained"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for logs, which only grow."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("log.jsonl", ".lock")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# Records ----------------------------------------------------------------------------------------------------


def missing(raw: Path) -> None:
    write_record(raw, "A0002").with_suffix(".mat").unlink()


def truncated(raw: Path) -> None:
    path = write_record(raw, "A0002").with_suffix(".mat")
    path.write_bytes(path.read_bytes()[:5000])


def wrong_checksum(raw: Path) -> None:
    path = write_record(raw, "A0002").with_suffix(".mat")
    content = bytearray(path.read_bytes())
    content[3001] ^= 64
    path.write_bytes(content)


def nan_lead(raw: Path) -> None:
    digital = samples()
    digital[6, 10:20] = -32768
    write_record(raw, "A0002", digital)


def all_zero(raw: Path) -> None:
    write_record(raw, "A0002", np.zeros_like(samples()))


def duplicate(raw: Path) -> None:
    write_record(raw / "sub", "A0001", samples(seed=5))


@pytest.mark.parametrize(
    ("damage", "counted", "reason"),
    [
        (missing, "1 missing file", "A0002.mat: named by A0002.hea, cannot be read: No such file"),
        (
            truncated,
            "1 truncated",
            "bytes hold 207 samples of 12 leads, the header says 1000; fetch the file again",
        ),
        (wrong_checksum, "1 corrupt", "checksum"),
        (nan_lead, "1 nan lead", "nan lead V1"),
        (all_zero, "1 constant", "every lead is constant"),
        (duplicate, "1 duplicate", "duplicate record id: "),
    ],
)
def test_a_record_that_cannot_be_used_is_left_out_counted_and_listed(
    damage, counted, reason, tmp_path, capsys, mistake
):
    raw, store = tmp_path / "raw", tmp_path / "store"
    write_record(raw, "A0001", samples(seed=1))
    damage(raw)
    assert main(["prepare", "physionet2021", str(raw), str(store)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert f"1 of 2 records, 0.00 hours (cpsc_2018: 1); left out: {counted}" in shown.out
    assert str(store / "rejected.tsv") in shown.out
    ((record, path, why, action),) = rejected_rows(store)
    assert record == Path(path).stem
    assert Path(path).is_relative_to(raw)
    assert reason in why
    assert action == "left out"
    opened = Store.open(store)
    np.testing.assert_array_equal(np.rint(opened.read(0) * 1000), samples(seed=1))
    if damage is not nan_lead:
        strict = [str(tmp_path / "strict"), "--policy-unreadable", "error"]
        assert reason in mistake(["prepare", "physionet2021", str(raw), *strict])
        assert not (tmp_path / "strict").exists()


def rejected_rows(folder: Path) -> list[list[str]]:
    with (folder / "rejected.tsv").open(newline="") as file:
        return list(csv.reader(file, delimiter="\t"))[1:]


def prepared_beside_a_good_one(tmp_path: Path, digital: np.ndarray, **options: object) -> Store:
    write_record(tmp_path / "raw", "A0001", samples(seed=1))
    write_record(tmp_path / "raw", "A0002", digital, **options)
    assert main(["prepare", "physionet2021", str(tmp_path / "raw"), str(tmp_path / "store")]) == 0
    return Store.open(tmp_path / "store")


def test_an_all_zero_lead_is_kept_as_zeros_flagged_and_listed(tmp_path, capsys):
    digital = samples()
    digital[3] = 0
    store = prepared_beside_a_good_one(tmp_path, digital)
    assert store.flags(1) == ("flat:aVR",)
    assert not store.read(1)[3].any()
    ((record, _, reason, action),) = rejected_rows(store.path)
    assert (record, reason, action) == ("A0002", "flat lead aVR", "set to zero")
    assert "repaired: 1 flat lead" in capsys.readouterr().out


def test_a_257_hz_record_is_resampled_flagged_and_counted(tmp_path, capsys):
    store = prepared_beside_a_good_one(tmp_path, samples(num_samples=514), sampling_rate=257)
    assert store.flags(1) == ("resampled:257",)
    assert store.read(1).shape == (12, 1000)
    assert "repaired: 1 resampled" in capsys.readouterr().out


def test_a_3_lead_record_gets_derived_leads_and_zeros_and_is_listed(tmp_path, capsys):
    digital = samples(3)
    store = prepared_beside_a_good_one(tmp_path, digital, leads=("V1", "II", "I"))
    signal = np.rint(store.read(1) * 1000)
    np.testing.assert_array_equal(signal[[6, 1, 0]], digital)
    np.testing.assert_array_equal(signal[2], digital[1].astype(int) - digital[2])
    assert not signal[7:].any()
    assert store.leads_present(1) == ("I", "II", "III", "aVR", "aVL", "aVF", "V1")
    assert {"missing:V2", "missing:V6", "derived:aVF"} <= set(store.flags(1))
    ((record, _, reason, action),) = rejected_rows(store.path)
    assert (record, reason, action) == ("A0002", "missing lead V2,V3,V4,V5,V6", "set to zero")
    assert "repaired: 1 missing lead" in capsys.readouterr().out


def test_a_folder_without_usable_records_is_one_error_and_leaves_nothing(tmp_path, mistake):
    (tmp_path / "empty").mkdir()
    store = tmp_path / "store"
    line = mistake(["prepare", "physionet2021", tmp_path / "empty", store])
    assert f"{tmp_path / 'empty'}: no .hea file in it or below; give the folder of" in line
    missing(tmp_path / "bad")
    line = mistake(["prepare", "physionet2021", tmp_path / "bad", store])
    assert "none of 1 records can be used, the first because: A0002" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "empty"]


# What is written --------------------------------------------------------------------------------------------


def test_existing_output_is_kept_without_overwrite(tmp_path, data, trained, capsys, mistake):
    write_record(tmp_path / "raw", "A0001")
    prepare = ["prepare", "physionet2021", str(tmp_path / "raw"), str(tmp_path / "store")]
    segments = ["--segment-sec", "1", "--valid", "0", "--test", "0"]
    split = ["manifest", "split", str(tmp_path / "store"), str(tmp_path / "split"), *segments]
    pairs = ["manifest", "pairs", str(data), str(tmp_path / "pairs")]
    embed = ["embed", str(trained), str(data / "test.tsv"), str(tmp_path / "out.npz")]
    few = ["--min-positives", "1", "--resamples", "5"]
    evaluate = ["evaluate", str(trained), "--data", str(data), "--out", str(tmp_path / "scores"), *few]
    for command in (prepare, split, pairs, embed, evaluate):
        assert main(command) == 0, command
        before = contents(tmp_path)
        line = mistake(command)
        assert " exists; choose another" in line
        assert "--overwrite" in line
        assert contents(tmp_path) == before
        assert main([*command, "--overwrite"]) == 0, command
        capsys.readouterr()


def test_extracted_arrays_are_kept_without_overwrite(tmp_path, trained, mistake, capsys):
    extract = ["common_eval.extract=[output]", f"common_eval.results_path={tmp_path / 'arrays'}"]
    assert main(validate(trained, *extract)) == 0
    before = contents(tmp_path / "arrays")
    assert before.keys() == {"outputs_valid.npy", "targets_valid.npy", "rows_valid.tsv"}
    line = mistake(validate(trained, *extract, "criterion.threshold=0.1"))
    assert f"{tmp_path / 'arrays' / 'outputs_valid.npy'} exists" in line
    assert "common_eval.overwrite=true" in line
    assert contents(tmp_path / "arrays") == before
    assert main(validate(trained, *extract, "common_eval.overwrite=true")) == 0


def test_output_that_cannot_be_written_is_refused_before_any_work(tmp_path, data, trained, mistake):
    (tmp_path / "file").write_text("not a folder")
    write_record(tmp_path / "raw", "A0001")
    below = tmp_path / "file" / "out"
    store = data.parent / "store"
    for command in (
        ["prepare", "physionet2021", tmp_path / "raw", below],
        ["manifest", "split", store, below],
        ["manifest", "pairs", data, below],
        ["embed", trained, data / "test.tsv", below.with_suffix(".npz")],
        ["evaluate", trained, "--data", data, "--out", below],
        diagnose(data, below),
        diagnose(data, tmp_path / "run", f"common.log_file={below}"),
        validate(trained, "common_eval.extract=[output]", f"common_eval.results_path={below}"),
    ):
        line = mistake(command)
        assert str(tmp_path / "file") in line
        assert any(remedy in line for remedy in ("choose another", "choose a folder", "make it first")), line
    assert (tmp_path / "file").read_text() == "not a folder"
    line = mistake(["embed", trained, data / "test.tsv", "/proc/out.npz"])
    assert "/proc/out.npz cannot be written: " in line


def test_a_run_does_not_touch_the_folder_of_another_run(data, trained, tmp_path, mistake):
    before = contents(trained)
    line = mistake(pretrain(data, trained, "optimization.max_update=4"))
    assert "choose another checkpoint.save_dir" in line
    line = mistake(diagnose(data, trained, "model.encoder_layers=1", "optimization.max_update=4"))
    assert "does not fit the model" in line
    assert contents(trained) == before


def test_two_runs_at_a_time_cannot_share_a_folder(data, trained, mistake):
    before = contents(trained)
    with held(trained):
        line = mistake(diagnose(data, trained, "optimization.max_update=4"))
    assert line.startswith(f"checkpoint.save_dir={trained} is in use by another run (process ")
    assert "choose another folder" in line
    assert contents(trained) == before
    assert main(diagnose(data, trained, "optimization.max_update=3")) == 0


# Data of a run ----------------------------------------------------------------------------------------------


def test_a_manifest_row_outside_the_root_is_refused_by_every_command(data, trained, tmp_path, mistake):
    shutil.copytree(data.parent / "store", tmp_path / "elsewhere")
    path = data / "valid.tsv"
    _, head, *rows = path.read_text().splitlines()
    stores = ["store"] * (len(rows) - 1) + ["../elsewhere"]
    lines = [
        "#root\t..",
        f"{head}\tstore",
        *(f"{row}\t{store}" for row, store in zip(rows, stores, strict=True)),
    ]
    path.write_text("\n".join(lines) + "\n")
    for command in (
        diagnose(data, tmp_path / "run"),
        validate(trained, f"task.data={data}"),
        ["manifest", "check", data],
        ["embed", trained, path, tmp_path / "out.npz"],
        ["evaluate", trained, "--data", data, "--out", tmp_path / "scores"],
    ):
        line = mistake(command)
        assert line.startswith(f"{path}, line {len(lines)}: '../elsewhere' lies outside the root ")
        assert "correct the row or the root" in line
    assert not (tmp_path / "run").exists()
    allowed = ["task.allow_outside_root=true", "optimization.max_update=1"]
    assert main(diagnose(data, tmp_path / "run", *allowed)) == 0


def test_data_that_are_not_there_or_damaged_are_refused_with_what_to_type(data, tmp_path, mistake):
    run = tmp_path / "run"
    line = mistake(diagnose(tmp_path / "absent", run))
    assert f"task.data={tmp_path / 'absent'} has no train.tsv; " in line
    assert "fairseq-ecg manifest split STORE_DIR" in line
    line = mistake(diagnose(data, run, "dataset.train_subset=trian"))
    assert "has no trian.tsv; did you mean 'train'?" in line
    shard = data.parent / "store" / "shard-00000.npy"
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    line = mistake(diagnose(data, run))
    assert "shard-00000.npy has " in line
    assert "copy or prepare the store again" in line
    shard.write_bytes(content)
    (data / "train.tsv").write_text("\n".join((data / "train.tsv").read_text().splitlines()[:2]) + "\n")
    assert "train.tsv names no segments; make it again with: fairseq-ecg manifest split" in mistake(
        diagnose(data, run)
    )
    shutil.rmtree(data.parent / "store")
    assert "is not a prepared store" in mistake(diagnose(data, run, "dataset.train_subset=test"))
    assert not run.exists()


def test_a_store_of_another_rate_is_refused_with_the_prepare_line(data, trained, tmp_path, mistake):
    line = mistake(diagnose(data, tmp_path / "run", "task.sample_rate=500"))
    assert "store has 100 Hz, 500 Hz are needed; prepare it at that rate with: fairseq-ecg prepare " in line
    assert line.endswith("--sampling-rate 500")
    other = tmp_path / "other"
    write_record(tmp_path / "raw", "A0001", samples(num_samples=2500), comments=["#Dx: code0"])
    prepare = ["prepare", "physionet2021", str(tmp_path / "raw"), str(other), "--sampling-rate", "250"]
    assert main(prepare) == 0
    line = mistake(["manifest", "split", data.parent / "store", other, tmp_path / "both"])
    assert f"{other} has 250 Hz, " in line
    assert "fairseq-ecg prepare physionet2021 RAW_DIR STORE_DIR --sampling-rate 100" in line
    split = ["manifest", "split", str(other), str(tmp_path / "fast"), "--valid", "0", "--test", "0"]
    assert main([*split, "--labels", str(data / "label_def.csv")]) == 0
    fast = [f"task.data={tmp_path / 'fast'}", "dataset.valid_subset=train"]
    line = mistake(validate(trained, *fast))
    assert f"common_eval.path={trained} was trained on other input (sampling_rate: 100 != 250)" in line
    line = mistake(diagnose(tmp_path / "fast", tmp_path / "run", f"model.model_path={trained}", *fast[1:]))
    assert f"model.model_path={trained} was trained on other input (sampling_rate: 100 != 250)" in line
    assert "prepare the data the same way" in line


def too_few_rows(labels: np.ndarray) -> np.ndarray:
    return labels[:-3]


def without_any_label(labels: np.ndarray) -> np.ndarray:
    return np.full_like(labels, np.nan)


def an_infinite_one(labels: np.ndarray) -> np.ndarray:
    labels[3, 1] = np.inf
    return labels


def one_column(labels: np.ndarray) -> np.ndarray:
    return labels[:, 0]


def one_class_less(labels: np.ndarray) -> np.ndarray:
    return labels[:, 1:]


@pytest.mark.parametrize(
    ("change", "in_training", "in_evaluation"),
    [
        (
            too_few_rows,
            "the label file has 21 rows, {0}/valid.tsv names idx 21; use the y.npy that was made with",
            "{0}/y.npy has 21 rows but the manifests name row 21; make both together: fairseq-ecg manifest",
        ),
        (
            without_any_label,
            "{0}/train.tsv: none of its 32 segments has a label in {0}/y.npy; make both together with",
            "{0}/train.tsv: no record of it has a label",
        ),
        (
            an_infinite_one,
            "{0}/y.npy, row 3, label 1: inf is no label; needed are 0, 1, a",
            "inf is no label",
        ),
        (one_column, "label file {0}/y.npy has shape (24,) of float32; needed are", "has shape (24,)"),
        (
            one_class_less,
            "model.num_labels=3, but {0}/y.npy has 2 labels; set model.num_labels=2",
            "{0}/y.npy has shape (24, 2), label_def.csv names 3 labels; make both again: ",
        ),
    ],
)
def test_a_label_file_that_does_not_fit_is_refused_at_start_up(
    change, in_training, in_evaluation, data, trained, tmp_path, mistake
):
    np.save(data / "y.npy", change(np.load(data / "y.npy")))
    assert in_training.format(data) in mistake(diagnose(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    line = mistake(["evaluate", trained, "--data", data, "--out", tmp_path / "scores"])
    assert in_evaluation.format(data) in line


def test_a_label_file_that_is_no_array_or_not_there_is_refused(data, trained, tmp_path, mistake):
    whole = (data / "y.npy").read_bytes()
    for content in (b"", b"no array", whole[:100], whole[:-10]):
        (data / "y.npy").write_bytes(content)
        for command in (
            diagnose(data, tmp_path / "run"),
            ["evaluate", trained, "--data", data, "--out", tmp_path / "scores"],
        ):
            line = mistake(command)
            assert f"label file {data / 'y.npy'} is not a readable label array: " in line
            assert "pickle" not in line
    line = mistake(diagnose(data, tmp_path / "run", f"task.label_file={tmp_path / 'absent.npy'}"))
    assert f"label file {tmp_path / 'absent.npy'} does not exist; make it again" in line


def test_label_names_that_do_not_fit_are_refused(data, trained, tmp_path, mistake):
    definition = data / "label_def.csv"
    rows = definition.read_text().splitlines()
    definition.write_text("\n".join(rows[:-1]) + "\n")
    assert "label_def.csv names 2 labels, the label matrix has 3" in mistake(diagnose(data, tmp_path / "run"))
    definition.write_text("\n".join([*rows[:2], "1,other,code1,", rows[3]]) + "\n")
    line = mistake(validate(trained, f"task.data={data}"))
    assert f"common_eval.path={trained} was trained on 3 labels, the data have 3" in line
    assert "label 1 is 'label1' there and 'other' here" in line


WEIGHTS = ",code0,code1,{0}\ncode0,1,0,0\ncode1,0,1,0\n{0},0,0,1\n"


def test_a_weight_table_with_other_classes_is_refused_before_the_first_update(
    data, trained, tmp_path, mistake
):
    weights, run = tmp_path / "weights.csv", tmp_path / "run"
    score = ["criterion.report_cinc_score=true", f"criterion.weights_file={weights}"]
    weights.write_text(WEIGHTS.format("426783006"))
    for command in (diagnose(data, run, *score), validate(trained, *score)):
        line = mistake(command)
        assert f"{weights}: 1 of its 3 classes are no label of the data (426783006)" in line
        assert "give the weight table of these labels" in line
    assert not run.exists()
    weights.write_text(WEIGHTS.format("code2"))
    assert f"{weights}: no class is sinus rhythm (426783006)" in mistake(diagnose(data, run, *score))
    weights.write_text(WEIGHTS.format("426783006").replace("code1,0", "code2,0"))
    assert f"{weights}: the row names must be the column names" in mistake(diagnose(data, run, *score))
    assert "weights.csv: 26 of its 26 classes are no label of the data" in mistake(
        diagnose(data, run, score[0])
    )
    (data / "label_def.csv").unlink()
    line = mistake(diagnose(data, run, score[0]))
    assert "weights.csv has 26 classes, the data have 3 labels; give the weight table of these labels" in line
    assert not run.exists()


def test_a_weight_table_of_the_labels_scores_every_class_by_its_code(data, tmp_path, capsys):
    rows = (data / "label_def.csv").read_text().replace("code2", "426783006")
    (data / "label_def.csv").write_text(rows)
    weights = tmp_path / "weights.csv"
    weights.write_text(WEIGHTS.format("426783006"))
    score = ["criterion.report_cinc_score=true", f"criterion.weights_file={weights}"]
    assert main(diagnose(data, tmp_path / "run", *score)) == 0
    assert "cinc_score " in capsys.readouterr().out


# Segment files of fairseq-signals ---------------------------------------------------------------------------


def make_mat_segments(folder: Path, **changes: object) -> Path:
    """Seven labelled .mat segments; ``changes`` replace entries of segment 3."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(7):
        content = {
            "feats": generator.normal(size=(12, 500)).astype(np.float32),
            "curr_sample_rate": 100,
            "label": np.array([[number % 2, 1, 0]], dtype=np.float32),
        }
        entries = {**content, **changes} if number == 3 else content
        savemat(
            folder / f"A{number}_0.mat", {key: value for key, value in entries.items() if value is not None}
        )
    lines = [str(folder), *(f"A{number}_0.mat\t500" for number in range(7))]
    for subset in ("train", "valid"):
        (folder / f"{subset}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(
    ("changes", "damage", "reason"),
    [
        ({}, remove, "is missing; the manifest names it"),
        ({}, cut, "cannot be read as a .mat file"),
        ({"feats": np.full((12, 500), np.nan)}, None, "holds values that are not finite"),
        ({"feats": np.zeros((3, 500))}, None, "has 3 leads"),
        ({"curr_sample_rate": 257}, None, "has 257 Hz, 100 Hz are needed"),
    ],
)
def test_a_segment_file_that_cannot_be_read_ends_no_run_and_is_listed(
    changes, damage, reason, tmp_path, mistake
):
    folder, run = make_mat_segments(tmp_path / "mat", **changes), tmp_path / "run"
    if damage is not None:
        damage(folder / "A3_0.mat")
    epoch = ["optimization.max_update=0", "optimization.max_epoch=1"]
    assert main(diagnose(folder, run, *epoch)) == 0
    rows = rejected_rows(run)
    assert [row[:2] for row in rows] == [["train", "A3"], ["valid", "A3"]]
    for row in rows:
        assert f"{folder / 'A3_0.mat'} {reason}" in row[2]
    notes = [json.loads(line).get("text", "") for line in (run / "log.jsonl").read_text().splitlines()]
    assert any(f"2 records could not be read; {run / 'rejected.tsv'} lists them" in note for note in notes)
    line = mistake(diagnose(folder, tmp_path / "strict", *epoch, "task.on_bad_record=error"))
    assert f"record 'A3': {folder / 'A3_0.mat'} {reason}" in line


@pytest.mark.parametrize("broken", [[3], [0, 1]])  # the last two are the first ones of the manifest
def test_a_batch_of_nothing_but_unreadable_files_counts_nothing(broken, tmp_path):
    folder, run = make_mat_segments(tmp_path / "mat"), tmp_path / "run"
    for number in broken:
        remove(folder / f"A{number}_0.mat")
    alone = ["dataset.batch_size=1", "optimization.max_update=0", "optimization.max_epoch=1"]
    assert main(diagnose(folder, run, *alone)) == 0
    assert {row[1] for row in rejected_rows(run)} == {f"A{number}" for number in broken}
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    (valid,) = (line for line in lines if line["kind"] == "valid")
    arrays = tmp_path / "arrays"
    assert main(validate(run, "common_eval.extract=[output]", f"common_eval.results_path={arrays}")) == 0
    logits = np.load(arrays / "outputs_valid.npy")
    targets = np.load(arrays / "targets_valid.npy")
    read = [row for row in range(7) if row not in broken]
    assert np.isnan(logits).all(axis=1).tolist() == [row in broken for row in range(7)]
    # Half a unit of the last digit: the two validations sum in the same order, and these metrics are counts.
    assert valid["accuracy"] == pytest.approx(((logits[read] > 0) == targets[read]).mean(), abs=1e-6)


def test_a_manifest_of_nothing_but_unreadable_files_is_refused(tmp_path, mistake):
    folder = make_mat_segments(tmp_path / "mat")
    for number in range(7):
        remove(folder / f"A{number}_0.mat")
    line = mistake(diagnose(folder, tmp_path / "run", "task.sample_rate=100"))
    assert f"{folder / 'A0_0.mat'} is missing" in line
    assert not (tmp_path / "run").exists()


def test_what_is_listed_stays_listed_when_a_run_goes_on(tmp_path):
    folder, run = make_mat_segments(tmp_path / "mat"), tmp_path / "run"
    content = (folder / "A3_0.mat").read_bytes()
    remove(folder / "A3_0.mat")
    assert main(diagnose(folder, run, "optimization.max_update=3")) == 0
    (folder / "A3_0.mat").write_bytes(content)
    remove(folder / "A5_0.mat")
    assert main(diagnose(folder, run, "optimization.max_update=6")) == 0
    assert {row[1] for row in rejected_rows(run)} == {"A3", "A5"}


def test_outputs_of_a_segment_file_that_cannot_be_read_are_nan(tmp_path):
    folder, run, arrays = make_mat_segments(tmp_path / "mat"), tmp_path / "run", tmp_path / "arrays"
    assert main(diagnose(folder, run)) == 0
    remove(folder / "A3_0.mat")
    assert main(validate(run, "common_eval.extract=[output]", f"common_eval.results_path={arrays}")) == 0
    is_nan = np.isnan(np.load(arrays / "outputs_valid.npy"))
    assert is_nan.all(axis=1).tolist() == is_nan.any(axis=1).tolist() == [row == 3 for row in range(7)]


def test_labels_of_segment_files_may_be_unknown_but_not_of_another_width(tmp_path, mistake):
    for name, label in (("nan", [[1, np.nan, 0]]), ("none", None)):
        folder = make_mat_segments(tmp_path / name, label=label)
        assert main(diagnose(folder, tmp_path / f"run_{name}")) == 0
    folder = make_mat_segments(tmp_path / "short", label=[[1, 0]])
    line = mistake(diagnose(folder, tmp_path / "run"))
    assert f"{folder / 'A3_0.mat'} has 2 labels, other segments of {folder}" in line
    assert "give the labels as task.label_file" in line


# Config -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimization.max_updates=3",
            "unknown option optimization.max_updates on the command line: did you mean",
        ),
        (
            "optimisation.max_update=3",
            "unknown config group 'optimisation' on the command line: did you mean",
        ),
        ("model=wav2vec", "model._name='wav2vec' on the command line: unknown model 'wav2vec': did you mean"),
        ("criterion=wav2vec3", "unknown criterion 'wav2vec3': did you mean 'wav2vec2'"),
        ("task=ecg_pretrainig", "unknown task 'ecg_pretrainig': did you mean 'ecg_pretraining'"),
        ("model.apply_mask=false", "learns from masked frames, but model.apply_mask=false"),
        ("model.mask_prob=0", "model.mask_prob=0.0; set model.apply_mask=true model.mask_prob=0.65"),
        ("common.max_nonfinite_updates=0", "must be at least 1, which aborts at the first one"),
        ("checkpoint.save_interval=0", "set checkpoint.no_epoch_checkpoints=true"),
        ("dataset.validate_interval=0", "set dataset.disable_validation=true"),
        ("dataset.required_batch_size_multiple=0", "must be at least 1, which allows any batch size"),
        ("task.p=[]", "task.p=[]: give a probability per entry of task.perturbation_mode"),
        ("optimization.lr=nan", "optimization.lr on the command line: 'nan' is not a number"),
        ("optimization.lr=[inf]", "optimization.lr=[inf]: rates from 0, e.g. optimization.lr=[5e-5]"),
        ("model.mask_prob=high", "model.mask_prob on the command line: 'high' is not a number"),
        ("task.leads_to_load=[I,V9]", "has no lead 'V9'"),
        ("task.leads_to_load=[I,II]", "model.in_d=12, but the task gives 2 leads; set model.in_d=2"),
    ],
)
def test_a_config_that_cannot_work_is_refused_before_anything_is_written(
    override, message, data, tmp_path, mistake
):
    assert message in mistake(pretrain(data, tmp_path / "run", override))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "criterion.pos_weight=[nan,1,1]",
            "criterion.pos_weight on the command line: '[nan,1,1]' is not a number",
        ),
        (
            "criterion.pos_weight=[inf,1,1]",
            "criterion.pos_weight has the entry inf; needed are numbers from 0",
        ),
        ("criterion.weight=[1,-1,1]", "criterion.weight has the entry -1.0; needed are numbers from 0"),
        (
            "criterion.weight=[1,1]",
            "criterion.weight has 2 entries, model.num_labels is 3; give one per label",
        ),
        ("model.num_labels=5", "model.num_labels=5, but "),
    ],
)
def test_weights_that_would_spoil_the_loss_are_refused(override, message, data, tmp_path, mistake):
    assert message in mistake(diagnose(data, tmp_path / "run", override))
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_in_a_file_is_refused_with_the_file(data, tmp_path, mistake):
    groups = {"task": "ecg_pretraining\n  dta: here", "model": "wav2vec2_cmsc", "criterion": "wav2vec2"}
    text = "".join(f"{group}:\n  _name: {name}\n" for group, name in groups.items())
    (tmp_path / "mine.yaml").write_text(text)
    line = mistake(["train", "--config-dir", tmp_path, "--config-name", "mine", f"task.data={data}"])
    assert f"unknown option task.dta in {tmp_path / 'mine.yaml'}: did you mean 'data'" in line


# Checkpoints ------------------------------------------------------------------------------------------------


def cut_weights(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])


def remove_config(checkpoint: Path) -> None:
    (checkpoint / "config.yaml").unlink()


def spoil_config(checkpoint: Path) -> None:
    (checkpoint / "config.yaml").write_text("model: [\n")


def empty_config(checkpoint: Path) -> None:
    (checkpoint / "config.yaml").write_text("model: {_name: ecg_transformer_classifier}\n")


def empty_state(checkpoint: Path) -> None:
    (checkpoint / "state.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (cut_weights, "model.safetensors"),
        (remove_config, "config.yaml"),
        (spoil_config, "config.yaml"),
        (empty_config, "config.yaml"),
        (empty_state, "state.json"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_whatever_reads_it(damage, file, data, trained, tmp_path, mistake):
    last = trained / "checkpoints" / "checkpoint_last"
    damage(last)
    for command in (
        validate(trained),
        ["embed", trained, data / "test.tsv", tmp_path / "out.npz"],
        ["evaluate", trained, "--data", data, "--out", tmp_path / "scores"],
        diagnose(data, tmp_path / "run", f"model.model_path={trained}"),
    ):
        line = mistake(command)
        assert line.startswith(f"{last / file} cannot be read: ")
        assert f"take another one of {trained / 'checkpoints'}" in line
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "out.npz").exists()


def cut_optimizer(checkpoint: Path) -> None:
    path = checkpoint / "optimizer.pt"
    path.write_bytes(path.read_bytes()[:500])


def remove_state(checkpoint: Path) -> None:
    (checkpoint / "state.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_weights, "model.safetensors cannot be read: "),
        (empty_state, "state.json cannot be read: it has no 'format'"),
        (cut_optimizer, "optimizer.pt cannot be read: "),
        (remove_state, "u0000002 has no state.json and no other checkpoint"),
    ],
)
def test_a_run_never_starts_anew_over_a_damaged_checkpoint(damage, message, data, trained, mistake):
    damage(trained / "checkpoints" / "checkpoint_last")
    before = contents(trained)
    line = mistake(diagnose(data, trained, "optimization.max_update=4"))
    assert message in line
    assert "another" in line
    assert contents(trained) == before


def test_a_run_goes_on_from_the_newest_whole_checkpoint(data, trained):
    assert main(diagnose(data, trained, "optimization.max_update=3")) == 0
    remove_state(trained / "checkpoints" / "u0000003")
    assert main(diagnose(data, trained, "optimization.max_update=4")) == 0
    notes = [json.loads(line).get("text", "") for line in (trained / "log.jsonl").read_text().splitlines()]
    assert [note.split()[1] for note in notes if note.startswith("resumed")] == ["u0000002", "u0000002"]
    assert read_tensors(trained / "checkpoints" / "u0000004")


@pytest.mark.parametrize(
    "key",
    ["common_eval.path", "model.model_path", "checkpoint.restore_file", "checkpoint.finetune_from_model"],
)
def test_a_checkpoint_that_is_not_there_is_refused(key, data, trained, tmp_path, mistake):
    nothing = tmp_path / "nothing" / "checkpoint_best.pt"
    if key == "common_eval.path":
        command = validate(nothing)
    else:
        command = diagnose(data, tmp_path / "run", f"{key}={nothing}")
    line = mistake(command)
    assert f"no checkpoint at {nothing}: {nothing.parent} holds none; give a run folder" in line
    line = mistake(
        [word.replace(str(nothing), str(trained / "checkpoints" / "checkpoint_bset")) for word in command]
    )
    assert "did you mean 'checkpoint_best'" in line


def test_an_empty_folder_and_a_foreign_file_are_no_checkpoints(tmp_path, mistake):
    (tmp_path / "empty").mkdir()
    assert f"no checkpoint at {tmp_path / 'empty'}: {tmp_path / 'empty'} holds none" in mistake(
        validate(tmp_path / "empty")
    )
    (tmp_path / "file.pt").write_text("no checkpoint")
    assert str(tmp_path / "file.pt") in mistake(validate(tmp_path / "file.pt"))


def test_a_checkpoint_of_other_leads_is_refused_or_its_leads_are_picked_by_name(
    data, tmp_path, mistake, caplog, capsys
):
    two = tmp_path / "two"
    leads = ["task.leads_to_load=[V6,II]", "model.in_d=2"]
    assert main(diagnose(data, two, *leads)) == 0
    line = mistake(validate(two, "task.leads_to_load=null"))
    assert f"common_eval.path={two} was trained on other input (leads: ('V6', 'II') != ('I', 'II'," in line
    assert "('V6', 'II') != ('II', 'V6')" in mistake(validate(two, "task.leads_to_load=[II,V6]"))
    few = ["--min-positives", "1", "--resamples", "5", "--device", "cpu"]
    with caplog.at_level("INFO"):
        scores = ["evaluate", str(two), "--data", str(data), "--out", str(tmp_path / "scores"), *few]
        assert main(scores) == 0
    assert "left out I, III, aVR" in caplog.text


def test_an_encoder_of_leads_the_data_lack_is_told_in_the_log(finished, tmp_path, caplog):
    manifests = make_manifests(tmp_path, num_patients=6)
    index = (manifests.parent / "store" / "store.json").read_text()
    renamed = index.replace('"V5"', '"VX"').replace('"V6"', '"VY"')
    assert renamed != index
    (manifests.parent / "store" / "store.json").write_text(renamed)
    with caplog.at_level("INFO"):
        assert main(["embed", str(finished), str(manifests / "test.tsv"), str(tmp_path / "out.npz")]) == 0
    assert "filled V5, V6 with zeros" in caplog.text
    assert "left out VX, VY" in caplog.text
