"""The annotated test set of Ribeiro et al. 2020 (CODE-test, Zenodo record 3765780, CC BY 4.0): 827 patients.

Files, in one folder or below its ``data``: ``ecg_tracings.hdf5`` with ``tracings`` (827, 4096, 12) at 400
Hz, and, row by row in the same order, ``attributes.csv`` (age, sex) and ``annotations/*.csv`` (1dAVb, RBBB,
LBBB, SB, AF, ST as 0 and 1: ``gold_standard`` and the single annotators). Exams of 7 or 10 s lie centred
between zeros.

Oddities:

* **Lead order.** The data set's later description gives DI, DII, DIII, aVL, aVF, aVR, V1 ... V6; many
  programs have read columns 4 to 6 as aVR, aVL, aVF. ``lead_order=documented`` follows the description,
  ``standard`` repeats the other reading. Both are compared with leads I and II (Goldberger), and a record
  that contradicts is noted.
* **Unit.** The description ("at the scale 1e-4V", to be multiplied by 1000) contradicts itself and programs
  differ; values are taken as mV unless ``mv_per_unit`` says otherwise. Implausible amplitudes are noted.
* The columns SB, AF, ST stand in another order than in CODE-15's table; they are read by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.record import derive_lead
from fairseq_ecg.data.signal import implausible_amplitude
from fairseq_ecg.data.source_table import parse_age, parse_sex, parse_truth, read_source_table
from fairseq_ecg.data.tracings import FINDINGS, SAMPLING_RATE, count_tracings, findings, read_tracing
from fairseq_ecg.errors import ConfigError, DataError, nearest
from fairseq_ecg.registry import register_reader

SOURCE = "ribeiro"
TRACINGS = "ecg_tracings.hdf5"
LEAD_ORDERS = {
    "documented": ("I", "II", "III", "aVL", "aVF", "aVR", *STANDARD_LEADS[6:]),
    "standard": STANDARD_LEADS,
}


@dataclass(kw_only=True)
class RibeiroConfig:
    annotator: str = "gold_standard"
    """Whose labels: the name of a table in annotations; 'none' for none."""
    lead_order: str = "documented"
    """Of columns 4 to 6: documented (aVL, aVF, aVR) or standard (aVR, aVL, aVF)."""
    mv_per_unit: float = 1.0
    """mV that a stored 1.0 means."""
    strip_padding: bool = True
    """Leave out the zeros before and after each exam."""

    def __post_init__(self) -> None:
        if self.lead_order not in LEAD_ORDERS:
            raise ConfigError(f"lead_order={self.lead_order}: {nearest(self.lead_order, LEAD_ORDERS)}")
        if not 0 < self.mv_per_unit < np.inf:
            raise ConfigError(f"mv_per_unit={self.mv_per_unit}: a number above 0 is needed")
        if not self.annotator or Path(self.annotator).name != self.annotator:
            raise ConfigError(f"annotator={self.annotator!r}: the name of a table without folder and .csv")


@dataclass(frozen=True, slots=True)
class RibeiroItem:
    """An exam that has been found but not read."""

    path: Path
    row: int
    age: str
    sex: str
    answers: tuple[str, ...]
    cfg: RibeiroConfig

    @property
    def record_id(self) -> str:
        return f"{SOURCE}_{self.row:04}"

    def read(self) -> Record:
        signal = read_tracing(self.path, self.row, strip_padding=self.cfg.strip_padding)
        if self.cfg.mv_per_unit != 1:
            signal *= np.float32(self.cfg.mv_per_unit)
        age, age_notes = parse_age(self.age)
        sex, sex_notes = parse_sex(self.sex)
        answers = {name: parse_truth(name, text) for name, text in zip(FINDINGS, self.answers, strict=False)}
        leads = LEAD_ORDERS[self.cfg.lead_order]
        spread = implausible_amplitude(signal)
        notes = [f"amplitude {spread:.3g} mV is implausible: is mv_per_unit right?"] if spread else []
        return Record(
            record_id=self.record_id,
            patient_id=self.record_id,
            source=SOURCE,
            signal=signal,
            leads=leads,
            sampling_rate=SAMPLING_RATE,
            labels=findings(answers) if answers else (),
            age=age,
            sex=sex,
            notes=(*contradicted_order(signal, leads), *notes, *age_notes, *sex_notes),
        )


@register_reader("ribeiro", config=RibeiroConfig)
class Ribeiro:
    """The 827 annotated exams of Ribeiro et al. 2020: HDF5 and CSV, 400 Hz, documented lead order."""

    def __init__(self, cfg: RibeiroConfig) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[RibeiroItem]:
        """The exams by row.

        Raises:
            DataError: a file is missing or a table has not one row per tracing.
        """
        folder = next((path for path in (raw_dir, raw_dir / "data") if (path / TRACINGS).is_file()), None)
        if folder is None:
            raise DataError(f"{raw_dir / TRACINGS} is missing; give the folder of the unpacked data set")
        path = folder / TRACINGS
        count = count_tracings(path)
        remedy = "it lies beside the tracings in Zenodo record 3765780"
        people = list(read_source_table(folder / "attributes.csv", ("age", "sex"), remedy=remedy))
        answers: list[tuple[str, ...]] = [()] * count
        tables = {"attributes.csv": len(people)}
        if self.cfg.annotator != "none":
            table = f"annotations/{self.cfg.annotator}.csv"
            remedy += "; --annotator chooses another table or 'none'"
            answers = list(read_source_table(folder / table, FINDINGS, remedy=remedy))
            tables[table] = len(answers)
        for table, rows in tables.items():
            if rows != count:
                raise DataError(
                    f"{folder / table} has {rows} rows for {count} tracings; rows are matched by place, "
                    "fetch the files of one release"
                )
        return (
            RibeiroItem(path, row, age, sex, answers[row], self.cfg) for row, (age, sex) in enumerate(people)
        )


def contradicted_order(signal: NDArray[np.float32], leads: tuple[str, ...]) -> list[str]:
    """A remark when columns 4 to 6 fit leads I and II better in another order than in ``leads``.

    Args:
        signal: (12, T).
        leads: names of its rows, I and II first.
    """
    names = ("aVR", "aVL", "aVF")
    error = {
        (row, name): float(np.abs(signal[row] - derive_lead(name, signal[0], signal[1])).mean())
        for row in (3, 4, 5)
        for name in names
    }
    total = {
        order: error[3, order[0]] + error[4, order[1]] + error[5, order[2]] for order in permutations(names)
    }
    best = min(total, key=lambda order: total[order])
    # Half: noise alone must not speak; exact leads differ by orders of magnitude.
    if not total[best] < total[leads[3:6]] / 2:
        return []
    return [f"columns 4 to 6 fit leads I and II as {', '.join(best)}, not as {', '.join(leads[3:6])}"]
