"""Contrastive multi-segment coding (Kiyasseh et al. 2021, arXiv 2005.13249) as fairseq-signals computes it.

The two segments of a pair are positives, and so are all segments of the same patient that meet in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fairseq_ecg.contracts import Batch, StepOutput
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.registry import register_criterion


def detached_normalise(features: Tensor, eps: float) -> Tensor:
    """Divide by the norm, which the gradient treats as a constant: (n, D) -> (n, D), float32."""
    features = features.float()
    norm: Tensor = torch.linalg.vector_norm(features.detach(), dim=1, keepdim=True)
    return features / norm.clamp(min=eps)


def cmsc_loss(
    features: Tensor, patient: Tensor, segment: Tensor, temp: float = 0.1, eps: float = 1e-8
) -> tuple[Tensor, Tensor]:
    """Mean InfoNCE over all pairs (segment 0, segment 1) of equal patients, over both directions.

    S = A Bᵀ / temp with A the rows of segment 0 and B those of segment 1; with P the pairs of equal patients
    loss = (mean_P -log softmax_rows(S) + mean_P -log softmax_columns(S)) / 2. All of P stays in the
    denominators. The rows are not taken apart: the whole (n, n) matrix is masked, so that shapes do not
    depend on the data.

    Shape:
        features: (n, D). patient, segment: (n,), int64.
        returns: loss (), number of positive pairs ().
    """
    z = detached_normalise(features, eps)
    scores = z @ z.T / temp
    first, second = segment == 0, segment == 1
    positive = first[:, None] & second & (patient[:, None] == patient)
    count = positive.sum()
    lowest = torch.finfo(scores.dtype).min
    total = torch.zeros((), device=scores.device)
    for others, matrix, pairs in ((second, scores, positive), (first, scores.T, positive.T)):
        log_probs = matrix.masked_fill(~others, lowest).log_softmax(dim=1)
        total = total - torch.where(pairs, log_probs, 0.0).sum()
    return total / (2 * count.clamp(min=1)), count


@dataclass(kw_only=True)
class CmscConfig:
    temp: float = 0.1
    """Temperature of the similarities."""
    eps: float = 1e-8
    """Smallest norm a feature is divided by."""

    def __post_init__(self) -> None:
        if self.temp <= 0:
            raise ConfigError(f"criterion.temp={self.temp}: must be above 0")


@runtime_checkable
class Frames(Protocol):
    """What ``models.base.EncoderOutput`` offers here."""

    def pooled(self) -> Tensor:
        """Mean over the frames that are not padding: (B, C)."""


def _frames(output: object) -> Frames:
    """What a model answers, or the part ``encoder`` of it, as classifiers and wav2vec 2.0 have."""
    frames = getattr(output, "encoder", output)
    if not isinstance(frames, Frames):
        raise ConfigError(
            f"criterion cmsc needs a model that returns its frames, this one returns "
            f"{type(output).__name__}; choose model ecg_transformer"
        )
    return frames


@register_criterion("cmsc", config=CmscConfig)
class Cmsc(nn.Module):
    """CMSC alone, on the mean frame of an encoder.

    The loss is a mean over positive pairs. The reference divides its gradient once more by their number; here
    the sum over pairs is returned with their number, so that the update uses the mean.
    """

    layout = "segment_pairs"

    def __init__(self, cfg: CmscConfig) -> None:
        super().__init__()
        self.cfg = cfg

    def validate_model(self, model: nn.Module) -> None:
        if not callable(getattr(model, "encode", None)):
            raise ConfigError(f"criterion cmsc needs an encoder, {type(model).__name__} has no encode()")

    def metrics(self) -> dict[str, dict[str, object]]:
        return {}

    def forward(self, model: nn.Module, batch: Batch) -> StepOutput:
        frames = _frames(model(batch.source, batch.padding_mask))
        with torch.autocast(batch.source.device.type, enabled=False):
            mean, count = cmsc_loss(
                frames.pooled().float(), batch.patient, batch.segment, self.cfg.temp, self.cfg.eps
            )
        size = count.float()
        loss = mean * size
        return StepOutput(loss, size, {"loss": (loss.detach(), size)})
