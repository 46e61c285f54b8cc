"""Dataclasses of the config groups every run has; a component's own group is described beside it.

Names and defaults are fairseq-signals' unless a comment gives a reason. A string under a field documents it:
the reference pages and the commented YAML are made from these.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import StrEnum
from typing import Any

from fairseq_ecg.errors import ConfigError


class LogFormat(StrEnum):
    JSON = "json"
    SIMPLE = "simple"
    TQDM = "tqdm"
    CSV = "csv"
    NONE = "none"


@dataclass(kw_only=True)
class CommonConfig:
    seed: int = 1
    """Of initial weights, data order, augmentations, masks and dropout."""
    log_interval: int = 100
    """Updates between two log lines."""
    log_format: LogFormat | None = None
    """None: tqdm on a terminal, simple otherwise. The csv and jsonl files are written whatever the format."""
    log_file: str | None = None
    """Also append the log lines to this file."""
    no_progress_bar: bool = False
    """Print lines (the format simple) where the format would be tqdm."""
    tensorboard_logdir: str | None = None
    """Write TensorBoard event files here (needs the extra ``track``)."""
    wandb_project: str | None = None
    """Log to this project of Weights & Biases (needs the extra ``track``)."""
    wandb_entity: str | None = None
    """User or team of Weights & Biases the project belongs to; None: your default."""
    user_dir: str | None = None
    """Folder or file of plugins, imported before names are resolved."""
    fp16: bool = False
    """Autocast to float16 with dynamic loss scaling; parameters stay float32."""
    bf16: bool = False
    """Autocast to bfloat16; needs no loss scaling."""
    amp: bool = False
    """Same as fp16 (fairseq's name for autocast)."""
    fp16_init_scale: int = 128
    """Loss scale at the start, with fp16."""
    fp16_scale_window: int | None = None
    """Updates without overflow before the scale doubles; None: 2**14 / world size / update_freq."""
    fp16_scale_tolerance: float = 0.0
    """Share of overflowing updates that is tolerated before the scale is halved."""
    min_loss_scale: float = 1e-4
    """The run is aborted when overflows would bring the loss scale down to this."""
    threshold_loss_scale: float | None = None
    """The scale never goes below this."""
    cpu: bool = False
    """Train on the CPU even if a GPU is there."""
    compile: bool = False
    """torch.compile the model (never the optimizer)."""
    max_nonfinite_updates: int = 20
    """Consecutive updates skipped for a non-finite loss or gradient before the run is aborted."""

    def __post_init__(self) -> None:
        if sum((self.fp16 or self.amp, self.bf16)) > 1:
            raise ConfigError(
                "common.fp16 and common.bf16 exclude each other; keep bf16 on hardware that has it"
            )
        if self.log_interval < 1:
            raise ConfigError(f"common.log_interval={self.log_interval}: must be at least 1")
        if self.max_nonfinite_updates < 1:
            raise ConfigError(
                f"common.max_nonfinite_updates={self.max_nonfinite_updates}: must be at least 1, which "
                "aborts at the first one"
            )


@dataclass(kw_only=True)
class CommonEvalConfig:
    path: str | None = None
    """Checkpoint to validate or to extract from."""
    quiet: bool = False
    """Do not tell which tensors were loaded."""
    model_overrides: str = "{}"
    """Python-literal dict of model options that replace the checkpoint's."""
    extract: list[str] | None = None
    """Arrays to write: output, encoder_out, saliency."""
    results_path: str | None = None
    """Folder of the arrays; it is made."""
    overwrite: bool = False
    """Replace arrays that are there."""


class Backend(StrEnum):
    NCCL = "nccl"
    GLOO = "gloo"


@dataclass(kw_only=True)
class DistributedConfig:
    distributed_world_size: int = 1
    """Processes to start on this node when torchrun did not; capped at what the machine has."""
    distributed_backend: Backend | None = None
    """None: nccl with GPUs, gloo without."""
    distributed_init_method: str | None = None
    """URL by which processes find each other, as torch.distributed takes it; None: torchrun's variables."""
    distributed_port: int = 12355
    """Port of the processes started on this node; another free one when it is taken."""
    device_id: int = 0
    """GPU of a run in one process."""
    ddp_comm_hook: str = "none"
    """none or fp16 (gradients are all-reduced in half precision)."""
    bucket_cap_mb: int = 25
    """Megabytes of gradients that are all-reduced together."""
    find_unused_parameters: bool = False
    """Look for parameters without gradient at every update; models that need it say so themselves."""
    broadcast_buffers: bool = False
    """Copy the first process's buffers (running statistics) to the others at every forward pass."""

    def __post_init__(self) -> None:
        if self.distributed_world_size < 1:
            raise ConfigError(
                f"distributed_training.distributed_world_size={self.distributed_world_size}: at least 1"
            )
        if self.ddp_comm_hook not in ("none", "fp16"):
            raise ConfigError(f"distributed_training.ddp_comm_hook={self.ddp_comm_hook!r}: none or fp16")


@dataclass(kw_only=True)
class DatasetConfig:
    num_workers: int = 1
    """Threads that gather batches ahead of the update; 0: in the update's own thread."""
    data_buffer_size: int = 10
    """Batches kept ready ahead of the update."""
    batch_size: int | None = None
    """Samples per device and micro-batch; with paired segments it counts pairs."""
    max_tokens: int | None = None
    """Limit of samples in a batch times its longest length."""
    required_batch_size_multiple: int = 1
    """fairseq-signals' default is 8, which turns batch_size=10 into 8 without saying so."""
    reference_order: bool = False
    """Form batches once and shuffle only their order, with fairseq-signals' generator (for parity)."""
    train_subset: str = "train"
    """Manifest to train on: ``<name>.tsv`` in the data folder."""
    valid_subset: str = "valid"
    """Comma list; the first one selects the best checkpoint."""
    validate_interval: int = 1
    """Epochs between validations."""
    validate_interval_updates: int = 0
    """Updates between validations; 0: only at epoch ends."""
    validate_after_updates: int = 0
    """No validation, and no checkpoint by updates, before this many updates."""
    fixed_validation_seed: int | None = None
    """Seed of masks and negatives in validation; None: ``common.seed``."""
    disable_validation: bool = False
    """Train without validating; no best checkpoint is kept."""
    max_tokens_valid: int | None = None
    """None: as in training."""
    batch_size_valid: int | None = None
    """None: as in training."""
    max_valid_steps: int | None = None
    """Batches per validation."""
    curriculum: int = 0
    """First epochs in which batches are not shuffled."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_tokens", "batch_size_valid", "max_tokens_valid", "max_valid_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"dataset.{name}={value}: must be at least 1, or null")
        if self.num_workers < 0:
            raise ConfigError(f"dataset.num_workers={self.num_workers}: must be 0 or more")
        if self.validate_interval < 1:
            raise ConfigError(
                f"dataset.validate_interval={self.validate_interval}: must be at least 1; to train without "
                "validation set dataset.disable_validation=true"
            )
        if self.required_batch_size_multiple < 1:
            raise ConfigError(
                f"dataset.required_batch_size_multiple={self.required_batch_size_multiple}: must be at least "
                "1, which allows any batch size"
            )

    @property
    def valid_subsets(self) -> list[str]:
        return [name.strip() for name in self.valid_subset.split(",") if name.strip()]


@dataclass(kw_only=True)
class OptimizationConfig:
    max_epoch: int = 0
    """0: no limit."""
    max_update: int = 0
    """0: no limit."""
    stop_time_hours: float = 0.0
    """Hours of training after which the run saves and stops; 0: no limit."""
    clip_norm: float = 0.0
    """Global gradient norm; 0.0 measures without clipping."""
    update_freq: list[int] = field(default_factory=lambda: [1])
    """Micro-batches per update, one entry per epoch; the last one repeats."""
    lr: list[float] = field(default_factory=lambda: [0.25])
    """Learning rate, one entry per epoch where the schedule uses several."""
    stop_min_lr: float = -1.0
    """The run stops when the learning rate has fallen to this."""

    def __post_init__(self) -> None:
        if not self.lr:
            raise ConfigError("optimization.lr is empty; give at least one rate, e.g. optimization.lr=[5e-5]")
        if not all(0.0 <= rate < math.inf for rate in self.lr):
            raise ConfigError(f"optimization.lr={self.lr}: rates from 0, e.g. optimization.lr=[5e-5]")
        if not self.update_freq or min(self.update_freq) < 1:
            raise ConfigError(f"optimization.update_freq={self.update_freq}: one or more positive counts")


@dataclass(kw_only=True)
class CheckpointConfig:
    save_dir: str = "checkpoints"
    """The run folder: config, logs and checkpoints; nothing is written outside it."""
    restore_file: str = "checkpoint_last.pt"
    """Checkpoint to continue from, a path or a name in save_dir; the default is the newest, if any."""
    finetune_from_model: str | None = None
    """Start from this checkpoint's weights when save_dir has none of its own."""
    reset_dataloader: bool = False
    """Continue with the data anew at epoch 1."""
    reset_lr_scheduler: bool = False
    """Continue with updates, and so the schedule, counted from 0."""
    reset_meters: bool = False
    """Continue without the best value and patience so far."""
    reset_optimizer: bool = False
    """Continue with the weights and a new optimizer."""
    optimizer_overrides: str = "{}"
    """Python-literal dict of optimizer options that replace the config's, e.g. {'adam_eps': 1e-6}."""
    save_interval: int = 1
    """Epochs between checkpoints."""
    save_interval_updates: int = 0
    """Updates between checkpoints; 0: only at epoch ends."""
    keep_interval_updates: int = -1
    """Newest update checkpoints to keep; 0 or less keeps all."""
    keep_interval_updates_pattern: int = -1
    """Never prune update checkpoints whose number is a multiple of this."""
    keep_last_epochs: int = -1
    """Newest epoch checkpoints to keep; 0 or less keeps all."""
    keep_best_checkpoints: int = -1
    """Best-scoring checkpoints to keep besides checkpoint_best; 0 or less keeps only that one."""
    no_save: bool = False
    """Write no checkpoints at all."""
    no_epoch_checkpoints: bool = False
    """Keep no checkpoint per epoch; the last, the best and those by updates stay."""
    no_last_checkpoints: bool = False
    """Keep no checkpoint_last."""
    no_save_optimizer_state: bool = False
    """Leave the optimizer out of checkpoints; to continue from them takes reset_optimizer=true."""
    best_checkpoint_metric: str = "loss"
    """Value of the first validation subset by which the best checkpoint is chosen."""
    maximize_best_checkpoint_metric: bool = False
    """More is better, as for AUROC; otherwise less is."""
    patience: int = -1
    """Validations without improvement before the run stops; -1: never."""

    def __post_init__(self) -> None:
        if self.save_interval < 1:
            raise ConfigError(
                f"checkpoint.save_interval={self.save_interval}: must be at least 1; to keep no checkpoint "
                "per epoch set checkpoint.no_epoch_checkpoints=true"
            )


@dataclass(frozen=True)
class Choice:
    """A registered name and its finished config."""

    name: str
    config: Any

    def to_dict(self) -> dict[str, Any]:
        return {"_name": self.name, **plain(self.config)}


@dataclass(kw_only=True)
class RunConfig:
    """A whole run: what ``compose.load_config`` returns and what a checkpoint's config.yaml holds."""

    common: CommonConfig = field(default_factory=CommonConfig)
    common_eval: CommonEvalConfig = field(default_factory=CommonEvalConfig)
    distributed_training: DistributedConfig = field(default_factory=DistributedConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    task: Choice
    model: Choice
    criterion: Choice
    optimizer: Choice
    lr_scheduler: Choice

    def to_dict(self) -> dict[str, Any]:
        """Nested plain containers, groups in the order above, ready for YAML."""
        return {
            name: value.to_dict() if isinstance(value, Choice) else plain(value)
            for name, value in vars(self).items()
        }


def plain(config: Any) -> dict[str, Any]:
    """A dataclass as plain containers: enums become their values, tuples become lists."""
    if not is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"{config!r} is not a dataclass instance")
    result: dict[str, Any] = _plain(asdict(config))
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
