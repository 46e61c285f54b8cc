"""Checkpoints: folders written whole or not at all, and the one resolver every command finds them with.

``<run>/checkpoints/u0001000/`` holds ``model.safetensors`` (loads without optimizer, data or task),
``optimizer.pt`` (plain tensors by parameter name), ``state.json`` and ``config.yaml``. It is written under a
temporary name, fsynced and renamed; ``checkpoint_last``, ``checkpoint_best`` and fairseq's epoch names are
relative links swapped atomically. A folder no link points to is pruned.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fairseq_ecg import __version__
from fairseq_ecg.config import CheckpointConfig
from fairseq_ecg.contracts import InputContract
from fairseq_ecg.errors import CheckpointError, ConfigError, nearest
from fairseq_ecg.models.base import EcgModel, LoadReport, load_tensors
from fairseq_ecg.registry import MODELS

FORMAT = 1
MODEL, OPTIMIZER, STATE, CONFIG = "model.safetensors", "optimizer.pt", "state.json", "config.yaml"


@dataclass(frozen=True, kw_only=True)
class CheckpointMeta:
    """What a checkpoint says about its model besides the weights; stored in config.yaml."""

    contract: InputContract
    label_names: list[str] = field(default_factory=list)
    thresholds: list[float] | None = None
    sources: list[str] = field(default_factory=list)
    """Sources of the data the weights have seen, pre-training included."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "contract": self.contract.to_dict(),
            "label_names": list(self.label_names),
            "thresholds": self.thresholds,
            "sources": list(self.sources),
        }


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> LoadReport:
    """Copy a checkpoint's tensors into the model they were saved from.

    Raises:
        CheckpointError: a name or a shape differs.
    """
    report = load_tensors(model, tensors, source=source)
    if report.missing or report.unexpected:
        raise CheckpointError(f"{source} does not fit the model: {report}")
    return report


def resolve(path: str | Path) -> Path:
    """Find the checkpoint a user means: a foreign file, one of our folders, or a run folder's last one.

    ``X.pt`` is a file if it exists, else our folder or link X; both may lie in a sub-folder ``checkpoints``.

    Raises:
        CheckpointError: nothing is there; names what is.
    """
    path = Path(path)
    if path.is_file():
        return path
    stem = path.with_suffix("") if path.suffix in (".pt", ".pth") else path
    for candidate in (
        stem,
        stem.parent / "checkpoints" / stem.name,
        path / "checkpoints" / "checkpoint_last",
    ):
        if (candidate / MODEL).is_file():
            return candidate
    start = path if path.is_dir() else stem.parent
    folder = start / "checkpoints" if (start / "checkpoints").is_dir() else start
    there = [item.name for item in folder.iterdir() if (item / MODEL).is_file()] if folder.is_dir() else []
    what = nearest(stem.name, there) if there else f"{folder} holds none"
    raise CheckpointError(
        f"no checkpoint at {path}: {what}; give a run folder, a checkpoint folder or a file"
    )


def _damaged(file: Path, error: Exception) -> CheckpointError:
    """One line about a file of a checkpoint that is not what was saved."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    reason = reason.partition(". ")[0]  # PyTorch's explanations go on for a paragraph
    return CheckpointError(
        f"{file} cannot be read: {' '.join(reason.split())}; the checkpoint is not whole, take another one "
        f"of {file.parent.parent}"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml of a checkpoint: the groups of its run and the fields of ``CheckpointMeta``."""
    try:
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _damaged(folder / CONFIG, error) from error
    absent = [
        key
        for key in ("model", "contract")
        if not isinstance(config, dict) or not isinstance(config.get(key), dict)
    ]
    if absent:
        raise _damaged(folder / CONFIG, ValueError(f"it has no group {absent[0]!r}"))
    assert isinstance(config, dict)
    return config


def read_state(folder: Path) -> dict[str, Any]:
    """state.json of a checkpoint: counters and whatever else an exact resume needs."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if not isinstance(state, dict) or "format" not in state:
            raise ValueError("it has no 'format'")
    except (OSError, ValueError) as error:
        raise _damaged(folder / STATE, error) from error
    if state["format"] != FORMAT:
        raise CheckpointError(
            f"{folder / STATE}: format {state['format']!r}, this version reads {FORMAT}; load it with the "
            f"version that wrote it ({state.get('fairseq_ecg', 'unknown')})"
        )
    return state


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The model's weights by name."""
    try:
        return load_file(folder / MODEL)
    except (OSError, SafetensorError) as error:
        raise _damaged(folder / MODEL, error) from error


def read_optimizer(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Optimizer state by parameter name; empty when the run saved none."""
    if not (folder / OPTIMIZER).is_file():
        return {}
    try:
        state: dict[str, dict[str, Tensor]] = torch.load(
            folder / OPTIMIZER, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise _damaged(folder / OPTIMIZER, error) from error
    return state


@dataclass(frozen=True)
class LoadedModel:
    """A model rebuilt from a checkpoint folder, in eval mode on the CPU, and what its config says."""

    model: EcgModel
    config: dict[str, Any]
    contract: InputContract
    label_names: list[str]
    thresholds: list[float] | None
    sources: list[str]
    report: LoadReport
    num_updates: int


def load_model(path: str | Path, *, model_overrides: Mapping[str, Any] | None = None) -> LoadedModel:
    """Rebuild the model of one of our checkpoints; nothing but the folder is needed.

    Args:
        path: anything ``resolve`` understands that leads to one of our folders.
        model_overrides: options that replace the checkpoint's, for example ``{"saliency": True}``.

    Raises:
        CheckpointError: the folder is damaged, of another format, or does not fit its own config.
    """
    from fairseq_ecg.compose import component_from_dict

    folder = resolve(path)
    if folder.is_file():
        raise CheckpointError(
            f"{folder} is a foreign file, not one of our checkpoint folders; load_encoder, embed, evaluate "
            "and model.model_path read those"
        )
    config = read_config(folder)
    options = {**config["model"], **(model_overrides or {})}
    choice = component_from_dict("model", options, source=str(folder / CONFIG))
    model: EcgModel = MODELS.build(choice.name, choice.config)
    report = load_weights(model, read_tensors(folder), source=str(folder))
    num_updates = int(read_state(folder)["num_updates"])
    model.before_update(num_updates)
    return LoadedModel(
        model=model.eval(),
        config=config,
        contract=InputContract.from_dict(config["contract"]),
        label_names=list(config.get("label_names") or []),
        thresholds=config.get("thresholds"),
        sources=list(config.get("sources") or []),
        report=report,
        num_updates=num_updates,
    )


class CheckpointFolder:
    """The ``checkpoints`` folder of a run: writes, links and prunes."""

    def __init__(self, cfg: CheckpointConfig) -> None:
        self.cfg = cfg
        self.path = Path(cfg.save_dir) / "checkpoints"

    def prepare(self) -> None:
        """Make the folder and remove what an interrupted save left.

        Raises:
            ConfigError: the run folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".tmp-probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ConfigError(
                f"checkpoint.save_dir={self.cfg.save_dir} cannot be written: {error.strerror}; choose "
                "another folder"
            ) from error
        for leftover in self.path.glob(".tmp-*"):
            shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()

    def last(self) -> Path | None:
        """The newest whole checkpoint: what ``checkpoint_last`` points to, else the newest folder.

        Raises:
            CheckpointError: there are checkpoints, but none is whole; starting anew would replace them.
        """
        link = self.path / "checkpoint_last"
        if (link / STATE).is_file():
            return link.resolve()
        found = [folder for folder in self.path.glob("u*") if folder.is_dir()]
        folders = [folder for folder in found if (folder / STATE).is_file()]
        if found and not folders:
            raise CheckpointError(
                f"{max(found, key=_update_number)} has no {STATE} and no other checkpoint of {self.path} is "
                "whole; choose another checkpoint.save_dir, or remove the folder to start anew"
            )
        return max(folders, key=_update_number, default=None)

    def save(
        self,
        *,
        tensors: Mapping[str, Tensor],
        optimizer: Mapping[str, Mapping[str, Tensor]] | None,
        state: Mapping[str, Any],
        config: Mapping[str, Any],
        links: list[str],
    ) -> Path:
        """Write a checkpoint and point ``links`` at it; a kill at any time leaves the earlier ones whole."""
        number = int(state["num_updates"])
        temporary = self.path / f".tmp-u{number:07d}-{os.getpid()}"
        temporary.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary / MODEL)
        if optimizer is not None:
            torch.save({name: dict(entry) for name, entry in optimizer.items()}, temporary / OPTIMIZER)
        text = json.dumps({"format": FORMAT, "fairseq_ecg": __version__, **state}, indent=1)
        (temporary / STATE).write_text(text, encoding="utf-8")
        (temporary / CONFIG).write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
        for item in temporary.iterdir():
            _fsync(item)
        _fsync(temporary)
        final = self._free_name(number)
        temporary.rename(final)
        _fsync(self.path)
        for link in links:
            self._point(link, final.name)
        self.prune()
        return final

    def prune(self) -> None:
        """Remove epoch and update links beyond what the config keeps, then folders without a link."""
        epochs = self._links(r"checkpoint(\d+)")
        updates = self._links(r"checkpoint_\d+_(\d+)")
        stale = _beyond(epochs, self.cfg.keep_last_epochs)
        pattern = self.cfg.keep_interval_updates_pattern
        stale += [
            link
            for link in _beyond(updates, self.cfg.keep_interval_updates)
            if pattern <= 0 or updates[link] % pattern
        ]
        for link in stale:
            (self.path / link).unlink()
        self._prune_best()
        linked = {os.readlink(item) for item in self.path.iterdir() if item.is_symlink()}
        folders = sorted((item for item in self.path.glob("u*") if item.is_dir()), key=_update_number)
        # The checkpoint before the last one stays: a disk that damages the last leaves one to go back to.
        keep = linked | {folder.name for folder in folders[-2:]}
        for folder in folders:
            if folder.name not in keep:
                trash = self.path / f".tmp-{folder.name}-trash-{os.getpid()}"
                folder.rename(trash)
                shutil.rmtree(trash)

    def _prune_best(self) -> None:
        best = {}
        for item in self.path.glob("checkpoint.best_*"):
            if match := re.fullmatch(r"checkpoint\.best_.+_(-?[\d.]+(?:e[+-]?\d+)?)_u\d+", item.name):
                best[item.name] = float(match.group(1))
        ranked = sorted(best, key=best.__getitem__, reverse=self.cfg.maximize_best_checkpoint_metric)
        for link in ranked[max(self.cfg.keep_best_checkpoints, 0) :]:
            (self.path / link).unlink()

    def _links(self, pattern: str) -> dict[str, int]:
        found = {}
        for item in self.path.iterdir():
            if item.is_symlink() and (match := re.fullmatch(pattern, item.name)):
                found[item.name] = int(match.group(1))
        return found

    def _free_name(self, number: int) -> Path:
        """``u0001000``, or ``u0001000.1`` when a run that went back to an earlier one is here again."""
        name, repeat = self.path / f"u{number:07d}", 0
        while name.exists():
            repeat += 1
            name = self.path / f"u{number:07d}.{repeat}"
        return name

    def _point(self, link: str, target: str) -> None:
        temporary = self.path / f".tmp-link-{link}-{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        os.replace(temporary, self.path / link)
        _fsync(self.path)


def _update_number(folder: Path) -> tuple[int, int]:
    match = re.fullmatch(r"u(\d+)(?:\.(\d+))?", folder.name)
    return (int(match.group(1)), int(match.group(2) or 0)) if match else (-1, 0)


def _beyond(links: Mapping[str, int], keep: int) -> list[str]:
    """Links older than the newest ``keep``; none when keep is 0 or less, as in fairseq."""
    ranked = sorted(links, key=links.__getitem__)
    return ranked[:-keep] if keep > 0 else []


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
