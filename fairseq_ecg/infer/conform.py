"""Bring any signal to a model's input contract: unit, lead order, sampling rate, normalisation, segments.

Every change is written down. Nothing is guessed: an unknown lead, unit or filter is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import InputContract
from fairseq_ecg.data.filters import FilterChain
from fairseq_ecg.data.normalise import Normalisation, normalise_record
from fairseq_ecg.data.record import arrange_leads, known_leads, mv_per_unit
from fairseq_ecg.data.signal import nan_rows, resample, segments
from fairseq_ecg.errors import ConfigError, DataError


@dataclass(frozen=True)
class Conformed:
    """A whole record as the model wants it, not yet cut.

    Shape:
        signal: (L, T), float32, in the contract's leads, rate and normalisation.
    """

    signal: NDArray[np.float32]
    notes: tuple[str, ...]
    """What was changed, one remark each; equal input gives equal remarks."""


def check_contract(contract: InputContract) -> None:
    """Refuse a contract this version cannot meet.

    Raises:
        ConfigError: an unknown unit, normalisation or filter.
    """
    if contract.unit != "mV" or contract.normalisation not in list(Normalisation):
        raise ConfigError(
            f"the model wants unit={contract.unit}, normalisation={contract.normalisation}; "
            f"this version makes unit=mV, normalisation={' or '.join(Normalisation)}"
        )
    FilterChain.parse(contract.filter)


def conform(
    signal: NDArray[np.generic],
    *,
    sampling_rate: int,
    leads: Sequence[str],
    unit: str,
    contract: InputContract,
    name: str = "signal",
) -> Conformed:
    """Convert one whole record.

    Args:
        signal: (leads, time), in ``unit``.
        sampling_rate: Hz of ``signal``.
        leads: names of its rows, in any order and spelling the package knows.
        unit: of its values.
        contract: what the model expects.
        name: what to call the record in errors.

    Raises:
        DataError: the shape does not fit the leads, a value is not finite, a lead or unit is unknown.
        ConfigError: the contract cannot be met.
    """
    check_contract(contract)
    names = known_leads(leads)
    if signal.ndim != 2 or signal.shape[0] != len(names) or signal.shape[1] == 0:
        raise DataError(f"{name}: shape {signal.shape} is not ({len(names)} leads, time)")
    if sampling_rate < 1:
        raise DataError(f"{name}: sampling_rate={sampling_rate}: at least 1 Hz is needed")
    factor = mv_per_unit(unit)
    values = np.asarray(signal, dtype=np.float32)
    notes = []
    if factor != 1.0:
        values = values * np.float32(factor)
        notes.append(f"{unit} converted to mV")
    if (bad := nan_rows(values)).any():
        held = ", ".join(lead for lead, is_bad in zip(names, bad, strict=True) if is_bad)
        raise DataError(f"{name}: values of lead {held} are not finite; repair or leave out the record")
    arrangement = arrange_leads(values, names, contract.leads)
    if not arrangement.present:
        raise DataError(f"{name}: none of the leads the model reads ({', '.join(contract.leads)}) is there")
    if arrangement.derived:
        notes.append(f"derived {', '.join(arrangement.derived)} from I and II")
    if arrangement.missing:
        notes.append(f"filled {', '.join(arrangement.missing)} with zeros")
    if dropped := [lead for lead in names if lead not in contract.leads]:
        notes.append(f"left out {', '.join(dropped)}")
    values = arrangement.signal
    if sampling_rate != contract.sampling_rate:
        values = resample(values, sampling_rate, contract.sampling_rate)
        notes.append(f"resampled from {sampling_rate} to {contract.sampling_rate} Hz")
    if filters := FilterChain.parse(contract.filter):
        values = filters.apply(values, contract.sampling_rate)
        notes.append(f"filtered by {filters}")
    values = normalise_record(values, contract.leads, Normalisation(contract.normalisation))
    return Conformed(np.ascontiguousarray(values, dtype=np.float32), tuple(notes))


@dataclass(frozen=True)
class Segments:
    """A record cut to the length the model was trained on.

    Shape:
        source: (S, L, T), float32.
        num_samples: (S,), int64, how many of the T samples are signal; the others are zeros at the end.
    """

    source: NDArray[np.float32]
    num_samples: NDArray[np.int64]


def cut(signal: NDArray[np.float32], num_samples: int) -> Segments:
    """Consecutive whole segments; a rest at the end is left out, a record shorter than one is padded.

    Shape:
        signal: (L, T) -> (max(1, T // num_samples), L, num_samples).
    """
    length = signal.shape[1]
    count = length // num_samples
    if count == 0:
        padded = np.pad(signal, ((0, 0), (0, num_samples - length)))
        return Segments(padded[None], np.array([length], dtype=np.int64))
    source = np.ascontiguousarray(segments(signal, num_samples))
    return Segments(source, np.full(count, num_samples, dtype=np.int64))
