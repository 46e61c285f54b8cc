"""The labelled records of an evaluation: three splits of a manifest folder with their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.labels import LabelDefinition, label_definition, read_label_array
from fairseq_ecg.errors import DataError
from fairseq_ecg.infer.inputs import FileOptions, RecordInput, find_inputs

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Records and what is known of them.

    Shape:
        target: (N, K), float32, 0 or 1, NaN for unlabelled.
        patients: (N,), texts that are equal for records of one patient; patients belong to one source.
    """

    inputs: tuple[RecordInput, ...]
    target: NDArray[np.float32]
    patients: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def num_patients(self) -> int:
        return len(set(self.patients.tolist()))


@dataclass(frozen=True, eq=False)
class EvaluationData:
    """Three splits with targets of one label definition."""

    manifest_dir: Path
    labels: LabelDefinition
    splits: dict[str, Split]

    @property
    def sources(self) -> list[str]:
        """Data sources of all splits, sorted."""
        return sorted({item.source for split in self.splits.values() for item in split.inputs})

    @property
    def is_synthetic(self) -> bool:
        return "synthetic" in self.sources

    def shared_patients(self) -> int:
        """Test patients that also are in the train or valid split."""
        seen = {patient for name in ("train", "valid") for patient in self.splits[name].patients.tolist()}
        return len(seen & set(self.splits["test"].patients.tolist()))


def open_data(manifest_dir: Path, labels: str | None) -> EvaluationData:
    """Read ``train.tsv``, ``valid.tsv`` and ``test.tsv`` and the records' targets.

    Args:
        manifest_dir: a folder made by ``fairseq-ecg manifest split``.
        labels: a built-in label definition or a label_def.csv, matched with the codes in the store; None:
            ``y.npy`` and ``label_def.csv`` of the folder.

    Raises:
        DataError: a file is missing, labels do not fit the records, or a split has no labelled record.
    """
    if not manifest_dir.is_dir():
        raise DataError(
            f"{manifest_dir} is not a folder of manifests; make one: "
            f"fairseq-ecg manifest split STORE_DIR {manifest_dir}"
        )
    inputs = {name: find_inputs(manifest_dir / f"{name}.tsv", FileOptions()) for name in SPLITS}
    if labels is None:
        definition, matrix = _prepared_labels(manifest_dir)
        targets = {name: _rows(matrix, items, manifest_dir / "y.npy") for name, items in inputs.items()}
    else:
        definition = label_definition(labels)
        targets = {name: definition.target(_codes(items, labels)) for name, items in inputs.items()}
    splits = {name: _labelled(inputs[name], targets[name]) for name in SPLITS}
    for name, split in splits.items():
        if not len(split):
            raise DataError(f"{manifest_dir / name}.tsv: no record of it has a label")
    return EvaluationData(manifest_dir, definition, splits)


def patient_key(item: RecordInput) -> str:
    """Data sets number their patients independently, so the source is part of who a patient is."""
    return f"{item.source}\t{item.patient_id}"


def _labelled(inputs: Sequence[RecordInput], target: NDArray[np.float32]) -> Split:
    known = np.flatnonzero(~np.isnan(target).all(axis=1))
    kept = tuple(inputs[row] for row in known.tolist())
    return Split(kept, target[known], np.array([patient_key(item) for item in kept], dtype=np.str_))


def _prepared_labels(manifest_dir: Path) -> tuple[LabelDefinition, NDArray[np.float32]]:
    path = manifest_dir / "y.npy"
    if not path.is_file() or not (manifest_dir / "label_def.csv").is_file():
        raise DataError(
            f"{manifest_dir} has no y.npy with its label_def.csv; "
            "give --labels, for example --labels cinc2021"
        )
    matrix = read_label_array(path)
    definition = label_definition(manifest_dir / "label_def.csv")
    if matrix.shape[1] != len(definition):
        raise DataError(
            f"{path} has shape {matrix.shape}, label_def.csv names {len(definition)} labels; "
            "make both again: fairseq-ecg manifest split ... --labels NAME"
        )
    return definition, matrix


def _rows(matrix: NDArray[np.float32], inputs: Sequence[RecordInput], path: Path) -> NDArray[np.float32]:
    rows = np.array([item.idx for item in inputs], dtype=np.int64)
    if rows.max(initial=-1) >= len(matrix) or rows.min(initial=0) < 0:
        raise DataError(
            f"{path} has {len(matrix)} rows but the manifests name row {int(rows.max(initial=-1))}; "
            "make both together: fairseq-ecg manifest split ... --labels NAME"
        )
    return matrix[rows]


def _codes(inputs: Sequence[RecordInput], labels: str) -> list[tuple[str, ...]]:
    codes = [item.codes for item in inputs]
    if any(item is None for item in codes):
        raise DataError(
            f"--labels {labels}: manifests of single files hold no diagnosis codes; put y.npy and "
            "label_def.csv beside them and leave --labels out, or prepare a store"
        )
    return [item for item in codes if item is not None]
