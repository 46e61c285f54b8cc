"""Pre-train or fine-tune a model: key=value overrides on a YAML recipe."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fairseq_ecg.errors import ConfigError, FairseqEcgError

if TYPE_CHECKING:
    from fairseq_ecg.compose import Invocation
    from fairseq_ecg.config import RunConfig

HELP = """fairseq-ecg-train [KEY=VALUE ...] [--config-name NAME] [--config-dir DIR]     (= fairseq-ecg train)

Trains what a YAML recipe describes. Overrides and options may come in any order:

  task.data=DIR                 set an option; +task.data=DIR and ++task.data=DIR mean the same
  model=wav2vec2                choose another registered component (fairseq-ecg list models)
  optimization.lr=5e-5          lists take a scalar, [a,b], (a, b) or a,b
  ~model.final_dim              forget what the recipe says: back to the default
  common.user_dir=DIR           import your own components first

  --config-name, -cn NAME       a packaged recipe (below) or, with --config-dir, your own NAME.yaml
  --config-dir,  -cd DIR        where NAME.yaml lies
  --cfg job                     print the finished config and stop
  --multirun,    -m             try every combination of key=a,b in turn, each in a folder of its own

Example:
  fairseq-ecg-train task.data=data/manifest checkpoint.save_dir=runs/first --config-name w2v_cmsc_rlm

Packaged recipes:"""


def main(argv: Sequence[str] | None = None) -> int:
    """``fairseq-ecg-train task.data=DIR --config-name w2v_cmsc_rlm``"""
    from fairseq_ecg.compose import load_config, parse_argv

    invocation = parse_argv(sys.argv[1:] if argv is None else argv)
    if invocation.help:
        print(help_text())
        return 0
    if invocation.multirun:
        return _run_all(invocation)
    cfg = load_config(invocation)
    if invocation.show:
        print(to_yaml(cfg), end="")
        return 0
    status, results = _train(cfg, invocation)
    _report(results)
    return status


def help_text() -> str:
    """The grammar and the packaged recipes, each with the first line of its comment."""
    from fairseq_ecg.compose.find import display, packaged_configs

    recipes = []
    for path in packaged_configs():
        first = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        recipes.append(f"  {path.stem:<20} {first}\n  {'':<20} {display(path)}")
    return "\n".join([HELP, *recipes])


def to_yaml(cfg: RunConfig) -> str:
    """A finished config as YAML that ``--config-name`` reads back."""
    import yaml

    return str(yaml.safe_dump(cfg.to_dict(), sort_keys=False, allow_unicode=True))


def _train(cfg: RunConfig, invocation: Invocation) -> tuple[int, dict[str, float]]:
    if not getattr(cfg.task.config, "data", "no such option"):
        raise ConfigError(how_to_make_data(cfg, invocation.argv))
    from fairseq_ecg.trainer.launch import launch

    return launch(cfg)


def how_to_make_data(cfg: RunConfig, argv: Sequence[str]) -> str:
    """What to type when ``task.data`` is not set: two commands that make data, and this run again."""
    labelled = hasattr(cfg.task.config, "label_file")
    split = "fairseq-ecg manifest split data/store data/manifest" + (" --labels cinc2021" if labelled else "")
    data = ["task.data=data/manifest"] + (["+task.label_file=data/manifest/y.npy"] if labelled else [])
    again = shlex.join(["fairseq-ecg-train", *data, *argv])
    return (
        "task.data is not set: give the folder of a manifest. To make one from synthetic records:\n"
        "  fairseq-ecg prepare synthetic data/raw data/store --num-patients 64 --seed 0\n"
        f"  {split}\n  {again}"
    )


def _report(results: dict[str, float]) -> None:
    """Print the results once, on the first of several processes."""
    if os.environ.get("RANK", "0") == "0":
        for name, value in results.items():
            print(f"{name} {value:.6g}")


def _run_all(invocation: Invocation) -> int:
    """Run each combination in a folder of its own under ``checkpoint.save_dir``; print a table at the end.

    All configs are checked before the first run starts. A run that fails, or diverges, does not stop the
    others.
    """
    from fairseq_ecg.compose import load_config

    swept = invocation.swept
    jobs: list[tuple[str, RunConfig, Invocation]] = []
    for number, job in enumerate(invocation.jobs()):
        choices = [str(override) for override in job.overrides if override.key in swept]
        cfg = load_config(job)
        folder = _folder_name(number, choices)
        checkpoint = replace(cfg.checkpoint, save_dir=str(Path(cfg.checkpoint.save_dir) / folder))
        jobs.append((" ".join(choices), replace(cfg, checkpoint=checkpoint), job))
    if invocation.show:
        for _, cfg, _ in jobs:
            print(f"---\n{to_yaml(cfg)}", end="")
        return 0
    rows, failed, status = [], 0, 0
    for number, (words, cfg, job) in enumerate(jobs):
        print(f"run {number + 1} of {len(jobs)}: {words} -> {cfg.checkpoint.save_dir}", file=sys.stderr)
        try:
            status, results = _train(cfg, job)
            row = " ".join(f"{name}={value:.6g}" for name, value in results.items())
        except (FairseqEcgError, FloatingPointError) as error:
            row, failed = f"failed: {error}", failed + 1
            status = 0
        rows.append((cfg.checkpoint.save_dir, words, row))
        if status:  # a signal asked the program to stop
            break
    if os.environ.get("RANK", "0") == "0":
        for line in _table(("save_dir", "overrides", "result"), rows):
            print(line)
    return status or (2 if failed else 0)


def _folder_name(number: int, choices: list[str]) -> str:
    """``03-lr=1e-4,batch_size=8``: readable, unique by its number, safe as a folder."""
    words = ",".join(choice.split(".", 1)[-1] for choice in choices)
    safe = re.sub(r"[^A-Za-z0-9_.=,+-]+", "_", re.sub(r"[][(){}'\" ]", "", words))
    return f"{number:02d}-{safe}"[:100].rstrip("-")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]
