"""From stored units to model input, batched, on whatever device the batch is on."""

from __future__ import annotations

from dataclasses import replace

import torch

from fairseq_ecg.contracts import Batch
from fairseq_ecg.data.augment.pipeline import Pipeline
from fairseq_ecg.errors import ConfigError, DataError

NORMALISATIONS = ("none", "record_zscore")


def dequantise(batch: Batch) -> Batch:
    """int16 units -> float32 mV; the batch that is given stays as it is."""
    # A copy and a product in place: PyTorch's mixed-type product is half as fast on the CPU.
    source = batch.source.to(torch.float32, copy=True)
    source.mul_(batch.scale[:, None, None])
    return replace(batch, source=source, scale=torch.ones_like(batch.scale))


def normalise(batch: Batch, normalisation: str) -> Batch:
    """Apply an input contract's normalisation to a batch in mV.

    ``record_zscore``: (x - mean) / std of each lead over its whole record; a constant lead becomes 0, and
    padding stays 0.

    Raises:
        ConfigError: an unknown normalisation.
        DataError: ``record_zscore`` of data whose records' mean and deviation are not known.
    """
    if normalisation == "none":
        return batch
    if normalisation not in NORMALISATIONS:
        raise ConfigError(f"normalisation={normalisation!r}: one of {', '.join(NORMALISATIONS)}")
    if batch.lead_mean is None or batch.lead_std is None:
        raise DataError(
            "record_zscore needs each record's mean and deviation, which .mat segments do not hold; "
            "use a prepared store (fairseq-ecg prepare)"
        )
    is_constant = batch.lead_std == 0
    gain = torch.where(is_constant, 0.0, 1.0 / torch.where(is_constant, 1.0, batch.lead_std))
    source = (batch.source - batch.lead_mean[..., None]).mul_(gain[..., None])
    if batch.padding_mask is not None:
        source.masked_fill_(batch.padding_mask[:, None, :], 0.0)
    return replace(batch, source=source)


def prepare_source(batch: Batch, pipeline: Pipeline, normalisation: str, *, train: bool) -> Batch:
    """Dequantise, normalise and, in training, augment."""
    batch = normalise(dequantise(batch), normalisation)
    if not train or not len(pipeline):
        return batch
    return replace(batch, source=pipeline.apply(batch.source, batch.draws), draws=())
