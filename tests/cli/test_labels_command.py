"""``fairseq-ecg labels``: label files by a definition."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.cli.labels import main
from fairseq_ecg.cli.manifest import main as manifest
from fairseq_ecg.data.labels import label_definition
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.errors import DataError
from tests.data.made_stores import make_store


def test_weights_are_of_the_training_split_and_idx_of_the_manifests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stores = [tmp_path / "a", tmp_path / "b"]
    for store, size in zip(stores, (12, 8), strict=True):
        make_store(store, [100] * size, records_per_patient=1, source=store.name)
    folder = tmp_path / "m"
    manifest(["split", *map(str, stores), str(folder), "--segment-sec", "1", "--by", "record"])
    capsys.readouterr()
    # Stores in another order than in the split: the manifests say which idx is whose.
    arguments = [str(stores[1]), str(stores[0]), str(folder), "--definition", "cinc2021"]
    assert main([*arguments, "--manifest", str(folder)]) == 0
    out = capsys.readouterr().out
    definition = label_definition("cinc2021")
    y = np.load(folder / "y.npy")
    assert y.shape == (20, 26)
    sinus, brady = definition.names.index("NSR"), definition.names.index("SB")
    train = Manifest.read(folder / "train.tsv")
    for row in range(train.num_rows):
        is_odd = int(train.record_ids[row][1:]) % 2
        assert y[train.idx[row], sinus] == is_odd
        assert y[train.idx[row], brady] == 1 - is_odd
    positive = y[train.idx, sinus].sum()
    weight = (train.num_rows - positive) / positive
    weights = (folder / "pos_weight.txt").read_text()
    assert weights.startswith("[")
    assert weights.endswith("]\n")
    assert float(weights.strip("[]\n").split(",")[sinus]) == pytest.approx(weight, abs=1e-6)
    assert weights.split(",")[1] == "1.000000"  # AFL occurs nowhere
    with (folder / "label_def.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(rows[sinus]["pos_count_train"]) == positive
    assert int(rows[sinus]["pos_count_all"]) == 10
    assert float(rows[sinus]["pos_percent_all"]) == 50
    assert rows[1]["pos_weight_train"] == ""
    assert label_definition(folder / "label_def.csv") == definition
    assert f"train: {train.num_rows} records, 0 without any label" in out
    assert "1 is written for: AFL, BBB," in out


def test_without_manifests_the_weights_are_of_all_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "a", [100] * 5)
    make_store(tmp_path / "b", [100] * 5)
    stores = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main([*stores, str(tmp_path / "o"), "--definition", "ptbxl_super"]) == 0
    assert np.isnan(np.load(tmp_path / "o" / "y.npy")).all()  # SNOMED codes say nothing of SCP classes
    out = capsys.readouterr().out
    assert "all: 10 records, 10 without any label of the definition" in out
    assert "idx of the stores overlap" in out
    assert "ptbxl_super says nothing of any record; their codes are others, e.g. 426177001|164889003" in out
    assert (tmp_path / "o" / "pos_weight.txt").read_text() == "[" + ",".join(["1.000000"] * 5) + "]\n"
    with pytest.raises(DataError, match=r"y\.npy exists"):
        main([*stores, str(tmp_path / "o"), "--definition", "ptbxl_super"])


def test_manifests_of_other_stores_are_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "a", [100] * 5)
    make_store(tmp_path / "b", [100] * 5)
    manifest(["split", str(tmp_path / "a"), str(tmp_path / "m"), "--segment-sec", "1"])
    with pytest.raises(DataError, match="not among those given"):
        main(
            [
                str(tmp_path / "b"),
                str(tmp_path / "m"),
                "--definition",
                "cinc2021",
                "--manifest",
                str(tmp_path / "m"),
            ]
        )
    make_store(tmp_path / "c", [100] * 3)
    (tmp_path / "a" / "store.json").unlink()
    for path in (tmp_path / "a").glob("*"):
        if path.is_file():
            path.unlink()
    for path in (tmp_path / "c").iterdir():
        if path.is_file():
            (tmp_path / "a" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="is not in"):
        main(
            [
                str(tmp_path / "a"),
                str(tmp_path / "m"),
                "--definition",
                "cinc2021",
                "--manifest",
                str(tmp_path / "m"),
            ]
        )


def test_an_unknown_definition_names_the_nearest(tmp_path: Path) -> None:
    make_store(tmp_path / "a", [100] * 5)
    with pytest.raises(DataError, match="did you mean 'ptbxl_super'"):
        main([str(tmp_path / "a"), str(tmp_path / "o"), "--definition", "ptbxl_supr"])
    assert not (tmp_path / "o").exists()
