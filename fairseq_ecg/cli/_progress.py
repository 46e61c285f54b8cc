"""How far long work is: a bar on a terminal, a plain line every ten seconds otherwise; both to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_EVERY_SEC = 10


def show_progress(total: int, done: int, items: Iterable[Item], *, unit: str = "record") -> Iterator[Item]:
    """Pass ``items`` on and show how many of ``total`` have come, ``done`` of them in an earlier run."""
    if done:
        print(f"continuing: {done} of {total} {unit}s were done before", file=sys.stderr)
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, initial=done, unit=unit, file=sys.stderr)
        return
    start = shown = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - shown >= _EVERY_SEC:
            shown = now
            rate = count / (now - start)
            left = duration((total - done - count) / rate)
            print(
                f"{done + count}/{total} {unit}s, {rate:.0f} {unit}s/s, {left} left",
                file=sys.stderr,
                flush=True,
            )


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
