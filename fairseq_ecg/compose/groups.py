"""The config groups of a run, and the kind of component each component group chooses."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

from fairseq_ecg import config, registry

FIXED_GROUPS: dict[str, type[Any]] = {
    "common": config.CommonConfig,
    "common_eval": config.CommonEvalConfig,
    "distributed_training": config.DistributedConfig,
    "dataset": config.DatasetConfig,
    "optimization": config.OptimizationConfig,
    "checkpoint": config.CheckpointConfig,
}

COMPONENT_GROUPS: dict[str, registry.Registry] = {
    "task": registry.TASKS,
    "model": registry.MODELS,
    "criterion": registry.CRITERIA,
    "optimizer": registry.OPTIMIZERS,
    "lr_scheduler": registry.LR_SCHEDULERS,
}

DEFAULT_NAMES = {"optimizer": "adam", "lr_scheduler": "fixed"}
"""Chosen when a config says nothing: fairseq's defaults. A task, a model and a criterion must be named."""

GROUPS = (*FIXED_GROUPS, *COMPONENT_GROUPS)


def field_names(config_class: type[Any]) -> list[str]:
    return [item.name for item in dataclasses.fields(config_class) if item.init]


def homes_of(key: str) -> list[str]:
    """Groups in which some component, or the group itself, has this option."""
    fixed = [group for group, cls in FIXED_GROUPS.items() if key in field_names(cls)]
    return fixed + [
        group
        for group, registry_ in COMPONENT_GROUPS.items()
        if any(key in field_names(entry.config) for entry in registry_)
    ]


def field_types(config_class: type[Any]) -> dict[str, Any]:
    """Field name -> resolved annotation."""
    hints = get_type_hints(config_class)
    return {name: hints[name] for name in field_names(config_class)}


def field_defaults(config_class: type[Any]) -> dict[str, Any]:
    """Field name -> default; fields that must be given are left out."""
    defaults = {}
    for item in dataclasses.fields(config_class):
        if item.default is not dataclasses.MISSING:
            defaults[item.name] = item.default
        elif item.default_factory is not dataclasses.MISSING:
            defaults[item.name] = item.default_factory()
    return defaults
