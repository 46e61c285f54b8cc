"""Does a store hold what the raw records say? They are read again and compared, record by record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fairseq_ecg.data.prepare import Policy, PrepareOptions, prepare_record
from fairseq_ecg.data.prepare_job import Listing
from fairseq_ecg.data.record import RawItem, Reader
from fairseq_ecg.data.signal import Resampling
from fairseq_ecg.data.store import Store
from fairseq_ecg.errors import ConfigError, DataError
from fairseq_ecg.registry import READERS


class Difference(NamedTuple):
    """A record in which a store and the raw data disagree."""

    record_id: str
    what: str


class Verification(NamedTuple):
    """What was compared, and every disagreement."""

    num_compared: int
    differences: list[Difference]


def verify(
    store_dir: Path,
    raw_dir: Path,
    *,
    progress: Callable[[int, int, Iterable[str | None]], Iterable[str | None]] | None = None,
) -> Verification:
    """Read the raw records again, with the reader and the options ``store.json`` names.

    Compared are, for every record: that it is in the store exactly when preparing would put it there; its
    CRC-32; its samples, which may differ by the rounding of half a unit; its patient, labels and flags.

    Raises:
        ConfigError, DataError: not a store of ``prepare``, or nothing to read.
    """
    store = Store.open(store_dir)
    choices = store.json["choices"]
    reader, options = _reader(store_dir, choices), _options(choices)
    part = store.json.get("part", {"index": 0, "num_parts": 1})
    listing = Listing(lambda: reader.records(raw_dir), raw_dir, (part["index"], part["num_parts"]))
    row_of = {store.record_id(row): row for row in range(store.num_records)}
    differences: list[Difference] = []

    def compared() -> Iterator[str | None]:
        for item, earlier in listing.items():
            if not earlier:
                found = _compare(item, row_of.pop(item.record_id, None), store, options)
                if found:
                    differences.append(Difference(item.record_id, found))
            yield None

    outcomes: Iterable[str | None] = compared()
    for _ in outcomes if progress is None else progress(listing.stop - listing.start, 0, outcomes):
        pass
    differences += [Difference(record_id, "in the store, not among the raw records") for record_id in row_of]
    return Verification(listing.stop - listing.start, differences)


def _reader(store_dir: Path, choices: Mapping[str, Any]) -> Reader:
    name = choices.get("reader")
    if name is None:
        raise DataError(f"{store_dir}: its store.json names no reader; it was not made by prepare")
    entry = READERS.get(name)
    known = {item.name for item in fields(entry.config)}
    given = {key.removeprefix("reader_"): value for key, value in choices.items()}
    config = entry.config(**{key: value for key, value in given.items() if key in known})
    reader: Reader = READERS.build(name, config)
    return reader


def _options(choices: Mapping[str, Any]) -> PrepareOptions:
    """Options as ``store.json`` keeps them; what stopped a preparation is left out here, and so reported."""
    names = {item.name for item in fields(PrepareOptions)}
    kept = {name: value for name, value in choices.items() if name in names}
    if missing := {"sampling_rate", "leads"} - set(kept):
        raise ConfigError(f"store.json lacks {sorted(missing)}; prepare the store again")
    for name, value in kept.items():
        if name.startswith("policy_"):
            kept[name] = Policy.SKIP if value == Policy.ERROR else Policy(value)
    return PrepareOptions(**{**kept, "leads": tuple(kept["leads"]), "resample": Resampling(kept["resample"])})


def _compare(item: RawItem, row: int | None, store: Store, options: PrepareOptions) -> str:
    """What is different, or nothing."""
    prepared = prepare_record(item, options)
    record = prepared.record
    if record is None:
        return "" if row is None else f"in the store, but now left out: {prepared.quality.reason}"
    if row is None:
        return "not in the store"
    if not store.is_intact(row):
        return "its samples in the store no longer have the checksum they were written with"
    stored = store.read(row)
    if stored.shape != record.signal.shape:
        return f"(lead, time) is {stored.shape} in the store, {record.signal.shape} in the raw record"
    difference = np.abs(stored - record.signal).max(axis=1)
    # Beside half a unit, float32 rounds the product of units and scale.
    allowed = float(store.index.scale[row]) / 2 + 4e-7 * float(np.abs(stored).max())
    if difference.max() > allowed:
        lead = store.leads[int(difference.argmax())]
        return (
            f"samples differ by up to {difference.max():.4g} mV (lead {lead}), {allowed:.4g} mV are allowed"
        )
    for name, ours, theirs in (
        ("patient", store.patient_id(row), record.patient_id),
        ("labels", store.labels(row), record.labels),
        ("flags", store.flags(row), prepared.flags),
    ):
        if ours != theirs:
            return f"{name} {ours} in the store, {theirs} in the raw record"
    return ""
