"""A model derives from EcgModel and takes its finished config; options come from the dataclass above it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_ecg.errors import ConfigError
from fairseq_ecg.models.base import EcgModel, EncoderOutput
from fairseq_ecg.registry import register_model


@dataclass(kw_only=True)
class LeadReconstructionConfig:
    in_d: int = 12
    """Leads."""
    embed_dim: int = 128
    """Channels of a frame."""
    depth: int = 4
    """Convolutions, each of which halves the time axis."""
    num_hidden_leads: int = 3
    """Leads hidden from the encoder, drawn anew for every sample."""

    def __post_init__(self) -> None:
        if self.embed_dim < 1 or self.depth < 1:
            raise ConfigError(
                f"model.embed_dim={self.embed_dim}, model.depth={self.depth}: must be at least 1"
            )
        if not 0 < self.num_hidden_leads < self.in_d:
            raise ConfigError(
                f"model.num_hidden_leads={self.num_hidden_leads}: hide at least one and show at least one of "
                f"model.in_d={self.in_d} leads"
            )

    @classmethod
    def tiny(cls) -> Self:
        """A size for tests."""
        return cls(embed_dim=8, depth=2)


@dataclass(frozen=True)
class LeadReconstructionOutput:
    """Shape:
    prediction: (B, L, T), mV. hidden: (B, L), bool, True = the encoder did not see this lead.
    """

    prediction: Tensor
    hidden: Tensor


@register_model("lead_reconstruction", config=LeadReconstructionConfig)
class LeadReconstruction(EcgModel):
    """Encode the visible leads as frames and decode all leads from the frames.

    Shape:
        source: (B, L, T), float32, mV. padding_mask: (B, T), bool, True = padding.
    """

    def __init__(self, cfg: LeadReconstructionConfig) -> None:
        super().__init__()
        self.cfg = cfg
        channels = [cfg.in_d] + [cfg.embed_dim] * cfg.depth
        self.encoder = nn.ModuleList(
            nn.Conv1d(channels[i], channels[i + 1], kernel_size=5, stride=2, padding=2)
            for i in range(cfg.depth)
        )
        self.decoder = nn.ConvTranspose1d(cfg.embed_dim, cfg.in_d, kernel_size=self.hop, stride=self.hop)

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return int(2**self.cfg.depth)

    @property
    def embed_dim(self) -> int:
        return self.cfg.embed_dim

    def encode(self, source: Tensor, padding_mask: Tensor | None = None) -> EncoderOutput:
        """(B, L, T) -> frames (B, F, C) of ``hop`` samples each, without hiding anything.

        With this method and ``embed_dim`` the model can be probed and embedded like the built-in ones.
        """
        if padding_mask is not None:
            source = source.masked_fill(padding_mask[:, None], 0.0)
        frames = F.pad(source, (0, -source.shape[-1] % self.hop))
        for layer in self.encoder:
            frames = F.gelu(layer(frames))
        frame_mask = None
        if padding_mask is not None:
            padded = F.pad(padding_mask, (0, -padding_mask.shape[-1] % self.hop), value=True)
            frame_mask = padded.unflatten(1, (-1, self.hop)).all(dim=2)
        return EncoderOutput(frames.transpose(1, 2), frame_mask)

    def forward(
        self, source: Tensor, padding_mask: Tensor | None = None, hidden: Tensor | None = None
    ) -> LeadReconstructionOutput:
        """``hidden`` (B, L) may be given by a test; otherwise it is drawn, from the trainer's seeding."""
        if hidden is None:
            order = torch.rand(source.shape[:2], device=source.device).argsort(dim=1)
            hidden = order < self.cfg.num_hidden_leads
        encoded = self.encode(source.masked_fill(hidden[..., None], 0.0), padding_mask)
        prediction = self.decoder(encoded.frames.transpose(1, 2))[..., : source.shape[-1]]
        return LeadReconstructionOutput(prediction, hidden)

    @property
    def num_layers(self) -> int:
        return self.cfg.depth + 1

    def layer_index(self, name: str) -> int:
        """Depth of a parameter, for ``optimizer.layer_decay``: 0 at the input, the decoder last."""
        return int(name.split(".")[1]) if name.startswith("encoder.") else self.cfg.depth
