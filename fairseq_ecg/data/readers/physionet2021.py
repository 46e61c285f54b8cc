"""WFDB folders of the PhysioNet/CinC Challenges 2020 and 2021 (Reyna et al. 2021; Perez Alday et al. 2020).

The tree may be nested as published (``training/georgia/g1/E00001.hea``) or flat.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_ecg.data.wfdb_record import WfdbItem, find_headers
from fairseq_ecg.errors import ConfigError, DataError, nearest
from fairseq_ecg.registry import register_reader

DATABASES = (
    "chapman_shaoxing",
    "cpsc_2018",
    "cpsc_2018_extra",
    "georgia",
    "ningbo",
    "ptb",
    "ptb-xl",
    "st_petersburg_incart",
)
"""Folder names of release 1.0.3."""

OTHER = "physionet2021"
"""Source of a record of which neither a folder nor the name tells the database."""

_PREFIXES = {
    "A": "cpsc_2018",
    "Q": "cpsc_2018_extra",
    "E": "georgia",
    "HR": "ptb-xl",
    "S": "ptb",
    "I": "st_petersburg_incart",
}
_LAST_CHAPMAN_SHAOXING = 10646
"""Both Chinese databases are numbered JS00001 ...; Ningbo follows after this number."""


@dataclass(kw_only=True)
class PhysioNet2021Config:
    databases: list[str] = field(default_factory=list)
    """Read these databases only, by their folder names in the release; none: all."""

    def __post_init__(self) -> None:
        for name in self.databases:
            if name not in DATABASES:
                raise ConfigError(f"databases: unknown {name!r}: {nearest(name, DATABASES)}")


@register_reader("physionet2021", config=PhysioNet2021Config)
class PhysioNet2021:
    """WFDB folders of the PhysioNet/CinC Challenges 2020 and 2021, both header dialects."""

    def __init__(self, cfg: PhysioNet2021Config) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[WfdbItem]:
        """The records below ``raw_dir``, by relative path.

        Raises:
            DataError: there is no header, or none of the chosen databases.
        """
        items = [WfdbItem(path, database_of(path, raw_dir)) for path in find_headers(raw_dir)]
        chosen = [item for item in items if not self.cfg.databases or item.source in self.cfg.databases]
        if not chosen:
            present = sorted({item.source for item in items})
            raise DataError(f"{raw_dir}: no record of {self.cfg.databases}; it holds {present}")
        return iter(chosen)


def database_of(path: Path, raw_dir: Path) -> str:
    """The database a record belongs to: by the nearest folder of that name, else by the record's name."""
    for part in reversed(path.parent.relative_to(raw_dir.parent).parts):
        if part.lower() in DATABASES:
            return part.lower()
    match = re.fullmatch(r"([A-Z]+)(\d+)", path.stem)
    if match is None:
        return OTHER
    prefix, number = match[1], int(match[2])
    if prefix == "JS":
        return "chapman_shaoxing" if number <= _LAST_CHAPMAN_SHAOXING else "ningbo"
    return _PREFIXES.get(prefix, OTHER)
