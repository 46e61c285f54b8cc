"""Label arrays beside manifests: ``y.npy``, ``label_def.csv`` and ``pos_weight.txt``, as the ECG-FM flow has
them, but with NaN where a record is not labelled."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.labels import COLUMNS, LabelDefinition
from fairseq_ecg.data.manifest import Manifest, write_text
from fairseq_ecg.data.store_records import StoreRecords
from fairseq_ecg.errors import DataError


@dataclass(frozen=True)
class LabelCounts:
    """Counts over records of one split.

    Shape:
        positive, labelled: (K,) int64.
    """

    positive: NDArray[np.int64]
    labelled: NDArray[np.int64]
    num_records: int
    num_unlabelled: int
    """Records no class of which is known."""

    @classmethod
    def of(cls, y: NDArray[np.float32]) -> LabelCounts:
        unknown = np.isnan(y)
        return cls(
            np.nansum(y, axis=0).astype(np.int64),
            (~unknown).sum(axis=0),
            len(y),
            int(unknown.all(axis=1).sum()),
        )

    def pos_weight(self) -> NDArray[np.float64]:
        """(K,) (1 - q) / q with q the share of positives; NaN for a class without positive record."""
        negative = (self.labelled - self.positive).astype(np.float64)
        return np.where(self.positive > 0, negative / np.maximum(self.positive, 1), np.nan)


def label_matrix(records: StoreRecords, labels: LabelDefinition) -> NDArray[np.float32]:
    """(largest idx + 1, K) float32, one row per ``idx``; NaN where a record is not labelled or there is
    none."""
    texts = records.texts("labels")
    different = sorted(set(texts))
    target = labels.target([tuple(text.split("|")) if text else () for text in different])
    place = {text: row for row, text in enumerate(different)}
    y = np.full((int(records.idx.max()) + 1, len(labels)), np.nan, dtype=np.float32)
    y[records.idx] = target[[place[text] for text in texts]]
    return y


def idx_from_manifests(
    records: StoreRecords, manifests: Mapping[str, Manifest]
) -> dict[str, NDArray[np.int64]]:
    """Give the records the ``idx`` they have in manifests, and say which idx each manifest holds.

    Records that no manifest names get numbers of their own behind the others.

    Raises:
        DataError: a manifest names single files, a store that is not given, a record the store does not have,
            or two manifests number one record differently.
    """
    place = {store.path.resolve(): number for number, store in enumerate(records.stores)}
    offset = np.cumsum([0, *(store.num_records for store in records.stores)])
    idx = np.full(len(records), -1, dtype=np.int64)
    members: dict[str, NDArray[np.int64]] = {}
    for name, manifest in manifests.items():
        if manifest.files is not None:
            raise DataError(f"{manifest.path} names single files; labels are read from prepared stores")
        numbers = []
        for folder in manifest.store_dirs():
            if folder.resolve() not in place:
                raise DataError(f"{manifest.path} names the store {folder}, which is not among those given")
            numbers.append(place[folder.resolve()])
        _, first = np.unique(manifest.record, return_index=True)
        codes = np.zeros(manifest.num_rows, np.int32) if manifest.stores is None else manifest.stores.codes
        hashes = manifest.record_ids.hashes[manifest.record_ids.codes]
        for code, number in enumerate(numbers):
            rows = first[codes[first] == code]
            found = records.stores[number].rows_of(hashes[rows])
            if (found < 0).any():
                row = int(rows[np.flatnonzero(found < 0)[0]])
                raise DataError(
                    f"{manifest.path}, line {manifest.line(row)}: record {manifest.record_ids[row]!r} is not "
                    f"in {records.stores[number].path}; make the manifest again"
                )
            at = found + offset[number]
            known = idx[at]
            if ((known >= 0) & (known != manifest.idx[rows])).any():
                raise DataError(f"{manifest.path} numbers records differently from the other manifests")
            idx[at] = manifest.idx[rows]
        members[name] = np.unique(manifest.idx)
    rest = np.flatnonzero(idx < 0)
    idx[rest] = idx.max(initial=-1) + 1 + np.arange(len(rest))
    if len(np.unique(idx)) < len(idx):
        raise DataError("the manifests give one idx to several records; make them again")
    records.idx = idx
    return members


def write_y(folder: Path, y: NDArray[np.float32]) -> None:
    """Write ``y.npy`` whole or not at all."""
    handle, name = tempfile.mkstemp(prefix=".y.npy.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, y, allow_pickle=False)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, folder / "y.npy")
    except BaseException:
        os.unlink(name)
        raise


def write_label_files(
    folder: Path, y: NDArray[np.float32], labels: LabelDefinition, members: Mapping[str, NDArray[np.int64]]
) -> dict[str, LabelCounts]:
    """Write ``y.npy``, ``label_def.csv`` and ``pos_weight.txt``; returns the counts per split and of ``all``.

    ``label_def.csv`` is a definition with counts, percentages and weights per split behind it.
    ``pos_weight.txt`` holds the weights of ``train`` (of all records without it) in the form the command line
    takes them; 1 for a class without positive record, where any number does the same.

    Args:
        folder: an existing folder.
        y: one row per idx.
        labels: the definition of the columns.
        members: split -> its idx; ``all`` is added.
    """
    counts = {name: LabelCounts.of(y[idx]) for name, idx in members.items()}
    counts["all"] = LabelCounts.of(y[np.concatenate(list(members.values()))] if members else y)
    columns = list(COLUMNS)
    cells = [list(row) for row in labels.rows()]
    for name, count in counts.items():
        columns += [f"pos_count_{name}", f"pos_percent_{name}", f"pos_weight_{name}"]
        percent = 100 * count.positive / np.maximum(count.labelled, 1)
        for row, number, share, weight in zip(
            cells, count.positive, percent, count.pos_weight(), strict=True
        ):
            row += [str(number), f"{share:.6f}", "" if np.isnan(weight) else f"{weight:.6f}"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(cells)
    weights = np.nan_to_num(counts.get("train", counts["all"]).pos_weight(), nan=1.0)
    write_y(folder, y)
    write_text(folder / "label_def.csv", text.getvalue())
    write_text(folder / "pos_weight.txt", "[" + ",".join(f"{weight:.6f}" for weight in weights) + "]\n")
    return counts
