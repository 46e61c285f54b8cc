"""Parts of every importer: a table of key names that works both ways, and what a translation returns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from fairseq_ecg.contracts import InputContract
from fairseq_ecg.errors import CheckpointError


@dataclass(frozen=True)
class KeyTable:
    """Pairs (foreign, ours) of key patterns, in which ``{}`` stands for one part without a dot.

    A pattern matches whole trailing parts of a key, so that a prefix needs no row of its own. Keys no row
    matches keep their name.
    """

    rows: tuple[tuple[str, str], ...]

    def ours(self, key: str) -> str:
        return self._renamed(key, self.rows)

    def foreign(self, key: str) -> str:
        return self._renamed(key, ((ours, foreign) for foreign, ours in self.rows))

    @staticmethod
    def _renamed(key: str, rows: Iterable[tuple[str, str]]) -> str:
        for pattern, replacement in rows:
            regex = re.escape(pattern).replace(r"\{\}", r"([^.]+)")
            if match := re.fullmatch(rf"(|.*\.){regex}", key):
                prefix, *parts = match.groups()
                return str(prefix) + replacement.format(*parts)
        return key

    def translate(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename every key, in order.

        Raises:
            CheckpointError: two keys get one name.
        """
        result: dict[str, Tensor] = {}
        for key, value in state.items():
            if (name := self.ours(key)) in result:
                raise CheckpointError(f"two tensors are both called {name}; the checkpoint mixes two formats")
            result[name] = value
        return result


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """A foreign checkpoint in our terms."""

    name: str
    """Registered model name."""
    config: dict[str, Any]
    """Options of that model."""
    state: dict[str, Tensor]
    contract: InputContract
    criterion: dict[str, Any] | None = None
    """The checkpoint's criterion group, ``_name`` included, if it has one."""
    num_updates: int = 0
    dropped: tuple[str, ...] = ()
    """Tensors of the file that the model has no use for."""
    notes: tuple[str, ...] = ()


class Importer(Protocol):
    """Recognises and translates one format; reading is ``safe_pickle``'s or the format's own."""

    def recognise(self, tree: Any) -> bool: ...

    def translate(self, tree: Any) -> ImportedModel: ...
