"""From a command line to a finished config: find the YAML, compose with Hydra, import plugins, finish."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fairseq_ecg.compose.argv import Invocation, Override, parse_argv
from fairseq_ecg.compose.find import display, find_config
from fairseq_ecg.compose.finish import Draft, finish, run_checks
from fairseq_ecg.compose.groups import COMPONENT_GROUPS
from fairseq_ecg.config import RunConfig
from fairseq_ecg.errors import ConfigError, nearest
from fairseq_ecg.plugins import load_all

logger = logging.getLogger(__name__)


def load_config(argv: Sequence[str] | Invocation | None = None) -> RunConfig:
    """Read a command line as ``fairseq-ecg-train`` does and return the finished config of one run.

    Nothing is written and the working directory stays what it is, so relative paths mean what they mean to
    the user. Flags that ask for something else than one run (``--multirun``, ``--cfg``, ``--help``) are the
    command's.

    Args:
        argv: the arguments after the command, or a parsed command line; None takes ``sys.argv``.

    Raises:
        ConfigError: an unknown file, key, name or value, or a combination a component refuses.
    """
    if not isinstance(argv, Invocation):
        argv = parse_argv(sys.argv[1:] if argv is None else argv)
    if argv.multirun:
        raise ConfigError("--multirun describes several runs; load each of Invocation.jobs()")
    cfg = finish(read_draft(argv))
    run_checks(cfg)
    return cfg


def read_draft(invocation: Invocation) -> Draft:
    """Compose YAML and overrides and import plugins; ``finish`` resolves names, types and interpolations."""
    path = find_config(invocation.config_name, invocation.config_dir) if invocation.config_name else None
    if path is None and invocation.config_dir is not None:
        raise ConfigError(f"--config-dir {invocation.config_dir} needs --config-name NAME beside it")
    source = display(path) if path else "this command line (no --config-name given)"
    overrides = [_named(override, path) for override in invocation.overrides if not _is_hydras(override)]
    values = _compose(path, overrides, source)
    load_all(_user_dir(values))
    return Draft(
        values=values,
        source=source,
        overridden=frozenset(override.key for override in overrides if not override.delete),
    )


def _compose(path: Path | None, overrides: list[Override], source: str) -> dict[str, Any]:
    """Let Hydra merge the file, its defaults list and the overrides, all of them as text."""
    settings = [_hydra_syntax(override) for override in overrides if not override.delete]
    folder = path.parent if path else Path(__file__).parent
    try:
        with warnings.catch_warnings(record=True) as remarks, _hydra(folder):
            warnings.simplefilter("always")
            cfg = compose(config_name=path.stem if path else None, overrides=settings)
    except (HydraException, OmegaConfBaseException, YAMLError, TypeError) as error:
        raise ConfigError(f"{source}: {' '.join(str(error).split())}") from None
    for remark in remarks:
        logger.warning("%s: %s", source, remark.message)
    values = _container(cfg)
    # Files of fairseq's era start with "# @package _group_", which for a primary file means: no group.
    if "_group_" in values:
        values = _container(OmegaConf.merge(values.pop("_group_"), values))
    values.pop("hydra", None)
    for override in overrides:
        if override.delete:
            _delete(values, override.key, source)
    return values


@contextmanager
def _hydra(folder: Path) -> Iterator[None]:
    """Hydra reading ``folder``; the caller may be inside a Hydra application of its own, which comes back."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(folder)):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def _container(cfg: DictConfig | ListConfig) -> dict[str, Any]:
    """Plain containers; interpolations stay."""
    values = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _hydra_syntax(override: Override) -> str:
    if "/" in override.key or override.key in COMPONENT_GROUPS:
        if override.value in ("", "null"):
            return f"++{override.key}=null"
        return f"{'+' if override.append else ''}{override.key}={override.value}"
    return f"++{override.key}={QuotedString(override.value, Quote.single).with_quotes()}"


def _named(override: Override, path: Path | None) -> Override:
    """``model=NAME`` chooses a component, unless the config's folder has a Hydra group of that name."""
    if override.key not in COMPONENT_GROUPS or override.delete or override.value in ("", "null"):
        return override
    if path is not None and (path.parent / override.key).is_dir():
        return override
    return Override(key=f"{override.key}._name", value=override.value)


def _is_hydras(override: Override) -> bool:
    """Hydra's own settings steer folders and launchers that are not used here."""
    if override.key.split(".")[0].split("/")[0] != "hydra":
        return False
    if override.key.startswith("hydra/"):
        raise ConfigError(
            f"{override}: Hydra launchers and sweepers are not used; --multirun runs jobs in turn"
        )
    logger.warning("ignoring %s: everything is written under checkpoint.save_dir", override)
    return True


def _delete(values: dict[str, Any], key: str, source: str) -> None:
    *groups, last = key.split(".")
    holder: Any = values
    for group in groups:
        holder = holder.get(group) if isinstance(holder, dict) else None
    if not isinstance(holder, dict) or last not in holder:
        known = holder if isinstance(holder, dict) else values
        raise ConfigError(f"~{key}: there is no such key in {source}; {nearest(last, map(str, known))}")
    del holder[last]


def _user_dir(values: dict[str, Any]) -> str | None:
    user_dir = OmegaConf.select(OmegaConf.create(values), "common.user_dir")
    return None if user_dir in (None, "", "null", "None") else str(user_dir)
