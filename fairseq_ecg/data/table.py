"""Tab-separated tables as arrays: integers as integers, texts as codes, a million rows in about a second.

A store's index and a manifest are plain TSV files that any tool reads; this module reads them without making
one Python object per field. A field ends at a tab or a line end, there is no quoting and no escaping.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.errors import DataError

CHUNK_BYTES = 4 * 2**20
"""Bytes parsed at a time: large enough to be vectorised, small beside the arrays that are kept."""

_TAB, _NEWLINE, _RETURN, _ZERO = 9, 10, 13, 48
_MULTIPLIER = 0x9E3779B97F4A7C15


class Kind(Enum):
    """What the fields of a column hold."""

    INTEGER = "a whole number of 0 or more"
    NUMBER = "a number, or nothing"
    TEXT = "text"


@dataclass(frozen=True, eq=False)
class TextColumn:
    """A column of texts as codes: equal texts have equal codes, numbered in order of first appearance.

    Shape:
        codes: (N,) int32, one per row.
        blob: (bytes,) uint8, the different texts in UTF-8, one after the other.
        offsets: (U + 1,) int64, where each of the U different texts starts in ``blob``.
        hashes: (U,) uint64, one per different text.
    """

    codes: NDArray[np.int32]
    blob: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    hashes: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> str:
        return self.text(int(self.codes[row]))

    @property
    def num_values(self) -> int:
        """How many different texts there are."""
        return len(self.hashes)

    def text(self, code: int) -> str:
        return self.blob[self.offsets[code] : self.offsets[code + 1]].tobytes().decode("utf-8")

    def values(self) -> list[str]:
        """The different texts, by code."""
        data, offsets = self.blob.tobytes(), self.offsets.tolist()
        return [data[a:b].decode("utf-8") for a, b in pairwise(offsets)]

    def numbers(self) -> NDArray[np.float64]:
        """The rows as numbers, NaN for empty fields. Python's own float parsing: texts round trip.

        Raises:
            ValueError: a text is not a number.
        """
        values = np.array([float(text) if text else np.nan for text in self.values()], dtype=np.float64)
        return values[self.codes] if len(values) else np.zeros(0)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> TextColumn:
        """The same texts for some rows; codes stay as they are."""
        return TextColumn(self.codes[rows], self.blob, self.offsets, self.hashes)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        """Code a list of texts."""
        known: dict[str, int] = {}
        codes = np.array([known.setdefault(text, len(known)) for text in texts], dtype=np.int32)
        data = [text.encode("utf-8") for text in known]
        offsets = np.cumsum([0, *map(len, data)], dtype=np.int64)
        blob = np.frombuffer(b"".join(data), dtype=np.uint8)
        return cls(codes, blob, offsets, _hash(blob, offsets[:-1], offsets[1:]))


Column = NDArray[np.int64] | NDArray[np.float64] | TextColumn


@dataclass(frozen=True, eq=False)
class Fields:
    """Where the fields of some whole lines lie in ``data``.

    Shape:
        start, end: (rows, columns) int64 positions in ``data``.
    """

    data: NDArray[np.uint8]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    first_line: int
    """Number of the first of these lines in its file, from 1."""


def read_header(path: Path, skip_lines: int = 0) -> list[str]:
    """The column names of a table."""
    try:
        with path.open("rb") as file:
            for _ in range(skip_lines):
                file.readline()
            line = file.readline()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    names = line.decode("utf-8", errors="replace").rstrip("\r\n").split("\t")
    if len(set(names)) != len(names):
        raise DataError(f"{path}, line {skip_lines + 1}: a column name appears twice: {names}")
    return names


def fields(path: Path, num_columns: int, skip_lines: int = 0) -> Iterator[Fields]:
    """Cut the lines after the header into fields, some megabytes at a time.

    Raises:
        DataError: a line has more or fewer fields than the header.
    """
    line = skip_lines + 2
    with path.open("rb") as file:
        for _ in range(skip_lines + 1):
            file.readline()
        rest = b""
        while True:
            chunk = file.read(CHUNK_BYTES)
            if not chunk and rest and not rest.endswith(b"\n"):
                chunk = b"\n"  # the last line needs no line end
            if not chunk:
                return
            whole, found, tail = chunk.rpartition(b"\n")
            if not found:
                rest += chunk
                continue
            data = np.frombuffer(rest + whole + found, dtype=np.uint8)
            rest = tail
            yield (cut := _cut(path, data, num_columns, line))
            line += len(cut.start)


def _cut(path: Path, data: NDArray[np.uint8], num_columns: int, line: int) -> Fields:
    stops = np.flatnonzero((data - np.uint8(_TAB)) <= _NEWLINE - _TAB)  # 9 and 10; smaller ones wrap around
    is_line_end = data[stops] == _NEWLINE
    per_line = np.diff(np.flatnonzero(is_line_end), prepend=-1)
    if np.any(per_line != num_columns):
        row = int(np.flatnonzero(per_line != num_columns)[0])
        raise DataError(
            f"{path}, line {line + row}: {per_line[row]} fields where the header has {num_columns}; "
            "fields are separated by single tabs"
        )
    end: NDArray[np.int64] = stops.reshape(-1, num_columns)
    start = np.empty_like(end)
    start.flat[0] = 0
    start.flat[1:] = end.flat[:-1] + 1
    last = end[:, -1]
    end[:, -1] -= (last > start[:, -1]) & (data[last - 1] == _RETURN)  # files edited on Windows
    return Fields(data, start, end, line)


def _hash(data: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A 64-bit hash of each text; a million different ones collide with a chance of 3e-8."""
    length = end - start
    padded = np.concatenate((data, np.zeros(8, dtype=np.uint8)))
    words = np.ndarray((len(data) + 1,), dtype="<u8", buffer=padded.data, strides=(1,))  # from every byte on
    value = length.astype(np.uint64) * np.uint64(_MULTIPLIER)
    for first in range(0, int(length.max(initial=0)), 8):
        rest = (length - first).clip(0, 8)
        # A shift by 64 is undefined, so the bytes behind the text are cut off in two steps.
        half = (4 * (8 - rest)).astype(np.uint64)
        word = words[np.where(rest > 0, start + first, 0)] << half << half
        word += rest.astype(np.uint64)
        mixed = (value ^ word) * np.uint64(_MULTIPLIER)
        value = np.where(rest > 0, mixed ^ (mixed >> np.uint64(29)), value)
    value *= np.uint64(0xD6E8FEB86659FD93)
    value ^= value >> np.uint64(32)
    return value


def _integers(part: Fields, column: int, path: Path, name: str) -> NDArray[np.int64]:
    start, end = part.start[:, column], part.end[:, column]
    length = end - start
    value = np.zeros(len(start), dtype=np.int64)
    wrong = (length == 0) | (length > 18)
    for i in range(min(int(length.max(initial=0)), 18)):
        inside = length > i
        digit = part.data[np.where(inside, end - 1 - i, 0)].astype(np.int64) - _ZERO
        wrong |= inside & ((digit < 0) | (digit > 9))
        value += np.where(inside, digit * 10**i, 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        text = part.data[start[row] : end[row]].tobytes().decode("utf-8", errors="replace")
        raise DataError(
            f"{path}, line {part.first_line + row}: {name} is {text!r}, needed is {Kind.INTEGER.value}"
        )
    return value


class _TextBuilder:
    """Collects one text column over the parts of a file."""

    def __init__(self) -> None:
        self.codes: list[NDArray[np.int32]] = []
        self.hashes: list[NDArray[np.uint64]] = []
        self.lengths: list[NDArray[np.int64]] = []
        self.blobs: list[NDArray[np.uint8]] = []
        self.num_candidates = 0

    def add(self, data: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64]) -> None:
        hashes = _hash(data, start, end)
        if len(hashes) and (hashes == hashes[0]).all():
            first, inverse = np.zeros(1, dtype=np.int64), np.zeros(len(hashes), dtype=np.int64)
        else:
            _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
            order = np.argsort(first)
            rank = np.empty_like(order)
            rank[order] = np.arange(len(order))
            first, inverse = first[order], rank[inverse]
        self.codes.append((inverse + self.num_candidates).astype(np.int32))
        self.num_candidates += len(first)
        self.hashes.append(hashes[first])
        self.lengths.append(end[first] - start[first])
        self.blobs.append(_concatenate(data, start[first], end[first]))

    def finish(self) -> TextColumn:
        """The column.

        Raises:
            UnicodeError: a text is not UTF-8.
        """
        hashes = np.concatenate([np.zeros(0, np.uint64), *self.hashes])
        lengths = np.concatenate([np.zeros(0, np.int64), *self.lengths])
        blob = np.concatenate([np.zeros(0, np.uint8), *self.blobs])
        _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty(len(order), dtype=np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        first, code_of_candidate = first[order], rank[inverse]
        codes = np.concatenate([np.zeros(0, np.int32), *(code_of_candidate[part] for part in self.codes)])
        if len(first) < len(hashes):  # the same text in several parts of the file
            start = np.cumsum(lengths) - lengths
            blob = _concatenate(blob, start[first], start[first] + lengths[first])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[first])])
        blob.tobytes().decode("utf-8")
        starts = offsets[:-1][lengths[first] > 0]
        if ((blob[starts] & 0xC0) == 0x80).any():  # a text begins within a character
            raise UnicodeError("a character is cut in two")
        return TextColumn(codes, blob, offsets, hashes[first])


def _concatenate(
    data: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64]
) -> NDArray[np.uint8]:
    length = end - start
    position = np.repeat(start - (np.cumsum(length) - length), length) + np.arange(length.sum())
    joined: NDArray[np.uint8] = data[position]
    return joined


def read_table(path: Path, kinds: Mapping[str, Kind], *, skip_lines: int = 0) -> dict[str, Column]:
    """Read the named columns of a TSV with a header row; other columns are passed over.

    Raises:
        DataError: an unreadable file, a missing column, a line with too few fields, a value that is no
            number.
    """
    names = read_header(path, skip_lines)
    if missing := [name for name in kinds if name not in names]:
        raise DataError(f"{path}, line {skip_lines + 1}: column {missing[0]!r} is missing; it has {names}")
    place = {name: names.index(name) for name in kinds}
    integers: dict[str, list[NDArray[np.int64]]] = {
        name: [] for name, kind in kinds.items() if kind is Kind.INTEGER
    }
    texts = {name: _TextBuilder() for name, kind in kinds.items() if kind is not Kind.INTEGER}
    for part in fields(path, len(names), skip_lines):
        for name, pieces in integers.items():
            pieces.append(_integers(part, place[name], path, name))
        for name, builder in texts.items():
            builder.add(part.data, part.start[:, place[name]], part.end[:, place[name]])
    columns: dict[str, Column] = {}
    for name, kind in kinds.items():
        if kind is Kind.INTEGER:
            columns[name] = np.concatenate([np.zeros(0, np.int64), *integers.pop(name)])
            continue
        try:
            column = texts.pop(name).finish()
        except UnicodeError as error:
            raise DataError(f"{path}: {name} is not UTF-8 text: {error}; the table is damaged") from None
        columns[name] = _numbers(column, path, name, skip_lines) if kind is Kind.NUMBER else column
    return columns


def _numbers(column: TextColumn, path: Path, name: str, skip_lines: int) -> NDArray[np.float64]:
    try:
        return column.numbers()
    except ValueError:
        for row in range(len(column)):
            try:
                float(column[row] or "nan")
            except ValueError:
                raise DataError(
                    f"{path}, line {skip_lines + 2 + row}: {name} is {column[row]!r}, "
                    f"needed is {Kind.NUMBER.value}"
                ) from None
        raise


def read_number_lists(
    path: Path, columns: Sequence[str], length: int, *, skip_lines: int = 0
) -> list[NDArray[np.float32]]:
    """Read columns of comma lists of ``length`` numbers, each as (rows, length) float32.

    Raises:
        DataError: a list has another length or holds something that is not a number.
    """
    names = read_header(path, skip_lines)
    if missing := [name for name in columns if name not in names]:
        raise DataError(f"{path}, line {skip_lines + 1}: column {missing[0]!r} is missing; it has {names}")
    pieces: list[list[NDArray[np.float32]]] = [[] for _ in columns]
    for part in fields(path, len(names), skip_lines):
        for piece, name in zip(pieces, columns, strict=True):
            start, end = part.start[:, names.index(name)], part.end[:, names.index(name)]
            piece.append(_number_lists(part, start, end, length, path, name))
    return [np.concatenate([np.zeros((0, length), np.float32), *piece]) for piece in pieces]


def _number_lists(
    part: Fields, start: NDArray[np.int64], end: NDArray[np.int64], length: int, path: Path, name: str
) -> NDArray[np.float32]:
    data = part.data.tobytes()
    lists = [data[a:b] for a, b in zip(start.tolist(), end.tolist(), strict=True)]
    try:
        if any(text.count(b",") != length - 1 for text in lists):
            raise ValueError("a list of another length")
        return np.array(b",".join(lists).split(b","), dtype=np.float64).reshape(-1, length).astype(np.float32)
    except ValueError:
        row = next(row for row, text in enumerate(lists) if not _is_number_list(text, length))
        shown = lists[row].decode("utf-8", "replace")[:60]
        raise DataError(
            f"{path}, line {part.first_line + row}: {name} is {shown!r}, "
            f"needed are {length} numbers separated by commas"
        ) from None


def _is_number_list(text: bytes, length: int) -> bool:
    items = text.split(b",")
    try:
        return len([float(item) for item in items]) == length
    except ValueError:
        return False
