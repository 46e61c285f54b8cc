"""Segments named by a manifest, as batches: one gather each, every random choice from the sample's key."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fairseq_ecg.contracts import Batch, Keys, SampleKey
from fairseq_ecg.data.augment.pipeline import Pipeline
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.segments import Block, open_segments
from fairseq_ecg.data.uniform import Uniform
from fairseq_ecg.errors import ConfigError, DataError

log = logging.getLogger(__name__)

POLICIES = ("error", "zero", "skip")


class ManifestDataset(Dataset[Batch]):
    """Segments of prepared stores, .mat segments or single files.

    Args:
        manifest: the rows.
        leads: wanted leads, in the wanted order.
        num_samples: longer segments are cut to this length at a place drawn per sample; None: no limit.
        pipeline: augmentations to draw for (they are applied on the device).
        seed: of every draw.
        target: labels, row = ``idx`` of the manifest; (R, K) float with NaN for unlabelled, or (R,) integers.
            None: labels that .mat segments or the manifest hold themselves, if any.
        enable_padding: pad shorter segments with zeros to the longest of a batch, and say where in
            ``padding_mask``; without it, all are cut to the shortest of the batch.
        sampling_rate: rate the model expects, Hz; None: the data's.
        on_bad_record: what happens to a file that cannot be read: ``error``; ``zero``: zeros without label;
            ``skip``: left out of its batch, with its partner; a batch of nothing else has weight 0. Stores
            are checked when they are made.

    Raises:
        DataError: data of another rate, without a wanted lead, or labels that do not cover the manifest.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        leads: Sequence[str],
        num_samples: int | None,
        pipeline: Pipeline,
        seed: int,
        target: NDArray[Any] | None = None,
        enable_padding: bool = False,
        sampling_rate: int | None = None,
        on_bad_record: str = "error",
    ) -> None:
        if on_bad_record not in POLICIES:
            raise ConfigError(f"on_bad_record={on_bad_record!r}: one of {', '.join(POLICIES)}")
        self.manifest = manifest
        self.leads = tuple(leads)
        self.num_samples = num_samples
        self.pipeline = pipeline
        self.seed = seed
        self.enable_padding = enable_padding
        self.segments = open_segments(manifest, leads, sampling_rate)
        self.rejected: dict[str, str] = {}
        """record_id -> reason, of files that could not be read."""
        self._on_bad_record = on_bad_record
        self._target = _checked_target(target, manifest)
        self._crop = Uniform(seed, "dataset/crop")

    def __len__(self) -> int:
        return self.manifest.num_rows

    @property
    def has_labels(self) -> bool:
        """False when the label array is known to name no label of any segment."""
        if self._target is None or self._target.ndim != 2 or self.manifest.is_legacy:
            return True  # files are not opened to see
        return not bool(np.isnan(self._target[self.manifest.idx]).all())

    @property
    def sampling_rate(self) -> int:
        """Hz of all segments."""
        return self.segments.sampling_rate

    @property
    def filter(self) -> str:
        """Filters all segments have passed, in the spelling of ``FilterChain``."""
        return self.segments.filter

    def __getitem__(self, key: SampleKey) -> Batch:
        """A batch of one, cut out of its record by the shortest way: the witness of ``gather``."""
        keys = Keys.of([key])
        signal = self.segments.witness(key.index)  # (L, time)
        size = self._width(np.array([signal.shape[1]]))
        start = int(self._skip(keys, np.array([signal.shape[1]]), size)[0])
        batch = self.gather(keys)
        return replace(
            batch,
            source=torch.from_numpy(np.ascontiguousarray(signal[None, :, start : start + size])),
            scale=torch.ones(1),
        )

    def __getitems__(self, keys: list[SampleKey]) -> Batch:
        """One gather for the whole batch: what PyTorch's DataLoader asks for."""
        return self.gather(Keys.of(keys))

    def gather(self, keys: Keys, batch_index: int = 0, weight: float = 1.0) -> Batch:
        """One micro-batch as stored: int16 units (float32 mV from files) and the augmentations' draws.

        Raises:
            DataError: a record that cannot be read, with its name.
        """
        length = self.manifest.num_samples[keys.index]
        size = self._width(length)
        skip = self._skip(keys, length, size)
        block = self.segments.gather(keys.index, skip, size)
        batch = Batch(
            keys=keys,
            source=block.source,
            scale=torch.from_numpy(block.scale),
            patient=torch.from_numpy(block.patient),
            segment=torch.from_numpy(keys.view),
            lead_mean=None if block.lead_mean is None else torch.from_numpy(block.lead_mean),
            lead_std=None if block.lead_std is None else torch.from_numpy(block.lead_std),
            padding_mask=_padding_mask(length, size) if self.enable_padding else None,
            target=self._targets(keys.index, block),
            draws=self.pipeline.draw(keys, len(self.leads), size, self.seed),
            batch_index=batch_index,
            weight=weight,
        )
        return self._without_failures(batch, block) if block.failures else batch

    def _width(self, length: NDArray[np.int64]) -> int:
        size = int(length.max() if self.enable_padding else length.min())
        return size if self.num_samples is None else min(size, self.num_samples)

    def _skip(self, keys: Keys, length: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """Samples to leave out before the cut: uniform over every place where ``size`` samples fit."""
        room = (length - size).clip(min=0)
        if not room.any():
            return room
        skip: NDArray[np.int64] = np.floor(self._crop(keys, 1)[:, 0] * (room + 1)).astype(np.int64)
        return skip

    def _targets(self, rows: NDArray[np.int64], block: Block) -> Tensor | None:
        if self._target is not None:
            if block.idx.max() >= len(self._target):
                raise DataError(_too_few_labels(len(self._target), int(block.idx.max()), self.manifest))
            target = torch.from_numpy(self._target[block.idx])
        elif self.manifest.label is not None:
            return torch.from_numpy(self.manifest.label[rows])
        elif block.target is not None:
            return torch.from_numpy(block.target)
        else:
            return None
        if target.is_floating_point():
            for place in block.failures:
                target[place] = torch.nan
        return target

    def _without_failures(self, batch: Batch, block: Block) -> Batch:
        for place, error in sorted(block.failures.items()):
            record_id = self.manifest.record_ids[int(batch.keys.index[place])]
            if self._on_bad_record == "error":
                raise DataError(f"record {record_id!r}: {error}") from error
            if record_id not in self.rejected:
                self.rejected[record_id] = str(error)
                log.warning("record %r left out (%s): %s", record_id, self._on_bad_record, error)
        if self._on_bad_record == "zero":
            return batch
        unit = np.cumsum(batch.keys.view == 0) - 1
        good = ~np.isin(unit, unit[list(block.failures)])
        if not good.any():
            return _stand_in(batch)
        return select_rows(batch, np.flatnonzero(good))


def _stand_in(batch: Batch) -> Batch:
    """Zeros without labels that count nothing, so that every rank still has equally many batches."""
    target = batch.target
    if target is not None and target.is_floating_point():
        target = torch.full_like(target, torch.nan)
    return replace(batch, source=torch.zeros_like(batch.source), target=target, weight=0.0)


def select_rows(batch: Batch, rows: NDArray[np.int64]) -> Batch:
    """Some rows of a batch, in the given order."""
    place = torch.from_numpy(rows)

    def pick(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[place]

    return replace(
        batch,
        keys=Keys(batch.keys.epoch, batch.keys.index[rows], batch.keys.view[rows]),
        source=batch.source[place],
        scale=batch.scale[place],
        patient=batch.patient[place],
        segment=batch.segment[place],
        lead_mean=pick(batch.lead_mean),
        lead_std=pick(batch.lead_std),
        padding_mask=pick(batch.padding_mask),
        target=pick(batch.target),
        draws=tuple(draw[place] for draw in batch.draws),
    )


def _padding_mask(length: NDArray[np.int64], size: int) -> Tensor | None:
    """(B, T) bool, True = padding; None when no row is padded."""
    if length.min() >= size:
        return None
    return torch.from_numpy(np.arange(size)[None, :] >= length[:, None])


def _checked_target(target: NDArray[Any] | None, manifest: Manifest) -> NDArray[Any] | None:
    if target is None:
        return None
    if target.ndim == 2 and target.dtype.kind in "fbiu":
        target = target.astype(np.float32)
    elif target.ndim == 1 and target.dtype.kind in "iu":
        target = target.astype(np.int64)
    else:
        raise DataError(
            f"labels of shape {target.shape} and type {target.dtype}; needed are (rows, classes) numbers or "
            "(rows,) whole numbers, one row per idx of the manifest"
        )
    if not manifest.is_legacy and manifest.idx.max() >= len(target):
        raise DataError(_too_few_labels(len(target), int(manifest.idx.max()), manifest))
    return target


def _too_few_labels(num_rows: int, idx: int, manifest: Manifest) -> str:
    return (
        f"the label file has {num_rows} rows, {manifest.path} names idx {idx}; "
        "use the y.npy that was made with the manifest (fairseq-ecg manifest split ... --labels NAME)"
    )
