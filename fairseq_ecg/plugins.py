"""Finds components: built-ins by scanning their folders, installed plugins, and user folders.

Every module is imported by name at run time, so that this file depends on none of them. A module that fails
is reported by name and remembered in ``registry.FAILURES``; it is fatal only when a name is asked for that
nobody registered, because then the broken file may have been meant to provide it.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pkgutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType

from fairseq_ecg.errors import ConfigError
from fairseq_ecg.registry import FAILURES, Failure

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "fairseq_ecg.plugins"

BUILT_IN_FOLDERS = (
    "fairseq_ecg.tasks",
    "fairseq_ecg.models",
    "fairseq_ecg.criteria",
    "fairseq_ecg.methods",
    "fairseq_ecg.metrics",
    "fairseq_ecg.trainer.optim",
    "fairseq_ecg.trainer.schedule",
    "fairseq_ecg.data.readers",
    "fairseq_ecg.data.augment",
    "fairseq_ecg.interop",
)
"""Packages whose modules register something, or single modules that do."""

_loaded: set[str] = set()


def load_all(user_dir: str | Path | None = None) -> None:
    """Make every component known: built-ins, installed plugins and, if given, those of ``user_dir``.

    Cheap when called again. A process that is started afresh (a spawned rank) calls it before it builds
    anything.

    Raises:
        ConfigError: ``user_dir`` does not exist, or a module of its name is already there.
    """
    load_built_ins()
    load_installed()
    if user_dir is not None:
        load_user_dir(user_dir)


def load_built_ins() -> None:
    """Import every module of the folders in which built-in components live."""
    for folder in BUILT_IN_FOLDERS:
        if folder not in _loaded:
            _loaded.add(folder)
            _import_tree(folder, origin=f"built-in {folder}", recursive=False)


def load_installed() -> None:
    """Import what installed distributions name in the entry-point group ``fairseq_ecg.plugins``."""
    for entry_point in metadata.entry_points(group=ENTRY_POINT_GROUP):
        owner = entry_point.dist.name if entry_point.dist else "unknown distribution"
        origin = f"plugin {entry_point.name!r} ({entry_point.value}, installed by {owner})"
        if origin in _loaded:
            continue
        _loaded.add(origin)
        try:
            entry_point.load()
        except Exception as error:
            _record(origin, error)


def load_user_dir(user_dir: str | Path) -> None:
    """Import a user's folder or file of plugins, as fairseq does: its parent goes on ``sys.path``.

    A folder is imported with its modules and sub-packages, except names that start with ``_`` or ``test`` and
    ``setup``/``conftest``, which are not meant for import.

    Raises:
        ConfigError: nothing is there, or another module of that name has been imported from elsewhere.
    """
    path = Path(user_dir).expanduser().resolve()
    if not path.exists():
        raise ConfigError(
            f"common.user_dir={str(user_dir)!r} does not exist (looked at {path}); "
            "give the folder or the .py file that registers your components"
        )
    if path.is_file() and path.suffix != ".py":
        raise ConfigError(f"common.user_dir={str(user_dir)!r} is neither a folder nor a .py file")
    name = path.stem if path.is_file() else path.name
    known = sys.modules.get(name)
    if known is not None and path not in _places(known):
        raise ConfigError(
            f"common.user_dir={str(user_dir)!r}: a module named {name!r} is already imported from "
            f"{known.__file__ or 'elsewhere'}; rename the folder or file"
        )
    if str(path) in _loaded:
        return
    _loaded.add(str(path))
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    importlib.invalidate_caches()
    _import_tree(name, origin=f"user_dir {path}", recursive=True)


def _import_tree(name: str, *, origin: str, recursive: bool) -> None:
    """Import a module and, when it is a package, the modules in it; record what fails."""
    try:
        module = importlib.import_module(name)
    except Exception as error:
        _record(origin if origin.endswith(name) else f"{origin}: {name}", error)
        return
    for child, is_package in _children(module):
        if is_package and recursive:
            _import_tree(child, origin=origin, recursive=True)
            continue
        try:
            importlib.import_module(child)
        except Exception as error:
            _record(f"{origin}: {child}", error)


def _children(module: ModuleType) -> Iterator[tuple[str, bool]]:
    """Names of the importable modules directly inside a package, and whether each is a package itself."""
    for item in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if not item.name.startswith(("_", "test")) and item.name not in ("setup", "conftest"):
            yield f"{module.__name__}.{item.name}", item.ispkg


def _places(module: ModuleType) -> set[Path]:
    """The file of a module, and the folders of a package."""
    places = {Path(folder).resolve() for folder in getattr(module, "__path__", [])}
    if module.__file__:
        places.add(Path(module.__file__).resolve())
    return places


def _record(origin: str, error: Exception) -> None:
    failure = Failure(origin, error)
    FAILURES.append(failure)
    logger.warning("%s", failure)
