"""Make the model of a run, from scratch or around the weights of an earlier one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairseq_ecg.config import CheckpointConfig, Choice
from fairseq_ecg.contracts import InputContract
from fairseq_ecg.errors import CheckpointError, ConfigError
from fairseq_ecg.models.base import EcgModel, LoadReport
from fairseq_ecg.registry import MODELS
from fairseq_ecg.trainer.checkpoint import CheckpointFolder, read_config, read_state, read_tensors, resolve
from fairseq_ecg.trainer.seeds import derive_seed


@dataclass(frozen=True)
class Pretrained:
    """Weights to start from, ours or foreign."""

    tensors: Mapping[str, Tensor]
    model: Mapping[str, Any]
    """The checkpoint's ``model`` group."""
    contract: InputContract | None
    """None when the file does not say."""
    sources: tuple[str, ...]
    num_updates: int = 0
    label_names: tuple[str, ...] = ()
    """Of a classifier's outputs, where the file says them."""


def read_pretrained(path: str | Path) -> Pretrained:
    """Read weights from one of our folders or from a foreign file an importer recognises.

    Raises:
        CheckpointError: nothing is there, or no importer knows the file.
    """
    from fairseq_ecg.interop.foreign import read_foreign

    found = resolve(path)
    if found.is_file():
        foreign = read_foreign(found)
        return Pretrained(
            foreign.state, {"_name": foreign.name, **foreign.config}, None, (), foreign.num_updates
        )
    config = read_config(found)
    return Pretrained(
        read_tensors(found),
        config["model"],
        InputContract.from_dict(config["contract"]),
        tuple(config.get("sources") or ()),
        int(read_state(found)["num_updates"]),
        tuple(config.get("label_names") or ()),
    )


@dataclass(frozen=True)
class BuiltModel:
    """A model, the choice that rebuilds it without any other file, and where its weights come from."""

    model: EcgModel
    choice: Choice
    sources: tuple[str, ...] = ()
    report: LoadReport | None = None


def own_checkpoint(cfg: CheckpointConfig) -> Path | None:
    """The checkpoint of its own that a run will be resumed from; None when it starts otherwise."""
    if cfg.restore_file.removesuffix(".pt") != "checkpoint_last":
        return None
    return CheckpointFolder(cfg).last()


def build_model(
    choice: Choice, *, contract: InputContract, seed: int, resumed: Path | None = None
) -> BuiltModel:
    """Initialise from the seed, then take over ``model_path`` when the model has one.

    ``resumed``, the run's ``own_checkpoint``, stands in for ``model_path``, which may have moved since: sizes
    and sources are there, and the resume replaces all weights.

    Raises:
        ConfigError: the class is no EcgModel, or the data are not what the pre-trained encoder was made for.
        CheckpointError: ``model_path`` does not lead to weights of this family.
    """
    torch.manual_seed(derive_seed(seed, "initial weights"))
    model = MODELS.build(choice.name, choice.config)
    if not isinstance(model, EcgModel):
        raise ConfigError(
            f"model {choice.name!r}: {type(model).__name__} must derive from fairseq_ecg.models.base.EcgModel"
        )
    path = getattr(choice.config, "model_path", None)
    if path is None:
        model.validate_contract(contract)
        return BuiltModel(model, choice)
    what = f"model.model_path={path}"
    if resumed is not None and read_config(resumed)["model"].get("_name") == choice.name:
        path, what = resumed, f"{resumed}, which this run would resume,"
    else:
        resumed = None  # of another model: the resume refuses it and says why
    pretrained = read_pretrained(path)
    if pretrained.contract is not None:
        check_contract(pretrained.contract, contract, what)
    load = getattr(model, "load_pretrained", None)
    if load is None:
        raise CheckpointError(f"model {choice.name!r} has an option model_path but cannot take over weights")
    report: LoadReport = load(pretrained.tensors, pretrained.model)
    model.validate_contract(contract)
    return BuiltModel(model, Choice(choice.name, model.cfg), pretrained.sources, None if resumed else report)


def check_contract(trained: InputContract, data: InputContract, what: str) -> None:
    """A segment may be longer or shorter than in training; nothing else may differ.

    Raises:
        ConfigError: says of ``what`` (key and path of the checkpoint) in which fields it differs.
    """
    differences = replace(trained, num_samples=data.num_samples).differences(data)
    if differences:
        raise ConfigError(
            f"{what} was trained on other input ({'; '.join(differences)}); prepare the data the same "
            "way, or set the task's options to match"
        )


def check_label_names(trained: Sequence[str], data: Sequence[str], what: str) -> None:
    """Refuse other labels than a classifier was trained on; a side that does not name its labels passes.

    Raises:
        ConfigError: says of ``what`` (key and path of the checkpoint) where the labels differ first.
    """
    if not trained or not data or list(trained) == list(data):
        return
    pairs = zip_longest(trained, data, fillvalue="none")
    place, (mine, theirs) = next((place, pair) for place, pair in enumerate(pairs) if pair[0] != pair[1])
    raise ConfigError(
        f"{what} was trained on {len(trained)} labels, the data have {len(data)}; label {place} is {mine!r} "
        f"there and {theirs!r} here; use the label definition it was trained with"
    )
