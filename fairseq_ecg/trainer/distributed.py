"""Processes of a run: torchrun's, spawned ones, or one alone; and what they say to each other.

Collectives on tensors use the run's backend; decisions of the hosts (stop now?) use a gloo group, so that
they never wait for a GPU.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fairseq_ecg.config import Backend, DistributedConfig
from fairseq_ecg.errors import ConfigError, FairseqEcgError

GRACE_SEC = 10
"""How long the other processes get to end by themselves after one has failed, and again after SIGTERM."""


@dataclass(frozen=True)
class World:
    """This process's place among the processes of a run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    host_group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def all_reduce(self, value: Tensor) -> Tensor:
        """Sum over ranks, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """True on every rank when it is true on one; asked through the hosts."""
        if self.size == 1:
            return flag
        votes = torch.tensor([int(flag)])
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self.host_group)
        return bool(votes.item())

    def agrees(self, values: list[int]) -> bool:
        """Whether every rank has the same numbers; asked through the hosts."""
        if self.size == 1:
            return True
        mine = torch.tensor(values)
        everyones = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(everyones, mine, group=self.host_group)
        return all(torch.equal(mine, theirs) for theirs in everyones)

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier(group=self.host_group)

    def gather_rows(self, value: Tensor) -> Tensor:
        """Concatenate every rank's CPU rows along axis 0, in rank order; row counts may differ."""
        if self.size == 1:
            return value
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(value)]), group=self.host_group)
        longest = int(max(int(count) for count in counts))
        padded = value.new_zeros((longest, *value.shape[1:]))
        padded[: len(value)] = value
        rows = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(rows, padded, group=self.host_group)
        return torch.cat([part[: int(count)] for part, count in zip(rows, counts, strict=True)])

    def union(self, mine: Mapping[Any, str]) -> dict[Any, str]:
        """The entries of every rank's mapping, on every rank."""
        if self.size == 1:
            return dict(mine)
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, dict(mine), group=self.host_group)
        return {key: value for part in parts for key, value in part.items()}


def pick_device(*, cpu: bool, local_rank: int = 0) -> torch.device:
    """The GPU of this rank, or the CPU when there is none or the user said so."""
    if cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


def capped_world_size(cfg: DistributedConfig, *, cpu: bool, update_freq: list[int]) -> tuple[int, str]:
    """How many processes to start here, and the line that explains a cap (empty when there is none).

    A machine runs one process per GPU, or per core when it trains on the CPU.
    """
    asked = cfg.distributed_world_size
    on_gpu = torch.cuda.is_available() and not cpu
    available = torch.cuda.device_count() if on_gpu else len(os.sched_getaffinity(0))
    if asked <= available:
        return asked, ""
    freq = [-(-count * asked // available) for count in update_freq]
    what = "GPU" if on_gpu else "CPU core"
    return available, (
        f"distributed_training.distributed_world_size={asked}, but this machine has {available} {what}"
        f"{'s' if available != 1 else ''}: running {available}; "
        f"optimization.update_freq={str(freq).replace(' ', '')} keeps the effective batch"
    )


def launched_by_torchrun() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ


@contextmanager
def joined(cfg: DistributedConfig, *, cpu: bool) -> Iterator[World]:
    """Join the process group that torchrun's variables describe, and leave it at the end."""
    if not launched_by_torchrun():
        yield World(device=pick_device(cpu=cpu, local_rank=cfg.device_id))
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = pick_device(cpu=cpu, local_rank=local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = cfg.distributed_backend or (Backend.NCCL if device.type == "cuda" else Backend.GLOO)
    if device.type == "cpu":
        backend = Backend.GLOO
    dist.init_process_group(
        backend.value,
        init_method=cfg.distributed_init_method or "env://",
        rank=rank,
        world_size=size,
        device_id=device if device.type == "cuda" else None,
    )
    host_group = dist.group.WORLD if backend is Backend.GLOO else dist.new_group(backend="gloo")
    try:
        yield World(rank=rank, size=size, local_rank=local_rank, device=device, host_group=host_group)
    finally:
        dist.destroy_process_group()


def spawn(target: Callable[[dict[str, Any]], int], config: dict[str, Any], *, size: int, port: int) -> int:
    """Run ``target(config)`` in ``size`` processes that see torchrun's variables; the largest exit status.

    A process that fails takes the others with it, as torchrun does, and its status is the run's; signals are
    passed on to all of them.

    Raises:
        FairseqEcgError: the first one a process raised.
    """
    import torch.multiprocessing as multiprocessing

    context = multiprocessing.get_context("spawn")
    errors = context.SimpleQueue()
    processes = [
        context.Process(target=_enter, args=(target, config, rank, size, port, errors), name=f"rank {rank}")
        for rank in range(size)
    ]
    with _signals_passed_to(processes):
        for process in processes:
            process.start()
        status = _wait_for(processes)
    if not errors.empty():
        raise errors.get()
    return status


def free_port(wanted: int) -> int:
    """``wanted`` if nobody listens there, else any free port of this machine."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigError("no free TCP port on 127.0.0.1 for distributed training")


def _enter(
    target: Callable[[dict[str, Any]], int],
    config: dict[str, Any],
    rank: int,
    size: int,
    port: int,
    errors: Any,
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        status = target(config)
    except FairseqEcgError as error:
        errors.put(error)
        status = 2
    raise SystemExit(status)


@contextmanager
def _signals_passed_to(processes: list[Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def forward(number: int, frame: object) -> None:
        for process in processes:
            if process.pid and process.is_alive():
                os.kill(process.pid, number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait_for(processes: list[Any]) -> int:
    running, statuses = list(processes), []
    try:
        while running:
            connection.wait([process.sentinel for process in running])
            for process in [process for process in running if not process.is_alive()]:
                running.remove(process)
                code = process.exitcode or 0
                statuses.append(code if code >= 0 else 128 - code)
                if code and code != 143:
                    _end(running)
                    return max(statuses)
    finally:
        for process in running:
            process.kill()
    return max(statuses, default=0)


def _end(processes: list[Any]) -> None:
    """Let processes end by themselves, then ask them to, then make them: a rank that waits for one that is
    gone only notes a SIGTERM.
    """
    for insist in ("terminate", "kill"):
        deadline = time.monotonic() + GRACE_SEC
        for process in processes:
            process.join(timeout=max(deadline - time.monotonic(), 0.0))
            if process.is_alive():
                getattr(process, insist)()
