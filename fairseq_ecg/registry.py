"""One registry for every kind of component, and the decorators that fill it.

A component is registered by name with the dataclass that configures it::

    @register_model("my_encoder", config=MyEncoderConfig)
    class MyEncoder(nn.Module): ...

Kinds are independent of folders: a paper's room registers its model and its criterion in the same registries
as the shelves do. Nothing is imported here: ``fairseq_ecg.plugins`` finds built-ins, installed plugins and
user folders.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from typing import Any, TypeVar

from fairseq_ecg.errors import ConfigError, nearest

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class NoConfig:
    """Configuration of a component that has no options."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A registered component."""

    kind: str
    name: str
    factory: Callable[..., Any]
    config: type[Any]

    @property
    def summary(self) -> str:
        """First line of the component's docstring."""
        doc = inspect.getdoc(self.factory) or ""
        return doc.splitlines()[0] if doc else ""

    @property
    def location(self) -> str:
        """``file:line`` where the component is defined."""
        try:
            file = inspect.getsourcefile(self.factory) or "?"
            return f"{file}:{inspect.getsourcelines(self.factory)[1]}"
        except (OSError, TypeError):
            return self.factory.__module__


@dataclass(frozen=True)
class Failure:
    """A plugin or file that could not be imported: named at once, fatal only when something of it is used."""

    origin: str
    error: BaseException

    def __str__(self) -> str:
        return f"{self.origin} failed to import: {type(self.error).__name__}: {self.error}"


class Registry:
    """Names of one kind of component.

    Raises:
        ConfigError: from ``get`` and ``build`` for a name nobody registered, with the nearest known ones and
            with the plugins that failed to import, since one of those may have been meant to provide it.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, *, config: type[Any] = NoConfig) -> Callable[[T], T]:
        if not is_dataclass(config):
            raise ConfigError(f"{self.kind} {name!r}: config must be a dataclass, not {config!r}")

        def decorate(factory: T) -> T:
            entry = Entry(kind=self.kind, name=name, factory=factory, config=config)
            known = self._entries.get(name)
            # A module imported twice under the same name (a notebook cell run again) replaces itself.
            if known is not None and _identity(known.factory) != _identity(factory):
                raise ConfigError(
                    f"{self.kind} {name!r} is already registered at {known.location}; "
                    f"choose another name for {entry.location}"
                )
            self._entries[name] = entry
            return factory

        return decorate

    def get(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            broken = "".join(f"; {failure}" for failure in FAILURES)
            raise ConfigError(
                f"unknown {self.kind} {name!r}: {nearest(name, self._entries)}{broken}"
            ) from None

    def build(self, name: str, config: Any = None, **context: Any) -> Any:
        """Make a component from its finished config; ``context`` is what its maker passes beside it."""
        entry = self.get(name)
        config = entry.config() if config is None else config
        if not isinstance(config, entry.config):
            raise ConfigError(
                f"{self.kind} {name!r} is configured by {entry.config.__name__}, not {type(config).__name__}"
            )
        return entry.factory(config, **context)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries[name] for name in sorted(self._entries))

    def names(self) -> list[str]:
        return sorted(self._entries)


def _identity(factory: Any) -> tuple[str, str]:
    return factory.__module__, factory.__qualname__


FAILURES: list[Failure] = []
"""Plugins and files that could not be imported: shown by ``list`` and by the error for an unknown name."""

MODELS = Registry("model")
CRITERIA = Registry("criterion")
TASKS = Registry("task")
READERS = Registry("reader")
AUGMENTATIONS = Registry("augmentation")
OPTIMIZERS = Registry("optimizer")
LR_SCHEDULERS = Registry("lr_scheduler")
IMPORTERS = Registry("importer")
METRICS = Registry("metric")

REGISTRIES: dict[str, Registry] = {
    registry.kind: registry
    for registry in (
        TASKS,
        MODELS,
        CRITERIA,
        OPTIMIZERS,
        LR_SCHEDULERS,
        METRICS,
        READERS,
        AUGMENTATIONS,
        IMPORTERS,
    )
}

register_model = MODELS.register
register_criterion = CRITERIA.register
register_task = TASKS.register
register_reader = READERS.register
register_augmentation = AUGMENTATIONS.register
register_optimizer = OPTIMIZERS.register
register_lr_scheduler = LR_SCHEDULERS.register
register_importer = IMPORTERS.register
register_metric = METRICS.register
