"""MATLAB files before v7.3, read without trusting them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairseq_ecg.data.raw_files import check_size, one_line
from fairseq_ecg.errors import DataError


def load_mat(path: Path) -> dict[str, Any]:
    """Variables of a .mat file by name.

    Raises:
        DataError: not such a file, or a damaged one.
    """
    from scipy.io import loadmat

    check_size(path)
    try:
        content: dict[str, Any] = loadmat(path)
    except Exception as error:  # scipy raises a dozen kinds for damaged files
        raise DataError(f"{path}: not a readable MATLAB file before v7.3: {one_line(error)}") from None
    return content
