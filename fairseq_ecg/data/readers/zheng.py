"""Chapman-Shaoxing as CSV files (Zheng et al. 2020, figshare 4560497, CC BY 4.0): 10,646 patients.

Files: ``Diagnostics.csv``, exported from the release's ``Diagnostics.xlsx``, and the folders ``ECGData``
(as recorded) and ``ECGDataDenoised``, each with one CSV per ECG: 12 columns in uV, 500 Hz, 10 s.
``ECGData`` has the lead names in its first row, ``ECGDataDenoised`` has none; its order is I, II, III, aVR,
aVL, aVF, V1 ... V6.

Columns used of the table: FileName, Rhythm, Beat, PatientAge, Gender. Labels are the rhythm and the words
of Beat (``NONE`` left out), by the release's abbreviations (SB, SR, AFIB, RBBB, TWC ...). Rates, intervals
and axes are not kept. Every ECG is another patient. The same recordings are the ``chapman_shaoxing`` part
of the 2021 challenge, under other names: do not train on one and test on the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.record import known_leads, mv_per_unit
from fairseq_ecg.data.signal import implausible_amplitude
from fairseq_ecg.data.source_table import inside, parse_age, parse_sex, read_source_table
from fairseq_ecg.errors import DataError
from fairseq_ecg.registry import register_reader

SOURCE = "zheng"
TABLE = "Diagnostics.csv"
SAMPLING_RATE = 500

_COLUMNS = ("FileName", "Rhythm", "Beat", "PatientAge", "Gender")
_NO_BEAT = "NONE"
_MAX_BYTES = 1 << 24
"""A 10 s ECG takes 0.4 MB as text; a file of 16 MB is none."""


@dataclass(kw_only=True)
class ZhengConfig:
    denoised: bool = False
    """Read ECGDataDenoised, which its authors have filtered, in place of ECGData."""

    @property
    def folder(self) -> str:
        return "ECGDataDenoised" if self.denoised else "ECGData"


@dataclass(frozen=True, slots=True)
class ZhengItem:
    """An ECG of the table that has not been read."""

    folder: Path
    record_id: str
    rhythm: str
    beat: str
    age: str
    gender: str

    @property
    def path(self) -> Path:
        return self.folder / f"{self.record_id}.csv"

    def read(self) -> Record:
        signal, leads = _read_csv(inside(self.folder, f"{self.record_id}.csv"))
        age, age_notes = parse_age(self.age)
        sex, sex_notes = parse_sex(self.gender)
        words = [self.rhythm, *self.beat.split()]
        spread = implausible_amplitude(signal)
        odd = (f"amplitude {spread:.3g} mV is implausible: are the samples uV?",) if spread else ()
        return Record(
            record_id=self.record_id,
            patient_id=self.record_id,
            source=SOURCE,
            signal=signal,
            leads=leads,
            sampling_rate=SAMPLING_RATE,
            labels=tuple(dict.fromkeys(word for word in words if word and word != _NO_BEAT)),
            age=age,
            sex=sex,
            notes=(*odd, *age_notes, *sex_notes),
        )


@register_reader("zheng", config=ZhengConfig)
class Zheng:
    """Chapman-Shaoxing's CSV release (Zheng et al. 2020): uV, rhythm and beat labels."""

    def __init__(self, cfg: ZhengConfig) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[ZhengItem]:
        """The rows of the table in their order.

        Raises:
            DataError: the table or the folder of signals is missing.
        """
        workbook = raw_dir / "Diagnostics.xlsx"
        remedy = "it is exported from the release's Diagnostics.xlsx"
        if workbook.is_file():
            remedy = (
                f"export {workbook.name} to it: open it in a spreadsheet program and save the sheet as CSV, "
                "or with openpyxl installed: python -c \"import pandas; pandas.read_excel('Diagnostics.xlsx')"
                ".to_csv('Diagnostics.csv', index=False)\""
            )
        rows = list(read_source_table(raw_dir / TABLE, _COLUMNS, remedy=remedy))
        folder = raw_dir / self.cfg.folder
        if not folder.is_dir():
            raise DataError(f"{folder} is missing; unpack {self.cfg.folder}.zip of the release there")
        return (ZhengItem(folder, *row) for row in rows)


def _read_csv(path: Path) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """(12, T) in mV and the names of its rows."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes are no 10 s ECG; fetch the file again")
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not lines:
        raise DataError(f"{path}: empty; fetch the file again")
    first = lines[0].split(",")
    is_named = any(character.isalpha() for character in first[0])
    if len(lines) == is_named:
        raise DataError(f"{path}: no samples in it; fetch the file again")
    try:
        leads = known_leads(first) if is_named else STANDARD_LEADS
        signal = np.loadtxt(lines[is_named:], np.float64, delimiter=",", ndmin=2)
    except (DataError, ValueError) as error:
        reason = " ".join(str(error).split()).partition("; use")[0]
        raise DataError(f"{path}: {reason}; fetch the file again") from None
    if signal.shape[1] != len(leads) or not len(signal):
        raise DataError(f"{path}: {signal.shape} is not (time, {len(leads)} leads); fetch the file again")
    return np.ascontiguousarray(signal.T * mv_per_unit("uV"), np.float32), leads
