"""When a run validates and saves: the intervals of ``dataset`` and ``checkpoint``, combined as in fairseq."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fairseq_ecg.config import CheckpointConfig, DatasetConfig


class Stop(Enum):
    """Why an update is a run's last one."""

    AT_LIMIT = "limit"
    """Planned: the run ends with a validation and a checkpoint."""
    AT_ONCE = "signal"
    """A signal or the time limit: somebody waits, so there is a checkpoint and no validation."""


@dataclass(frozen=True)
class Due:
    """What the end of an update asks for."""

    validate: bool
    save: bool
    at_interval: bool
    """Because of ``checkpoint.save_interval_updates``: the checkpoint gets a link with its update number."""
    only_for_stop: bool = False
    """A validation, if there is one, is due to the end of the run alone."""


def what_is_due(
    dataset: DatasetConfig,
    checkpoint: CheckpointConfig,
    *,
    num_updates: int,
    epoch: int,
    is_epoch_end: bool,
    stop: Stop | None,
) -> Due:
    """Decide after update ``num_updates`` of ``epoch`` (from 1).

    A save inside an epoch comes with a validation. ``validate_after_updates`` holds back validations, and
    saves by updates, until so many updates are done.
    """
    late_enough = num_updates >= dataset.validate_after_updates
    at_interval = late_enough and _is_multiple(num_updates, checkpoint.save_interval_updates)
    save = stop is not None or at_interval or (is_epoch_end and epoch % checkpoint.save_interval == 0)
    by_interval = late_enough and (
        (at_interval and not is_epoch_end)
        or (is_epoch_end and epoch % dataset.validate_interval == 0)
        or _is_multiple(num_updates, dataset.validate_interval_updates)
    )
    validate = stop is not Stop.AT_ONCE and (by_interval or (late_enough and stop is Stop.AT_LIMIT))
    return Due(validate=validate, save=save, at_interval=at_interval, only_for_stop=not by_interval)


def _is_multiple(count: int, interval: int) -> bool:
    return interval > 0 and count % interval == 0
