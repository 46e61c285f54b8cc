"""Runs cases in a process of its own, which may crash.

``python -m tests.fuzz.worker FOLDER FIRST COUNT KIND...`` prints one JSON object: cases, records and errors
per kind, and the failures. ``FOLDER/case`` names the case at work.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from fairseq_ecg.errors import DataError
from tests.fuzz.mutations import mutate
from tests.fuzz.targets import TARGETS

SECONDS = 1.0
"""Of processor time a case may take; the wall clock says more of the machine's other work."""
HANG_SECONDS = 30
MEMORY_BYTES = 500 * 2**20

_opened: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes):
        _opened.append(os.fsdecode(arguments[0]))


def _on_alarm(*_: object) -> None:
    raise TimeoutError(f"a hang of {HANG_SECONDS} s")


def _peak_bytes() -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _left_the_root(folder: Path) -> list[str]:
    """Files that a case opened beside its own folder: the planted one, or the system's."""
    outside = []
    for name in _opened:
        path = os.path.realpath(os.path.join(folder, name))
        if path.startswith(("/etc/", str(folder.parent) + os.sep)) and not f"{path}/".startswith(
            f"{folder}/"
        ):
            outside.append(path)
    return outside


def run_case(kind: str, seed: int, folder: Path, sound: Path) -> tuple[str, str]:
    """``record``, ``error`` or ``failure`` and why."""
    target = TARGETS[kind]
    shutil.copytree(sound, folder)
    damaged = folder / target.files[seed % len(target.files)]
    damaged.write_bytes(mutate(damaged.read_bytes(), seed))
    _opened.clear()
    _reset_peak()
    before, start = _peak_bytes(), time.process_time()
    outcome, why = "record", ""
    signal.alarm(HANG_SECONDS)
    try:
        target.read(folder)
    except DataError as error:
        outcome = "error"
        if "\n" in str(error):
            outcome, why = "failure", f"an error of several lines: {error}"
    except BaseException as error:
        outcome, why = "failure", "".join(traceback.format_exception(error)[-4:])
    finally:
        signal.alarm(0)
    took, grown = time.process_time() - start, _peak_bytes() - before
    if took > SECONDS:
        outcome, why = "failure", f"{took:.1f} s; {why}"
    if grown > MEMORY_BYTES:
        outcome, why = "failure", f"{grown / 2**20:.0f} MiB; {why}"
    if left := _left_the_root(folder):
        outcome, why = "failure", f"opened {left}; {why}"
    shutil.rmtree(folder)
    return outcome, why


def main(arguments: list[str]) -> int:
    base, first, count, kinds = (
        Path(arguments[0]).resolve(),
        int(arguments[1]),
        int(arguments[2]),
        arguments[3:],
    )
    signal.signal(signal.SIGALRM, _on_alarm)
    # More than any case may use, so that a runaway allocation fails here and does not take the machine along.
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, 16 * 2**30))
    result: dict[str, Any] = {"kinds": {}, "failures": []}
    cases = base / "cases"
    cases.mkdir(exist_ok=True)
    (cases / "outside.dat").write_bytes(bytes(100_000))
    sys.addaudithook(_watch)
    for kind in kinds:
        sound = base / "sound" / kind
        sound.mkdir(parents=True)
        TARGETS[kind].make(sound)
        # What is sound must be read; this also loads every module before memory and time are measured.
        trial = cases / "sound"
        shutil.copytree(sound, trial)
        TARGETS[kind].read(trial)
        shutil.rmtree(trial)
        counts = {"cases": 0, "record": 0, "error": 0, "failure": 0}
        for seed in range(first, first + count):
            (base / "case").write_text(f"{kind} {seed}")
            outcome, why = run_case(kind, seed, cases / "root", sound)
            counts["cases"] += 1
            counts[outcome] += 1
            if outcome == "failure":
                result["failures"].append({"kind": kind, "seed": seed, "why": why})
        result["kinds"][kind] = counts
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
