"""Compute a checkpoint's loss and metrics on subsets, and write its outputs on request."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fairseq_ecg.errors import ConfigError

if TYPE_CHECKING:
    from fairseq_ecg.compose import Draft

HELP = """fairseq-ecg validate common_eval.path=CHECKPOINT [KEY=VALUE ...] [--config-name NAME]

Runs every subset of dataset.valid_subset and prints its loss and metrics. Model, criterion and task are the
checkpoint's; what the command line sets wins, so that another threshold or another folder of data is one
override.

  common_eval.path=CHECKPOINT               a run folder, a checkpoint folder, or a foreign .pt file
  task.data=DIR                             the folder of a manifest; the checkpoint's own without it
  dataset.valid_subset=valid,test           subsets to run
  common_eval.extract=[output,encoder_out]  also write arrays: output, encoder_out, saliency
  common_eval.results_path=DIR              where the arrays go; the folder is made

Example:
  fairseq-ecg validate common_eval.path=runs/diagnosis dataset.valid_subset=test dataset.batch_size=64"""


def main(argv: Sequence[str] | None = None) -> int:
    """``fairseq-ecg validate common_eval.path=runs/diagnosis dataset.valid_subset=test``"""
    from fairseq_ecg.compose import finish, parse_argv, read_draft

    invocation = parse_argv(sys.argv[1:] if argv is None else argv)
    if invocation.help:
        print(HELP)
        return 0
    if invocation.multirun:
        raise ConfigError("--multirun is for training; validate one checkpoint at a time")
    draft = read_draft(invocation)
    cfg = finish(with_checkpoint(draft))
    if cfg.common_eval.extract and not cfg.common_eval.results_path:
        raise ConfigError(
            "common_eval.extract needs common_eval.results_path=DIR to write to; if your command has it on a "
            "later line, the line before it lacks the line continuation \\ at its very end"
        )
    if not cfg.dataset.valid_subsets:
        raise ConfigError(
            "dataset.valid_subset is empty, as in the checkpoint's recipe: give dataset.valid_subset=valid"
        )
    if invocation.show:
        from fairseq_ecg.cli.train import to_yaml

        print(to_yaml(cfg), end="")
        return 0
    from fairseq_ecg.trainer.validate import run

    results = run(cfg)
    if os.environ.get("RANK", "0") == "0":
        for subset, values in results.items():
            for name, value in values.items():
                print(f"{subset} {name} {value:.6g}")
    return 0


def with_checkpoint(draft: Draft) -> Draft:
    """Put the checkpoint's config under what the user said.

    Model and criterion: the command line before ``common_eval.model_overrides`` before the checkpoint (a YAML
    file that describes another model does not change what a checkpoint is). Other groups: command line and
    YAML file before the checkpoint.

    Raises:
        ConfigError: no checkpoint is named.
        CheckpointError: it cannot be read.
    """
    common_eval = _group(draft.values, "common_eval")
    path = common_eval.get("path")
    if path in (None, "", "???", "null"):
        raise ConfigError("no checkpoint to validate: give common_eval.path=CHECKPOINT")
    stored, is_foreign = _read_checkpoint(str(path))
    overrides = _model_overrides(common_eval.get("model_overrides"))
    merged: dict[str, Any] = {}
    for group in {**stored, **draft.values}:
        said = _group(draft.values, group)
        if group in ("model", "criterion") and group in stored:
            said = {key: value for key, value in said.items() if f"{group}.{key}" in draft.overridden}
        merged[group] = {**_group(stored, group), **(overrides if group == "model" else {}), **said}
    # The weights come from the checkpoint itself; the file it was once fine-tuned from may be gone.
    for key, value in (("model_path", None), ("no_pretrained_weights", True)):
        if key in merged.get("model", {}) and f"model.{key}" not in draft.overridden:
            merged["model"][key] = value
    return replace(draft, values=merged, source=f"{path} or {draft.source}", is_foreign=is_foreign)


def _read_checkpoint(path: str) -> tuple[dict[str, Any], bool]:
    """The config groups of a checkpoint that matter for validation, and whether the file is a foreign one.

    A foreign file tells its model and its criterion. Where and how a checkpoint was trained (devices,
    precision, optimization, run folder) says nothing about where it is validated.
    """
    from fairseq_ecg.interop.foreign import read_foreign
    from fairseq_ecg.trainer.checkpoint import read_config, resolve

    found = resolve(path)
    if found.is_file():
        imported = read_foreign(found)
        model = {"_name": imported.name, **imported.config}
        return {"model": model, **({"criterion": imported.criterion} if imported.criterion else {})}, True
    stored = read_config(found)
    return {group: stored[group] for group in ("task", "model", "criterion", "dataset")}, False


def _model_overrides(text: Any) -> dict[str, Any]:
    """Read ``common_eval.model_overrides``, a Python-literal dict, without evaluating it."""
    if isinstance(text, Mapping):
        return dict(text)
    try:
        value = ast.literal_eval(text or "{}")
    except (SyntaxError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise ConfigError(
            f"common_eval.model_overrides={text!r}: a dict literal such as \"{{'dropout': 0.0}}\" is needed"
        )
    return value


def _group(values: Mapping[str, Any], group: str) -> dict[str, Any]:
    content = values.get(group)
    if isinstance(content, str):
        return {} if content == "???" else {"_name": content}
    return dict(content) if isinstance(content, Mapping) else {}
