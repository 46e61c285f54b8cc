"""Parts prepared by a job array, put together: the result is byte for byte the store of a single run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_ecg.data.encode import Encoded
from fairseq_ecg.data.prepare_job import REJECTED
from fairseq_ecg.data.qc import QC_FILE
from fairseq_ecg.data.qc_page import write_page
from fairseq_ecg.data.store import Store
from fairseq_ecg.data.store_folder import StoreFolder, check_replaceable, make_parent, put_in_place
from fairseq_ecg.errors import DataError


def merge(
    part_dirs: Sequence[Path],
    store_dir: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int, Iterable[int]], Iterable[int]] | None = None,
) -> int:
    """Write the store of which ``part_dirs`` are all the parts, in any order; return its number of records.

    Records are renumbered, so that ``idx`` is what a single run gives.

    Raises:
        DataError: a folder is no part, parts are missing, come twice or were prepared differently, or the
            store cannot be written.
    """
    check_replaceable(store_dir, overwrite)
    parts = _in_order([Store.open(path) for path in part_dirs])
    parent = make_parent(store_dir)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{store_dir.name}.merging-", dir=parent))
        writer = StoreFolder(
            folder,
            sampling_rate=parts[0].sampling_rate,
            leads=parts[0].leads,
            choices=parts[0].json["choices"],
        )
        try:
            copied = _copy(parts, writer)
            total = sum(part.num_records for part in parts)
            for _ in copied if progress is None else progress(total, 0, copied):
                pass
            writer.finish()
            for name in (REJECTED, QC_FILE):
                _join([part.path / name for part in parts], folder / name)
            write_page(folder)
            os.chmod(folder, parts[0].path.stat().st_mode & 0o777)
            put_in_place(folder, store_dir, overwrite)
        except BaseException:
            writer.close()
            shutil.rmtree(folder)
            raise
    except OSError as error:
        raise DataError(f"{store_dir} cannot be written: {error.strerror}; nothing was kept") from error
    return writer.num_records


def _in_order(parts: list[Store]) -> list[Store]:
    """The parts by their index, all of them and of one job."""
    found: dict[int, Store] = {}
    first: dict[str, Any] | None = None
    for store in parts:
        part = store.json.get("part")
        if part is None:
            raise DataError(
                f"{store.path} is a whole store, no part; --shard-index and --num-shards make parts. "
                "Several whole stores need no merging: manifest split takes any number of them"
            )
        if part["index"] in found:
            raise DataError(f"{found[part['index']].path} and {store.path} are the same part {part['index']}")
        found[part["index"]] = store
        job = {
            "choices": store.json["choices"],
            **{name: value for name, value in part.items() if name != "index"},
        }
        first = first or job
        if job != first:
            names = [name for name in job if job[name] != first[name]]
            raise DataError(
                f"{store.path} and {parts[0].path} are not of one job: they differ in {', '.join(names)}; "
                "prepare the parts from the same records with the same options"
            )
    assert first is not None
    if missing := sorted(set(range(first["num_parts"])) - set(found)):
        raise DataError(
            f"parts {', '.join(map(str, missing))} of {first['num_parts']} are missing; prepare them with "
            "--shard-index, then merge all of them"
        )
    return [found[index] for index in sorted(found)]


def _copy(parts: Sequence[Store], writer: StoreFolder) -> Iterator[int]:
    """Append every record with its row as the part has it, but for ``idx`` and the place."""
    for part in parts:
        row = 0
        with (part.path / "index.tsv").open(encoding="utf-8", newline="\n") as index:
            next(index)
            for row, line in enumerate(index):
                _, record_id, patient_id, source, _, _, tail = line.rstrip("\n").split("\t", 6)
                if not part.is_intact(row):
                    raise DataError(
                        f"{part.path}: record {record_id!r} no longer has the checksum it was written with; "
                        "prepare this part again"
                    )
                values = part.raw(row)
                encoded = Encoded(record_id, patient_id, source, values.size, tail)
                yield writer.append(encoded, np.ascontiguousarray(values))


def _join(paths: Sequence[Path], target: Path) -> None:
    """Tables of the same columns one after the other, with one header."""
    with target.open("wb") as joined:
        for number, path in enumerate(paths):
            with path.open("rb") as table:
                header = table.readline()
                if number == 0:
                    joined.write(header)
                shutil.copyfileobj(table, joined)
