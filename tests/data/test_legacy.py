from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from numpy.typing import NDArray

from fairseq_ecg.contracts import STANDARD_LEADS, Keys
from fairseq_ecg.data.augment.pipeline import Pipeline
from fairseq_ecg.data.dataset import ManifestDataset
from fairseq_ecg.data.legacy_export import write_pairs
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.pairing import segment_pairs
from fairseq_ecg.errors import DataError


def feats(record: int, segment: int) -> NDArray[np.float64]:
    return np.random.default_rng([record, segment]).normal(size=(12, 50))


def write_mats(folder: Path, *counts: int, **more: object) -> None:
    """Segments ``sub/rec<i>_<j>.mat`` as fairseq-signals' preprocessing leaves them."""
    (folder / "sub").mkdir(parents=True)
    for record, count in enumerate(counts):
        for segment in range(count):
            content = {
                "feats": feats(record, segment),
                "curr_sample_rate": 500,
                "patient_id": 70 + record,
                "label": np.arange(4) == record % 4,
                **more,
            }
            scipy.io.savemat(folder / "sub" / f"rec{record}_{segment}.mat", content)


def plain(tmp_path: Path, *counts: int, root: str | None = None) -> Path:
    lines = [root or str(tmp_path / "mats")]
    lines += [f"sub/rec{record}_{i}.mat\t50" for record, count in enumerate(counts) for i in range(count)]
    path = tmp_path / "train.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def dataset(manifest: Manifest, **options: object) -> ManifestDataset:
    defaults: dict[str, object] = {
        "leads": STANDARD_LEADS,
        "num_samples": None,
        "pipeline": Pipeline(),
        "seed": 0,
    }
    return ManifestDataset(manifest, **{**defaults, **options})  # type: ignore[arg-type]


def keys(*rows: int) -> Keys:
    return Keys(1, np.array(rows, dtype=np.int64), np.zeros(len(rows), dtype=np.int64))


def test_a_plain_manifest_and_its_segments_are_read_as_they_are(tmp_path: Path) -> None:
    write_mats(tmp_path / "mats", 2, 1)
    manifest = Manifest.read(plain(tmp_path, 2, 1))
    assert manifest.is_legacy
    assert manifest.record.tolist() == [0, 0, 1]
    assert manifest.segment.tolist() == [0, 1, 0]
    batch = dataset(manifest, sampling_rate=500).gather(keys(2, 0, 1))
    expected = np.stack([feats(1, 0), feats(0, 0), feats(0, 1)]).astype(np.float32)
    np.testing.assert_array_equal(batch.source.numpy(), expected)
    assert batch.source.dtype == torch.float32
    assert batch.scale.tolist() == [1, 1, 1]
    assert batch.patient.tolist() == [71, 70, 70]
    assert batch.target is not None
    assert batch.target.argmax(dim=1).tolist() == [1, 0, 0]
    assert batch.lead_mean is None  # what a segment holds is not the whole record


def test_a_leading_tab_before_the_root_is_ignored(tmp_path: Path) -> None:
    write_mats(tmp_path / "mats", 1)
    manifest = Manifest.read(plain(tmp_path, 1, root=f"\t{tmp_path / 'mats'} "))
    assert manifest.root == tmp_path / "mats"


def test_idx_is_the_patient_and_the_row_of_the_label_file(tmp_path: Path) -> None:
    write_mats(tmp_path / "mats", 2, idx=2, mean=np.zeros((12, 1)))
    labels = np.array([[0, 1], [0, 0], [1, np.nan]])
    batch = dataset(Manifest.read(plain(tmp_path, 2)), target=labels).gather(keys(0, 1))
    assert batch.patient.tolist() == [2, 2]
    assert batch.target is not None
    np.testing.assert_array_equal(batch.target.numpy(), np.float32([[1, np.nan], [1, np.nan]]))
    short = dataset(Manifest.read(plain(tmp_path, 2)), target=labels[:2])
    with pytest.raises(DataError, match=r"the label file has 2 rows, .* names idx 2"):
        short.gather(keys(0))


def test_a_cmsc_manifest_names_its_pairs(tmp_path: Path) -> None:
    write_mats(tmp_path / "mats", 4, 3)
    path = tmp_path / "train.tsv"
    path.write_text(f"{tmp_path / 'mats'}\nmat\nsub/rec0\t50\t0\t0,2\nsub/rec1\t50\t0\t0,1,2\n")
    manifest = Manifest.read(path)
    assert manifest.pairs is not None
    assert segment_pairs(manifest, 1, 0).tolist() == [[0, 1], [2, 3]]
    batch = dataset(manifest).gather(Keys(1, np.array([0, 1, 2, 3]), np.array([0, 1, 0, 1])))
    expected = np.stack([feats(0, 0), feats(0, 2), feats(1, 0), feats(1, 1)]).astype(np.float32)
    np.testing.assert_array_equal(batch.source.numpy(), expected)
    assert batch.segment.tolist() == [0, 1, 0, 1]


def test_an_identification_manifest_names_its_classes(tmp_path: Path) -> None:
    write_mats(tmp_path / "mats", 1, 1)
    path = tmp_path / "train.tsv"
    path.write_text(f"{tmp_path / 'mats'}\nsub/rec0_0.mat\t50\t3\nsub/rec1_0.mat\t50\t8\n")
    batch = dataset(Manifest.read(path)).gather(keys(1, 0))
    assert batch.target is not None
    assert batch.target.tolist() == [8, 3]


@pytest.mark.parametrize("line", ["sub/rec0_0.mat 50", "sub/rec0_0.mat\tfifty", "a\t1\t2\t3\t4,b"])
def test_a_line_of_no_known_form_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(f"{tmp_path}\nsub/x_0.mat\t50\n{line}\n")
    if line.startswith("a\t"):  # a third field that is a class, then more: only that class is read
        path.write_text(f"{tmp_path}\nmat\n{line}\n")
    with pytest.raises(DataError, match=r"line 3: .* separated by tabs"):
        Manifest.read(path)


def test_a_legacy_row_outside_the_root_is_refused_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(f"{tmp_path / 'mats'}\n../other/rec0_0.mat\t50\n")
    with pytest.raises(DataError, match=r"line 2: .* lies outside the root"):
        Manifest.read(path)
    assert Manifest.read(path, allow_outside=True).num_rows == 1


def damage(tmp_path: Path, how: str) -> Path:
    write_mats(tmp_path / "mats", 2, 2)
    path = tmp_path / "mats" / "sub" / "rec0_1.mat"
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif how == "NaN":
        scipy.io.savemat(path, {"feats": np.full((12, 50), np.nan), "curr_sample_rate": 500})
    elif how == "rate":
        scipy.io.savemat(path, {"feats": feats(0, 1), "curr_sample_rate": 257})
    elif how == "leads":
        scipy.io.savemat(path, {"feats": feats(0, 1)[:3], "curr_sample_rate": 500})
    elif how == "short":
        scipy.io.savemat(path, {"feats": feats(0, 1)[:, :20], "curr_sample_rate": 500})
    else:
        scipy.io.savemat(path, {"val": feats(0, 1)})
    return plain(tmp_path, 2, 2)


DAMAGES = {
    "missing": "is missing; the manifest names it",
    "truncated": "cannot be read as a .mat file",
    "NaN": "holds values that are not finite",
    "rate": "has 257 Hz, 500 Hz are needed; .* --sampling-rate 500",
    "leads": "has 3 leads",
    "short": "has 20 samples, .* line 3 wants 50",
    "foreign": "holds no .* array 'feats'; it has",
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_bad_segment_is_refused_with_its_name(tmp_path: Path, how: str) -> None:
    data = dataset(Manifest.read(damage(tmp_path, how)), sampling_rate=500)
    with pytest.raises(DataError, match=f"record 'sub/rec0': .*{DAMAGES[how]}"):
        data.gather(keys(0, 1, 2))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_bad_segment_may_become_zeros_without_label(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = dataset(Manifest.read(damage(tmp_path, how)), sampling_rate=500, on_bad_record="zero")
    batch = data.gather(keys(0, 1, 2))
    assert not batch.source[1].any()
    np.testing.assert_array_equal(batch.source[2].numpy(), feats(1, 0).astype(np.float32))
    assert batch.target is not None
    assert torch.isnan(batch.target[1]).all()
    assert not torch.isnan(batch.target[[0, 2]]).any()
    assert list(data.rejected) == ["sub/rec0"]
    data.gather(keys(1, 0))
    assert sum("left out" in line for line in caplog.messages) == 1  # told once, not once per epoch


def test_a_bad_segment_may_be_skipped_with_its_partner(tmp_path: Path) -> None:
    data = dataset(Manifest.read(damage(tmp_path, "missing")), on_bad_record="skip")
    pairs = Keys(1, np.array([0, 1, 2, 3]), np.array([0, 1, 0, 1]))
    batch = data.gather(pairs)
    assert batch.keys.index.tolist() == [2, 3]
    assert batch.patient.tolist() == [71, 71]
    np.testing.assert_array_equal(batch.source[1].numpy(), feats(1, 1).astype(np.float32))
    assert data.gather(Keys(1, np.array([0, 1]), np.array([0, 1]))).weight == 0.0


def test_without_a_wanted_rate_the_first_readable_segment_s_counts(tmp_path: Path) -> None:
    path = damage(tmp_path, "missing")
    (tmp_path / "mats" / "sub" / "rec0_0.mat").unlink()
    data = dataset(Manifest.read(path))
    assert data.sampling_rate == 500
    for file in (tmp_path / "mats" / "sub").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"rec0_0\.mat is missing"):
        dataset(Manifest.read(path))


def test_a_plain_manifest_becomes_one_of_pairs(tmp_path: Path) -> None:
    manifest = Manifest.read(plain(tmp_path, 5, 1, 2))
    report = write_pairs(manifest, tmp_path / "cmsc", segment_dir=tmp_path / "cmsc" / "segments")
    assert (report.num_pairs, report.num_records, report.num_left_over, report.num_files) == (3, 2, 2, 0)
    assert (tmp_path / "cmsc" / "train.tsv").read_text().splitlines() == [
        str(tmp_path / "mats"),
        "mat",
        "sub/rec0\t50\t0\t0,1",
        "sub/rec0\t50\t0\t2,3",
        "sub/rec2\t50\t0\t0,1",
    ]
    again = Manifest.read(tmp_path / "cmsc" / "train.tsv")
    assert again.pairs is not None
    assert len(again.pairs) == 3
    with pytest.raises(DataError, match="exists; choose another folder, or replace it with --overwrite"):
        write_pairs(manifest, tmp_path / "cmsc", segment_dir=tmp_path / "cmsc" / "segments")
    with pytest.raises(DataError, match="names pairs already"):
        write_pairs(again, tmp_path / "other", segment_dir=tmp_path / "other" / "segments")
