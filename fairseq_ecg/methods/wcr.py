"""W2V + CMSC + RLM: wav2vec 2.0 on ECG, alone or with CMSC (Oh et al. 2022, arXiv 2203.06889).

Spans of frames are masked; the transformer's output at each masked frame must recognise that frame's
quantised features among those of other masked frames of the same recording (InfoNCE). With CMSC the mean
outputs of two segments of a patient attract each other. Random lead masking, the R, is an augmentation of the
data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_ecg.config import RunConfig
from fairseq_ecg.contracts import Batch, StepOutput
from fairseq_ecg.criteria.cmsc import CmscConfig, cmsc_loss
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.models.base import EncoderOutput
from fairseq_ecg.models.ecg_transformer import EcgTransformer, EcgTransformerConfig
from fairseq_ecg.nn.dropout import Dropout
from fairseq_ecg.nn.masking import MaskRule, MaskSelection, draw_mask, masked_positions
from fairseq_ecg.nn.quantizer import GumbelQuantizer, QuantizerOutput
from fairseq_ecg.registry import register_criterion, register_model


@dataclass(kw_only=True)
class Wav2Vec2Config(EcgTransformerConfig):
    logit_temp: float = 0.1
    """Divisor of the cosine similarities."""
    quantize_targets: bool = False
    quantize_input: bool = False
    """Not available: it never worked in the reference."""
    same_quantizer: bool = False
    """Not available: belongs to quantize_input."""
    target_glu: bool = False
    """Pass targets through a gated linear unit."""
    latent_vars: int = 320
    """Codebook entries per group."""
    latent_groups: int = 2
    latent_dim: int = 0
    """Width of the quantised vector; 0: final_dim."""
    final_dim: int = 0
    """Width in which predictions and targets are compared; 0: encoder_embed_dim."""
    num_negatives: int = 100
    """Negatives from the masked frames of the same row."""
    negatives_from_everywhere: bool = False
    """Not available: it never worked with a quantizer in the reference."""
    cross_sample_negatives: int = 0
    """Negatives from the masked frames of the whole micro-batch."""
    codebook_negatives: int = 0
    """Negatives that are random codebook entries."""
    latent_temp: list[float] = field(default_factory=lambda: [2.0, 0.5, 0.999995])
    """Temperature of the Gumbel-softmax: start, floor, factor per update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("quantize_input", "same_quantizer", "negatives_from_everywhere"):
            if getattr(self, name):
                raise ConfigError(f"model.{name}=true is not available (the reference's crashes); remove it")
        if self.num_negatives < 0 or self.cross_sample_negatives < 0 or self.codebook_negatives < 0:
            raise ConfigError("model.num_negatives, cross_sample_negatives and codebook_negatives: 0 or more")
        if self.num_negatives + self.cross_sample_negatives + self.codebook_negatives == 0:
            raise ConfigError("model.num_negatives=0: a contrast needs negatives; the default is 100")
        if self.codebook_negatives and not self.quantize_targets:
            raise ConfigError(
                f"model.codebook_negatives={self.codebook_negatives} needs model.quantize_targets=true"
            )
        if len(self.latent_temp) != 3 or min(self.latent_temp) <= 0:
            raise ConfigError(f"model.latent_temp={self.latent_temp}: start, floor and decay, all above 0")
        if self.logit_temp <= 0:
            raise ConfigError(f"model.logit_temp={self.logit_temp}: must be above 0")
        for name in ("latent_vars", "latent_groups"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}={getattr(self, name)}: must be at least 1")

    @classmethod
    def tiny(cls) -> Self:
        cfg = super().tiny()
        cfg.apply_mask, cfg.mask_prob, cfg.mask_length = True, 0.5, 2
        cfg.quantize_targets, cfg.latent_vars, cfg.final_dim, cfg.num_negatives = True, 6, 8, 5
        return cfg

    @property
    def projected_dim(self) -> int:
        return self.final_dim if self.final_dim > 0 else self.encoder_embed_dim

    @property
    def quantized_dim(self) -> int:
        return self.latent_dim if self.latent_dim > 0 else self.projected_dim


@dataclass(frozen=True)
class Wav2Vec2Output:
    """What one forward pass gives a criterion; M is the constant number of places for masked frames.

    Shape:
        logits: (B, M, 1 + N), cosine / temperature, the positive first; -inf where a negative equals it.
        valid: (B, M), bool, which places hold a masked frame.
        features_pen: (), mean square of the convolutions' output.
    """

    encoder: EncoderOutput
    logits: Tensor
    valid: Tensor
    features_pen: Tensor
    quantizer: QuantizerOutput | None


@register_model("wav2vec2_cmsc", config=Wav2Vec2Config)
@register_model("wav2vec2", config=Wav2Vec2Config)
class Wav2Vec2(EcgTransformer):
    """wav2vec 2.0 pre-training of an ``ecg_transformer``.

    Shape:
        source: (B, L, T), float32, mV. padding_mask: (B, T), bool, True = padding.
        returns: ``Wav2Vec2Output``.
    """

    cfg: Wav2Vec2Config
    masks_time = True

    def __init__(self, cfg: Wav2Vec2Config) -> None:
        super().__init__(cfg)
        channels, final = self.conv_layers[-1][0], cfg.projected_dim
        start, floor, decay = cfg.latent_temp
        self.quantizer = (
            GumbelQuantizer(
                channels, cfg.latent_vars, cfg.latent_groups, cfg.quantized_dim, (start, floor, decay)
            )
            if cfg.quantize_targets
            else None
        )
        self.project_q = nn.Linear(cfg.quantized_dim if cfg.quantize_targets else channels, final)
        self.target_glu = nn.Sequential(nn.Linear(final, 2 * final), nn.GLU()) if cfg.target_glu else None
        self.final_proj = nn.Linear(cfg.encoder_embed_dim, final)
        self.dropout_features = Dropout(cfg.dropout_features)
        self.time_mask = MaskRule(
            prob=cfg.mask_prob,
            length=cfg.mask_length,
            selection=MaskSelection(cfg.mask_selection),
            other=cfg.mask_other,
            no_overlap=cfg.no_mask_overlap,
            min_space=cfg.mask_min_space,
            min_spans=2,
        )
        self.channel_mask = MaskRule(
            prob=cfg.mask_channel_prob,
            length=cfg.mask_channel_length,
            selection=MaskSelection(cfg.mask_channel_selection),
            other=cfg.mask_channel_other,
            no_overlap=cfg.no_mask_channel_overlap,
            min_space=cfg.mask_channel_min_space,
        )

    def before_update(self, num_updates: int) -> None:
        if self.quantizer is not None:
            self.quantizer.set_num_updates(num_updates)

    def forward(  # type: ignore[override]
        self,
        source: Tensor,
        padding_mask: Tensor | None = None,
        *,
        mask_indices: Tensor | None = None,
        negatives: Tensor | None = None,
        gumbel_noise: Tensor | None = None,
    ) -> Wav2Vec2Output:
        """Mask, encode, and compare masked frames with candidates.

        The last three arguments replace draws; given negatives need a given mask with one count for all rows.

        Shape:
            mask_indices: (B, F), bool. negatives: (B, M, N), int64, places in the flattened (B, M).
            gumbel_noise: (B * M * groups, latent_vars).
        """
        if not self.cfg.apply_mask:
            raise ConfigError(
                "model.apply_mask=false: a wav2vec2 model learns from masked frames only; set it true"
            )
        front = self.front_end(source, padding_mask)
        batch_size, num_frames = front.features.shape[:2]
        if mask_indices is None:
            num_valid = None if front.padding_mask is None else (~front.padding_mask).sum(dim=1)
            mask = draw_mask(
                batch_size, num_frames, self.time_mask, device=source.device, num_valid=num_valid
            )
            capacity = self.time_mask.capacity(num_frames)
        else:
            mask = mask_indices
            capacity = num_frames if negatives is None else negatives.shape[1]
        place, valid = masked_positions(mask, capacity)

        x = self.project(front.features)
        x = torch.where(mask[..., None], self.mask_emb.to(x.dtype), x)
        if self.cfg.mask_channel_prob > 0.0:
            dropped = draw_mask(batch_size, x.shape[-1], self.channel_mask, device=source.device)
            x = x.masked_fill(dropped[:, None, :], 0.0)
        encoded = self.contextualise(x, front.padding_mask)

        prediction = self.final_proj(_take(encoded.frames, place))
        target = _take(self.dropout_features(front.features), place)
        quantized = None
        if self.quantizer is not None:
            quantized = self.quantizer(target, valid, gumbel_noise)
            target = quantized.quantized
        candidate = self._gate(self.project_q(target))
        with torch.autocast(source.device.type, enabled=False):
            logits = self._logits(prediction.float(), candidate.float(), quantized, valid, negatives)
        features_pen = front.conv.float().square().mean()
        return Wav2Vec2Output(encoded, logits, valid, features_pen, quantized)

    def _gate(self, target: Tensor) -> Tensor:
        return target if self.target_glu is None else self.target_glu(target)

    def _logits(
        self,
        prediction: Tensor,
        candidate: Tensor,
        quantized: QuantizerOutput | None,
        valid: Tensor,
        negatives: Tensor | None,
    ) -> Tensor:
        """Logits (B, M, 1 + N) of predictions and candidates (B, M, D)."""
        cfg = self.cfg
        x, y = F.normalize(prediction, dim=-1, eps=1e-8), F.normalize(candidate, dim=-1, eps=1e-8)
        same = _equal(candidate, candidate) if quantized is None else _equal_codes(quantized.codes)
        # All similarities of a row at once: no negative is ever copied.
        similarity = x @ y.transpose(1, 2)  # (B, M, M)
        parts = [similarity.diagonal(dim1=1, dim2=2)[..., None]]
        if negatives is None:
            if cfg.num_negatives:
                index = draw_negatives(valid, cfg.num_negatives)
                parts.append(_gather_negatives(similarity, same, index))
            if cfg.cross_sample_negatives:
                flat = draw_cross_negatives(valid, cfg.cross_sample_negatives)
                parts.append(self._from_batch(x, y, candidate, quantized, flat))
        elif cfg.cross_sample_negatives:
            parts.append(self._from_batch(x, y, candidate, quantized, negatives))
        else:
            parts.append(_gather_negatives(similarity, same, negatives % negatives.shape[1]))
        if cfg.codebook_negatives and quantized is not None:
            parts.append(self._from_codebook(x, quantized))
        return torch.cat(parts, dim=-1) / cfg.logit_temp

    def _from_batch(
        self, x: Tensor, y: Tensor, candidate: Tensor, quantized: QuantizerOutput | None, flat: Tensor
    ) -> Tensor:
        """Similarities with candidates anywhere in the micro-batch, by their flat index (B, M, N)."""
        similarity = torch.einsum("bmd,bmnd->bmn", x, y.flatten(0, 1)[flat])
        identity = candidate if quantized is None else quantized.codes
        same = (identity.flatten(0, 1)[flat] == identity[:, :, None]).all(dim=-1)
        return similarity.masked_fill(same, -torch.inf)

    def _from_codebook(self, x: Tensor, quantized: QuantizerOutput) -> Tensor:
        """Similarities with random codes, one per group."""
        assert self.quantizer is not None
        shape = (*quantized.codes.shape[:2], self.cfg.codebook_negatives, self.cfg.latent_groups)
        codes = torch.randint(self.cfg.latent_vars, shape, device=x.device)
        entries = self._gate(self.project_q(self.quantizer.look_up(codes))).float()
        similarity = torch.einsum("bmd,bmnd->bmn", x, F.normalize(entries, dim=-1, eps=1e-8))
        same = (codes == quantized.codes[:, :, None]).all(dim=-1)
        return similarity.masked_fill(same, -torch.inf)


def _take(x: Tensor, place: Tensor) -> Tensor:
    """Rows of (B, F, C) at (B, M) places: (B, M, C)."""
    return x.gather(1, place[..., None].expand(-1, -1, x.shape[-1]))


def _gather_negatives(similarity: Tensor, same: Tensor, index: Tensor) -> Tensor:
    """Entries (B, M, N) of (B, M, M) similarities; -inf where the negative is the positive."""
    return similarity.gather(2, index).masked_fill(same.gather(2, index), -torch.inf)


def _equal_codes(codes: Tensor) -> Tensor:
    """(B, M, M) bool: equal in every group."""
    return (codes[:, :, None] == codes[:, None]).all(dim=-1)


def _equal(x: Tensor, y: Tensor, width: int = 16) -> Tensor:
    """(B, M, M) bool: equal vectors, compared a few elements at a time to bound the memory."""
    same = torch.ones(x.shape[0], x.shape[1], y.shape[1], dtype=torch.bool, device=x.device)
    for a, b in zip(torch.split(x, width, dim=-1), torch.split(y, width, dim=-1), strict=True):
        same &= (a[:, :, None] == b[:, None]).all(dim=-1)
    return same


def draw_negatives(valid: Tensor, num_negatives: int) -> Tensor:
    """For each place, other valid places of its row, uniformly and with replacement: (B, M, N) int64.

    A row's valid places come first. With a single one there is no other: it is its own negative.
    """
    count = valid.sum(dim=1)[:, None, None]
    u = torch.rand(*valid.shape, num_negatives, device=valid.device)
    index = torch.minimum((u * (count - 1)).long(), (count - 2).clamp(min=0))
    own = torch.arange(valid.shape[1], device=valid.device)[:, None]
    return torch.minimum(index + (index >= own), (count - 1).clamp(min=0))


def draw_cross_negatives(valid: Tensor, num_negatives: int) -> Tensor:
    """For each place, other valid places of the whole micro-batch: flat indices (B, M, N) int64.

    The reference excludes the place's number within its row, which is the place itself in row 0 only; here it
    is the place itself in every row.
    """
    flat = valid.flatten()
    # The k-th valid place of the micro-batch, and how many valid ones precede each place.
    nth = torch.argsort((~flat).to(torch.uint8), stable=True)
    own = (flat.cumsum(0) - 1).view(valid.shape)[..., None]
    count = flat.sum()
    u = torch.rand(*valid.shape, num_negatives, dtype=torch.float64, device=valid.device)
    index = torch.minimum((u * (count - 1)).long(), (count - 2).clamp(min=0))
    return nth[torch.minimum(index + (index >= own), (count - 1).clamp(min=0))]


@dataclass(kw_only=True)
class Wav2Vec2CriterionConfig:
    infonce: bool = True
    """Only true is available: the reference's default, false, trains towards nothing."""
    loss_weights: list[float] | None = None
    """Weights of the code diversity and of the feature penalty; null: neither is added."""
    log_keys: list[str] = field(default_factory=list)
    """What of the quantizer to log: prob_perplexity, code_perplexity, temp; nothing without one."""

    def __post_init__(self) -> None:
        if not self.infonce:
            raise ConfigError("criterion.infonce=false has no positives to learn; set criterion.infonce=true")
        if unknown := sorted(set(self.log_keys) - {"prob_perplexity", "code_perplexity", "temp"}):
            raise ConfigError(
                f"criterion.log_keys={unknown}: known are prob_perplexity, code_perplexity, temp"
            )
        if self.loss_weights is not None and len(self.loss_weights) not in (1, 2):
            raise ConfigError(
                f"criterion.loss_weights={self.loss_weights}: two weights, of code diversity and "
                f"feature penalty"
            )


@register_criterion("wav2vec2", config=Wav2Vec2CriterionConfig)
class Wav2Vec2Criterion(nn.Module):
    """InfoNCE over masked frames, plus code diversity and a penalty on large features.

    total = sum CE + sample_size (w1 (num_vars - prob_perplexity) / num_vars + w2 features_pen), where
    sample_size is the number of masked frames.
    """

    layout = "single"
    name = "wav2vec2"

    def __init__(self, cfg: Wav2Vec2CriterionConfig) -> None:
        super().__init__()
        self.cfg = cfg

    @classmethod
    def check_config(cls, run: RunConfig) -> None:
        """Refuse, before anything is built, a run that masks no frame.

        Raises:
            ConfigError: the model masks nothing.
        """
        if isinstance(run.model.config, Wav2Vec2Config):
            cls._require_mask(run.model.config)

    @classmethod
    def _require_mask(cls, cfg: Wav2Vec2Config) -> None:
        if not cfg.apply_mask or cfg.mask_prob <= 0.0:
            raise ConfigError(
                f"criterion {cls.name} learns from masked frames, but model.apply_mask="
                f"{str(cfg.apply_mask).lower()} and model.mask_prob={cfg.mask_prob}; set "
                "model.apply_mask=true model.mask_prob=0.65"
            )

    def validate_model(self, model: nn.Module) -> None:
        """Refuse what would train nothing.

        Raises:
            ConfigError: the model has no masked frames.
        """
        if not isinstance(model, Wav2Vec2):
            raise ConfigError(
                f"criterion {self.name} needs model wav2vec2 or wav2vec2_cmsc, not {type(model).__name__}"
            )
        self._require_mask(model.cfg)

    def metrics(self) -> dict[str, dict[str, Any]]:
        return {}

    def forward(self, model: nn.Module, batch: Batch) -> StepOutput:
        return self.score(model(batch.source, batch.padding_mask), batch)

    def score(self, output: Wav2Vec2Output, batch: Batch) -> StepOutput:
        """The losses of a finished forward pass."""
        with torch.autocast(batch.source.device.type, enabled=False):
            terms = self._terms(output, batch)
        size = output.valid.sum().float()
        total = torch.stack(terms).sum()
        logs = {"loss": (total.detach(), size)}
        logs |= {f"loss_{i}": (term.detach(), size) for i, term in enumerate(terms)}
        one = torch.ones_like(size)
        if output.quantizer is not None:
            values = {
                "prob_perplexity": output.quantizer.prob_perplexity,
                "code_perplexity": output.quantizer.code_perplexity,
                "temp": output.quantizer.temperature,
            }
            logs |= {name: (values[name].detach(), one) for name in self.cfg.log_keys}
        logs["nsignals"] = (one * len(batch.source), one)
        logs["accuracy"] = (_num_correct(output.logits.detach(), output.valid), size)
        return StepOutput(total, size, logs)

    def _terms(self, output: Wav2Vec2Output, batch: Batch) -> list[Tensor]:
        """Each part of the loss, already multiplied by its weight and the sample size."""
        size = output.valid.sum().float()
        terms = [info_nce(output.logits, output.valid)]
        if self.cfg.loss_weights is not None:
            # One weight serves both; without a quantizer there is no diversity and the last one is the
            # penalty's.
            weights = self.cfg.loss_weights
            if output.quantizer is not None:
                num_vars = float(output.quantizer.num_vars)
                diversity = (num_vars - output.quantizer.prob_perplexity) / num_vars
                terms.append(weights[0] * diversity * size)
            terms.append(weights[-1] * output.features_pen * size)
        return terms


@dataclass(kw_only=True)
class Wav2Vec2WithCmscConfig(Wav2Vec2CriterionConfig, CmscConfig):
    cmsc_weights: float | None = None
    """Weight of the CMSC term; null: 1."""

    def __post_init__(self) -> None:
        Wav2Vec2CriterionConfig.__post_init__(self)
        CmscConfig.__post_init__(self)


@register_criterion("wav2vec2_with_cmsc", config=Wav2Vec2WithCmscConfig)
class Wav2Vec2WithCmsc(Wav2Vec2Criterion):
    """The wav2vec2 criterion plus CMSC on the mean output of the masked input.

    CMSC is a mean over pairs; it is multiplied by the sample size because the update divides by it.
    """

    layout = "segment_pairs"
    name = "wav2vec2_with_cmsc"
    cfg: Wav2Vec2WithCmscConfig

    def _terms(self, output: Wav2Vec2Output, batch: Batch) -> list[Tensor]:
        pooled = output.encoder.pooled()
        cmsc, _ = cmsc_loss(pooled, batch.patient, batch.segment, self.cfg.temp, self.cfg.eps)
        weight = 1.0 if self.cfg.cmsc_weights is None else self.cfg.cmsc_weights
        return [*super()._terms(output, batch), weight * cmsc * output.valid.sum().float()]


def info_nce(logits: Tensor, valid: Tensor) -> Tensor:
    """Summed cross-entropy of class 0 over the valid places of (B, M, 1 + N) logits."""
    losses = torch.logsumexp(logits, dim=-1) - logits[..., 0]
    return torch.where(valid, losses, 0.0).sum()


def _num_correct(logits: Tensor, valid: Tensor) -> Tensor:
    """Places whose positive is the largest, without those where all logits are equal."""
    best, worst = logits.argmax(dim=-1) == 0, logits.argmin(dim=-1) == 0
    return (best & ~worst & valid).sum().float()
