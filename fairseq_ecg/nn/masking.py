"""Span masks drawn on the device for a whole batch at once (wav2vec 2.0, section 3.1).

The distribution is fairseq's: a number of spans per row, span lengths, starts without replacement, and at the
end every row cut to the count of the row that has fewest. The reference loops over rows on the host and
copies the result; here nothing waits for the device, and what varies (span counts, the common count of masked
frames) is kept in tensors of a constant shape with a validity mask, so that a compiled model sees one shape.

Uniform numbers are float32 with 24 random bits: a tie between two of a row's few hundred frames, about once
in 500 rows, prefers the earlier frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from fairseq_ecg.errors import ConfigError


class MaskSelection(StrEnum):
    """How long a span is."""

    STATIC = "static"
    UNIFORM = "uniform"
    NORMAL = "normal"
    POISSON = "poisson"


@dataclass(frozen=True, kw_only=True)
class MaskRule:
    """What is masked along one axis."""

    prob: float
    """Share that would be masked if spans did not overlap."""
    length: int
    """Length of a span: exact, the middle (uniform: mask_other..2 length) or the mean (normal, poisson)."""
    selection: MaskSelection = MaskSelection.STATIC
    other: float = 0.0
    """Shortest span (uniform) or standard deviation (normal)."""
    no_overlap: bool = False
    min_space: int = 1
    """Unmasked elements between two spans when they may not overlap."""
    min_spans: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.prob <= 1.0:
            raise ConfigError(f"mask probability {self.prob}: must lie between 0 and 1")
        if self.length < 1:
            raise ConfigError(f"mask length {self.length}: must be at least 1")
        if self.other < 0 or (self.selection is MaskSelection.UNIFORM and self.other > 2 * self.length):
            raise ConfigError(
                f"mask_other={self.other} with {self.selection} spans of length {self.length}: "
                "must be 0 or more, and for uniform spans at most twice the length"
            )
        if self.min_space < 0:
            raise ConfigError(f"mask_min_space={self.min_space}: must be 0 or more")

    def max_spans(self, size: int) -> int:
        """The largest number of spans a row of ``size`` elements can get."""
        return max(self.min_spans, math.floor(self.prob * size / self.length) + 1)

    def capacity(self, size: int) -> int:
        """The largest number of masked elements of a row: the constant shape of what is gathered."""
        longest = {MaskSelection.STATIC: self.length, MaskSelection.UNIFORM: 2 * self.length}
        return min(size, self.max_spans(size) * longest.get(self.selection, size))


def draw_mask(
    batch_size: int, size: int, rule: MaskRule, *, device: torch.device | str, num_valid: Tensor | None = None
) -> Tensor:
    """Draw a mask in which every row has the same number of masked elements.

    Shape:
        num_valid: (B,), int64: elements of each row that are not padding; None when all are valid.
        returns: (B, size), bool, True = masked. A row of padding alone stays unmasked and does not lower the
            others' count.
    """
    if num_valid is None:
        valid = torch.full((batch_size,), size, dtype=torch.int64, device=device)
        num_spans = _count_spans(rule, valid, torch.rand(1, device=device))
    else:
        valid = num_valid
        num_spans = _count_spans(rule, valid, torch.rand(batch_size, device=device))
    lengths = _draw_lengths(rule, num_spans, valid, rule.max_spans(size))
    mask = (
        _spread(rule, lengths, num_spans, valid, size)
        if rule.no_overlap
        else _scatter(lengths, num_spans, valid, size)
    )
    return _cut_to_smallest(mask, valid)


def masked_positions(mask: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """Where each row is masked, in order, in a constant shape.

    Shape:
        mask: (B, F), bool, with at most ``capacity`` masked elements per row.
        returns: positions (B, capacity) int64, all different within a row; valid (B, capacity) bool.
    """
    order = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)[:, :capacity]
    return order, mask.gather(1, order)


def _count_spans(rule: MaskRule, valid: Tensor, u: Tensor) -> Tensor:
    """max(min_spans, floor(prob * valid / length + u)): probabilistic rounding, (B,)."""
    expected = rule.prob * valid.double() / rule.length
    return torch.floor(expected + u.double()).long().clamp(min=rule.min_spans)


def _draw_lengths(rule: MaskRule, num_spans: Tensor, valid: Tensor, max_spans: int) -> Tensor:
    """Span lengths (B, J), 0 for the spans a row does not have."""
    shape, device = (len(valid), max_spans), valid.device
    if rule.selection is MaskSelection.UNIFORM:
        lengths = torch.randint(int(rule.other), 2 * rule.length + 1, shape, device=device)
    elif rule.selection is MaskSelection.NORMAL:
        drawn = rule.length + rule.other * torch.randn(shape, device=device)
        lengths = drawn.round().long().clamp(min=1)
    elif rule.selection is MaskSelection.POISSON:
        lengths = torch.poisson(torch.full(shape, float(rule.length), device=device)).long()
    else:
        lengths = torch.full(shape, rule.length, device=device)
    exists = torch.arange(max_spans, device=device) < num_spans[:, None]
    lengths = torch.where(exists, lengths, 0)
    nothing = (lengths.sum(dim=1) == 0) & (num_spans > 0)
    first = torch.where(nothing, (valid - 1).clamp(min=0, max=rule.length), lengths[:, 0])
    return torch.cat([first[:, None], lengths[:, 1:]], dim=1)


def _shortest(lengths: Tensor, num_spans: Tensor) -> Tensor:
    """The shortest span of each row: (B,)."""
    exists = torch.arange(lengths.shape[1], device=lengths.device) < num_spans[:, None]
    return torch.where(exists, lengths, torch.iinfo(torch.int64).max).min(dim=1).values


def _scatter(lengths: Tensor, num_spans: Tensor, valid: Tensor, size: int) -> Tensor:
    """Spans that may overlap, their starts drawn without replacement."""
    max_spans = lengths.shape[1]
    num_starts = valid - _shortest(lengths, num_spans)
    # Too few starts for so many spans: fairseq then lets the last ones run over the end.
    num_starts = torch.where(num_starts <= num_spans, num_spans + 1, num_starts)
    width = max(size, max_spans + 1)
    score = torch.rand(len(valid), width, device=valid.device)
    score = torch.where(torch.arange(width, device=valid.device) < num_starts[:, None], score, 2.0)
    starts = score.topk(max_spans, dim=1, largest=False).indices
    return _paint(starts, starts + lengths, valid, size)


def _paint(starts: Tensor, ends: Tensor, valid: Tensor, size: int) -> Tensor:
    """(B, size) bool: covered by a half-open interval and valid."""
    starts, ends = torch.minimum(starts, valid[:, None]), torch.minimum(ends, valid[:, None])
    one = torch.ones_like(starts, dtype=torch.int32)
    change = torch.zeros(len(starts), size + 1, dtype=torch.int32, device=starts.device)
    change = change.scatter_add(1, starts, one).scatter_add(1, ends, -one)
    return change.cumsum(dim=1)[:, :size] > 0


def _spread(rule: MaskRule, lengths: Tensor, num_spans: Tensor, valid: Tensor, size: int) -> Tensor:
    """Spans that do not touch: longest first, each into one of the free intervals, which it splits.

    An interval is taken with a probability proportional to its size among those in which the span and
    ``min_space`` fit; the first span that fits nowhere ends its row.
    """
    batch, max_spans = lengths.shape
    keep = _shortest(lengths, num_spans)
    lengths = lengths.sort(dim=1, descending=True).values
    free_start = torch.zeros(batch, max_spans + 1, dtype=torch.int64, device=valid.device)
    free_end = torch.zeros_like(free_start)
    free_end[:, 0] = valid
    slots = torch.arange(max_spans + 1, device=valid.device)
    going = torch.ones_like(valid, dtype=torch.bool)
    starts, ends = [], []
    for j in range(max_spans):
        length = lengths[:, j]
        room = free_end - free_start
        weight = torch.where(room >= (length + rule.min_space)[:, None], room, 0).double()
        going = going & (weight.sum(dim=1) > 0) & (j < num_spans)
        # The largest weight / Exp(1) is a draw in proportion to the weights.
        slot = (weight / torch.empty_like(weight).exponential_()).argmax(dim=1, keepdim=True)
        begin, end = free_start.gather(1, slot)[:, 0], free_end.gather(1, slot)[:, 0]
        choices = (end - length - begin).clamp(min=1)
        u = torch.rand(batch, device=valid.device)
        start = begin + torch.minimum((u * choices).long(), choices - 1)
        starts.append(torch.where(going, start, 0))
        ends.append(torch.where(going, start + length, 0))

        has_left = start - begin - rule.min_space >= keep
        has_right = end - start - keep - rule.min_space > keep
        left_end = torch.where(has_left, start - rule.min_space + 1, begin)
        right_start = torch.where(has_right, start + length + rule.min_space, end)
        chosen, added = (slots == slot) & going[:, None], (slots == j + 1) & going[:, None]
        free_end = torch.where(chosen, left_end[:, None], free_end)
        free_start = torch.where(added, right_start[:, None], free_start)
        free_end = torch.where(added, end[:, None], free_end)
    return _paint(torch.stack(starts, dim=1), torch.stack(ends, dim=1), valid, size)


def _cut_to_smallest(mask: Tensor, valid: Tensor) -> Tensor:
    """Keep a random subset of each row's masked elements, as many as the row with fewest has."""
    count = mask.sum(dim=1)
    smallest = torch.where(valid > 0, count, mask.shape[1]).min()
    score = torch.where(mask, torch.rand(mask.shape, device=mask.device), 2.0)
    order = score.argsort(dim=1)
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(order)
    rank = torch.empty_like(order).scatter(1, order, places)
    return mask & (rank < smallest)
