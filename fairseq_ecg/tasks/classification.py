"""Multi-label classification of segments: diagnosis."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fairseq_ecg.contracts import Keys
from fairseq_ecg.errors import ConfigError, DataError
from fairseq_ecg.registry import register_task
from fairseq_ecg.tasks.base import EcgTask, EcgTaskConfig

FIRST = Keys(epoch=1, index=np.zeros(1, dtype=np.int64), view=np.zeros(1, dtype=np.int64))
"""The key of a manifest's first segment."""


@dataclass(kw_only=True)
class ClassificationConfig(EcgTaskConfig):
    label_file: str | None = None
    """Label matrix (.npy), row = idx, NaN = unlabelled; None: y.npy beside the manifests. The names of its
    columns are read from label_def.csv beside it."""


@register_task("ecg_classification", config=ClassificationConfig)
class ClassificationTask(EcgTask):
    """Classify segments by a label matrix or by the labels inside fairseq-signals' .mat files."""

    cfg: ClassificationConfig

    def labels(self) -> NDArray[np.float32] | None:
        """One row per idx; None: the labels are in the segment files."""
        path = self.label_path
        if path is None:
            return None
        if not path.is_file():
            raise DataError(
                f"task.label_file={path} does not exist; fairseq-ecg manifest split --labels writes one"
            )
        try:
            table = np.load(path, allow_pickle=False)
        except ValueError as error:
            raise DataError(f"task.label_file={path} cannot be read: {error}") from error
        if table.ndim != 2:
            raise DataError(f"task.label_file={path} has shape {table.shape}; needed is (idx, label)")
        labels: NDArray[np.float32] = table.astype(np.float32)
        return labels

    @property
    def label_path(self) -> Path | None:
        if self.cfg.label_file is not None:
            return Path(self.cfg.label_file)
        beside = self.data_dir / "y.npy"
        return beside if beside.is_file() else None

    @property
    def label_names(self) -> list[str]:
        """From label_def.csv beside the label matrix; empty when there is none."""
        path = self.label_path
        definition = path.with_name("label_def.csv") if path is not None else None
        if definition is None or not definition.is_file():
            return []
        with definition.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if rows and "name" not in rows[0]:
            raise DataError(f"{definition} has no column 'name' (columns: {', '.join(rows[0])})")
        return [row["name"] for row in rows]

    @property
    def num_labels(self) -> int | None:
        """Width of the label matrix, or of the labels inside the first segment file; None without labels."""
        target = self.datasets[self.dataset_cfg.train_subset].gather(FIRST).target
        return None if target is None or target.ndim != 2 else target.shape[1]

    def validate_model(self, model: nn.Module) -> None:
        """Refuse a head of another width than the labels.

        Raises:
            ConfigError: with the option that repairs it.
        """
        width = self.num_labels
        outputs = getattr(getattr(model, "cfg", None), "num_labels", None)
        if width is None:
            raise ConfigError(
                f"task.data={self.data_dir} has no labels: give task.label_file, or make the manifests with "
                "fairseq-ecg manifest split ... --labels cinc2021"
            )
        if outputs is not None and outputs != width:
            raise ConfigError(
                f"model.num_labels={outputs}, but {self.label_path or 'the segments'} has {width} labels; "
                f"set model.num_labels={width}"
            )
        names = self.label_names
        if names and len(names) != width:
            raise DataError(
                f"{self.data_dir}: label_def.csv names {len(names)} labels, the label matrix has {width}; "
                "make both anew with fairseq-ecg manifest split --labels"
            )
