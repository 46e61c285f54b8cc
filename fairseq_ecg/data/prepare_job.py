"""The engine of ``prepare``: every record of a listing through a function, in order, into a store.

Worker processes read, check and encode blocks of records; this process alone writes, in the order of the
listing, so that the store is the same whatever the number of workers. All that is written lies in a hidden
folder beside the store with a journal; a run that is killed at any moment is continued by the same command,
and what has no ``store.json`` under its final name is no store.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.encode import Encoded
from fairseq_ecg.data.qc import QC_COLUMNS, QC_FILE, Quality, reason_kind
from fairseq_ecg.data.record import RawItem
from fairseq_ecg.data.store_folder import (
    FolderMark,
    GrowingText,
    StoreFolder,
    TextMark,
    check_replaceable,
    good_marks,
    is_intact,
    make_parent,
    put_in_place,
)
from fairseq_ecg.errors import DataError

REJECTED = "rejected.tsv"
REJECTED_COLUMNS = ("record", "path", "reason", "action")
LEFT_OUT = "left out"

BLOCK_RECORDS = 128
"""Records a worker handles at a time, and between two lines of the journal."""


class Finding(NamedTuple):
    """A row of ``rejected.tsv``."""

    record: str
    path: str
    reason: str
    action: str

    def line(self) -> str:
        """Tab-separated, with the line end; tabs and line ends in a reason become spaces."""
        return "\t".join(" ".join(cell.split()) for cell in self) + "\n"


class Outcome(NamedTuple):
    """What became of one record, without its samples."""

    encoded: Encoded | None
    """None: left out."""
    quality: Quality
    findings: tuple[Finding, ...] = ()
    num_samples: int = 0
    """In the store."""
    repairs: tuple[str, ...] = ()
    noted: bool = False


Process = Callable[[RawItem, str], tuple[Outcome, NDArray[np.int16] | None]]
"""Record and, if another one of this id came first, that one's path -> what became of it, and its samples."""


@dataclass
class Report:
    """What a preparation did."""

    sampling_rate: int
    num_found: int
    num_records: int = 0
    num_samples: int = 0
    """Of one lead, all records together."""
    sources: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    """Kind of reason -> records left out."""
    repaired: Counter[str] = field(default_factory=Counter)
    """Kind of repair -> records kept with it."""
    noted: int = 0
    """Records kept unchanged with a remark of the reader."""
    num_findings: int = 0
    first_left_out: str = ""

    @property
    def hours(self) -> float:
        return self.num_samples / self.sampling_rate / 3600

    def count(self, outcome: Outcome) -> None:
        self.num_findings += len(outcome.findings)
        if outcome.encoded is None:
            record, _, reason, _ = outcome.findings[-1]
            self.rejected[reason_kind(reason)] += 1
            self.first_left_out = self.first_left_out or f"{record}: {reason}"
            return
        self.num_records += 1
        self.num_samples += outcome.num_samples
        self.sources[outcome.encoded.source or "unknown"] += 1
        self.noted += outcome.noted
        self.repaired.update(outcome.repairs)

    def summary(self) -> str:
        """One line: records, hours, sources, and what was left out or repaired and why."""
        text = f"{self.num_records} of {self.num_found} records, {self.hours:.2f} hours"
        text += f" ({', '.join(f'{name}: {count}' for name, count in sorted(self.sources.items()))})"
        for title, counts in (("left out", self.rejected), ("repaired", self.repaired)):
            if counts:
                text += f"; {title}: " + ", ".join(
                    f"{count} {name}" for name, count in sorted(counts.items())
                )
        return text + (f"; {self.noted} with remarks" if self.noted else "")

    def counts(self) -> dict[str, Any]:
        """Everything counted, as plain values."""
        return {
            name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take over what ``counts`` gave."""
        for name, value in kept.items():
            setattr(self, name, Counter(value) if isinstance(value, dict) else value)


class Listing:
    """What a reader finds, in little memory: a hash per record, and whose id occurs again.

    Args:
        records: calls the reader; called again for every pass over the records.
        raw_dir: paths below it are compared relative to it, so that the raw folder may move.
        part: (index, number of parts); this part is a contiguous range of the listing.
    """

    def __init__(
        self, records: Callable[[], Iterator[RawItem]], raw_dir: Path, part: tuple[int, int] = (0, 1)
    ) -> None:
        self._records = records
        self._hashes = array("q")
        digest = sha256()
        prefix = f"{raw_dir}/"
        for item in records():
            self._hashes.append(hash(item.record_id))
            digest.update(f"{item.record_id}\t{str(item.path).removeprefix(prefix)}\n".encode())
        self.num_found = len(self._hashes)
        self.digest = digest.hexdigest()
        self.start, self.stop = (self.num_found * (part[0] + end) // part[1] for end in (0, 1))
        hashes = np.frombuffer(self._hashes, np.int64) if self._hashes else np.zeros(0, np.int64)
        values, counts = np.unique(hashes, return_counts=True)
        self._repeated = set(values[counts > 1].tolist())

    def items(self, skip: int = 0) -> Iterator[tuple[RawItem, str]]:
        """The records of this part but the first ``skip``, each with the path of an earlier one of its id.

        Raises:
            DataError: the reader finds other records than before.
        """
        first_path: dict[str, str] = {}
        position = -1
        for position, item in enumerate(self._records()):
            if position >= self.stop:
                return
            if position >= self.num_found or hash(item.record_id) != self._hashes[position]:
                break
            earlier = ""
            if self._hashes[position] in self._repeated:
                earlier = first_path.get(item.record_id, "")
                first_path.setdefault(item.record_id, str(item.path))
            if position >= self.start + skip:
                yield item, earlier
        else:
            if position + 1 == self.num_found:
                return
        raise DataError("the raw folder changed while it was read; run the same command again")


@dataclass(frozen=True)
class _Mark:
    """A line of the journal: all that is needed to continue after ``num_items`` records of the listing."""

    num_items: int
    folder: FolderMark
    rejected: TextMark
    qc: TextMark
    report: dict[str, Any]

    @classmethod
    def parse(cls, line: bytes) -> Self:
        kept = json.loads(line)
        folder = kept["folder"]
        return cls(
            kept["num_items"],
            FolderMark(
                folder["num_records"],
                TextMark(*folder["index"]),
                tuple((count, digest) for count, digest in folder["closed"]),
                folder["num_values"],
            ),
            TextMark(*kept["rejected"]),
            TextMark(*kept["qc"]),
            kept["report"],
        )


class Job:
    """A store in the making, and what is needed to continue after an interruption.

    The hidden folder ``.NAME.partial`` holds ``job.json`` (what was asked for), ``journal.jsonl`` (a line per
    finished block) and ``store`` (the growing store). It is kept when a run ends early with finished blocks,
    and removed when the store is in its place.

    Args:
        store_dir: folder to make.
        asked: everything that decides what the store will hold.
        report: counts, continued from the journal.
        overwrite: replace a store that is there, and start anew where the interrupted run was asked for
            something else.
        settings: of ``StoreFolder``.

    Raises:
        DataError: ``store_dir`` exists or cannot be written; another process is writing it; an interrupted
            run was asked for something else.
    """

    def __init__(
        self,
        store_dir: Path,
        asked: Mapping[str, Any],
        report: Report,
        *,
        overwrite: bool,
        **settings: Any,
    ) -> None:
        check_replaceable(store_dir, overwrite)
        self.store_dir = store_dir
        self.report = report
        self.num_items = 0
        """Records of the listing that are done."""
        self._overwrite = overwrite
        self._partial = make_parent(store_dir) / f".{store_dir.name}.partial"
        self._partial.mkdir(exist_ok=True)
        self.lock = _lock(self._partial)
        self._is_open = True
        try:
            self._open(asked, settings)
        except BaseException:
            os.close(self.lock)
            raise

    def _open(self, asked: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Continue what lies in the partial folder, or start anew."""
        mark = self._mark_to_continue(json.loads(json.dumps(asked)))
        folder = self._partial / "store"
        if mark is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (self._partial / "job.json").write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")
            (self._partial / "journal.jsonl").write_bytes(b"")
        else:
            self.num_items = mark.num_items
            self.report.restore(mark.report)
        for path in self._partial.glob("blocks-*"):  # of workers that were killed
            shutil.rmtree(path)
        self.blocks_dir = Path(tempfile.mkdtemp(prefix="blocks-", dir=self._partial))
        self._folder = StoreFolder(folder, mark=mark.folder if mark else None, **settings)
        self._rejected = _table(folder / REJECTED, REJECTED_COLUMNS, mark.rejected if mark else None)
        self._qc = _table(folder / QC_FILE, QC_COLUMNS, mark.qc if mark else None)
        self._journal: IO[bytes] = (self._partial / "journal.jsonl").open("ab")

    def add(self, outcome: Outcome, values: NDArray[np.int16] | bytes | None, *, strict: bool) -> Outcome:
        """Write what became of one record; what the store refuses is left out, or stops a strict run.

        Raises:
            DataError: the store refuses it and ``strict`` is set.
        """
        if outcome.encoded is not None and values is not None:
            try:
                self._folder.append(outcome.encoded, values)
            except DataError as error:
                if strict:
                    raise
                finding = Finding(outcome.encoded.record_id, "", str(error), LEFT_OUT)
                quality = outcome.quality._replace(reason=str(error))
                outcome = Outcome(None, quality, (*outcome.findings, finding))
        for finding in outcome.findings:
            self._rejected.write(finding.line())
        self._qc.write(outcome.quality.line())
        self.report.count(outcome)
        self.num_items += 1
        return outcome

    def checkpoint(self) -> None:
        """Write down that everything added so far is done."""
        for file in (self._folder, self._rejected, self._qc):
            file.flush()
        mark = _Mark(
            self.num_items, self._folder.mark, self._rejected.mark, self._qc.mark, self.report.counts()
        )
        self._journal.write(json.dumps(asdict(mark)).encode() + b"\n")
        self._journal.flush()

    def finish(self, describe: Callable[[Path], None], extra: Mapping[str, Any] | None = None) -> None:
        """Complete the store, let ``describe`` add its pages, and move it into place."""
        self._rejected.close(sync=True)
        self._qc.close(sync=True)
        self._folder.finish(extra)
        describe(self._folder.folder)
        put_in_place(self._folder.folder, self.store_dir, self._overwrite)
        self.discard()

    def discard(self) -> None:
        """Close everything and remove the partial folder."""
        self._close_files()
        shutil.rmtree(self._partial)
        self._release()

    def close(self) -> None:
        """Close everything; the partial folder stays."""
        self._close_files()
        self._release()

    def _release(self) -> None:
        os.close(self.lock)
        self._is_open = False

    def _close_files(self) -> None:
        shutil.rmtree(self.blocks_dir, ignore_errors=True)
        for file in (self._folder, self._rejected, self._qc, self._journal):
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_open:
            return
        if os.path.getsize(self._partial / "journal.jsonl"):
            self.close()
        else:
            self.discard()

    def _mark_to_continue(self, asked: dict[str, Any]) -> _Mark | None:
        """The last line of the journal that the files agree with; None to start from the first record."""
        try:
            begun = json.loads((self._partial / "job.json").read_text(encoding="utf-8"))
            lines = (self._partial / "journal.jsonl").read_bytes().splitlines(keepends=True)
        except (FileNotFoundError, ValueError):
            return None
        if begun != asked:
            if lines and not self._overwrite:
                raise DataError(
                    f"{self.store_dir}: an interrupted preparation was asked for something else "
                    f"({_difference(begun, asked)}); repeat it with its own options to continue it, or start "
                    "anew with --overwrite"
                )
            return None
        marks = [_Mark.parse(line) for line in lines if line.endswith(b"\n")]
        folder = self._partial / "store"
        good = min(
            good_marks(folder / "index.tsv", [mark.folder.index for mark in marks]),
            good_marks(folder / REJECTED, [mark.rejected for mark in marks]),
            good_marks(folder / QC_FILE, [mark.qc for mark in marks]),
        )
        while good and not is_intact(folder, marks[good - 1].folder):
            good -= 1
        temporary = self._partial / ".journal.jsonl"
        temporary.write_bytes(b"".join(lines[:good]))
        os.replace(temporary, self._partial / "journal.jsonl")
        return marks[good - 1] if good else None


def _table(path: Path, columns: Sequence[str], mark: TextMark | None) -> GrowingText:
    table = GrowingText(path, mark)
    if mark is None:
        table.write("\t".join(columns) + "\n")
    return table


def _difference(begun: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """The first thing two runs disagree on."""
    for key in [*asked, *begun]:
        before, now = begun.get(key), asked.get(key)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            return _difference(before, now)
        return f"{key} was {before!r}, is {now!r}"
    return "nothing"


def _lock(folder: Path) -> int:
    """Hold a folder for this process; the system releases it whatever becomes of the process.

    Raises:
        DataError: another process holds it.
    """
    import fcntl

    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise DataError(
            f"{folder} is being written by another process; wait for it, or choose another store"
        ) from None
    return lock


def run(
    job: Job, listing: Listing, process: Process, *, num_workers: int = 0, strict: bool = False
) -> Iterator[Outcome]:
    """Process the records that are not done yet and yield what became of each.

    Args:
        job: where results go.
        listing: the records.
        process: what is done with one; it and the records are sent to the workers by pickling.
        num_workers: processes beside this one; 0: this one does all.
        strict: a record that the store refuses stops the run.

    Raises:
        DataError: ``process`` raises it; a worker was killed.
    """
    blocks = _blocks(listing.items(skip=job.num_items))
    results = _in_processes(blocks, process, num_workers, job) if num_workers else _here(blocks, process)
    # What was imported stays: a collector that visits it again and again takes a tenth of the time, and in
    # the workers it would copy the memory they share with this process.
    gc.freeze()
    try:
        for block in results:
            for outcome, values in block:
                yield job.add(outcome, values, strict=strict)
            job.checkpoint()
    finally:
        gc.unfreeze()


Block = list[tuple[RawItem, str]]
Results = Iterable[tuple[Outcome, NDArray[np.int16] | bytes | None]]


def _blocks(items: Iterator[tuple[RawItem, str]]) -> Iterator[Block]:
    while block := list(islice(items, BLOCK_RECORDS)):
        yield block


def _here(blocks: Iterable[Block], process: Process) -> Iterator[Results]:
    for block in blocks:
        yield (process(item, earlier) for item, earlier in block)


def _in_processes(blocks: Iterable[Block], process: Process, num_workers: int, job: Job) -> Iterator[Results]:
    """Results in the order of the blocks. Threads do not scale here: half of the time holds the interpreter.

    Samples come back in files of the partial folder, which are cheaper than pipes, take no memory however
    long a record is, and are in the page cache still when they are read back and removed.
    """
    import multiprocessing

    # Forked workers know every reader this process knows, those of --user-dir included.
    pool = ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_begin_worker,
        initargs=(os.getpid(), job.lock),
    )
    queue: deque[tuple[Path, Future[list[Outcome]]]] = deque()
    try:
        for number, block in enumerate(blocks):
            path = job.blocks_dir / f"{number}.int16"
            queue.append((path, pool.submit(partial(_work, process), block, path)))
            if len(queue) > 2 * num_workers:
                path, future = queue.popleft()
                yield _read_back(path, future.result())
        while queue:
            path, future = queue.popleft()
            yield _read_back(path, future.result())
    except BrokenProcessPool as error:
        raise DataError(
            "a worker was killed, most likely for lack of memory; run the same command again to continue, "
            "with fewer workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker(parent: int, lock: int) -> None:
    """Leave Ctrl-C to the parent, its lock alone, and end when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.close(lock)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(process: Process, block: Block, path: Path) -> list[Outcome]:
    """Process a block; its samples go one after the other into the file ``path``."""
    outcomes = []
    with path.open("wb") as file:
        for item, earlier in block:
            outcome, values = process(item, earlier)
            outcomes.append(outcome)
            if values is not None:
                file.write(values.data)
    return outcomes


def _read_back(path: Path, outcomes: list[Outcome]) -> Results:
    with path.open("rb") as file:
        for outcome in outcomes:
            encoded = outcome.encoded
            yield outcome, file.read(2 * encoded.num_values) if encoded else None
    path.unlink()
