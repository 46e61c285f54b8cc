"""Annotation files of WFDB records (PhysioNet's annot(5)), read by the wfdb package."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.errors import DataError

BEATS = "NLRBAaJSVrFejnE/fQ?"
"""Symbols that mark a heart beat; all others mark something else (annot(5))."""


class Annotations(NamedTuple):
    """Annotations of one file, by time.

    Shape:
        sample: (N,) int64, from the start of the record.
    """

    sample: NDArray[np.int64]
    symbols: tuple[str, ...]
    texts: tuple[str, ...]
    """What is written beside a symbol, such as ``(AFIB``; mostly empty."""


def read_annotations(path: Path) -> Annotations:
    """Read an annotation file, ``100.atr`` or LUDB's ``1.avr``.

    Raises:
        DataError: it is missing or damaged.
    """
    import wfdb

    if not path.is_file():
        raise DataError(f"{path}: no such annotation file")
    try:
        content = wfdb.rdann(str(path.with_suffix("")), path.suffix[1:])
    except Exception as error:
        # wfdb raises whatever its parsing ran into; each means that the file is no annotation file.
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: wfdb cannot read it: {type(error).__name__}: {reason}") from error
    texts = tuple(text.strip("\0 ") for text in content.aux_note)
    return Annotations(np.asarray(content.sample, np.int64), tuple(content.symbol), texts)
