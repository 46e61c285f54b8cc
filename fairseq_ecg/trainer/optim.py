"""Optimizers, and the parameter groups they work on.

A group is a set of parameters with the same rate multiplier and weight decay. The multiplier falls from the
head to the input by ``layer_decay`` per layer (models say which layer a parameter belongs to); the default of
1 and decay of every parameter are fairseq-signals'.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_ecg.errors import CheckpointError, ConfigError, nearest
from fairseq_ecg.registry import register_optimizer


class DecayRule(StrEnum):
    ALL = "all"
    """Weight decay on every parameter, as in fairseq-signals."""
    MATRICES = "matrices"
    """No decay on biases, norms and other vectors."""


@dataclass(kw_only=True)
class AdamConfig:
    adam_betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    adam_eps: float = 1e-8
    weight_decay: float = 0.0
    """Decoupled: parameter -= lr * weight_decay * parameter."""
    decay_rule: DecayRule = DecayRule.ALL
    layer_decay: float = 1.0
    """Rate multiplier per layer counted down from the head: 0.75 gives the layer below the head 0.75 lr."""

    def __post_init__(self) -> None:
        if len(self.adam_betas) != 2 or not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ConfigError(
                f"optimizer.adam_betas={self.adam_betas}: two numbers in [0, 1), e.g. (0.9, 0.98)"
            )
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"optimizer.layer_decay={self.layer_decay}: must be in (0, 1]")


@dataclass(frozen=True)
class ParameterGroup:
    """Named parameters that share a rate multiplier and a weight decay."""

    names: tuple[str, ...]
    lr_scale: float
    weight_decay: float


def parameter_groups(model: nn.Module, cfg: AdamConfig) -> list[ParameterGroup]:
    """Sort trainable parameters into groups, in the model's order.

    Raises:
        ConfigError: ``layer_decay`` is asked of a model that does not number its layers.
    """
    groups: dict[tuple[float, float], list[str]] = {}
    layer_index = getattr(model, "layer_index", None)
    if cfg.layer_decay != 1.0 and layer_index is None:
        raise ConfigError(f"optimizer.layer_decay: {type(model).__name__} has no layer_index(parameter name)")
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    layers = {name: layer_index(name) for name, _ in named} if layer_index and cfg.layer_decay != 1.0 else {}
    top = max(layers.values(), default=0)
    for name, parameter in named:
        scale = cfg.layer_decay ** (top - layers[name]) if layers else 1.0
        decays = cfg.decay_rule is DecayRule.ALL or parameter.ndim > 1
        groups.setdefault((scale, cfg.weight_decay if decays else 0.0), []).append(name)
    return [ParameterGroup(tuple(names), *key) for key, names in groups.items()]


@register_optimizer("adam", config=AdamConfig)
class Adam:
    """Adam with decoupled weight decay and fairseq's epsilon, fused.

    The reference adds eps to sqrt(v) before the bias correction, p -= lr sqrt(1 - b2^t) / (1 - b1^t) m /
    (sqrt(v) + eps), which is Adam with eps_t = eps / sqrt(1 - b2^t). Decay is applied apart, as p - lr wd p:
    torch's p * (1 - lr wd) rounds the factor to float32 and loses 5 % of a decay of 5e-7.
    """

    def __init__(self, cfg: AdamConfig, *, model: nn.Module) -> None:
        self.cfg = cfg
        parameters = dict(model.named_parameters())
        self.groups = parameter_groups(model, cfg)
        self.names = [name for group in self.groups for name in group.names]
        self.parameters = [parameters[name] for name in self.names]
        self.by_name = dict(zip(self.names, self.parameters, strict=True))
        self.num_steps = dict.fromkeys(self.names, 0)
        if not self.parameters:
            raise ConfigError("the model has no trainable parameter; is everything frozen?")
        self.optimizer = torch.optim.Adam(
            self.parameters,
            lr=0.0,
            betas=(cfg.adam_betas[0], cfg.adam_betas[1]),
            eps=cfg.adam_eps,
            fused=True,
        )
        self.template = {
            key: value for key, value in self.optimizer.param_groups[0].items() if key != "params"
        }

    def step(self, rate: float, skip: Tensor, *, is_skipped: bool = False) -> None:
        """Change the parameters that have a gradient once; the others are left alone, decay included.

        Args:
            rate: learning rate before the groups' multipliers.
            skip: () float32 on the parameters' device; 1 leaves parameters and moments as they are.
            is_skipped: the host knows already that ``skip`` is 1 (fp16). A skip it does not know of makes its
                own count of steps, which only the correction of eps uses, one too high until a resume.
        """
        # Parameters that were frozen have made fewer steps: eps is corrected by each one's own count.
        parts: dict[tuple[int, int], list[str]] = {}
        for number, group in enumerate(self.groups):
            for name in group.names:
                if self.by_name[name].grad is not None:
                    parts.setdefault((number, self.num_steps[name]), []).append(name)
        groups = []
        for (number, count), names in parts.items():
            lr = rate * self.groups[number].lr_scale
            parameters: list[Tensor] = [self.by_name[name] for name in names]
            correction = (1.0 - self.cfg.adam_betas[1] ** (count + 1)) ** 0.5
            eps = self.cfg.adam_eps / correction
            groups.append({**self.template, "params": parameters, "lr": lr, "eps": eps})
            if self.groups[number].weight_decay:
                decay = lr * self.groups[number].weight_decay
                with torch.no_grad():
                    keep = [1.0 - skip] * len(parameters)
                    torch._foreach_addcmul_(parameters, parameters, keep, value=-decay)
        self.optimizer.param_groups = groups
        # The fused kernel reads this flag on the device: no host synchronisation decides about a bad update.
        self.optimizer.found_inf = skip  # type: ignore[attr-defined]
        self.optimizer.step()
        if not is_skipped:
            for names in parts.values():
                for name in names:
                    self.num_steps[name] += 1

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Moments and step by parameter name: plain tensors."""
        return {
            name: dict(self.optimizer.state[parameter])
            for name, parameter in zip(self.names, self.parameters, strict=True)
            if parameter in self.optimizer.state
        }

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Restore what ``state_dict`` gave.

        Raises:
            CheckpointError: a name or a shape does not belong to this model.
        """
        known = dict(zip(self.names, self.parameters, strict=True))
        if unknown := sorted(set(state) - set(known)):
            raise CheckpointError(
                f"optimizer state has {len(unknown)} parameters the model has not, e.g. {unknown[0]!r}; "
                "use checkpoint.reset_optimizer=true to start the optimizer anew"
            )
        for name, entry in state.items():
            parameter = known[name]
            if entry["exp_avg"].shape != parameter.shape:
                raise CheckpointError(
                    f"optimizer state of {name!r} has shape {tuple(entry['exp_avg'].shape)}, "
                    f"the parameter {tuple(parameter.shape)}; use checkpoint.reset_optimizer=true"
                )
            self.num_steps[name] = int(entry["step"])
            self.optimizer.state[parameter] = {
                key: value.to(parameter.device, copy=True) for key, value in entry.items()
            }


def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """Global L2 norm, () float32, on the gradients' device."""
    norms = torch._foreach_norm([gradient.detach() for gradient in gradients])
    total: Tensor = torch.linalg.vector_norm(torch.stack([norm.float() for norm in norms]))
    return total


def clip_factor(norm: Tensor, clip_norm: float) -> Tensor:
    """What the gradients are multiplied by so that their norm is at most ``clip_norm``; 0 clips nothing."""
    if clip_norm <= 0:
        return torch.ones_like(norm)
    return (clip_norm / (norm + 1e-6)).clamp(max=1.0)


def overridden(config: Any, text: str) -> Any:
    """An optimizer's config with ``checkpoint.optimizer_overrides``, a Python-literal dict, on top.

    Raises:
        ConfigError: it is something else, or names an option the optimizer has not.
    """
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise ConfigError(
            f"checkpoint.optimizer_overrides={text!r}: a dict literal such as \"{{'adam_eps': 1e-6}}\""
        )
    known = [item.name for item in fields(config)]
    for name in value:
        if name not in known:
            raise ConfigError(
                f"checkpoint.optimizer_overrides: no option {name!r}; {nearest(str(name), known)}"
            )
    return replace(config, **value)
