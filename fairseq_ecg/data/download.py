"""Is a download whole? Its files against the ``SHA256SUMS`` that PhysioNet and others publish beside them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fairseq_ecg.errors import DataError

SUM_FILES = ("SHA256SUMS.txt", "SHA256SUMS")

_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(.+)")


class Download(NamedTuple):
    """What is wrong with a download; paths are relative to its folder, as its list writes them."""

    num_files: int
    """Files the list names."""
    missing: list[str]
    corrupt: list[str]
    extra: list[str]
    """Files the list does not name; nothing says that they are wrong."""

    @property
    def is_whole(self) -> bool:
        return not (self.missing or self.corrupt)


def check_download(
    folder: Path,
    *,
    progress: Callable[[int, int, Iterable[str]], Iterable[str]] | None = None,
) -> Download:
    """Compare every file with its checksum.

    Args:
        folder: holds ``SHA256SUMS.txt`` or ``SHA256SUMS``.
        progress: wraps the files to show how far the work is.

    Raises:
        DataError: there is no list, a line of it is no checksum, or it names a file outside the folder.
    """
    sums = next((folder / name for name in SUM_FILES if (folder / name).is_file()), None)
    if sums is None:
        raise DataError(
            f"{folder} has no {' or '.join(SUM_FILES)}; fetch the list from where the data were fetched"
        )
    expected = _read_sums(sums)
    found = Download(len(expected), [], [], [])

    def checked() -> Iterator[str]:
        for name, digest in expected.items():
            try:
                with (folder / name).open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                        found.corrupt.append(name)
            except OSError:
                found.missing.append(name)
            yield name

    names: Iterable[str] = checked()
    for _ in names if progress is None else progress(len(expected), 0, names):
        pass
    found.extra.extend(_files(folder) - set(expected) - set(SUM_FILES))
    found.extra.sort()
    return found


def _read_sums(path: Path) -> dict[str, str]:
    expected: dict[str, str] = {}
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(
                f"{path}, line {number}: {line[:80]!r} is not 'SHA256 FILE'; fetch the list again"
            )
        name = os.path.normpath(match[2])
        if os.path.isabs(name) or name.split(os.sep)[0] == os.pardir:
            raise DataError(f"{path}, line {number}: {match[2]!r} lies outside the folder")
        expected[name] = match[1].lower()
    if not expected:
        raise DataError(f"{path} lists no file; fetch it again")
    return expected


def _files(folder: Path) -> set[str]:
    prefix = len(str(folder)) + 1
    return {os.path.join(where, name)[prefix:] for where, _, names in os.walk(folder) for name in names}
