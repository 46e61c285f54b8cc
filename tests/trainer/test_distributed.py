"""Processes of a run that will not end by themselves."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from typing import Any


def fail() -> None:
    sys.exit(3)


def note_sigterm_and_stay(ready: Any) -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    ready.set()
    while True:
        time.sleep(0.05)


def test_a_process_that_only_notes_sigterm_ends_with_the_one_that_failed(monkeypatch):
    from fairseq_ecg.trainer import distributed  # not in the new processes, which import this file, too

    monkeypatch.setattr(distributed, "GRACE_SEC", 0.2)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    waiting = context.Process(target=note_sigterm_and_stay, args=(ready,))
    waiting.start()
    try:
        ready.wait()
        failing = context.Process(target=fail)
        failing.start()
        # The status is the failure's, not that of the signal that ended the other.
        assert distributed._wait_for([waiting, failing]) == 3
        waiting.join()
        assert waiting.exitcode == -signal.SIGKILL
    finally:
        waiting.kill()
