"""Show the registered components: models, criteria, tasks, readers, augmentations, metrics and the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from fairseq_ecg.cli._parser import CommandParser
from fairseq_ecg.errors import ConfigError, nearest
from fairseq_ecg.registry import FAILURES, REGISTRIES, Entry

PLURALS = {"criteria": "criterion"}
PAPER = re.compile(r"\(([^()]*\b(?:19|20)\d\d[^()]*)\)|\b(arXiv[ :]\d{4}\.\d{4,5})")


def main(argv: Sequence[str] | None = None) -> int:
    """``fairseq-ecg list models 'wav2vec*'``"""
    parser = CommandParser(
        "list",
        description="Registered components with their first line of documentation, source and paper.",
        epilog="examples:\n  fairseq-ecg list models\n  fairseq-ecg list criteria 'wav2vec*'",
    )
    parser.add_argument("kind", nargs="?", help=f"one of {', '.join(REGISTRIES)} (singular or plural)")
    parser.add_argument("pattern", nargs="?", default="*", help="part of a name, or a pattern with * and ?")
    parser.add_argument("--user-dir", metavar="PATH", help="folder or file of plugins to import first")
    arguments = parser.parse_args(argv)

    from fairseq_ecg.plugins import load_all

    kinds = [_kind(arguments.kind)] if arguments.kind else list(REGISTRIES)
    load_all(arguments.user_dir)
    pattern = arguments.pattern if set("*?[") & set(arguments.pattern) else f"*{arguments.pattern}*"
    found = 0
    for kind in kinds:
        entries = [entry for entry in REGISTRIES[kind] if fnmatch(entry.name, pattern)]
        if entries:
            print(f"{kind}:")
        for entry in entries:
            print("\n".join(_lines(entry)))
        found += len(entries)
    for failure in FAILURES:
        print(f"broken: {failure}")
    if not found and arguments.pattern != "*":
        known = [name for kind in kinds for name in REGISTRIES[kind].names()]
        raise ConfigError(
            f"no {' or '.join(kinds)} matches {arguments.pattern!r}: {nearest(arguments.pattern, known)}"
        )
    return 0


def paper(entry: Entry) -> str:
    """The publication named in a component's docstring, or in its module's; empty when there is none."""
    import inspect
    import sys

    module = sys.modules.get(entry.factory.__module__)
    for doc in (inspect.getdoc(entry.factory), module and inspect.getdoc(module)):
        if found := PAPER.search(" ".join((doc or "").split())):
            return found.group(1) or found.group(2)
    return ""


def _kind(word: str) -> str:
    kind = PLURALS.get(word, word if word in REGISTRIES else word.removesuffix("s"))
    if kind not in REGISTRIES:
        raise ConfigError(f"unknown kind {word!r}: {nearest(word, [*REGISTRIES, *PLURALS])}")
    return kind


def _lines(entry: Entry) -> list[str]:
    location = entry.location
    file, _, line = location.rpartition(":")
    here = Path.cwd()
    if file and Path(file).is_relative_to(here):
        location = f"{Path(file).relative_to(here)}:{line}"
    source = "; ".join(part for part in (location, paper(entry)) if part)
    return [f"  {entry.name:<36} {entry.summary}", f"  {'':<36} {source}"]
