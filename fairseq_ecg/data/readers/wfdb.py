"""Any folder of WFDB records (PhysioNet's header(5) and signal(5)), of every storage format, FLAC included.

What a header states is taken: rate, leads, gain, unit, date, and comments such as ``Age``, ``Sex``, ``Dx``
and ``Patient``. Signals that are no voltage are left out with a note. A record of several segments is read
as one; its segments are not records of their own. Data sets with tables of labels have readers of their
own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.wfdb_format import read_header
from fairseq_ecg.data.wfdb_record import find_headers, read_wfdb_record
from fairseq_ecg.errors import ConfigError, DataError, nearest
from fairseq_ecg.registry import register_reader

_IDS = ("name", "path")


@dataclass(kw_only=True)
class WfdbConfig:
    source_name: str = "wfdb"
    """Name of the data set, kept with every record."""
    record_ids: str = "name"
    """name of the header file, or its path below the folder where names repeat."""

    def __post_init__(self) -> None:
        if self.record_ids not in _IDS:
            raise ConfigError(f"record_ids={self.record_ids}: {nearest(self.record_ids, _IDS)}")


@dataclass(frozen=True, slots=True)
class WfdbFolderItem:
    """A header that has been found but not read."""

    path: Path
    record_id: str
    source: str

    def read(self) -> Record:
        record = read_wfdb_record(self.path, source=self.source)
        if record.patient_id == record.record_id:  # the header names no patient
            record = replace(record, patient_id=self.record_id)
        return replace(record, record_id=self.record_id)


@register_reader("wfdb", config=WfdbConfig)
class WfdbFolder:
    """Any folder of WFDB records, FLAC and multi-segment ones included."""

    def __init__(self, cfg: WfdbConfig) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[WfdbFolderItem]:
        """The records below ``raw_dir``, by relative path.

        Raises:
            DataError: there is none.
        """
        headers = find_headers(raw_dir)
        segments = {segment for path in headers for segment in _segments(path)}
        for path in headers:
            if path in segments:
                continue
            inner = path.relative_to(raw_dir).with_suffix("").as_posix()
            yield WfdbFolderItem(
                path, inner if self.cfg.record_ids == "path" else path.stem, self.cfg.source_name
            )


def _segments(path: Path) -> list[Path]:
    """The headers a multi-segment record is made of; none for a header that cannot be read (yet)."""
    try:
        names = read_header(path).segments
    except DataError:
        return []  # reading the record reports it
    return [path.parent / f"{name}.hea" for name in names if name != "~"]
