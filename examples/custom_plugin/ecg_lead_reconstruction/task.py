"""A task knows the data. This one trains on chosen sources of a manifest that mixes several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.errors import DataError
from fairseq_ecg.registry import register_task
from fairseq_ecg.tasks.base import EcgTask, EcgTaskConfig


@dataclass(kw_only=True)
class SourcePretrainingConfig(EcgTaskConfig):
    only_sources: list[str] | None = None
    """Values of the manifest's column ``source`` to use; None: all of them."""


@register_task("source_pretraining", config=SourcePretrainingConfig)
class SourcePretraining(EcgTask):
    """Pre-train on the segments of chosen sources."""

    cfg: SourcePretrainingConfig

    def units(self, manifest: Manifest, epoch: int) -> NDArray[np.int64]:
        """(units, views) rows of the manifest of which an epoch is made."""
        units = super().units(manifest, epoch)
        if self.cfg.only_sources is None:
            return units
        names = np.array(manifest.sources.values())
        wanted = np.isin(names, self.cfg.only_sources)[manifest.sources.codes]
        kept = units[wanted[units].all(axis=1)]
        if not len(kept):
            raise DataError(
                f"{manifest.path}: no segment is from task.only_sources={self.cfg.only_sources}; "
                f"the manifest has {', '.join(names)}"
            )
        return kept
