"""The synthetic corpus: written as WFDB with challenge headers, then read back like any other data set.

Record ``SYN000012_2`` is the third record of patient ``SYN000012``. Everything about patient i follows from
(seed, i), so a larger corpus of the same seed begins with the smaller one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.synthetic import DIAGNOSES, Patient, SyntheticEcg, draw_patient, generator, synthesise
from fairseq_ecg.data.wfdb_record import WfdbItem, find_headers
from fairseq_ecg.errors import ConfigError, DataError
from fairseq_ecg.registry import register_reader

SOURCE = "synthetic"
_DESCRIPTION = "synthetic.json"
_PATIENTS_PER_FOLDER = 500

# A MATLAB v4 matrix header: little-endian int16 (type 30), rows, columns, no imaginary part, name "val".
_MATLAB_TYPE = 30
_MATLAB_NAME = b"val\0"


@dataclass(kw_only=True)
class SyntheticConfig:
    num_patients: int = 64
    """Patients to make."""
    min_records: int = 2
    """Fewest records of a patient."""
    max_records: int = 4
    """Most records of a patient."""
    duration_sec: float = 10.0
    """Length of a record."""
    raw_sampling_rate: int = 500
    """Hz of the WFDB files."""
    seed: int = 0
    """Another seed makes other patients."""
    overwrite: bool = False
    """Replace the corpus that is in the raw folder."""

    def __post_init__(self) -> None:
        for name in ("num_patients", "min_records"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: at least 1")
        if self.max_records < self.min_records:
            raise ConfigError(f"max_records={self.max_records} is less than min_records={self.min_records}")
        if self.duration_sec < 2 or self.raw_sampling_rate < 50 or self.seed < 0:
            raise ConfigError(
                f"duration_sec={self.duration_sec}, raw_sampling_rate={self.raw_sampling_rate}, "
                f"seed={self.seed}: at least 2 s, 50 Hz and 0"
            )


@register_reader("synthetic", config=SyntheticConfig)
class Synthetic:
    """Synthetic records of a dipole model with textbook diagnoses, written to RAW_DIR as WFDB first."""

    def __init__(self, cfg: SyntheticConfig) -> None:
        self.cfg = cfg

    def records(self, raw_dir: Path) -> Iterator[WfdbItem]:
        """Write the corpus if ``raw_dir`` does not hold it already, and list it.

        Raises:
            DataError: ``raw_dir`` holds something else, or cannot be written.
        """
        write_corpus(raw_dir, self.cfg)
        return iter([WfdbItem(path, SOURCE) for path in find_headers(raw_dir)])


def write_corpus(raw_dir: Path, cfg: SyntheticConfig) -> None:
    """Write all patients below ``raw_dir``; a whole corpus made with the same options is kept as it is.

    Raises:
        DataError: ``raw_dir`` holds other files, or another corpus and ``overwrite`` is off; it cannot be
            written.
    """
    wanted = {key: value for key, value in asdict(cfg).items() if key != "overwrite"}
    description = raw_dir / _DESCRIPTION
    try:
        if description.is_file():
            if json.loads(description.read_text(encoding="utf-8")) == wanted:
                return
            if not cfg.overwrite:
                raise DataError(
                    f"{raw_dir} holds a synthetic corpus made with other options; choose another folder "
                    "or add --overwrite"
                )
            _remove_corpus(raw_dir)
        elif raw_dir.exists() and any(raw_dir.iterdir()):
            if not (cfg.overwrite and _holds_only_synthetic(raw_dir)):
                raise DataError(
                    f"{raw_dir} is not empty and holds no finished synthetic corpus; choose another "
                    "folder, or add --overwrite if an interrupted run left it"
                )
            _remove_corpus(raw_dir)
        for index in range(cfg.num_patients):
            _write_patient(raw_dir / f"g{index // _PATIENTS_PER_FOLDER + 1}", index, cfg)
        # Last, under its final name only when whole: its presence says that the corpus is complete.
        temporary = raw_dir / f".{_DESCRIPTION}"
        temporary.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, description)
    except OSError as error:
        raise DataError(f"{raw_dir}: the synthetic records cannot be written: {error.strerror}") from error


def _holds_only_synthetic(raw_dir: Path) -> bool:
    return all(
        path.is_dir() or path.name.startswith("SYN") or path.name.endswith(_DESCRIPTION)
        for path in raw_dir.rglob("*")
    )


def _remove_corpus(raw_dir: Path) -> None:
    """Remove the description first, so that a killed removal does not look like a whole corpus."""
    (raw_dir / _DESCRIPTION).unlink(missing_ok=True)
    for pattern in ("SYN*.hea", "SYN*.mat"):
        for path in raw_dir.glob(f"g*/{pattern}"):
            path.unlink()


def _write_patient(folder: Path, index: int, cfg: SyntheticConfig) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    patient = draw_patient(generator(cfg.seed, index))
    # 0 counts the records, 1 ... draw them: key (seed, patient) alone is the patient's.
    counts = generator(cfg.seed, index, 0)
    num_records = int(counts.integers(cfg.min_records, cfg.max_records + 1))
    day = np.datetime64("2020-01-01") + int(counts.integers(0, 365))
    num_samples = round(cfg.duration_sec * cfg.raw_sampling_rate)
    for number in range(num_records):
        ecg = synthesise(patient, generator(cfg.seed, index, number + 1), cfg.raw_sampling_rate, num_samples)
        name = f"SYN{index:06}_{number}"
        header = _header(name, f"SYN{index:06}", patient, ecg, day, cfg.raw_sampling_rate)
        (folder / f"{name}.hea").write_text(header, encoding="ascii")
        _write_matlab(folder / f"{name}.mat", ecg)
        day += int(counts.integers(1, 400))


def _header(
    name: str, patient_id: str, patient: Patient, ecg: SyntheticEcg, day: np.datetime64, sampling_rate: int
) -> str:
    """A header as in release 1.0.3 of the challenge data, with a date and one more comment for the
    patient."""
    num_leads, num_samples = ecg.microvolts.shape
    year, month, date = str(day).split("-")
    lines = [f"{name} {num_leads} {sampling_rate} {num_samples} 12:00:00 {date}/{month}/{year}"]
    sums = np.add.reduce(ecg.microvolts, axis=1, dtype=np.int16)
    for lead, first, checksum in zip(STANDARD_LEADS, ecg.microvolts[:, 0], sums, strict=True):
        lines.append(f"{name}.mat 16x1+24 1000.0(0)/mV 16 0 {first} {checksum} 0 {lead}")
    codes = ",".join(DIAGNOSES[diagnosis][0] for diagnosis in ecg.diagnoses)
    comments = {
        "Age": patient.age,
        "Sex": patient.sex,
        "Dx": codes,
        "Rx": "Unknown",
        "Hx": "Unknown",
        "Sx": "Unknown",
        "Patient": patient_id,
        "Origin": "synthetic signal, no person's",
    }
    lines += [f"# {key}: {value}" for key, value in comments.items()]
    return "\n".join(lines) + "\n"


def _write_matlab(path: Path, ecg: SyntheticEcg) -> None:
    num_leads, num_samples = ecg.microvolts.shape
    head = np.array([_MATLAB_TYPE, num_leads, num_samples, 0, len(_MATLAB_NAME)], "<i4")
    path.write_bytes(head.tobytes() + _MATLAB_NAME + ecg.microvolts.T.astype("<i2").tobytes())
