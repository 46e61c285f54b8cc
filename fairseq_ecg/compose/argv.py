"""Reads a command line in Hydra's grammar: ``key=value`` overrides on either side of a few flags.

Hydra itself wants overrides in one block, refuses a value with ``=`` in it and takes ``a,b`` for a sweep;
here an override is split at its first ``=`` and its value stays text until the type of its field is known.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fairseq_ecg.errors import ConfigError, nearest

_VALUE_FLAGS = {
    "--config-dir": "config_dir",
    "-cd": "config_dir",
    "--config-path": "config_dir",
    "-cp": "config_dir",
    "--config-name": "config_name",
    "-cn": "config_name",
    "--cfg": "show",
    "-c": "show",
}
_SWITCHES = {"--multirun": "multirun", "-m": "multirun", "--help": "help", "-h": "help"}
_KEY = re.compile(r"[A-Za-z_][\w-]*([./][\w-]+)*")


@dataclass(frozen=True, kw_only=True)
class Override:
    """One ``key=value`` (or ``~key``) of the command line."""

    key: str
    value: str
    """Text as typed, without surrounding quotes."""
    delete: bool = False
    quoted: bool = False
    """The value was in quotes of its own: it is one value, not a list of choices."""
    append: bool = False
    """Written with a ``+``, which only matters when a Hydra config group is chosen."""

    def __str__(self) -> str:
        return f"~{self.key}" if self.delete else f"{self.key}={self.value}"


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """A parsed command line."""

    argv: tuple[str, ...]
    overrides: tuple[Override, ...] = ()
    config_dir: str | None = None
    config_name: str | None = None
    show: str | None = None
    """``job``: print the finished config instead of running."""
    multirun: bool = False
    help: bool = False

    def jobs(self) -> list[Invocation]:
        """One invocation per combination of a ``--multirun``, in Hydra's order (last key fastest)."""
        if not self.multirun:
            return [self]
        choices = [_choices(override) for override in self.overrides]
        return [
            replace(self, overrides=combination, multirun=False)
            for combination in itertools.product(*choices)
        ]

    @property
    def swept(self) -> list[str]:
        """Keys that take more than one value."""
        return [override.key for override in self.overrides if self.multirun and len(_choices(override)) > 1]


def parse_argv(argv: Sequence[str]) -> Invocation:
    """Sort a command line into flags and overrides.

    Raises:
        ConfigError: an unknown flag, a flag without its value, or an argument that is no override.
    """
    flags: dict[str, str | bool] = {}
    overrides: list[Override] = []
    arguments = iter(argv)
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if argument in _SWITCHES:
            flags[_SWITCHES[argument]] = True
        elif flag in _VALUE_FLAGS:
            text = value if equals else next(arguments, None)
            if not text:
                raise ConfigError(f"{flag} needs a value, e.g. {flag} {_example(_VALUE_FLAGS[flag])}")
            flags[_VALUE_FLAGS[flag]] = text
        elif argument.startswith("-"):
            raise ConfigError(_unknown_flag(flag.lstrip("-")))
        else:
            overrides.append(parse_override(argument))
    if flags.get("show", "job") != "job":
        raise ConfigError(
            f"--cfg {flags['show']}: only --cfg job, the finished config of the run, can be shown"
        )
    return Invocation(argv=tuple(argv), overrides=tuple(overrides), **flags)  # type: ignore[arg-type]


def parse_override(argument: str) -> Override:
    """Read ``key=value``, ``+key=value``, ``++key=value`` or ``~key``.

    Raises:
        ConfigError: it is none of these.
    """
    if not argument.strip():
        raise ConfigError(
            "an argument is empty or blank: a line continuation \\ must be the last character of its line"
        )
    key, equals, value = argument.partition("=")
    delete, append = key.startswith("~"), key.startswith("+")
    key = key.lstrip("~" if delete else "+").strip()
    if not equals and not delete:
        raise ConfigError(f"{argument!r} is not an override; write group.key=value, e.g. task.data=DIR")
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{argument!r}: {key!r} is not a key; write group.key=value, e.g. task.data=DIR")
    value = value.strip()
    quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"" and value[0] not in value[1:-1]
    return Override(
        key=key, value=value[1:-1] if quoted else value, delete=delete, quoted=quoted, append=append
    )


def _choices(override: Override) -> list[Override]:
    """The values of a sweep as single overrides: ``a=1,2``, ``choice(...)``, ``range(...)`` as in Hydra."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if override.delete or override.quoted:
        return [override]
    try:
        parsed = OverridesParser.create().parse_override(str(override))
    except HydraException:
        return [override]  # Hydra cannot read the value (a path with "="): then it is no sweep either.
    if not parsed.is_sweep_override():
        return [override]
    return [parse_override(f"{override.key}={text}") for text in parsed.sweep_string_iterator()]


def _unknown_flag(name: str) -> str:
    from fairseq_ecg.compose.groups import FIXED_GROUPS, field_names

    key = name.replace("-", "_")
    groups = [group for group, cls in FIXED_GROUPS.items() if key in field_names(cls)]
    if groups:
        return f"unknown option --{name}: options of a run are overrides, write {groups[0]}.{key}=VALUE"
    known = [flag for flag in (*_VALUE_FLAGS, *_SWITCHES) if flag.startswith("--")]
    return f"unknown option --{name}: {nearest('--' + name, known)}"


def _example(flag: str) -> str:
    return {"config_dir": "configs/", "config_name": "w2v_cmsc_rlm", "show": "job"}[flag]
