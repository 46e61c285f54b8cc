"""``fairseq-ecg prepare``: raw records of any known source to a prepared store."""

from __future__ import annotations

import argparse
import inspect
import sys
import types
import typing
from argparse import SUPPRESS
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from fairseq_ecg.cli import _store_commands
from fairseq_ecg.cli._progress import show_progress
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.registry import READERS, Entry

EXAMPLES = """examples:
  fairseq-ecg prepare synthetic raw/synthetic stores/synthetic --num-patients 64 --seed 0
  fairseq-ecg prepare physionet2021 physionet2021/training stores/cinc2021
  fairseq-ecg prepare physionet2021 physionet2021/training stores/georgia --databases georgia
  fairseq-ecg prepare physionet2021 records stores/two_leads --leads I,II --sampling-rate 250
  fairseq-ecg prepare physionet2021 records stores/ecg_jepa --contract ecg_jepa
  fairseq-ecg prepare physionet2021 records stores/filtered --filter 'bandpass(low=0.5, high=40)|notch'

  fairseq-ecg prepare physionet2021 physionet2021/training stores/cinc2021 --num-workers 8 --verify

A run that was interrupted, even killed, is continued by the same command. In a job array, each job makes a
part, and the parts together are the store of a single run:
  fairseq-ecg prepare physionet2021 records parts/$I --shard-index $I --num-shards 16
  fairseq-ecg prepare merge parts/* stores/cinc2021

Afterwards and before:
  fairseq-ecg prepare verify stores/cinc2021 physionet2021/training     does the store hold the raw records?
  fairseq-ecg prepare check-download physionet2021                      are the files what SHA256SUMS says?

STORE_DIR/qc.html shows what was read (as a table: qc.tsv). What is left out or repaired is listed in
STORE_DIR/rejected.tsv with its reason. The policies:
  error  stop at the first such record
  skip   leave the record out
  zero   keep the record; the missing samples or the lead become 0 mV and the record is flagged
'fairseq-ecg prepare SOURCE --help' also shows the options of that source."""


def main(argv: Sequence[str] | None = None) -> int:
    """fairseq-ecg prepare SOURCE RAW_DIR STORE_DIR [options]"""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in _store_commands.COMMANDS:
        return _store_commands.COMMANDS[arguments[0]](arguments[1:])
    _load_readers(arguments)
    # The options of the reader that is named join the parser, so that --help shows them.
    named = next((word for word in arguments if word in READERS), None)
    options = _parser(READERS.get(named) if named else None).parse_args(arguments)
    entry = READERS.get(options.source)

    from fairseq_ecg.data.prepare import Part, PrepareOptions, prepare
    from fairseq_ecg.data.presets import preset

    if (options.shard_index is None) != (options.num_shards is None):
        raise ConfigError("--shard-index and --num-shards go together: give both or none")
    part = None if options.num_shards is None else Part(options.shard_index, options.num_shards)
    given = _given(options)
    contract = preset(options.contract) if options.contract else None
    how = PrepareOptions(**given) if contract is None else contract.options(given)
    for name, value in vars(how).items():
        setattr(options, name, list(value) if isinstance(value, tuple) else value)
    config = _reader_config(entry, options)
    report = prepare(
        READERS.build(entry.name, config),
        options.raw_dir,
        options.store_dir,
        how,
        overwrite=options.overwrite,
        num_workers=options.num_workers,
        part=part,
        choices={"contract": options.contract, "reader": entry.name, **_choices(config)},
        progress=show_progress,
    )
    print(f"{options.store_dir}: {report.summary()}")
    if report.num_findings:
        print(f"what was left out, repaired or odd: {options.store_dir / 'rejected.tsv'}")
    print(f"quality of the records: {options.store_dir / 'qc.html'}")
    if options.verify:
        status = _store_commands.verify([str(options.store_dir), str(options.raw_dir)])
        if status:
            return status
    if part is not None:
        print(f"next, with all {part.num_parts} parts: fairseq-ecg prepare merge PART... STORE_DIR")
        return 0
    segments = f" --segment-sec {contract.segment_sec}" if contract else ""
    print(f"next: fairseq-ecg manifest split {options.store_dir} MANIFEST_DIR{segments}")
    if contract and contract.task_overrides:
        print(f"train with: {' '.join(contract.task_overrides)}")
    return 0


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of ``PrepareOptions`` that were typed, as values of their types."""
    from fairseq_ecg.data.prepare import Policy, PrepareOptions
    from fairseq_ecg.data.signal import Resampling

    names = {item.name for item in fields(PrepareOptions)}
    given = {name: value for name, value in vars(options).items() if name in names}
    if "resample" in given:
        given["resample"] = Resampling(given["resample"])
    if "leads" in given:
        given["leads"] = tuple(given["leads"])
    return {name: Policy(value) if name.startswith("policy_") else value for name, value in given.items()}


def _load_readers(arguments: Sequence[str]) -> None:
    """Import built-in and installed readers, and those of ``--user-dir``."""
    from fairseq_ecg import plugins

    early = _store_commands.Parser(add_help=False, allow_abbrev=False)
    early.add_argument("--user-dir", type=Path)
    plugins.load_all(early.parse_known_args(arguments)[0].user_dir)


def _parser(entry: Entry | None) -> argparse.ArgumentParser:
    from fairseq_ecg.data.filters import STEPS
    from fairseq_ecg.data.prepare import Policy
    from fairseq_ecg.data.signal import Resampling

    parser = _store_commands.Parser(
        prog="fairseq-ecg prepare",
        description="Read raw ECG records once, verified, into a store that training reads fast.",
        epilog=f"{EXAMPLES}\n\ncontracts:\n{_contracts()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    sources = "; ".join(f"{known.name}: {known.summary.rstrip('.')}" for known in READERS)
    parser.add_argument("source", metavar="SOURCE", help=sources.replace("%", "%%"))
    parser.add_argument("raw_dir", metavar="RAW_DIR", type=Path, help="folder with the raw records")
    parser.add_argument("store_dir", metavar="STORE_DIR", type=Path, help="folder to make")
    parser.add_argument(
        "--contract",
        metavar="NAME",
        help="prepare the input of a published system, named below; fixes the options down to --filter",
    )
    # Without a default: what is not typed comes from the contract, or from PrepareOptions.
    parser.add_argument(
        "--sampling-rate", type=int, default=SUPPRESS, metavar="HZ", help="of the store (default 500)"
    )
    parser.add_argument(
        "--leads",
        type=_comma_list,
        default=SUPPRESS,
        metavar="NAMES",
        help="of the store, in order (default I,II,III,aVR,aVL,aVF,V1,...,V6)",
    )
    parser.add_argument(
        "--resample",
        choices=[str(method) for method in Resampling],
        default=SUPPRESS,
        help="polyphase filters against aliasing (default); linear is fairseq-signals' interpolation, "
        "endpoints that of ECG-FM and PCLR, fourier ECG-JEPA's, spline that of CPC, SimCLR, BYOL and SwAV",
    )
    parser.add_argument(
        "--same-rate-only",
        action="store_true",
        default=SUPPRESS,
        help="leave out records of another rate instead of resampling them",
    )
    parser.add_argument(
        "--window-sec",
        type=float,
        default=SUPPRESS,
        metavar="S",
        help="keep the first S seconds of a record and leave out shorter ones (default: whole records)",
    )
    parser.add_argument(
        "--num-samples",
        type=int,
        default=SUPPRESS,
        metavar="N",
        help="bring every window to exactly N samples; --sampling-rate is then N / S, rounded",
    )
    parser.add_argument(
        "--zero-start-sec",
        type=float,
        default=SUPPRESS,
        metavar="S",
        help="leave out records that begin with S seconds of zero in all leads (default 0: keep them)",
    )
    parser.add_argument(
        "--reference-rate",
        type=int,
        default=SUPPRESS,
        metavar="HZ",
        help="resample to this rate before the window is cut, as ECG-JEPA does (default: do not)",
    )
    parser.add_argument(
        "--reference-zero-start",
        action="store_true",
        default=SUPPRESS,
        help="judge --zero-start-sec by all leads of a record, as ECG-JEPA does with CODE-15",
    )
    parser.add_argument(
        "--reference-stretch",
        action="store_true",
        default=SUPPRESS,
        help="squeeze whole records into --num-samples, whatever they last, as ECG-JEPA does with CODE-15",
    )
    parser.add_argument(
        "--filter",
        default=SUPPRESS,
        metavar="CHAIN",
        help="filters at the store's rate, e.g. 'highpass(cutoff=0.67)|notch(frequency=50)'; "
        f"known: {', '.join(STEPS)} (default none)",
    )
    for name, default, text in (
        ("nan", "skip", "a lead with missing samples"),
        ("flat", "zero", "a constant lead"),
        ("missing", "zero", "a lead the record does not have"),
        ("unreadable", "skip", "a missing, truncated, corrupt or duplicate record"),
    ):
        choices = [str(policy) for policy in Policy if name != "unreadable" or policy is not Policy.ZERO]
        parser.add_argument(
            f"--policy-{name}", choices=choices, default=SUPPRESS, help=f"{text} (default {default})"
        )
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run has written")
    parser.add_argument(
        "--num-workers",
        type=int,
        default=0,
        metavar="N",
        help="processes that read, check and resample; any number makes the same store (default 0: this one)",
    )
    parser.add_argument(
        "--shard-index", type=int, metavar="I", help="prepare part I of --num-shards only, from 0"
    )
    parser.add_argument("--num-shards", type=int, metavar="N", help="parts of a job array")
    parser.add_argument(
        "--verify", action="store_true", help="afterwards read the raw records again and compare the store"
    )
    parser.add_argument("--user-dir", type=Path, metavar="PATH", help="folder or file with your readers")
    if entry is not None:
        _add_reader_options(parser, entry)
    return parser


def _contracts() -> str:
    from fairseq_ecg.data.presets import PRESETS

    width = max(map(len, PRESETS))
    return "\n".join(f"  {name:<{width}}  {known.summary}" for name, known in PRESETS.items())


def _comma_list(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _add_reader_options(parser: argparse.ArgumentParser, entry: Entry) -> None:
    """An option per field of the reader's config; a field named like a common option shares its value."""
    kinds = typing.get_type_hints(entry.config)
    documentation = _field_documentation(entry.config)
    group = parser.add_argument_group(f"options of {entry.name}")
    for item in fields(entry.config):
        if parser.get_default(item.name) is not None:
            continue
        default = _default(item)
        shown = ",".join(default) or "none" if isinstance(default, list) else default
        text = f"{documentation.get(item.name, '')} (default {shown})".replace("%", "%%").strip()
        flag = f"--{item.name.replace('_', '-')}"
        if kinds[item.name] is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=text)
        else:
            group.add_argument(flag, type=_converter(kinds[item.name], item.name), default=default, help=text)


def _converter(kind: Any, name: str) -> Any:
    """The function that makes a field's value of a word of the command line."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if typing.get_origin(kind) is list:
        convert = typing.get_args(kind)[0]
        return lambda text: [convert(part) for part in _comma_list(text)]
    if kind in (int, float, str, Path):
        return kind
    raise ConfigError(f"option {name} has type {kind}, which a command line cannot give")


def _default(item: Field[Any]) -> Any:
    if item.default is not MISSING:
        return item.default
    return None if item.default_factory is MISSING else item.default_factory()


def _field_documentation(config: type[Any]) -> dict[str, str]:
    """The string under each field of a config dataclass."""
    import ast
    import textwrap

    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(config)))
    except (OSError, TypeError):  # made in a notebook or at run time: no source, no texts
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    found = {}
    for statement, following in pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            found[statement.target.id] = " ".join(str(following.value.value).split())
    return found


def _choices(config: Any) -> dict[str, object]:
    """A reader's options as ``store.json`` keeps them: ``overwrite`` says nothing about the records."""
    return {f"reader_{key}": value for key, value in vars(config).items() if key != "overwrite"}


def _reader_config(entry: Entry, options: argparse.Namespace) -> Any:
    return entry.config(**{item.name: getattr(options, item.name) for item in fields(entry.config)})
