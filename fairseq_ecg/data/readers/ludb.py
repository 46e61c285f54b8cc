"""Lobachevsky University database LUDB (Kalyakulina et al. 2020, PhysioNet ludb 1.0.1, ODC-By 1.0).

200 ECGs of 200 people, 12 leads, 500 Hz, 10 s; the tree ``data`` holds for each a header, a signal file and
one annotation file per lead (``1.i`` ... ``1.v6``) with onset, peak and end of P, QRS and T.

Lead names are lower-case, and every lead has a gain and a baseline of its own, so that the limb leads keep
I + III = II only roughly (0.36 mV off in the sample record). Comments hold ``<age>``, ``<sex>`` and, after
``<diagnoses>``, a line per diagnosis: these lines, without the full stop, are the labels ("Rhythm: Sinus
bradycardia"). Ages written ``>89`` are kept as 90.

``delineation`` reads the waves' borders; stores do not hold them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.record import lead_name
from fairseq_ecg.data.wfdb_annotation import read_annotations
from fairseq_ecg.data.wfdb_format import read_header
from fairseq_ecg.data.wfdb_record import find_headers, read_with_header
from fairseq_ecg.registry import NoConfig, register_reader

SOURCE = "ludb"
_DIAGNOSES = "<diagnoses>"
_WAVES = {"p": "p", "N": "qrs", "t": "t"}


class Wave(NamedTuple):
    """A wave's borders, in samples from the start of the record; None where it was not marked."""

    kind: str
    """``p``, ``qrs`` or ``t``."""
    onset: int | None
    peak: int
    end: int | None


@dataclass(frozen=True, slots=True)
class LudbItem:
    """A header that has been found but not read."""

    path: Path

    @property
    def record_id(self) -> str:
        return self.path.stem

    def read(self) -> Record:
        record, header = read_with_header(self.path, source=SOURCE)
        return replace(record, labels=_diagnoses(header.comments))


@register_reader("ludb", config=NoConfig)
class Ludb:
    """LUDB: lower-case leads with gains of their own, diagnoses as text."""

    def __init__(self, cfg: NoConfig) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[LudbItem]:
        """The headers below ``raw_dir``, by relative path.

        Raises:
            DataError: there is none.
        """
        return (LudbItem(path) for path in find_headers(raw_dir))


def delineation(path: Path) -> dict[str, tuple[Wave, ...]]:
    """Waves by lead, as cardiologists have marked them.

    Args:
        path: of the record's header.

    Raises:
        DataError: an annotation file is missing or damaged.
    """
    return {
        lead_name(signal.name): _waves(path.with_suffix(f".{signal.name.strip().lower()}"))
        for signal in read_header(path).signals
    }


def _waves(path: Path) -> tuple[Wave, ...]:
    annotations = read_annotations(path)
    waves: list[Wave] = []
    onset: int | None = None
    is_open = False
    for sample, symbol in zip(annotations.sample.tolist(), annotations.symbols, strict=True):
        if symbol == "(":
            onset, is_open = sample, False
        elif symbol in _WAVES:
            waves.append(Wave(_WAVES[symbol], onset, sample, None))
            onset, is_open = None, True
        elif symbol == ")" and is_open:
            waves[-1] = waves[-1]._replace(end=sample)
            is_open = False
    return tuple(waves)


def _diagnoses(comments: Sequence[str]) -> tuple[str, ...]:
    """The lines after ``<diagnoses>:``; the index joins labels by ``|``."""
    start = next((row for row, line in enumerate(comments) if line.startswith(_DIAGNOSES)), len(comments))
    lines = [line.strip().rstrip(".").replace("|", "/") for line in comments[start + 1 :]]
    return tuple(dict.fromkeys(line for line in lines if line))
