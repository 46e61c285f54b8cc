"""Multi-label classification of segments: diagnosis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fairseq_ecg.contracts import Batch, Keys
from fairseq_ecg.data.labels import LabelDefinition, label_definition, read_label_array
from fairseq_ecg.errors import ConfigError, DataError
from fairseq_ecg.registry import register_task
from fairseq_ecg.tasks.base import EcgTask, EcgTaskConfig


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
        return None if path is None else read_label_array(path)

    @property
    def label_path(self) -> Path | None:
        if self.cfg.label_file is not None:
            return Path(self.cfg.label_file)
        beside = self.data_dir / "y.npy"
        return beside if beside.is_file() else None

    @cached_property
    def definition(self) -> LabelDefinition | None:
        """label_def.csv beside the label matrix; None when there is none."""
        path = self.label_path
        beside = None if path is None else path.with_name("label_def.csv")
        return None if beside is None or not beside.is_file() else label_definition(beside)

    @property
    def label_names(self) -> list[str]:
        """From label_def.csv; empty when there is none."""
        return [] if self.definition is None else list(self.definition.names)

    @property
    def label_codes(self) -> list[frozenset[str]]:
        """Codes of every label; empty sets when no label_def.csv tells them."""
        if self.definition is not None:
            return list(self.definition.codes)
        return [frozenset()] * (self.num_labels or 0)

    @cached_property
    def num_labels(self) -> int | None:
        """Width of the label matrix, or of the labels inside the segment files; None without labels."""
        dataset = next(iter(self.datasets.values()))
        failure: DataError | None = None
        for row in range(len(dataset)):
            index = np.array([row], dtype=np.int64)
            try:
                target = dataset.gather(Keys(epoch=1, index=index, view=np.zeros_like(index))).target
            except DataError as error:
                failure = failure or error  # the policy for bad records decides when the run meets it
                continue
            return None if target is None or target.ndim != 2 else target.shape[1]
        assert failure is not None, "a manifest has rows"
        raise failure

    def prepare(self, batch: Batch, *, is_train: bool) -> Batch:
        """Stored units to float32 mV, as for every task.

        Raises:
            DataError: segment files of the batch were to hold labels, and none of them does.
        """
        if batch.target is None:
            raise DataError(
                f"task.data={self.data_dir}: none of the {len(batch)} segments of a batch has labels; give "
                "task.label_file, or write 'label' into every segment file"
            )
        return super().prepare(batch, is_train=is_train)

    def validate_model(self, model: nn.Module) -> None:
        """Refuse a head of another width than the labels, and to train or select without any.

        Raises:
            ConfigError: with the option that repairs it.
            DataError: labels that do not belong to the manifests.
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
        # Validation alone may be after the outputs of unlabelled segments.
        trains = self.dataset_cfg.train_subset in self.datasets
        for data in self.datasets.values():
            if trains and not data.has_labels:
                raise DataError(
                    f"{data.manifest.path}: none of its {len(data)} segments has a label in "
                    f"{self.label_path}; make both together with fairseq-ecg manifest split --labels"
                )
