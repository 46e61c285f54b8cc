import logging
from dataclasses import replace

import numpy as np
import pytest

from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.manifest import Manifest, write_manifest
from fairseq_ecg.data.store import Store
from fairseq_ecg.errors import DataError
from fairseq_ecg.infer.embed import embed, write_rejected
from fairseq_ecg.infer.inputs import FileOptions, find_inputs
from fairseq_ecg.infer.load import Encoder
from tests.frozen import CONTRACT, NUM_SAMPLES, RATE, make_manifests, make_model


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    return make_manifests(tmp_path_factory.mktemp("embed"), num_patients=8)


@pytest.fixture
def encoder():
    return Encoder(model=make_model(), contract=CONTRACT, name="tiny", batch_size=5)


def test_a_manifest_gives_one_vector_per_record_averaged_over_its_segments(manifests, encoder):
    inputs = find_inputs(manifests / "train.tsv", FileOptions())
    embeddings = embed(encoder, inputs)
    manifest, store = Manifest.read(manifests / "train.tsv"), Store.open(manifests.parent / "store")
    record_ids = [manifest.record_ids[row] for row in range(manifest.num_rows)]
    assert [item.record_id for item in embeddings.inputs] == list(dict.fromkeys(record_ids))
    rows = {store.record_id(row): row for row in range(store.num_records)}
    for item, vector in zip(embeddings.inputs, embeddings.embedding, strict=True):
        row = rows[item.record_id]
        expected = encoder.embed(store.read(row), RATE, STANDARD_LEADS)[0]
        np.testing.assert_allclose(vector, expected, atol=1e-6)
        assert (item.patient_id, item.source) == (store.patient_id(row), store.source(row))
        assert (item.codes, item.idx) == (store.labels(row), row)


def test_only_the_segments_that_a_manifest_names_are_read(manifests, encoder, tmp_path):
    columns = {
        "idx": [0],
        "record_id": ["r000_0"],
        "patient_id": ["p000"],
        "source": ["synthetic"],
        "segment": [1],
        "start": [NUM_SAMPLES],
        "num_samples": [NUM_SAMPLES],
    }
    write_manifest(tmp_path / "second.tsv", str(manifests.parent / "store"), columns)
    embeddings = embed(encoder, find_inputs(tmp_path / "second.tsv", FileOptions()))
    signal = Store.open(manifests.parent / "store").read(0)
    expected = encoder.embed(signal[:, NUM_SAMPLES:], RATE, STANDARD_LEADS)
    np.testing.assert_allclose(embeddings.embedding, expected, atol=1e-6)


def test_segments_keep_their_place_when_the_rate_changes(manifests, tmp_path):
    slow = replace(CONTRACT, sampling_rate=RATE // 2, num_samples=NUM_SAMPLES // 2)
    encoder = Encoder(model=make_model(), contract=slow, name="slow")
    whole = embed(encoder, find_inputs(manifests / "valid.tsv", FileOptions()))
    store = Store.open(manifests.parent / "store")
    rows = {store.record_id(row): row for row in range(store.num_records)}
    signals = np.stack([store.read(rows[item.record_id]) for item in whole.inputs])
    np.testing.assert_allclose(whole.embedding, encoder.embed(signals, RATE, STANDARD_LEADS), atol=1e-6)


def test_a_store_and_files_can_be_embedded(manifests, encoder, tmp_path, caplog):
    store = Store.open(manifests.parent / "store")
    from_store = embed(encoder, find_inputs(manifests.parent / "store", FileOptions()))
    assert len(from_store) == store.num_records
    np.save(tmp_path / "a.npy", store.read(3)[:2] * 1000)
    options = FileOptions(sampling_rate=RATE, leads=("I", "II"), unit="uV")
    with caplog.at_level(logging.INFO):
        from_file = embed(encoder, find_inputs(tmp_path / "a.npy", options))
    expected = encoder.embed(store.read(3)[:2], RATE, ("I", "II"))
    np.testing.assert_allclose(from_file.embedding, expected, atol=1e-5)
    assert "filled V1, V2, V3, V4, V5, V6 with zeros (1 of 1 records)" in caplog.text
    assert "embedded 1 records, 2 segments" in caplog.text


def test_the_patient_of_a_file_is_the_one_its_header_names(encoder, tmp_path):
    import wfdb

    signal = np.random.default_rng(0).normal(size=(NUM_SAMPLES, 2))
    wfdb.wrsamp(
        "A1",
        RATE,
        ["mV"] * 2,
        ["I", "II"],
        signal,
        fmt=["16"] * 2,
        comments=["Patient: p7"],
        write_dir=tmp_path,
    )
    embeddings = embed(encoder, find_inputs(tmp_path, FileOptions()))
    assert [(item.record_id, item.patient_id) for item in embeddings.inputs] == [("A1", "p7")]


def test_real_records_are_embedded_from_their_headers(encoder, shared):
    folder = shared / "data" / "real_ecg" / "cinc2021"
    inputs = find_inputs(folder, FileOptions())[:6]
    embeddings = embed(replace(encoder, batch_size=64), inputs, skip_bad=True)
    assert np.isfinite(embeddings.embedding).all()
    assert len(embeddings) + len(embeddings.rejected) == len(inputs)


def test_bad_records_are_listed_with_their_reason_or_refused(manifests, encoder, tmp_path):
    store = Store.open(manifests.parent / "store")
    good, bad = store.read(0), store.read(1)
    bad[0, 5] = np.nan
    np.save(tmp_path / "good.npy", good)
    np.save(tmp_path / "bad.npy", bad)
    options = FileOptions(sampling_rate=RATE, leads=STANDARD_LEADS, unit="mV")
    inputs = [find_inputs(tmp_path / name, options)[0] for name in ("bad.npy", "good.npy")]
    embeddings = embed(encoder, inputs, skip_bad=True)
    assert [item.record_id for item in embeddings.inputs] == ["good"]
    assert [item.record_id for item in embeddings.rejected] == ["bad"]
    write_rejected(tmp_path / "rejected.tsv", embeddings.rejected)
    assert "bad\tbad: values of lead I are not finite" in (tmp_path / "rejected.tsv").read_text()
    with pytest.raises(DataError, match="lead I are not finite"):
        embed(encoder, inputs)
    with pytest.raises(DataError, match="none of 1 records could be embedded; the first one: bad:"):
        embed(encoder, inputs[:1], skip_bad=True)


def test_saved_arrays_load_without_pickles(manifests, encoder, tmp_path):
    embeddings = embed(encoder, find_inputs(manifests / "test.tsv", FileOptions()))
    embeddings.save(tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as saved:
        assert set(saved.files) == {"record_id", "embedding", "patient_id", "source"}
        assert np.array_equal(saved["embedding"], embeddings.embedding)
        assert saved["record_id"].tolist() == [item.record_id for item in embeddings.inputs]
    with pytest.raises(DataError, match="cannot be written"):
        embeddings.save(tmp_path / "absent" / "out.npz")


def test_inputs_that_are_nothing_known_are_refused(manifests, tmp_path):
    with pytest.raises(DataError, match="no manifest"):
        find_inputs(tmp_path / "nothing.xyz", FileOptions())
    columns = {"idx": [0], "record_id": ["other"], "patient_id": ["p"], "source": ["s"]}
    place = {"segment": [0], "start": [0], "num_samples": [10]}
    write_manifest(tmp_path / "other.tsv", str(manifests.parent / "store"), {**columns, **place})
    with pytest.raises(DataError, match="line 3: record 'other' is not in the store"):
        find_inputs(tmp_path / "other.tsv", FileOptions())


def test_a_segment_outside_its_record_is_refused(manifests, encoder, tmp_path):
    columns = {"idx": [0], "record_id": ["r000_0"], "patient_id": ["p000"], "source": ["s"]}
    place = {"segment": [0], "start": [300], "num_samples": [NUM_SAMPLES]}
    write_manifest(tmp_path / "far.tsv", str(manifests.parent / "store"), {**columns, **place})
    with pytest.raises(DataError, match="r000_0: samples 300 to 500 lie outside its 400 samples"):
        embed(encoder, find_inputs(tmp_path / "far.tsv", FileOptions()))


def test_columns_of_a_manifest_say_what_its_files_do_not(manifests, encoder, tmp_path):
    store = Store.open(manifests.parent / "store")
    np.save(tmp_path / "a.npy", store.read(3)[:2] * 1000)
    np.savetxt(tmp_path / "b.csv", store.read(4)[:2].T, delimiter=",", header="I,II", comments="")
    columns = {
        "idx": [0, 1],
        "record_id": ["a", "b"],
        "patient_id": ["pa", "pb"],
        "source": ["files"] * 2,
        "segment": [0] * 2,
        "start": [0] * 2,
        "num_samples": [store.read(3).shape[1]] * 2,
        "path": ["a.npy", "b.csv"],
        "sampling_rate": [RATE] * 2,
        "leads": ["I,II", ""],
        "unit": ["uV", ""],
    }
    write_manifest(tmp_path / "m.tsv", ".", columns)
    # What a row leaves empty is as the options say.
    embeddings = embed(encoder, find_inputs(tmp_path / "m.tsv", FileOptions(unit="mV")))
    expected = [encoder.embed(store.read(row)[:2], RATE, ("I", "II"))[0] for row in (3, 4)]
    np.testing.assert_allclose(embeddings.embedding, expected, atol=1e-5)
    columns["sampling_rate"] = ["fast", RATE]
    write_manifest(tmp_path / "m.tsv", ".", columns)
    rejected = embed(encoder, find_inputs(tmp_path / "m.tsv", FileOptions(unit="mV")), skip_bad=True).rejected
    assert [row.record_id for row in rejected] == ["a"]
    assert "line 3: sampling_rate is 'fast', needed are whole Hz" in rejected[0].reason
