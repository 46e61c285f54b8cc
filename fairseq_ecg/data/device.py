"""From stored units to model input, batched, on whatever device the batch is on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fairseq_ecg.contracts import STANDARD_LEADS, Batch
from fairseq_ecg.data.augment.pipeline import Pipeline
from fairseq_ecg.data.buffers import POOL
from fairseq_ecg.data.normalise import PTBXL_EPS, Normalisation, ptbxl_statistics
from fairseq_ecg.errors import ConfigError, DataError


def dequantise(batch: Batch) -> Batch:
    """int16 units -> float32 mV; the batch that is given stays as it is."""
    return _prepared(batch, "none", None, ())


def normalise(batch: Batch, normalisation: str, leads: Sequence[str] = STANDARD_LEADS) -> Batch:
    """Apply an input contract's normalisation, to mV.

    ``record_zscore``: (x - mean) / std of each lead over its whole record; a constant lead becomes 0.
    ``ptbxl_zscore``: the same by constants per lead name. Padding stays 0.

    Raises:
        ConfigError: an unknown normalisation.
        DataError: ``record_zscore`` of data whose records' mean and deviation are not known, ``ptbxl_zscore``
            of a lead that is none of the twelve.
    """
    return _prepared(batch, normalisation, None, leads)


def prepare_source(
    batch: Batch,
    pipeline: Pipeline,
    normalisation: str,
    *,
    train: bool,
    leads: Sequence[str] = STANDARD_LEADS,
) -> Batch:
    """Dequantise, normalise and, in training, augment: (B, L, T) as stored -> float32 input of the model.

    ``leads`` names the rows of the batch, for a normalisation that depends on them.
    """
    if not train or not len(pipeline):
        return replace(_prepared(batch, normalisation, None, leads), draws=())
    done, gain = pipeline.leading_gain(batch.draws)
    batch = _prepared(batch, normalisation, gain, leads)
    return replace(batch, source=pipeline.apply(batch.source, batch.draws, first=done), draws=())


def _prepared(batch: Batch, normalisation: str, gain: Tensor | None, leads: Sequence[str]) -> Batch:
    """``source * scale``, normalised, times ``gain`` (B, L): in place in one new tensor."""
    if normalisation not in list(Normalisation):
        raise ConfigError(f"normalisation={normalisation!r}: one of {', '.join(Normalisation)}")
    source = _empty_like(batch.source)
    # A converting copy and products in place: PyTorch's mixed-type product is half as fast on the CPU.
    source.copy_(batch.source, non_blocking=True)
    scale = batch.scale[:, None]  # (B, 1)
    if normalisation == "none":
        source.mul_((scale if gain is None else scale * gain)[..., None])
    else:
        mean, factor = _mean_and_factor(batch, normalisation, leads)
        factor = factor if gain is None else factor * gain
        source.mul_(scale[..., None]).sub_(mean[..., None]).mul_(factor[..., None])
        if batch.padding_mask is not None:
            source.masked_fill_(batch.padding_mask[:, None, :], 0.0)
    return replace(batch, source=source, scale=torch.ones_like(batch.scale))


def _mean_and_factor(batch: Batch, normalisation: str, leads: Sequence[str]) -> tuple[Tensor, Tensor]:
    """What is taken off each lead, and what the rest is multiplied by: (B, L) or (L,)."""
    if normalisation == Normalisation.PTBXL_ZSCORE:
        if len(leads) != batch.source.shape[1]:
            raise ValueError(f"{len(leads)} lead names for {batch.source.shape[1]} leads")
        mean, deviation = (torch.from_numpy(values) for values in ptbxl_statistics(leads))
        device = batch.source.device
        return mean.to(device, non_blocking=True), (1 / (deviation + PTBXL_EPS)).to(device, non_blocking=True)
    if batch.lead_mean is None or batch.lead_std is None:
        raise DataError(
            "record_zscore needs each record's mean and deviation, which .mat segments do not hold; "
            "use a prepared store (fairseq-ecg prepare)"
        )
    is_constant = batch.lead_std == 0
    return batch.lead_mean, torch.where(is_constant, 0.0, 1.0 / torch.where(is_constant, 1.0, batch.lead_std))


def _empty_like(source: Tensor) -> Tensor:
    if source.device.type == "cpu":
        return POOL.take(tuple(source.shape), torch.float32)
    return torch.empty_like(source, dtype=torch.float32)
