"""Sound files (.wav, .flac) with a lead per channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.raw_files import check_size, one_line
from fairseq_ecg.errors import DataError

_BITS = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_BLOCK = 2**16


def read_sound(path: Path) -> tuple[NDArray[np.float64], int]:
    """(lead, time) sample values as stored, integers for PCM and not scaled to +-1, and the rate.

    Raises:
        DataError: not such a file, a lossy coding, fewer samples than announced.
    """
    import soundfile

    check_size(path)
    try:
        with soundfile.SoundFile(path) as file:
            rate, subtype = int(file.samplerate), str(file.subtype)
            bits = _BITS.get(subtype)
            if bits is None and subtype not in ("FLOAT", "DOUBLE"):
                raise DataError(
                    f"{path}: sound subtype {subtype} is lossy or unknown; use PCM, FLOAT or DOUBLE"
                )
            kind = "float64" if bits is None else "int32"
            # The announced number of frames may be wrong: read what is there, block by block.
            blocks = []
            while len(block := file.read(_BLOCK, dtype=kind, always_2d=True)):
                blocks.append(block)
            num_frames = sum(map(len, blocks))
            if not num_frames or num_frames != file.frames:
                raise DataError(f"{path}: {num_frames} samples where {file.frames} are announced; truncated")
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        raise DataError(f"{path}: not a readable sound file: {one_line(error)}") from None
    samples = np.concatenate(blocks)
    # libsndfile left-justifies integer samples in 32 bits.
    values = samples if bits is None else samples >> (32 - bits)
    return np.asarray(values.T, np.float64), rate
