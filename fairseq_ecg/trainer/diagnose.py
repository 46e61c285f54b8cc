"""Find out where a non-finite number comes from: run the micro-batch once more and watch every module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def first_nonfinite(model: nn.Module, forward: Callable[[], Any]) -> str:
    """Name what is not finite first: a parameter, a module's input, or its output; empty when nothing is.

    Args:
        model: whose modules are watched.
        forward: runs the model on the micro-batch in question.
    """
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return f"parameter {name}"
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if found:
                return
            label = f"{name or 'the model'} ({type(module).__name__})"
            if _is_bad(inputs):
                found.append(f"the input of {label}")
            elif _is_bad(output):
                found.append(f"the output of {label}")

        return look

    # A module's hook runs after those of the modules inside it: the innermost one is named.
    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def _is_bad(values: Any) -> bool:
    """True when a tensor in a nest of containers holds a NaN; masks hold infinities on purpose."""
    return any(
        isinstance(value, Tensor) and value.is_floating_point() and bool(torch.isnan(value).any())
        for value in tree_leaves(values)
    )
