"""Files that hold one record each: finding them below a folder, reading them one by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.record import arrange_leads
from fairseq_ecg.errors import DataError

MAX_FILE_BYTES = 4 * 2**30
"""A file of one record that is larger is refused: it would not fit into memory as numbers."""


@dataclass(frozen=True)
class FileItem:
    """A file that has been found but not read; ``reader`` is a function of the path."""

    path: Path
    record_id: str
    reader: Callable[[Path], Record]

    def read(self) -> Record:
        return replace(self.reader(self.path), record_id=self.record_id)


def file_items(
    raw_dir: Path, suffixes: Sequence[str], reader: Callable[[Path], Record]
) -> Iterator[FileItem]:
    """Files with one of the suffixes below a folder, sorted; named by their relative path without suffix.

    Hidden files and folders are left out, and so are links that lead out of the folder.

    Raises:
        DataError: not a folder, or no such file in it.
    """
    if not raw_dir.is_dir():
        raise DataError(f"{raw_dir}: no such folder; give the folder that holds the {suffixes[0]} files")
    root = os.path.realpath(raw_dir)
    found = []
    for folder, subfolders, names in os.walk(raw_dir):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if name.startswith(".") or path.suffix.lower() not in suffixes:
                continue
            if path.is_symlink() and os.path.commonpath((os.path.realpath(path), root)) != root:
                continue
            found.append(path.relative_to(raw_dir))
    if not found:
        raise DataError(f"{raw_dir}: no file with the suffix {' or '.join(suffixes)} in it or below")
    for path in sorted(found, key=lambda path: path.as_posix()):
        yield FileItem(raw_dir / path, path.with_suffix("").as_posix(), reader)


def check_size(path: Path, limit: int = MAX_FILE_BYTES) -> int:
    """Bytes of a file.

    Raises:
        DataError: missing, not a plain file, or larger than any record of its kind.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not path.is_file():
        raise DataError(f"{path} is not a file")
    if size > limit:
        raise DataError(f"{path} has {size} bytes, more than a record has (at most {limit})")
    return size


def with_limb_leads(record: Record) -> Record:
    """A record of I, II and V1 to V6 with III, aVR, aVL and aVF computed, in standard order.

    Any other set of leads is returned as it is.
    """
    derived = set(STANDARD_LEADS) - set(record.leads)
    if not derived or not derived <= {"III", "aVR", "aVL", "aVF"} or not {"I", "II"} <= set(record.leads):
        return record
    arranged = arrange_leads(record.signal, record.leads, STANDARD_LEADS)
    note = f"{', '.join(arranged.derived)} computed from I and II"
    return replace(record, signal=arranged.signal, leads=STANDARD_LEADS, notes=(*record.notes, note))


def one_line(error: BaseException) -> str:
    """A foreign library's message as one short line, without what a terminal would not show."""
    text = " ".join("".join(mark if mark.isprintable() else " " for mark in str(error)).split())
    return (text or type(error).__name__)[:200]
