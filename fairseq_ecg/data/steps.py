"""Chains of steps written on one line, ``first(option=1.5)|second``: read with ``ast``, never evaluated."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_type_hints

from fairseq_ecg.errors import ConfigError, nearest


def parse_steps(text: str, what: str, config_of: Callable[[str], type[Any]]) -> list[tuple[str, Any]]:
    """Names and finished configurations of the steps, in their order; an empty line has none.

    Args:
        text: the line.
        what: option the line was given for; errors begin with it.
        config_of: the dataclass that configures a step, by its name; raises ConfigError for unknown names.

    Raises:
        ConfigError: bad syntax, an unknown step or option, a value of another type, with the nearest known
            names.
    """
    if not text.strip():
        return []
    try:
        expression = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ConfigError(
            f"{what}={text!r} cannot be read at character {error.offset}; "
            "write steps as name(option=value) joined by |"
        ) from None
    calls = []
    while isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.BitOr):
        calls.append(expression.right)
        expression = expression.left
    calls.append(expression)
    return [_step(call, text, what, config_of) for call in reversed(calls)]


def _step(call: ast.expr, text: str, what: str, config_of: Callable[[str], type[Any]]) -> tuple[str, Any]:
    if isinstance(call, ast.Name):
        name, keywords = call.id, []
    elif isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
        name, keywords = call.func.id, call.keywords
    else:
        raise ConfigError(f"{what}={text!r}: {ast.unparse(call)!r} is not a step name(option=value, ...)")
    config = config_of(name)
    types = get_type_hints(config)
    known = [item.name for item in fields(config)]
    options: dict[str, Any] = {}
    for keyword in keywords:
        if keyword.arg not in known:
            given = keyword.arg or "**"
            raise ConfigError(f"{what}={text!r}: {name} has no option {given!r}; {nearest(given, known)}")
        place = f"{what}={text!r}: {name}({keyword.arg}=...)"
        options[keyword.arg] = _value(keyword.value, types[keyword.arg], place)
    return name, config(**options)


def _value(node: ast.expr, expected: Any, place: str) -> Any:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        raise ConfigError(f"{place}: {ast.unparse(node)!r} is not a plain value") from None
    if expected is float and type(value) is int:
        return float(value)
    if expected in (int, float, bool, str) and type(value) is not expected:
        raise ConfigError(f"{place} is {value!r}, needed is {expected.__name__}")
    return value
