"""Start a run in as many processes as it asks for: under torchrun, spawned here, or in this one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fairseq_ecg.config import RunConfig
from fairseq_ecg.trainer.distributed import capped_world_size, free_port, joined, launched_by_torchrun, spawn

RESULTS = "results.json"


def launch(cfg: RunConfig) -> tuple[int, dict[str, float]]:
    """Train; the exit status (143 after a signal) and the last validation's values.

    Raises:
        FairseqEcgError: the run cannot start with this config and these data.
    """
    results_path = Path(cfg.checkpoint.save_dir) / RESULTS
    if launched_by_torchrun():
        status = train_here(cfg)
    else:
        size, notice = capped_world_size(
            cfg.distributed_training, cpu=cfg.common.cpu, update_freq=cfg.optimization.update_freq
        )
        if notice:
            print(notice, file=sys.stderr)
        if size == 1:
            status = train_here(cfg)
        else:
            port = free_port(cfg.distributed_training.distributed_port)
            status = spawn(train_spawned, cfg.to_dict(), size=size, port=port)
    results = json.loads(results_path.read_text(encoding="utf-8")) if results_path.is_file() else {}
    return status, results


def train_here(cfg: RunConfig) -> int:
    """Train as the rank that the environment says this process is."""
    from fairseq_ecg.trainer.trainer import Trainer

    with joined(cfg.distributed_training, cpu=cfg.common.cpu) as world:
        trainer = Trainer.from_config(cfg, world)
        results = trainer.run()
        if world.is_main and results:
            path = Path(cfg.checkpoint.save_dir) / RESULTS
            path.write_text(json.dumps(results, indent=1), encoding="utf-8")
        return trainer.exit_status


def train_spawned(config: dict[str, Any]) -> int:
    """The same in a new process, which gets the config as plain containers and finds the plugins itself."""
    from fairseq_ecg.compose import config_from_dict

    return train_here(config_from_dict(config, source="the starting process", import_user_dir=True))
