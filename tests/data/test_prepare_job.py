"""Preparation at scale: workers, interruptions, parts; the store is the same byte for byte."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.cli.prepare import main
from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data import prepare_job
from fairseq_ecg.data.prepare import Part, PrepareOptions, prepare
from fairseq_ecg.data.prepare_job import Listing
from fairseq_ecg.data.prepare_merge import merge
from fairseq_ecg.data.readers.physionet2021 import PhysioNet2021, PhysioNet2021Config
from fairseq_ecg.data.store import Store
from fairseq_ecg.errors import ConfigError, DataError
from tests.data.wfdb_files import samples, write_record

READER = PhysioNet2021(PhysioNet2021Config())
OPTIONS = PrepareOptions(sampling_rate=100)

KILLED = """
import os, sys
from pathlib import Path
from fairseq_ecg.data import prepare as module, prepare_job
from fairseq_ecg.data.readers.physionet2021 import PhysioNet2021, PhysioNet2021Config
raw, store, victim, num_workers = sys.argv[1:]
prepare_job.BLOCK_RECORDS = 4
prepare_record = module.prepare_record
def fatal(item, options):
    if item.record_id == victim:
        os.kill(os.getppid() if int(num_workers) else os.getpid(), 9)
    return prepare_record(item, options)
module.prepare_record = fatal
module.prepare(PhysioNet2021(PhysioNet2021Config()), Path(raw), Path(store),
    module.PrepareOptions(sampling_rate=100), num_workers=int(num_workers))
"""


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty-four small records, three of them bad, one id twice; blocks of four."""
    folder = tmp_path / "raw"
    for number in range(24):
        digital = samples(num_samples=200 + number, seed=number)
        if number == 5:
            digital[2] = 7
        path = write_record(folder / f"g{number // 9}", f"A{number:04}", digital, sampling_rate=100)
        if number == 11:
            path.with_suffix(".mat").unlink()
    write_record(folder / "g2", "A0002", samples(num_samples=150), sampling_rate=100)
    monkeypatch.setattr(prepare_job, "BLOCK_RECORDS", 4)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a store, byte for byte."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def whole(raw: Path, tmp_path: Path) -> dict[str, bytes]:
    """The store of one undisturbed run."""
    prepare(READER, raw, tmp_path / "whole", OPTIONS)
    return content(tmp_path / "whole")


@pytest.mark.parametrize("num_workers", [1, 2])
def test_any_number_of_workers_makes_the_same_bytes(raw, tmp_path, whole, num_workers):
    report = prepare(READER, raw, tmp_path / "store", OPTIONS, num_workers=num_workers)
    assert content(tmp_path / "store") == whole
    assert (report.num_records, report.num_found) == (23, 25)
    assert report.rejected == {"duplicate": 1, "missing file": 1}
    assert {"qc.tsv", "qc.html", "rejected.tsv", "index.cache/cache.json"} <= set(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "store", "whole"]


@pytest.mark.parametrize(("first_workers", "next_workers"), [(0, 0), (0, 2), (2, 0)])
def test_a_killed_run_is_continued_by_the_same_command(
    raw, tmp_path, whole, first_workers, next_workers, monkeypatch
):
    arguments = [sys.executable, "-c", KILLED, str(raw), str(tmp_path / "store"), "A0018", str(first_workers)]
    killed = subprocess.run(arguments, env={**os.environ}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "store").exists()
    partial = tmp_path / ".store.partial"
    with pytest.raises(DataError, match="not a prepared store"):
        Store.open(partial / "store")
    lines = (partial / "journal.jsonl").read_bytes().splitlines()
    # Workers run ahead: they may meet the fatal record before a block is written down.
    assert (0 if first_workers else 1) <= len(lines) <= 4

    seen: list[int] = []

    def progress(total, done, outcomes):
        seen.extend((total, done))
        return outcomes

    report = prepare(READER, raw, tmp_path / "store", OPTIONS, num_workers=next_workers, progress=progress)
    assert seen == [25, json.loads(lines[-1])["num_items"] if lines else 0]
    assert first_workers or seen[1] >= 4
    assert content(tmp_path / "store") == whole
    assert (report.num_records, report.rejected) == (23, {"duplicate": 1, "missing file": 1})
    assert not partial.exists()


def interrupt(raw: Path, store: Path, after: int = 17, **options) -> Path:
    """Stop a run after some records, as Ctrl-C does; returns the partial folder."""

    def progress(total, done, outcomes):
        for number, outcome in enumerate(outcomes, 1):
            yield outcome
            if number == after:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(READER, raw, store, PrepareOptions(sampling_rate=100, **options), progress=progress)
    return store.with_name(f".{store.name}.partial")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("journal.jsonl", lambda content: content[: len(content) - 20]),
        ("journal.jsonl", lambda content: b""),
        ("store/index.tsv", lambda content: content[: len(content) // 2]),
        ("store/qc.tsv", lambda content: content.replace(b"A0009", b"A0000")),
        ("store/rejected.tsv", lambda content: b""),
        ("store/shard-00000.npy", lambda content: content[:20000]),
        ("store/shard-00000.npy", lambda content: content[:30000] + bytes(2000) + content[32000:]),
        ("store/shard-00000.npy", lambda content: content + b"written after the last line of the journal"),
        ("job.json", lambda content: b"{"),
    ],
)
def test_what_a_crash_of_the_machine_has_damaged_is_done_again(raw, tmp_path, whole, name, damage):
    partial = interrupt(raw, tmp_path / "store")
    (partial / name).write_bytes(damage((partial / name).read_bytes()))
    prepare(READER, raw, tmp_path / "store", OPTIONS)
    assert content(tmp_path / "store") == whole


def test_a_run_that_filled_several_shards_is_continued(raw, tmp_path, monkeypatch):
    small = functools.partial(prepare_job.StoreFolder, shard_bytes=20000)
    monkeypatch.setattr(prepare_job, "StoreFolder", small)
    prepare(READER, raw, tmp_path / "whole", OPTIONS)
    whole = content(tmp_path / "whole")
    assert "shard-00005.npy" in whole
    for after in (4, 5, 9, 16, 24):
        interrupt(raw, tmp_path / "store", after=after)
        prepare(READER, raw, tmp_path / "store", OPTIONS)
        assert content(tmp_path / "store") == whole
        shutil.rmtree(tmp_path / "store")


def test_other_options_are_refused_or_start_anew(raw, tmp_path, whole):
    partial = interrupt(raw, tmp_path / "store", resample="linear")
    with pytest.raises(DataError, match=r"resample was 'linear', is 'polyphase'.*--overwrite") as caught:
        prepare(READER, raw, tmp_path / "store", OPTIONS)
    assert "\n" not in str(caught.value)
    assert (partial / "journal.jsonl").read_bytes()
    prepare(READER, raw, tmp_path / "store", OPTIONS, overwrite=True)
    assert content(tmp_path / "store") == whole


def test_another_listing_is_other_options(raw, tmp_path):
    interrupt(raw, tmp_path / "store")
    write_record(raw, "A9999")
    with pytest.raises(DataError, match="records_found was 25, is 26"):
        prepare(READER, raw, tmp_path / "store", OPTIONS)


def test_two_processes_never_write_one_store(raw, tmp_path):
    def progress(total, done, outcomes):
        with pytest.raises(DataError, match="being written by another process"):
            prepare(READER, raw, tmp_path / "store", OPTIONS)
        return outcomes

    prepare(READER, raw, tmp_path / "store", OPTIONS, progress=progress)
    assert Store.open(tmp_path / "store").num_records == 23


def test_a_raw_folder_that_changes_under_a_run_stops_it(raw, tmp_path):
    def progress(total, done, outcomes):
        (raw / "g1" / "A0009.hea").unlink()
        return outcomes

    with pytest.raises(DataError, match="changed while it was read"):
        prepare(READER, raw, tmp_path / "store", OPTIONS, progress=progress)


class Item:
    def __init__(self, record_id: str) -> None:
        self.record_id, self.path = record_id, Path("x")

    def read(self) -> Record:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Fatal:
    def records(self, raw_dir: Path):
        return iter([Item("a"), Item("b")])


def test_a_killed_worker_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match=r"a worker was killed.*same command again"):
        prepare(Fatal(), tmp_path, tmp_path / "store", OPTIONS, num_workers=1)
    assert list(tmp_path.iterdir()) == []


def test_workers_end_when_their_parent_is_killed(raw, tmp_path):
    script = (
        "import os, sys, time\n"
        "from fairseq_ecg.data import prepare_job\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "import multiprocessing\n"
        "lock = os.open(os.devnull, os.O_RDONLY)\n"
        "pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('fork'),\n"
        "    initializer=prepare_job._begin_worker, initargs=(os.getpid(), lock))\n"
        "print(pool.submit(os.getpid).result(), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
        for _ in range(100):
            if (
                not Path(f"/proc/{worker}/cmdline").exists()
                or not Path(f"/proc/{worker}/cmdline").read_bytes()
            ):
                return
            time.sleep(0.1)
    pytest.fail("the worker outlived its parent")


def test_three_merged_parts_are_one_run(raw, tmp_path, whole):
    parts = [tmp_path / f"part{index}" for index in range(3)]
    for index, path in enumerate(parts):
        prepare(READER, raw, path, OPTIONS, part=Part(index, 3), num_workers=index)
    stores = [Store.open(path) for path in parts]
    idx = np.concatenate([store.index.idx for store in stores])
    assert len(set(idx.tolist())) == len(idx) == 23
    assert merge([parts[2], parts[0], parts[1]], tmp_path / "merged") == 23
    assert content(tmp_path / "merged") == whole


def test_more_parts_than_usable_records_still_merge(raw, tmp_path, whole):
    for index in range(25):
        prepare(READER, raw, tmp_path / f"part{index:02}", OPTIONS, part=Part(index, 25))
    merge(sorted(tmp_path.glob("part*")), tmp_path / "merged")
    assert content(tmp_path / "merged") == whole


def test_parts_that_do_not_belong_together_are_refused(raw, tmp_path, whole):
    for index in range(3):
        prepare(READER, raw, tmp_path / f"p{index}", OPTIONS, part=Part(index, 3))
    target = tmp_path / "merged"
    with pytest.raises(DataError, match="is a whole store, no part"):
        merge([tmp_path / "whole"], target)
    with pytest.raises(DataError, match="parts 1 of 3 are missing"):
        merge([tmp_path / "p0", tmp_path / "p2"], target)
    with pytest.raises(DataError, match="are the same part 0"):
        merge([tmp_path / "p0", tmp_path / "p0"], target)
    prepare(READER, raw, tmp_path / "q1", PrepareOptions(sampling_rate=50), part=Part(1, 3))
    with pytest.raises(DataError, match="differ in choices"):
        merge([tmp_path / "p0", tmp_path / "q1", tmp_path / "p2"], target)
    with (tmp_path / "p1" / "shard-00000.npy").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    with pytest.raises(DataError, match="no longer has the checksum"):
        merge([tmp_path / f"p{index}" for index in range(3)], target)
    assert not target.exists()
    assert not list(tmp_path.glob(".merged*"))


def test_parts_are_made_and_merged_by_commands(raw, tmp_path, whole, capsys):
    common = ["physionet2021", str(raw)]
    main([*common, str(tmp_path / "one"), "--sampling-rate", "100"])
    for index in range(2):
        part = ["--shard-index", str(index), "--num-shards", "2", "--sampling-rate", "100"]
        assert main([*common, str(tmp_path / f"p{index}"), *part]) == 0
    assert "with all 2 parts: fairseq-ecg prepare merge" in capsys.readouterr().out
    assert main(["merge", str(tmp_path / "p0"), str(tmp_path / "p1"), str(tmp_path / "merged")]) == 0
    assert content(tmp_path / "merged") == content(tmp_path / "one")
    with pytest.raises(DataError, match="overwrite"):
        main(["merge", str(tmp_path / "p0"), str(tmp_path / "p1"), str(tmp_path / "merged")])
    with pytest.raises(ConfigError, match="shard_index=2"):
        main([*common, str(tmp_path / "p2"), "--shard-index", "2", "--num-shards", "2"])
    with pytest.raises(ConfigError, match="go together"):
        main([*common, str(tmp_path / "p2"), "--shard-index", "1"])


def test_a_listing_keeps_no_records(tmp_path):
    class Many:
        def __init__(self) -> None:
            self.passes = 0

        def records(self):
            self.passes += 1
            return (Item(f"r{number % 90}") for number in range(100))

    many = Many()
    listing = Listing(many.records, tmp_path)
    rows = list(listing.items())
    assert many.passes == 2
    assert [bool(earlier) for _, earlier in rows] == [False] * 90 + [True] * 10
    assert [item.record_id for item, _ in listing.items(skip=98)] == ["r8", "r9"]
    halves = [Listing(many.records, tmp_path, (index, 2)) for index in range(2)]
    assert [item.record_id for half in halves for item, _ in half.items()] == [
        item.record_id for item, _ in rows
    ]
    assert [earlier for half in halves for _, earlier in half.items()] == [earlier for _, earlier in rows]


def test_a_record_of_many_samples_passes_through_a_worker(tmp_path, monkeypatch):
    digital = samples(num_samples=60000)
    write_record(tmp_path / "raw", "A0001", digital)
    prepare(READER, tmp_path / "raw", tmp_path / "store", PrepareOptions(), num_workers=1)
    np.testing.assert_array_equal(Store.open(tmp_path / "store").raw(0), digital)
    assert Store.open(tmp_path / "store").leads == STANDARD_LEADS
