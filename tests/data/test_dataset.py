from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_ecg.contracts import STANDARD_LEADS, Batch, Keys, SampleKey
from fairseq_ecg.data.augment.pipeline import Pipeline
from fairseq_ecg.data.dataset import ManifestDataset
from fairseq_ecg.data.device import prepare_source
from fairseq_ecg.data.manifest import Manifest, write_manifest
from fairseq_ecg.data.split import SplitOptions, split_stores
from fairseq_ecg.data.store import Store
from fairseq_ecg.errors import ConfigError, DataError
from tests.data.made_stores import make_manifest, make_store, signals


def dataset(manifest: Manifest, **options: object) -> ManifestDataset:
    defaults: dict[str, object] = {
        "leads": STANDARD_LEADS,
        "num_samples": None,
        "pipeline": Pipeline.parse("random_lead_mask"),
        "seed": 3,
    }
    return ManifestDataset(manifest, **{**defaults, **options})  # type: ignore[arg-type]


def keys(*rows: int, epoch: int = 1) -> Keys:
    return Keys(epoch, np.array(rows, dtype=np.int64), np.zeros(len(rows), dtype=np.int64))


def mv(batch: Batch) -> np.ndarray:
    return batch.source.numpy().astype(np.float32) * batch.scale.numpy()[:, None, None]


def mixed(tmp_path: Path) -> Manifest:
    """Two stores of other leads' order, one of them in three shards."""
    leads = tuple(reversed(STANDARD_LEADS))
    make_store(tmp_path / "a", [200, 300, 250], shard_bytes=8000, source="a")
    make_store(tmp_path / "b", [220, 210], leads=leads, source="b", first_idx=3, seed=1)
    rows = [("a", 0), ("b", 1), ("a", 2), ("b", 0), ("a", 1)]
    columns = {
        "idx": [row + (3 if store == "b" else 0) for store, row in rows],
        "record_id": [f"r{row}" for _, row in rows],
        "patient_id": ["p"] * 5,
        "source": [store for store, _ in rows],
        "segment": [0] * 5,
        "start": [7, 10, 100, 0, 150],
        "num_samples": [150] * 5,
        "store": [store for store, _ in rows],
    }
    write_manifest(tmp_path / "m.tsv", ".", columns)
    return Manifest.read(tmp_path / "m.tsv")


def test_a_gather_cuts_the_named_samples_out_of_any_shard_of_any_store(tmp_path: Path) -> None:
    batch = dataset(mixed(tmp_path)).gather(keys(4, 1, 0, 3, 2))
    a, b = signals([200, 300, 250]), signals([220, 210], seed=1)
    expected = [a[1][:, 150:300], b[1][::-1, 10:160], a[0][:, 7:157], b[0][::-1, :150], a[2][:, 100:250]]
    np.testing.assert_allclose(mv(batch), np.stack(expected), rtol=0, atol=0.0005 + 1e-6)
    whole = [a[1], b[1][::-1], a[0], b[0][::-1], a[2]]
    assert batch.lead_mean is not None
    assert batch.lead_std is not None
    np.testing.assert_allclose(batch.lead_mean.numpy(), [x.mean(axis=1) for x in whole], atol=1e-6)
    np.testing.assert_allclose(batch.lead_std.numpy(), [x.std(axis=1) for x in whole], atol=1e-6)
    assert batch.patient.tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("normalisation", ["none", "record_zscore"])
@pytest.mark.parametrize("enable_padding", [False, True])
@pytest.mark.parametrize("num_samples", [None, 120])
def test_the_batched_path_is_the_per_sample_path(
    tmp_path: Path, normalisation: str, enable_padding: bool, num_samples: int | None
) -> None:
    store = make_store(tmp_path / "s", [150, 400, 130, 150])
    manifest = make_manifest(tmp_path / "m.tsv", store, None)
    data = dataset(manifest, num_samples=num_samples, enable_padding=enable_padding)
    batch = data.gather(keys(1, 3, 0, 2))
    whole = prepare_source(batch, data.pipeline, normalisation, train=True)
    size = whole.source.shape[2]
    assert size == (num_samples or (400 if enable_padding else 130))
    for place, row in enumerate((1, 3, 0, 2)):
        # The witness sees its own length only, so the longer batch cuts inside what it sees.
        alone = dataset(manifest, num_samples=size, enable_padding=True)
        one = prepare_source(alone[SampleKey(1, row)], alone.pipeline, normalisation, train=True)
        length = min(size, int(manifest.num_samples[row]))
        torch.testing.assert_close(whole.source[place, :, :length], one.source[0], rtol=0, atol=2e-6)
        assert not whole.source[place, :, length:].any()
        if enable_padding and whole.padding_mask is not None:
            assert whole.padding_mask[place].tolist() == [False] * length + [True] * (size - length)
    is_padded = enable_padding and num_samples is None
    assert (whole.padding_mask is not None) == is_padded


def test_getitems_of_keys_is_their_gather(tmp_path: Path) -> None:
    data = dataset(mixed(tmp_path))
    got = data.__getitems__([SampleKey(2, 1), SampleKey(2, 3, 1)])
    expected = data.gather(Keys(2, np.array([1, 3]), np.array([0, 1])))
    assert torch.equal(got.source, expected.source)
    assert torch.equal(got.draws[0], expected.draws[0])
    assert len(data) == 5


def test_a_cut_is_uniform_over_every_place_and_follows_its_key(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "m.tsv", make_store(tmp_path / "s", [40]), None)
    data = dataset(manifest, num_samples=37)
    record = data.segments.witness(0)
    starts = []
    for epoch in range(200):
        batch = data.gather(keys(0, epoch=epoch))
        cut = mv(batch)[0]
        starts.append(next(s for s in range(4) if np.array_equal(cut, record[:, s : s + 37])))
        assert np.array_equal(mv(data.gather(keys(0, epoch=epoch)))[0], cut)
    count = np.bincount(starts, minlength=4)
    assert count.min() > 50 - 5 * 37.5**0.5  # mean 50, variance 37.5


def test_leads_are_selected_and_ordered_by_name(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "m.tsv", make_store(tmp_path / "s", [100]), None)
    batch = dataset(manifest, leads=("V6", "I", "aVR")).gather(keys(0))
    np.testing.assert_allclose(mv(batch)[0], signals([100])[0][[11, 0, 3]], rtol=0, atol=0.0005 + 1e-6)
    assert batch.draws[0].shape == (1, 3)


def test_an_unknown_lead_is_refused_with_the_nearest(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "m.tsv", make_store(tmp_path / "s", [100], leads=("I", "aVL")), None)
    with pytest.raises(DataError, match=r"has no lead 'aVR'; did you mean 'aVL'\?"):
        dataset(manifest, leads=("I", "aVR"))


def test_a_store_of_another_rate_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "m.tsv", make_store(tmp_path / "s", [100], rate=250), None)
    message = (
        "has 250 Hz, 500 Hz are needed; .*fairseq-ecg prepare made RAW_DIR STORE_DIR --sampling-rate 500"
    )
    with pytest.raises(DataError, match=message):
        dataset(manifest, sampling_rate=500)
    assert dataset(manifest).segments.sampling_rate == 250


def test_targets_follow_idx_and_nan_stays(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [100, 100], first_idx=2)
    manifest = make_manifest(tmp_path / "m.tsv", store, 50)
    labels = np.array([[9, 9], [9, 9], [0, 1], [np.nan, 0]])
    batch = dataset(manifest, target=labels).gather(keys(2, 0, 1))
    assert batch.target is not None
    np.testing.assert_array_equal(batch.target.numpy(), np.float32([[np.nan, 0], [0, 1], [0, 1]]))
    classes = dataset(manifest, target=np.array([7, 7, 4, 5])).gather(keys(3, 0)).target
    assert classes is not None
    assert classes.tolist() == [5, 4]
    assert classes.dtype == torch.int64
    assert dataset(manifest).gather(keys(0)).target is None


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.zeros((3, 2)), "the label file has 3 rows, .* names idx 3; use the y.npy"),
        (np.zeros((4, 2, 2)), "labels of shape"),
        (np.zeros(4), "labels of shape"),
        (np.array(["a"] * 4), "labels of shape"),
    ],
)
def test_labels_that_do_not_fit_the_manifest_are_refused(
    tmp_path: Path, target: np.ndarray, message: str
) -> None:
    store = make_store(tmp_path / "s", [100, 100], first_idx=2)
    with pytest.raises(DataError, match=message):
        dataset(make_manifest(tmp_path / "m.tsv", store, 50), target=target)


def test_a_row_that_ends_behind_its_record_is_refused(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "m.tsv", make_store(tmp_path / "s", [100, 100]), 50)
    text = (tmp_path / "m.tsv").read_text().replace("\t1\t50\t50", "\t1\t51\t50")
    (tmp_path / "m.tsv").write_text(text)
    with pytest.raises(DataError, match=r"line 4: segment 51 \+ 50 ends behind record 'r0'"):
        dataset(Manifest.read(manifest.path))


def test_a_record_that_the_store_lacks_is_refused(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "m.tsv", make_store(tmp_path / "s", [100, 100]), 50)
    (tmp_path / "m.tsv").write_text((tmp_path / "m.tsv").read_text().replace("r1", "r9"))
    with pytest.raises(DataError, match="line 5: record 'r9' is not in"):
        dataset(Manifest.read(manifest.path))


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "m.tsv", make_store(tmp_path / "s", [100]), 50)
    with pytest.raises(ConfigError, match="on_bad_record='ignore': one of error, zero, skip"):
        dataset(manifest, on_bad_record="ignore")


def test_single_files_are_read_for_small_jobs(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    signal = signals([100])[0]
    np.save(tmp_path / "raw" / "one.npy", signal)
    columns: dict[str, list[object]] = {
        "idx": [0, 0],
        "record_id": ["one"] * 2,
        "patient_id": ["p"] * 2,
        "source": [""] * 2,
        "segment": [0, 1],
        "start": [0, 40],
        "num_samples": [40, 40],
        "path": ["one.npy"] * 2,
        "sampling_rate": [500] * 2,
        "leads": [",".join(STANDARD_LEADS)] * 2,
        "unit": ["mV"] * 2,
    }
    write_manifest(tmp_path / "m.tsv", "raw", columns)
    data = dataset(Manifest.read(tmp_path / "m.tsv"), leads=("V1", "I"), sampling_rate=500)
    batch = data.gather(keys(1, 0))
    expected = np.stack([signal[[6, 0], 40:80], signal[[6, 0], :40]])
    np.testing.assert_array_equal(batch.source.numpy(), expected)
    assert batch.lead_mean is not None
    np.testing.assert_allclose(batch.lead_mean[0].numpy(), signal[[6, 0]].mean(axis=1), atol=1e-6)
    columns["sampling_rate"] = ["500 Hz"] * 2
    write_manifest(tmp_path / "m.tsv", "raw", columns)
    with pytest.raises(DataError, match="line 3: sampling_rate is '500 Hz', needed are whole Hz"):
        dataset(Manifest.read(tmp_path / "m.tsv")).gather(keys(0))


def test_filters_come_from_the_stores_and_stores_filtered_differently_do_not_mix(tmp_path: Path) -> None:
    stores = [make_store(tmp_path / name, [200, 200], source=name) for name in ("a", "b")]
    plain = make_manifest(tmp_path / "plain.tsv", stores[0], 100)
    assert dataset(plain).filter == "none"
    path = tmp_path / "b" / "store.json"
    content = json.loads(path.read_text())
    content["choices"]["filter"] = "notch(frequency=50.0, quality=30.0)"
    path.write_text(json.dumps(content))
    filtered = make_manifest(tmp_path / "filtered.tsv", Store.open(tmp_path / "b"), 100)
    assert dataset(filtered).filter == "notch(frequency=50.0, quality=30.0)"
    split_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "both", SplitOptions(segment_sec=1, valid="0"))
    with pytest.raises(DataError, match=r"b is filtered by notch.*a by none"):
        dataset(Manifest.read(tmp_path / "both" / "train.tsv"))


def test_a_batch_that_cannot_be_read_at_all_is_a_stand_in_of_no_weight(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    np.save(tmp_path / "raw" / "good.npy", signals([100])[0])
    np.save(tmp_path / "raw" / "bad.npy", np.array(["no number"]))
    columns: dict[str, list[object]] = {
        "idx": [0, 1, 2],
        "record_id": ["bad", "good", "bad2"],
        "patient_id": ["p"] * 3,
        "source": [""] * 3,
        "segment": [0] * 3,
        "start": [0] * 3,
        "num_samples": [50] * 3,
        "path": ["bad.npy", "good.npy", "bad.npy"],
        "sampling_rate": [500] * 3,
        "leads": [",".join(STANDARD_LEADS)] * 3,
        "unit": ["mV"] * 3,
    }
    write_manifest(tmp_path / "m.tsv", "raw", columns)
    labels = np.ones((3, 2), dtype=np.float32)
    data = dataset(Manifest.read(tmp_path / "m.tsv"), target=labels, on_bad_record="skip")
    batch = data.gather(keys(0, 2), batch_index=4)
    assert (batch.weight, batch.batch_index, len(batch)) == (0.0, 4, 2)
    assert batch.source.shape == (2, 12, 50)
    assert not batch.source.any()
    assert batch.target is not None
    assert batch.target.shape == (2, 2)
    assert batch.target.isnan().all()
    assert set(data.rejected) == {"bad", "bad2"}
    # The partner of a file that cannot be read does not count either.
    pair = data.gather(Keys(1, np.array([1, 0]), np.array([0, 1])))
    assert pair.weight == 0.0
    assert not pair.source.any()
    assert data.gather(keys(1, 0)).weight == 1.0
