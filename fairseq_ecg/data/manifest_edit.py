"""New manifests from old ones: two combined, a share of the patients."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.label_files import write_y
from fairseq_ecg.data.labels import label_definition, read_label_array
from fairseq_ecg.data.legacy_export import write_plain
from fairseq_ecg.data.manifest import Manifest, write_manifest
from fairseq_ecg.data.store_records import refuse_existing
from fairseq_ecg.data.uniform import text_key
from fairseq_ecg.errors import ConfigError, DataError, nearest


@dataclass
class EditReport:
    """What was written."""

    rows: dict[str, int] = field(default_factory=dict)
    """File name -> segments."""
    num_left_out: int = 0
    notes: list[str] = field(default_factory=list)


def read_folder(folder: Path) -> dict[str, Manifest]:
    """The manifests of a folder by file name, or the one file.

    Raises:
        DataError: none in it.
    """
    files = sorted(folder.glob("*.tsv")) if folder.is_dir() else [folder]
    if not files:
        raise DataError(f"{folder} holds no .tsv file; make manifests with: fairseq-ecg manifest split")
    return {path.name: Manifest.read(path) for path in files}


def manifest_columns(manifest: Manifest, rows: NDArray[np.int64], root: Path) -> dict[str, list[object]]:
    """The columns of some rows; stores and files are named from another root.

    Args:
        manifest: of this package.
        rows: which rows, in the wanted order.
        root: absolute folder that holds every store and file of the rows.
    """
    columns: dict[str, list[object]] = {
        "idx": manifest.idx[rows].tolist(),
        "record_id": _texts(manifest.record_ids.take(rows)),
        "patient_id": _texts(manifest.patient_ids.take(rows)),
        "source": _texts(manifest.sources.take(rows)),
        "segment": manifest.segment[rows].tolist(),
        "start": manifest.start[rows].tolist(),
        "num_samples": manifest.num_samples[rows].tolist(),
    }
    if manifest.files is not None:
        base = Path(os.path.relpath(manifest.root.resolve(), root))
        columns["path"] = [(base / str(name)).as_posix() for name in _texts(manifest.files.take(rows))]
    else:
        folders = [Path(os.path.relpath(path.resolve(), root)).as_posix() for path in manifest.store_dirs()]
        codes = np.zeros(len(rows), np.int32) if manifest.stores is None else manifest.stores.codes[rows]
        columns["store"] = [folders[code] for code in codes.tolist()]
    columns.update({name: _texts(column.take(rows)) for name, column in manifest.extra.items()})
    return columns


def _texts(column: object) -> list[object]:
    return [column[row] for row in range(len(column))]  # type: ignore[arg-type, index]


def subset(
    source: Path,
    out_dir: Path,
    fraction: float,
    *,
    seed: int = 0,
    by: str = "patient",
    overwrite: bool = False,
) -> EditReport:
    """Keep a share of the patients (or records) of ``train.tsv``; other manifests are copied whole.

    The share is taken from the front of one seeded order, so that a smaller subset lies in a larger one.

    Raises:
        ConfigError: no share, or no such grouping.
        DataError: no train.tsv, or pairs that cannot be thinned.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"--fraction {fraction}: more than 0, at most 1")
    if by not in ("patient", "record"):
        raise ConfigError(f"--by {by}: {nearest(by, ('patient', 'record'))}")
    manifests = read_folder(source)
    if "train.tsv" not in manifests:
        raise DataError(f"{source} has no train.tsv; it has {', '.join(manifests)}")
    _refuse_same(source, out_dir)
    refuse_existing(out_dir, list(manifests), overwrite)
    report = EditReport()
    for name, manifest in manifests.items():
        rows = np.arange(manifest.num_rows)
        if name == "train.tsv":
            rows = _share_of_groups(manifest, fraction, seed, by)
        write_rows(out_dir / name, manifest, rows)
        report.rows[name] = len(rows)
    folder = source if source.is_dir() else source.parent
    for label_file in ("y.npy", "label_def.csv"):
        if (folder / label_file).is_file():
            shutil.copyfile(folder / label_file, out_dir / label_file)
    if (folder / "pos_weight.txt").is_file():
        report.notes.append(
            "pos_weight.txt is of the whole training split and was not copied; make it with: "
            f"fairseq-ecg labels STORE_DIR... {out_dir} --definition {out_dir / 'label_def.csv'} "
            f"--manifest {out_dir} --overwrite"
        )
    return report


def write_rows(path: Path, manifest: Manifest, rows: NDArray[np.int64]) -> None:
    """Write some rows of a manifest in its own format.

    Raises:
        DataError: a manifest of pairs.
    """
    if not manifest.is_legacy:
        root = manifest.root.resolve()
        columns = manifest_columns(manifest, rows, root)
        if manifest.stores is None and manifest.files is None:
            del columns["store"]
        write_manifest(path, Path(os.path.relpath(root, path.parent.resolve())).as_posix(), columns)
        return
    if manifest.pairs is not None:
        raise DataError(f"{manifest.path} names pairs; give the plain manifest and make pairs of the result")
    assert manifest.files is not None
    cells = [
        (
            manifest.files[row],
            manifest.num_samples[row],
            *([] if manifest.label is None else [manifest.label[row]]),
        )
        for row in rows.tolist()
    ]
    write_plain(path, manifest.root.resolve(), cells)


def _share_of_groups(manifest: Manifest, fraction: float, seed: int, by: str) -> NDArray[np.int64]:
    codes = manifest.patient if by == "patient" else manifest.record
    _, first, group = np.unique(codes, return_index=True, return_inverse=True)
    column = manifest.patient_ids if by == "patient" else manifest.record_ids
    names = [f"{manifest.sources[row]}/{column[row] or manifest.record_ids[row]}" for row in first.tolist()]
    order = sorted(range(len(names)), key=lambda code: (text_key(f"{seed}/{names[code]}"), names[code]))
    kept = np.zeros(len(names), dtype=bool)
    kept[order[: max(1, int(fraction * len(order) + 0.5))]] = True
    return np.flatnonzero(kept[group])


def combine(
    first: Path, second: Path, out_dir: Path, *, exclude: Sequence[str] = (), overwrite: bool = False
) -> EditReport:
    """Put the manifests of two folders together, files of one name into one, under their common root.

    Records keep their ``idx`` where that names one record in both, and are numbered anew otherwise; label
    arrays of one definition are put together likewise.

    Args:
        first: folder (or single file) of manifests.
        second: another one of the same format.
        out_dir: folder to write to.
        exclude: sources to leave out.
        overwrite: replace manifests that are there.

    Raises:
        DataError: manifests of two formats, a patient in different splits, different segments of one name.
    """
    sides = [read_folder(first), read_folder(second)]
    everything = [manifest for side in sides for manifest in side.values()]
    if len({(manifest.is_legacy, manifest.files is None) for manifest in everything}) > 1:
        raise DataError(
            f"{first} and {second}: combine manifests of one kind (stores, files or fairseq-signals'); bring "
            "one to the other's with: fairseq-ecg manifest convert"
        )
    sources = {name for manifest in everything for name in manifest.sources.values()}
    for name in exclude:
        if name not in sources:
            raise ConfigError(f"--exclude {name}: no such source; {nearest(name, sources)}")
    for folder in (first, second):
        _refuse_same(folder, out_dir)
    names = sorted({name for side in sides for name in side})
    refuse_existing(out_dir, [*names, "y.npy", "label_def.csv"], overwrite)
    report = EditReport()
    if everything[0].is_legacy:
        return _combine_legacy(sides, names, out_dir, exclude, report)
    places = [
        path.resolve()
        for manifest in everything
        for path in ([manifest.root] if manifest.files is not None else manifest.store_dirs())
    ]
    root = Path(
        os.path.commonpath([place if everything[0].files is not None else place.parent for place in places])
    )
    tables = [
        {
            name: manifest_columns(manifest, _kept(manifest, exclude, report), root)
            for name, manifest in side.items()
        }
        for side in sides
    ]
    numbers = _number(tables)
    splits: dict[tuple[object, ...], str] = {}
    made = {}
    for name in names:
        parts = [(side, table[name]) for side, table in enumerate(tables) if name in table]
        columns = _stacked(parts, numbers, out_dir / name)
        split = Path(name).stem.partition("_")[0]  # valid_gallery and valid_probe share their patients
        for source, patient, record in zip(
            columns["source"], columns["patient_id"], columns["record_id"], strict=True
        ):
            if (other := splits.setdefault((source, patient or f"record {record}"), split)) != split:
                raise DataError(
                    f"patient {patient or record!r} of {source!r} is in {other} of one folder and in {split} "
                    "of the other; make one split of both stores: fairseq-ecg manifest split"
                )
        made[name] = columns
    for name, columns in made.items():
        write_manifest(out_dir / name, Path(os.path.relpath(root, out_dir.resolve())).as_posix(), columns)
        report.rows[name] = len(columns["idx"])
    _combine_labels([first, second], numbers, out_dir, report)
    return report


_Numbers = list[dict[int, int]]


def _kept(manifest: Manifest, exclude: Sequence[str], report: EditReport) -> NDArray[np.int64]:
    out = [code for code, name in enumerate(manifest.sources.values()) if name in exclude]
    is_out = np.isin(manifest.sources.codes, out)
    report.num_left_out += int(is_out.sum())
    return np.flatnonzero(~is_out)


def _number(tables: Sequence[dict[str, dict[str, list[object]]]]) -> _Numbers:
    """Per side, old idx -> new idx: unchanged when no idx names two records."""
    keys: list[dict[int, tuple[object, ...]]] = []
    for side in tables:
        own: dict[int, tuple[object, ...]] = {}
        for columns in side.values():
            place = columns.get("store", columns.get("path"))
            assert place is not None
            for idx, store, record in zip(columns["idx"], place, columns["record_id"], strict=True):
                own[int(str(idx))] = (store, record)
        keys.append(own)
    merged = {**keys[1], **keys[0]}
    records = {key: idx for side in keys for idx, key in side.items()}
    is_same = all(merged[idx] == key and records[key] == idx for side in keys for idx, key in side.items())
    if is_same:
        return [{idx: idx for idx in side} for side in keys]
    new: dict[tuple[object, ...], int] = {}
    return [{idx: new.setdefault(side[idx], len(new)) for idx in sorted(side)} for side in keys]


def _stacked(
    parts: Sequence[tuple[int, dict[str, list[object]]]], numbers: _Numbers, path: Path
) -> dict[str, list[object]]:
    """The rows of both sides under one set of columns; a row both sides have is kept once."""
    names = list(dict.fromkeys(name for _, columns in parts for name in columns))
    rows: dict[tuple[object, ...], tuple[object, ...]] = {}
    for side, columns in parts:
        size = len(columns["idx"])
        cells = [
            [numbers[side][int(str(idx))] for idx in columns["idx"]]
            if name == "idx"
            else columns.get(name, [""] * size)
            for name in names
        ]
        for row in zip(*cells, strict=True):
            known = dict(zip(names, row, strict=True))
            key = (known.get("store", known.get("path")), known["record_id"], known["segment"])
            extent = ("start", "num_samples")
            if key in rows:
                before = dict(zip(names, rows[key], strict=True))
                if any(before[name] != known[name] for name in extent):
                    raise DataError(
                        f"{path.name}: segment {known['segment']} of record {known['record_id']!r} is cut "
                        "differently in the two folders; make one split of both stores"
                    )
                continue
            rows[key] = row
    return {name: [row[place] for row in rows.values()] for place, name in enumerate(names)}


def _combine_labels(folders: Sequence[Path], numbers: _Numbers, out_dir: Path, report: EditReport) -> None:
    homes = [folder if folder.is_dir() else folder.parent for folder in folders]
    has = [(home / "y.npy").is_file() and (home / "label_def.csv").is_file() for home in homes]
    if not any(has):
        return
    if not all(has) or label_definition(homes[0] / "label_def.csv") != label_definition(
        homes[1] / "label_def.csv"
    ):
        report.notes.append(
            "label arrays were not combined: both folders need y.npy of one definition; make them anew with: "
            f"fairseq-ecg labels STORE_DIR... {out_dir} --definition NAME --manifest {out_dir}"
        )
        return
    definition = label_definition(homes[0] / "label_def.csv")
    size = 1 + max((idx for side in numbers for idx in side.values()), default=-1)
    y = np.full((size, len(definition)), np.nan, dtype=np.float32)
    for home, side in zip(homes, numbers, strict=True):
        own = read_label_array(home / "y.npy")
        for old, new in side.items():
            if old >= len(own):
                raise DataError(f"{home / 'y.npy'} has {len(own)} rows, the manifests name row {old}")
            y[new] = own[old]
    write_y(out_dir, y)
    definition.write(out_dir / "label_def.csv")


def _combine_legacy(
    sides: Sequence[dict[str, Manifest]],
    names: Sequence[str],
    out_dir: Path,
    exclude: Sequence[str],
    report: EditReport,
) -> EditReport:
    root = Path(os.path.commonpath([m.root.resolve() for side in sides for m in side.values()]))
    seen: dict[str, str] = {}
    made = {}
    for name in names:
        cells: dict[str, tuple[object, ...]] = {}
        for side in sides:
            if name not in side:
                continue
            manifest = side[name]
            if manifest.pairs is not None or manifest.label is not None:
                raise DataError(f"{manifest.path}: only plain manifests of fairseq-signals can be combined")
            assert manifest.files is not None
            base = Path(os.path.relpath(manifest.root.resolve(), root))
            for row in _kept(manifest, exclude, report).tolist():
                file = (base / manifest.files[row]).as_posix()
                record = (base / manifest.record_ids[row]).as_posix()
                if (other := seen.setdefault(record, name)) != name:
                    raise DataError(
                        f"record {record!r} is in {other} and in {name}; combine what does not overlap"
                    )
                cells[file] = (file, manifest.num_samples[row])
        made[name] = cells
    for name, cells in made.items():
        write_plain(out_dir / name, root, cells.values())
        report.rows[name] = len(cells)
    return report


def _refuse_same(source: Path, out_dir: Path) -> None:
    folder = source if source.is_dir() else source.parent
    if folder.resolve() == out_dir.resolve():
        raise ConfigError(f"{out_dir} is read from; choose another folder to write to")
