"""The training loop: epochs, updates, validation, checkpoints, stopping. There is one, for every method.

Determinism by construction: a sample's draws depend on (seed, epoch, index, view, operation), a micro-batch's
on (seed, epoch, global batch index). Nothing depends on rank, worker or wall time, so that resuming needs no
generator state and N processes do what one process does with N times the micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from fairseq_ecg.config import RunConfig
from fairseq_ecg.contracts import Batch
from fairseq_ecg.models.base import EcgModel
from fairseq_ecg.registry import CRITERIA, LR_SCHEDULERS, OPTIMIZERS, TASKS
from fairseq_ecg.trainer.build import BuiltModel, build_model, own_checkpoint
from fairseq_ecg.trainer.checkpoint import CheckpointFolder, CheckpointMeta
from fairseq_ecg.trainer.clock import Clock, grouped, peak_flops
from fairseq_ecg.trainer.diagnose import first_nonfinite
from fairseq_ecg.trainer.distributed import World
from fairseq_ecg.trainer.intervals import Stop, what_is_due
from fairseq_ecg.trainer.log import RunLog
from fairseq_ecg.trainer.meters import Meters, in_bits
from fairseq_ecg.trainer.optim import clip_factor, overridden, total_norm
from fairseq_ecg.trainer.precision import Precision
from fairseq_ecg.trainer.progress import Progress
from fairseq_ecg.trainer.resume import restore
from fairseq_ecg.trainer.runfolder import REJECTED, held, list_rejected, write_run_files
from fairseq_ecg.trainer.seeds import seed_batch
from fairseq_ecg.trainer.selection import Selection
from fairseq_ecg.trainer.standin import frozen_statistics
from fairseq_ecg.trainer.stopping import SignalWatch, limit_reached
from fairseq_ecg.trainer.validate import build_metrics, evaluate_subset
from fairseq_ecg.trainer.wrap import wrap


class Trainer:
    """One process of a run.

    Raises:
        FairseqEcgError: at start-up, when config, data, model and criterion do not fit together.
        FloatingPointError: too many updates in a row were skipped for a non-finite gradient, or the fp16 loss
            scale collapsed; the last good checkpoint is intact.
    """

    def __init__(self, cfg: RunConfig, world: World) -> None:
        self.cfg, self.world, self.device = cfg, world, world.device
        self.criterion = CRITERIA.build(cfg.criterion.name, cfg.criterion.config)
        self.task = TASKS.build(
            cfg.task.name,
            cfg.task.config,
            dataset=cfg.dataset,
            seed=cfg.common.seed,
            layout=self.criterion.layout,
        )
        self.task.load(cfg.dataset.train_subset)
        self.subsets = [] if cfg.dataset.disable_validation else cfg.dataset.valid_subsets
        for subset in self.subsets:
            self.task.load(subset)
        self.built: BuiltModel = build_model(
            cfg.model,
            contract=self.task.contract,
            seed=cfg.common.seed,
            resumed=own_checkpoint(cfg.checkpoint),
        )
        cfg.model = self.built.choice
        self.model: EcgModel = self.built.model.to(self.device)
        self.criterion.validate_model(self.model)
        self.task.validate_model(self.model)
        build_metrics(self.criterion, self.task)  # those that do not fit the labels are refused here
        self.wrapped = wrap(self.model, cfg, world)
        options = overridden(cfg.optimizer.config, cfg.checkpoint.optimizer_overrides)
        self.optimizer = OPTIMIZERS.build(cfg.optimizer.name, options, model=self.model)
        self.schedule = LR_SCHEDULERS.build(
            cfg.lr_scheduler.name,
            cfg.lr_scheduler.config,
            lr=cfg.optimization.lr,
            max_update=cfg.optimization.max_update,
        )
        self.precision = Precision(
            cfg.common, device=self.device, world_size=world.size, update_freq=cfg.optimization.update_freq
        )
        self.progress = Progress()
        self.selection = Selection(cfg.checkpoint)
        self.saved_selection = self.selection.state_dict()
        self.meters, self.epoch_meters = Meters(self.device), Meters(self.device)
        # Updates skipped in all and in a row, counted on the device and read when the host looks anyway.
        self.skips = torch.zeros(2, device=self.device)
        self.folder = CheckpointFolder(cfg.checkpoint)
        self.last_saved = -1
        self.earlier_sources = set(self.built.sources)
        self.num_rejected = 0
        self.updates_per_epoch = 0
        self.clock: Clock | None = None
        self.signals = SignalWatch()
        self.results: dict[str, float] = {}

    # One update -------------------------------------------------------------------------------------------

    def update(self, batches: Sequence[Batch]) -> None:
        """Do one parameter update from ``len(batches)`` micro-batches."""
        self.model.train()
        self.model.before_update(self.progress.num_updates)
        sample_size = torch.zeros((), device=self.device)
        for i, batch in enumerate(batches):
            batch = self.task.prepare(batch.to(self.device), is_train=True)
            seed_batch(self.cfg.common.seed, batch.keys.epoch, batch.batch_index)
            with (
                self.gradient_sync(enabled=i == len(batches) - 1),
                frozen_statistics(self.model, batch.weight == 0),
            ):
                with self.precision.autocast():
                    output = self.task.train_step(self.wrapped, self.criterion, batch)
                (output.loss * (batch.weight * self.precision.loss_scale)).backward()
            sample_size += output.sample_size * batch.weight
            self.meters.add(output.logs, batch.weight)
            self.epoch_meters.add(output.logs, batch.weight)

        # DDP averages over ranks: multiply by world_size to get back the sum over the global batch.
        total = self.world.all_reduce(sample_size).clamp(min=1)
        gradients = self.gradients()
        torch._foreach_mul_(gradients, self.world.size / (total * self.precision.loss_scale))
        grad_norm = total_norm(gradients)
        torch._foreach_mul_(gradients, clip_factor(grad_norm, self.cfg.optimization.clip_norm))
        skip, skipped_now = self.precision.skip_flag(grad_norm)
        self.optimizer.step(self.rate, skip, is_skipped=skipped_now)
        self.optimizer.zero_grad()
        self.note_update(grad_norm, skip)

    def note_update(self, grad_norm: Tensor, skip: Tensor) -> None:
        """Count the update and tell the model."""
        self.skips = torch.stack([self.skips[0] + skip, (self.skips[1] + 1) * skip])
        ones, kept = torch.ones_like(skip), 1.0 - skip
        clip_norm = self.cfg.optimization.clip_norm
        logs = {"gnorm": (torch.nan_to_num(grad_norm, 0.0, 0.0, 0.0) * kept, kept)}
        if clip_norm > 0:
            logs["clip"] = (100.0 * (grad_norm > clip_norm).to(skip.dtype), ones)
        # Every rank has the same values here: summing them over ranks leaves their mean alone.
        self.meters.add(logs)
        self.epoch_meters.add(logs)
        self.progress.num_updates += 1
        self.model.after_update(self.progress.num_updates, skip)

    @property
    def rate(self) -> float:
        since = self.progress.num_updates - self.progress.schedule_start
        return float(self.schedule.rate(since, self.progress.epoch))

    def gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.optimizer.parameters if parameter.grad is not None]

    def gradient_sync(self, *, enabled: bool) -> AbstractContextManager[object]:
        if enabled or not isinstance(self.wrapped, DistributedDataParallel):
            return nullcontext()
        return self.wrapped.no_sync()

    # A run ------------------------------------------------------------------------------------------------

    @classmethod
    def from_config(cls, cfg: RunConfig, world: World | None = None) -> Self:
        from fairseq_ecg.trainer.distributed import pick_device

        return cls(cfg, world or World(device=pick_device(cpu=cfg.common.cpu)))

    def run(self) -> dict[str, float]:
        """Train until a limit, early stopping or a signal; the last validation's (or training's) values."""
        run_dir = Path(self.cfg.checkpoint.save_dir)
        with held(run_dir) if self.world.is_main else nullcontext():
            return self.run_in(run_dir)

    def run_in(self, run_dir: Path) -> dict[str, float]:
        """``run`` in a folder that is this run's alone."""
        if self.world.is_main and not self.cfg.checkpoint.no_save:
            self.folder.prepare()
        self.world.barrier()
        self.log = RunLog(self.cfg.common, run_dir, enabled=self.world.is_main)
        try:
            with self.signals:
                restore(self)
                if self.world.is_main:
                    # Only now: a run that does not fit what is there must leave it as it is.
                    write_run_files(self.cfg, run_dir)
                self.announce()
                for subset in self.subsets:
                    # Forms the batches: what is wrong with them is better known now than after an epoch.
                    self.task.loader(subset, epoch=1, is_train=False).close()
                self.check_selection()
                while not (reason := self.reason_to_stop()):
                    self.train_epoch()
            self.log.note(f"stopped after update {self.progress.num_updates}: {reason}")
        finally:
            self.log.close()
            if self.world.is_main and self.task.rejected:
                list_rejected(run_dir, self.task.rejected)  # of a run that ended inside an epoch, too
        return self.results

    @property
    def exit_status(self) -> int:
        """143 when a signal ended the run, as a shell reports SIGTERM."""
        return 143 if self.signals.received else 0

    def train_epoch(self) -> None:
        """Train the rest of the current epoch, or less when the run must stop."""
        epoch, world = self.progress.epoch, self.world
        loader = self.task.loader(
            self.cfg.dataset.train_subset,
            epoch=epoch,
            is_train=True,
            rank=world.rank,
            world_size=world.size,
            first_batch=self.progress.batches_done,
            pin_memory=self.device.type == "cuda",
        )
        freq = self.cfg.optimization.update_freq
        size = freq[min(epoch, len(freq)) - 1]
        remaining = -(-len(loader) // size)
        if not remaining:
            # Resumed with larger batches or fewer segments: nothing of this epoch is left.
            self.log.note(f"epoch {epoch} has no micro-batch after {self.progress.batches_done}; next epoch")
            loader.close()
            self.end_epoch()
            return
        if not self.progress.batches_done:
            self.updates_per_epoch = remaining
        self.log.begin_epoch(epoch, self.progress.num_updates, self.progress.num_updates + remaining)
        clock = self.clock = Clock(loader)
        with loader:
            for batches in grouped(loader, size):
                rows = sum(len(batch) for batch in batches if batch.weight)
                self.update(batches)
                remaining -= 1
                self.progress.batches_done += len(batches) * world.size
                self.progress.segments += rows * world.size
                clock.rows += rows * world.size
                clock.updates += 1
                self.log.advance()
                if self.progress.num_updates % self.cfg.common.log_interval == 0:
                    self.log_inner(clock, remaining)
                self.watch_nonfinite(batches[-1])
                if not remaining:
                    self.end_epoch()
                stop = self.stop_now()
                self.validate_and_save(epoch, is_epoch_end=not remaining, stop=stop)
                if stop or self.selection.exhausted:
                    if remaining and not self.subsets:
                        self.results = in_bits(self.epoch_meters.reduce(world))
                    break
        self.progress.train_seconds += clock.elapsed()
        self.clock = None
        self.log.end_epoch()
        self.list_rejected()

    def list_rejected(self) -> None:
        """Count the files that could not be read and list them in the run folder."""
        mine = self.task.rejected
        if not self.world.any(len(mine) > self.num_rejected):
            return
        self.num_rejected = len(mine)
        everyones = self.world.union(mine)
        if self.world.is_main:
            path = Path(self.cfg.checkpoint.save_dir)
            count = list_rejected(path, everyones)
            self.log.note(
                f"{count} records could not be read; {path / REJECTED} lists them with their reasons"
            )

    def end_epoch(self) -> None:
        """Log the epoch's means and move on to the next one."""
        values = in_bits(self.epoch_meters.reduce(self.world))
        self.results = values
        self.log.line(
            "train", {"epoch": self.progress.epoch, "num_updates": self.progress.num_updates, **values}
        )
        self.progress.epoch += 1
        self.progress.batches_done = 0

    def updates_left(self, in_epoch: int) -> int | None:
        """Updates until ``max_update`` or ``max_epoch``, whichever comes first; None without a limit.

        Args:
            in_epoch: updates left in this epoch.
        """
        limits = self.cfg.optimization
        left = []
        if limits.max_update:
            left.append(limits.max_update - self.progress.num_updates)
        if limits.max_epoch:
            epochs = limits.max_epoch - self.progress.epoch
            left.append(in_epoch + epochs * self.updates_per_epoch)
        return max(min(left), 0) if left else None

    def log_inner(self, clock: Clock, remaining: int) -> None:
        seconds, updates, rows, wait = clock.read()
        values = in_bits(self.meters.reduce(self.world))
        line: dict[str, float | int | str] = {
            "epoch": self.progress.epoch,
            "num_updates": self.progress.num_updates,
            **values,
            "lr": self.rate,
            "ups": updates / max(seconds, 1e-9),
            "segments_per_sec": rows / max(seconds, 1e-9),
            "data_wait_pct": 100.0 * wait / max(seconds, 1e-9),
            "train_wall": self.seconds,
            "skipped": int(self.skips[0]),
        }
        flops = self.model.forward_flops(self.task.contract.num_samples)
        if flops is not None:
            # Forward and backward: three forward passes' worth, on this device alone.
            rate = 3 * flops * rows / self.world.size / max(seconds, 1e-9)
            line["tflops"] = rate / 1e12
            if (peak := peak_flops(self.device, self.precision.name)) is not None:
                line["mfu_pct"] = 100.0 * rate / peak
        if (left := self.updates_left(remaining)) is not None:
            line["hours_left"] = left * seconds / max(updates, 1) / 3600
        if self.precision.scaler:
            line["loss_scale"] = self.precision.loss_scale
        if self.device.type == "cuda":
            line["gb_max"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        self.log.line("train_inner", line)

    def stop_now(self) -> Stop | None:
        """Whether the update just done is the last one: at a limit, or at once because somebody waits."""
        if self.interrupted():
            return Stop.AT_ONCE
        return Stop.AT_LIMIT if self.reason_to_stop() else None

    def reason_to_stop(self) -> str:
        """Why the run must end before the next update, the same on every rank; empty to go on."""
        return (
            limit_reached(self.cfg.optimization, self.progress, self.rate)
            or self.selection.exhausted
            or self.interrupted()
        )

    def interrupted(self) -> str:
        """A signal or the time limit, as soon as one rank has noticed it."""
        hours = self.cfg.optimization.stop_time_hours
        over_time = 0 < hours < self.seconds / 3600
        if not self.world.any(bool(self.signals.received) or over_time):
            return ""
        return f"optimization.stop_time_hours={hours} is over" if over_time else f"signal {self.signals.name}"

    @property
    def seconds(self) -> float:
        """Training time of this run and of the ones it continues."""
        return self.progress.train_seconds + (self.clock.elapsed() if self.clock else 0.0)

    def watch_nonfinite(self, batch: Batch) -> None:
        """Abort after too many skipped updates in a row; a GPU is asked only once in that many."""
        limit = self.cfg.common.max_nonfinite_updates
        if self.progress.num_updates % limit and self.device.type != "cpu":
            return
        if int(self.skips[1]) >= limit:
            batch = self.task.prepare(batch.to(self.device), is_train=True)
            seed_batch(self.cfg.common.seed, batch.keys.epoch, batch.batch_index)
            where = first_nonfinite(
                self.model, lambda: self.task.train_step(self.model, self.criterion, batch)
            )
            raise FloatingPointError(
                f"{limit} updates in a row, up to {self.progress.num_updates}, had a non-finite gradient"
                f"{f', first seen in {where}' if where else ''}; "
                f"the last good checkpoint is {self.folder.last() or 'none'}; lower optimization.lr, set "
                "optimization.clip_norm or check the data"
            )

    # Validation and checkpoints ---------------------------------------------------------------------------

    def validate_and_save(self, epoch: int, *, is_epoch_end: bool, stop: Stop | None) -> None:
        """Validate and save when the intervals say so, in that order.

        A validation that only the end of a run asks for is left out of what is saved of the selection: the
        run may go on from here, and must then count as one that was never stopped.
        """
        due = what_is_due(
            self.cfg.dataset,
            self.cfg.checkpoint,
            num_updates=self.progress.num_updates,
            epoch=epoch,
            is_epoch_end=is_epoch_end,
            stop=stop,
        )
        before = self.selection.state_dict()
        improved = self.validate(epoch) if due.validate and self.subsets else False
        self.saved_selection = before if due.only_for_stop else self.selection.state_dict()
        if due.save or improved or self.selection.exhausted:
            self.save(epoch, is_epoch_end=is_epoch_end, is_interval=due.at_interval, improved=improved)

    def validate(self, epoch: int) -> bool:
        """Run every validation subset; True when the first one's selection metric is the best so far."""
        improved = False
        for subset in self.subsets:
            values = self.evaluate(subset, self.cfg.dataset.max_valid_steps)
            line = {"epoch": epoch, "num_updates": self.progress.num_updates, **values}
            if subset == self.subsets[0]:
                improved = self.selection.see(values)
                self.results = values
                line[f"best_{self.cfg.checkpoint.best_checkpoint_metric}"] = self.selection.best
            self.log.line(subset, line)
        return improved

    def evaluate(self, subset: str, max_batches: int | None) -> dict[str, float]:
        """Losses (bits) and metrics on a subset."""
        fixed = self.cfg.dataset.fixed_validation_seed
        values = evaluate_subset(
            self.task,
            self.model,
            self.criterion,
            subset,
            world=self.world,
            precision=self.precision,
            seed=self.cfg.common.seed if fixed is None else fixed,
            max_batches=max_batches,
        )
        return in_bits(values)

    def check_selection(self) -> None:
        """Refuse a selection metric that nobody logs before the first update: one batch tells the names."""
        if self.subsets and self.cfg.checkpoint.best_checkpoint_metric != "loss":
            self.selection.check(self.evaluate(self.subsets[0], max_batches=1))

    def save(self, epoch: int, *, is_epoch_end: bool, is_interval: bool, improved: bool) -> None:
        """Write one checkpoint folder and the links it deserves; only the main process writes."""
        cfg, updates = self.cfg.checkpoint, self.progress.num_updates
        if cfg.no_save or updates == self.last_saved:
            return
        self.last_saved = updates
        if int(self.skips[1]):
            # The newest updates changed nothing: the state is that of the last good one, and worth keeping.
            self.log.note(f"the last {int(self.skips[1])} updates were skipped for a non-finite gradient")
        links = [] if cfg.no_last_checkpoints else ["checkpoint_last"]
        if is_epoch_end and not cfg.no_epoch_checkpoints and epoch % cfg.save_interval == 0:
            links.append(f"checkpoint{epoch}")
        if is_interval and not is_epoch_end:
            links.append(f"checkpoint_{epoch}_{updates}")
        if improved:
            links.append("checkpoint_best")
            if cfg.keep_best_checkpoints > 0:
                links.append(
                    f"checkpoint.best_{cfg.best_checkpoint_metric}_{self.selection.best:.6g}_u{updates}"
                )
        if self.world.is_main:
            self.folder.save(
                tensors=self.model.state_dict(),
                optimizer=None if cfg.no_save_optimizer_state else self.optimizer.state_dict(),
                state=self.state_dict(),
                config={**self.cfg.to_dict(), **self.meta.to_dict()},
                links=links,
            )
        self.world.barrier()

    @property
    def meta(self) -> CheckpointMeta:
        return CheckpointMeta(
            contract=self.task.contract,
            label_names=list(self.task.label_names),
            thresholds=None,
            sources=sorted(self.earlier_sources | {*self.task.sources(self.cfg.dataset.train_subset)}),
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything besides weights and optimizer that an exact resume needs."""
        return {
            **self.progress.state_dict(),
            "train_seconds": self.seconds,
            "skips": self.skips.tolist(),
            "scaler": self.precision.state_dict(),
            "selection": self.saved_selection,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.progress.load_state_dict(state)
        self.skips = torch.tensor(state["skips"], device=self.device)
        self.precision.load_state_dict(state["scaler"])
        self.selection.load_state_dict(state["selection"])
        self.saved_selection = self.selection.state_dict()
        self.last_saved = self.progress.num_updates

    def announce(self) -> None:
        """Say what is about to be trained, on what, and how large one update is."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        trainable = sum(parameter.numel() for parameter in self.optimizer.parameters)
        # Parameters and gradients in float32 and two moments: what no choice of batch size can make smaller.
        gigabytes = (4 * parameters + 12 * trainable) / 2**30
        freq = self.cfg.optimization.update_freq[0]
        self.log.note(
            f"{self.cfg.model.name}: {parameters:,} parameters, {trainable:,} trained, {self.precision.name} "
            f"on {self.world.size} x {self.device.type}; {gigabytes:.2f} GiB per process "
            "before activations"
        )
        if self.built.report is not None:
            self.log.note(f"{self.cfg.model.config.model_path}: {self.built.report}")
        self.log.note(f"one update: {self.task.describe_batch(self.world.size, freq)}")
