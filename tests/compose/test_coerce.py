from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest

from fairseq_ecg.compose.coerce import coerce, literal
from fairseq_ecg.config import LogFormat
from fairseq_ecg.errors import ConfigError


class Colour(StrEnum):
    RED = "red"
    DARK_BLUE = "dark-blue"


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("3", int, 3),
        ("1e5", int, 100_000),
        (3.0, int, 3),
        ("5e-5", float, 5e-5),
        (1, float, 1.0),
        ("True", bool, True),
        ("off", bool, False),
        (1, bool, True),
        (2021, str, "2021"),
        (["valid", "test"], str, "valid,test"),
        ("", str, ""),
        (True, str, "true"),
        ("null", str | None, None),
        ("None", str | None, None),
        ("", str | None, ""),
        (None, int | None, None),
        ("", int | None, None),
        ("7", int | None, 7),
        ("none", LogFormat | None, LogFormat.NONE),
        ("null", LogFormat | None, None),
        ("Red", Colour, Colour.RED),
        ("DARK_BLUE", Colour, Colour.DARK_BLUE),
        ("1e-6", list[float], [1e-6]),
        (3, list[int], [3]),
        ("[2]", list[int], [2]),
        ("(0.9, 0.98)", list[float], [0.9, 0.98]),
        ("0.9,0.98", list[float], [0.9, 0.98]),
        ("1 2 3", list[int], [1, 2, 3]),
        (["5e-5", 1], list[float], [5e-5, 1.0]),
        ("[output,encoder_out]", list[str] | None, ["output", "encoder_out"]),
        ("[a/b.npy, c-d]", list[str], ["a/b.npy", "c-d"]),
        ("V1", list[str], ["V1"]),
        ("[]", list[int], []),
        ("[(256, 2, 2)] * 2 + [(8, 1, 1)]", list[list[int]], [[256, 2, 2], [256, 2, 2], [8, 1, 1]]),
        ("(4, 5)", tuple[int, int], (4, 5)),
        ([4, 5], tuple[int, ...], (4, 5)),
        ("{'a': 1, b: -2}", dict[str, int], {"a": 1, "b": -2}),
        ("{'a': 1}", str, "{'a': 1}"),
        ("[1, {a: null}]", Any, [1, {"a": None}]),
    ],
)
def test_a_value_becomes_what_its_field_says(value, annotation, expected):
    result = coerce(value, annotation, where="g.k")
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "hint"),
    [
        ("many", int, "whole number"),
        ("1.5", int, "whole number"),
        (True, int, "whole number"),
        ("0.1,0.2", float, "--multirun"),
        ([1], float, "number"),
        ("maybe", bool, "true or false"),
        (None, int, "null is not allowed"),
        ("[1,x]", list[int], "whole number"),
        ("(1,2,3)", tuple[int, int], "list of 2"),
        ("blue", Colour, "dark-blue"),
        ("csvv", LogFormat | None, "'csv'"),
        ("[1]", dict[str, int], "mapping"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_key_value_and_what_fits(value, annotation, hint):
    with pytest.raises(ConfigError, match=r"^group\.key in x\.yaml: ") as refusal:
        coerce(value, annotation, where="group.key in x.yaml")
    assert hint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_long_list_is_read_whole():
    weights = [round(0.5 + i / 7, 6) for i in range(5000)]
    assert coerce("[" + ",".join(map(str, weights)) + "]", list[float], where="w") == weights


@pytest.mark.parametrize(
    "text", ["__import__('os').getcwd()", "[1] * 10**9", "x.y", "1 +", "[i for i in range(3)]"]
)
def test_nothing_is_evaluated(text):
    assert literal(text) == text
