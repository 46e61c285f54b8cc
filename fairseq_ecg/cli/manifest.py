"""``fairseq-ecg manifest``: split prepared stores into manifests, check them, count them, convert them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from fairseq_ecg.errors import ConfigError, DataError

EXAMPLES = """examples:
  fairseq-ecg manifest split stores/cinc2021 manifests/cinc2021 --labels cinc2021
  fairseq-ecg manifest split stores/cinc2021 manifests/even --stratify cinc2021 --seed 7
  fairseq-ecg manifest split stores/ptbxl stores/georgia manifests/both --segment-sec 10 --valid 0.2
  fairseq-ecg manifest split stores/all manifests/held_out --by source --test georgia
  fairseq-ecg manifest split stores/ptbxl manifests/ptbxl --by fold --valid 9 --test 10
  fairseq-ecg manifest split stores/mimic manifests/mimic --by time
  fairseq-ecg manifest identify stores/cinc2021 manifests/identify --evaluate stores/ptbxl --exclude ptb-xl
  fairseq-ecg manifest pairs manifests/cinc2021 clocs --kind all
  fairseq-ecg manifest combine manifests/georgia manifests/ptbxl manifests/both
  fairseq-ecg manifest subset manifests/cinc2021 manifests/tenth --fraction 0.1
  fairseq-ecg manifest convert manifests/cinc2021 fairseq_signals --to fairseq_signals
  fairseq-ecg manifest convert meta_split.csv manifests/ecg_fm --stores stores/mimic
  fairseq-ecg manifest check manifests/cinc2021 --checkpoint runs/pretrained/checkpoints/checkpoint_last
  fairseq-ecg manifest stats manifests/cinc2021

Training pairs segments by itself and needs no pair manifests: 'pairs' serves fairseq-signals."""


def main(argv: Sequence[str] | None = None) -> int:
    """fairseq-ecg manifest {split,identify,pairs,combine,subset,convert,check,stats} ..."""
    options = _parser().parse_args(list(sys.argv[1:] if argv is None else argv))
    return int(options.run(options))


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
    _add_split(commands)
    _add_identify(commands)
    pairs = commands.add_parser("pairs", help="write fairseq-signals' manifests of segment pairs")
    pairs.add_argument("manifest", type=Path, metavar="MANIFEST", help="folder of .tsv files, or one file")
    pairs.add_argument("out", type=Path, metavar="OUT_DIR")
    pairs.add_argument(
        "--kind",
        default="cmsc",
        metavar="KIND",
        help="cmsc (default), cmlc or cmsmlc; several or 'all': a folder for each below OUT_DIR",
    )
    _finish(pairs, _pairs)
    combine = commands.add_parser("combine", help="two folders of manifests -> one, under their common root")
    combine.add_argument("first", type=Path, metavar="FIRST")
    combine.add_argument("second", type=Path, metavar="SECOND")
    combine.add_argument("out", type=Path, metavar="OUT_DIR")
    combine.add_argument("--exclude", type=_names, default=[], metavar="SOURCES", help="sources to leave out")
    _finish(combine, _combine)
    subset = commands.add_parser("subset", help="keep a share of the training patients")
    subset.add_argument("manifest", type=Path, metavar="MANIFEST_DIR")
    subset.add_argument("out", type=Path, metavar="OUT_DIR")
    subset.add_argument("--fraction", type=float, required=True, metavar="F", help="share to keep, e.g. 0.1")
    subset.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    subset.add_argument("--by", default="patient", metavar="GROUP", help="patient (default) or record")
    _finish(subset, _subset)
    convert = commands.add_parser("convert", help="to and from the manifests of fairseq-signals and ECG-FM")
    convert.add_argument(
        "manifest", type=Path, metavar="INPUT", help="folder, .tsv, meta_split.csv or segmented_split.csv"
    )
    convert.add_argument("out", type=Path, metavar="OUT_DIR")
    convert.add_argument(
        "--to",
        default="fairseq_ecg",
        metavar="FORMAT",
        help="fairseq_ecg (default), fairseq_signals (.tsv and .mat segments) or meta_split (.csv and .mat)",
    )
    convert.add_argument(
        "--stores",
        nargs="+",
        type=Path,
        default=[],
        metavar="STORE_DIR",
        help="that hold a meta_split's records",
    )
    _add_segment_sec(convert)
    _finish(convert, _convert)
    check = commands.add_parser("check", help="read everything the manifests name; find leaks and duplicates")
    check.add_argument("manifest", nargs="+", type=Path, metavar="MANIFEST", help="folders or .tsv files")
    check.add_argument("--fast", action="store_true", help="do not read the samples")
    check.add_argument(
        "--checkpoint", metavar="CHECKPOINT", help="name the sources it was pre-trained on that are here too"
    )
    check.add_argument("--strict", action="store_true", help="warnings are errors")
    check.set_defaults(run=_check)
    stats = commands.add_parser("stats", help="count records, patients, segments, hours, sources and labels")
    stats.add_argument("manifest", nargs="+", type=Path, metavar="MANIFEST", help="folders or .tsv files")
    stats.set_defaults(run=_stats)
    return parser


def _add_split(commands: Any) -> None:
    split = commands.add_parser("split", help="stores -> train.tsv, valid.tsv and test.tsv")
    split.add_argument(
        "stores", nargs="+", type=Path, metavar="STORE_DIR", help="prepared stores of one rate"
    )
    split.add_argument("out", type=Path, metavar="MANIFEST_DIR", help="folder to write to")
    _add_segment_sec(split)
    split.add_argument(
        "--by",
        default="patient",
        metavar="GROUP",
        help="what is never divided between splits: patient, record, fold or source; or time, oldest records "
        "first (default: patient)",
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
        "--stratify", metavar="NAME|FILE", help="give every label of this definition its share in every split"
    )
    split.add_argument(
        "--labels",
        metavar="NAME|FILE",
        help="also write y.npy, label_def.csv and pos_weight.txt: a built-in definition or a definition file",
    )
    _finish(split, _split)


def _add_identify(commands: Any) -> None:
    parser = commands.add_parser(
        "identify", help="stores -> train.tsv with patients as classes, valid_gallery.tsv, valid_probe.tsv"
    )
    parser.add_argument(
        "stores", nargs="+", type=Path, metavar="STORE_DIR", help="prepared stores of one rate"
    )
    parser.add_argument("out", type=Path, metavar="MANIFEST_DIR", help="folder to write to")
    parser.add_argument(
        "--evaluate",
        nargs="+",
        type=Path,
        default=[],
        metavar="STORE_DIR",
        help="stores that gallery and probe are taken from; the others are trained on",
    )
    parser.add_argument(
        "--valid",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="of the patients with a gallery and a probe, without --evaluate (default: 0.2)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    parser.add_argument(
        "--between",
        default="records",
        metavar="UNIT",
        help="gallery and probe are two records (default) or two segments, which may be of one record",
    )
    parser.add_argument("--exclude", type=_names, default=[], metavar="SOURCES", help="not to be trained on")
    _add_segment_sec(parser)
    _finish(parser, _identify)


def _add_segment_sec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--segment-sec",
        type=_seconds,
        default=5.0,
        metavar="S",
        help="seconds per segment; 'all': the whole record is one (default: 5)",
    )


def _finish(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace manifests that are there")
    parser.set_defaults(run=run)


def _seconds(text: str) -> float | None:
    try:
        return None if text == "all" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of seconds nor 'all'") from None


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


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
        stratify=None if options.stratify is None else label_definition(options.stratify),
    )
    labels = None if options.labels is None else label_definition(options.labels)
    report = split_stores(options.stores, options.out, how, labels=labels, overwrite=options.overwrite)
    for name, counts in report.splits.items():
        print(f"{options.out / name}.tsv: {counts}")
    for count, text in (
        (report.num_short_records, "records are shorter than one segment and were left out"),
        (report.num_tails, "records end with an incomplete segment that was dropped"),
        (
            report.num_unused,
            f"records have no {'date' if options.by == 'time' else 'fold'} and were left out",
        ),
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
    if how.trains:
        print(f"next: fairseq-ecg train --config-name w2v_cmsc_rlm task.data={options.out}")
    return 0


def _identify(options: argparse.Namespace) -> int:
    from fairseq_ecg.data.identify import IdentifyOptions, identify

    how = IdentifyOptions(
        segment_sec=options.segment_sec,
        valid=options.valid,
        seed=options.seed,
        between=options.between,
        exclude=options.exclude,
    )
    report = identify(
        options.stores, options.out, how, evaluate=options.evaluate, overwrite=options.overwrite
    )
    print(f"{options.out / 'train.tsv'}: {report.num_classes} patients, {report.num_train_segments} segments")
    print(f"{options.out}: {report.num_valid_patients} patients in gallery and probe")
    if report.num_single:
        print(f"{report.num_single} patients have no second of the {options.between} and were left out")
    if report.num_shared:
        print(f"{report.num_shared} records of gallery and probe patients were kept out of training")
    print(
        f"next: fairseq-ecg train --config-name identification task.data={options.out} "
        f"model.num_labels={report.num_classes}"
    )
    return 0


def _pairs(options: argparse.Namespace) -> int:
    from fairseq_ecg.data.legacy_export import KINDS, write_pairs
    from fairseq_ecg.data.manifest import Manifest
    from fairseq_ecg.errors import nearest

    kinds = list(KINDS) if options.kind == "all" else _names(options.kind)
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"--kind {kind}: {nearest(kind, (*KINDS, 'all'))}")
    for path in _tsv_files([options.manifest]):
        for kind in kinds:
            out = options.out if len(kinds) == 1 else options.out / kind
            report = write_pairs(
                Manifest.read(path),
                out,
                kind=kind,
                segment_dir=options.out / "segments",
                overwrite=options.overwrite,
            )
            rows = "segments" if kind == "cmlc" else "pairs"
            files = f", {report.num_files} .mat segments written" if report.num_files else ""
            print(
                f"{report.path}: {report.num_pairs} {rows} of {report.num_records} records, "
                f"{report.num_left_over} segments without partner{files}"
            )
    if kinds == ["cmsc"]:
        print(f"next: fairseq-ecg train --config-name w2v_cmsc_rlm task.data={options.out}")
    return 0


def _combine(options: argparse.Namespace) -> int:
    from fairseq_ecg.data.manifest_edit import combine

    report = combine(
        options.first, options.second, options.out, exclude=options.exclude, overwrite=options.overwrite
    )
    _print_rows(options.out, report.rows, report.notes)
    if report.num_left_out:
        print(f"{report.num_left_out} segments of excluded sources were left out")
    return 0


def _subset(options: argparse.Namespace) -> int:
    from fairseq_ecg.data.manifest_edit import subset

    report = subset(
        options.manifest,
        options.out,
        options.fraction,
        seed=options.seed,
        by=options.by,
        overwrite=options.overwrite,
    )
    _print_rows(options.out, report.rows, report.notes)
    return 0


def _convert(options: argparse.Namespace) -> int:
    from fairseq_ecg.data.manifest_convert import convert

    report = convert(
        options.manifest,
        options.out,
        options.to,
        stores=options.stores,
        segment_sec=options.segment_sec,
        overwrite=options.overwrite,
    )
    _print_rows(options.out, report.rows, report.notes)
    if report.num_files:
        print(f"{options.out / 'segments'}: {report.num_files} .mat segments")
    if report.num_unmatched:
        print(f"warning: {report.num_unmatched} rows name records that the stores do not have")
    return 0


def _print_rows(folder: Path, rows: dict[str, int], notes: Sequence[str]) -> None:
    for name, count in rows.items():
        print(f"{folder / name}: {count} {'rows' if name.endswith('.csv') else 'segments'}")
    for note in notes:
        print(f"note: {note}")


def _check(options: argparse.Namespace) -> int:
    from fairseq_ecg.data.manifest import Manifest
    from fairseq_ecg.data.manifest_report import check_manifest, leaks, shared_sources

    manifests = [Manifest.read(path) for path in _tsv_files(options.manifest)]
    for manifest in manifests:
        num_records = check_manifest(manifest, is_fast=options.fast)
        how = "found" if options.fast else "read" if manifest.files else "read, checksums match"
        print(f"{manifest.path}: {manifest.num_rows} segments of {num_records} records {how}")
    warnings = leaks(manifests, is_fast=options.fast)
    if options.checkpoint is not None:
        seen = _pretraining_sources(options.checkpoint)
        if not seen:
            warnings.append(f"{options.checkpoint} does not say what it was pre-trained on")
        warnings += [
            f"{options.checkpoint} was pre-trained on {name!r}, which is here too"
            for name in shared_sources(manifests, seen)
        ]
    for warning in warnings:
        print(f"warning: {warning}")
    if warnings and options.strict:
        raise DataError(f"{len(warnings)} warnings, the first: {warnings[0]}")
    return 0


def _pretraining_sources(checkpoint: str) -> list[str]:
    """The data sources a checkpoint's config lists; none for a file of another project."""
    from fairseq_ecg.trainer.checkpoint import read_config, resolve

    folder = resolve(checkpoint)
    return [] if folder.is_file() else list(read_config(folder).get("sources") or [])


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
