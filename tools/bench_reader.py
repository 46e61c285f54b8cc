"""Speed of the WFDB reader against the wfdb package, in interleaved pairs on the same records.

    python tools/bench_reader.py [RECORDS_DIR] [--pairs 9]

Without RECORDS_DIR a synthetic corpus is written to a temporary folder. Every record is read once before the
timing starts, so that the files come from the page cache for both.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fairseq_ecg.data.readers.synthetic import SyntheticConfig, write_corpus
from fairseq_ecg.data.wfdb_format import read_digital, read_physical
from fairseq_ecg.data.wfdb_record import find_headers, read_wfdb_record
from fairseq_ecg.errors import DataError

Read = Callable[[Path], object]

TIMED = {
    "digital": (
        "opening and parsing the header, reading the samples, de-interleaving to (lead, time)",
        "wfdb.rdrecord(physical=False), its samples as it returns them",
        "read_digital: int16, first values and checksums verified",
        35.0,
    ),
    "physical": (
        "the same, and conversion to physical units",
        "wfdb.rdsamp(return_res=32), float32",
        "read_physical: float32, first values and checksums verified",
        12.0,
    ),
    "record": (
        "the same, and lead names, units, labels, age and sex",
        "wfdb.rdsamp(return_res=32), float32 and unparsed comments",
        "read_wfdb_record: Record in mV",
        12.0,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print median and spread of the ratio for each kind of reading; exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("records_dir", nargs="?", type=Path)
    parser.add_argument("--pairs", type=int, default=9, help="interleaved wfdb/ours pairs, at least 7")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    options = parser.parse_args(argv)
    if options.pairs < 7:
        parser.error(f"--pairs {options.pairs}: at least 7")
    with tempfile.TemporaryDirectory() as folder:
        if options.records_dir is None:
            write_corpus(Path(folder), SyntheticConfig(num_patients=24))
        paths = readable_by_both(options.records_dir or Path(folder))
        results = {kind: compare(kind, paths, options.pairs) for kind in TIMED}
    if options.json:
        print(json.dumps({"records": len(paths), "machine": machine(), "results": results}, indent=2))
    else:
        print(f"{len(paths)} records, {options.pairs} pairs, warm files; {machine()}")
        for kind, result in results.items():
            timed, theirs, ours, _ = TIMED[kind]
            print(f"{kind}: timed region: {timed}\n  wfdb: {theirs}\n  ours: {ours}")
            print(
                f"  wfdb {result['wfdb_us']:.0f} us, ours {result['ours_us']:.0f} us per record; ratio "
                f"median {result['ratio']:.1f} ({result['lowest']:.1f} to {result['highest']:.1f}), "
                f"goal {result['goal']:.0f}: {'met' if result['ratio'] >= result['goal'] else 'MISSED'}"
            )
    return 0 if all(result["ratio"] >= result["goal"] for result in results.values()) else 1


def readable_by_both(folder: Path) -> list[Path]:
    """Headers that wfdb opens too; it refuses names with dots.

    Raises:
        DataError: the two disagree on a sample, a gain or a baseline; there is nothing to compare.
    """
    import wfdb

    paths = []
    for path in find_headers(folder):
        try:
            theirs = wfdb.rdrecord(str(path.with_suffix("")), physical=False)
        except Exception as error:
            print(f"left out, wfdb cannot read it: {path}: {type(error).__name__}")
            continue
        digital, header = read_digital(path)
        calibrations = [signal.calibration for signal in header.signals]
        same = np.array_equal(digital, theirs.d_signal.T)
        same &= [calibration.gain for calibration in calibrations] == theirs.adc_gain
        same &= [calibration.baseline for calibration in calibrations] == theirs.baseline
        if not same:
            raise DataError(f"{path}: digital samples, gains or baselines differ from wfdb's")
        paths.append(path)
    if not paths:
        raise DataError(f"{folder}: no record that wfdb can read")
    return paths


def compare(kind: str, paths: Sequence[Path], pairs: int) -> dict[str, float]:
    """Time both readers alternately over all records."""
    theirs, ours = readers(kind)
    wfdb_times, our_times = [], []
    for number in range(pairs + 1):
        measured = seconds(theirs, paths), seconds(ours, paths)
        if number:  # the first pair warms caches and imports up
            wfdb_times.append(measured[0])
            our_times.append(measured[1])
    ratios = [slow / fast for slow, fast in zip(wfdb_times, our_times, strict=True)]
    return {
        "wfdb_us": statistics.median(wfdb_times) / len(paths) * 1e6,
        "ours_us": statistics.median(our_times) / len(paths) * 1e6,
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "goal": TIMED[kind][3],
    }


def readers(kind: str) -> tuple[Read, Read]:
    import wfdb

    if kind == "digital":
        return lambda path: wfdb.rdrecord(str(path.with_suffix("")), physical=False), read_digital
    ours = read_physical if kind == "physical" else read_wfdb_record
    return lambda path: wfdb.rdsamp(str(path.with_suffix("")), return_res=32), ours


def seconds(read: Read, paths: Sequence[Path]) -> float:
    start = time.perf_counter()
    for path in paths:
        read(path)
    return time.perf_counter() - start


def machine() -> str:
    import wfdb

    return (
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, "
        f"numpy {np.__version__}, wfdb {wfdb.__version__}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
