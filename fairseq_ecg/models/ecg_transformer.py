"""The encoder of fairseq-signals: convolutions over all leads jointly, then a transformer over frames.

wav2vec 2.0 (Baevski et al. 2020, arXiv 2006.11477) as adapted to ECG by Oh et al. 2022 (arXiv 2203.06889).
Parameter names and their order are the reference's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import torch
from torch import Tensor, nn

from fairseq_ecg.contracts import InputContract
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.models.base import EcgModel, EncoderOutput
from fairseq_ecg.nn.conv import (
    ConvFeatureExtractor,
    ConvPositionalEmbedding,
    frame_lengths,
    parse_conv_layers,
)
from fairseq_ecg.nn.dropout import Dropout
from fairseq_ecg.nn.grad import scale_gradient
from fairseq_ecg.nn.masking import MaskSelection
from fairseq_ecg.nn.transformer import TransformerEncoder, TransformerLayer
from fairseq_ecg.registry import register_model


class ExtractorMode(StrEnum):
    DEFAULT = "default"
    LAYER_NORM = "layer_norm"


@dataclass(kw_only=True)
class EcgTransformerConfig:
    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    layer_norm_first: bool = False
    """Pre-norm layers; the default is post-norm."""
    saliency: bool = False
    """Return the attention probabilities of every layer, averaged over heads."""
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    encoder_layerdrop: float = 0.0
    """Probability that a layer is skipped in training."""
    dropout_input: float = 0.0
    """On the projected features that enter the transformer."""
    dropout_features: float = 0.0
    """On the features that become targets."""
    apply_mask: bool = False
    """Mask spans of frames (the wav2vec2 models only)."""
    mask_length: int = 10
    mask_prob: float = 0.0
    mask_selection: MaskSelection = MaskSelection.STATIC
    mask_other: float = 0.0
    no_mask_overlap: bool = False
    mask_min_space: int = 1
    mask_channel_length: int = 10
    mask_channel_prob: float = 0.0
    mask_channel_selection: MaskSelection = MaskSelection.STATIC
    mask_channel_other: float = 0.0
    no_mask_channel_overlap: bool = False
    mask_channel_min_space: int = 1
    extractor_mode: ExtractorMode = ExtractorMode.DEFAULT
    """default: a norm after the first convolution only; layer_norm: after each."""
    conv_feature_layers: str = "[(256, 2, 2)] * 4"
    """(channels, kernel, stride) of each convolution; lists may be added and multiplied by an integer."""
    in_d: int = 12
    """Leads."""
    conv_bias: bool = False
    feature_grad_mult: float = 1.0
    """Factor on the gradient of the convolutions; 0 freezes them."""
    conv_pos: int = 128
    """Kernel size of the positional convolution."""
    conv_pos_groups: int = 16
    all_gather: bool = False
    """Contrast over all devices; not available: the contrast is over the micro-batch."""

    def __post_init__(self) -> None:
        parse_conv_layers(self.conv_feature_layers)
        counts = ("encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads")
        for name in (*counts, "in_d", "conv_pos", "conv_pos_groups", "mask_length", "mask_channel_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}={getattr(self, name)}: must be at least 1")
        for name in (
            "dropout",
            "attention_dropout",
            "activation_dropout",
            "dropout_input",
            "dropout_features",
        ):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"model.{name}={getattr(self, name)}: must lie in [0, 1)")
        if not 0.0 <= self.encoder_layerdrop < 1.0:
            raise ConfigError(f"model.encoder_layerdrop={self.encoder_layerdrop}: must lie in [0, 1)")
        if self.encoder_embed_dim % self.encoder_attention_heads:
            raise ConfigError(
                f"model.encoder_embed_dim={self.encoder_embed_dim} is not a multiple of "
                f"model.encoder_attention_heads={self.encoder_attention_heads}"
            )
        if self.all_gather:
            raise ConfigError(
                "model.all_gather=true is not available; remove it (contrast within the micro-batch)"
            )

    @classmethod
    def tiny(cls) -> Self:
        """The size every conformance test builds."""
        return cls(
            encoder_layers=2,
            encoder_embed_dim=16,
            encoder_ffn_embed_dim=32,
            encoder_attention_heads=2,
            conv_feature_layers="[(8, 2, 2)] * 4",
            conv_pos=4,
            conv_pos_groups=2,
        )


def forward_flops(cfg: EcgTransformerConfig, num_samples: int) -> float:
    """Floating-point operations of one segment's forward pass, a multiply and an add counted as two.

    Counted from shapes: convolutions, projection, positional convolution and transformer as the direct
    algorithm does them, whatever the program really runs. An update costs three times that.
    """
    total, length, channels = 0.0, num_samples, cfg.in_d
    for width, kernel, stride in parse_conv_layers(cfg.conv_feature_layers):
        length = (length - kernel) // stride + 1
        total += 2 * length * width * kernel * channels
        channels = width
    dim, ffn = cfg.encoder_embed_dim, cfg.encoder_ffn_embed_dim
    total += 2 * length * channels * dim
    total += 2 * length * dim * (dim // cfg.conv_pos_groups) * cfg.conv_pos
    layer = 2 * length * (4 * dim * dim + 2 * dim * ffn) + 4 * length * length * dim
    return total + cfg.encoder_layers * layer


@dataclass(frozen=True)
class FrontEnd:
    """What the convolutions make of the signal.

    Shape:
        conv: (B, C, F), their output. features: (B, F, C), its layer norm over channels.
        padding_mask: (B, F) bool, or None.
    """

    conv: Tensor
    features: Tensor
    padding_mask: Tensor | None


@register_model("ecg_transformer", config=EcgTransformerConfig)
class EcgTransformer(EcgModel):
    """Encode (B, L, T) mV as frames of 16 samples, with the default convolutions.

    Shape:
        source: (B, L, T), float32, mV. padding_mask: (B, T), bool, True = padding.
        returns: ``EncoderOutput`` with frames (B, F, C).
    """

    masks_time = False
    """Whether ``apply_mask`` means something to this class."""

    def __init__(self, cfg: EcgTransformerConfig) -> None:
        super().__init__()
        if cfg.apply_mask and not self.masks_time:
            raise ConfigError(
                "model.apply_mask=true: only wav2vec2 and wav2vec2_cmsc mask frames; remove it or "
                "choose one of those"
            )
        self.cfg = cfg
        self.conv_layers = parse_conv_layers(cfg.conv_feature_layers)
        channels, width = self.conv_layers[-1][0], cfg.encoder_embed_dim
        if self.masks_time and cfg.apply_mask:
            self.mask_emb = nn.Parameter(torch.empty(width).uniform_())
        self.encoder = TransformerEncoder(
            [_layer(cfg) for _ in range(cfg.encoder_layers)],
            width,
            dropout=cfg.dropout,
            layerdrop=cfg.encoder_layerdrop,
        )
        self.feature_extractor = ConvFeatureExtractor(
            self.conv_layers, cfg.in_d, mode=cfg.extractor_mode, conv_bias=cfg.conv_bias
        )
        if cfg.feature_grad_mult <= 0.0:
            # Frozen for good: DDP and the optimizer need not know these parameters.
            self.feature_extractor.requires_grad_(False)
        self.post_extract_proj = nn.Linear(channels, width) if channels != width else None
        self.conv_pos = ConvPositionalEmbedding(width, cfg.conv_pos, cfg.conv_pos_groups)
        self.layer_norm = nn.LayerNorm(channels)
        self.dropout_input = Dropout(cfg.dropout_input)

    @property
    def embed_dim(self) -> int:
        return self.cfg.encoder_embed_dim

    @property
    def num_layers(self) -> int:
        return self.cfg.encoder_layers + 2

    def validate_contract(self, contract: InputContract) -> None:
        """Refuse another number of leads than ``in_d``.

        Raises:
            ConfigError: with the options that repair it.
        """
        if len(contract.leads) != self.cfg.in_d:
            raise ConfigError(
                f"model.in_d={self.cfg.in_d}, but the task gives {len(contract.leads)} leads; set "
                f"model.in_d={len(contract.leads)}, or task.enable_padding_leads=true to keep twelve"
            )

    def forward_flops(self, num_samples: int) -> float | None:
        return forward_flops(self.cfg, num_samples)

    def layer_index(self, name: str) -> int:
        parts = name.split(".")
        if parts[:2] == ["encoder", "layers"]:
            return int(parts[2]) + 1
        front = {"mask_emb", "feature_extractor", "post_extract_proj", "conv_pos", "layer_norm"}
        if parts[0] in front or (parts[0] == "encoder" and not self.cfg.layer_norm_first):
            return 0
        return self.num_layers - 1

    def forward(self, source: Tensor, padding_mask: Tensor | None = None) -> EncoderOutput:
        return self.encode(source, padding_mask)

    def encode(self, source: Tensor, padding_mask: Tensor | None = None) -> EncoderOutput:
        """Encode without masking frames."""
        front = self.front_end(source, padding_mask)
        return self.contextualise(self.project(front.features), front.padding_mask)

    def front_end(self, source: Tensor, padding_mask: Tensor | None) -> FrontEnd:
        """Convolutions and their layer norm."""
        conv = self.feature_extractor(source)
        if self.cfg.feature_grad_mult > 0.0:
            conv = scale_gradient(conv, self.cfg.feature_grad_mult)
        return FrontEnd(
            conv, self.layer_norm(conv.transpose(1, 2)), self._frame_padding(padding_mask, conv.shape[-1])
        )

    def project(self, features: Tensor) -> Tensor:
        """(B, F, C) features to the transformer's width."""
        x = features if self.post_extract_proj is None else self.post_extract_proj(features)
        dropped: Tensor = self.dropout_input(x)
        return dropped

    def contextualise(self, x: Tensor, padding_mask: Tensor | None) -> EncoderOutput:
        """Positions and transformer; the positional convolution sees padded frames, as in the reference."""
        x = x + self.conv_pos(x)
        frames, saliency = self.encoder(x, padding_mask, need_probs=self.cfg.saliency)
        return EncoderOutput(frames, padding_mask, saliency)

    def _frame_padding(self, padding_mask: Tensor | None, num_frames: int) -> Tensor | None:
        """A frame is valid when the samples before the padding suffice to make it."""
        if padding_mask is None:
            return None
        lengths: Tensor = frame_lengths((~padding_mask).sum(dim=1), self.conv_layers)
        return torch.arange(num_frames, device=padding_mask.device) >= lengths[:, None]


def _layer(cfg: EcgTransformerConfig) -> TransformerLayer:
    return TransformerLayer(
        cfg.encoder_embed_dim,
        cfg.encoder_ffn_embed_dim,
        cfg.encoder_attention_heads,
        dropout=cfg.dropout,
        attention_dropout=cfg.attention_dropout,
        activation_dropout=cfg.activation_dropout,
        norm_first=cfg.layer_norm_first,
    )


def sizes_from_tensors(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Config values that the shapes of an encoder's tensors fix; ``config`` supplies what they do not.

    Shapes win: configs of fine-tuned reference checkpoints can name other sizes than their weights have.
    Strides leave no trace in a tensor, so a convolution keeps the config's stride where channels and kernel
    agree and otherwise gets its kernel size, which is the family's choice.
    """
    layers = {int(name.split(".")[2]) for name in state if name.startswith("encoder.layers.")}
    convs: list[Tensor] = []
    while (weight := state.get(f"feature_extractor.conv_layers.{len(convs)}.0.weight")) is not None:
        convs.append(weight)
    taps = state["conv_pos.pos_conv.0.parametrizations.weight.original1"]
    width, group_width, kernel = taps.shape
    told = str(config.get("conv_feature_layers", EcgTransformerConfig.conv_feature_layers))
    shapes = [(conv.shape[0], conv.shape[2]) for conv in convs]
    parsed = parse_conv_layers(told)
    if [(channels, size) for channels, size, _ in parsed] != shapes:
        told = str([(channels, size, size) for channels, size in shapes])
    return {
        "encoder_layers": len(layers),
        "encoder_embed_dim": width,
        "encoder_ffn_embed_dim": state["encoder.layers.0.fc1.weight"].shape[0],
        "in_d": convs[0].shape[1],
        "conv_bias": "feature_extractor.conv_layers.0.0.bias" in state,
        "conv_feature_layers": told,
        "conv_pos": kernel,
        "conv_pos_groups": width // group_width,
    }
