"""Seeded damage to the bytes of a file: what copying, editing and malice do to them."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable

NUMBERS = (
    b"0",
    b"-1",
    b"1e308",
    b"nan",
    b"inf",
    b"65536",
    b"2147483648",
    b"99999999999999999999",
    b"1e-320",
    b"0.5",
)
WORDS = (
    b"../outside.dat",
    b"/etc/hostname",
    b"..",
    b"~",
    b"\x00",
    b"\xff\xfe",
    b"|",
    b"\t",
    b"\n",
    b"#",
    b"%s",
    b"",
)
INTEGERS = (0, 1, -1, 2**15, 2**16, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1)
_FIELD = re.compile(rb"[^\s,|<>=:/()\[\]\"']+")
_DIGITS = re.compile(rb"-?\d+(?:\.\d+)?")


def mutate(content: bytes, seed: int) -> bytes:
    """A damaged copy: one to four of the operations below, chosen by the seed."""
    draw = random.Random(seed)
    data = content
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        data = draw.choice(_OPERATIONS)(data, draw)
    return data if data != content else data[:-1]


def _truncate(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _flip(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 3, 16))):
        if changed:
            # Headers are where a byte matters most.
            limit = draw.choice((64, 512, len(changed)))
            changed[draw.randrange(min(limit, len(changed)))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data) + 1)
    return data[:start] + data[start + draw.choice((1, 2, 8, 100, 1000)) :]


def _repeat(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data) + 1)
    end = start + draw.choice((1, 8, 64, 512))
    return data[:end] + data[start:end] * draw.choice((1, 3, 50)) + data[end:]


def _insert(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data) + 1)
    piece = draw.choice((*WORDS, *NUMBERS, draw.randbytes(8), bytes(64)))
    return data[:start] + piece + data[start:]


def _overwrite(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(min(draw.choice((64, 512, len(data) or 1)), len(data) or 1))
    piece = draw.choice((bytes(16), b"\xff" * 16, draw.randbytes(4), draw.randbytes(64)))
    return data[:start] + piece + data[start + len(piece) :]


def _integer(data: bytes, draw: random.Random) -> bytes:
    """A binary number at a place where headers have theirs becomes a border case."""
    form, size = draw.choice((("h", 2), ("i", 4), ("q", 8)))
    value = draw.choice(INTEGERS) % 2 ** (8 * size)
    piece = struct.pack(draw.choice("<>") + form.upper(), value)
    start = draw.randrange(max(1, min(1024, len(data))) // 2 + 1) * 2
    return data[:start] + piece + data[start + size :]


def _replace_number(data: bytes, draw: random.Random) -> bytes:
    return _replace(_DIGITS, (*NUMBERS, *NUMBERS, *WORDS), data, draw)


def _replace_field(data: bytes, draw: random.Random) -> bytes:
    return _replace(_FIELD, (*WORDS, *WORDS, *NUMBERS), data, draw)


def _replace(pattern: re.Pattern[bytes], by: tuple[bytes, ...], data: bytes, draw: random.Random) -> bytes:
    places = [match.span() for match in pattern.finditer(data[:20_000])]
    if not places:
        return data[1:]
    start, end = draw.choice(places)
    return data[:start] + draw.choice(by) + data[end:]


def _swap_lines(data: bytes, draw: random.Random) -> bytes:
    lines = data.split(b"\n")
    first, second = draw.randrange(len(lines)), draw.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def _drop_line(data: bytes, draw: random.Random) -> bytes:
    lines = data.split(b"\n")
    del lines[draw.randrange(len(lines))]
    return b"\n".join(lines)


_OPERATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _truncate,
    _flip,
    _flip,
    _cut,
    _repeat,
    _insert,
    _overwrite,
    _integer,
    _replace_number,
    _replace_number,
    _replace_field,
    _replace_field,
    _swap_lines,
    _drop_line,
)
