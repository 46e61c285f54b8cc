"""Sound files (.wav, .flac) with a lead per channel, one file per record.

A sound file knows its rate, but neither its leads nor what a number means: both are options.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.array_format import Numbers, record_of
from fairseq_ecg.data.audio_format import read_sound
from fairseq_ecg.data.raw_files import FileItem, file_items
from fairseq_ecg.data.record import known_leads, mv_per_unit
from fairseq_ecg.errors import ConfigError, DataError
from fairseq_ecg.registry import register_reader


@dataclass(kw_only=True)
class AudioConfig:
    channels: list[str] = field(default_factory=list)
    """Lead of every channel, in order."""
    unit: str = ""
    """Of the stored numbers: mV, uV, nV or V; integers count it."""

    def __post_init__(self) -> None:
        if not self.channels or not self.unit:
            raise ConfigError(
                "sound files name neither leads nor unit; give --channels I,II,... and --unit uV"
            )
        try:
            known_leads(self.channels)
            mv_per_unit(self.unit)
        except DataError as error:
            raise ConfigError(str(error)) from None


@register_reader("audio", config=AudioConfig)
class Audio:
    """Sound files (.wav, .flac) with one lead per channel."""

    def __init__(self, cfg: AudioConfig) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[FileItem]:
        """The .wav and .flac files below ``raw_dir``, by relative path."""
        read = partial(read_audio, channels=tuple(self.cfg.channels), unit=self.cfg.unit)
        return file_items(raw_dir, (".wav", ".flac"), read)


def read_audio(path: Path, *, channels: tuple[str, ...], unit: str) -> Record:
    """Read one sound file."""
    signal, rate = read_sound(path)
    found = Numbers(signal, sampling_rate=rate)
    return record_of(path, found, sampling_rate=None, leads=channels, unit=unit)
