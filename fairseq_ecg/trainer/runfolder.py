"""The run folder: whose it is, how the run was started (config, command line, versions), what it left out."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import yaml

from fairseq_ecg import __version__
from fairseq_ecg.config import RunConfig
from fairseq_ecg.data.manifest import write_text
from fairseq_ecg.errors import ConfigError

LOCK, REJECTED = ".lock", "rejected.tsv"
REJECTED_COLUMNS = ("subset", "record_id", "reason")


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Make the folder and keep other runs out of it until this one ends, however it ends.

    Raises:
        ConfigError: the folder cannot be written, or another run is writing there.
    """
    key = f"checkpoint.save_dir={run_dir}"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = (run_dir / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{key} cannot be written: {error.strerror}; choose another folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(
                f"{key} is in use by another run ({file.read().strip()}); wait for it, or choose "
                "another folder"
            ) from None
        except OSError as error:
            # Some network file systems have no locks; a run must be possible there too.
            print(
                f"{key} cannot be locked ({error.strerror}): run one training there at a time",
                file=sys.stderr,
            )
        file.truncate(0)
        print(f"process {os.getpid()} on {platform.node()}", file=file, flush=True)
        yield


def list_rejected(run_dir: Path, rejected: Mapping[tuple[str, str], str]) -> int:
    """Add files that could not be read to ``rejected.tsv``; returns how many it lists.

    Args:
        run_dir: the run folder.
        rejected: (subset, record_id) -> reason; what an earlier part of the run has listed stays.
    """
    path = run_dir / REJECTED
    known: dict[tuple[str, str], str] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            subset, record_id, reason = line.split("\t")
            known[subset, record_id] = reason
    known |= {key: " ".join(reason.split()) for key, reason in rejected.items()}
    lines = ["\t".join(REJECTED_COLUMNS), *("\t".join((*key, known[key])) for key in sorted(known))]
    write_text(path, "\n".join(lines) + "\n")
    return len(known)


def write_run_files(cfg: RunConfig, run_dir: Path) -> None:
    """Write config.yaml and env.json, and append to command.txt (one line per start or resume).

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        text = yaml.safe_dump(cfg.to_dict(), sort_keys=False)
        (run_dir / "config.yaml").write_text(text, encoding="utf-8")
        (run_dir / "env.json").write_text(json.dumps(environment(), indent=1), encoding="utf-8")
        with (run_dir / "command.txt").open("a", encoding="utf-8") as file:
            print(datetime.now(UTC).isoformat(timespec="seconds"), shlex.join(sys.argv), file=file)
    except OSError as error:
        raise ConfigError(
            f"checkpoint.save_dir={run_dir} cannot be written: {error.strerror}; choose another folder"
        ) from error


def environment() -> dict[str, str | int]:
    return {
        "fairseq_ecg": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cuda": torch.version.cuda or "",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "threads": torch.get_num_threads(),
    }
