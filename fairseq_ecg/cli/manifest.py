"""``fairseq-ecg manifest``: split prepared stores into manifests, check them, count them, convert them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from fairseq_ecg.errors import ConfigError, DataError

EXAMPLES = """examples:
  fairseq-ecg manifest split stores/cinc2021 manifests/cinc2021 --labels cinc2021
  fairseq-ecg manifest split stores/ptbxl stores/georgia manifests/both --segment-sec 10 --valid 0.2
  fairseq-ecg manifest split stores/all manifests/held_out --by source --test georgia
  fairseq-ecg manifest split stores/ptbxl manifests/ptbxl --by fold --valid 9 --test 10
  fairseq-ecg manifest check manifests/cinc2021
  fairseq-ecg manifest stats manifests/cinc2021
  fairseq-ecg manifest pairs fairseq_signals/manifest/total manifests/cmsc --kind cmsc

Training pairs segments by itself and needs no pair manifests: 'pairs' serves fairseq-signals."""


def main(argv: Sequence[str] | None = None) -> int:
    """fairseq-ecg manifest {split,pairs,check,stats} ..."""
    options = _parser().parse_args(list(sys.argv[1:] if argv is None else argv))
    return {"split": _split, "pairs": _pairs, "check": _check, "stats": _stats}[options.command](options)


class _Parser(argparse.ArgumentParser):
    """Reports a mistake as every other one is reported: one line by the command's dispatcher."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see: {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fairseq-ecg manifest",
        description="Which segments of which records are trained, validated and tested on.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    split = commands.add_parser("split", help="stores -> train.tsv, valid.tsv and test.tsv")
    split.add_argument(
        "stores", nargs="+", type=Path, metavar="STORE_DIR", help="prepared stores of one rate"
    )
    split.add_argument("out", type=Path, metavar="MANIFEST_DIR", help="folder to write to")
    split.add_argument(
        "--segment-sec",
        type=_seconds,
        default=5.0,
        metavar="S",
        help="seconds per segment; 'all': the whole record is one (default: 5)",
    )
    split.add_argument(
        "--by",
        default="patient",
        metavar="GROUP",
        help="what is never divided between splits: patient, record, fold or source (default: patient)",
    )
    for name in ("valid", "test"):
        split.add_argument(
            f"--{name}",
            metavar="SHARE|NAMES",
            help=f"share of the patients or records (default: 0.1); folds or sources for {name} with these",
        )
    split.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    split.add_argument(
        "--folds",
        type=Path,
        metavar="FILE",
        help="table with the columns record_id and fold (default: the folds the sources publish)",
    )
    split.add_argument(
        "--labels",
        metavar="NAME|FILE",
        help="also write y.npy and label_def.csv: cinc2021, cinc2020, synthetic or a definition file",
    )
    split.add_argument("--overwrite", action="store_true", help="replace manifests that are there")
    pairs = commands.add_parser("pairs", help="write fairseq-signals' manifests of segment pairs")
    pairs.add_argument(
        "manifest", type=Path, metavar="MANIFEST_DIR", help="folder of .tsv files, or one file"
    )
    pairs.add_argument("out", type=Path, metavar="OUT_DIR")
    pairs.add_argument("--kind", default="cmsc", metavar="KIND", help="cmsc: consecutive segments (default)")
    pairs.add_argument("--overwrite", action="store_true", help="replace manifests that are there")
    check = commands.add_parser("check", help="read everything the manifests name and compare checksums")
    check.add_argument("manifest", nargs="+", type=Path, metavar="MANIFEST", help="folders or .tsv files")
    check.add_argument("--fast", action="store_true", help="do not read the samples")
    stats = commands.add_parser("stats", help="count records, patients, segments, hours, sources and labels")
    stats.add_argument("manifest", nargs="+", type=Path, metavar="MANIFEST", help="folders or .tsv files")
    return parser


def _seconds(text: str) -> float | None:
    return None if text == "all" else float(text)


def _split(options: argparse.Namespace) -> int:
    from fairseq_ecg.data.labels import label_definition
    from fairseq_ecg.data.split import SplitOptions, split_stores

    how = SplitOptions(
        segment_sec=options.segment_sec,
        by=options.by,
        valid=options.valid,
        test=options.test,
        seed=options.seed,
        folds=options.folds,
    )
    labels = None if options.labels is None else label_definition(options.labels)
    report = split_stores(options.stores, options.out, how, labels=labels, overwrite=options.overwrite)
    for name, counts in report.splits.items():
        print(f"{options.out / name}.tsv: {counts}")
    for count, text in (
        (report.num_short_records, "records are shorter than one segment and were left out"),
        (report.num_tails, "records end with an incomplete segment that was dropped"),
        (report.num_unused, "records are in no fold and were left out"),
    ):
        if count:
            print(f"{count} {text}")
    if report.was_renumbered:
        print("idx of the stores overlapped; the manifests number the records anew")
    if labels is not None:
        print(
            f"{options.out / 'y.npy'}: {len(labels.names)} classes, "
            f"{report.num_unlabelled} records without any code are unlabelled"
        )
    print(f"next: fairseq-ecg train --config-name w2v_cmsc_rlm task.data={options.out}")
    return 0


def _pairs(options: argparse.Namespace) -> int:
    from fairseq_ecg.data.legacy_export import KINDS, write_cmsc
    from fairseq_ecg.data.manifest import Manifest
    from fairseq_ecg.errors import nearest

    if options.kind not in KINDS:
        raise ConfigError(f"--kind {options.kind}: {nearest(options.kind, KINDS)}")
    for path in _tsv_files([options.manifest]):
        report = write_cmsc(Manifest.read(path), options.out, overwrite=options.overwrite)
        files = f", {report.num_files} .mat segments written" if report.num_files else ""
        print(
            f"{report.path}: {report.num_pairs} pairs of {report.num_records} records, "
            f"{report.num_left_over} segments without partner{files}"
        )
    print(f"next: fairseq-ecg train --config-name w2v_cmsc_rlm task.data={options.out}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from fairseq_ecg.data.manifest import Manifest
    from fairseq_ecg.data.manifest_report import check_manifest, shared_patients

    manifests = [Manifest.read(path) for path in _tsv_files(options.manifest)]
    for manifest in manifests:
        num_records = check_manifest(manifest, is_fast=options.fast)
        how = "found" if options.fast else "read" if manifest.files else "read, checksums match"
        print(f"{manifest.path}: {manifest.num_rows} segments of {num_records} records {how}")
    for first, second, count in shared_patients(manifests):
        print(f"warning: {count} patients are in {first.path} and in {second.path}")
    return 0


def _stats(options: argparse.Namespace) -> int:
    from fairseq_ecg.data.manifest import Manifest
    from fairseq_ecg.data.manifest_report import describe, shared_patients

    manifests = [Manifest.read(path) for path in _tsv_files(options.manifest)]
    for manifest in manifests:
        print("\n".join(describe(manifest)))
    for first, second, count in shared_patients(manifests):
        print(f"warning: {count} patients are in {first.path} and in {second.path}")
    return 0


def _tsv_files(paths: Sequence[Path]) -> list[Path]:
    """The manifests among files and folders."""
    found: list[Path] = []
    for path in paths:
        files = sorted(path.glob("*.tsv")) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path} holds no .tsv file; make manifests with: fairseq-ecg manifest split")
        found += files
    return found
