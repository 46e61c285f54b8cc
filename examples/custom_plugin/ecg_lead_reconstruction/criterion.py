"""A criterion calls the model once per micro-batch and returns a sum of loss terms with their number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fairseq_ecg.contracts import Batch, StepOutput
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.registry import register_criterion


def hidden_lead_error(
    prediction: Tensor, source: Tensor, hidden: Tensor, padding_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Summed squared error in mV² over the samples of hidden leads that are not padding, and their number.

    Shape:
        prediction, source: (B, L, T). hidden: (B, L), bool. padding_mask: (B, T), bool, True = padding.
        returns: (), ().
    """
    counted = hidden[..., None].expand_as(source)
    if padding_mask is not None:
        counted = counted & ~padding_mask[:, None]
    error = torch.where(counted, (prediction.float() - source).square(), 0.0)
    return error.sum(), counted.sum().float()


@dataclass(kw_only=True)
class LeadReconstructionCriterionConfig:
    weight: float = 1.0
    """Factor of the loss."""

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ConfigError(f"criterion.weight={self.weight}: must be above 0")


@register_criterion("lead_reconstruction", config=LeadReconstructionCriterionConfig)
class LeadReconstructionCriterion(nn.Module):
    """Squared error of the leads that the encoder did not see."""

    layout = "single"
    """Each row of a batch is a segment of its own; ``segment_pairs`` would ask for two of a record."""

    def __init__(self, cfg: LeadReconstructionCriterionConfig) -> None:
        super().__init__()
        self.cfg = cfg

    def validate_model(self, model: nn.Module) -> None:
        """Refuse, at start-up, a model without hidden leads."""
        if not hasattr(getattr(model, "cfg", None), "num_hidden_leads"):
            raise ConfigError(
                f"criterion lead_reconstruction needs model lead_reconstruction, not {type(model).__name__}"
            )

    def metrics(self) -> dict[str, dict[str, object]]:
        """Registered metrics to compute in validation, with their options; none here."""
        return {}

    def forward(self, model: nn.Module, batch: Batch) -> StepOutput:
        output = model(batch.source, batch.padding_mask)
        error, count = hidden_lead_error(output.prediction, batch.source, output.hidden, batch.padding_mask)
        loss = self.cfg.weight * error
        logs = {"loss": (loss.detach(), count), "squared_error": (error.detach(), count)}
        return StepOutput(loss, count, logs)
