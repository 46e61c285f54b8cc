"""fairseq-signals' manifests, plain and of pairs, from its own plain manifests or from this package's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.manifest import Manifest, write_text
from fairseq_ecg.data.segments import StoreSegments
from fairseq_ecg.errors import DataError

KINDS = ("cmsc", "cmlc", "cmsmlc")
"""Pairs of consecutive segments (cmsc, cmsmlc: the same rows), or one row per segment (cmlc)."""


@dataclass
class PairReport:
    """What ``write_pairs`` made of one manifest."""

    path: Path
    num_records: int
    num_pairs: int
    """Rows written: pairs, or single segments."""
    num_left_over: int
    """Segments without a partner."""
    num_files: int = 0
    """.mat segments written."""


def write_pairs(
    manifest: Manifest, out_dir: Path, *, kind: str = "cmsc", segment_dir: Path, overwrite: bool = False
) -> PairReport:
    """Write one manifest as ``stem, num_samples, lead, i,j`` rows: consecutive segments of a record.

    With ``cmlc`` every row names one segment, of records that have two or more.

    A fairseq-signals manifest keeps its .mat segments where they are. A manifest of this package gets them
    written below ``segment_dir``, since fairseq-signals reads nothing else.

    Raises:
        DataError: an existing manifest without ``overwrite``, no record with two segments.
    """
    path = out_dir / manifest.path.name
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists; choose another folder, or replace it with --overwrite")
    if manifest.pairs is not None:
        raise DataError(f"{manifest.path} names pairs already; give the plain manifest")
    if manifest.files is not None and not manifest.is_legacy:
        raise DataError(
            f"{manifest.path} names single files; pairs are made of prepared stores or .mat files"
        )
    members = list(_singles(manifest) if kind == "cmlc" else _pairs(manifest))
    if not members:
        raise DataError(
            f"{manifest.path}: no record has two segments; make it with shorter segments "
            "(fairseq-ecg manifest split ... --segment-sec)"
        )
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out_dir} cannot be made: {error.strerror}; choose another folder") from error
    if manifest.is_legacy:
        root, extension, num_files = manifest.root.resolve(), _extension(manifest), 0
        stems = dict(enumerate(manifest.record_ids.values()))
    else:
        root, extension = segment_dir.resolve(), "mat"
        stems = segment_stems(manifest)
        num_files = write_segments(manifest, np.unique(np.array(members)), stems, root)
    lines = [str(root), extension]
    for rows in members:
        indices = ",".join(str(manifest.segment[row]) for row in rows)
        lines.append(f"{stems[manifest.record[rows[0]]]}\t{manifest.num_samples[rows[0]]}\t0\t{indices}")
    write_text(path, "\n".join(lines) + "\n")
    num_records = len({int(manifest.record[rows[0]]) for rows in members})
    left_over = manifest.num_rows - sum(map(len, members))
    return PairReport(path, num_records, len(members), left_over, num_files)


def write_plain(path: Path, root: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write ``relative/path.mat<TAB>num_samples[<TAB>label]`` rows below the root's line."""
    write_text(path, "\n".join([str(root), *("\t".join(map(str, row)) for row in rows)]) + "\n")


def _singles(manifest: Manifest) -> Iterable[tuple[int]]:
    """Rows of every segment of the records that have two or more."""
    count = np.bincount(manifest.record)
    for row in np.lexsort((manifest.segment, manifest.record)).tolist():
        if count[manifest.record[row]] > 1:
            yield (row,)


def _pairs(manifest: Manifest) -> Iterable[tuple[int, int]]:
    """Rows of the first and second, third and fourth, ... segment of every record."""
    order = np.lexsort((manifest.segment, manifest.record))
    record = manifest.record[order].tolist()
    place = 0
    while place + 1 < len(order):
        if record[place] == record[place + 1]:
            yield int(order[place]), int(order[place + 1])
            place += 2
        else:
            place += 1


def _extension(manifest: Manifest) -> str:
    assert manifest.files is not None
    found = {PurePosixPath(name).suffix for name in manifest.files.values()}
    if len(found) != 1:
        raise DataError(f"{manifest.path} names files of several kinds {sorted(found)}; pairs need one")
    return found.pop().lstrip(".")


def segment_stems(manifest: Manifest) -> dict[int, str]:
    """A file name per record, unique though sources may repeat record_ids."""
    stems: dict[int, str] = {}
    for row in range(manifest.num_rows):
        code = int(manifest.record[row])
        if code not in stems:
            name = f"{manifest.sources[row]}_{manifest.record_ids[row]}".lstrip("_")
            stems[code] = "".join(mark if mark.isalnum() or mark in "-_." else "-" for mark in name)
    seen: dict[str, int] = {}
    for code, stem in stems.items():
        if stem in seen:
            stems[code] = f"{stem}-{code}"
        seen[stem] = code
    return stems


def write_segments(manifest: Manifest, rows: NDArray[np.int64], stems: dict[int, str], folder: Path) -> int:
    """Write the rows' segments as .mat files; one that is there already is written again."""
    from scipy.io import savemat

    segments = StoreSegments(manifest, STANDARD_LEADS, None)
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows.tolist():
        name = f"{stems[int(manifest.record[row])]}_{manifest.segment[row]}.mat"
        temporary = folder / f".{name}"
        signal = segments.witness(row)
        content = {
            "feats": signal.astype(np.float64),
            "curr_sample_rate": segments.sampling_rate,
            "curr_sample_size": signal.shape[1],
            "idx": int(manifest.idx[row]),
            "patient_id": int(manifest.patient[row]),
            "segment_i": int(manifest.segment[row]),
        }
        savemat(temporary, content, appendmat=False)
        os.replace(temporary, folder / name)
    return len(rows)
