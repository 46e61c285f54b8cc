"""Writes annotation files in the MIT format, byte by byte, for the tests of what reads them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

CODES = {"N": 1, "A": 8, "V": 5, "t": 27, "p": 24, "(": 39, ")": 40, "+": 28, "~": 14}
_AUX, _SKIP = 63, 59


def write_annotations(path: Path, annotations: Sequence[tuple[int, str, str]]) -> None:
    """(sample, symbol, text), ordered by sample: annot(5), each a 16-bit word of code and distance."""
    content, before = b"", 0
    for sample, symbol, text in annotations:
        distance = sample - before
        before = sample
        if distance > 1023:  # the long distance is a 32-bit number, high half first
            content += struct.pack("<HHH", _SKIP << 10, distance >> 16, distance & 0xFFFF)
            distance = 0
        content += struct.pack("<H", CODES[symbol] << 10 | distance)
        if text:
            data = text.encode("ascii")
            content += struct.pack("<H", _AUX << 10 | len(data)) + data + b"\0" * (len(data) % 2)
    path.write_bytes(content + b"\0\0")
