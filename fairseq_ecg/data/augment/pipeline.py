"""A chain of augmentations from one line of text: ``random_lead_mask(p=0.5)|another_step(size=3)``.

An augmentation is a class registered with ``register_augmentation`` that has two methods::

    draw(uniform, keys, num_leads, num_samples) -> Tensor   # (B, ...): small, one row per sample
    apply(source, draw) -> Tensor                           # batched, on the device; leaves source as it is

A step that does nothing but scale whole leads may add ``lead_gain(draw) -> (B, L)``: at the head of a chain
it then costs no pass over the samples of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from torch import Tensor

from fairseq_ecg.contracts import Keys
from fairseq_ecg.data.augment import lead  # noqa: F401  (registers its steps)
from fairseq_ecg.data.steps import parse_steps
from fairseq_ecg.data.uniform import Uniform
from fairseq_ecg.registry import AUGMENTATIONS


class Augmentation(Protocol):
    """What the pipeline asks of a step."""

    def draw(self, uniform: Uniform, keys: Keys, num_leads: int, num_samples: int) -> Tensor: ...

    def apply(self, source: Tensor, draw: Tensor) -> Tensor: ...


class Pipeline:
    """Augmentations in the order in which they are applied; the empty pipeline changes nothing."""

    def __init__(self, steps: Sequence[tuple[str, Augmentation]] = ()) -> None:
        self.names = tuple(name for name, _ in steps)
        self.steps = tuple(step for _, step in steps)
        self._uniforms: dict[int, list[Uniform]] = {}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Build a pipeline from its line; an empty line is the empty pipeline.

        Raises:
            ConfigError: bad syntax, an unknown step or option, a value of another type, with the nearest
                known names.
        """
        steps = parse_steps(text, "augment", lambda name: AUGMENTATIONS.get(name).config)
        return cls([(name, AUGMENTATIONS.build(name, config)) for name, config in steps])

    def __len__(self) -> int:
        return len(self.steps)

    def draw(self, keys: Keys, num_leads: int, num_samples: int, seed: int) -> tuple[Tensor, ...]:
        """Every step's draw, each a function of (seed, epoch, index, view, step)."""
        if seed not in self._uniforms:
            # The place in the chain is part of the operation: a step used twice draws twice.
            self._uniforms[seed] = [Uniform(seed, f"augment/{i}/{name}") for i, name in enumerate(self.names)]
        return tuple(
            step.draw(uniform, keys, num_leads, num_samples)
            for step, uniform in zip(self.steps, self._uniforms[seed], strict=True)
        )

    def apply(self, source: Tensor, draws: Sequence[Tensor], *, first: int = 0) -> Tensor:
        """(B, L, T) -> (B, L, T) by the steps from ``first`` on; ``draws`` are what ``draw`` gave."""
        if len(draws) != len(self.steps):
            raise ValueError(f"{len(draws)} draws for {len(self.steps)} augmentations")
        for step, values in zip(self.steps[first:], draws[first:], strict=True):
            source = step.apply(source, values)
        return source

    def leading_gain(self, draws: Sequence[Tensor]) -> tuple[int, Tensor | None]:
        """How many steps at the head only scale leads, and their common gain (B, L)."""
        gain: Tensor | None = None
        for number, (step, values) in enumerate(zip(self.steps, draws, strict=True)):
            lead_gain = getattr(step, "lead_gain", None)
            if lead_gain is None:
                return number, gain
            gain = lead_gain(values) if gain is None else gain * lead_gain(values)
        return len(self.steps), gain
