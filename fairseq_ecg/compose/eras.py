"""What earlier eras of fairseq-signals called things, and which of their keys mean nothing here.

Works on the nested values of a draft, before names are resolved. An era's name brings that era's defaults
where the config is silent: a ``wav2vec2_clocs`` of 2022 masked its frames without being told to.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fairseq_ecg.compose.groups import COMPONENT_GROUPS, field_names
from fairseq_ecg.errors import ConfigError

logger = logging.getLogger(__name__)

NAME_ALIASES: dict[str, dict[str, str]] = {
    "task": {"multi_label_classification": "ecg_classification"},
    "model": {"linear_projection": "ecg_transformer_classifier", "wav2vec2_clocs": "wav2vec2_cmsc"},
    "criterion": {"wav2vec2_with_clocs": "wav2vec2_with_cmsc", "clocs": "cmsc"},
}

ERA_DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("model", "wav2vec2_clocs"): {"apply_mask": True, "mask_prob": 0.65, "encoder_layerdrop": 0.05},
    ("model", "linear_projection"): {"encoder_layerdrop": 0.1},
}

KEY_ALIASES: dict[tuple[str, str], str] = {("lr_scheduler", "lr_deacy_period"): "lr_decay_period"}
"""(group, old key) -> key; the old one is the reference's misspelling."""

CLOCS_MODES = ("cmsc", "cmlc", "cmsmlc")

IGNORED: dict[str, frozenset[str]] = {
    "common": frozenset(
        {
            "memory_efficient_fp16",
            "fp16_no_flatten_grads",
            "on_cpu_convert_precision",
            "empty_cache_freq",
            "all_gather_list_size",
            "profile",
            "reset_logging",
            "suppress_crashes",
        }
    ),
    "distributed_training": frozenset({"heartbeat_timeout", "distributed_rank", "fix_batches_to_gpus"}),
    "dataset": frozenset(
        {
            "combine_valid_subsets",
            "ignore_unused_valid_subsets",
            "num_shards",
            "shard_id",
            "skip_invalid_size_inputs_valid_test",
        }
    ),
    "checkpoint": frozenset(
        {"checkpoint_suffix", "checkpoint_shard_count", "load_checkpoint_on_all_dp_ranks"}
    ),
    "optimizer": frozenset({"use_old_adam"}),
    "model": frozenset({"args"}),
    "criterion": frozenset({"per_log_keys"}),
}
"""Keys that have no effect here because what they tuned is gone; accepted with a notice."""

MIRRORS: dict[tuple[str, str], str] = {
    ("optimizer", "lr"): "optimization.lr",
    ("lr_scheduler", "lr"): "optimization.lr",
    ("lr_scheduler", "max_update"): "optimization.max_update",
    ("distributed_training", "fp16"): "common.fp16",
    ("distributed_training", "memory_efficient_fp16"): "common.fp16",
    ("task", "criterion_name"): "criterion._name",
    ("criterion", "all_gather"): "model.all_gather",
    ("model", "normalize"): "task.normalize",
    ("model", "filter"): "task.filter",
    ("model", "data"): "task.data",
    ("model", "sample_rate"): "task.sample_rate",
}
"""Copies the reference keeps of another group's key; a file may hold them, a user sets the original."""

REFERENCE_ONLY = IGNORED | {"common": IGNORED["common"] | {"model_parallel_size"}}
"""Keys only fairseq-signals writes: several of them mark a complete config file of its making."""

REFERENCE_GROUPS = frozenset({"job_logging_cfg", "generation", "eval_lm", "ema", "bmuf", "scoring", "bpe"})


def written_by_reference(values: Mapping[str, Any]) -> bool:
    """Whether a config is a complete one as fairseq-signals stores it, rather than a few chosen keys."""
    if "job_logging_cfg" in values:
        return True
    met = {
        group: [key for key in keys if key in values[group]]
        for group, keys in REFERENCE_ONLY.items()
        if isinstance(values.get(group), Mapping)
    }
    return sum(map(len, met.values())) >= 4 and sum(map(bool, met.values())) >= 2


def modernise(values: dict[str, dict[str, Any]], overridden: frozenset[str]) -> frozenset[str]:
    """Rewrite names and keys of earlier eras in place.

    Args:
        values: group -> key -> value.
        overridden: dotted keys that the command line set; they win over a file.

    Returns:
        ``overridden`` with the dotted keys under their present names.

    Raises:
        ConfigError: two keys that mean the same contradict each other.
    """
    overridden = _rename_keys(values, overridden)
    _expand_clocs_mode(values)
    for group, aliases in NAME_ALIASES.items():
        old = values.get(group, {}).get("_name")
        if old in aliases:
            values[group]["_name"] = aliases[old]
            defaults = _missing(values[group], group, ERA_DEFAULTS.get((group, old), {}))
            values[group].update(defaults)
            added = (
                ", with that era's " + ", ".join(f"{k}={v}" for k, v in defaults.items()) if defaults else ""
            )
            logger.warning("%s %r is called %r today%s", group, old, aliases[old], added)
    return _move_num_labels(values, overridden)


def _missing(values: Mapping[str, Any], group: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The era's defaults for options the component has and the config does not mention."""
    known = field_names(COMPONENT_GROUPS[group].get(values["_name"]).config)
    return {key: value for key, value in defaults.items() if key not in values and key in known}


def _rename_keys(values: dict[str, dict[str, Any]], overridden: frozenset[str]) -> frozenset[str]:
    for (group, old), new in KEY_ALIASES.items():
        if old not in values.get(group, {}):
            continue
        value = values[group].pop(old)
        if f"{group}.{old}" in overridden or new not in values[group]:
            values[group][new] = value
        if f"{group}.{old}" in overridden:
            overridden = overridden - {f"{group}.{old}"} | {f"{group}.{new}"}
    return overridden


def _expand_clocs_mode(values: dict[str, dict[str, Any]]) -> None:
    """``task.clocs_mode`` chose the pairs; today the criterion's name does (cmsc, cmlc, cmsmlc)."""
    if "clocs_mode" not in values.get("task", {}):
        return
    mode = values["task"].pop("clocs_mode")
    if mode in (None, "", "null", "???"):
        return
    if mode not in CLOCS_MODES:
        raise ConfigError(f"task.clocs_mode={mode!r}: one of {', '.join(CLOCS_MODES)}")
    criterion = values.setdefault("criterion", {})
    name = criterion.get("_name")
    if mode != "cmsc" and name in ("clocs", "cmsc"):
        criterion["_name"] = mode
    elif mode != "cmsc" and name in ("wav2vec2_with_clocs", "wav2vec2_with_cmsc"):
        criterion["_name"] = f"wav2vec2_with_{mode}"


def _move_num_labels(values: dict[str, dict[str, Any]], overridden: frozenset[str]) -> frozenset[str]:
    """``task.num_labels`` became ``model.num_labels`` in September 2022."""
    if "num_labels" not in values.get("task", {}):
        return overridden
    count = values["task"].pop("num_labels")
    model = values.setdefault("model", {})
    on_command_line = "task.num_labels" in overridden
    present = model.get("num_labels", "???")
    same_origin = on_command_line == ("model.num_labels" in overridden)
    if count != "???" and present not in ("???", None) and same_origin and str(count) != str(present):
        raise ConfigError(
            f"task.num_labels={count} contradicts model.num_labels={present}; keep model.num_labels, the "
            "other is its name before September 2022"
        )
    if present in ("???", None) or (on_command_line and "model.num_labels" not in overridden):
        model["num_labels"] = count
    if on_command_line:
        overridden = overridden - {"task.num_labels"} | {"model.num_labels"}
    return overridden
