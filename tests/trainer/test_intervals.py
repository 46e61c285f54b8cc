"""Every interval by itself, and how they meet."""

import pytest

from fairseq_ecg.config import CheckpointConfig, DatasetConfig
from fairseq_ecg.trainer.intervals import Stop, what_is_due


def due(*, updates=7, epoch=3, end=False, stop=None, dataset=None, checkpoint=None):
    return what_is_due(
        DatasetConfig(**(dataset or {})),
        CheckpointConfig(**(checkpoint or {})),
        num_updates=updates,
        epoch=epoch,
        is_epoch_end=end,
        stop=stop,
    )


@pytest.mark.parametrize(
    ("case", "validate", "save", "at_interval"),
    [
        ({}, False, False, False),
        ({"end": True}, True, True, False),
        ({"stop": Stop.AT_LIMIT}, True, True, False),
        ({"end": True, "dataset": {"validate_interval": 2}}, False, True, False),
        ({"end": True, "checkpoint": {"save_interval": 2}}, True, False, False),
        ({"dataset": {"validate_interval_updates": 7}}, True, False, False),
        ({"updates": 8, "dataset": {"validate_interval_updates": 7}}, False, False, False),
        ({"checkpoint": {"save_interval_updates": 7}}, True, True, True),
        ({"end": True, "checkpoint": {"save_interval_updates": 7, "save_interval": 2}}, True, True, True),
        (
            {"checkpoint": {"save_interval_updates": 7}, "dataset": {"validate_after_updates": 8}},
            False,
            False,
            False,
        ),
        ({"end": True, "dataset": {"validate_after_updates": 8}}, False, True, False),
        ({"stop": Stop.AT_LIMIT, "dataset": {"validate_after_updates": 8}}, False, True, False),
    ],
)
def test_what_is_due_after_an_update(case, validate, save, at_interval):
    found = due(**case)
    assert (found.validate, found.save, found.at_interval) == (validate, save, at_interval)


def test_a_signal_saves_and_does_not_validate():
    found = due(end=True, stop=Stop.AT_ONCE, dataset={"validate_interval_updates": 7})
    assert (found.validate, found.save) == (False, True)


def test_a_validation_knows_that_only_the_end_asked_for_it():
    assert due(stop=Stop.AT_LIMIT).only_for_stop
    assert not due(stop=Stop.AT_LIMIT, end=True).only_for_stop
