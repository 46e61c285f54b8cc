"""The argument parser of the commands that have options of their own."""

from __future__ import annotations

import argparse
from typing import NoReturn

from fairseq_ecg.errors import ConfigError


class CommandParser(argparse.ArgumentParser):
    """Reports a mistake as every other one is reported: one line by the command's dispatcher.

    Args:
        command: what follows ``fairseq-ecg`` on the command line.
        description: one line.
        epilog: explanation and examples, printed as they are.
    """

    def __init__(self, command: str, *, description: str | None, epilog: str) -> None:
        super().__init__(
            prog=f"fairseq-ecg {command}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see: {self.prog} --help")
