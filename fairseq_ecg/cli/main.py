"""The ``fairseq-ecg`` command: finds a sub-command, runs it, and turns a user's mistake into one line.

A sub-command is a module of this folder with ``main(argv) -> int``; the first line of its docstring is its
help. Help is read from the sources, so that it needs neither torch nor any plugin.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fairseq_ecg import __version__
from fairseq_ecg.errors import FairseqEcgError, nearest

GROUPS = {
    "Data": ("prepare", "manifest", "labels"),
    "Training": ("train", "validate", "convert"),
    "Using models": ("evaluate", "embed", "infer", "report"),
    "Finding your way": ("list", "demo"),
}
"""Heading -> commands in the order of the help; a command named nowhere comes last, under ``More``."""

USAGE = """fairseq-ecg: self-supervised learning on electrocardiograms

usage: fairseq-ecg COMMAND [ARGUMENTS]      fairseq-ecg COMMAND --help      fairseq-ecg --version
"""

EXAMPLE = """From raw records to a score:
  fairseq-ecg prepare physionet2021 RAW_DIR data/store
  fairseq-ecg manifest split data/store data/manifest --labels cinc2021
  fairseq-ecg train --config-name w2v_cmsc_rlm task.data=data/manifest checkpoint.save_dir=runs/pretrained
  fairseq-ecg train --config-name diagnosis task.data=data/manifest model.model_path=runs/pretrained \\
      checkpoint.save_dir=runs/diagnosis criterion.report_cinc_score=true
  fairseq-ecg evaluate runs/pretrained --data data/manifest --protocol linear --out scores/probe
  fairseq-ecg validate common_eval.path=runs/diagnosis dataset.valid_subset=test

No data at hand? `fairseq-ecg demo` walks this path on synthetic records in a few minutes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``fairseq-ecg COMMAND ARGUMENTS``; the status is 2 for a user's mistake, 130 if interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(help_text())
        return 0
    if arguments[0] == "--version":
        print(f"fairseq-ecg {__version__}")
        return 0
    command, *rest = arguments
    known = commands()
    if command not in known:
        print(f"fairseq-ecg: error: unknown command {command!r}: {nearest(command, known)}", file=sys.stderr)
        return 2
    return run(command, rest, prog=f"fairseq-ecg {command}")


def train(argv: Sequence[str] | None = None) -> int:
    """The script ``fairseq-ecg-train``, the same as ``fairseq-ecg train``."""
    return run("train", list(sys.argv[1:] if argv is None else argv), prog="fairseq-ecg-train")


def run(command: str, argv: list[str], *, prog: str) -> int:
    """Call the ``main`` of a sub-command and report what goes wrong through no fault of the program."""
    try:
        status = int(importlib.import_module(f"fairseq_ecg.cli.{command}").main(argv))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except FairseqEcgError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130


def commands() -> dict[str, str]:
    """Command -> first line of its module's docstring, read without importing it."""
    folder = Path(__file__).parent
    files = sorted(path for path in folder.glob("*.py") if path.stem not in ("__init__", "main"))
    return {path.stem: _summary(path) for path in files if not path.stem.startswith("_")}


def help_text() -> str:
    """The page printed by ``fairseq-ecg --help``."""
    known = commands()
    named = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, "More": tuple(name for name in known if name not in named)}
    lines = [USAGE]
    for heading, names in groups.items():
        present = [name for name in names if name in known]
        if present:
            lines += [f"{heading}:", *(f"  {name:<10} {known[name]}" for name in present), ""]
    return "\n".join([*lines, EXAMPLE])


def _summary(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = doc.partition("\n")[0].strip().replace("``", "`")
    summary = first.removeprefix(f"`fairseq-ecg {path.stem}`:").strip()
    return summary[:1].upper() + summary[1:]
