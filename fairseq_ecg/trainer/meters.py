"""Sums kept on the device, read by the host once per log line.

A criterion reports (sum, count) pairs; a meter adds them up over micro-batches, and one all-reduce and one
copy bring all of them to the host together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fairseq_ecg.trainer.distributed import World


class Meters:
    """Named (sum, count) pairs, float64 where the device has it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums: dict[str, Tensor] = {}

    def add(self, logs: Mapping[str, tuple[Tensor, Tensor]], weight: float = 1.0) -> None:
        """Add one micro-batch's sums; ``weight`` 0 only makes the names known: ranks agree on them."""
        for name, (total, count) in logs.items():
            pair = torch.stack([total.detach(), count.detach()]).to(self.device, self.dtype) * weight
            if name in self.sums:
                self.sums[name] += pair
            else:
                self.sums[name] = pair

    def reduce(self, world: World) -> dict[str, float]:
        """Mean of every name over all ranks, and start anew. A name without counts is NaN."""
        if not self.sums:
            return {}
        names = sorted(self.sums)
        table = torch.stack([self.sums[name] for name in names])
        values = world.all_reduce(table).cpu()
        self.sums.clear()
        return {
            name: float(total) / float(count) if count else math.nan
            for name, (total, count) in zip(names, values.tolist(), strict=True)
        }


def in_bits(values: Mapping[str, float]) -> dict[str, float]:
    """Losses as fairseq reports them, in bits per term; the total also stays in nats as ``loss_nats``."""
    result = {
        name: value / math.log(2) if name.startswith("loss") else value for name, value in values.items()
    }
    if "loss" in values:
        result["loss_nats"] = values["loss"]
    return result
