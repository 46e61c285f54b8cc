"""A pre-trained encoder, the mean over its frames, and a linear head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from fairseq_ecg.contracts import InputContract
from fairseq_ecg.errors import CheckpointError, ConfigError
from fairseq_ecg.models.base import EcgModel, EncoderOutput, LoadReport, load_tensors
from fairseq_ecg.models.ecg_transformer import EcgTransformer, EcgTransformerConfig, sizes_from_tensors
from fairseq_ecg.nn.dropout import Dropout
from fairseq_ecg.nn.pooling import masked_mean
from fairseq_ecg.registry import register_model

STRUCTURE = ("encoder_attention_heads", "layer_norm_first", "extractor_mode")
"""Options of a pre-trained encoder that fix its function and that its tensors do not show."""


@dataclass(kw_only=True)
class EcgTransformerClassifierConfig(EcgTransformerConfig):
    dropout: float = 0.0
    attention_dropout: float = 0.0
    feature_grad_mult: float = 0.0
    model_path: str | None = None
    """Checkpoint whose encoder is fine-tuned; its sizes replace those given here."""
    no_pretrained_weights: bool = False
    """Take the sizes of ``model_path`` but not its weights."""
    freeze_finetune_updates: int = 0
    """Updates during which only the head learns."""
    final_dropout: float = 0.0
    """On the frames before they are averaged."""
    num_labels: int | None = None
    """Outputs of the head; required."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_labels is None or self.num_labels < 1:
            raise ConfigError(
                f"model.num_labels={self.num_labels}: give the number of labels, e.g. model.num_labels=26"
            )
        if not 0.0 <= self.final_dropout < 1.0:
            raise ConfigError(f"model.final_dropout={self.final_dropout}: must lie in [0, 1)")
        if self.freeze_finetune_updates < 0:
            raise ConfigError(
                f"model.freeze_finetune_updates={self.freeze_finetune_updates}: must be 0 or more"
            )

    @classmethod
    def tiny(cls) -> Self:
        base = EcgTransformerConfig.tiny()
        sizes = {item.name: getattr(base, item.name) for item in fields(base)}
        return cls(**{**sizes, "dropout": 0.0, "attention_dropout": 0.0, "num_labels": 3})


@dataclass(frozen=True)
class ClassifierOutput:
    """Shape:
    logits: (B, K). encoder: the frames they were made of.
    """

    logits: Tensor
    encoder: EncoderOutput


@register_model("ecg_transformer_classifier", config=EcgTransformerClassifierConfig)
class EcgTransformerClassifier(EcgModel):
    """Classify the mean frame of an ``ecg_transformer``.

    Shape:
        source: (B, L, T), float32, mV. padding_mask: (B, T), bool, True = padding.
        returns: ``ClassifierOutput`` with logits (B, K).
    """

    cfg: EcgTransformerClassifierConfig

    def __init__(self, cfg: EcgTransformerClassifierConfig) -> None:
        super().__init__()
        self._build(cfg)
        self.frozen = cfg.freeze_finetune_updates > 0

    def _build(self, cfg: EcgTransformerClassifierConfig) -> None:
        assert cfg.num_labels is not None
        self.cfg = cfg
        self.encoder = EcgTransformer(cfg)
        self.final_dropout = Dropout(cfg.final_dropout)
        self.proj = nn.Linear(cfg.encoder_embed_dim, cfg.num_labels)
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    @property
    def embed_dim(self) -> int:
        return self.encoder.embed_dim

    @property
    def num_layers(self) -> int:
        return self.encoder.num_layers

    def layer_index(self, name: str) -> int:
        head, _, rest = name.partition(".")
        return self.encoder.layer_index(rest) if head == "encoder" else self.num_layers - 1

    @property
    def has_unused_parameters(self) -> bool:
        return self.cfg.freeze_finetune_updates > 0

    def before_update(self, num_updates: int) -> None:
        self.frozen = num_updates < self.cfg.freeze_finetune_updates

    def validate_contract(self, contract: InputContract) -> None:
        self.encoder.validate_contract(contract)

    def forward_flops(self, num_samples: int) -> float | None:
        return self.encoder.forward_flops(num_samples)

    def encode(self, source: Tensor, padding_mask: Tensor | None = None) -> EncoderOutput:
        return self.encoder.encode(source, padding_mask)

    def forward(self, source: Tensor, padding_mask: Tensor | None = None) -> ClassifierOutput:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not (self.frozen and self.training)):
            encoded = self.encoder(source, padding_mask)
        frames = self.final_dropout(encoded.frames)
        return ClassifierOutput(self.proj(masked_mean(frames, encoded.padding_mask)), encoded)

    @property
    def num_labels(self) -> int:
        return self.proj.out_features

    def classify(self, source: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        logits: Tensor = self(source, padding_mask).logits
        return logits

    def load_pretrained(self, state: Mapping[str, Tensor], model_config: Mapping[str, Any]) -> LoadReport:
        """Rebuild the encoder as the checkpoint's and take over its weights.

        Sizes come from the tensors, heads and layer order from ``model_config``; dropouts, LayerDrop and
        ``feature_grad_mult`` stay those of this model. Modules are made anew: call it before the model moves
        to a device and before an optimizer holds its parameters. ``self.cfg`` then describes the weights.

        Args:
            state: tensors of a pre-training model, or of a classifier (its encoder is taken, its head left).
            model_config: the checkpoint's ``model`` group.

        Raises:
            CheckpointError: the tensors are not of this family.
        """
        prefix = "encoder.feature_extractor."
        if any(name.startswith(prefix) for name in state):
            state = {
                name.removeprefix("encoder."): state[name] for name in state if name.startswith("encoder.")
            }
        if "conv_pos.pos_conv.0.parametrizations.weight.original1" not in state:
            raise CheckpointError(
                f"model_path {self.cfg.model_path}: no ecg_transformer encoder among its {len(state)} "
                f"tensors; "
                "give a checkpoint of ecg_transformer, wav2vec2 or wav2vec2_cmsc"
            )
        sizes = sizes_from_tensors(state, model_config)
        taken = {name: model_config[name] for name in STRUCTURE if name in model_config}
        self._build(replace(self.cfg, **sizes, **taken))
        if self.cfg.no_pretrained_weights:
            return LoadReport((), tuple(self.encoder.state_dict()), ())
        report = load_tensors(self.encoder, state, source=f"model_path {self.cfg.model_path}")
        if report.missing:
            raise CheckpointError(
                f"model_path {self.cfg.model_path}: the encoder's {report.missing[0]} is missing "
                f"({len(report.missing)} tensors in all); the checkpoint is incomplete"
            )
        return report
