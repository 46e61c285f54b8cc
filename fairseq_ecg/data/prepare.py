"""From raw records to a prepared store: resample, order leads, apply a stated policy to what is wrong.

No single record ends a preparation unless a policy says ``error``: what is left out or repaired is counted,
and listed in ``rejected.tsv`` in the store's folder. ``qc.tsv`` and ``qc.html`` beside it describe all
records found. How a run is divided, continued and written is in ``prepare_job``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg import __version__
from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.encode import encode
from fairseq_ecg.data.filters import NONE, FilterChain
from fairseq_ecg.data.prepare_job import LEFT_OUT, Finding, Job, Listing, Outcome, Report, run
from fairseq_ecg.data.qc import Extremes, Quality, amplitude, clipped_rows, heart_rate
from fairseq_ecg.data.qc_page import write_page
from fairseq_ecg.data.record import RawItem, Reader, arrange_leads, known_leads
from fairseq_ecg.data.signal import (
    Resampling,
    Signal,
    crop,
    reference_resampled_length,
    resample,
    resize,
    zero_padding,
)
from fairseq_ecg.data.store_folder import check_replaceable, make_parent
from fairseq_ecg.errors import ConfigError, DataError

_REPAIRS = {"missing": "missing lead", "nan": "nan lead", "flat": "flat lead", "resampled": "resampled"}


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
    same_rate_only: bool = False
    """Leave out records of another rate instead of resampling them, as fairseq-signals does unless asked."""
    filter: str = NONE
    """Filters at the store's rate, e.g. ``highpass(cutoff=0.67)|notch(frequency=50)``; see ``filters``."""
    window_sec: float | None = None
    """Keep the first so many seconds of a record and leave out shorter ones; None: whole records."""
    num_samples: int | None = None
    """Bring every window to exactly so many samples; None: as many as ``sampling_rate`` gives. The rate of
    the store is then nominal, num_samples / window_sec rounded."""
    zero_start_sec: float = 0.0
    """Leave out records that begin with so many seconds of zero in all leads of the store, padded or dead
    recordings; 0 keeps them."""
    reference_rate: int | None = None
    """Resample to this rate (Hz) before the window is cut, and to the store's after it, as ECG-JEPA does; a
    missing sample then spoils its whole lead even when it lies outside the window."""
    reference_zero_start: bool = False
    """Judge ``zero_start_sec`` by all leads of a record, as ECG-JEPA does with CODE-15."""
    reference_stretch: bool = False
    """Squeeze a whole record, whatever time it lasts, into ``num_samples``, as ECG-JEPA does with CODE-15:
    the true rate then differs from the store's."""

    def __post_init__(self) -> None:
        if self.sampling_rate < 1:
            raise ConfigError(f"sampling_rate={self.sampling_rate}: at least 1 Hz")
        object.__setattr__(self, "filter", str(FilterChain.parse(self.filter)))
        self._check_window()
        if self.policy_unreadable is Policy.ZERO:
            raise ConfigError(
                "policy_unreadable=zero: an unreadable record cannot be repaired; error or skip"
            )
        object.__setattr__(self, "leads", known_leads(self.leads))

    def _check_window(self) -> None:
        if self.window_sec is not None and self.window_sec <= 0:
            raise ConfigError(f"window_sec={self.window_sec}: must be more than 0")
        if self.zero_start_sec < 0:
            raise ConfigError(f"zero_start_sec={self.zero_start_sec}: 0 (keep all) or more")
        if self.reference_rate is not None and self.reference_rate < 1:
            raise ConfigError(f"reference_rate={self.reference_rate}: at least 1 Hz")
        if self.reference_rate is not None and self.resample is not Resampling.FOURIER:
            raise ConfigError(f"reference_rate is ECG-JEPA's: it needs resample=fourier, not {self.resample}")
        if self.reference_stretch and (self.window_sec is not None or self.num_samples is None):
            raise ConfigError(
                "reference_stretch needs num_samples, and squeezes whole records: no window_sec"
            )
        if self.num_samples is None:
            return
        if self.num_samples < 1:
            raise ConfigError(f"num_samples={self.num_samples}: at least 1")
        if self.resample in (Resampling.POLYPHASE, Resampling.LINEAR):
            raise ConfigError(
                f"num_samples={self.num_samples} needs resample=endpoints, fourier or spline, "
                f"not {self.resample}"
            )
        if self.reference_stretch:
            return
        if self.window_sec is None:
            raise ConfigError(f"num_samples={self.num_samples} of how much time? set window_sec")
        nominal = round(self.num_samples / self.window_sec)
        if nominal != self.sampling_rate:
            raise ConfigError(
                f"num_samples={self.num_samples} in window_sec={self.window_sec} are {nominal} Hz, "
                f"sampling_rate says {self.sampling_rate}"
            )


class Prepared(NamedTuple):
    """A record ready for the store, or none and why."""

    record: Record | None
    leads_present: tuple[str, ...]
    flags: tuple[str, ...]
    findings: tuple[Finding, ...]
    quality: Quality


@dataclass(frozen=True)
class Part:
    """One of several stores that are merged later: a contiguous range of the records."""

    index: int = 0
    num_parts: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.num_parts:
            raise ConfigError(
                f"shard_index={self.index}, num_shards={self.num_parts}: the index counts from 0 to "
                "num_shards - 1"
            )


Progress = Callable[[int, int, Iterable[Outcome]], Iterable[Outcome]]
"""Records in all, records done before, and the outcomes of the others -> the outcomes."""


def prepare(
    reader: Reader,
    raw_dir: Path,
    store_dir: Path,
    options: PrepareOptions,
    *,
    overwrite: bool = False,
    num_workers: int = 0,
    part: Part | None = None,
    choices: dict[str, object] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Read every record below ``raw_dir`` into a new store.

    An interrupted run, killed ones included, is continued by the same call.

    Args:
        reader: lists the records.
        raw_dir: folder the reader looks in.
        store_dir: folder to make.
        options: processing and policies.
        overwrite: replace the store that is there, and start anew where an interrupted run had other options.
        num_workers: processes that read and resample; the store is the same for any number.
        part: prepare this part only, to be merged with the others.
        choices: more about the origin for ``store.json``.
        progress: wraps the outcomes to show how far the work is.

    Raises:
        ConfigError: ``num_workers`` is negative.
        DataError: nothing to read, the store cannot be written, a policy says ``error``, or no record is
        left.
    """
    if num_workers < 0:
        raise ConfigError(f"num_workers={num_workers}: 0 (none beside the main process) or more")
    part = part or Part()
    check_replaceable(store_dir, overwrite)
    make_parent(store_dir)
    kept = {**(choices or {}), **asdict(options), "leads": list(options.leads)}
    listing = Listing(lambda: reader.records(raw_dir), raw_dir, (part.index, part.num_parts))
    if listing.stop == listing.start:
        raise DataError(
            f"{raw_dir}: {listing.num_found} records found, none of them for part {part.index} of "
            f"{part.num_parts}"
        )
    report = Report(options.sampling_rate, listing.stop - listing.start)
    origin = {"records_found": listing.num_found, "listing": listing.digest, **asdict(part)}
    try:
        with Job(
            store_dir,
            {"choices": kept, "raw records": origin, "version": __version__},
            report,
            overwrite=overwrite,
            sampling_rate=options.sampling_rate,
            leads=options.leads,
            choices=kept,
            first_idx=listing.start,
        ) as job:
            strict = options.policy_unreadable is Policy.ERROR
            done = job.num_items
            outcomes: Iterable[Outcome] = run(
                job, listing, partial(prepare_item, options=options), num_workers=num_workers, strict=strict
            )
            for _ in outcomes if progress is None else progress(report.num_found, done, outcomes):
                pass
            if not report.num_records and part.num_parts == 1:
                job.discard()
                raise DataError(
                    f"{raw_dir}: none of {report.num_found} records can be used, the first because: "
                    f"{report.first_left_out}"
                )
            job.finish(write_page, {"part": origin} if part.num_parts > 1 else None)
    except OSError as error:
        raise DataError(
            f"{store_dir} cannot be written: {error.strerror}; run the same command again to continue"
        ) from error
    return report


def prepare_item(
    item: RawItem, earlier: str, *, options: PrepareOptions
) -> tuple[Outcome, NDArray[np.int16] | None]:
    """Read one record, prepare it and encode it for the store.

    Args:
        item: the record.
        earlier: path of a record of the same id that came first; this one is then left out.
        options: processing and policies.

    Raises:
        DataError: something is wrong for which the policy is ``error``.
    """
    if earlier:
        prepared = _left_out(item, f"duplicate record id: {earlier} came first", options.policy_unreadable)
    else:
        prepared = prepare_record(item, options)
    record = prepared.record
    if record is None:
        return Outcome(None, prepared.quality, prepared.findings), None
    try:
        encoded, values = encode(
            record,
            sampling_rate=options.sampling_rate,
            leads=options.leads,
            leads_present=prepared.leads_present,
            flags=prepared.flags,
        )
    except DataError as error:
        refused = _left_out(item, str(error), options.policy_unreadable, prepared.quality)
        return Outcome(None, refused.quality, (*prepared.findings, *refused.findings)), None
    kinds = {flag.partition(":")[0] for flag in prepared.flags}
    repairs = tuple(sorted(_REPAIRS[kind] for kind in kinds if kind in _REPAIRS))
    outcome = Outcome(
        encoded, prepared.quality, prepared.findings, record.num_samples, repairs, bool(record.notes)
    )
    return outcome, values


def prepare_record(item: RawItem, options: PrepareOptions) -> Prepared:
    """Read one record and bring it into the form of the store, as the policies say.

    Raises:
        DataError: something is wrong for which the policy is ``error``.
    """
    try:
        record = item.read()
        if options.same_rate_only and record.sampling_rate != options.sampling_rate:
            raise DataError(f"another rate: {record.sampling_rate} Hz, not {options.sampling_rate} Hz")
        arranged = arrange_leads(record.signal, record.leads, options.leads)
        signal, rate = _window(arranged.signal, record, options)
    except DataError as error:
        return _left_out(item, str(error), options.policy_unreadable)
    extremes = Extremes.of(signal)
    nan_leads = _names(options.leads, extremes.broken)
    if nan_leads:
        signal = np.where(np.isfinite(signal), signal, np.float32(0))
        extremes = Extremes.of(signal)
    present = [lead in arranged.present for lead in options.leads]
    flat_leads = _names(options.leads, extremes.flat & present)
    quality = Quality(
        item.record_id,
        record.source,
        record.sampling_rate,
        record.num_samples,
        len(options.leads),
        amplitude(extremes, present),
        heart_rate(signal, options.leads, rate),
        tuple(flat_leads),
        tuple(nan_leads),
        tuple(_names(options.leads, clipped_rows(signal, extremes, rate))),
        arranged.missing,
    )
    findings = [Finding(item.record_id, str(item.path), note, "kept as it is") for note in record.notes]
    flags: list[str] = []
    if not arranged.present:
        reason = f"has none of the leads {','.join(options.leads)}, only {','.join(record.leads)}"
        return _left_out(item, reason, options.policy_unreadable, quality)
    for what, leads, policy in (
        ("missing", arranged.missing, options.policy_missing),
        ("nan", nan_leads, options.policy_nan),
        ("flat", flat_leads, options.policy_flat),
    ):
        if not leads:
            continue
        reason = f"{what} lead {','.join(leads)}"
        if policy is not Policy.ZERO:
            return _left_out(item, reason, policy, quality)
        flags.extend(f"{what}:{lead}" for lead in leads)
        findings.append(Finding(item.record_id, str(item.path), reason, "set to zero"))
    if len(flat_leads) == len(arranged.present):
        return _left_out(item, "every lead is constant", options.policy_unreadable, quality)
    if flat_leads:
        signal = np.where(extremes.flat[:, None], np.float32(0), signal)
    try:
        signal, was_resampled = _at_rate(signal, rate, options)
        signal = FilterChain.parse(options.filter).apply(signal, options.sampling_rate)
    except DataError as error:
        return _left_out(item, str(error), options.policy_unreadable, quality)
    if was_resampled or rate != record.sampling_rate:
        flags.append(f"resampled:{record.sampling_rate}")
    flags.extend(f"derived:{lead}" for lead in arranged.derived)
    stored = replace(record, signal=signal, leads=options.leads, sampling_rate=options.sampling_rate)
    return Prepared(stored, arranged.present, tuple(flags), tuple(findings), quality)


def _window(signal: Signal, record: Record, options: PrepareOptions) -> tuple[Signal, int]:
    """The part of a record that is kept, and its rate.

    Raises:
        DataError: the record is too short or begins with zeros.
    """
    rate = record.sampling_rate
    if options.reference_rate is not None and options.reference_rate != rate:
        length = reference_resampled_length(signal.shape[1], rate, options.reference_rate)
        signal = resize(signal, length, options.resample).astype(np.float32)
        rate = options.reference_rate
    if options.window_sec is not None:
        length = round(options.window_sec * rate)
        if signal.shape[1] < length:
            raise DataError(f"too short: {signal.shape[1] / rate:g} s, {options.window_sec:g} s are needed")
        signal = crop(signal, 0, length)
    if options.zero_start_sec:
        leading, _ = zero_padding(record.signal if options.reference_zero_start else signal)
        if leading >= round(options.zero_start_sec * rate):
            raise DataError(f"begins with {leading} samples of zero in all leads")
    return signal, rate


def _at_rate(signal: Signal, rate: int, options: PrepareOptions) -> tuple[Signal, bool]:
    """A window as long as the store's rate or ``num_samples`` makes it, and whether that changed it.

    Raises:
        DataError: too short to leave a single sample.
    """
    if options.num_samples is None:
        if rate == options.sampling_rate:
            return signal, False
        return resample(signal, rate, options.sampling_rate, options.resample), True
    if signal.shape[1] == options.num_samples:
        return signal, False
    return resize(signal, options.num_samples, options.resample).astype(np.float32), True


def _names(leads: tuple[str, ...], chosen: NDArray[np.bool_]) -> list[str]:
    return [lead for lead, is_chosen in zip(leads, chosen.tolist(), strict=True) if is_chosen]


def _left_out(item: RawItem, reason: str, policy: Policy, quality: Quality | None = None) -> Prepared:
    if policy is Policy.ERROR:
        raise DataError(f"record {item.record_id} ({item.path}): {reason}")
    quality = (quality or Quality(item.record_id))._replace(reason=reason)
    return Prepared(None, (), (), (Finding(item.record_id, str(item.path), reason, LEFT_OUT),), quality)
