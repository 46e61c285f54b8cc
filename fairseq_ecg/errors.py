"""The three errors a user can cause, and the help they carry.

Every message names the thing, its value and the remedy; commands print it as one line and exit with 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FairseqEcgError(Exception):
    """Base of every error that is the input's fault, not the program's."""


class ConfigError(FairseqEcgError):
    """A config key, value or combination that cannot be used."""


class DataError(FairseqEcgError):
    """A record, manifest, store or label file that cannot be used."""


class CheckpointError(FairseqEcgError):
    """A checkpoint that cannot be read, recognised or matched with a model."""


def nearest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Say which known names are closest to a wrong one, or list them all when none is.

    Args:
        name: what the user wrote.
        known: the names that exist.
        limit: how many suggestions to give.
    """
    names = sorted(set(known))
    folded = {candidate.casefold(): candidate for candidate in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=limit, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(folded[match]) for match in close) + "?"
    return "known: " + (", ".join(names) if names else "none")
