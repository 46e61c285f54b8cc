"""GE MUSE XML exports, one ``RestingECG`` file per record.

Columns: I, II and V1 to V6 as recorded (III, aVR, aVL and aVF are computed where a store wants them), patient
id, age, sex and date of the demographics, the statements of the diagnosis as labels. There is no licence:
such files come from a hospital's own system and hold names; they are read, never copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fairseq_ecg.data.muse_format import read_muse
from fairseq_ecg.data.raw_files import FileItem, file_items
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.registry import register_reader

WAVEFORMS = ("Rhythm", "Median")


@dataclass(kw_only=True)
class MuseXmlConfig:
    waveform: str = "Rhythm"
    """Rhythm: the whole recording; Median: the averaged beat."""

    def __post_init__(self) -> None:
        if self.waveform not in WAVEFORMS:
            raise ConfigError(f"waveform {self.waveform!r}: known are {', '.join(WAVEFORMS)}")


@register_reader("muse_xml", config=MuseXmlConfig)
class MuseXml:
    """GE MUSE XML exports (RestingECG), checked against their CRC32."""

    def __init__(self, cfg: MuseXmlConfig) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[FileItem]:
        """The .xml files below ``raw_dir``, by relative path."""
        return file_items(raw_dir, (".xml",), partial(read_muse, waveform=self.cfg.waveform))
