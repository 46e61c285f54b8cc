"""One record in the form a store keeps it: int16 samples, and its row of ``index.tsv`` but for the place.

A pure function, so that worker processes do this work and whoever writes the store only appends.
Shapes use L lead, T time.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.signal import lead_statistics
from fairseq_ecg.errors import DataError

UNIT_MV = 0.001
"""mV per int16 unit unless a record needs more room: 1 uV."""
_MAX_UNIT = 32767


class Encoded(NamedTuple):
    """What is written of a record beside its samples."""

    record_id: str
    patient_id: str
    source: str
    num_values: int
    """int16 values, leads times samples."""
    tail: str
    """Cells of ``index.tsv`` from ``num_samples`` on, joined by tabs."""

    def row(self, idx: int, shard: int, offset: int) -> str:
        """The whole line of ``index.tsv``."""
        return f"{idx}\t{self.record_id}\t{self.patient_id}\t{self.source}\t{shard}\t{offset}\t{self.tail}\n"


def encode(
    record: Record,
    *,
    sampling_rate: int,
    leads: Sequence[str],
    leads_present: Sequence[str],
    flags: Sequence[str] = (),
) -> tuple[Encoded, NDArray[np.int16]]:
    """Quantise a record and describe it.

    Amplitudes are kept in steps of 1 uV, or in the smallest larger multiple of it in which the record's
    largest amplitude still fits.

    Args:
        record: its signal is (L, T) float32, mV.
        sampling_rate: Hz of the store.
        leads: of the store, in order.
        leads_present: leads the record has; the rows of the others are zeros.
        flags: remarks about quality.

    Raises:
        DataError: another rate or shape, values that are not finite, a text that a table cannot keep.
    """
    signal, name = record.signal, f"record {record.record_id!r}"
    if record.sampling_rate != sampling_rate:
        raise DataError(f"{name} has {record.sampling_rate} Hz, the store {sampling_rate} Hz")
    if signal.ndim != 2 or signal.shape[0] != len(leads) or signal.shape[1] == 0:
        raise DataError(f"{name} has shape {signal.shape}, the store needs ({len(leads)}, time)")
    if record.likelihoods and len(record.likelihoods) != len(record.labels):
        raise DataError(
            f"{name} has {len(record.likelihoods)} likelihoods for {len(record.labels)} labels; "
            "a reader gives one per label or none"
        )
    values, scale = quantise(signal, name)
    mean, std = (each.astype(np.float32) for each in lead_statistics(signal))
    _check_texts(record, leads_present, flags)
    tail = (
        f"{record.num_samples}\t{scale!r}\t{','.join(leads_present)}"
        f"\t{','.join(map(str, mean))}\t{','.join(map(str, std))}"
        f"\t{'' if math.isnan(record.age) else f'{record.age:g}'}\t{record.sex}\t{record.date}"
        f"\t{'|'.join(flags)}\t{zlib.crc32(values.data)}\t{'|'.join(record.labels)}"
        f"\t{'|'.join(f'{value:g}' for value in record.likelihoods)}\t{record.fold}"
    )
    return Encoded(record.record_id, record.patient_id, record.source, values.size, tail), values


def quantise(signal: NDArray[np.float32], name: str) -> tuple[NDArray[np.int16], float]:
    """(L, T) int16 and the mV per unit.

    Raises:
        DataError: values that are not finite.
    """
    peak = max(float(signal.max()), -float(signal.min()))
    if not math.isfinite(peak):
        raise DataError(f"{name} holds values that are not finite; repair or leave out before storing")
    micro_volts = max(1, math.ceil(peak * 1000 / _MAX_UNIT))
    scale = micro_volts / 1000
    scaled = signal * np.float32(1 / scale)
    np.rint(scaled, out=scaled)
    if micro_volts > 1:  # at 1 uV nothing can round to more than the largest unit
        np.clip(scaled, -_MAX_UNIT, _MAX_UNIT, out=scaled)
    return np.ascontiguousarray(scaled.astype("<i2")), scale


def _check_texts(record: Record, leads_present: Sequence[str], flags: Sequence[str]) -> None:
    texts = {
        "record_id": record.record_id,
        "patient_id": record.patient_id,
        "source": record.source,
        "leads_present": ",".join(leads_present),
        "sex": record.sex,
        "date": record.date,
        "flags": "|".join(flags),
        "labels": "|".join(record.labels),
        "fold": record.fold,
    }
    whole = "".join(texts.values())
    if "\t" not in whole and "\n" not in whole and "\r" not in whole:
        return
    name, text = next((key, value) for key, value in texts.items() if any(mark in value for mark in "\t\n\r"))
    raise DataError(
        f"record {record.record_id!r}: {name} {text!r} holds a tab or a line end, which a table cannot keep"
    )
