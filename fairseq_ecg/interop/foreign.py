"""Find the importer of a foreign checkpoint file."""

from __future__ import annotations

from pathlib import Path

from fairseq_ecg.errors import CheckpointError
from fairseq_ecg.interop.base import ImportedModel, Importer
from fairseq_ecg.interop.safe_pickle import read_pickled
from fairseq_ecg.registry import IMPORTERS

PICKLED = (".pt", ".pth", ".ckpt")


def read_foreign(path: Path, format: str | None = None) -> ImportedModel:
    """Read, recognise and translate a file; nothing in it is executed.

    Args:
        path: the file.
        format: name of the only importer to ask; None: all.

    Raises:
        CheckpointError: it is damaged, or none of the importers knows it.
        ConfigError: no importer has the name.
    """
    entries = list(IMPORTERS) if format is None else [IMPORTERS.get(format)]
    known = f"known formats: {', '.join(entry.name for entry in entries)}"
    if path.suffix not in PICKLED:
        raise CheckpointError(f"{path}: files ending in {path.suffix or 'nothing'} cannot be read; {known}")
    tree = read_pickled(path)
    for entry in entries:
        importer: Importer = entry.factory(entry.config())
        if importer.recognise(tree):
            try:
                return importer.translate(tree)
            except CheckpointError as error:
                raise CheckpointError(f"{path}: {error}") from error
    raise CheckpointError(f"{path} is not a checkpoint of any known format; {known}")
