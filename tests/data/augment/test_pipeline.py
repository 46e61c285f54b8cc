from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fairseq_ecg.contracts import Keys
from fairseq_ecg.data.augment.lead import RandomLeadMask, RandomLeadMaskConfig
from fairseq_ecg.data.augment.pipeline import Pipeline
from fairseq_ecg.data.uniform import Uniform
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.registry import AUGMENTATIONS


def keys(count: int, epoch: int = 1) -> Keys:
    return Keys(epoch, np.arange(count, dtype=np.int64), np.zeros(count, dtype=np.int64))


@dataclass(kw_only=True)
class ShiftConfig:
    by: float = 1.0
    name: str = "x"


class Shift:
    """Add a constant."""

    def __init__(self, cfg: ShiftConfig) -> None:
        self.cfg = cfg

    def draw(self, uniform: Uniform, keys: Keys, num_leads: int, num_samples: int) -> torch.Tensor:
        return torch.from_numpy(uniform(keys, 1))

    def apply(self, source: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
        return source + self.cfg.by


@pytest.fixture
def _shift() -> Iterator[None]:
    AUGMENTATIONS.register("shift_of_this_test", config=ShiftConfig)(Shift)
    yield
    del AUGMENTATIONS._entries["shift_of_this_test"]


def test_a_lead_is_kept_when_its_number_reaches_p() -> None:
    step = RandomLeadMask(RandomLeadMaskConfig(p=0.3))
    uniform = Uniform(4, "x")
    keep = step.draw(uniform, keys(20), 12, 100)
    numbers = uniform(keys(20), 13)
    for row in range(20):
        for lead in range(12):
            assert bool(keep[row, lead]) == (numbers[row, 1 + lead] >= 0.3)


def test_masked_leads_are_zero_and_the_input_stays_as_it_was() -> None:
    step = RandomLeadMask(RandomLeadMaskConfig())
    source = torch.randn(8, 12, 30, generator=torch.Generator().manual_seed(0))
    before = source.clone()
    keep = step.draw(Uniform(0, "x"), keys(8), 12, 30)
    masked = step.apply(source, keep)
    for row in range(8):
        for lead in range(12):
            expected = before[row, lead] if keep[row, lead] else torch.zeros(30)
            assert torch.equal(masked[row, lead], expected)
    assert torch.equal(source, before)
    assert torch.equal(source * step.lead_gain(keep)[..., None], masked)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_leads_are_masked_as_often_as_p_says(p: float) -> None:
    keep = RandomLeadMask(RandomLeadMaskConfig(p=p)).draw(Uniform(0, "x"), keys(5000), 12, 1)
    assert abs(keep.double().mean().item() - (1 - p)) <= 5 * (p * (1 - p) / 60000) ** 0.5


def test_prob_says_how_many_samples_are_masked_at_all() -> None:
    keep = RandomLeadMask(RandomLeadMaskConfig(p=1.0, prob=0.25)).draw(Uniform(0, "x"), keys(5000), 12, 1)
    share = (~keep).all(dim=1).double().mean().item()
    assert ((~keep).all(dim=1) | keep.all(dim=1)).all()
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / 5000) ** 0.5


def test_a_probability_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"random_lead_mask\(p=1.5\)"):
        Pipeline.parse("random_lead_mask(p=1.5)")


@pytest.mark.usefixtures("_shift")
def test_steps_are_applied_in_the_order_they_are_written() -> None:
    pipeline = Pipeline.parse("random_lead_mask(p=1) | shift_of_this_test(by=2)|random_lead_mask(p=0.0)")
    assert pipeline.names == ("random_lead_mask", "shift_of_this_test", "random_lead_mask")
    draws = pipeline.draw(keys(3), 12, 5, seed=1)
    assert torch.equal(pipeline.apply(torch.randn(3, 12, 5), draws), torch.full((3, 12, 5), 2.0))
    done, gain = pipeline.leading_gain(draws)
    assert done == 1
    assert gain is not None
    assert not gain.any()


def test_a_step_used_twice_draws_twice() -> None:
    first, second = Pipeline.parse("random_lead_mask|random_lead_mask").draw(keys(20), 12, 5, seed=1)
    assert not torch.equal(first, second)


def test_draws_follow_seed_and_epoch() -> None:
    pipeline = Pipeline.parse("random_lead_mask")
    (base,) = pipeline.draw(keys(20), 12, 5, seed=1)
    assert torch.equal(base, Pipeline.parse("random_lead_mask(p=0.5)").draw(keys(20), 12, 5, seed=1)[0])
    assert not torch.equal(base, pipeline.draw(keys(20), 12, 5, seed=2)[0])
    assert not torch.equal(base, pipeline.draw(keys(20, epoch=2), 12, 5, seed=1)[0])


def test_the_empty_line_is_the_empty_pipeline() -> None:
    pipeline = Pipeline.parse("  ")
    source = torch.randn(2, 3, 4)
    assert len(pipeline) == 0
    assert pipeline.apply(source, pipeline.draw(keys(2), 3, 4, seed=0)) is source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random_lead_mas", "did you mean 'random_lead_mask'"),
        ("random_lead_mask(prb=0.5)", "no option 'prb'; did you mean 'prob'"),
        ("random_lead_mask(0.5)", "is not a step name"),
        ("random_lead_mask(p='half')", "is 'half', needed is float"),
        ("random_lead_mask(p=True)", "is True, needed is float"),
        ("random_lead_mask(p=open('x'))", "is not a plain value"),
        ("random_lead_mask(**{})", "has no option"),
        ("random_lead_mask(p=0.5", "cannot be read at character"),
        ("random_lead_mask & random_lead_mask", "is not a step name"),
        ("__import__('os').system('true')", "is not a step name"),
    ],
)
def test_a_bad_line_is_refused_with_help(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pipeline.parse(text)
