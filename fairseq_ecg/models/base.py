"""What every model has: hooks around an update, layer numbers for layer-wise rates, reports of loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fairseq_ecg.contracts import InputContract
from fairseq_ecg.errors import CheckpointError, ConfigError
from fairseq_ecg.nn.pooling import masked_mean


@dataclass(frozen=True)
class EncoderOutput:
    """Frames of an encoder.

    Shape:
        frames: (B, F, C). padding_mask: (B, F) bool, True = padding, or None.
        saliency: (B, layers, F, F), attention averaged over heads, when the model was built with
        ``saliency``.
    """

    frames: Tensor
    padding_mask: Tensor | None = None
    saliency: Tensor | None = None

    def pooled(self) -> Tensor:
        """Mean over the frames that are not padding: (B, C)."""
        return masked_mean(self.frames, self.padding_mask)


@runtime_checkable
class Encoder(Protocol):
    """What a classifier, a probe and ``load_encoder`` ask of a model."""

    @property
    def embed_dim(self) -> int: ...

    def encode(self, source: Tensor, padding_mask: Tensor | None = None) -> EncoderOutput:
        """Encode (B, L, T) mV as frames, without masking."""


@runtime_checkable
class Classifier(Protocol):
    """What an evaluation of a model's own head asks of it."""

    @property
    def num_labels(self) -> int: ...

    def classify(self, source: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Logits (B, K), one per label and independent of each other, of (B, L, T) mV."""


class EcgModel(nn.Module):
    """Base of the models; each hook does nothing unless a model needs it."""

    @property
    def num_layers(self) -> int:
        """Number of different values of ``layer_index``."""
        return 2

    def layer_index(self, name: str) -> int:
        """Depth of a parameter for layer-wise rates: 0 at the input, ``num_layers - 1`` at the head."""
        raise ConfigError(
            f"optimizer.layer_decay: {type(self).__name__} does not number its layers "
            f"(asked for {name!r}); set it to 1"
        )

    @property
    def has_unused_parameters(self) -> bool:
        """Whether some update leaves a trainable parameter without gradient (DDP must then look for them)."""
        return False

    def forward_flops(self, num_samples: int) -> float | None:
        """Floating-point operations of one segment's forward pass; None: the log shows no utilisation."""
        return None

    def before_update(self, num_updates: int) -> None:
        """Set what changes with time before update ``num_updates``, counted from 0."""

    def after_update(self, num_updates: int, skipped: Tensor) -> None:
        """React to an update; ``skipped`` is a () float32 device flag, 1 when no parameter changed."""

    def validate_contract(self, contract: InputContract) -> None:
        """Refuse, at start-up, input this model cannot take.

        Raises:
            ConfigError: with the options that disagree.
        """


@dataclass(frozen=True)
class LoadReport:
    """What a load found: names of tensors."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    """Of the model, absent from the file: they keep their initial values."""
    unexpected: tuple[str, ...]
    """Of the file, without a place in the model."""

    def __str__(self) -> str:
        def some(names: tuple[str, ...]) -> str:
            shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            return f"{len(names)}" + (f" ({shown})" if names else "")

        counts = f"missing {some(self.missing)}, unexpected {some(self.unexpected)}"
        return f"loaded {len(self.loaded)} tensors, {counts}"


def load_tensors(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> LoadReport:
    """Copy the tensors a module has a place for.

    Raises:
        CheckpointError: no name matches, or a shape differs; ``source`` says where the tensors came from.
    """
    own = module.state_dict()
    loaded = tuple(name for name in own if name in state)
    if not loaded:
        raise CheckpointError(
            f"{source}: none of its {len(state)} tensors belongs to this model (it has "
            f"{next(iter(state), 'none')}, "
            f"the model {next(iter(own), 'none')}); give a checkpoint of the same family"
        )
    for name in loaded:
        if own[name].shape != state[name].shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(state[name].shape)}, the model's is "
                f"{tuple(own[name].shape)}; "
                "set the model's sizes to those of the checkpoint"
            )
    with torch.no_grad():
        module.load_state_dict({name: state[name] for name in loaded}, strict=False)
    return LoadReport(
        loaded,
        tuple(name for name in own if name not in state),
        tuple(name for name in state if name not in own),
    )
