"""fairseq-signals' manifests and .mat segments, read as they are.

A manifest has no column names. Line 1 is the root folder; then either ``relative/path.mat<TAB>num_samples``
(plain), or the same with a class as third column (identification), or, when line 2 is a file extension,
``relative/stem<TAB>num_samples<TAB>lead<TAB>i,j`` (pairs: the files are ``stem_i.ext`` and ``stem_j.ext``).
A .mat file holds ``feats`` (lead, time) in mV and ``curr_sample_rate``; ``idx``, ``patient_id`` and ``label``
where its maker knew them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.table import TextColumn
from fairseq_ecg.errors import DataError


@dataclass(frozen=True)
class _Row:
    file: str
    num_samples: int
    record: str
    segment: int
    label: int = 0


def read_legacy_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest of fairseq-signals as the fields of a ``Manifest``.

    Raises:
        DataError: a line that fits none of the three forms.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}; it is damaged or no manifest") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    root = path.parent / (lines[0].strip() if lines else "")
    is_paired = len(lines) > 1 and "\t" not in lines[1].strip() and lines[1].strip() != ""
    rows: list[_Row] = []
    pairs: list[tuple[int, int]] = []
    has_label = False
    for number, line in enumerate(lines[2 if is_paired else 1 :], start=3 if is_paired else 2):
        if not line.strip():
            continue
        fields = line.split("\t")
        try:
            if is_paired:
                stem, num_samples, _, members = fields
                indices = [_number(text) for text in members.split(",")]
                first = len(rows)
                rows += [
                    _Row(f"{stem}_{i}.{lines[1].strip().lstrip('.')}", _number(num_samples), stem, i)
                    for i in indices
                ]
                # An odd number of segments leaves the last one without a partner.
                pairs += [(first + k, first + k + 1) for k in range(0, len(indices) - 1, 2)]
            else:
                has_label = has_label or len(fields) > 2
                label = _number(fields[2]) if has_label else 0
                rows.append(_Row(fields[0], _number(fields[1]), *_record_and_segment(fields[0]), label))
        except (ValueError, IndexError):
            wanted = "stem, num_samples, lead, i,j" if is_paired else "path, num_samples"
            raise DataError(
                f"{path}, line {number}: {line[:80]!r}; a row of a fairseq-signals manifest is {wanted}, "
                "separated by tabs (a manifest of this package starts with '#root')"
            ) from None
    records = TextColumn.of([row.record for row in rows])
    return dict(
        path=path,
        root=root,
        idx=np.arange(len(rows), dtype=np.int64),
        segment=np.array([row.segment for row in rows], dtype=np.int64),
        start=np.zeros(len(rows), dtype=np.int64),
        num_samples=np.array([row.num_samples for row in rows], dtype=np.int64),
        record=records.codes.astype(np.int64),
        patient=records.codes.astype(np.int64),
        record_ids=records,
        patient_ids=records,
        sources=TextColumn.of([str(PurePosixPath(row.file).parent) for row in rows]),
        files=TextColumn.of([row.file for row in rows]),
        is_legacy=True,
        pairs=np.array(pairs, dtype=np.int64).reshape(-1, 2) if is_paired else None,
        label=np.array([row.label for row in rows], dtype=np.int64) if has_label else None,
    )


def _number(text: str) -> int:
    """A whole number that an array can hold.

    Raises:
        ValueError: it is none.
    """
    value = int(text)
    if not 0 <= value < 2**53:
        raise ValueError(f"{value} is out of range")
    return value


def _record_and_segment(file: str) -> tuple[str, int]:
    """``a/record_3.mat`` -> (``a/record``, 3); a name without a number is a record of one segment."""
    stem = file.rsplit(".", 1)[0]
    record, mark, number = stem.rpartition("_")
    is_number = number.isascii() and number.isdigit() and len(number) < 10
    return (record, int(number)) if mark and is_number else (stem, 0)


@dataclass(frozen=True)
class MatSegment:
    """One .mat segment.

    Shape:
        signal: (lead, time), float32, mV.
        label: (K,) float32, or None.
    """

    signal: NDArray[np.float32]
    sampling_rate: int | None
    idx: int | None
    patient: int | None
    """``idx`` where there is one, else ``patient_id``: what fairseq-signals calls the patient."""
    label: NDArray[np.float32] | None


def read_mat_segment(path: Path) -> MatSegment:
    """Read one .mat segment.

    Raises:
        DataError: a missing, truncated or foreign file, values that are not finite.
    """
    import scipy.io

    if not path.is_file():
        raise DataError(f"{path} is missing; the manifest names it")
    try:
        content = scipy.io.loadmat(path)
    except Exception as error:  # scipy raises a dozen kinds for damaged files
        raise DataError(f"{path} cannot be read as a .mat file ({error}); it may be truncated") from error
    if "feats" not in content or content["feats"].ndim != 2:
        raise DataError(f"{path} holds no (lead, time) array 'feats'; it has {sorted(content)[3:]}")
    signal = np.ascontiguousarray(content["feats"], dtype=np.float32)
    if not np.isfinite(signal).all():
        raise DataError(f"{path} holds values that are not finite")
    idx, patient = _integer(content, "idx"), _integer(content, "patient_id")
    label = content.get("label")
    return MatSegment(
        signal,
        _integer(content, "curr_sample_rate"),
        idx,
        idx if idx is not None else patient,
        None if label is None else np.asarray(label, dtype=np.float32).reshape(-1),
    )


def _integer(content: dict[str, Any], name: str) -> int | None:
    value = content.get(name)
    if value is None or np.size(value) != 1:
        return None
    try:
        return int(np.asarray(value).reshape(()))
    except ValueError:
        return None  # newer files hold texts as patient_id


def leads_of(signal: NDArray[np.float32], path: Path) -> tuple[str, ...]:
    """Names of the leads of a .mat segment, which holds the twelve in standard order.

    Raises:
        DataError: another number of leads.
    """
    if len(signal) != len(STANDARD_LEADS):
        raise DataError(
            f"{path} has {len(signal)} leads; .mat segments hold the twelve of {', '.join(STANDARD_LEADS)}"
        )
    return STANDARD_LEADS
