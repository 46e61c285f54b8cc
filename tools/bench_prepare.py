"""Speed of ``prepare`` against a loop of wfdb.rdrecord and scipy.io.savemat, in interleaved pairs, per core.

    python tools/bench_prepare.py [--records 2400] [--pairs 7] [--workers 1,2]

Synthetic 12-lead, 10 s, 500 Hz WFDB records are written once. Both sides then run in this one process on
files in the page cache: ours makes a whole store, checksums, statistics, quality table and page and the syncs
to the disk included; the loop writes one .mat file per record and checks nothing. Figures are seconds of CPU
per record, which other programs on the machine disturb least, and seconds by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairseq_ecg.data.prepare import PrepareOptions, prepare, prepare_item
from fairseq_ecg.data.readers.physionet2021 import PhysioNet2021, PhysioNet2021Config
from fairseq_ecg.data.readers.synthetic import SyntheticConfig, write_corpus
from fairseq_ecg.data.wfdb_record import find_headers

GOAL_RATIO = 8.0
LARGE = 800_000
"""Records of MIMIC-IV-ECG."""
GOAL_SEC = 240.0
CORES = 2
LOOP_RECORDS = 120
"""Records of one round of the slow side; its time per record does not depend on their number."""

READER = PhysioNet2021(PhysioNet2021Config())


class Seconds(NamedTuple):
    """Per record."""

    cpu: float
    wall: float


def main(argv: Sequence[str] | None = None) -> int:
    """Print both sides, their ratio and the extrapolation; exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, default=2400)
    parser.add_argument("--pairs", type=int, default=7, help="interleaved pairs, at least 7")
    parser.add_argument("--work-dir", type=Path, help="folder for the records (default: a temporary one)")
    parser.add_argument("--workers", default="", help="also time whole runs with these numbers of processes")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    options = parser.parse_args(argv)
    if options.pairs < 7 or options.records < LOOP_RECORDS:
        parser.error(f"at least 7 pairs and {LOOP_RECORDS} records")
    with tempfile.TemporaryDirectory(dir=options.work_dir) as name:
        folder = Path(name)
        write_records(folder / "raw", options.records)
        result = compare(folder, options.records, options.pairs)
        result["records"] = options.records
        result["memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        for workers in [int(word) for word in options.workers.split(",") if word]:
            result[f"records_per_sec_with_{workers}_processes"] = (
                1 / timed(partial(ours, folder, workers), options.records).wall
            )
        if options.workers:
            result["records_per_sec_with_2_threads"] = (
                1 / timed(partial(threads, folder), options.records).wall
            )
    print(
        json.dumps({"machine": machine(), **result}, indent=2)
        if options.json
        else text_of(result, options.pairs)
    )
    return 0 if result["ratio"] >= GOAL_RATIO and result["extrapolated_sec"] <= GOAL_SEC else 1


def write_records(raw_dir: Path, count: int) -> None:
    """A synthetic corpus of a few patients, repeated under other names."""
    made = raw_dir.with_name("made")
    write_corpus(made, SyntheticConfig(num_patients=20, min_records=3, max_records=3))
    headers = find_headers(made)
    for number in range(count):
        header = headers[number % len(headers)]
        name = f"E{number:06}"
        folder = raw_dir / f"g{number // 1000}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(header.with_suffix(".mat"), folder / f"{name}.mat")
        text = header.read_text(encoding="ascii").replace(header.stem, name)
        (folder / f"{name}.hea").write_text(text, encoding="ascii")


def compare(folder: Path, count: int, pairs: int) -> dict[str, float]:
    """Time both sides alternately."""
    paths = [str(path.with_suffix("")) for path in find_headers(folder / "raw")[:LOOP_RECORDS]]
    slow: list[Seconds] = []
    fast: list[Seconds] = []
    for number in range(pairs + 1):
        measured = timed(partial(loop, folder, paths), len(paths)), timed(partial(ours, folder, 0), count)
        if number:  # the first pair warms caches and imports up
            slow.append(measured[0])
            fast.append(measured[1])
    ratios = [theirs.cpu / mine.cpu for theirs, mine in zip(slow, fast, strict=True)]
    cpu = statistics.median(mine.cpu for mine in fast)
    return {
        "loop_cpu_us": statistics.median(theirs.cpu for theirs in slow) * 1e6,
        "loop_wall_us": statistics.median(theirs.wall for theirs in slow) * 1e6,
        "ours_cpu_us": cpu * 1e6,
        "ours_wall_us": statistics.median(mine.wall for mine in fast) * 1e6,
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "wall_ratio": statistics.median(
            theirs.wall / mine.wall for theirs, mine in zip(slow, fast, strict=True)
        ),
        "extrapolated_sec": LARGE * cpu / CORES,
    }


def timed(work: Callable[[], None], count: int) -> Seconds:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Seconds((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count)


def loop(folder: Path, paths: Sequence[str]) -> None:
    import scipy.io
    import wfdb

    for path in paths:
        record = wfdb.rdrecord(path)
        scipy.io.savemat(folder / "record.mat", {"feats": record.p_signal.T, "rate": record.fs})


def ours(folder: Path, num_workers: int) -> None:
    prepare(
        READER,
        folder / "raw",
        folder / "store",
        PrepareOptions(),
        overwrite=True,
        num_workers=num_workers,
    )


def threads(folder: Path) -> None:
    """The same work per record in two threads, nothing written: what threads would give at best."""
    work = partial(prepare_item, earlier="", options=PrepareOptions())
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(work, READER.records(folder / "raw")):
            pass


def text_of(result: dict[str, float], pairs: int) -> str:
    met = "met" if result["ratio"] >= GOAL_RATIO else "MISSED"
    in_time = "met" if result["extrapolated_sec"] <= GOAL_SEC else "MISSED"
    lines = [
        f"{result['records']} records of 12 leads, 10 s, 500 Hz; {pairs} pairs, warm files; {machine()}",
        f"wfdb.rdrecord + scipy.io.savemat: {result['loop_cpu_us']:.0f} us of CPU per record "
        f"({result['loop_wall_us']:.0f} us by the clock)",
        f"prepare: {result['ours_cpu_us']:.0f} us of CPU per record "
        f"({result['ours_wall_us']:.0f} us by the clock)",
        f"ratio of CPU: median {result['ratio']:.1f} ({result['lowest']:.1f} to {result['highest']:.1f}), "
        f"goal {GOAL_RATIO:g}: {met}; by the clock {result['wall_ratio']:.1f}",
        f"extrapolated, not measured: {LARGE:,} such records on {CORES} cores in "
        f"{result['extrapolated_sec']:.0f} s, were the files cached and both cores always busy; "
        f"goal {GOAL_SEC:.0f} s: {in_time}",
        f"largest memory of this process: {result['memory_mib']:.0f} MiB",
    ]
    lines += [
        f"{name.replace('_', ' ').replace('per sec', 'per second')}: {value:.0f}"
        for name, value in result.items()
        if name.startswith("records_per_sec")
    ]
    return "\n".join(lines)


def machine() -> str:
    return (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, numpy {np.__version__}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
