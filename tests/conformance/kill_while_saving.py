"""Train, die by SIGKILL at the k-th file operation of a save, resume; for k = 1, 2, ...

Started by test_training.py. The parent imports everything once and forks a process per life, so that a death
takes a second. Every life resumes, checks that what it resumed from is whole and as new as the last completed
save, trains two updates with a save after each, and dies during the second save.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path

import torch
import torch._dynamo  # the first optimizer step would import it, in every life anew

from fairseq_ecg.config import RunConfig
from fairseq_ecg.trainer import checkpoint
from fairseq_ecg.trainer.checkpoint import read_optimizer, read_state, read_tensors
from fairseq_ecg.trainer.trainer import Trainer
from tests.training import pretraining

NUM_OPERATIONS = 18
"""File operations that every save of this run has; pruning adds some now and then."""


class Executioner:
    """Counts the file operations of saves and kills the process at a given one of the second save."""

    def __init__(self, at: int) -> None:
        self.at, self.saves, self.operations = at, 0, 0
        for owner, name in (
            (checkpoint, "save_file"),
            (checkpoint, "_fsync"),
            (checkpoint.torch, "save"),
            (checkpoint.os, "replace"),
            (checkpoint.Path, "rename"),
            (checkpoint.Path, "symlink_to"),
            (checkpoint.Path, "write_text"),
            (checkpoint.shutil, "rmtree"),
        ):
            setattr(owner, name, self.counted(getattr(owner, name), name))
        save = checkpoint.CheckpointFolder.save

        def counted_save(folder, **parts):
            self.saves += 1
            return save(folder, **parts)

        checkpoint.CheckpointFolder.save = counted_save

    def counted(self, function, name):
        def call(*arguments, **options):
            if self.saves == 2:
                self.operations += 1
                if self.operations == self.at:
                    print(f"killed at operation {self.at} ({name})", flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call


def live(cfg: RunConfig, at: int, num_saved: int) -> None:
    """One life: resume, check, train until the executioner strikes."""
    torch.set_num_threads(1)
    last = checkpoint.CheckpointFolder(cfg.checkpoint).last()
    if num_saved:
        assert last is not None, "nothing to resume from"
        state = read_state(last)
        assert state["num_updates"] >= num_saved, (state["num_updates"], num_saved)
        assert len(read_tensors(last)) > 10
        assert len(read_optimizer(last)) > 10
        print(f"resumed from {last.name}", flush=True)
    Executioner(at)
    Trainer.from_config(cfg).run()


def main() -> int:
    data, run, lives = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    cfg = pretraining(data, run, "checkpoint.save_interval_updates=1", "checkpoint.keep_interval_updates=1")
    for life in range(1, lives + 1):
        at = (life - 1) % NUM_OPERATIONS + 1
        child = os.fork()
        if child == 0:
            try:
                live(cfg, at, num_saved=life - 1)  # the first save of every life is completed
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            print(f"life {life} ended with {status}, not by the kill")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
