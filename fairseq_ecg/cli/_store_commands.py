"""What ``fairseq-ecg prepare`` does beside preparing: ``merge``, ``verify``, ``check-download``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from fairseq_ecg.cli._progress import show_progress
from fairseq_ecg.errors import ConfigError

_SHOWN = 20
"""Differences printed; the count tells of the others."""


class Parser(argparse.ArgumentParser):
    """Reports a mistake as every other one is reported: one line by the command's dispatcher."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see: {self.prog} --help")


def merge(argv: Sequence[str]) -> int:
    """fairseq-ecg prepare merge PART... STORE_DIR"""
    parser = Parser(
        prog="fairseq-ecg prepare merge",
        description="Put the parts of a job array together: byte for byte the store of a single run.",
        allow_abbrev=False,
    )
    parser.add_argument("part_dirs", metavar="PART", type=Path, nargs="+", help="every part, in any order")
    parser.add_argument("store_dir", metavar="STORE_DIR", type=Path, help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace the store that is there")
    options = parser.parse_args(argv)

    from fairseq_ecg.data.prepare_merge import merge as merge_parts

    count = merge_parts(
        options.part_dirs, options.store_dir, overwrite=options.overwrite, progress=show_progress
    )
    print(f"{options.store_dir}: {count} records of {len(options.part_dirs)} parts")
    print(f"next: fairseq-ecg manifest split {options.store_dir} MANIFEST_DIR")
    return 0


def verify(argv: Sequence[str]) -> int:
    """fairseq-ecg prepare verify STORE_DIR RAW_DIR; ends with 1 when a record differs"""
    parser = Parser(
        prog="fairseq-ecg prepare verify",
        description="Read the raw records again, as store.json says they were read, and compare the store: "
        "checksums, samples within half a unit, patients, labels, flags.",
        allow_abbrev=False,
    )
    parser.add_argument("store_dir", metavar="STORE_DIR", type=Path)
    parser.add_argument("raw_dir", metavar="RAW_DIR", type=Path)
    parser.add_argument("--user-dir", type=Path, metavar="PATH", help="folder or file with your readers")
    options = parser.parse_args(argv)

    from fairseq_ecg import plugins
    from fairseq_ecg.data.prepare_verify import verify as verify_store

    plugins.load_all(options.user_dir)
    result = verify_store(options.store_dir, options.raw_dir, progress=show_progress)
    print(
        f"{options.store_dir}: {result.num_compared} raw records compared, {len(result.differences)} differ"
    )
    for record_id, what in result.differences[:_SHOWN]:
        print(f"  {record_id}: {what}")
    _more(len(result.differences))
    return 1 if result.differences else 0


def check_download(argv: Sequence[str]) -> int:
    """fairseq-ecg prepare check-download DIR; ends with 1 when a file is missing or corrupt"""
    parser = Parser(
        prog="fairseq-ecg prepare check-download",
        description="Compare every file of a download with the SHA256SUMS.txt that lies in it.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="DIR", type=Path)
    options = parser.parse_args(argv)

    from functools import partial

    from fairseq_ecg.data.download import check_download as check

    result = check(options.folder, progress=partial(show_progress, unit="file"))
    print(
        f"{options.folder}: {result.num_files} files listed, {len(result.missing)} missing, "
        f"{len(result.corrupt)} corrupt, {len(result.extra)} extra"
    )
    for what in ("missing", "corrupt", "extra"):
        names = getattr(result, what)
        for name in names[:_SHOWN]:
            print(f"  {what}: {name}")
        _more(len(names))
    if result.is_whole:
        return 0
    print("fetch the missing and corrupt files again")
    return 1


def _more(count: int) -> None:
    if count > _SHOWN:
        print(f"  ... and {count - _SHOWN} more")


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "merge": merge,
    "verify": verify,
    "check-download": check_download,
}
