"""Lead names, units and lead sets of a record, and what a reader hands over.

Shapes use L lead, T time. Amplitudes are mV.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.errors import DataError, nearest

FRANK_LEADS = ("VX", "VY", "VZ")
EXTRA_LEADS = ("V3R", "V4R", "V5R", "V7", "V8", "V9")

# MLII and its kin are the names of Holter recordings (MIT-BIH): electrodes moved to the torso, read as the
# limb lead they approximate. D1 D2 D3 are the Portuguese, French and Spanish names of I II III (CODE-15).
_ALIASES = {"MLI": "I", "MLII": "II", "MLIII": "III", "MV1": "V1", "D1": "I", "D2": "II", "D3": "III"}
_LEADS = {name.upper(): name for name in (*STANDARD_LEADS, *FRANK_LEADS, *EXTRA_LEADS)}

_MV_PER_UNIT = {"V": 1e3, "MV": 1.0, "UV": 1e-3, "NV": 1e-6}


class RawItem(Protocol):
    """One record a reader has found but not read yet."""

    @property
    def path(self) -> Path: ...

    @property
    def record_id(self) -> str: ...

    def read(self) -> Record:
        """Read it.

        Raises:
            DataError: with the reason, when the record cannot be used.
        """


class Reader(Protocol):
    """What is registered under the kind ``reader``: built from its config, lists the records of a folder."""

    def records(self, raw_dir: Path) -> Iterator[RawItem]:
        """Records in an order that does not depend on the machine.

        Raises:
            DataError: ``raw_dir`` does not exist or holds nothing this reader knows.
        """


class Arrangement(NamedTuple):
    """A signal in an asked-for lead order, and what became of every lead."""

    signal: NDArray[np.float32]
    present: tuple[str, ...]
    """Leads that were recorded or derived."""
    derived: tuple[str, ...]
    missing: tuple[str, ...]
    """Leads that are rows of zeros."""


@lru_cache(maxsize=4096)
def lead_name(name: str) -> str:
    """The one spelling of a lead's name: ``AVR``, ``avr`` and ``Lead aVR`` are ``aVR``; ``MLII`` is ``II``.

    A name this package does not know is returned stripped but otherwise as it is, so that nothing is lost.
    """
    stripped = name.strip()
    key = stripped.upper().removeprefix("LEAD").strip(" _-")
    return _LEADS.get(_ALIASES.get(key, key), stripped)


def known_leads(names: Sequence[str]) -> tuple[str, ...]:
    """Normalise lead names a user has written.

    Raises:
        DataError: a name is unknown or occurs twice.
    """
    leads = tuple(lead_name(name) for name in names)
    for lead, written in zip(leads, names, strict=True):
        if lead not in _LEADS.values():
            raise DataError(f"unknown lead {written!r}: {nearest(written, _LEADS.values())}")
    if not leads or len(set(leads)) != len(leads):
        raise DataError(f"leads {','.join(names)}: name every lead once, at least one")
    return leads


@lru_cache(maxsize=256)
def mv_per_unit(unit: str) -> float:
    """Factor from a unit's name to mV: ``mV``, ``mv``, ``uV``, ``µV``, ``V``, ``nV``.

    ``MV`` is read as millivolt: no ECG is recorded in megavolts.

    Raises:
        DataError: the unit is not a voltage.
    """
    key = unit.strip().replace("\u00b5", "u").replace("\u03bc", "u").upper()
    try:
        return _MV_PER_UNIT[key]
    except KeyError:
        raise DataError(f"unit {unit!r} is not a voltage: known are mV, uV, µV, nV and V") from None


def derive_lead(lead: str, i: NDArray[np.float32], ii: NDArray[np.float32]) -> NDArray[np.float32]:
    """A limb lead from leads I and II.

    Einthoven: I + III = II. Goldberger: an augmented lead is its electrode against the mean of the other two,
    so aVR = -(I + II) / 2, aVL = (I - III) / 2 = I - II / 2, aVF = (II + III) / 2 = II - I / 2.
    """
    half = np.float32(0.5)
    if lead == "III":
        return ii - i
    if lead == "aVR":
        return (i + ii) * -half
    if lead == "aVL":
        return i - ii * half
    if lead == "aVF":
        return ii - i * half
    raise ValueError(f"lead {lead} cannot be derived from I and II")


def reference_leads(
    signal: NDArray[Any], leads: Sequence[str], wanted: Sequence[str], fill: float
) -> NDArray[Any]:
    """Rows by names that agree letter by letter, as ECG-FM's preparation selects them: for comparison.

    ``AVR`` is no ``aVR`` here and counts as missing, and no lead is derived; ``arrange_leads`` does both.

    Args:
        signal: (L, T).
        leads: names of the rows of ``signal``.
        wanted: names of the rows of the result.
        fill: value of the rows of missing leads.
    """
    chosen = np.full((len(wanted), signal.shape[1]), fill, signal.dtype)
    for target, lead in zip(chosen, wanted, strict=True):
        if lead in leads:
            target[:] = signal[list(leads).index(lead)]
    return chosen


def arrange_leads(signal: NDArray[np.float32], leads: Sequence[str], wanted: Sequence[str]) -> Arrangement:
    """Select and reorder leads by name; derive limb leads where I and II allow it; fill the others with
    zeros.

    Args:
        signal: (L, T), mV.
        leads: names of the rows of ``signal``.
        wanted: names of the rows of the result.

    Raises:
        DataError: two rows carry the same lead.
    """
    if len(set(leads)) != len(leads):
        twice = sorted({lead for lead in leads if list(leads).count(lead) > 1})
        raise DataError(f"leads {twice} occur twice in {list(leads)}: which one is meant cannot be known")
    if tuple(leads) == tuple(wanted):
        return Arrangement(signal, tuple(wanted), (), ())
    row = {lead: index for index, lead in enumerate(leads)}
    arranged = np.zeros((len(wanted), signal.shape[1]), np.float32)
    derived, missing = [], []
    for target, lead in zip(arranged, wanted, strict=True):
        if lead in row:
            target[:] = signal[row[lead]]
        elif lead in ("III", "aVR", "aVL", "aVF") and {"I", "II"} <= row.keys():
            target[:] = derive_lead(lead, signal[row["I"]], signal[row["II"]])
            derived.append(lead)
        else:
            missing.append(lead)
    present = tuple(lead for lead in wanted if lead not in missing)
    return Arrangement(arranged, present, tuple(derived), tuple(missing))
