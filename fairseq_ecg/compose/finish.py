"""Resolves a draft (nested values as the user wrote them) to a finished, validated ``RunConfig``."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_ecg.compose.coerce import coerce
from fairseq_ecg.compose.eras import IGNORED, MIRRORS, REFERENCE_GROUPS, modernise, written_by_reference
from fairseq_ecg.compose.groups import (
    COMPONENT_GROUPS,
    DEFAULT_NAMES,
    FIXED_GROUPS,
    GROUPS,
    field_defaults,
    field_names,
    field_types,
    homes_of,
)
from fairseq_ecg.config import Choice, RunConfig, plain
from fairseq_ecg.errors import ConfigError, FairseqEcgError, nearest
from fairseq_ecg.plugins import load_all
from fairseq_ecg.registry import Entry

logger = logging.getLogger(__name__)

MISSING = "???"
"""OmegaConf's mark for a value that must be given before it is read."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A config before names are resolved: what a YAML file and a command line say, and which said what."""

    values: Mapping[str, Any]
    """Group -> key -> value; interpolations are not resolved yet."""
    source: str
    """The file, for error messages."""
    overridden: frozenset[str] = frozenset()
    """Dotted keys that the command line set."""
    is_foreign: bool = False
    """Parts come from another program's checkpoint: options we do not have are dropped with a notice."""

    @property
    def tolerant(self) -> bool:
        """Whether unknown options that nobody typed are dropped instead of refused."""
        return self.is_foreign or written_by_reference(self.values)

    def origin(self, key: str) -> str:
        typed = any(name == key or name.startswith(f"{key}.") for name in self.overridden)
        return "on the command line" if typed else f"in {self.source}"


def finish(draft: Draft) -> RunConfig:
    """Resolve names, interpolations and types, refuse what is unknown, run the dataclasses' checks.

    Raises:
        ConfigError: with the key, its value, where it was said, and the nearest thing that is known.
    """
    values = _groups(draft)
    tolerant = draft.tolerant
    overridden = modernise(values, draft.overridden)
    draft = dataclasses.replace(draft, overridden=overridden)
    entries = {group: _entry(group, values, draft) for group in COMPONENT_GROUPS}
    classes = FIXED_GROUPS | {group: entry.config for group, entry in entries.items()}
    for group, config_class in classes.items():
        values[group] = _known(group, values.get(group, {}), config_class, draft, tolerant)
    resolved = _interpolate(values, classes, draft)
    configs = {group: _construct(group, resolved[group], cls, draft) for group, cls in classes.items()}
    for group, entry in entries.items():
        configs[group] = Choice(entry.name, configs[group])
    return RunConfig(**configs)


def config_from_dict(nested: Mapping[str, Any], *, source: str, import_user_dir: bool = False) -> RunConfig:
    """Finish a nested dict: a checkpoint's ``config.yaml``, or the ``cfg`` of a fairseq-signals one.

    Args:
        nested: group -> key -> value.
        source: what to call it in errors, usually the file.
        import_user_dir: import ``common.user_dir`` of the dict first. Only for a dict this program made: a
            checkpoint may come from a stranger, whose code must not run because of it.

    Raises:
        ConfigError: as ``finish``.
    """
    load_all(nested.get("common", {}).get("user_dir") if import_user_dir else None)
    return finish(Draft(values=nested, source=source))


def component_from_dict(group: str, options: Mapping[str, Any], *, source: str) -> Choice:
    """Finish the options of one component, ``_name`` among them, as stored in a checkpoint.

    Args:
        group: ``task``, ``model``, ``criterion``, ``optimizer`` or ``lr_scheduler``.
        options: ``_name`` and option -> value.
        source: what to call it in errors, usually the file.

    Raises:
        ConfigError: as ``finish``.
    """
    load_all()
    draft = Draft(values={group: options}, source=source)
    values = {group: dict(options)}
    modernise(values, frozenset())
    entry = _entry(group, values, draft)
    known = _known(group, values[group], entry.config, draft, tolerant=False)
    return Choice(entry.name, _construct(group, known, entry.config, draft))


def run_checks(cfg: RunConfig) -> None:
    """Ask the chosen components whether the whole run makes sense.

    A registered task, model or criterion may have a classmethod ``check_config(run)`` that raises
    ``ConfigError`` for combinations that would silently train nothing.
    """
    for group in ("task", "model", "criterion"):
        factory = COMPONENT_GROUPS[group].get(getattr(cfg, group).name).factory
        check = getattr(factory, "check_config", None)
        if check is not None:
            check(cfg)


def _groups(draft: Draft) -> dict[str, dict[str, Any]]:
    """The draft as group -> key -> value, refusing groups that do not exist."""
    groups: dict[str, dict[str, Any]] = {}
    for group, content in draft.values.items():
        if group not in GROUPS:
            if draft.tolerant or group in REFERENCE_GROUPS:
                logger.warning("%s: ignoring the group %r, which means nothing here", draft.source, group)
                continue
            raise ConfigError(_unknown_group(group, draft))
        if isinstance(content, str) and group in COMPONENT_GROUPS and content != MISSING:
            content = {"_name": content}
        if content is not None and content != MISSING and not isinstance(content, Mapping):
            raise ConfigError(
                f"{group}={content!r} {draft.origin(group)}: must be a mapping of option: value"
            )
        groups[group] = {} if content is None or content == MISSING else dict(content)
    return groups


def _unknown_group(group: str, draft: Draft) -> str:
    homes = homes_of(group)
    hint = f"write {homes[0]}.{group}" if homes else nearest(group, GROUPS)
    return f"unknown config group {group!r} {draft.origin(group)}: {hint}"


def _entry(group: str, values: dict[str, dict[str, Any]], draft: Draft) -> Entry:
    """The component a group names; its ``_name`` leaves ``values``."""
    registry = COMPONENT_GROUPS[group]
    name = values.setdefault(group, {}).pop("_name", None)
    if name in (None, MISSING):
        name = DEFAULT_NAMES.get(group)
    if name is None:
        raise ConfigError(
            f"no {group} chosen {draft.origin(f'{group}._name')}: give {group}=NAME, or a whole recipe with "
            f"--config-name; known: {', '.join(registry.names()) or 'none'}"
        )
    try:
        return registry.get(str(name))
    except ConfigError as error:
        raise ConfigError(f"{group}._name={name!r} {draft.origin(f'{group}._name')}: {error}") from None


def _known(
    group: str, values: Mapping[str, Any], config_class: type[Any], draft: Draft, tolerant: bool
) -> dict[str, Any]:
    """Keep the options the dataclass has; drop obsolete ones with a notice; refuse the rest.

    Unknown options of a file are dropped, too, when fairseq-signals wrote the file, or when the command line
    replaced the component they were written for.
    """
    known = field_names(config_class)
    replaced = f"{group}._name" in draft.overridden
    kept, dropped = {}, []
    for key, value in values.items():
        typed = f"{group}.{key}" in draft.overridden
        if key in known:
            kept[key] = value
        elif (group, key) in MIRRORS and not typed and (tolerant or str(value).startswith("${")):
            logger.debug("%s.%s follows %s", group, key, MIRRORS[group, key])
        elif key in IGNORED.get(group, ()) or (not typed and (tolerant or replaced)):
            dropped.append(f"{key}={value}")
        else:
            raise ConfigError(_unknown_key(group, key, known, draft))
    if dropped:
        logger.warning(
            "%s: ignoring options of %s that have no effect here: %s", draft.source, group, ", ".join(dropped)
        )
    return kept


def _unknown_key(group: str, key: str, known: list[str], draft: Draft) -> str:
    if (group, key) in MIRRORS:
        hint = f"set {MIRRORS[group, key]} instead"
    else:
        homes = [home for home in homes_of(key) if home != group]
        hint = f"did you mean '{homes[0]}.{key}'?" if homes else nearest(key, known)
    return f"unknown option {group}.{key} {draft.origin(f'{group}.{key}')}: {hint}"


def _interpolate(
    values: Mapping[str, Mapping[str, Any]], classes: Mapping[str, type[Any]], draft: Draft
) -> dict[str, dict[str, Any]]:
    """Resolve ``${group.key}`` against values and defaults; return the given values only."""
    everything = {
        group: {**{k: _yaml(v) for k, v in field_defaults(cls).items()}, **values[group]}
        for group, cls in classes.items()
    }
    try:
        container = OmegaConf.to_container(OmegaConf.create(everything), resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{error.full_key or 'config'} {draft.origin(error.full_key or '')}: {reason}"
        ) from None
    assert isinstance(container, dict)
    return {
        group: {key: container[group][key] for key in values[group] if container[group][key] != MISSING}
        for group in classes
    }


def _yaml(value: Any) -> Any:
    """A default in the containers OmegaConf takes."""
    return plain(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _construct(group: str, values: Mapping[str, Any], config_class: type[Any], draft: Draft) -> Any:
    """Coerce by field type and build the dataclass, whose own checks run here."""
    annotations = field_types(config_class)
    finished = {
        key: coerce(value, annotations[key], where=f"{group}.{key} {draft.origin(f'{group}.{key}')}")
        for key, value in values.items()
    }
    defaults = field_defaults(config_class)
    for name in annotations:
        if name not in finished and name not in defaults:
            raise ConfigError(f"{group}.{name} has no value and no default: give {group}.{name}=VALUE")
    try:
        return config_class(**finished)
    except FairseqEcgError as error:
        message = str(error) if group in str(error) else f"{group}: {error}"
        raise type(error)(message) from None
