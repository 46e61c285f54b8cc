"""fairseq-ecg: a plugin registry and distributed trainer for self-supervised ECG models.

The public API is loaded on first use, so that ``import fairseq_ecg`` costs nothing.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0.dev0"

_PUBLIC = {
    "CheckpointError": "fairseq_ecg.errors",
    "ConfigError": "fairseq_ecg.errors",
    "DataError": "fairseq_ecg.errors",
    "Batch": "fairseq_ecg.contracts",
    "InputContract": "fairseq_ecg.contracts",
    "Record": "fairseq_ecg.contracts",
    "StepOutput": "fairseq_ecg.contracts",
    "ECGClassifier": "fairseq_ecg.evaluate.estimators",
    "ECGEmbedder": "fairseq_ecg.evaluate.estimators",
    "create_model": "fairseq_ecg.infer.load",
    "load_encoder": "fairseq_ecg.infer.load",
    "read_record": "fairseq_ecg.data.readers.any_file",
    "register_augmentation": "fairseq_ecg.registry",
    "register_criterion": "fairseq_ecg.registry",
    "register_importer": "fairseq_ecg.registry",
    "register_lr_scheduler": "fairseq_ecg.registry",
    "register_metric": "fairseq_ecg.registry",
    "register_model": "fairseq_ecg.registry",
    "register_optimizer": "fairseq_ecg.registry",
    "register_reader": "fairseq_ecg.registry",
    "register_task": "fairseq_ecg.registry",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'fairseq_ecg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
