"""Self-supervised pre-training: segments without labels."""

from __future__ import annotations

from fairseq_ecg.registry import register_task
from fairseq_ecg.tasks.base import EcgTask, EcgTaskConfig


class PretrainingConfig(EcgTaskConfig):
    """Nothing beyond what the ECG tasks share."""


@register_task("ecg_pretraining", config=PretrainingConfig)
class PretrainingTask(EcgTask):
    """Pre-train on the segments of a manifest, alone or in pairs as the criterion asks."""
