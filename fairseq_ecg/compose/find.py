"""Finds the YAML file a command line means, on disk or among the examples that come with the package."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

from fairseq_ecg.errors import ConfigError, nearest

logger = logging.getLogger(__name__)

SYSTEM_ALIASES = {"w2v_clocs": "w2v_cmsc"}
"""Folder under ``examples/`` in documents of an earlier era -> its name today."""

SUFFIX = ".yaml"
"""The only one Hydra reads."""


@cache
def examples_dir() -> Path:
    """The examples: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "examples"
    return inside if inside.is_dir() else package.parent / "examples"


def packaged_configs() -> list[Path]:
    """Every YAML file of ``examples/<system>/config``, sorted."""
    return sorted(examples_dir().glob(f"*/config/**/*{SUFFIX}"))


def find_config(config_name: str, config_dir: str | None) -> Path:
    """Resolve ``--config-name`` and ``--config-dir`` to one file.

    A folder that does not exist, or one of the packaged ones under an earlier or shorter path, falls back to
    the packaged configs with a notice.

    Raises:
        ConfigError: no such config, with the names there are; or a name that several packaged configs have.
    """
    name = config_name.removesuffix(SUFFIX)
    if config_dir is None:
        direct = Path(config_name).expanduser()
        if config_name.endswith(SUFFIX) and direct.is_file():
            return direct.resolve()
        return _one(name, _packaged(name, ()), f"no packaged config is called {config_name!r}")
    folder = Path(config_dir).expanduser()
    if (folder / f"{name}{SUFFIX}").is_file():
        return (folder / f"{name}{SUFFIX}").resolve()
    if folder.is_dir() and not folder.resolve().is_relative_to(examples_dir()):
        present = sorted(path.stem for path in folder.glob(f"*{SUFFIX}"))
        raise ConfigError(f"no {name}.yaml in --config-dir {config_dir}: {nearest(name, present)}")
    path = _one(
        name,
        _packaged(name, _below_examples(folder)) or _packaged(name, ()),
        f"--config-dir {config_dir} does not exist and no packaged config is called {config_name!r}",
    )
    missing = "has no such file" if folder.is_dir() else "does not exist"
    logger.warning("--config-dir %s %s: using the packaged %s", config_dir, missing, display(path))
    return path


def display(path: Path) -> str:
    """A packaged config relative to the folder that holds ``examples``; another path as it is."""
    root = examples_dir().parent
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def packaged_names() -> list[str]:
    """What can be given to ``--config-name`` without ``--config-dir``."""
    return sorted({path.stem for path in packaged_configs()})


def _packaged(name: str, below: tuple[str, ...]) -> list[Path]:
    """Packaged configs called ``name`` (its last parts may name folders) inside ``examples/<below>``."""
    folder = examples_dir().joinpath(*below)
    wanted = Path(name).parts
    return [
        path
        for path in packaged_configs()
        if path.is_relative_to(folder) and path.with_suffix("").parts[-len(wanted) :] == wanted
    ]


def _below_examples(folder: Path) -> tuple[str, ...]:
    """The parts of a path after its last ``examples``, with the system's present name."""
    parts = folder.parts
    if "examples" not in parts:
        return ()
    below = parts[len(parts) - parts[::-1].index("examples") :]
    return (SYSTEM_ALIASES.get(below[0], below[0]), *below[1:]) if below else ()


def _one(name: str, found: list[Path], problem: str) -> Path:
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"several packaged configs are called {name!r}: {', '.join(map(display, found))}; "
            "choose one with --config-dir"
        )
    names = packaged_names()
    close = nearest(name, names)
    listed = "" if close.startswith("known") else f" packaged: {', '.join(names)};"
    raise ConfigError(f"{problem}: {close}{listed or ';'} for a file of your own add --config-dir FOLDER")
