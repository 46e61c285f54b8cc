"""From stored units to model input, batched, on whatever device the batch is on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fairseq_ecg.contracts import Batch
from fairseq_ecg.data.augment.pipeline import Pipeline
from fairseq_ecg.data.buffers import POOL
from fairseq_ecg.errors import ConfigError, DataError

NORMALISATIONS = ("none", "record_zscore")


def dequantise(batch: Batch) -> Batch:
    """int16 units -> float32 mV; the batch that is given stays as it is."""
    return _prepared(batch, "none", None)


def normalise(batch: Batch, normalisation: str) -> Batch:
    """Apply an input contract's normalisation, to mV.

    ``record_zscore``: (x - mean) / std of each lead over its whole record; a constant lead becomes 0, and
    padding stays 0.

    Raises:
        ConfigError: an unknown normalisation.
        DataError: ``record_zscore`` of data whose records' mean and deviation are not known.
    """
    return _prepared(batch, normalisation, None)


def prepare_source(batch: Batch, pipeline: Pipeline, normalisation: str, *, train: bool) -> Batch:
    """Dequantise, normalise and, in training, augment: (B, L, T) as stored -> float32 input of the model."""
    if not train or not len(pipeline):
        return replace(_prepared(batch, normalisation, None), draws=())
    done, gain = pipeline.leading_gain(batch.draws)
    batch = _prepared(batch, normalisation, gain)
    return replace(batch, source=pipeline.apply(batch.source, batch.draws, first=done), draws=())


def _prepared(batch: Batch, normalisation: str, gain: Tensor | None) -> Batch:
    """``source * scale``, normalised, times ``gain`` (B, L): in place in one new tensor."""
    if normalisation not in NORMALISATIONS:
        raise ConfigError(f"normalisation={normalisation!r}: one of {', '.join(NORMALISATIONS)}")
    source = _empty_like(batch.source)
    # A converting copy and products in place: PyTorch's mixed-type product is half as fast on the CPU.
    source.copy_(batch.source, non_blocking=True)
    scale = batch.scale[:, None]  # (B, 1)
    if normalisation == "none":
        source.mul_((scale if gain is None else scale * gain)[..., None])
    else:
        if batch.lead_mean is None or batch.lead_std is None:
            raise DataError(
                "record_zscore needs each record's mean and deviation, which .mat segments do not hold; "
                "use a prepared store (fairseq-ecg prepare)"
            )
        is_constant = batch.lead_std == 0
        factor = torch.where(is_constant, 0.0, 1.0 / torch.where(is_constant, 1.0, batch.lead_std))
        factor = factor if gain is None else factor * gain
        source.mul_(scale[..., None]).sub_(batch.lead_mean[..., None]).mul_(factor[..., None])
        if batch.padding_mask is not None:
            source.masked_fill_(batch.padding_mask[:, None, :], 0.0)
    return replace(batch, source=source, scale=torch.ones_like(batch.scale))


def _empty_like(source: Tensor) -> Tensor:
    if source.device.type == "cpu":
        return POOL.take(tuple(source.shape), torch.float32)
    return torch.empty_like(source, dtype=torch.float32)
