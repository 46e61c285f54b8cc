"""WFDB headers and samples: a fast path for format 16, the ``wfdb`` package for every other format.

Format: the PhysioNet documents header(5) and signal(5). Format 16 is little-endian int16 with the samples of
all signals of a file interleaved; the challenge's MATLAB v4 files are format 16 after 24 bytes (``16+24``).
Shapes use L lead (signal), T time.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.errors import DataError

DEFAULT_GAIN = 200.0
"""ADC units per physical unit where the header gives none or 0 (header(5))."""

_LEAST_GAIN = 1e-25
"""Below it samples in mV would not fit float32."""

INVALID = -32768
"""The int16 value that marks a missing sample in format 16."""

_SAMPLE_BYTES = {
    "8": 1,
    "16": 2,
    "24": 3,
    "32": 4,
    "61": 2,
    "80": 1,
    "160": 2,
    "212": 1.5,
    "310": 4 / 3,
    "311": 4 / 3,
}
"""Of the formats that pack samples at a fixed size (signal(5))."""

_STORAGE = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?")
_GAIN = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?:\(([-+]?\d+)\))?(?:/(\S+))?")
_DATE = re.compile(r"(\d{1,2})[/-](?:(\d{1,2})|([A-Za-z]{3}))[/-](\d{4})")
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}


class Storage(NamedTuple):
    """How a signal lies in its file: the second field of its line, ``16x1:0+24``."""

    format: str
    samples_per_frame: int
    skew: int
    byte_offset: int


class Calibration(NamedTuple):
    """From ADC units to physical ones: the fields ``gain(baseline)/unit`` and ADC zero."""

    gain: float
    """ADC units per ``unit``."""
    baseline: int
    """ADC value of 0 physical units: the ADC zero where the gain's text has none."""
    unit: str
    stated: bool
    """False where the gain is the format's default because the header gives none."""


class SignalHeader(NamedTuple):
    """One signal line."""

    file_name: str
    storage: Storage
    calibration: Calibration
    first_value: int | None
    checksum: int | None
    """16-bit sum of the samples, signed or unsigned as written."""
    name: str


class Header(NamedTuple):
    """A record's header file."""

    path: Path
    record_name: str
    segments: tuple[str, ...]
    """Names of the records a multi-segment record is made of, ``~`` for a gap; empty for any other record."""
    sampling_rate: float
    num_samples: int | None
    """None: as many as the files hold."""
    date: str
    """ISO 8601 date, with the time if there is one; empty when the record line has none."""
    signals: tuple[SignalHeader, ...]
    comments: tuple[str, ...]
    """Comment lines without ``#``, stripped."""


# The few distinct texts of these fields recur in every line of a data set: parsed once, they cost a look-up.
@lru_cache(maxsize=4096)
def _parse_storage(text: str) -> Storage:
    match = _STORAGE.fullmatch(text)
    if match is None:
        raise ValueError(f"format {text!r} is not FORMATxSAMPLES:SKEW+OFFSET")
    number, per_frame, skew, offset = match.groups()
    return Storage(number, int(per_frame or 1), int(skew or 0), int(offset or 0))


@lru_cache(maxsize=4096)
def _parse_calibration(text: str, adc_zero: str) -> Calibration:
    match = _GAIN.fullmatch(text)
    if match is None:
        raise ValueError(f"gain {text!r} is not GAIN(BASELINE)/UNIT")
    gain, baseline, unit = match.groups()
    value, zero = float(gain), int(adc_zero if baseline is None else baseline)
    if (value and not _LEAST_GAIN <= abs(value) <= 1 / _LEAST_GAIN) or abs(zero) >= 2**30:
        raise ValueError(f"gain {value:g} with baseline {zero} is out of range")
    return Calibration(value or DEFAULT_GAIN, zero, unit or "mV", value != 0)


def _parse_signal(line: str, path: Path) -> SignalHeader:
    fields = line.split(None, 8)
    if len(fields) < 9:  # only the file name and the format are required
        fields += ["0", "16", "0", "", "", "", ""][len(fields) - 2 :] if len(fields) > 1 else []
    try:
        file_name, storage, gain, _bits, adc_zero, first_value, checksum, _block, name = fields
        return SignalHeader(
            file_name,
            _parse_storage(storage),
            _parse_calibration(gain, adc_zero),
            int(first_value) if first_value else None,
            int(checksum) if checksum else None,
            name,
        )
    except ValueError as error:
        raise DataError(
            f"{path}: signal line {line!r} is not "
            f"'FILE FORMAT GAIN(BASELINE)/UNIT BITS ZERO FIRST SUM BLOCK NAME': {error}"
        ) from None


def _parse_date(fields: list[str]) -> str:
    """Date and time of a record line: WFDB writes time then date, the challenge date then time."""
    date = time = ""
    for field in fields:
        if ":" in field:
            time = field.zfill(8)
        elif match := _DATE.fullmatch(field):
            day, number, name, year = match.groups()
            month = int(number) if number else _MONTHS.get(name.lower(), 0)
            if 1 <= month <= 12 and 1 <= int(day) <= 31:
                date = f"{year}-{month:02}-{int(day):02}"
    return f"{date}T{time}" if date and time else date


def parse_header(text: str, path: Path) -> Header:
    """Parse the text of a ``.hea`` file; ``path`` is where it lies.

    Record names may contain dots (Georgia's original headers), comments and blank lines may stand anywhere.

    Raises:
        DataError: the record line or a signal line cannot be understood, or the number of signals is wrong.
    """
    every = text.splitlines()
    comments = [line[1:].strip() for line in every if line[:1] == "#"]
    lines = [line for line in every if line[:1] != "#" and line and not line.isspace()]
    if not lines:
        raise DataError(f"{path}: no record line: the header is empty; fetch the file again")
    fields = lines[0].split()
    name, _, segments = fields[0].partition("/")
    try:
        num_signals = int(fields[1])
        sampling_rate = float(fields[2].partition("/")[0].partition("(")[0])
        num_samples = int(fields[3]) if len(fields) > 3 else None
        num_segments = int(segments or 0)
    except (IndexError, ValueError):
        raise DataError(f"{path}: record line {lines[0]!r} is not 'NAME SIGNALS RATE SAMPLES ...'") from None
    announced, what = (num_segments, "segments") if num_segments else (num_signals, "signals")
    if len(lines) - 1 != announced:
        raise DataError(
            f"{path}: the record line announces {announced} {what}, {len(lines) - 1} lines follow"
        )
    segment_names = [line.split()[0] for line in lines[1:]] if num_segments else []
    signals = [] if num_segments else [_parse_signal(line, path) for line in lines[1:]]
    for file_name in {*segment_names, *[signal.file_name for signal in signals]}:
        if ("/" in file_name or "\\" in file_name or file_name == "..") and not _is_inside(file_name):
            raise DataError(f"{path}: names the file {file_name!r}, which is not below the header's folder")
        if "\0" in file_name:
            raise DataError(f"{path}: names the file {file_name!r}, which no file can be; fetch it again")
    return Header(
        path,
        name,
        tuple(segment_names),
        sampling_rate,
        num_samples or None,
        _parse_date(fields[4:]) if len(fields) > 4 else "",
        tuple(signals),
        tuple(comments),
    )


def _is_inside(file_name: str) -> bool:
    parts = re.split(r"[/\\]", file_name)
    return parts[0] != "" and ".." not in parts and ":" not in parts[0]


def _read_bytes(path: Path | str) -> bytes:
    """A whole file. Python's file objects cost as much as reading a header does."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        content = os.read(descriptor, size)
        while len(content) < size and (more := os.read(descriptor, size - len(content))):
            content += more
        return content
    finally:
        os.close(descriptor)


def read_header(path: Path | str) -> Header:
    """Read a ``.hea`` file.

    Raises:
        DataError: it is missing or cannot be understood.
    """
    path = path if isinstance(path, Path) else Path(path)
    try:
        content = _read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_header(content.decode("utf-8", errors="replace"), path)


def read_digital(path: Path | str) -> tuple[NDArray[np.int16], Header]:
    """The samples as stored, before gain and baseline, with first values and checksums verified.

    Args:
        path: of the ``.hea`` file.

    Returns:
        (L, T) int16, contiguous, and the header.

    Raises:
        DataError: a file is missing or too short, a checksum or first value differs from the samples, or the
            samples do not fit int16 or need several segments (``read_physical`` reads those).
    """
    header = read_header(path)
    return _digital(header), header


def _digital(header: Header) -> NDArray[np.int16]:
    if header.segments:
        raise DataError(
            f"{header.path}: a record of {len(header.segments)} segments has no one digital scale"
        )
    if not header.signals:
        raise DataError(f"{header.path}: the header names no signals")
    plain = all([signal.storage[:3] == ("16", 1, 0) for signal in header.signals])
    digital = _read_format_16(header) if plain else _read_other(header)
    _verify(digital, header)
    return digital


def read_physical(path: Path | str) -> tuple[NDArray[np.float32], Header]:
    """The samples in the units the header states, float32, with missing samples as NaN.

    Raises:
        DataError: as for ``read_digital``.
    """
    header = read_header(path)
    if header.segments or any([signal.storage.format in ("24", "32") for signal in header.signals]):
        record = _wfdb_record(header, physical=True)
        signals = tuple(
            SignalHeader(
                "", Storage("", 1, 0, 0), Calibration(1.0, 0, unit or "mV", True), None, None, name or ""
            )
            for unit, name in zip(record.units, record.sig_name, strict=True)
        )
        return np.ascontiguousarray(record.p_signal.T, np.float32), header._replace(signals=signals)
    return to_physical(_digital(header), header), header


def to_physical(digital: NDArray[np.int16], header: Header) -> NDArray[np.float32]:
    """(value - baseline) / gain per signal, NaN for the value that marks a missing sample.

    The quotient is rounded once to float32: a 17-bit difference and a gain that float32 holds exactly are
    divided in float32, any other gain in float64.
    """
    gain = np.array([[signal.calibration.gain] for signal in header.signals], np.float64)
    gain32 = gain.astype(np.float32)
    values: NDArray[np.int16] | NDArray[np.int32] = digital
    if any([signal.calibration.baseline for signal in header.signals]):
        values = digital - np.array([[signal.calibration.baseline] for signal in header.signals], np.int32)
    if (gain == gain32).all():
        physical = values.astype(np.float32)
        physical /= gain32
    else:
        physical = (values / gain).astype(np.float32)
    if digital.size and digital.min() == INVALID:
        physical[digital == INVALID] = np.nan
    return physical


def to_physical_float64(
    digital: NDArray[np.int16], header: Header, *, reference_baseline: bool = False
) -> NDArray[np.float64]:
    """As ``to_physical``, not rounded to float32: for comparisons with systems that compute in float64.

    Args:
        digital: (L, T).
        header: names gain and baseline of every signal.
        reference_baseline: leave the baseline in, as fairseq-signals' preparation does.
    """
    gain = np.array([[signal.calibration.gain] for signal in header.signals], np.float64)
    baseline = np.array([[signal.calibration.baseline] for signal in header.signals], np.float64)
    physical = (digital.astype(np.float64) - (0 if reference_baseline else baseline)) / gain
    physical[digital == INVALID] = np.nan
    return physical


def _read_format_16(header: Header) -> NDArray[np.int16]:
    """All files of a record whose signals are in format 16, one sample per frame, no skew."""
    rows_of_file: dict[str, list[int]] = {}
    for row, signal in enumerate(header.signals):
        rows_of_file.setdefault(signal.file_name, []).append(row)
    blocks = []
    for name, rows in rows_of_file.items():
        offset = header.signals[rows[0]].storage.byte_offset
        blocks.append((rows, _read_file_16(header, name, len(rows), offset)))
    if len(blocks) == 1:
        return np.ascontiguousarray(blocks[0][1].T)
    lengths = {len(block) for _, block in blocks}
    if len(lengths) > 1:
        raise DataError(
            f"{header.path}: its signal files hold different numbers of samples: {sorted(lengths)}"
        )
    digital = np.empty((len(header.signals), lengths.pop()), np.int16)
    for rows, block in blocks:
        digital[rows] = block.T
    return digital


def _read_file_16(header: Header, name: str, num_signals: int, offset: int) -> NDArray[np.int16]:
    """(T, L) samples of one file, a view of its bytes."""
    path = os.path.join(os.path.dirname(header.path), name)
    try:
        content = _read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: named by {header.path.name}, cannot be read: {error.strerror}") from None
    frame_size = 2 * num_signals
    num_frames = (len(content) - offset) // frame_size
    num_samples = num_frames if header.num_samples is None else header.num_samples
    if num_frames < num_samples or num_samples < 1:
        raise DataError(
            f"{path}: truncated: {len(content)} bytes hold {max(num_frames, 0)} samples of {num_signals} "
            f"leads, the header says {num_samples}; fetch the file again"
        )
    samples = np.frombuffer(content, np.dtype("<i2"), num_samples * num_signals, offset)
    return samples.reshape(num_samples, num_signals)


def _read_other(header: Header) -> NDArray[np.int16]:
    """Formats this module has no own reader for, by the wfdb package."""
    record = _wfdb_record(header, physical=False)
    samples = record.d_signal
    if samples.min() < INVALID or samples.max() > 32767:
        raise DataError(f"{header.path}: digital samples exceed int16; read it in physical units")
    return np.ascontiguousarray(samples.T.astype(np.int16))


def _wfdb_record(header: Header, *, physical: bool):  # type: ignore[no-untyped-def]  # wfdb has no types
    import wfdb

    _check_sizes(header)
    try:
        return wfdb.rdrecord(str(header.path.with_suffix("")), physical=physical)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: named by {header.path.name}, does not exist") from None
    except Exception as error:
        # wfdb raises whatever its parsing ran into; each means that the files do not hold what the header
        # says.
        reason = " ".join(str(error).split())
        raise DataError(f"{header.path}: wfdb cannot read it: {type(error).__name__}: {reason}") from error


def _check_sizes(header: Header) -> None:
    """Refuse files that are shorter than their header says: wfdb repeats samples instead of saying so.

    Compressed formats have no size to compare with; their decoder notices.
    """
    for name in header.segments:
        if name != "~":
            segment = read_header(header.path.parent / f"{name}.hea")
            if segment.segments:
                raise DataError(f"{header.path}: its segment {name} has segments itself, which WFDB has not")
            _check_sizes(segment)
    needed: dict[str, float] = {}
    for signal in header.signals:
        size = _SAMPLE_BYTES.get(signal.storage.format)
        if size is not None and header.num_samples is not None:
            size *= header.num_samples * signal.storage.samples_per_frame
            needed[signal.file_name] = needed.get(signal.file_name, signal.storage.byte_offset) + size
    for name, size in needed.items():
        path = header.path.parent / name
        try:
            found = path.stat().st_size
        except OSError as error:
            raise DataError(
                f"{path}: named by {header.path.name}, cannot be read: {error.strerror}"
            ) from None
        if found < int(size):
            raise DataError(
                f"{path}: truncated: {found} bytes where the header's {header.num_samples} samples need "
                f"{int(size)}; fetch the file again"
            )


def _verify(digital: NDArray[np.int16], header: Header) -> None:
    """Compare first values and 16-bit sums with the header's, where it states them.

    A header whose checksums are all 0 states none: its writer did not compute them.

    Raises:
        DataError: naming the first signal that differs.
    """
    sums = np.add.reduce(digital, axis=1, dtype=np.int16).tolist()
    firsts = digital[:, 0].tolist()
    has_sums = len(header.signals) == 1 or any([signal.checksum for signal in header.signals])
    for (_, storage, _, first_value, checksum, name), total, first in zip(
        header.signals, sums, firsts, strict=True
    ):
        if storage.samples_per_frame != 1 or storage.skew:
            continue  # resampled or shifted by wfdb: no longer the samples that were summed
        # Compared modulo 65536: FLAC headers write the checksum unsigned.
        if has_sums and checksum is not None and (total - checksum) & 0xFFFF:
            raise DataError(
                f"{header.path}: lead {name}: the samples sum to {total}, the header's checksum is "
                f"{checksum}: the signal file is corrupt; fetch it again"
            )
        if first_value is not None and first_value != first:
            raise DataError(
                f"{header.path}: lead {name}: the first sample is {first}, the header says {first_value}: "
                "the signal file is corrupt; fetch it again"
            )
