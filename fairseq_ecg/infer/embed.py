"""Embed or classify many records: one row per record, the mean over its segments."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.signal import resampled_length
from fairseq_ecg.data.whole_file import whole_file
from fairseq_ecg.errors import DataError
from fairseq_ecg.infer.conform import Segments, conform, cut
from fairseq_ecg.infer.inputs import Part, RecordInput
from fairseq_ecg.infer.load import Encoder

logger = logging.getLogger(__name__)

PROGRESS_SEC = 15.0
"""Between two progress lines when the output is not a terminal."""


@dataclass(frozen=True)
class Rejected:
    """A record that could not be embedded."""

    record_id: str
    reason: str


@dataclass(frozen=True)
class Embeddings:
    """One vector per record, in the order of the inputs.

    Shape:
        embedding: (N, D), float32.
    """

    inputs: tuple[RecordInput, ...]
    embedding: NDArray[np.float32]
    rejected: tuple[Rejected, ...]

    def __len__(self) -> int:
        return len(self.inputs)

    def save(self, path: Path) -> None:
        """Write ``record_id``, ``embedding``, ``patient_id`` and ``source`` as .npz, whole or not at all."""
        columns = {
            "record_id": [item.record_id for item in self.inputs],
            "patient_id": [item.patient_id for item in self.inputs],
            "source": [item.source for item in self.inputs],
        }
        arrays = {name: np.array(values, dtype=np.str_) for name, values in columns.items()}
        write_npz(path, {"embedding": self.embedding, **arrays})


def embed(encoder: Encoder, inputs: Sequence[RecordInput], *, skip_bad: bool = False) -> Embeddings:
    """Embed records in batches of segments.

    Args:
        encoder: what embeds them.
        inputs: the records; read one after the other, so that memory does not grow with their number.
        skip_bad: list unusable records instead of raising for the first.

    Raises:
        DataError: a record cannot be used and ``skip_bad`` is off, or none can be used.
    """
    kept, means, rejected = _means(
        encoder, inputs, encoder.embed_segments, encoder.embed_dim, skip_bad=skip_bad
    )
    return Embeddings(kept, means.astype(np.float32), rejected)


def classify(encoder: Encoder, inputs: Sequence[RecordInput]) -> NDArray[np.float64]:
    """Probabilities (N, K) of the encoder's own classifier: of a record, the mean over its segments.

    Raises:
        CheckpointError: the encoder has no classifier.
        DataError: a record cannot be used.
    """
    return _means(encoder, inputs, encoder.classify_segments, encoder.num_labels, skip_bad=False)[1]


Answers = Callable[[Segments], NDArray[np.float32] | NDArray[np.float64]]
"""(S, L, T) segments -> (S, D)."""


def _means(
    encoder: Encoder, inputs: Sequence[RecordInput], answers: Answers, width: int, *, skip_bad: bool
) -> tuple[tuple[RecordInput, ...], NDArray[np.float64], tuple[Rejected, ...]]:
    """Means (N, D) of every record's answers, the records they are of, and those that cannot be used."""
    sums = np.zeros((len(inputs), width), dtype=np.float64)
    counts = np.zeros(len(inputs), dtype=np.int64)
    rejected: list[Rejected] = []
    notes: Counter[str] = Counter()
    started = time.monotonic()
    pending: list[tuple[int, Segments]] = []
    patients: list[str] = [item.patient_id for item in inputs]
    for row, item in _progress(inputs, encoder.name):
        try:
            parts = item.read()
            pending += [(row, segments) for segments in _segments(encoder, item, parts, notes)]
            patients[row] = item.patient_id or parts[0].patient_id
        except DataError as error:
            if not skip_bad:
                raise
            rejected.append(Rejected(item.record_id, str(error)))
        if sum(len(segments.source) for _, segments in pending) >= encoder.batch_size:
            _add(answers, pending, sums, counts)
            pending = []
    if pending:
        _add(answers, pending, sums, counts)
    used = counts > 0
    if not used.any():
        why = f"; the first one: {rejected[0].record_id}: {rejected[0].reason}" if rejected else ""
        raise DataError(f"none of {len(inputs)} records could be embedded{why}")
    seconds = max(time.monotonic() - started, 1e-9)
    for note, count in sorted(notes.items()):
        logger.info("%s: %s (%d of %d records)", encoder.name, note, count, len(inputs))
    logger.info(
        "%s: embedded %d records, %d segments in %.1f s (%.0f segments/s)%s",
        encoder.name,
        int(used.sum()),
        int(counts.sum()),
        seconds,
        counts.sum() / seconds,
        f"; left out {len(rejected)}" if rejected else "",
    )
    kept = tuple(replace(inputs[row], patient_id=patients[row]) for row in np.flatnonzero(used).tolist())
    return kept, sums[used] / counts[used, None], tuple(rejected)


def _segments(
    encoder: Encoder, item: RecordInput, parts: Sequence[Part], notes: Counter[str]
) -> list[Segments]:
    """All segments of one record, as the contract wants them."""
    contract = encoder.contract
    found = []
    remarks: set[str] = set()
    for part in parts:
        whole = conform(
            part.signal,
            sampling_rate=part.sampling_rate,
            leads=part.leads,
            unit="mV",
            contract=contract,
            name=item.record_id,
        )
        remarks |= set(whole.notes)
        for start, num_samples in part.spans or ((0, part.signal.shape[1]),):
            if start + num_samples > part.signal.shape[1]:
                raise DataError(
                    f"{item.record_id}: samples {start} to {start + num_samples} lie outside its "
                    f"{part.signal.shape[1]} samples"
                )
            first = resampled_length(start, part.sampling_rate, contract.sampling_rate)
            length = resampled_length(num_samples, part.sampling_rate, contract.sampling_rate)
            if length < 1:
                raise DataError(f"{item.record_id}: a segment of {num_samples} samples is too short to embed")
            found.append(cut(whole.signal[:, first : first + length], contract.num_samples))
    notes.update(remarks)
    return found


def _add(
    answers: Answers,
    pending: Sequence[tuple[int, Segments]],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> None:
    """Add the answers to waiting segments to their records."""
    together = Segments(
        np.concatenate([segments.source for _, segments in pending]),
        np.concatenate([segments.num_samples for _, segments in pending]),
    )
    row_of_segment = np.repeat([row for row, _ in pending], [len(segments.source) for _, segments in pending])
    np.add.at(sums, row_of_segment, answers(together))
    np.add.at(counts, row_of_segment, 1)


def _progress(inputs: Sequence[RecordInput], name: str) -> Iterator[tuple[int, RecordInput]]:
    """Numbered inputs, with a bar on a terminal and a line now and then elsewhere."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(
            enumerate(inputs), total=len(inputs), desc=f"embed {name}", unit="record", leave=False
        )
        return
    started = spoken = time.monotonic()
    for row, item in enumerate(inputs):
        yield row, item
        now = time.monotonic()
        if now - spoken > PROGRESS_SEC:
            spoken = now
            rate = (row + 1) / (now - started)
            logger.info(
                "%s: %d of %d records, %.0f records/s, %.0f s remain",
                name,
                row + 1,
                len(inputs),
                rate,
                (len(inputs) - row - 1) / rate,
            )


def check_writable(path: Path) -> None:
    """Refuse, before hours of work, a file whose folder cannot be written.

    Raises:
        DataError: with the reason.
    """
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; choose another place") from error


def write_npz(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Write arrays under a temporary name, sync, and move them into place.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        with whole_file(path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; choose another place") from error


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """List records that were left out: a TSV of record_id and reason."""
    lines = [
        "record_id\treason",
        *(f"{item.record_id}\t{' '.join(item.reason.split())}" for item in rejected),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
