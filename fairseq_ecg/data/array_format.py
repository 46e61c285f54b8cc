"""Plain arrays as records: .npy, .npz, .mat and .csv, which say little of what they hold."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.mat_file import load_mat
from fairseq_ecg.data.raw_files import check_size, one_line
from fairseq_ecg.data.record import known_leads, lead_name, mv_per_unit
from fairseq_ecg.errors import DataError

SUFFIXES = (".npy", ".npz", ".mat", ".csv")
MAX_VALUES = 2**29
"""Numbers of one record; a header that announces more is not believed."""


class Numbers(NamedTuple):
    """What a file of numbers says of itself; None where it is silent.

    Shape:
        signal: (lead, time).
    """

    signal: NDArray[np.float64]
    leads: tuple[str, ...] | None = None
    sampling_rate: int | None = None
    unit: str | None = None
    notes: tuple[str, ...] = ()


def read_array(
    path: Path,
    *,
    sampling_rate: int | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
) -> Record:
    """Read a .npy, .npz, .mat or .csv of numbers.

    Args:
        path: ``.npy`` (lead, time); ``.csv``, a row per time and a column per lead, named by the first row or
            by ``leads``; ``.npz`` or ``.mat`` with an array per lead, named by it; ``.mat`` of
            fairseq-signals (``feats``, ``curr_sample_rate``), or with one single matrix (lead, time).
        sampling_rate: Hz; with leads of unequal length that of the longest.
        leads: names in the order of the file.
        unit: of the numbers.

    Raises:
        DataError: the file cannot be read, does not say what is needed, or contradicts what was given.
    """
    check_size(path)
    found = {".npy": _read_npy, ".npz": _read_npz, ".mat": _read_mat, ".csv": _read_csv}[path.suffix.lower()](
        path
    )
    return record_of(path, found, sampling_rate=sampling_rate, leads=leads, unit=unit)


def record_of(
    path: Path,
    found: Numbers,
    *,
    sampling_rate: int | None,
    leads: Sequence[str] | None,
    unit: str | None,
) -> Record:
    """A record of numbers and what was given about them.

    Raises:
        DataError: something is not known, or what is given contradicts what the file says.
    """
    given = None if leads is None else known_leads(leads)
    agree(path, "sampling_rate", sampling_rate, found.sampling_rate)
    agree(path, "leads", given, found.leads)
    rate, names, unit = sampling_rate or found.sampling_rate, given or found.leads, unit or found.unit
    if sampling_rate is not None and sampling_rate < 1:
        raise DataError(f"{path}: sampling_rate={sampling_rate}: at least 1 Hz is needed")
    if rate is None or names is None or unit is None:
        known = {"sampling_rate": rate, "leads": names, "unit": unit}
        absent = [name for name, value in known.items() if value is None]
        raise DataError(
            f"{path}: the file does not say its {' and '.join(absent)}; give {', '.join(absent)}=..."
        )
    signal = found.signal
    if signal.ndim != 2 or signal.shape[0] != len(names) or signal.shape[1] == 0:
        raise DataError(f"{path}: shape {signal.shape} is not ({len(names)} leads, time)")
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.ascontiguousarray(signal * mv_per_unit(unit), np.float32)
    if np.isinf(values).any():
        raise DataError(f"{path}: holds infinite or absurdly large values")
    return Record(
        record_id=path.stem,
        patient_id=path.stem,
        source="",
        signal=values,
        leads=names,
        sampling_rate=rate,
        notes=found.notes,
    )


def agree(path: Path, name: str, given: object, stated: object) -> None:
    """Refuse an argument that contradicts the file."""
    if given is not None and stated is not None and given != stated:
        raise DataError(f"{path}: {name}={given!r} was given, the file says {stated!r}; leave {name} out")


def align_leads(leads: Mapping[str, NDArray[np.float64]]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Leads that cover the same time with different numbers of samples, on the grid of the longest.

    Shorter leads are interpolated linearly with first and last samples kept, as PCLR's input is made
    (Diamant et al. 2022).

    Shape:
        leads: name -> (time of that lead,); returns (lead, longest time) and notes.
    """
    longest = max(len(values) for values in leads.values())
    rows, stretched = [], []
    for name, values in leads.items():
        if len(values) < longest:
            stretched.append(f"{name} ({len(values)})")
            values = np.interp(np.linspace(0, 1, longest), np.linspace(0, 1, len(values)), values)
        rows.append(values)
    notes = (f"interpolated to {longest} samples: {', '.join(stretched)}",) if stretched else ()
    return np.stack(rows), notes


def _lead_arrays(path: Path, arrays: Mapping[str, Any]) -> Numbers | None:
    """Arrays named by leads as numbers, in the order the standard has; None when no name is a lead."""
    leads: dict[str, NDArray[np.float64]] = {}
    for name, values in arrays.items():
        lead = lead_name(name)
        if lead not in STANDARD_LEADS:
            continue
        array = np.asarray(values)
        if array.dtype.kind not in "iuf" or array.size != max(array.shape, default=0) or not array.size:
            raise DataError(f"{path}: lead {name!r} has shape {array.shape}, a row of numbers is needed")
        if lead in leads:
            raise DataError(f"{path}: lead {lead} is there twice")
        leads[lead] = array.reshape(-1).astype(np.float64)
    if not leads:
        return None
    names = tuple(lead for lead in STANDARD_LEADS if lead in leads)
    if sum(map(len, leads.values())) > MAX_VALUES:
        raise DataError(f"{path}: more than {MAX_VALUES} numbers")
    signal, notes = align_leads({lead: leads[lead] for lead in names})
    return Numbers(signal, names, notes=notes)


def _read_npy(path: Path) -> Numbers:
    try:
        with path.open("rb") as file:
            _check_npy_header(file, path)
            file.seek(0)
            signal = np.load(file, allow_pickle=False)
    except DataError:
        raise
    except Exception as error:  # the header is Python's own syntax, with every way to get that wrong
        raise DataError(f"{path}: not a readable .npy of numbers: {one_line(error)}") from None
    if not isinstance(signal, np.ndarray) or signal.dtype.kind not in "iuf":
        raise DataError(f"{path}: dtype {getattr(signal, 'dtype', 'of an archive')} is not a number")
    return Numbers(np.asarray(signal, np.float64))


def _check_npy_header(file: Any, path: Path) -> None:
    """Refuse an array that the rest of the file cannot hold, before memory is taken for it."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    count = 1
    for size in shape:
        count *= size
    if min(shape, default=1) < 0 or count > MAX_VALUES or count * dtype.itemsize > path.stat().st_size:
        raise DataError(f"{path}: shape {shape} of {dtype} is not in the file; truncated")


def _read_npz(path: Path) -> Numbers:
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(info.file_size for info in archive.infolist())
            if total > 8 * MAX_VALUES or total > 1100 * path.stat().st_size:  # deflate reaches 1032 : 1
                raise DataError(f"{path}: {total} bytes unpacked; no record has that many")
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib, numpy and struct each have their own kinds
        raise DataError(f"{path}: not a readable .npz of numbers: {one_line(error)}") from None
    found = _lead_arrays(path, arrays)
    if found is None:
        raise DataError(f"{path}: none of the arrays {sorted(arrays)[:20]} is named by a lead (I, V1, ...)")
    return found


def _read_mat(path: Path) -> Numbers:
    """``feats`` (lead, time), standardised leads brought back by the mean and std beside them; or leads."""
    content = load_mat(path)
    if "feats" not in content or "curr_sample_rate" not in content:
        arrays = {name: value for name, value in content.items() if not name.startswith("__")}
        if found := _lead_arrays(path, arrays):
            return found
        if "val" in content:
            raise DataError(
                f"{path}: no 'feats' and 'curr_sample_rate' in it; it is the signal file of a WFDB record: "
                "give its .hea"
            )
        matrices = {name: value for name, value in arrays.items() if _is_matrix(value)}
        if len(matrices) != 1:
            raise DataError(
                f"{path}: no 'feats' and 'curr_sample_rate', no leads by name and no single matrix of "
                f"numbers in it; it has {sorted(arrays)[:20]}"
            )
        return Numbers(np.asarray(next(iter(matrices.values())), np.float64))
    try:
        feats = np.atleast_2d(np.asarray(content["feats"], np.float64))
        rate = float(np.asarray(content["curr_sample_rate"]).item())
        mean, std = (
            np.asarray(content[key], np.float64).reshape(-1, 1) if key in content else None
            for key in ("mean", "std")
        )
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path}: feats, curr_sample_rate, mean or std are no numbers: {one_line(error)}"
        ) from None
    if not 1 <= rate <= 1e6 or rate % 1:
        raise DataError(f"{path}: curr_sample_rate={rate}: a whole number from 1 is needed")
    names = STANDARD_LEADS if len(feats) == len(STANDARD_LEADS) else None
    if mean is None or std is None:
        return Numbers(feats, names, int(rate), "mV")
    if not len(mean) == len(std) == len(feats):
        raise DataError(f"{path}: mean and std have {len(mean)} and {len(std)} rows for {len(feats)} leads")
    note = "standardised leads multiplied by std, mean added"
    return Numbers(feats * std + mean, names, int(rate), "mV", (note,))


def _is_matrix(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and value.ndim == 2 and value.size > 1


def _read_csv(path: Path) -> Numbers:
    """A column per lead; their names when the first row is not numbers."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table: {one_line(error)}") from None
    if not rows:
        raise DataError(f"{path}: empty")
    named = None
    try:
        [float(cell) for cell in rows[0]]
    except ValueError:
        named, rows = known_leads([cell.strip() for cell in rows[0]]), rows[1:]
    try:
        signal = np.array([[float(cell) for cell in row] for row in rows], np.float64)
    except ValueError as error:
        raise DataError(f"{path}: not a table of numbers with a column per lead: {one_line(error)}") from None
    return Numbers(signal.T, named)
