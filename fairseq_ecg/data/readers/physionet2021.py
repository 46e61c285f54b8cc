"""WFDB folders of the PhysioNet/CinC Challenges 2020 and 2021 (Reyna et al. 2021; Perez Alday et al. 2020).

PhysioNet challenge-2020 1.0.2 and challenge-2021 1.0.3, CC BY 4.0; 88,253 records with labels in eight
databases. The tree may be nested as published (``training/georgia/g1/E00001.hea``), be one database
(``cpsc_2018/g1`` ... ``g7``), the Shaoxing/Ningbo release ``ecg-arrhythmia``
(``WFDBRecords/01/010/JS00001.hea``; Zheng et al. 2022), or flat. Headers of both dialects: codes of SNOMED
CT, age and sex.

Who the patients are is not published: every record is its own patient. The folder ``gN`` a record lies in
is kept as its fold, since published work tests on CPSC's ``g7``. PTB-XL is contained under other names
(HR00001 is ecg_id 1) with other folds.

Early headers of 2020 state wrong gains in some databases: 200/mV for HR, 2000000/mV for S and 4880/mV for E
records where 1000/mV is right. A gain is not changed unasked: such records are noted, and ``gain`` replaces
the headers'.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.wfdb_record import find_headers, read_with_header
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

_OTHER_NAMES = {
    "training_wfdb": "cpsc_2018",
    "training_2": "cpsc_2018_extra",
    "training_ptb": "ptb",
    "training_stpetersburg": "st_petersburg_incart",
    "training_ptbxl": "ptb-xl",
    "training_e": "georgia",
    "wfdb_cpsc2018": "cpsc_2018",
    "wfdb_cpsc2018_2": "cpsc_2018_extra",
    "wfdb_stpetersburg": "st_petersburg_incart",
    "wfdb_ptb": "ptb",
    "wfdb_ptbxl": "ptb-xl",
    "wfdb_ga": "georgia",
    "wfdb_chapmanshaoxing": "chapman_shaoxing",
    "wfdb_ningbo": "ningbo",
    "icbeb2018": "cpsc_2018",
    "icbeb2018_2": "cpsc_2018_extra",
    "incart": "st_petersburg_incart",
}
"""Folder names of the archives the challenges first came in, and of ecg-selfsupervised's copy."""

_PREFIXES = {
    "A": "cpsc_2018",
    "Q": "cpsc_2018_extra",
    "E": "georgia",
    "HR": "ptb-xl",
    "S": "ptb",
    "I": "st_petersburg_incart",
}
_ONCE_WRONG = ("georgia", "ptb", "ptb-xl")
"""Databases whose early headers state a gain that is not the true one."""
_TRUE_GAIN = 1000.0

_LAST_CHAPMAN_SHAOXING = 10646
"""Both Chinese databases are numbered JS00001 ...; Ningbo follows after this number."""


@dataclass(kw_only=True)
class PhysioNet2021Config:
    databases: list[str] = field(default_factory=list)
    """Read these databases only, by their folder names in the release; none: all."""
    gain: float | None = None
    """ADC units per mV in place of the headers'; 1000 for the early headers of 2020."""

    def __post_init__(self) -> None:
        for name in self.databases:
            if name not in DATABASES:
                raise ConfigError(f"databases: unknown {name!r}: {nearest(name, DATABASES)}")
        if self.gain is not None and not 0 < self.gain < math.inf:
            raise ConfigError(f"gain={self.gain}: ADC units per mV, more than 0")


@dataclass(frozen=True, slots=True)
class ChallengeItem:
    """A header that has been found but not read."""

    path: Path
    source: str
    fold: str
    gain: float | None

    @property
    def record_id(self) -> str:
        return self.path.stem

    def read(self) -> Record:
        record, header = read_with_header(self.path, source=self.source, gain=self.gain)
        notes = record.notes
        gains = sorted({signal.calibration.gain for signal in header.signals})
        if self.gain is None and self.source in _ONCE_WRONG and gains != [_TRUE_GAIN]:
            stated = ", ".join(f"{gain:g}/mV" for gain in gains)
            notes += (
                f"gain {stated}: {self.source} has {_TRUE_GAIN:g}/mV in release 1.0.3, early headers of 2020 "
                f"are wrong: --gain {_TRUE_GAIN:g}",
            )
        return replace(record, fold=self.fold, notes=notes)


@register_reader("physionet2021", config=PhysioNet2021Config)
class PhysioNet2021:
    """WFDB folders of the PhysioNet/CinC Challenges 2020 and 2021, both header dialects."""

    def __init__(self, cfg: PhysioNet2021Config) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[ChallengeItem]:
        """The records below ``raw_dir``, by relative path.

        Raises:
            DataError: there is no header, or none of the chosen databases.
        """
        items = [
            ChallengeItem(path, database_of(path, raw_dir), _group(path), self.cfg.gain)
            for path in find_headers(raw_dir)
        ]
        chosen = [item for item in items if not self.cfg.databases or item.source in self.cfg.databases]
        if not chosen:
            present = sorted({item.source for item in items})
            raise DataError(f"{raw_dir}: no record of {self.cfg.databases}; it holds {present}")
        return iter(chosen)


def database_of(path: Path, raw_dir: Path) -> str:
    """The database a record belongs to: by the nearest folder of that name, else by the record's name."""
    named = _database_of_folder(os.path.dirname(path), raw_dir)
    if named:
        return named
    match = re.fullmatch(r"([A-Z]+)(\d+)", path.stem)
    if match is None:
        return OTHER
    prefix, number = match[1], int(match[2])
    if prefix == "JS":
        return "chapman_shaoxing" if number <= _LAST_CHAPMAN_SHAOXING else "ningbo"
    return _PREFIXES.get(prefix, OTHER)


# Folders hold thousands of records each: taken apart once, they cost a look-up.
@lru_cache(maxsize=4096)
def _database_of_folder(folder: str, raw_dir: Path) -> str:
    """The innermost part of a folder's path, from ``raw_dir`` down, that names a database; or nothing."""
    for part in reversed(Path(folder).relative_to(raw_dir.parent).parts):
        name = _OTHER_NAMES.get(part.lower(), part.lower())
        if name in DATABASES:
            return name
    return ""


def _group(path: Path) -> str:
    """The folder ``g1`` ... ``gN`` a record of the release lies in."""
    folder = os.path.basename(os.path.dirname(path))
    return folder if re.fullmatch(r"g\d+", folder) else ""
