"""Manifests of fairseq-signals and of the meta_split flow, both ways."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from fairseq_ecg.cli.manifest import main
from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.labels import label_definition
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.segments import open_segments
from fairseq_ecg.errors import ConfigError, DataError
from tests.data.made_stores import make_store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_store(tmp_path / "store", [210] * 20, source="georgia")
    out = tmp_path / "manifest"
    main(["split", str(tmp_path / "store"), str(out), "--segment-sec", "1", "--labels", "cinc2021"])
    return out


def samples(manifest: Manifest) -> dict[tuple[str, int], bytes]:
    segments = open_segments(manifest, STANDARD_LEADS, None)
    return {
        (manifest.record_ids[row].rpartition("r")[2], int(manifest.segment[row])): segments.witness(
            row
        ).tobytes()
        for row in range(manifest.num_rows)
    }


def test_there_and_back_again_gives_the_same_segments(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(folder), str(tmp_path / "fs"), "--to", "fairseq_signals"]) == 0
    assert "40 .mat segments" in capsys.readouterr().out
    np.testing.assert_array_equal(np.load(tmp_path / "fs/y.npy"), np.load(folder / "y.npy"))
    assert main(["convert", str(tmp_path / "fs"), str(tmp_path / "back")]) == 0
    for name in ("train", "valid", "test"):
        first, legacy, last = (
            Manifest.read(path / f"{name}.tsv") for path in (folder, tmp_path / "fs", tmp_path / "back")
        )
        assert legacy.is_legacy
        assert not last.is_legacy
        assert samples(first) == samples(legacy) == samples(last)
        # Who is one patient stays one: two records each.
        assert len(np.unique(last.patient)) == len(np.unique(last.record_ids.codes))


def test_classes_of_identification_are_kept(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [200] * 12)
    main(["identify", str(tmp_path / "s"), str(tmp_path / "m"), "--segment-sec", "1"])
    main(["convert", str(tmp_path / "m"), str(tmp_path / "fs"), "--to", "fairseq_signals"])
    main(["convert", str(tmp_path / "fs"), str(tmp_path / "back")])
    for folder in ("fs", "back"):
        for name in ("train", "valid_gallery", "valid_probe"):
            expected, made = (
                Manifest.read(tmp_path / f"m/{name}.tsv").label,
                Manifest.read(tmp_path / f"{folder}/{name}.tsv").label,
            )
            assert expected is not None
            assert made is not None
            assert expected.tolist() == made.tolist()


def test_labels_inside_mat_files_become_an_array(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (3, 26))
    for record, label in enumerate(labels):
        for segment in range(2):
            content = {"feats": rng.normal(size=(12, 50)), "curr_sample_rate": 100, "label": label}
            savemat(tmp_path / f"r{record}_{segment}.mat", content | {"patient_id": 7})
    rows = [f"r{record}_{segment}.mat\t50" for record in range(3) for segment in range(2)]
    (tmp_path / "train.tsv").write_text("\n".join([str(tmp_path), *rows[:4]]) + "\n")
    (tmp_path / "valid.tsv").write_text("\n".join([str(tmp_path), *rows[4:]]) + "\n")
    assert main(["convert", str(tmp_path), str(tmp_path / "out")]) == 0
    assert "taken for the classes of cinc2021" in capsys.readouterr().out
    y = np.load(tmp_path / "out/y.npy")
    for name in ("train", "valid"):
        manifest = Manifest.read(tmp_path / f"out/{name}.tsv")
        for row in range(manifest.num_rows):
            np.testing.assert_array_equal(y[manifest.idx[row]], labels[int(manifest.record_ids[row][1:])])
        assert set(manifest.patient_ids.values()) == {"7"}
    assert label_definition(tmp_path / "out/label_def.csv") == label_definition("cinc2021")


def test_split_tables_are_written_and_read_with_and_without_the_stores(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "meta"
    assert main(["convert", str(folder), str(out), "--to", "meta_split"]) == 0
    with (out / "meta_split.csv").open() as file:
        meta = list(csv.DictReader(file))
    with (out / "segmented_split.csv").open() as file:
        cut = list(csv.DictReader(file))
    assert len(meta) == 20
    assert len(cut) == 40
    train = Manifest.read(folder / "train.tsv")
    idx = {int(row["idx"]) for row in meta if row["split"] == "train"}
    assert idx == set(train.idx.tolist())
    assert meta[0]["save_file"].startswith("georgia_r")
    assert all(Path(row["path"]).is_file() and row["sample_size"] == "100" for row in cut)
    main(["convert", str(out / "segmented_split.csv"), str(tmp_path / "files")])
    main(["convert", str(out / "segmented_split.csv"), str(tmp_path / "plain"), "--to", "fairseq_signals"])
    stores = ["--stores", str(tmp_path / "store"), "--segment-sec", "1"]
    main(["convert", str(out / "meta_split.csv"), str(tmp_path / "joined"), *stores])
    main(["convert", str(out / "segmented_split.csv"), str(tmp_path / "joined2"), *stores])
    for name in ("train", "valid", "test"):
        expected = samples(Manifest.read(folder / f"{name}.tsv"))
        for made in ("files", "plain", "joined", "joined2"):
            assert samples(Manifest.read(tmp_path / made / f"{name}.tsv")) == expected
    files = Manifest.read(tmp_path / "files/train.tsv")
    assert set(files.idx.tolist()) == idx


def test_records_are_found_behind_folders_and_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in ("georgia", "ningbo"):
        make_store(tmp_path / source, [100] * 3, source=source, prefix="00_")
    table = tmp_path / "meta_split.csv"
    names = ["georgia_g1_00_r1.mat", "ningbo_WFDB_00_r1.mat", "ningbo_00_r2", "mimic_x_r9.mat"]
    table.write_text("idx,save_file,split\n" + "".join(f"{i},{name},train\n" for i, name in enumerate(names)))
    stores = ["--stores", str(tmp_path / "georgia"), str(tmp_path / "ningbo"), "--segment-sec", "1"]
    assert main(["convert", str(table), str(tmp_path / "m"), *stores]) == 0
    assert "1 rows name records that the stores do not have" in capsys.readouterr().out
    made = Manifest.read(tmp_path / "m/train.tsv")
    found = [(made.sources[row], made.record_ids[row]) for row in range(made.num_rows)]
    assert found == [("georgia", "00_r1"), ("ningbo", "00_r1"), ("ningbo", "00_r2")]
    table.write_text("idx,save_file,split\n0,nowhere,train\n")
    with pytest.raises(DataError, match="none of its 1 records is in the stores"):
        main(["convert", str(table), str(tmp_path / "n"), *stores])
    table.write_text("idx,save_file,split\n0,ningbo_00_r2,train\n0,ningbo_00_r2,test\n")
    with pytest.raises(DataError, match="line 3: record '00_r2' is in train and in test"):
        main(["convert", str(table), str(tmp_path / "n"), *stores])


def test_what_cannot_be_converted_is_refused(folder: Path, tmp_path: Path) -> None:
    def refused(error: type[Exception], message: str, *arguments: str) -> None:
        with pytest.raises(error, match=message):
            main(["convert", *arguments])

    out = str(tmp_path / "o")
    refused(ConfigError, "did you mean 'fairseq_signals'", str(folder), out, "--to", "fairseq_signal")
    refused(ConfigError, "is in the format fairseq_ecg already", str(folder), out)
    refused(
        ConfigError,
        "--stores belongs to a meta_split",
        str(folder),
        out,
        "--to",
        "meta_split",
        "--stores",
        "s",
    )
    table = tmp_path / "t.csv"
    table.write_text("idx,save_file\n0,a\n")
    refused(DataError, "needed are the columns save_file and split", str(table), out)
    table.write_text("idx,save_file,split\n0,a,train\n")
    refused(ConfigError, "names records, not segments", str(table), out)
    refused(ConfigError, "in this format already", str(table), out, "--to", "meta_split")
    table.write_text("save_file,split,path,sample_size\na,../up,a_0.mat,100\n")
    refused(DataError, "cannot name a manifest", str(table), out)
    table.write_text("save_file,split,path,sample_size\na,train,a_0.mat,many\n")
    refused(DataError, "line 2: sample_size is 'many'", str(table), out)
