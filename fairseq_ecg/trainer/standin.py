"""What a stand-in micro-batch (weight 0, at a ragged epoch end) must leave alone: running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def frozen_statistics(model: nn.Module, enabled: bool) -> Iterator[None]:
    """Keep batch norms from recording the batch inside the block; they still normalise by it."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)] if enabled else []
    recording = [norm for norm in norms if norm.track_running_stats]
    for norm in recording:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in recording:
            norm.track_running_stats = True
