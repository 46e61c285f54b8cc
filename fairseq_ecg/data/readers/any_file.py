"""One record from one file of any known kind: WFDB, fairseq-signals' .mat, .npy, .csv, .wav and .flac.

What a file does not say (rate, lead names, unit) has to be given; nothing is guessed, and what is given must
agree with what the file says.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.record import known_leads, mv_per_unit
from fairseq_ecg.data.wfdb_record import read_wfdb_record
from fairseq_ecg.errors import DataError

SUFFIXES = (".hea", ".mat", ".npy", ".csv", ".wav", ".flac")


def read_record(
    path: Path | str,
    *,
    sampling_rate: int | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
) -> Record:
    """Read one ECG.

    Args:
        path: ``.hea`` (WFDB; the signal files lie beside it), ``.mat`` (fairseq-signals: ``feats``,
            ``curr_sample_rate``), ``.npy`` (lead, time), ``.csv`` (a row per time, a column per lead, lead
            names in the first row or in ``leads``), ``.wav`` or ``.flac`` (a channel per lead; integer
            samples count ``unit``).
        sampling_rate: Hz; required for .npy and .csv.
        leads: names of the signals in their order; required unless the file names them. A .mat of 12 leads is
            in the standard order by definition of its format.
        unit: of the stored numbers; required but for .hea and .mat (mV by definition of its format).

    Raises:
        DataError: the file cannot be read, does not say what is needed, or contradicts what was given.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: no known kind of ECG file; known: {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if suffix == ".hea":
        record = read_wfdb_record(path)
        _agree(path, "sampling_rate", sampling_rate, record.sampling_rate)
        _agree(path, "leads", None if leads is None else known_leads(leads), record.leads)
        if unit is not None:
            raise DataError(f"{path}: the header states the unit; leave unit={unit!r} out")
        return record
    notes: tuple[str, ...] = ()
    if suffix == ".mat":
        signal, rate, notes = _read_mat(path)
        _agree(path, "sampling_rate", sampling_rate, rate)
        sampling_rate, unit = rate, unit or "mV"
        if leads is None and len(signal) == len(STANDARD_LEADS):
            leads = STANDARD_LEADS
    elif suffix == ".csv":
        signal, named = _read_csv(path)
        _agree(path, "leads", None if leads is None else known_leads(leads), named and known_leads(named))
        leads = leads or named
    elif suffix == ".npy":
        signal = _read_npy(path)
    else:
        signal, rate = _read_sound(path)
        _agree(path, "sampling_rate", sampling_rate, rate)
        sampling_rate = rate
    if sampling_rate is None or leads is None or unit is None:
        given = {"sampling_rate": sampling_rate, "leads": leads, "unit": unit}
        absent = [name for name, value in given.items() if value is None]
        raise DataError(
            f"{path}: the file does not say its {' and '.join(absent)}; give {', '.join(absent)}=..."
        )
    names = known_leads(leads)
    if sampling_rate < 1:
        raise DataError(f"{path}: sampling_rate={sampling_rate}: at least 1 Hz is needed")
    if signal.ndim != 2 or signal.shape[0] != len(names) or signal.shape[1] == 0:
        raise DataError(f"{path}: shape {signal.shape} is not ({len(names)} leads, time)")
    return Record(
        record_id=path.stem,
        patient_id=path.stem,
        source="",
        signal=np.ascontiguousarray(signal * mv_per_unit(unit), np.float32),
        leads=names,
        sampling_rate=sampling_rate,
        notes=notes,
    )


def _agree(path: Path, name: str, given: object, stated: object) -> None:
    """Refuse an argument that contradicts the file."""
    if given is not None and stated is not None and given != stated:
        raise DataError(f"{path}: {name}={given!r} was given, the file says {stated!r}; leave {name} out")


def _read_mat(path: Path) -> tuple[NDArray[np.float64], int, tuple[str, ...]]:
    """``feats`` (lead, time); standardised leads are brought back to mV by the mean and std beside them."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path)
    except (NotImplementedError, MatReadError, ValueError, TypeError, OSError) as error:
        raise DataError(f"{path}: not a readable MATLAB file before v7.3: {error}") from None
    if "feats" not in content or "curr_sample_rate" not in content:
        hint = "; it is the signal file of a WFDB record: give its .hea" if "val" in content else ""
        raise DataError(f"{path}: no 'feats' and 'curr_sample_rate' in it{hint}")
    feats = np.atleast_2d(np.asarray(content["feats"], np.float64))
    rate = float(np.asarray(content["curr_sample_rate"]).item())
    if rate < 1 or rate % 1:
        raise DataError(f"{path}: curr_sample_rate={rate}: a whole number from 1 is needed")
    if "mean" not in content or "std" not in content:
        return feats, int(rate), ()
    mean, std = (np.asarray(content[key], np.float64).reshape(-1, 1) for key in ("mean", "std"))
    if not len(mean) == len(std) == len(feats):
        raise DataError(f"{path}: mean and std have {len(mean)} and {len(std)} rows for {len(feats)} leads")
    return feats * std + mean, int(rate), ("standardised leads multiplied by std, mean added",)


def _read_npy(path: Path) -> NDArray[np.float64]:
    try:
        signal = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a readable .npy of numbers: {error}") from None
    if signal.dtype.kind not in "iuf":
        raise DataError(f"{path}: dtype {signal.dtype} is not a number")
    return np.asarray(signal, np.float64)


def _read_csv(path: Path) -> tuple[NDArray[np.float64], list[str] | None]:
    """(lead, time) and the lead names of the first row, if that row is not numbers."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table: {error}") from None
    if not rows:
        raise DataError(f"{path}: empty")
    named = None
    try:
        [float(cell) for cell in rows[0]]
    except ValueError:
        named, rows = [cell.strip() for cell in rows[0]], rows[1:]
    try:
        signal = np.array([[float(cell) for cell in row] for row in rows], np.float64)
    except ValueError as error:
        raise DataError(f"{path}: not a table of numbers with a column per lead: {error}") from None
    return signal.T, named


def _read_sound(path: Path) -> tuple[NDArray[np.float64], int]:
    """(lead, time) sample values as stored: integers for PCM, not scaled to +-1."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            rate, subtype = int(file.samplerate), str(file.subtype)
            bits = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}.get(subtype)
            if bits is None and subtype not in ("FLOAT", "DOUBLE"):
                raise DataError(
                    f"{path}: sound subtype {subtype} is lossy or unknown; use PCM, FLOAT or DOUBLE"
                )
            samples = file.read(dtype="float64" if bits is None else "int32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path}: not a readable sound file: {error}") from None
    # libsndfile left-justifies integer samples in 32 bits.
    values = samples if bits is None else samples >> (32 - bits)
    return np.asarray(values.T, np.float64), rate
