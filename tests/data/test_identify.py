"""Manifests for patient identification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.cli.manifest import main
from fairseq_ecg.contracts import Record
from fairseq_ecg.data.identify import IdentifyOptions, identify
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.store import StoreWriter
from fairseq_ecg.errors import ConfigError, DataError
from tests.data.made_stores import make_store


def rows(path: Path) -> list[tuple[str, str, int, int]]:
    """(patient, record, segment, label) of every row."""
    manifest = Manifest.read(path)
    assert manifest.label is not None
    return [
        (manifest.patient_ids[i], manifest.record_ids[i], int(manifest.segment[i]), int(manifest.label[i]))
        for i in range(manifest.num_rows)
    ]


def test_labels_are_contiguous_and_the_probe_is_the_next_record(tmp_path: Path) -> None:
    # Twenty patients with two records of two segments; the record with the higher number is the older one.
    dates = [f"20{40 - i:02d}-01-01" for i in range(40)]
    make_store(tmp_path / "s", [250] * 40, dates=dates)
    report = identify([tmp_path / "s"], tmp_path / "m", IdentifyOptions(segment_sec=1.0, valid=0.25))
    train, gallery, probe = (
        rows(tmp_path / "m" / f"{name}.tsv") for name in ("train", "valid_gallery", "valid_probe")
    )
    assert (report.num_classes, report.num_valid_patients, report.num_train_segments) == (15, 5, 60)
    assert sorted({label for *_, label in train}) == list(range(15))
    assert len({(patient, label) for patient, _, _, label in train}) == 15
    assert [(patient, label) for patient, _, _, label in gallery] == [
        (patient, label) for patient, _, _, label in probe
    ]
    assert [label for *_, label in gallery] == list(range(5))
    assert not {patient for patient, *_ in train} & {patient for patient, *_ in gallery}
    for (patient, first, segment, _), (_, second, other, _) in zip(gallery, probe, strict=True):
        number = int(patient[1:])
        assert (first, second, segment, other) == (f"r{2 * number + 1}", f"r{2 * number}", 0, 0)


def test_segments_of_one_record_serve_where_patients_have_no_second(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [250] * 10 + [150] * 10, records_per_patient=1)
    with pytest.raises(DataError, match="no patient has two records"):
        identify([tmp_path / "s"], tmp_path / "m", IdentifyOptions(segment_sec=1.0))
    how = IdentifyOptions(segment_sec=1.0, valid=1.0, between="segments")
    report = identify([tmp_path / "s"], tmp_path / "m", how)
    assert (report.num_valid_patients, report.num_classes) == (10, 10)
    gallery, probe = rows(tmp_path / "m/valid_gallery.tsv"), rows(tmp_path / "m/valid_probe.tsv")
    assert [(a[1], a[2], b[1], b[2]) for a, b in zip(gallery, probe, strict=True)] == [
        (f"r{i}", 0, f"r{i}", 1) for i in range(10)
    ]


def test_gallery_and_probe_may_be_of_another_store_and_share_no_signal_with_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(
        tmp_path / "d/physionet", [200] * 9, records_per_patient=1, source="georgia", prefix="g", seed=1
    )
    make_store(tmp_path / "d/copy", [200] * 6, records_per_patient=1, source="ptb-xl", prefix="HR")
    make_store(tmp_path / "d/ptbxl", [200] * 6 + [200], records_per_patient=2, source="ptbxl")
    stores = [str(tmp_path / "d" / name) for name in ("physionet", "copy")]
    arguments = [
        "identify",
        *stores,
        str(tmp_path / "m"),
        "--evaluate",
        str(tmp_path / "d/ptbxl"),
        "--segment-sec",
        "1",
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    # Six records of the copy are the signals of gallery and probe.
    assert "train.tsv: 9 patients, 18 segments" in out
    assert "3 patients in gallery and probe" in out
    assert "1 patients have no second" in out
    assert "6 records of gallery and probe patients were kept out of training" in out
    assert "model.num_labels=9" in out
    gallery = Manifest.read(tmp_path / "m/valid_gallery.tsv")
    assert [path.name for path in gallery.store_dirs()] == ["ptbxl"]
    assert main([*arguments, "--overwrite", "--exclude", "ptb-xl"]) == 0
    assert "kept out" not in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--exclude ptbxxl: no such source"):
        main([*arguments, "--overwrite", "--exclude", "ptbxxl"])
    assert main(["check", str(tmp_path / "m"), "--strict", "--fast"]) == 0


def test_valid_0_trains_on_everybody(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100] * 6)
    report = identify([tmp_path / "s"], tmp_path / "m", IdentifyOptions(segment_sec=1.0, valid=0))
    assert report.num_classes == 3
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["train.tsv"]
    with pytest.raises(DataError, match="no patient is left to train on"):
        identify([tmp_path / "s"], tmp_path / "n", IdentifyOptions(segment_sec=1.0, valid=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"valid": 1.2}, "--valid 1.2: a share"),
        ({"between": "record"}, "did you mean 'records'"),
        ({"segment_sec": 0.0}, "must be more than 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        IdentifyOptions(**options)  # type: ignore[arg-type]


def test_a_copy_of_the_gallery_record_is_no_probe(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", sampling_rate=100, leads=("I",), choices={}) as writer:
        for i, seed in enumerate(
            (0, 0, 1, 2, 2)
        ):  # p0: a record, its copy, another one; p1: one and its copy
            signal = np.random.default_rng(seed).normal(size=(1, 100)).astype(np.float32)
            record = Record(
                record_id=f"r{i}",
                patient_id=f"p{i // 3}",
                source="made",
                signal=signal,
                leads=("I",),
                sampling_rate=100,
            )
            writer.add(record, leads_present=("I",))
    identify([tmp_path / "s"], tmp_path / "m", IdentifyOptions(segment_sec=1.0, valid=1))
    assert [row[:2] for row in rows(tmp_path / "m/valid_gallery.tsv")] == [("p0", "r0")]
    assert [row[:2] for row in rows(tmp_path / "m/valid_probe.tsv")] == [("p0", "r2")]
    assert {row[0] for row in rows(tmp_path / "m/train.tsv")} == {"p1"}
