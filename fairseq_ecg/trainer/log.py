"""Where a run says how it goes: the terminal, log.jsonl, csv files and TensorBoard.

Files lie in the run folder. A csv has one header and stable columns; a value that appears later becomes a new
last column.
"""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from fairseq_ecg.config import CommonConfig, LogFormat
from fairseq_ecg.errors import ConfigError

Values = Mapping[str, float | int | str]


class RunLog:
    """The log of the main process; other ranks get a silent one.

    Line kinds are ``train_inner`` (every ``log_interval`` updates), ``train`` (every epoch) and the names of
    validation subsets.
    """

    def __init__(self, cfg: CommonConfig, run_dir: Path, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.run_dir = run_dir
        self.format = cfg.log_format or (LogFormat.TQDM if sys.stderr.isatty() else LogFormat.SIMPLE)
        if cfg.no_progress_bar and self.format is LogFormat.TQDM:
            self.format = LogFormat.SIMPLE
        self.bar: Any = None
        self.file: IO[str] | None = None
        self.jsonl: IO[str] | None = None
        self.board: Any = None
        self.wandb: Any = None
        if not enabled:
            return
        try:
            self._open(cfg)
        except BaseException:
            self.close()
            raise

    def _open(self, cfg: CommonConfig) -> None:
        self.jsonl = (self.run_dir / "log.jsonl").open("a", encoding="utf-8")
        if cfg.log_file:
            try:
                self.file = Path(cfg.log_file).open("a", encoding="utf-8")  # noqa: SIM115 (closed by close)
            except OSError as error:
                raise ConfigError(
                    f"common.log_file={cfg.log_file} cannot be written: {error.strerror}; choose another file"
                ) from error
        if cfg.tensorboard_logdir:
            self.board = _tensorboard(cfg.tensorboard_logdir)
        self.wandb = _wandb(cfg, self.run_dir) if cfg.wandb_project else None

    def note(self, text: str) -> None:
        """A sentence for the reader, not a value."""
        if self.enabled:
            self._print(text)
            self._write_json({"kind": "note", "text": text})

    def begin_epoch(self, epoch: int, num_updates: int, total: int) -> None:
        if self.enabled and self.format is LogFormat.TQDM:
            from tqdm import tqdm

            self.bar = tqdm(
                total=total, initial=num_updates, desc=f"epoch {epoch}", unit="update", leave=False
            )

    def advance(self) -> None:
        if self.bar is not None:
            self.bar.update()

    def end_epoch(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def line(self, kind: str, values: Values) -> None:
        """One set of values: printed in the run's format, appended to log.jsonl and to ``<kind>.csv``."""
        if not self.enabled:
            return
        if self.format is LogFormat.JSON:
            self._print(json.dumps({"kind": kind, **_readable(values)}))
        elif self.format is LogFormat.TQDM and kind == "train_inner" and self.bar is not None:
            self.bar.set_postfix({name: _short(values[name]) for name in BAR_VALUES if name in values})
        elif self.format is not LogFormat.NONE:
            self._print(
                f"{kind} | " + " | ".join(f"{name} {_short(value)}" for name, value in values.items())
            )
        self._write_json({"kind": kind, **_readable(values)})
        append_csv(self.run_dir / f"{kind}.csv", _readable(values))
        if self.board is not None:
            step = int(values.get("num_updates", 0))
            for name, value in values.items():
                if isinstance(value, int | float) and name != "num_updates":
                    self.board.add_scalar(f"{kind}/{name}", value, step)
        if self.wandb is not None:
            self.wandb.log({f"{kind}/{name}": value for name, value in values.items()})

    def close(self) -> None:
        self.end_epoch()
        for target in (self.jsonl, self.file, self.board):
            if target is not None:
                target.close()
        if self.enabled and self.wandb is not None:
            self.wandb.finish()

    def _print(self, text: str) -> None:
        if self.format is not LogFormat.NONE:
            if self.bar is not None:
                self.bar.write(text, file=sys.stderr)
            else:
                print(text, file=sys.stderr, flush=True)
        if self.file is not None:
            print(text, file=self.file, flush=True)

    def _write_json(self, values: dict[str, Any]) -> None:
        assert self.jsonl is not None
        print(json.dumps(values), file=self.jsonl, flush=True)


BAR_VALUES = ("loss", "lr", "gnorm", "segments_per_sec", "data_wait_pct")


def append_csv(path: Path, values: Mapping[str, Any]) -> None:
    """Add a row; when it brings new columns the file is rewritten with them at the end of the header."""
    header: list[str] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            header = next(csv.reader(file), [])
    new = [name for name in values if name not in header]
    if header and new:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        temporary = path.with_suffix(".csv.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, header + new, restval="")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, path)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header + new, restval="")
        if not header:
            writer.writeheader()
        writer.writerow(dict(values))


def _readable(values: Values) -> dict[str, Any]:
    """JSON has no NaN: a value without a number is null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tensorboard(folder: str) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "common.tensorboard_logdir needs TensorBoard: pip install 'fairseq-ecg[track]', or unset it"
        ) from error
    return SummaryWriter(folder)


def _wandb(cfg: CommonConfig, run_dir: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            "common.wandb_project needs wandb: pip install 'fairseq-ecg[track]', or unset it"
        ) from error
    name = os.environ.get("WANDB_NAME", run_dir.name)
    return wandb.init(project=cfg.wandb_project, entity=cfg.wandb_entity, name=name, dir=str(run_dir))
