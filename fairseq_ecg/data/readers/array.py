"""Plain arrays (.npy, .npz, .mat, .csv), one file per record.

``.npy`` holds (lead, time), ``.csv`` a column per lead, ``.npz`` and ``.mat`` an array per lead under its
name; leads that cover the same time with fewer samples are interpolated to the longest. What the files do not
say is an option.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fairseq_ecg.data.array_format import SUFFIXES, read_array
from fairseq_ecg.data.raw_files import FileItem, file_items
from fairseq_ecg.data.record import known_leads, mv_per_unit
from fairseq_ecg.errors import ConfigError, DataError
from fairseq_ecg.registry import register_reader


@dataclass(kw_only=True)
class ArrayConfig:
    array_rate: int | None = None
    """Hz of the arrays; of the longest where leads differ in length."""
    array_leads: list[str] = field(default_factory=list)
    """Leads of the rows (.npy, .mat) or columns (.csv), in order, where the files do not name them."""
    unit: str | None = None
    """Of the numbers: mV, uV, nV or V."""

    def __post_init__(self) -> None:
        if self.array_rate is not None and self.array_rate < 1:
            raise ConfigError(f"array_rate {self.array_rate}: at least 1 Hz is needed")
        try:
            if self.array_leads:
                known_leads(self.array_leads)
            if self.unit is not None:
                mv_per_unit(self.unit)
        except DataError as error:
            raise ConfigError(str(error)) from None


@register_reader("array", config=ArrayConfig)
class Array:
    """Plain arrays (.npy, .npz, .mat, .csv) with rate, leads and unit given."""

    def __init__(self, cfg: ArrayConfig) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[FileItem]:
        """The files below ``raw_dir``, by relative path."""
        read = partial(
            read_array,
            sampling_rate=self.cfg.array_rate,
            leads=tuple(self.cfg.array_leads) or None,
            unit=self.cfg.unit,
        )
        return file_items(raw_dir, SUFFIXES, read)
