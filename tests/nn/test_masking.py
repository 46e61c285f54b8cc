"""The vectorised masks against the algorithm written out row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fairseq_ecg.errors import ConfigError
from fairseq_ecg.nn.masking import MaskRule, MaskSelection, draw_mask, masked_positions


def slow_mask(
    batch: int, size: int, rule: MaskRule, rng: np.random.Generator, valid: list[int] | None
) -> np.ndarray:
    """Span masking one row after the other, one span after the other."""
    shared = rng.random()
    rows = []
    for b in range(batch):
        sz = size if valid is None else valid[b]
        u = shared if valid is None else rng.random()
        num = max(rule.min_spans, math.floor(rule.prob * sz / rule.length + u))
        lengths = {
            MaskSelection.STATIC: lambda n=num: np.full(n, rule.length),
            MaskSelection.UNIFORM: lambda n=num: rng.integers(int(rule.other), 2 * rule.length + 1, n),
            MaskSelection.NORMAL: lambda n=num: np.maximum(
                1, np.rint(rng.normal(rule.length, rule.other, n))
            ),
            MaskSelection.POISSON: lambda n=num: rng.poisson(rule.length, n),
        }[rule.selection]().astype(int)
        if num and lengths.sum() == 0:
            lengths[0] = min(rule.length, sz - 1)
        chosen: set[int] = set()
        if num == 0:
            pass
        elif rule.no_overlap:
            free, keep = [(0, sz)], min(lengths)
            for length in sorted(lengths, reverse=True):
                room = np.array([e - s if e - s >= length + rule.min_space else 0 for s, e in free])
                if room.sum() == 0:
                    break
                s, e = free.pop(rng.choice(len(free), p=room / room.sum()))
                start = s if e - length == s else int(rng.integers(s, e - length))
                chosen |= set(range(start, start + length))
                if start - s - rule.min_space >= keep:
                    free.append((s, start - rule.min_space + 1))
                if e - start - keep - rule.min_space > keep:
                    free.append((start + length + rule.min_space, e))
        else:
            shortest = min(lengths)
            if sz - shortest <= num:
                shortest = sz - num - 1
            starts = rng.choice(sz - shortest, num, replace=False)
            chosen = {i for s, n in zip(starts, lengths, strict=True) for i in range(s, s + n) if i < sz}
        rows.append(sorted(chosen))
    fewest = min(len(row) for row in rows)
    mask = np.zeros((batch, size), dtype=bool)
    for b, row in enumerate(rows):
        mask[b, rng.permutation(np.array(row, dtype=int))[:fewest]] = True
    return mask


RULES = {
    "static": MaskRule(prob=0.65, length=5, min_spans=2),
    "uniform": MaskRule(prob=0.5, length=4, selection=MaskSelection.UNIFORM, other=1, min_spans=2),
    "normal": MaskRule(prob=0.5, length=4, selection=MaskSelection.NORMAL, other=1.5, min_spans=2),
    "poisson": MaskRule(prob=0.5, length=3, selection=MaskSelection.POISSON, min_spans=2),
    "no_overlap": MaskRule(prob=0.4, length=5, no_overlap=True, min_space=1, min_spans=2),
    "no_overlap_uniform": MaskRule(
        prob=0.4,
        length=4,
        selection=MaskSelection.UNIFORM,
        other=2,
        no_overlap=True,
        min_space=2,
        min_spans=2,
    ),
    "channels": MaskRule(prob=0.3, length=6),
    "crowded": MaskRule(prob=1.0, length=1, min_spans=2),
}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_masks_have_the_distribution_of_the_row_by_row_algorithm(name: str, padded: bool) -> None:
    rule, size, draws = RULES[name], 31, 800
    valid = [31, 24, 18] if padded else None
    torch.manual_seed(0)
    num_valid = None if valid is None else torch.tensor(valid)
    mine = torch.stack(
        [draw_mask(3, size, rule, device="cpu", num_valid=num_valid) for _ in range(draws)]
    ).numpy()
    rng = np.random.default_rng(1)
    theirs = np.stack([slow_mask(3, size, rule, rng, valid) for _ in range(draws)])

    # How often each frame of each row is masked: two binomial means differ by less than 5 standard errors.
    error = np.abs(mine.mean(0) - theirs.mean(0))
    p = (mine.mean(0) + theirs.mean(0)) / 2
    assert np.all(error <= 5 * np.sqrt(2 * p * (1 - p) / draws) + 1e-12)
    # The number of masked frames per row, its mean and its spread.
    counts, other = mine.sum(2)[:, 0], theirs.sum(2)[:, 0]
    assert abs(counts.mean() - other.mean()) <= 5 * np.sqrt((counts.var() + other.var()) / draws) + 1e-12
    assert abs(counts.std() - other.std()) <= 0.12 * max(other.std(), 0.5)
    # Neighbours are masked together as often: spans are spans.
    together, others = (mine[..., 1:] & mine[..., :-1]).mean(), (theirs[..., 1:] & theirs[..., :-1]).mean()
    assert abs(together - others) < 0.02


def test_every_row_has_the_same_count_and_padding_is_never_masked() -> None:
    torch.manual_seed(3)
    valid = torch.tensor([40, 25, 12, 40])
    for _ in range(20):
        mask = draw_mask(4, 40, MaskRule(prob=0.65, length=6, min_spans=2), device="cpu", num_valid=valid)
        assert len(set(mask.sum(1).tolist())) == 1
        assert not (mask & (torch.arange(40) >= valid[:, None])).any()


def test_a_row_of_padding_alone_does_not_empty_the_others() -> None:
    torch.manual_seed(0)
    rule = MaskRule(prob=0.65, length=6, min_spans=2)
    mask = draw_mask(3, 40, rule, device="cpu", num_valid=torch.tensor([40, 0, 40]))
    assert mask[1].sum() == 0
    assert mask[0].sum() == mask[2].sum() > 5


def test_the_last_frame_is_never_masked_by_spans_of_one_length() -> None:
    torch.manual_seed(0)
    drawn = [draw_mask(16, 20, MaskRule(prob=0.6, length=4, min_spans=2), device="cpu") for _ in range(50)]
    assert not torch.stack(drawn)[..., -1].any()


def test_spans_that_may_not_overlap_keep_their_distance() -> None:
    torch.manual_seed(0)
    rule = MaskRule(prob=0.3, length=4, no_overlap=True, min_space=2, min_spans=2)
    for _ in range(50):
        row = draw_mask(1, 50, rule, device="cpu")[0].int()  # a single row is not cut
        edges = torch.diff(
            row, prepend=torch.zeros(1, dtype=torch.int), append=torch.zeros(1, dtype=torch.int)
        )
        starts, ends = (edges == 1).nonzero()[:, 0], (edges == -1).nonzero()[:, 0]
        assert (ends - starts == 4).all()
        assert (starts[1:] - ends[:-1] >= 1).all()


def test_no_row_exceeds_the_capacity() -> None:
    torch.manual_seed(0)
    for rule in RULES.values():
        counts = [draw_mask(1, 31, rule, device="cpu").sum().item() for _ in range(300)]
        assert max(counts) <= rule.capacity(31) <= 31


def test_the_same_seed_draws_the_same_mask() -> None:
    rule = MaskRule(prob=0.65, length=10, min_spans=2)
    torch.manual_seed(7)
    first = draw_mask(8, 156, rule, device="cpu")
    torch.manual_seed(7)
    assert torch.equal(first, draw_mask(8, 156, rule, device="cpu"))


def test_a_full_size_batch_masks_the_measured_share() -> None:
    """The reference masks 77 of 156 frames in a single row and 55 after the cut in a batch of 128."""
    torch.manual_seed(0)
    rule = MaskRule(prob=0.65, length=10, min_spans=2)
    alone = np.mean([draw_mask(1, 156, rule, device="cpu").sum().item() for _ in range(300)])
    batch = np.mean([draw_mask(128, 156, rule, device="cpu")[0].sum().item() for _ in range(100)])
    assert alone == pytest.approx(77, abs=2)
    assert batch == pytest.approx(55, abs=2)


def test_positions_are_those_of_the_mask_in_order() -> None:
    mask = torch.tensor([[0, 1, 1, 0, 1], [1, 0, 0, 0, 0]], dtype=torch.bool)
    place, valid = masked_positions(mask, 4)
    assert place[0, :3].tolist() == [1, 2, 4]
    assert place[1, 0] == 0
    assert valid.tolist() == [[True, True, True, False], [True, False, False, False]]
    assert all(len(set(row.tolist())) == 4 for row in place)


@pytest.mark.parametrize(
    "options",
    [
        {"prob": 1.5, "length": 5},
        {"prob": 0.5, "length": 0},
        {"prob": 0.5, "length": 3, "selection": MaskSelection.UNIFORM, "other": 9},
        {"prob": 0.5, "length": 3, "min_space": -1},
    ],
)
def test_impossible_rules_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        MaskRule(**options)
