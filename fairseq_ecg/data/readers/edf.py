"""EDF and EDF+ recordings, one file per record.

Signals labelled as leads (``ECG II``, ``EKG II``, ``II``) are read, others left out with a remark; patient
code, sex, birth date and start come from EDF+'s fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fairseq_ecg.data.edf_format import read_edf
from fairseq_ecg.data.raw_files import FileItem, file_items
from fairseq_ecg.registry import NoConfig, register_reader


@register_reader("edf")
class Edf:
    """EDF and EDF+ recordings (.edf), one per record."""

    def __init__(self, cfg: NoConfig) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[FileItem]:
        """The .edf files below ``raw_dir``, by relative path."""
        return file_items(raw_dir, (".edf",), read_edf)
