"""DICOM waveform objects, one file per record (12-lead, general and ambulatory ECG).

Of every file the longest multiplex group with ECG leads is read; leads are known by their MDC or SCP-ECG
code, else by their name. Patient id, age, sex and date come from the header.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fairseq_ecg.data.dicom_format import read_dicom
from fairseq_ecg.data.raw_files import FileItem, file_items
from fairseq_ecg.registry import NoConfig, register_reader


@register_reader("dicom")
class Dicom:
    """DICOM waveform files (.dcm), one per record."""

    def __init__(self, cfg: NoConfig) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[FileItem]:
        """The .dcm files below ``raw_dir``, by relative path."""
        return file_items(raw_dir, (".dcm",), read_dicom)
