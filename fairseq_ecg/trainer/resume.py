"""Continue a run from its own last checkpoint, or start from another's weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fairseq_ecg.errors import CheckpointError
from fairseq_ecg.models.base import load_tensors
from fairseq_ecg.trainer.build import check_contract, read_pretrained
from fairseq_ecg.trainer.checkpoint import (
    load_weights,
    read_config,
    read_optimizer,
    read_state,
    read_tensors,
    resolve,
)

if TYPE_CHECKING:
    from fairseq_ecg.trainer.trainer import Trainer

DEFAULT = "checkpoint_last"


def restore(trainer: Trainer) -> None:
    """Bring a trainer to where ``checkpoint.restore_file`` or ``finetune_from_model`` says it should start.

    Raises:
        CheckpointError: the named checkpoint is absent, damaged or of another model.
    """
    cfg = trainer.cfg.checkpoint
    own = trainer.folder.last()
    if cfg.restore_file.removesuffix(".pt") == DEFAULT:
        if own is not None:
            _continue(trainer, own)
        elif cfg.finetune_from_model:
            _start_from(trainer, cfg.finetune_from_model)
    else:
        wanted = cfg.restore_file
        inside = Path(cfg.save_dir) / wanted
        _continue(trainer, resolve(wanted if Path(wanted).exists() or Path(wanted).is_absolute() else inside))
    progress = trainer.progress
    if not trainer.world.agrees([progress.num_updates, progress.epoch, progress.batches_done]):
        raise CheckpointError(
            f"the processes have found different checkpoints in checkpoint.save_dir={cfg.save_dir} (this one "
            f"update {progress.num_updates}); it must be one folder that all of them see"
        )


def _continue(trainer: Trainer, folder: Path) -> None:
    """Weights, optimizer, schedule, counters, selection: everything, but what ``reset_*`` leaves out."""
    cfg = trainer.cfg.checkpoint
    if folder.is_file():
        raise CheckpointError(
            f"checkpoint.restore_file={folder} is not one of our checkpoints; start from its weights with "
            f"checkpoint.finetune_from_model={folder}"
        )
    state = read_state(folder)
    tensors = read_tensors(folder)
    try:
        report = load_weights(trainer.model, tensors, source=str(folder))
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; to train another model than the one that is there, choose another checkpoint.save_dir"
        ) from error
    if cfg.reset_meters:
        state["selection"] = trainer.selection.state_dict()
    if cfg.reset_dataloader:
        state.update(epoch=1, batches_done=0)
    if cfg.reset_lr_scheduler:
        state.update(schedule_start=state["num_updates"])
    if cfg.reset_optimizer:
        state["scaler"] = trainer.precision.state_dict()
    else:
        moments = read_optimizer(folder)
        if not moments and state["num_updates"]:
            raise CheckpointError(
                f"{folder} has no optimizer state (checkpoint.no_save_optimizer_state?); start the optimizer "
                "anew with checkpoint.reset_optimizer=true"
            )
        trainer.optimizer.load_state_dict(moments)
    trainer.earlier_sources |= set(read_config(folder).get("sources") or ())
    trainer.load_state_dict(state)
    trainer.log.note(
        f"resumed {folder.name} of {folder.parent.parent}: {report}; update {trainer.progress.num_updates}, "
        f"epoch {trainer.progress.epoch}, {trainer.progress.batches_done} micro-batches into it"
    )


def _start_from(trainer: Trainer, path: str) -> None:
    """Only weights: optimizer, schedule and data order start anew."""
    pretrained = read_pretrained(path)
    if pretrained.contract is not None:
        option = f"checkpoint.finetune_from_model={path}"
        check_contract(pretrained.contract, trainer.task.contract, option)
    report = load_tensors(trainer.model, pretrained.tensors, source=path)
    trainer.earlier_sources |= set(pretrained.sources)
    trainer.log.note(f"started from the weights of {path}: {report}")
