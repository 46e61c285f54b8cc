from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.data.labels import LabelDefinition, label_definition
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.split import SplitOptions, split_stores
from fairseq_ecg.errors import ConfigError, DataError
from tests.data.made_stores import make_store

NAMES = ("train", "valid", "test")


def read(folder: Path) -> dict[str, Manifest]:
    return {
        name: Manifest.read(folder / f"{name}.tsv") for name in NAMES if (folder / f"{name}.tsv").exists()
    }


def texts(manifest: Manifest, name: str) -> set[str]:
    column = getattr(manifest, name)
    return {column[row] for row in range(manifest.num_rows)}


def test_a_patient_is_in_one_split_and_every_record_in_some(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [200] * 60, records_per_patient=3)
    report = split_stores([tmp_path / "s"], tmp_path / "m", SplitOptions(segment_sec=1.0, valid="0.2"))
    parts = read(tmp_path / "m")
    patients = [texts(part, "patient_ids") for part in parts.values()]
    assert [len(part) for part in patients] == [14, 4, 2]
    assert len(set.union(*patients)) == 20
    assert sum(part.num_rows for part in parts.values()) == 120
    assert {name: counts.segments for name, counts in report.splits.items()} == {
        "train": 84,
        "valid": 24,
        "test": 12,
    }
    assert str(report.splits["valid"]) == "12 records, 4 patients, 24 segments"


def test_a_split_depends_on_seed_and_names_alone(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100] * 40, seed=0)
    make_store(tmp_path / "t", [130] * 40, seed=5)
    members = []
    for store, out, seed in (("s", "a", 0), ("t", "b", 0), ("s", "c", 1)):
        split_stores(
            [tmp_path / store], tmp_path / out, SplitOptions(segment_sec=1.0, by="record", seed=seed)
        )
        members.append(texts(read(tmp_path / out)["valid"], "record_ids"))
    assert members[0] == members[1]
    assert members[0] != members[2]
    assert members[0] == {"r15", "r21", "r38", "r4"}  # frozen: another machine gives the same


def test_short_records_and_incomplete_segments_are_dropped_and_counted(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [250, 300, 99, 100])
    options = SplitOptions(segment_sec=1.0, valid="0", test="0")
    report = split_stores([tmp_path / "s"], tmp_path / "m", options)
    assert (report.num_short_records, report.num_tails) == (1, 1)
    manifest = read(tmp_path / "m")["train"]
    assert manifest.start.tolist() == [0, 100, 0, 100, 200, 0]
    assert manifest.segment.tolist() == [0, 1, 0, 1, 2, 0]
    assert not (tmp_path / "m" / "valid.tsv").exists()


def test_whole_records_may_be_segments(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [250, 300])
    options = SplitOptions(segment_sec=None, valid="0", test="0")
    split_stores([tmp_path / "s"], tmp_path / "m", options)
    assert read(tmp_path / "m")["train"].num_samples.tolist() == [250, 300]


def test_several_stores_share_a_root_and_a_numbering(tmp_path: Path) -> None:
    make_store(tmp_path / "x" / "a", [100] * 3, source="a", records_per_patient=1)
    make_store(tmp_path / "x" / "b", [100] * 3, source="b", records_per_patient=1)
    options = SplitOptions(segment_sec=1.0, by="source", valid="b")
    report = split_stores([tmp_path / "x" / "a", tmp_path / "x" / "b"], tmp_path / "m", options)
    assert report.was_renumbered
    parts = read(tmp_path / "m")
    assert (tmp_path / "m" / "train.tsv").read_text().splitlines()[0] == "#root\t../x"
    assert parts["train"].idx.tolist() == [0, 1, 2]
    assert parts["valid"].idx.tolist() == [3, 4, 5]
    assert [path.resolve() for path in parts["valid"].store_dirs()] == [tmp_path / "x" / "b"]
    assert "test" not in parts


def test_stores_of_one_job_keep_their_numbering(tmp_path: Path) -> None:
    make_store(tmp_path / "a", [100] * 3, source="a")
    make_store(tmp_path / "b", [100] * 3, source="b", first_idx=10)
    options = SplitOptions(segment_sec=1.0, by="source", test="b")
    assert not split_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "m", options).was_renumbered
    assert read(tmp_path / "m")["test"].idx.tolist() == [10, 11, 12]


def test_folds_come_from_a_table(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100] * 6)
    (tmp_path / "f.csv").write_text("record_id,fold\nr0,1\nr1,1\nr2,9\nr3,10\nr4,2\n")
    options = SplitOptions(segment_sec=1.0, by="fold", valid="9", test="10", folds=tmp_path / "f.csv")
    report = split_stores([tmp_path / "s"], tmp_path / "m", options)
    parts = read(tmp_path / "m")
    assert texts(parts["train"], "record_ids") == {"r0", "r1", "r4"}
    assert texts(parts["valid"], "record_ids") == {"r2"}
    assert texts(parts["test"], "record_ids") == {"r3"}
    assert report.num_unused == 1


def test_without_a_table_the_folds_of_the_source_are_taken(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100] * 4, folds=["1", "9", "10", ""])
    options = SplitOptions(segment_sec=1.0, by="fold", valid="9", test="10")
    report = split_stores([tmp_path / "s"], tmp_path / "m", options)
    parts = read(tmp_path / "m")
    assert {name: texts(part, "record_ids") for name, part in parts.items()} == {
        "train": {"r0"},
        "valid": {"r1"},
        "test": {"r2"},
    }
    assert report.num_unused == 1
    make_store(tmp_path / "t", [100] * 4)
    with pytest.raises(DataError, match=r"t: no record has an official fold .*; give --folds FILE"):
        split_stores([tmp_path / "t"], tmp_path / "n", options)


def test_labels_have_one_row_per_idx_and_nan_for_unlabelled_records(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100] * 4, first_idx=1)
    path = tmp_path / "s" / "index.tsv"
    lines = path.read_text().splitlines()
    cells = lines[3].split("\t")
    cells[lines[0].split("\t").index("labels")] = ""  # idx 3 has no codes
    lines[3] = "\t".join(cells)
    path.write_text("\n".join(lines) + "\n")
    labels = LabelDefinition(
        ("sinus", "brady or T"),
        (frozenset({"426783006"}), frozenset({"426177001", "164934002"})),
        ("sinus rhythm", "bradycardia or T wave abnormal"),
    )
    options = SplitOptions(segment_sec=1.0)
    report = split_stores([tmp_path / "s"], tmp_path / "m", options, labels=labels)
    y = np.load(tmp_path / "m" / "y.npy")
    nan = np.nan
    np.testing.assert_array_equal(y, np.float32([[nan, nan], [0, 1], [1, 0], [nan, nan], [1, 0]]))
    assert report.num_unlabelled == 1
    assert label_definition(tmp_path / "m" / "label_def.csv") == labels
    # The weight counts labelled records of the training split only.
    train = np.unique(read(tmp_path / "m")["train"].idx)
    positive, labelled = np.nansum(y[train], axis=0), (~np.isnan(y[train])).sum(axis=0)
    weights = ",".join(f"{(n - p) / p if p else 1:.6f}" for p, n in zip(positive, labelled, strict=True))
    assert (tmp_path / "m" / "pos_weight.txt").read_text() == f"[{weights}]\n"


def test_what_is_there_is_kept_unless_overwriting(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100] * 10)
    split_stores([tmp_path / "s"], tmp_path / "m", SplitOptions(segment_sec=1.0))
    before = (tmp_path / "m" / "train.tsv").read_text()
    with pytest.raises(DataError, match=r"train\.tsv exists; choose another folder"):
        split_stores([tmp_path / "s"], tmp_path / "m", SplitOptions(segment_sec=0.5))
    assert (tmp_path / "m" / "train.tsv").read_text() == before
    options = SplitOptions(segment_sec=0.5, valid="0", test="0")
    split_stores([tmp_path / "s"], tmp_path / "m", options, overwrite=True)
    assert read(tmp_path / "m")["train"].num_rows == 20
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["train.tsv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "patients"}, "did you mean 'patient'"),
        ({"valid": "0.5", "test": "0.6"}, "more than all there is"),
        ({"valid": "ten"}, "a share from 0 to 1"),
        ({"valid": "-0.1"}, "a share from 0 to 1"),
        ({"segment_sec": 0.0}, "--segment-sec 0.0: must be more than 0"),
        ({"folds": Path("f.csv")}, "goes with --by fold"),
        ({"by": "time", "stratify": label_definition("cinc2021")}, "--stratify goes with --by patient"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SplitOptions(**options)  # type: ignore[arg-type]


def test_unknown_sources_short_segments_and_other_rates_are_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100] * 10)
    make_store(tmp_path / "t", [100] * 10, rate=50)
    stores, out = [tmp_path / "s"], tmp_path / "m"
    with pytest.raises(ConfigError, match="no source 'mad'; did you mean 'made'"):
        split_stores(stores, out, SplitOptions(by="source", valid="mad"))
    with pytest.raises(ConfigError, match="needs names with --valid or --test, of made"):
        split_stores(stores, out, SplitOptions(by="source"))
    with pytest.raises(ConfigError, match="is in --valid and in --test"):
        split_stores(stores, out, SplitOptions(by="source", valid="made", test="made"))
    with pytest.raises(DataError, match="nothing to train on: 10 records, 10 shorter"):
        split_stores(stores, out, SplitOptions(segment_sec=5))
    with pytest.raises(DataError, match=r"has 50 Hz, .* 100 Hz; .*--sampling-rate 100"):
        split_stores([tmp_path / "s", tmp_path / "t"], out, SplitOptions(segment_sec=1))
    with pytest.raises(ConfigError, match="given twice"):
        split_stores([tmp_path / "s", tmp_path / "s"], out, SplitOptions(segment_sec=1))


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100] * 10)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"):
        split_stores([tmp_path / "s"], tmp_path / "file" / "m", SplitOptions(segment_sec=1))


def test_everything_may_be_validated_or_trained_on(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100] * 10)
    options = SplitOptions(segment_sec=1.0, valid="1.0")
    assert options.fraction("test") == 0
    report = split_stores([tmp_path / "s"], tmp_path / "m", options)
    assert [*report.splits] == ["valid"]
    assert read(tmp_path / "m")["valid"].num_rows == 10
    report = split_stores(
        [tmp_path / "s"], tmp_path / "n", SplitOptions(segment_sec=1.0, valid="0", test="0")
    )
    assert [*report.splits] == ["train"]
    with pytest.raises(DataError, match="nothing to write: 10 records, 10 shorter"):
        split_stores([tmp_path / "s"], tmp_path / "o", SplitOptions(valid="1.0"))


def test_time_puts_the_newest_into_the_test_and_keeps_patients_together(tmp_path: Path) -> None:
    # Ten patients with two records each; every patient's second record is a year younger than his first.
    dates = [f"{2000 + 2 * (i // 2) + i % 2}-01-01" for i in range(18)] + ["2030-01-01", ""]
    make_store(tmp_path / "s", [100] * 20, dates=dates)
    options = SplitOptions(segment_sec=1.0, by="time", valid="0.2", test="0.2")
    report = split_stores([tmp_path / "s"], tmp_path / "m", options)
    parts = {name: texts(part, "patient_ids") for name, part in read(tmp_path / "m").items()}
    # Of 19 records the last four are r15 to r18, the four before r11 to r14; p5 and p7 lie on the borders.
    assert parts["test"] == {"p7", "p8", "p9"}
    assert parts["valid"] == {"p5", "p6"}
    assert parts["train"] == {f"p{i}" for i in range(5)}
    assert report.num_unused == 1
    make_store(tmp_path / "t", [100] * 4)
    with pytest.raises(DataError, match="no record of the stores has a date"):
        split_stores([tmp_path / "t"], tmp_path / "n", options)


@pytest.mark.parametrize("by", ["patient", "record"])
def test_stratified_splits_give_every_label_its_share(tmp_path: Path, by: str) -> None:
    labels = [("426783006",)] * 300 + [("426177001",)] * 60 + [("164889003", "426783006")] * 20 + [()] * 20
    make_store(tmp_path / "s", [10] * 400, labels=labels, leads=("I",))
    definition = label_definition("cinc2021")
    options = SplitOptions(segment_sec=0.1, by=by, valid="0.1", test="0.2", stratify=definition, seed=4)
    split_stores([tmp_path / "s"], tmp_path / "m", options)
    parts = {name: texts(part, "record_ids") for name, part in read(tmp_path / "m").items()}
    assert sum(map(len, parts.values())) == 400
    for first, last in ((0, 300), (300, 360), (360, 380), (380, 400)):
        members = {f"r{i}" for i in range(first, last)}
        for name, share in (("valid", 0.1), ("test", 0.2)):
            # A patient has two records of one kind, so a label may be off by one patient.
            assert abs(len(parts[name] & members) - share * len(members)) <= 2
    again = SplitOptions(segment_sec=0.1, by=by, valid="0.1", test="0.2", stratify=definition, seed=5)
    split_stores([tmp_path / "s"], tmp_path / "n", again)
    assert texts(read(tmp_path / "n")["valid"], "record_ids") != parts["valid"]
