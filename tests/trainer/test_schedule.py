"""Schedules against their formulas, evaluated from the words of the reference's documentation."""

import math

import pytest

from fairseq_ecg.errors import ConfigError
from fairseq_ecg.trainer.schedule import (
    FixedSchedule,
    FixedScheduleConfig,
    StepSchedule,
    StepScheduleConfig,
    TriStageSchedule,
    TriStageScheduleConfig,
)


def test_fixed_takes_the_epochs_rate_and_repeats_the_last():
    schedule = FixedSchedule(FixedScheduleConfig(), lr=[3e-4, 2e-4], max_update=0)
    assert [schedule.rate(7, epoch) for epoch in (1, 2, 3, 9)] == [3e-4, 2e-4, 2e-4, 2e-4]


def test_fixed_warms_up_from_the_first_update_on():
    schedule = FixedSchedule(FixedScheduleConfig(warmup_updates=4), lr=[1.0], max_update=0)
    assert [schedule.rate(update, 1) for update in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_fixed_anneals_from_the_forced_epoch():
    schedule = FixedSchedule(FixedScheduleConfig(force_anneal=3, lr_shrink=0.1), lr=[1.0, 0.5], max_update=0)
    assert [schedule.rate(0, epoch) for epoch in (1, 2, 3, 4)] == pytest.approx(
        [1.0, 0.5, 0.05, 0.005], rel=1e-12
    )


def test_tri_stage_meets_its_three_corners():
    cfg = TriStageScheduleConfig(phase_ratio=[0.1, 0.2, 0.7], init_lr_scale=0.01, final_lr_scale=0.05)
    schedule = TriStageSchedule(cfg, lr=[2.0], max_update=100)
    assert schedule.rate(0, 1) == pytest.approx(0.02)
    assert schedule.rate(10, 1) == schedule.rate(29, 1) == 2.0
    assert schedule.rate(65, 1) == pytest.approx(2.0 * math.exp(math.log(0.05) * 35 / 70))
    assert schedule.rate(100, 1) == pytest.approx(0.1)
    assert schedule.rate(1000, 1) == pytest.approx(0.1)


def test_tri_stage_without_decay_steps_holds_its_peak_and_then_falls():
    schedule = TriStageSchedule(TriStageScheduleConfig(hold_steps=3), lr=[1.0], max_update=0)
    assert [schedule.rate(update, 1) for update in (0, 2, 3, 4)] == [1.0, 1.0, 1.0, 0.01]


def test_tri_stage_shares_must_sum_to_one():
    with pytest.raises(ConfigError, match=r"phase_ratio=\[0.1, 0.2, 0.6\].*sum to 1"):
        TriStageScheduleConfig(phase_ratio=[0.1, 0.2, 0.6])


def test_tri_stage_shares_need_a_length():
    with pytest.raises(ConfigError, match=r"needs optimization\.max_update"):
        TriStageSchedule(TriStageScheduleConfig(phase_ratio=[0.1, 0.2, 0.7]), lr=[1.0], max_update=0)


def test_step_halves_every_period_down_to_its_floor():
    cfg = StepScheduleConfig(warmup_updates=2, min_lr=0.2, lr_decay_period=3, lr_decay=0.5)
    schedule = StepSchedule(cfg, lr=[1.0], max_update=0)
    expected = [0.2, 0.6, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2]
    assert [schedule.rate(update, 1) for update in range(12)] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", [TriStageSchedule, StepSchedule])
def test_single_rate_schedules_refuse_several(schedule):
    config = TriStageScheduleConfig() if schedule is TriStageSchedule else StepScheduleConfig()
    with pytest.raises(ConfigError, match="exactly one rate"):
        schedule(config, lr=[1.0, 0.5], max_update=0)
