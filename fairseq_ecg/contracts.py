"""What passes between the rooms: records, batches, step outputs, and the contract a model has with its input.

Shapes use B batch, L lead, T time. Amplitudes are millivolts unless a field says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairseq_ecg.errors import ConfigError

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""Lead names and order used everywhere unless a contract says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One ECG as acquired.

    Shape:
        signal: (lead, time), float32, mV; NaN where the source marks a sample as missing.
    """

    record_id: str
    patient_id: str
    source: str
    signal: NDArray[np.float32]
    leads: tuple[str, ...]
    sampling_rate: int
    labels: tuple[str, ...] = ()
    """Codes as the source gives them (SNOMED CT for the challenge data), in the source's order."""
    likelihoods: tuple[float, ...] = ()
    """Per label the certainty a source states (PTB-XL: percent, 0 where unknown); empty without one."""
    fold: str = ""
    """Name of the record's part in the split its source publishes; empty when it publishes none."""
    age: float = math.nan
    """Years; NaN when unknown."""
    sex: str = ""
    """``female``, ``male`` or empty."""
    date: str = ""
    """ISO 8601, empty when unknown."""
    notes: tuple[str, ...] = ()
    """What the reader repaired or could not verify, one short remark each."""

    @property
    def num_samples(self) -> int:
        return int(self.signal.shape[1])


@dataclass(frozen=True, kw_only=True)
class InputContract:
    """What a model expects of its input; part of every checkpoint, checked whenever data meet a model."""

    sampling_rate: int = 500
    num_samples: int = 2500
    leads: tuple[str, ...] = STANDARD_LEADS
    unit: str = "mV"
    normalisation: str = "none"
    """``none`` (mV as recorded) or ``record_zscore`` (each lead by its mean and std over its record)."""
    filter: str = "none"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "leads": list(self.leads)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"input contract has unknown keys {unknown}; known: {sorted(known)}")
        return cls(**{**values, "leads": tuple(values.get("leads", STANDARD_LEADS))})

    def differences(self, other: InputContract) -> list[str]:
        """Fields in which two contracts disagree, as ``name: mine != theirs``."""
        return [
            f"{item.name}: {getattr(self, item.name)} != {getattr(other, item.name)}"
            for item in fields(self)
            if getattr(self, item.name) != getattr(other, item.name)
        ]


@dataclass(frozen=True, slots=True)
class SampleKey:
    """What the sampler asks for; with the seed it fixes every random choice made for the sample."""

    epoch: int
    index: int
    """Row of the manifest."""
    view: int = 0
    """0, 1 for the two segments of a CMSC pair or the two views of SimCLR."""


@dataclass(frozen=True)
class Keys:
    """The sample keys of one batch as arrays: the form in which they are hashed and gathered.

    Shape:
        index, view: (B,) int64.
    """

    epoch: int
    index: NDArray[np.int64]
    view: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def of(cls, keys: Sequence[SampleKey]) -> Self:
        """Pack single keys; all must belong to one epoch."""
        epochs = {key.epoch for key in keys}
        if len(epochs) != 1:
            raise ValueError(f"keys of one batch belong to one epoch, not {sorted(epochs)}")
        return cls(
            epochs.pop(),
            np.array([key.index for key in keys], dtype=np.int64),
            np.array([key.view for key in keys], dtype=np.int64),
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch.

    The loader makes it with ``source`` as stored (int16) and the augmentations' draws; ``Task.prepare`` turns
    it, on the device, into float32 mV (or normalised) input with the augmentations applied.

    Shape:
        source: (B, L, T), int16 units of the store, or float32 once prepared.
        scale: (B,), float32, mV per unit; ones once prepared.
        lead_mean, lead_std: (B, L), float32, mV over the whole record; None when the store has none.
        padding_mask: (B, T), bool, True = padding; None when no row is padded.
        patient: (B,), int64 code of the patient, the same for equal patients of one manifest.
        segment: (B,), int64, 0 or 1 for the two members of a pair.
        target: (B, K) float32 with NaN for unlabelled, or (B,) int64; None when the task has no labels.
    """

    keys: Keys
    source: Tensor
    scale: Tensor
    patient: Tensor
    segment: Tensor
    lead_mean: Tensor | None = None
    lead_std: Tensor | None = None
    padding_mask: Tensor | None = None
    target: Tensor | None = None
    draws: tuple[Tensor, ...] = ()
    """One per augmentation of the pipeline, in its order."""
    batch_index: int = 0
    """Global index of the micro-batch in its epoch: the same on any number of ranks."""
    weight: float = 1.0
    """0 for the stand-in that keeps ranks in step at a ragged epoch end."""

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str) -> Self:
        """Copy every tensor to a device without waiting for the copies."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=True)
            if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
                return tuple(move(item) for item in value)
            return value

        return replace(self, **{item.name: move(getattr(self, item.name)) for item in fields(self)})


@dataclass(frozen=True)
class StepOutput:
    """What a criterion returns for one micro-batch.

    ``loss`` is a sum over ``sample_size`` terms; the trainer divides once, over micro-batches and ranks.
    """

    loss: Tensor
    sample_size: Tensor
    """() float32: number of terms in ``loss``."""
    logs: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Name -> (sum, count), both detached and on the device; what is reported is the one sum over the other,
    taken over micro-batches and ranks. Names that start with ``loss`` are nats here and bits in the log."""
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    """What metrics and extraction read, detached, one row per sample: ``logits``, ``target``,
    ``encoder_out``, ``padding_mask`` (frames), ``saliency``."""


class Model(Protocol):
    """What the trainer asks of a model besides being an ``nn.Module``; ``models.base`` has the defaults."""

    def before_update(self, num_updates: int) -> None:
        """Set what changes with time (temperature, frozen parts) before update ``num_updates``, from 0."""

    def after_update(self, num_updates: int, skipped: Tensor) -> None:
        """React to an update (EMA teacher). ``skipped``: () float32 device flag, 1 when nothing changed."""


class Metric(Protocol):
    """An accumulator of validation results.

    Each rank feeds ``update`` with its batches; the ``state`` of all ranks are merged before ``compute``.
    """

    def check_labels(self, codes: Sequence[Collection[str]]) -> None:
        """Refuse, at start-up, labels this cannot measure.

        Args:
            codes: codes of every label, in the order of the columns; empty where the data do not tell them.
        """

    def update(self, outputs: Mapping[str, Tensor]) -> None:
        """Add a batch, or the rows [0:0] of one."""

    def state(self) -> dict[str, Tensor]:
        """CPU tensors; a merge concatenates them along axis 0 (sums are kept as one row)."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace what was accumulated by a merged state."""

    def compute(self) -> dict[str, float]: ...

    def reset(self) -> None: ...
