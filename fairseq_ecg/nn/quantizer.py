"""Product quantisation with a Gumbel-softmax choice (Jang et al. 2017, arXiv 1611.01144).

The chosen entries are looked up. The reference multiplies a one-hot matrix with the whole codebook, which
takes (frames x entries x dim) memory for the same values and gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fairseq_ecg.errors import ConfigError


@dataclass(frozen=True)
class QuantizerOutput:
    """Shape:
    quantized: (B, M, dim). codes: (B, M, groups) int64. The others: ().
    """

    quantized: Tensor
    codes: Tensor
    code_perplexity: Tensor
    prob_perplexity: Tensor
    temperature: Tensor
    num_vars: int


class GumbelQuantizer(nn.Module):
    """Replace each vector by one codebook entry per group.

    Training: the argmax of logits plus Gumbel noise, with the straight-through gradient of the softmax at the
    current temperature. Evaluation: the argmax of the logits.

    Args:
        input_dim: width of what is quantised.
        num_vars: entries per group.
        groups: codebooks; their entries are concatenated.
        quantized_dim: width of the concatenation.
        temperature: start, floor and decay factor per update.
    """

    temperature: Tensor

    def __init__(
        self,
        input_dim: int,
        num_vars: int,
        groups: int,
        quantized_dim: int,
        temperature: tuple[float, float, float],
    ) -> None:
        super().__init__()
        if quantized_dim % groups:
            raise ConfigError(
                f"the quantizer's width {quantized_dim} (latent_dim, or final_dim) is not a multiple of "
                f"latent_groups={groups}"
            )
        self.num_vars_per_group = num_vars
        self.groups = groups
        self.schedule = temperature
        self.vars = nn.Parameter(torch.empty(1, groups * num_vars, quantized_dim // groups))
        self.weight_proj = nn.Linear(input_dim, groups * num_vars)
        nn.init.uniform_(self.vars)
        nn.init.normal_(self.weight_proj.weight)
        nn.init.zeros_(self.weight_proj.bias)
        # A tensor, because a changing Python number would make torch.compile trace every update anew.
        self.register_buffer("temperature", torch.tensor(float(temperature[0])), persistent=False)

    @property
    def num_vars(self) -> int:
        """Entries of all groups together, the largest perplexity there can be."""
        return self.groups * self.num_vars_per_group

    def temperature_at(self, num_updates: int) -> float:
        """max(start * decay^n, floor)."""
        start, floor, decay = self.schedule
        return max(start * decay**num_updates, floor)

    def set_num_updates(self, num_updates: int) -> None:
        self.temperature.fill_(self.temperature_at(num_updates))

    def forward(self, x: Tensor, valid: Tensor | None = None, noise: Tensor | None = None) -> QuantizerOutput:
        """Quantise ``x``.

        Shape:
            x: (B, M, C). valid: (B, M), bool; rows that are False are quantised but not counted.
            noise: (B * M * groups, num_vars), Gumbel(0, 1), drawn here when it is None; used in training
            only.
        """
        logits = self.weight_proj(x).float().unflatten(-1, (self.groups, -1))  # (B, M, G, V)
        entries = self.vars.view(self.groups, self.num_vars_per_group, -1)  # (G, V, dim)
        probs = logits.softmax(dim=-1)
        best = logits.detach().argmax(dim=-1)  # (B, M, G)
        codes = best
        if self.training:
            gumbels = _gumbel_like(logits) if noise is None else noise.view(logits.shape)
            soft = ((logits + gumbels) / self.temperature).softmax(dim=-1)
            codes = soft.detach().argmax(dim=-1)
        quantized = self.look_up(codes)
        if self.training:
            # Adds zero; its gradient is what the one-hot product gives the probabilities.
            mixed = torch.einsum("bmgv,gvd->bmgd", soft, entries.detach().to(soft.dtype)).flatten(2)
            quantized = quantized + (mixed - mixed.detach())
        weight = torch.ones_like(best[..., 0]) if valid is None else valid
        return QuantizerOutput(
            quantized,
            codes,
            _perplexity(self._usage(best, weight)),
            _perplexity(_weighted_mean(probs, weight)),
            self.temperature.clone(),
            self.num_vars,
        )

    def look_up(self, codes: Tensor) -> Tensor:
        """Entries of (..., groups) codes, concatenated over groups: (..., dim)."""
        offset = torch.arange(self.groups, device=codes.device) * self.num_vars_per_group
        return nn.functional.embedding(codes + offset, self.vars[0]).flatten(-2)

    def _usage(self, codes: Tensor, weight: Tensor) -> Tensor:
        """Share of the counted frames that chose each entry: (G, V)."""
        flat = codes.flatten(0, 1).T  # (G, B * M)
        counts = torch.zeros(self.groups, self.num_vars_per_group, device=codes.device)
        amounts = weight.flatten().float().expand(self.groups, -1)
        return counts.scatter_add(1, flat, amounts) / weight.sum().clamp(min=1)


def _gumbel_like(logits: Tensor) -> Tensor:
    return -torch.empty_like(logits).exponential_().log()


def _weighted_mean(probs: Tensor, weight: Tensor) -> Tensor:
    """Mean of (B, M, G, V) over frames that count: (G, V)."""
    total = torch.einsum("bmgv,bm->gv", probs, weight.to(probs.dtype))
    return total / weight.sum().clamp(min=1)


def _perplexity(p: Tensor) -> Tensor:
    """Sum over groups of exp(entropy): how many entries are in use."""
    return torch.exp(-(p * torch.log(p + 1e-7)).sum(dim=-1)).sum()
