"""Where the samples of a manifest's rows come from: prepared stores (fast) or single files (small jobs)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairseq_ecg.contracts import Record
from fairseq_ecg.data.buffers import POOL
from fairseq_ecg.data.filters import NONE
from fairseq_ecg.data.legacy import leads_of, read_mat_segment
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.readers.any_file import read_record
from fairseq_ecg.data.store import Store
from fairseq_ecg.errors import DataError, nearest


@dataclass(frozen=True, eq=False)
class Block:
    """Samples of some rows, all cut to one length.

    Shape:
        source: (B, L, T) tensor, int16 units or float32 mV.
        scale: (B,) float32, mV per unit.
        lead_mean, lead_std: (B, L) float32, mV over the whole record; None where that is not known.
        idx, patient: (B,) int64.
        target: (B, K) float32 labels that the files themselves hold; None without.
        failures: place in the block -> why the row could not be read; its samples are zeros.
    """

    source: Tensor
    scale: NDArray[np.float32]
    lead_mean: NDArray[np.float32] | None
    lead_std: NDArray[np.float32] | None
    idx: NDArray[np.int64]
    patient: NDArray[np.int64]
    target: NDArray[np.float32] | None
    failures: dict[int, DataError]


class SegmentSource(Protocol):
    """What the dataset asks of a place where samples come from."""

    sampling_rate: int
    """Hz."""
    filter: str
    """Filters the samples have passed."""

    def gather(self, rows: NDArray[np.int64], skip: NDArray[np.int64], num_samples: int) -> Block:
        """Cut ``num_samples`` samples, ``skip`` samples behind the start of each row's segment.

        Rows that end earlier are padded with zeros.
        """

    def witness(self, row: int) -> NDArray[np.float32]:
        """(L, time) mV of one row's whole segment, by the shortest way."""


def open_segments(manifest: Manifest, leads: Sequence[str], sampling_rate: int | None) -> SegmentSource:
    """Open what a manifest names.

    Args:
        manifest: rows of stores or of files.
        leads: wanted leads, in the wanted order.
        sampling_rate: rate the model expects, Hz; None: whatever the data have, if it is one rate.

    Raises:
        DataError: a rate, lead, record or extent that the data do not have.
    """
    if manifest.files is not None:
        return FileSegments(manifest, leads, sampling_rate)
    return StoreSegments(manifest, leads, sampling_rate)


class StoreSegments:
    """Rows that are views of records in prepared stores.

    All shards of all stores are read through one strided view over the process's address space: element i of
    it is the int16 at the lowest map's address plus 2 i. A batch is then a single gather whatever shards its
    rows lie in. The gaps between the maps are never touched, since every row is checked against its shard
    when the manifest is opened.
    """

    def __init__(self, manifest: Manifest, leads: Sequence[str], sampling_rate: int | None) -> None:
        self.manifest = manifest
        self.stores = [Store.open(path) for path in manifest.store_dirs()]
        self.sampling_rate = _common_rate(self.stores, sampling_rate)
        self.filter = _common_filter(self.stores)
        self._leads = np.array([_lead_rows(store, leads) for store in self.stores], dtype=np.int64)  # (S, L)
        codes = np.zeros(manifest.num_rows, dtype=np.int32)
        self._store = codes if manifest.stores is None else manifest.stores.codes
        self._row = self._find_records()
        self._num_samples = manifest.num_samples
        self._scale = np.ones(manifest.num_rows, dtype=np.float32)
        self._stride = np.zeros(manifest.num_rows, dtype=np.int64)
        """Samples from one lead to the next."""
        addresses = [shard.ctypes.data for store in self.stores for shard in store.shards if shard.size]
        ends = [shard.ctypes.data + shard.nbytes for store in self.stores for shard in store.shards]
        self._base = min(addresses)
        self._span = (max(ends) - self._base) // 2
        lowest = next(
            shard for store in self.stores for shard in store.shards if shard.ctypes.data == self._base
        )
        self._view = torch.from_numpy(np.lib.stride_tricks.as_strided(lowest, (self._span,), (2,)))
        self._first = np.zeros(manifest.num_rows, dtype=np.int64)
        """Element of the view at which lead 0 of the row's segment starts."""
        for number, store in enumerate(self.stores):
            self._place(number, store)
        statistics = [store.index.lead_statistics() for store in self.stores]
        self._mean = [mean for mean, _ in statistics]
        self._std = [std for _, std in statistics]

    def gather(self, rows: NDArray[np.int64], skip: NDArray[np.int64], num_samples: int) -> Block:
        store = self._store[rows]
        leads = self._leads[store]  # (B, L)
        place = (self._first[rows] + skip)[:, None] + self._stride[rows][:, None] * leads
        length = self._num_samples[rows] - skip
        if length.min() >= num_samples:
            source = self._cut(place, num_samples)  # (B, L, T)
        else:
            source = torch.zeros((*place.shape, num_samples), dtype=torch.int16)
            for size in np.unique(length.clip(max=num_samples)).tolist():
                members = np.flatnonzero(length.clip(max=num_samples) == size)
                source[torch.from_numpy(members), :, :size] = self._cut(place[members], size)
        mean, std = self._statistics(store, self._row[rows], leads)
        return Block(
            source=source,
            scale=self._scale[rows],
            lead_mean=mean,
            lead_std=std,
            idx=self.manifest.idx[rows],
            patient=self.manifest.patient[rows],
            target=None,
            failures={},
        )

    def witness(self, row: int) -> NDArray[np.float32]:
        store, place = self.locate(row)
        record = store.read(place)
        start = int(self.manifest.start[row])
        segment = record[:, start : start + int(self.manifest.num_samples[row])]
        return np.stack([segment[lead] for lead in self._leads[int(self._store[row])]])

    def locate(self, row: int) -> tuple[Store, int]:
        """Store of a row of the manifest, and the row of its record in there."""
        return self.stores[int(self._store[row])], int(self._row[row])

    def _cut(self, place: NDArray[np.int64], num_samples: int) -> Tensor:
        """(B, L) elements of the view -> (B, L, num_samples) copies of the samples that start there."""
        # Row i is the run of samples from element i on; the rows overlap.
        runs = self._view.as_strided((self._span - num_samples + 1, num_samples), (1, 1))
        source = POOL.take((*place.shape, num_samples), torch.int16)
        torch.index_select(runs, 0, torch.from_numpy(place.reshape(-1)), out=source.view(-1, num_samples))
        return source

    def _statistics(
        self, store: NDArray[np.int32], row: NDArray[np.int64], leads: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if len(self.stores) == 1:
            return self._mean[0][row[:, None], leads], self._std[0][row[:, None], leads]
        mean, std = np.empty(leads.shape, np.float32), np.empty(leads.shape, np.float32)
        for number in np.unique(store).tolist():
            members = np.flatnonzero(store == number)
            place = (row[members][:, None], leads[members])
            mean[members], std[members] = self._mean[number][place], self._std[number][place]
        return mean, std

    def _find_records(self) -> NDArray[np.int64]:
        manifest = self.manifest
        hashes = manifest.record_ids.hashes[manifest.record_ids.codes]
        found = np.full(manifest.num_rows, -1, dtype=np.int64)
        for number, store in enumerate(self.stores):
            rows = np.flatnonzero(self._store == number)
            found[rows] = store.rows_of(hashes[rows])
        if (found < 0).any():
            row = int(np.flatnonzero(found < 0)[0])
            raise DataError(
                f"{manifest.path}, line {manifest.line(row)}: record {manifest.record_ids[row]!r} is not in "
                f"{self.stores[self._store[row]].path}; make the manifest again with: "
                "fairseq-ecg manifest split"
            )
        return found

    def _place(self, number: int, store: Store) -> None:
        manifest, index = self.manifest, store.index
        rows = np.flatnonzero(self._store == number)
        record = self._row[rows]
        length = index.num_samples[record].astype(np.int64)
        outside = manifest.start[rows] + manifest.num_samples[rows] > length
        if outside.any():
            first = int(np.flatnonzero(outside)[0])
            row = int(rows[first])
            raise DataError(
                f"{manifest.path}, line {manifest.line(row)}: segment {manifest.start[row]} + "
                f"{manifest.num_samples[row]} ends behind record {manifest.record_ids[row]!r} "
                f"({length[first]} samples in {store.path}); make the manifest again"
            )
        shards = np.array([(shard.ctypes.data - self._base) // 2 for shard in store.shards], dtype=np.int64)
        self._first[rows] = shards[index.shard[record]] + index.offset[record] + manifest.start[rows]
        self._stride[rows] = length
        self._scale[rows] = index.scale[record]


class FileSegments:
    """Rows that are files of their own: fairseq-signals' .mat segments, or records in any known format."""

    def __init__(self, manifest: Manifest, leads: Sequence[str], sampling_rate: int | None) -> None:
        assert manifest.files is not None
        self.manifest = manifest
        self._files = manifest.files
        self._wanted = tuple(leads)
        self.filter = NONE
        path, rate, self._label_width = self._first_file()
        if sampling_rate is None and rate is None:
            raise DataError(f"{path} does not say its sampling rate; give task.sample_rate=HZ")
        self.sampling_rate = sampling_rate or rate or 0

    def _first_file(self) -> tuple[Path, int | None, int | None]:
        """The first file that can be read, its rate and number of labels: the others must have the same."""
        failures: list[DataError] = []
        for row in range(self.manifest.num_rows):
            path = self.manifest.root / self._files[row]
            try:
                if self.manifest.is_legacy:
                    segment = read_mat_segment(path)
                    return path, segment.sampling_rate, None if segment.label is None else len(segment.label)
                return path, read_row(self.manifest, row).sampling_rate, None
            except DataError as error:
                failures.append(error)
        raise failures[0]

    def gather(self, rows: NDArray[np.int64], skip: NDArray[np.int64], num_samples: int) -> Block:
        source = np.zeros((len(rows), len(self._wanted), num_samples), dtype=np.float32)
        mean, std = np.zeros(source.shape[:2], np.float32), np.zeros(source.shape[:2], np.float32)
        idx, patient = self.manifest.idx[rows].copy(), self.manifest.patient[rows].copy()
        labels: list[NDArray[np.float32] | None] = []
        width: int | None = None
        failures: dict[int, DataError] = {}
        for i, (row, begin) in enumerate(zip(rows.tolist(), skip.tolist(), strict=True)):
            try:
                part = self._read(row)
            except DataError as error:
                failures[i] = error
                labels.append(None)
                continue
            segment = part.signal[:, begin : begin + num_samples]
            source[i, :, : segment.shape[1]] = segment
            mean[i], std[i] = part.mean, part.std
            idx[i] = part.idx if part.idx is not None else idx[i]
            patient[i] = part.patient if part.patient is not None else patient[i]
            labels.append(part.label)
            if part.label is not None:
                if width is not None and len(part.label) != width:
                    raise DataError(
                        f"{self.manifest.root / self._files[row]} has {len(part.label)} labels, other "
                        f"segments of {self.manifest.path} have {width}; give the labels as task.label_file"
                    )
                width = len(part.label)
        is_whole_record = not self.manifest.is_legacy
        return Block(
            source=torch.from_numpy(source),
            scale=np.ones(len(rows), dtype=np.float32),
            lead_mean=mean if is_whole_record else None,
            lead_std=std if is_whole_record else None,
            idx=idx,
            patient=patient,
            target=_stack_labels(labels) if len(failures) < len(rows) else self._no_labels(len(rows)),
            failures=failures,
        )

    def _no_labels(self, num_rows: int) -> NDArray[np.float32] | None:
        return (
            None if self._label_width is None else np.full((num_rows, self._label_width), np.nan, np.float32)
        )

    def witness(self, row: int) -> NDArray[np.float32]:
        return self._read(row).signal

    def _read(self, row: int) -> _FilePart:
        path = self.manifest.root / self._files[row]
        if self.manifest.is_legacy:
            segment = read_mat_segment(path)
            self._check_rate(segment.sampling_rate, path)
            place = _lead_places(leads_of(segment.signal, path), self._wanted, path)
            signal, idx, patient, label = segment.signal, segment.idx, segment.patient, segment.label
        else:
            record = read_row(self.manifest, row)
            self._check_rate(record.sampling_rate, path)
            place = _lead_places(record.leads, self._wanted, path)
            signal, idx, patient, label = record.signal, None, None, None
            if not np.isfinite(signal).all():
                raise DataError(f"{path} holds values that are not finite")
        wide = signal[place].astype(np.float64)
        start, num_samples = int(self.manifest.start[row]), int(self.manifest.num_samples[row])
        if start + num_samples > signal.shape[1]:
            raise DataError(
                f"{path} has {signal.shape[1]} samples, {self.manifest.path}, "
                f"line {self.manifest.line(row)} wants {start + num_samples}"
            )
        return _FilePart(
            signal[place, start : start + num_samples],
            wide.mean(axis=1).astype(np.float32),
            wide.std(axis=1).astype(np.float32),
            idx,
            patient,
            label,
        )

    def _check_rate(self, found: int | None, path: Path) -> None:
        if found is not None and found != self.sampling_rate:
            raise DataError(_rate_message(path, found, self.sampling_rate))


def read_row(
    manifest: Manifest,
    row: int,
    *,
    sampling_rate: int | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
) -> Record:
    """Read the file of a manifest's row.

    What the file does not say of itself may stand in columns of the manifest; what the row leaves empty there
    is as the arguments say.

    Raises:
        DataError: the file cannot be read, does not say what is needed, or contradicts the row.
    """
    assert manifest.files is not None
    given = {
        name: manifest.extra[name][row] if name in manifest.extra else ""
        for name in ("sampling_rate", "leads", "unit")
    }
    if given["sampling_rate"] and not given["sampling_rate"].isdigit():
        raise DataError(
            f"{manifest.path}, line {manifest.line(row)}: sampling_rate is "
            f"{given['sampling_rate']!r}, needed are whole Hz"
        )
    return read_record(
        manifest.root / manifest.files[row],
        sampling_rate=int(given["sampling_rate"]) if given["sampling_rate"] else sampling_rate,
        leads=given["leads"].split(",") if given["leads"] else leads,
        unit=given["unit"] or unit,
    )


@dataclass(frozen=True, eq=False)
class _FilePart:
    signal: NDArray[np.float32]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    idx: int | None
    patient: int | None
    label: NDArray[np.float32] | None


def _stack_labels(labels: list[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    """(B, K) labels of the files, NaN for a file without; None when no file has any."""
    good = [label for label in labels if label is not None]
    if not good:
        return None
    unknown = np.full_like(good[0], np.nan)
    return np.stack([unknown if label is None else label for label in labels])


def _lead_rows(store: Store, wanted: Sequence[str]) -> list[int]:
    return _lead_places(store.leads, wanted, store.path)


def _lead_places(known: Sequence[str], wanted: Sequence[str], path: Path) -> list[int]:
    if missing := [lead for lead in wanted if lead not in known]:
        raise DataError(
            f"{path} has no lead {missing[0]!r}; {nearest(missing[0], known)} "
            "Choose among its leads with task.leads_to_load"
        )
    return [list(known).index(lead) for lead in wanted]


def _common_rate(stores: Sequence[Store], wanted: int | None) -> int:
    rate = stores[0].sampling_rate if wanted is None else wanted
    for store in stores:
        if store.sampling_rate != rate:
            reader = str(store.json.get("choices", {}).get("reader", "SOURCE"))
            raise DataError(_rate_message(store.path, store.sampling_rate, rate, reader))
    return rate


def _common_filter(stores: Sequence[Store]) -> str:
    """What the stores' signals have been filtered with.

    Raises:
        DataError: they differ.
    """
    filters = [str(store.json["choices"].get("filter", NONE)) for store in stores]
    for store, found in zip(stores, filters, strict=True):
        if found != filters[0]:
            raise DataError(
                f"{store.path} is filtered by {found}, {stores[0].path} by {filters[0]}; "
                "prepare them alike with: fairseq-ecg prepare ... --filter"
            )
    return filters[0]


def _rate_message(path: Path, found: int, wanted: int, reader: str = "SOURCE") -> str:
    return (
        f"{path} has {found} Hz, {wanted} Hz are needed; prepare it at that rate with: "
        f"fairseq-ecg prepare {reader} RAW_DIR STORE_DIR --sampling-rate {wanted}"
    )
