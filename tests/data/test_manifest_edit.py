"""Combined and thinned manifests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.cli.manifest import main
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.manifest_edit import combine, subset
from fairseq_ecg.data.store import Store
from fairseq_ecg.errors import ConfigError, DataError
from tests.data.made_stores import make_store


def split(tmp_path: Path, name: str, size: int, *more: str, **options: object) -> Path:
    make_store(tmp_path / "stores" / name, [210] * size, source=name, **options)  # type: ignore[arg-type]
    folder = tmp_path / "manifests" / name
    main(["split", str(tmp_path / "stores" / name), str(folder), "--segment-sec", "1", *more])
    return folder


def keys(manifest: Manifest) -> set[tuple[str, str, int]]:
    return {
        (manifest.sources[row], manifest.record_ids[row], int(manifest.segment[row]))
        for row in range(manifest.num_rows)
    }


def test_two_folders_become_one_with_labels_and_a_common_root(tmp_path: Path) -> None:
    folders = [split(tmp_path, name, size, "--labels", "cinc2021") for name, size in (("a", 20), ("b", 30))]
    out = tmp_path / "both"
    report = combine(*folders, out)
    assert report.notes == []
    y = np.load(out / "y.npy")
    assert y.shape == (50, 26)
    for name in ("train", "valid", "test"):
        made = Manifest.read(out / f"{name}.tsv")
        parts = [Manifest.read(folder / f"{name}.tsv") for folder in folders]
        assert keys(made) == keys(parts[0]) | keys(parts[1])
        assert made.root.resolve() == tmp_path / "stores"
        for row in range(made.num_rows):
            store = Store.open(made.root / made.stores[row])  # type: ignore[index]
            place = store.index.text("record_id").values().index(made.record_ids[row])
            assert store.source(place) == made.sources[row]
            own = np.load(tmp_path / "manifests" / made.sources[row] / "y.npy")[place]
            np.testing.assert_array_equal(y[made.idx[row]], own)
    assert main(["check", str(out)]) == 0
    left = combine(*folders, tmp_path / "one", exclude=["a"])
    assert left.num_left_out == 40
    assert keys(Manifest.read(tmp_path / "one/test.tsv")) == keys(Manifest.read(folders[1] / "test.tsv"))


def test_idx_stay_where_they_do_not_overlap_and_shared_rows_are_kept_once(tmp_path: Path) -> None:
    first = split(tmp_path, "a", 10)
    second = split(tmp_path, "b", 10, first_idx=100)
    combine(first, second, tmp_path / "both")
    assert set(Manifest.read(tmp_path / "both/train.tsv").idx.tolist()) == set(
        Manifest.read(first / "train.tsv").idx.tolist() + Manifest.read(second / "train.tsv").idx.tolist()
    )
    report = combine(tmp_path / "both", second, tmp_path / "again")
    assert report.rows["train.tsv"] == Manifest.read(tmp_path / "both/train.tsv").num_rows


def test_a_patient_in_two_splits_other_cuts_and_other_labels_are_found(tmp_path: Path) -> None:
    first = split(tmp_path, "a", 20, "--labels", "cinc2021")
    store = str(tmp_path / "stores/a")
    main(["split", store, str(tmp_path / "other"), "--segment-sec", "1", "--seed", "1"])
    with pytest.raises(DataError, match=r"patient '.*' of 'a' is in .* of one folder"):
        combine(first, tmp_path / "other", tmp_path / "out")
    main(["split", store, str(tmp_path / "cut"), "--segment-sec", "2"])
    with pytest.raises(DataError, match="is cut differently in the two folders"):
        combine(first, tmp_path / "cut", tmp_path / "out")
    second = split(tmp_path, "b", 20, "--labels", "synthetic")
    report = combine(first, second, tmp_path / "out")
    assert "label arrays were not combined" in report.notes[0]
    assert not (tmp_path / "out/y.npy").exists()
    with pytest.raises(ConfigError, match="is read from"):
        combine(first, second, second, overwrite=True)
    with pytest.raises(DataError, match="exists"):
        combine(first, second, tmp_path / "out")
    with pytest.raises(ConfigError, match="--exclude c: no such source"):
        combine(first, second, tmp_path / "out", exclude=["c"], overwrite=True)


def test_plain_manifests_of_fairseq_signals_are_combined_below_their_common_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "m").mkdir(parents=True)
        (tmp_path / name / "m/train.tsv").write_text(f"{tmp_path}/{name}/mat\nx_0.mat\t500\nx_1.mat\t500\n")
    report = combine(tmp_path / "a/m", tmp_path / "b/m", tmp_path / "out")
    assert report.rows == {"train.tsv": 4}
    lines = (tmp_path / "out/train.tsv").read_text().splitlines()
    assert lines[0] == str(tmp_path)
    assert lines[1:] == [
        "a/mat/x_0.mat\t500",
        "a/mat/x_1.mat\t500",
        "b/mat/x_0.mat\t500",
        "b/mat/x_1.mat\t500",
    ]
    (tmp_path / "b/m/train.tsv").rename(tmp_path / "b/m/test.tsv")
    (tmp_path / "b/m/test.tsv").write_text((tmp_path / "a/m/train.tsv").read_text())
    with pytest.raises(DataError, match=r"record 'x' is in test\.tsv and in train\.tsv"):
        combine(tmp_path / "a/m", tmp_path / "b/m", tmp_path / "o2")
    own = split(tmp_path, "c", 10)
    with pytest.raises(DataError, match="combine manifests of one kind"):
        combine(tmp_path / "a/m", own, tmp_path / "o3")


def test_a_subset_keeps_whole_patients_and_grows_with_its_share(tmp_path: Path) -> None:
    folder = split(tmp_path, "a", 100, "--labels", "cinc2021")
    whole = Manifest.read(folder / "train.tsv")
    sizes, before = [], set()
    for share in (0.1, 0.5, 1.0):
        out = tmp_path / f"subset{share}"
        report = subset(folder, out, share, seed=3)
        part = Manifest.read(out / "train.tsv")
        patients = {part.patient_ids[row] for row in range(part.num_rows)}
        assert keys(part) == {
            key for row, key in enumerate(sorted_keys(whole)) if whole.patient_ids[row] in patients
        }
        assert before <= patients
        before = patients
        sizes.append(len(patients))
        assert "pos_weight.txt is of the whole training split" in report.notes[0]
        for name in ("valid.tsv", "test.tsv", "y.npy"):
            if name.endswith("tsv"):
                assert keys(Manifest.read(out / name)) == keys(Manifest.read(folder / name))
            else:
                assert (out / name).read_bytes() == (folder / name).read_bytes()
    assert sizes == [4, 20, 40]
    subset(folder, tmp_path / "other", 0.5, seed=4)
    assert keys(Manifest.read(tmp_path / "other/train.tsv")) != keys(
        Manifest.read(tmp_path / "subset0.5/train.tsv")
    )
    assert main(["check", str(tmp_path / "subset0.1")]) == 0


def sorted_keys(manifest: Manifest) -> list[tuple[str, str, int]]:
    return [
        (manifest.sources[row], manifest.record_ids[row], int(manifest.segment[row]))
        for row in range(manifest.num_rows)
    ]


def test_a_subset_of_fairseq_signals_manifest_keeps_its_form(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    lines = [f"r{i}_{j}.mat\t500\t{i}" for i in range(10) for j in range(2)]
    (tmp_path / "m/train.tsv").write_text("\n".join([str(tmp_path), *lines]) + "\n")
    assert (
        main(["subset", str(tmp_path / "m"), str(tmp_path / "o"), "--fraction", "0.3", "--by", "record"]) == 0
    )
    made = (tmp_path / "o/train.tsv").read_text().splitlines()
    assert made[0] == str(tmp_path)
    assert set(made[1:]) <= set(lines)
    assert len(made) == 7
    (tmp_path / "m/train.tsv").write_text(f"{tmp_path}\nmat\nr0\t500\t0\t0,1\n")
    with pytest.raises(DataError, match="names pairs"):
        subset(tmp_path / "m", tmp_path / "p", 0.5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--fraction", "0"], "more than 0"),
        (["--fraction", "0.5", "--by", "patents"], "did you mean 'patient'"),
    ],
)
def test_a_wrong_share_is_refused(tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main(["subset", str(tmp_path), str(tmp_path / "o"), *more])
