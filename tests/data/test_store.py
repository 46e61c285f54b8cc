from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.store import Store, StoreWriter
from fairseq_ecg.errors import DataError
from tests.data.made_stores import RATE, make_store, signals


def record(signal: np.ndarray, record_id: str = "a", rate: int = RATE) -> Record:
    return Record(
        record_id=record_id,
        patient_id="p",
        source="s",
        signal=signal.astype(np.float32),
        leads=("I", "II"),
        sampling_rate=rate,
    )


def writer(path: Path, **options: object) -> StoreWriter:
    return StoreWriter(path, sampling_rate=RATE, leads=("I", "II"), choices={}, **options)  # type: ignore[arg-type]


def slow_quantise(value: float) -> int:
    """The nearest whole number of microvolts, ties to even."""
    return round(value * 1000)


def test_a_store_gives_back_every_record_within_half_a_unit(tmp_path: Path) -> None:
    lengths = [500, 30, 777]
    store = make_store(tmp_path / "s", lengths)
    assert store.num_records == 3
    for row, signal in enumerate(signals(lengths)):
        # Half a unit, and float32's rounding of a product of some mV.
        np.testing.assert_allclose(store.read(row), signal, rtol=0, atol=0.0005 + 1e-6)
        assert store.is_intact(row)


def test_quantisation_is_the_nearest_microvolt(tmp_path: Path) -> None:
    signal = np.array([[0.0011, -0.0016, 1.2344, 2.0], [0.0, 3.25, -1.0, 0.5]])
    with writer(tmp_path / "s") as out:
        out.add(record(signal), leads_present=("I", "II"))
    expected = [[slow_quantise(value) for value in lead] for lead in signal.tolist()]
    assert Store.open(tmp_path / "s").raw(0).tolist() == expected


def test_a_record_too_large_for_one_microvolt_gets_a_larger_scale(tmp_path: Path) -> None:
    signal = np.array([[0.0, 100.0], [-99.0, 1.0]])
    with writer(tmp_path / "s") as out:
        out.add(record(signal), leads_present=("I", "II"))
    store = Store.open(tmp_path / "s")
    assert store.index.scale[0] == 0.004  # 100 mV / 32767 is above 3 uV
    np.testing.assert_allclose(store.read(0), signal, rtol=0, atol=0.002 + 1e-5)


def test_the_index_holds_what_the_record_said(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [100, 200, 300], first_idx=7)
    assert store.index.idx.tolist() == [7, 8, 9]
    assert [store.record_id(row) for row in range(3)] == ["r0", "r1", "r2"]
    assert [store.patient_id(row) for row in range(3)] == ["p0", "p0", "p1"]
    assert store.labels(0) == ("426177001", "164889003")
    assert store.labels(1) == ("426783006",)
    assert (store.source(2), store.sex(2), store.age(2), store.flags(2)) == ("made", "female", 42.0, ())
    assert store.leads_present(0) == STANDARD_LEADS
    mean, std = store.index.lead_statistics()
    for row, signal in enumerate(signals([100, 200, 300])):
        np.testing.assert_array_equal(mean[row], signal.astype(np.float64).mean(axis=1).astype(np.float32))
        np.testing.assert_array_equal(std[row], signal.astype(np.float64).std(axis=1).astype(np.float32))


def test_shards_are_plain_npy_files_of_the_asked_size_with_their_sha256(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [100] * 5, shard_bytes=6000)
    assert len(store.shards) == 3
    for shard in store.json["shards"]:
        path = tmp_path / "s" / shard["file"]
        assert path.stat().st_size <= 6000
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"]
        assert np.load(path).shape == (shard["num_values"],)
    assert store.json["counts"] == {"records": 5, "patients": 3, "sources": {"made": 5}}
    for row, signal in enumerate(signals([100] * 5)):
        np.testing.assert_allclose(store.read(row), signal, rtol=0, atol=0.0005 + 1e-6)


def test_pandas_reads_the_index_in_one_call(tmp_path: Path) -> None:
    import pandas

    make_store(tmp_path / "s", [100, 200])
    frame = pandas.read_csv(tmp_path / "s" / "index.tsv", sep="\t")
    assert frame["num_samples"].tolist() == [100, 200]
    raw = np.load(tmp_path / "s" / "shard-00000.npy")
    for _, row in frame.iterrows():
        block = raw[row["offset"] : row["offset"] + 12 * row["num_samples"]]
        assert zlib.crc32(block.tobytes()) == row["crc32"]


def test_the_cache_follows_the_table(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100, 200])
    path = tmp_path / "s" / "index.tsv"
    path.write_text(path.read_text().replace("\tp0\t", "\tpatient nought\t"))
    assert Store.open(tmp_path / "s").patient_id(1) == "patient nought"


def test_a_copied_store_uses_its_cache_though_times_differ(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100, 200])
    shutil.copytree(tmp_path / "s", tmp_path / "t", copy_function=shutil.copyfile)
    before = os.stat(tmp_path / "t" / "index.cache" / "cache.json").st_ino
    assert Store.open(tmp_path / "t").record_id(1) == "r1"
    assert os.stat(tmp_path / "t" / "index.cache" / "cache.json").st_ino == before


@pytest.mark.parametrize("damage", ["remove", "empty", "other version"])
def test_a_missing_or_damaged_cache_is_made_again(tmp_path: Path, damage: str) -> None:
    make_store(tmp_path / "s", [100, 200])
    cache = tmp_path / "s" / "index.cache"
    if damage == "remove":
        shutil.rmtree(cache)
    elif damage == "empty":
        (cache / "idx.npy").write_bytes(b"")
    else:
        (cache / "cache.json").write_text("[]")
    store = Store.open(tmp_path / "s")
    assert store.patient_id(1) == "p0"
    for _ in range(2):  # parsed, then from the cache
        mean, std = Store.open(tmp_path / "s").index.lead_statistics()
        for row, signal in enumerate(signals([100, 200])):
            np.testing.assert_allclose(mean[row], signal.mean(axis=1), atol=1e-6)
            np.testing.assert_allclose(std[row], signal.std(axis=1), atol=1e-6)
    assert (cache / "lead_mean.npy").is_file()
    assert json.loads((cache / "cache.json").read_text())["size"] > 0


def test_many_may_open_a_store_without_a_cache_at_once(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100, 200])
    cache, num_threads = tmp_path / "s" / "index.cache", 8
    start = threading.Barrier(num_threads)

    def patient_and_mean(_: int) -> tuple[str, float]:
        start.wait()
        store = Store.open(tmp_path / "s")
        return store.patient_id(1), float(store.index.lead_statistics()[0][1, 0])

    mean = float(signals([100, 200])[1][0].mean())
    with ThreadPoolExecutor(num_threads) as pool:
        for damage in ["remove", "other version"] * 5:
            shutil.rmtree(cache) if damage == "remove" else (cache / "cache.json").write_text("[]")
            answers = list(pool.map(patient_and_mean, range(num_threads)))
            assert answers == [("p0", pytest.approx(mean, abs=1e-6))] * num_threads
    # Whatever the processes were doing to each other, a whole cache stays and nothing else.
    assert json.loads((cache / "cache.json").read_text())["size"] > 0
    assert not list((tmp_path / "s").glob(".index.cache*"))
    assert not list(cache.glob(".*"))


@pytest.mark.parametrize(
    ("code", "module", "name"), [(errno.EROFS, tempfile, "mkdtemp"), (errno.ENOSPC, np, "save")]
)
def test_a_store_on_a_read_only_or_full_disk_opens_without_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, module: object, name: str
) -> None:
    make_store(tmp_path / "s", [100, 200])
    (tmp_path / "s" / "index.cache" / "cache.json").write_text("[]")

    def refuse(*args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module, name, refuse)
    store = Store.open(tmp_path / "s")
    assert store.patient_id(1) == "p0"
    assert store.index.lead_statistics()[0].shape == (2, 12)
    assert not list((tmp_path / "s").glob(".index.cache*"))


def test_an_existing_store_is_kept_unless_overwriting(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100])
    with pytest.raises(DataError, match="exists; choose another folder, or replace it with --overwrite"):
        writer(tmp_path / "s")
    with writer(tmp_path / "s", overwrite=True) as out:
        assert Store.open(tmp_path / "s").num_records == 1  # the old one is there until the new one is whole
        for name in ("a", "b"):
            out.add(record(np.ones((2, 5)), name), leads_present=("I", "II"))
    assert Store.open(tmp_path / "s").num_records == 2
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="exists and is not a store"):
        writer(tmp_path / "s", overwrite=True)
    assert (tmp_path / "s" / "thesis.txt").read_text() == "years of work"


def test_a_failed_preparation_leaves_the_old_store_and_no_rest(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100])

    def prepare() -> None:
        with writer(tmp_path / "s", overwrite=True) as out:
            out.add(record(np.ones((2, 5))), leads_present=("I", "II"))
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        prepare()
    assert Store.open(tmp_path / "s").num_records == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_an_empty_folder_may_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    assert make_store(tmp_path / "s", [100]).num_records == 1


def test_an_unwritable_place_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        writer(tmp_path / "file" / "s")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (record(np.ones((2, 5)), rate=250), "has 250 Hz, the store 100 Hz"),
        (record(np.ones((3, 5))), r"has shape \(3, 5\), the store needs \(2, time\)"),
        (record(np.ones((2, 0))), "has shape"),
        (record(np.array([[1.0, np.nan], [0, 0]])), "not finite"),
        (record(np.array([[1.0, np.inf], [0, 0]])), "not finite"),
        (record(np.ones((2, 5)), "first"), "record_id 'first' .* is in the store already"),
        (record(np.ones((2, 5)), "a\tb"), "holds a tab"),
    ],
)
def test_a_record_the_store_cannot_hold_is_refused(tmp_path: Path, bad: Record, message: str) -> None:
    with writer(tmp_path / "s") as out:
        out.add(record(np.ones((2, 5)), "first"), leads_present=("I", "II"))
        with pytest.raises(DataError, match=message):
            out.add(bad, leads_present=("I", "II"))
    assert Store.open(tmp_path / "s").num_records == 1


def test_a_missing_store_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="make one with: fairseq-ecg prepare"):
        Store.open(tmp_path)


def test_a_truncated_or_missing_shard_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100])
    shard = tmp_path / "s" / "shard-00000.npy"
    with shard.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match=r"has 1000 bytes, 2528 were written"):
        Store.open(tmp_path / "s")
    shard.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        Store.open(tmp_path / "s")


def test_a_changed_sample_shows_in_the_checksum(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100, 100])
    with (tmp_path / "s" / "shard-00000.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    store = Store.open(tmp_path / "s")
    assert [store.is_intact(row) for row in range(2)] == [True, False]


def test_rows_that_point_outside_their_shard_are_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100, 100])
    path = tmp_path / "s" / "index.tsv"
    path.write_text(path.read_text().replace("\t0\t1200\t100\t", "\t0\t1201\t100\t"))
    with pytest.raises(DataError, match="line 3: record 'r1' lies outside its shard"):
        Store.open(tmp_path / "s")


def test_a_record_id_that_appears_twice_in_the_index_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100, 100])
    path = tmp_path / "s" / "index.tsv"
    path.write_text(path.read_text().replace("\tr1\t", "\tr0\t"))
    with pytest.raises(DataError, match="line 3: record_id 'r0' appears twice"):
        Store.open(tmp_path / "s")


def test_a_store_of_another_schema_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [100])
    path = tmp_path / "s" / "store.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(DataError, match="schema_version 99, this version reads 1"):
        Store.open(tmp_path / "s")
    path.write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        Store.open(tmp_path / "s")


def test_likelihoods_and_folds_are_kept(tmp_path: Path) -> None:
    plain = record(np.ones((2, 10)))
    stated = replace(plain, record_id="b", labels=("NORM", "SR"), likelihoods=(80.0, 0.0), fold="10")
    with writer(tmp_path / "s") as store_writer:
        store_writer.add(plain, leads_present=("I", "II"))
        store_writer.add(stated, leads_present=("I", "II"))
        with pytest.raises(DataError, match="has 1 likelihoods for 2 labels"):
            store_writer.add(replace(stated, record_id="c", likelihoods=(80.0,)), leads_present=("I", "II"))
    store = Store.open(tmp_path / "s")
    assert [store.likelihoods(row) for row in range(2)] == [(), (80.0, 0.0)]
    assert [store.fold(row) for row in range(2)] == ["", "10"]


def test_an_index_without_likelihoods_and_folds_has_none(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [50, 60])
    path = tmp_path / "s" / "index.tsv"
    lines = [line.rsplit("\t", 2)[0] for line in path.read_text().splitlines()]
    assert lines[0].endswith("\tlabels")
    path.write_text("\n".join(lines) + "\n")
    store = Store.open(tmp_path / "s")
    assert (store.fold(1), store.likelihoods(1), store.labels(1)) == ("", (), ("426783006",))
