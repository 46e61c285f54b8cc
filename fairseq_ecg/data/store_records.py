"""The records of several stores as one list: what splits, label files and subsets are made from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.store import Store
from fairseq_ecg.errors import ConfigError, DataError


class StoreRecords:
    """The records of all stores, one after the other.

    Shape:
        store, num_samples, idx: (N,) int64; ``idx`` is numbered anew where the stores' own overlap.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = stores
        self.store = np.repeat(np.arange(len(stores)), [store.num_records for store in stores])
        self.num_samples = np.concatenate([store.index.num_samples.astype(np.int64) for store in stores])
        self.idx = np.concatenate([store.index.idx for store in stores])
        self.was_renumbered = len(np.unique(self.idx)) < len(self.idx)
        if self.was_renumbered:
            self.idx = np.arange(len(self.idx), dtype=np.int64)
        self._texts: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self.idx)

    @classmethod
    def open(cls, store_dirs: Sequence[Path]) -> StoreRecords:
        """Open the stores of one manifest.

        Raises:
            ConfigError: a store is given twice.
            DataError: not a store, an empty one, or stores of different rates.
        """
        stores = [Store.open(path) for path in store_dirs]
        check_stores(stores)
        return cls(stores)

    def texts(self, name: str) -> list[str]:
        """One text per record."""
        if name not in self._texts:
            self._texts[name] = [
                values[code]
                for store in self.stores
                for column in (store.index.text(name),)
                for values in (column.values(),)
                for code in column.codes.tolist()
            ]
        return self._texts[name]

    def group(self, by: str) -> list[str]:
        """What holds records together; a record without patient_id is a patient of its own."""
        if by == "patient":
            pairs = zip(self.texts("patient_id"), self.texts("record_id"), strict=True)
            return [patient or f"record {record}" for patient, record in pairs]
        return self.texts({"record": "record_id", "source": "source"}[by])

    def codes(self) -> list[tuple[str, ...]]:
        """The codes of every record."""
        different = {text: tuple(text.split("|")) if text else () for text in set(self.texts("labels"))}
        return [different[text] for text in self.texts("labels")]

    def columns(
        self, rows: NDArray[np.int64], segment: NDArray[np.int64], size: int | None, folders: Sequence[str]
    ) -> dict[str, list[object]]:
        """The columns of a manifest of these records' segments."""

        def pick(name: str) -> list[object]:
            texts = self.texts(name)
            return [texts[row] for row in rows.tolist()]

        length = self.num_samples[rows] if size is None else np.full(len(rows), size)
        columns: dict[str, list[object]] = {
            "idx": self.idx[rows].tolist(),
            "record_id": pick("record_id"),
            "patient_id": pick("patient_id"),
            "source": pick("source"),
            "segment": segment.tolist(),
            "start": (segment * length).tolist(),
            "num_samples": length.tolist(),
        }
        if len(self.stores) > 1:
            columns["store"] = [folders[number] for number in self.store[rows].tolist()]
        return columns


def check_stores(stores: Sequence[Store]) -> None:
    """Refuse stores that cannot stand in one manifest."""
    seen: set[Path] = set()
    for store in stores:
        if store.path.resolve() in seen:
            raise ConfigError(f"{store.path} is given twice")
        seen.add(store.path.resolve())
        if store.sampling_rate != stores[0].sampling_rate:
            raise DataError(
                f"{store.path} has {store.sampling_rate} Hz, {stores[0].path} {stores[0].sampling_rate} Hz; "
                "stores of one manifest have one rate: fairseq-ecg prepare "
                f"{store.json['choices'].get('reader', 'SOURCE')} RAW_DIR STORE_DIR "
                f"--sampling-rate {stores[0].sampling_rate}"
            )
        if not store.num_records:
            raise DataError(f"{store.path} holds no records; prepare it again")


def segment_samples(sampling_rate: int, segment_sec: float | None) -> int | None:
    """Samples per segment; None: the whole record."""
    if segment_sec is None:
        return None
    size = round(segment_sec * sampling_rate)
    if size < 1:
        raise ConfigError(f"--segment-sec {segment_sec} is less than one sample at {sampling_rate} Hz")
    return size


def segments_of(
    chosen: NDArray[np.int64], count: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of records, each as often as it has segments, and the segments' numbers."""
    rows = np.repeat(chosen, count[chosen])
    first = np.repeat(np.cumsum(count[chosen]) - count[chosen], count[chosen])
    return rows, np.arange(len(rows)) - first


def root_and_folders(store_dirs: Sequence[Path], manifest_dir: Path) -> tuple[str, list[str]]:
    """The root as the manifest names it, and the stores below it."""
    folders = [path.resolve() for path in store_dirs]
    root = folders[0] if len(folders) == 1 else Path(os.path.commonpath(folders))
    inside = [path.relative_to(root).as_posix() for path in folders]
    if "." in inside and len(inside) > 1:
        raise ConfigError(f"{root} is a store and holds another one; keep stores beside each other")
    return Path(os.path.relpath(root, manifest_dir.resolve())).as_posix(), inside


def refuse_existing(folder: Path, names: Sequence[str], overwrite: bool) -> None:
    """Make the folder; refuse when it holds one of the files already.

    Raises:
        DataError: a file is there and ``overwrite`` is not set, or the folder cannot be made.
    """
    if (found := [name for name in names if (folder / name).exists()]) and not overwrite:
        raise DataError(
            f"{folder / found[0]} exists; choose another folder, or replace the manifests with --overwrite"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made: {error.strerror}; choose another folder") from error
