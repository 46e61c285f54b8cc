"""Turns what YAML or a command line gives into the type of a dataclass field.

The one place that knows of scalars given for lists, ``(0.9, 0.98)`` as text, ``5e-5`` read as text,
``valid,test`` and ``null``; components see finished values of the annotated types only.
"""

from __future__ import annotations

import ast
import math
import types
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Union, get_args, get_origin

from fairseq_ecg.errors import ConfigError, nearest

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}
_NULL = {"null", "None", "~", ""}


class Mismatch(Exception):
    """A value does not fit its field; the message says what would."""


def coerce(value: Any, annotation: Any, *, where: str) -> Any:
    """Convert ``value`` to ``annotation``.

    Args:
        value: a YAML value or the text of an override.
        annotation: ``int``, ``float``, ``bool``, ``str``, an Enum, ``X | None``, ``list[X]``,
            ``tuple[X, ...]``, ``dict`` or ``Any``.
        where: key and origin, for the error.

    Raises:
        ConfigError: the value cannot be read as that type.
    """
    try:
        return _convert(value, annotation)
    except Mismatch as error:
        hint = ""
        if isinstance(value, str) and "," in value and get_origin(annotation) not in (list, tuple):
            hint = " (several values to try one after the other need --multirun)"
        raise ConfigError(f"{where}: {_shown(value)} is not {error}{hint}") from None


def _convert(value: Any, annotation: Any) -> Any:
    if annotation is Any:
        return literal(value) if isinstance(value, str) else value
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments)
    if value is None:
        raise Mismatch(f"{_name(annotation)}; null is not allowed here")
    if origin in (list, tuple) or annotation in (list, tuple):
        return _convert_sequence(value, origin or annotation, arguments)
    if origin is dict or annotation is dict:
        value = literal(value) if isinstance(value, str) else value
        if not isinstance(value, Mapping):
            raise Mismatch("a mapping such as {key: value}")
        return dict(value)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _convert_enum(value, annotation)
    return _SCALARS[annotation](value)


def _convert_union(value: Any, arguments: tuple[Any, ...]) -> Any:
    """Try the alternatives in order; None comes last, so that an enum may have a member called none."""
    problem = None
    for alternative in arguments:
        if alternative is types.NoneType:
            continue
        if value is None or (isinstance(value, str) and value in _NULL - {""}):
            break
        try:
            return _convert(value, alternative)
        except Mismatch as error:
            problem = problem or error
    if types.NoneType in arguments and (value is None or (isinstance(value, str) and value in _NULL)):
        return None
    raise Mismatch(f"{problem or _name(arguments[0])}" + (" or null" if types.NoneType in arguments else ""))


def _convert_sequence(value: Any, container: type[Any], arguments: tuple[Any, ...]) -> Any:
    if isinstance(value, str):
        value = literal(value)
        if isinstance(value, str):
            value = split_list(value)
    items = list(value) if isinstance(value, list | tuple) else [value]
    if container is tuple and arguments and arguments[-1] is not ...:
        if len(items) != len(arguments):
            raise Mismatch(f"a list of {len(arguments)} values")
        return tuple(_convert(item, kind) for item, kind in zip(items, arguments, strict=True))
    kind = arguments[0] if arguments else Any
    return container(_convert(item, kind) for item in items)


def _convert_enum(value: Any, annotation: type[Enum]) -> Enum:
    if isinstance(value, annotation):
        return value
    # YAML reads a bare no, off or none as something else than the word; enums are compared by their text.
    text = str(value.value if isinstance(value, Enum) else value).casefold()
    members = {str(member.value).casefold(): member for member in annotation}
    members |= {member.name.casefold(): member for member in annotation}
    if text not in members:
        values = [str(member.value) for member in annotation]
        raise Mismatch(f"one of {', '.join(values)}; {nearest(text, values)}")
    return members[text]


def _to_bool(value: Any) -> bool:
    text = str(value).strip().casefold()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise Mismatch("true or false")


def _to_int(value: Any) -> int:
    if isinstance(value, bool | list | tuple | Mapping):
        raise Mismatch("a whole number")
    try:
        return int(value) if isinstance(value, int | str) else _whole(value)
    except ValueError:
        return _whole(value)


def _whole(value: Any) -> int:
    """``1e5`` is a whole number, ``1.5`` is not."""
    number = _to_float(value, "a whole number")
    if not number.is_integer():
        raise Mismatch("a whole number")
    return int(number)


def _to_float(value: Any, expected: str = "a number") -> float:
    if isinstance(value, bool | list | tuple | Mapping):
        raise Mismatch(expected)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise Mismatch(expected) from None
    if math.isnan(number):
        raise Mismatch(expected)
    return number


def _to_str(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple) and all(isinstance(item, str | int | float) for item in value):
        return ",".join(str(item) for item in value)
    return repr(value) if isinstance(value, Mapping) else str(value)


_SCALARS: dict[Any, Callable[[Any], Any]] = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str}


def literal(text: str) -> Any:
    """Read numbers, lists, tuples, dicts and bare words, and ``[...] * 4`` or ``[...] + [...]``.

    Text that is none of these is returned as it is. Nothing is evaluated: only these forms of syntax are
    walked.
    """
    try:
        return _literal(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value) if isinstance(value, int | float | str | bool | None):
            return value
        case ast.Name(id=name):
            return {"true": True, "false": False, "null": None}.get(name, name)
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
        case ast.Dict(keys=keys, values=values) if all(key is not None for key in keys):
            return {_literal(key): _literal(value) for key, value in zip(keys, values, strict=True) if key}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(_literal(operand))
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            repeated, times = _literal(left), _literal(right)
            if isinstance(repeated, list) and isinstance(times, int) and 0 <= times <= 1000:
                return repeated * times
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            first, second = _literal(left), _literal(right)
            if isinstance(first, list) and isinstance(second, list):
                return first + second
    raise ValueError("not a literal")


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    return value


def split_list(text: str) -> list[str]:
    """Split ``[a/b, c-d]``, ``valid,test`` or ``V1 V2`` into its words, without brackets and quotes."""
    text = text.strip()
    if text and (text[0], text[-1]) in (("[", "]"), ("(", ")")):
        text = text[1:-1]
    separated = text.split(",") if "," in text else text.split()
    return [word.strip().strip("'\"") for word in separated if word.strip()]


def _name(annotation: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if annotation in names:
        return names[annotation]
    if get_origin(annotation) in (list, tuple):
        return "a list"
    return f"a {getattr(annotation, '__name__', annotation)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
