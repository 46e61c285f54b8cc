"""Learn an ECG encoder by reconstructing hidden leads: a worked plugin of fairseq-ecg.

Importing the package imports the modules whose decorators register the components; the entry point in
pyproject.toml makes fairseq-ecg import the package.
"""

from ecg_lead_reconstruction import augmentation, criterion, model, task

__all__ = ["augmentation", "criterion", "model", "task"]
