"""What stands between the trainer and the model: compilation, and gradients averaged over ranks."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fairseq_ecg.config import RunConfig
from fairseq_ecg.models.base import EcgModel
from fairseq_ecg.trainer.distributed import World

# torch 2.13 renamed the option; its old name warns there, the new one is unknown to 2.10.
BUFFER_OPTION = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)


def wrap(model: EcgModel, cfg: RunConfig, world: World) -> nn.Module:
    """The module a criterion calls: the model itself on one process without ``common.compile``."""
    wrapped: nn.Module = model
    if cfg.common.compile:
        # The loss stays outside: its reductions run in float32 whatever the autocast type.
        wrapped = torch.compile(wrapped, dynamic=False)  # type: ignore[assignment]
    if world.size == 1:
        return wrapped
    options = cfg.distributed_training
    buffers: dict[str, Any] = {BUFFER_OPTION: options.broadcast_buffers}
    parallel = DistributedDataParallel(
        wrapped,
        device_ids=[world.device.index] if world.device.type == "cuda" else None,
        find_unused_parameters=options.find_unused_parameters or model.has_unused_parameters,
        bucket_cap_mb=options.bucket_cap_mb,
        gradient_as_bucket_view=True,
        **buffers,
    )
    if options.ddp_comm_hook == "fp16":
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

        parallel.register_comm_hook(None, fp16_compress_hook)
    return parallel
