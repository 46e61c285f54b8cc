"""Every fairseq-ecg command printed in a page is one that the package accepts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fairseq_ecg.cli import embed, evaluate, main, manifest, prepare
from fairseq_ecg.compose import load_config, parse_argv
from fairseq_ecg.evaluate.run import Settings
from fairseq_ecg.plugins import load_all
from fairseq_ecg.registry import READERS

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("examples/*/README.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL = ("bash", "sh", "")
OWN_FILES = ("--config-dir", "common.user_dir")
"""Commands with these name files of the page's reader; tests/docs/test_snippets.py runs the plugin's."""


def printed_commands() -> list[tuple[str, str]]:
    """(page, command line) of every line of a shell block that starts the package."""
    found = []
    for page in PAGES:
        blocks = [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind in SHELL]
        for block in blocks:
            for line in block.replace("\\\n", " ").splitlines():
                if match := re.search(r"(?:^|&& )(fairseq-ecg(?:-train)? .*)$", line.strip()):
                    found.append((str(page.relative_to(ROOT)), match.group(1)))
    return found


@pytest.mark.parametrize(("page", "line"), printed_commands(), ids=lambda text: text[:60])
def test_a_printed_command_is_accepted(page: str, line: str):
    program, *words = shlex.split(line.partition(" > ")[0], comments=True)
    command, arguments = ("train", words) if program.endswith("-train") else (words[0], words[1:])
    assert command in main.commands(), page
    if any(word.startswith(OWN_FILES) for word in arguments):
        return
    if command == "train":
        for job in parse_argv(arguments).jobs():
            if not job.help:
                load_config(job)
    elif command == "validate":
        parse_argv(arguments)
    elif command == "prepare":
        load_all()
        if "--help" not in arguments:
            prepare._parser(READERS.get(arguments[0])).parse_args(arguments)
    elif command == "manifest":
        options = manifest._parser().parse_args(arguments)
        assert options.command == arguments[0]
    elif command in ("evaluate", "embed"):
        parser = {"evaluate": evaluate, "embed": embed}[command].parser()
        options = parser.parse_args(arguments)
        if command == "evaluate":
            Settings(protocol=options.protocol)  # refuses a protocol that does not exist


def test_commands_are_found():
    assert len(printed_commands()) > 30
