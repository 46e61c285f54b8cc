"""Binary cross-entropy per label, with unlabelled entries left out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_ecg.contracts import Batch, StepOutput
from fairseq_ecg.errors import ConfigError, DataError
from fairseq_ecg.registry import register_criterion


def masked_binary_cross_entropy(
    logits: Tensor, target: Tensor, *, weight: Tensor | None = None, pos_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Summed -[pos_weight y log p + (1 - y) log(1 - p)] * weight over labelled entries, p = sigmoid(logits).

    Shape:
        logits: (B, K). target: (B, K), float32 in [0, 1], NaN where unlabelled. weight, pos_weight: (K,).
        returns: loss (), number of labelled entries ().
    """
    known = ~torch.isnan(target)
    losses = F.binary_cross_entropy_with_logits(
        logits.float(),
        torch.where(known, target, 0.0).float(),
        weight=weight,
        pos_weight=pos_weight,
        reduction="none",
    )
    return torch.where(known, losses, 0.0).sum(), known.sum()


@dataclass(kw_only=True)
class BinaryCrossEntropyWithLogitsConfig:
    weight: list[float] | None = None
    """Factor of each label's loss."""
    threshold: float = 0.5
    """Probability from which a label counts as predicted."""
    report_auc: bool = False
    """Report AUROC and AUPRC of validation, macro and micro, each under its name."""
    auc_average: str = "macro"
    """macro or micro; both are reported whatever it says (the reference calls micro macro)."""
    pos_weight: list[float] | None = None
    """Factor of the positive term of each label."""
    report_cinc_score: bool = False
    """Report the PhysioNet/CinC challenge score of validation."""
    weights_file: str | None = None
    """Table of the challenge score; null: the built-in table of 2021."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ConfigError(f"criterion.threshold={self.threshold}: a probability between 0 and 1")
        if self.auc_average not in ("macro", "micro"):
            raise ConfigError(f"criterion.auc_average={self.auc_average!r}: macro or micro")
        for name in ("weight", "pos_weight"):
            values = getattr(self, name)
            for value in values or ():
                if not 0.0 <= value < math.inf:
                    raise ConfigError(f"criterion.{name} has the entry {value}; needed are numbers from 0")


@register_criterion("binary_cross_entropy_with_logits", config=BinaryCrossEntropyWithLogitsConfig)
class BinaryCrossEntropyWithLogits(nn.Module):
    """Multi-label classification: summed binary cross-entropy over rows and labels."""

    layout = "single"

    def __init__(self, cfg: BinaryCrossEntropyWithLogitsConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.weight: Tensor | None
        self.pos_weight: Tensor | None
        for name, values in (("weight", cfg.weight), ("pos_weight", cfg.pos_weight)):
            self.register_buffer(name, None if values is None else torch.tensor(values), persistent=False)

    def validate_model(self, model: nn.Module) -> None:
        num_labels = getattr(getattr(model, "cfg", None), "num_labels", None)
        if num_labels is None:
            raise ConfigError(
                f"criterion binary_cross_entropy_with_logits needs a classifier, {type(model).__name__} "
                f"has no "
                "num_labels; use model ecg_transformer_classifier"
            )
        for name, values in (("weight", self.weight), ("pos_weight", self.pos_weight)):
            if values is not None and len(values) != num_labels:
                raise ConfigError(
                    f"criterion.{name} has {len(values)} entries, model.num_labels is {num_labels}; "
                    f"give one per label"
                )

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Registered metrics to accumulate in validation, with their options."""
        chosen: dict[str, dict[str, Any]] = {"multilabel": {"threshold": self.cfg.threshold}}
        if self.cfg.report_auc:
            chosen |= {"auroc": {}, "auprc": {}}
        if self.cfg.report_cinc_score:
            chosen["cinc"] = {"weights_file": self.cfg.weights_file, "threshold": self.cfg.threshold}
        return chosen

    def forward(self, model: nn.Module, batch: Batch) -> StepOutput:
        output = model(batch.source, batch.padding_mask)
        # Without labels, as when only outputs are wanted, every entry is unlabelled and the loss is empty.
        target = torch.full_like(output.logits, torch.nan) if batch.target is None else batch.target
        if output.logits.shape != target.shape:
            raise DataError(
                f"a batch has labels of shape {tuple(target.shape)}, the model answers "
                f"{tuple(output.logits.shape)}; every segment needs model.num_labels labels"
            )
        weight, pos_weight = (
            None if values is None else values.to(batch.source.device)
            for values in (self.weight, self.pos_weight)
        )
        with torch.autocast(batch.source.device.type, enabled=False):
            loss, count = masked_binary_cross_entropy(
                output.logits, target, weight=weight, pos_weight=pos_weight
            )
        size = count.float()
        outputs = {
            "logits": output.logits.detach(),
            "target": target,
            "encoder_out": output.encoder.frames.detach(),
        }
        for name in ("padding_mask", "saliency"):
            value = getattr(output.encoder, name)
            if value is not None:
                outputs[name] = value.detach()
        return StepOutput(loss, size, {"loss": (loss.detach(), size)}, outputs)
