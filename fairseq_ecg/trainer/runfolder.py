"""Files that say how a run was started: resolved config, command line, versions."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import yaml

from fairseq_ecg import __version__
from fairseq_ecg.config import RunConfig
from fairseq_ecg.errors import ConfigError


def write_run_files(cfg: RunConfig, run_dir: Path) -> None:
    """Write config.yaml and env.json, and append to command.txt (one line per start or resume).

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(cfg.to_dict(), sort_keys=False)
        (run_dir / "config.yaml").write_text(text, encoding="utf-8")
        (run_dir / "env.json").write_text(json.dumps(environment(), indent=1), encoding="utf-8")
        with (run_dir / "command.txt").open("a", encoding="utf-8") as file:
            print(datetime.now(UTC).isoformat(timespec="seconds"), shlex.join(sys.argv), file=file)
    except OSError as error:
        raise ConfigError(
            f"checkpoint.save_dir={run_dir} cannot be written: {error.strerror}; choose another folder"
        ) from error


def write_rejected(rejected: Mapping[str, str], path: Path) -> None:
    """List the records that a run could not read, with the reason; no file when there is none."""
    if rejected:
        rows = [f"{record_id}\t{reason}" for record_id, reason in sorted(rejected.items())]
        path.write_text("record_id\treason\n" + "\n".join(rows) + "\n", encoding="utf-8")


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
