"""From raw records to a prepared store: resample, order leads, apply a stated policy to what is wrong.

No single record ends a preparation unless a policy says ``error``: what is left out or repaired is counted,
and listed in ``rejected.tsv`` in the store's folder.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.record import RawItem, Reader, arrange_leads, known_leads
from fairseq_ecg.data.signal import Resampling, flat_rows, nan_rows, resample
from fairseq_ecg.data.store import StoreWriter
from fairseq_ecg.errors import ConfigError, DataError

REJECTED = "rejected.tsv"
REJECTED_COLUMNS = ("record", "path", "reason", "action")

LEFT_OUT = "left out"

_REPAIRS = {"missing": "missing lead", "nan": "nan lead", "flat": "flat lead", "resampled": "resampled"}
_REASONS = {
    "duplicate": "duplicate",
    "truncated": "truncated",
    "corrupt": "corrupt",
    "nan lead": "nan lead",
    "flat lead": "flat lead",
    "missing lead": "missing lead",
    "is constant": "constant",
    "cannot be read": "missing file",
    "does not exist": "missing file",
}
"""Words of a reason -> what the summary counts it as."""


class Policy(StrEnum):
    ERROR = "error"
    SKIP = "skip"
    ZERO = "zero"


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How records are brought into the form of one store; kept in ``store.json`` word for word."""

    sampling_rate: int = 500
    """Hz of the store; records of another rate are resampled."""
    leads: tuple[str, ...] = STANDARD_LEADS
    """Leads of the store, in order."""
    resample: Resampling = Resampling.POLYPHASE
    policy_nan: Policy = Policy.SKIP
    """A lead with missing samples; zero: these samples become 0 mV."""
    policy_flat: Policy = Policy.ZERO
    """A lead that is constant over the whole record; zero: it becomes 0 mV."""
    policy_missing: Policy = Policy.ZERO
    """A lead of the store that a record neither has nor allows to compute; zero: a row of zeros."""
    policy_unreadable: Policy = Policy.SKIP
    """A record that is missing, truncated, corrupt or a duplicate; there is nothing to repair."""

    def __post_init__(self) -> None:
        if self.sampling_rate < 1:
            raise ConfigError(f"sampling_rate={self.sampling_rate}: at least 1 Hz")
        if self.policy_unreadable is Policy.ZERO:
            raise ConfigError(
                "policy_unreadable=zero: an unreadable record cannot be repaired; error or skip"
            )
        object.__setattr__(self, "leads", known_leads(self.leads))


class Finding(NamedTuple):
    """A row of ``rejected.tsv``."""

    record: str
    path: str
    reason: str
    action: str


class Prepared(NamedTuple):
    """A record ready for the store, or none and why."""

    record: Record | None
    leads_present: tuple[str, ...]
    flags: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass
class Report:
    """What a preparation did."""

    num_records: int = 0
    num_found: int = 0
    hours: float = 0.0
    sources: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    """Kind of reason -> records left out."""
    repaired: Counter[str] = field(default_factory=Counter)
    """Kind of repair -> records kept with it."""
    noted: int = 0
    """Records kept unchanged with a remark of the reader."""
    findings: list[Finding] = field(default_factory=list)

    def summary(self) -> str:
        """One line: records, hours, sources, and what was left out or repaired and why."""
        text = f"{self.num_records} of {self.num_found} records, {self.hours:.2f} hours"
        text += f" ({', '.join(f'{name}: {count}' for name, count in sorted(self.sources.items()))})"
        for title, counts in (("left out", self.rejected), ("repaired", self.repaired)):
            if counts:
                text += f"; {title}: " + ", ".join(
                    f"{count} {name}" for name, count in sorted(counts.items())
                )
        return text + (f"; {self.noted} with remarks" if self.noted else "")


def prepare(
    reader: Reader,
    raw_dir: Path,
    store_dir: Path,
    options: PrepareOptions,
    *,
    overwrite: bool = False,
    num_workers: int = 0,
    choices: dict[str, object] | None = None,
    progress: Callable[[int, Iterable[Prepared]], Iterable[Prepared]] | None = None,
) -> Report:
    """Read every record below ``raw_dir`` into a new store.

    Args:
        reader: lists the records.
        raw_dir: folder the reader looks in.
        store_dir: folder to make.
        options: processing and policies.
        overwrite: replace the store that is there.
        num_workers: threads that read and resample ahead; the store is the same for any number.
        choices: more about the origin for ``store.json``.
        progress: given the number of records, wraps them to show how far the work is.

    Raises:
        ConfigError: ``num_workers`` is negative.
        DataError: nothing to read, the store cannot be written, a policy says ``error``, or no record is
        left.
    """
    if num_workers < 0:
        raise ConfigError(f"num_workers={num_workers}: 0 (none beside the main thread) or more")
    report = Report()
    kept = {**(choices or {}), **asdict(options), "leads": list(options.leads)}
    try:
        with StoreWriter(
            store_dir,
            sampling_rate=options.sampling_rate,
            leads=options.leads,
            choices=kept,
            overwrite=overwrite,
        ) as writer:
            items = list(reader.records(raw_dir))
            report.num_found = len(items)
            prepared = prepare_records(items, options, num_workers)
            for result in prepared if progress is None else progress(len(items), prepared):
                _count(_stored(result, writer, options), report)
            if not report.num_records:
                raise DataError(
                    f"{raw_dir}: none of {len(items)} records can be used, the first because: "
                    f"{report.findings[0].record}: {report.findings[0].reason}"
                )
    except OSError as error:
        raise DataError(f"{store_dir} cannot be written: {error.strerror}; nothing was kept") from error
    _write_findings(store_dir / REJECTED, report.findings)
    return report


def prepare_records(
    items: Iterable[RawItem], options: PrepareOptions, num_workers: int = 0
) -> Iterator[Prepared]:
    """Prepared records in the order of ``items``; of those with one id the first usable one counts."""
    first_path: dict[str, Path] = {}
    submitted: set[str] = set()
    queue: deque[tuple[RawItem, Future[Prepared] | None]] = deque()
    # Threads: reading waits for the disk, and numpy and scipy release the interpreter in their loops.
    pool = ThreadPoolExecutor(num_workers) if num_workers else None

    def result(item: RawItem, ahead: Future[Prepared] | None) -> Prepared:
        """Claim the id for a record that can be used."""
        if item.record_id in first_path:
            reason = f"duplicate record id: {first_path[item.record_id]} came first"
            return _left_out(item, reason, options.policy_unreadable)
        prepared = ahead.result() if ahead else prepare_record(item, options)
        if prepared.record is not None:
            first_path[item.record_id] = item.path
        return prepared

    try:
        for item in items:
            # Whether a second record of an id is needed is known when the first one's turn has come.
            is_first = item.record_id not in submitted
            submitted.add(item.record_id)
            queue.append((item, pool.submit(prepare_record, item, options) if pool and is_first else None))
            while len(queue) > 4 * num_workers:
                yield result(*queue.popleft())
        while queue:
            yield result(*queue.popleft())
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)


def prepare_record(item: RawItem, options: PrepareOptions) -> Prepared:
    """Read one record and bring it into the form of the store, as the policies say.

    Raises:
        DataError: something is wrong for which the policy is ``error``.
    """
    try:
        record = item.read()
    except DataError as error:
        return _left_out(item, str(error), options.policy_unreadable)
    findings = [Finding(item.record_id, str(item.path), note, "kept as it is") for note in record.notes]
    flags: list[str] = []

    def repair(leads: Iterable[str], what: str, policy: Policy) -> Prepared | None:
        """Note a kind of bad lead; the result when it makes the record unusable."""
        names = list(leads)
        if not names:
            return None
        reason = f"{what} lead {','.join(names)}"
        if policy is not Policy.ZERO:
            return _left_out(item, reason, policy)
        flags.extend(f"{what}:{name}" for name in names)
        findings.append(Finding(item.record_id, str(item.path), reason, "set to zero"))
        return None

    try:
        arranged = arrange_leads(record.signal, record.leads, options.leads)
    except DataError as error:
        return _left_out(item, str(error), options.policy_unreadable)
    signal = arranged.signal
    if not arranged.present:
        reason = f"has none of the leads {','.join(options.leads)}, only {','.join(record.leads)}"
        return _left_out(item, reason, options.policy_unreadable)
    if refused := repair(arranged.missing, "missing", options.policy_missing):
        return refused
    broken = nan_rows(signal)
    if refused := repair(_names(options.leads, broken), "nan", options.policy_nan):
        return refused
    if broken.any():
        signal = np.where(np.isfinite(signal), signal, np.float32(0))
    flat = flat_rows(signal)
    present_and_flat = [lead for lead in _names(options.leads, flat) if lead in arranged.present]
    if refused := repair(present_and_flat, "flat", options.policy_flat):
        return refused
    if len(present_and_flat) == len(arranged.present):
        return _left_out(item, "every lead is constant", options.policy_unreadable)
    if flat.any():
        signal = np.where(flat[:, None], np.float32(0), signal)
    if record.sampling_rate != options.sampling_rate:
        try:
            signal = resample(signal, record.sampling_rate, options.sampling_rate, options.resample)
        except DataError as error:
            return _left_out(item, str(error), options.policy_unreadable)
        flags.append(f"resampled:{record.sampling_rate}")
    flags.extend(f"derived:{lead}" for lead in arranged.derived)
    stored = replace(record, signal=signal, leads=options.leads, sampling_rate=options.sampling_rate)
    return Prepared(stored, arranged.present, tuple(flags), tuple(findings))


def _names(leads: tuple[str, ...], chosen: np.typing.NDArray[np.bool_]) -> list[str]:
    return [lead for lead, is_chosen in zip(leads, chosen, strict=True) if is_chosen]


def _left_out(item: RawItem, reason: str, policy: Policy) -> Prepared:
    if policy is Policy.ERROR:
        raise DataError(f"record {item.record_id} ({item.path}): {reason}")
    return Prepared(None, (), (), (Finding(item.record_id, str(item.path), reason, LEFT_OUT),))


def _stored(result: Prepared, writer: StoreWriter, options: PrepareOptions) -> Prepared:
    """Add a prepared record to the store; what the store refuses counts as unreadable."""
    record = result.record
    if record is None:
        return result
    try:
        writer.add(record, leads_present=result.leads_present, flags=result.flags)
    except DataError as error:
        if options.policy_unreadable is Policy.ERROR:
            raise
        return Prepared(None, (), (), (Finding(record.record_id, "", str(error), LEFT_OUT),))
    return result


def _count(result: Prepared, report: Report) -> None:
    report.findings.extend(result.findings)
    record = result.record
    if record is None:
        report.rejected[_kind(result.findings[-1].reason)] += 1
        return
    report.num_records += 1
    report.hours += record.num_samples / record.sampling_rate / 3600
    report.sources[record.source or "unknown"] += 1
    report.noted += bool(record.notes)
    kinds = {flag.partition(":")[0] for flag in result.flags}
    report.repaired.update(_REPAIRS[kind] for kind in kinds if kind in _REPAIRS)


def _kind(reason: str) -> str:
    return next((kind for words, kind in _REASONS.items() if words in reason), "unusable")


def _write_findings(path: Path, findings: Iterable[Finding]) -> None:
    """Write ``rejected.tsv`` whole or not at all; tabs and line ends in a reason become spaces."""
    lines = ["\t".join(REJECTED_COLUMNS)]
    lines += ["\t".join(" ".join(cell.split()) for cell in finding) for finding in findings]
    temporary = path.with_name(f".{path.name}")
    try:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
