"""The loss scaler's rules one by one; whole traces are compared in the golden checks."""

import math

import pytest
import torch

from fairseq_ecg.config import CommonConfig
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.trainer.precision import LossScaler, Precision

CPU = torch.device("cpu")


def test_scale_doubles_after_a_window_without_overflow():
    scaler = LossScaler(scale=8.0, scale_window=3)
    scales = []
    for _ in range(6):
        assert not scaler.update(1.0)
        scales.append(scaler.scale)
    assert scales == [8.0, 8.0, 16.0, 16.0, 16.0, 32.0]


@pytest.mark.parametrize("norm", [math.inf, math.nan])
def test_overflow_halves_the_scale_and_skips(norm):
    scaler = LossScaler(scale=8.0)
    assert scaler.update(norm)
    assert scaler.scale == 4.0


def test_tolerated_overflows_skip_without_halving():
    scaler = LossScaler(scale=8.0, tolerance=0.5)
    for _ in range(4):
        scaler.update(1.0)
    assert scaler.update(math.inf)
    assert scaler.scale == 8.0


def test_the_floor_keeps_the_scale():
    scaler = LossScaler(scale=4.0, threshold=4.0)
    assert scaler.update(math.inf)
    assert scaler.scale == 4.0


def test_a_vanishing_scale_is_fatal_and_says_what_to_do():
    scaler = LossScaler(scale=2.0, min_loss_scale=1.0)
    with pytest.raises(FloatingPointError, match="bf16"):
        scaler.update(math.inf)
    assert scaler.scale == 2.0


def test_scaler_state_restores_its_future():
    scaler = LossScaler(scale=8.0, scale_window=3)
    norms = [1.0, math.inf, 1.0, 1.0, 1.0, 1.0, math.inf, 1.0]
    for norm in norms[:3]:
        scaler.update(norm)
    twin = LossScaler(scale=1.0, scale_window=3)
    twin.load_state_dict(scaler.state_dict())
    for norm in norms[3:]:
        assert scaler.update(norm) == twin.update(norm)
        assert scaler.scale == twin.scale


@pytest.mark.parametrize(
    ("options", "name", "dtype"),
    [
        ({}, "fp32", torch.float32),
        ({"bf16": True}, "bf16", torch.bfloat16),
        ({"fp16": True}, "fp16", torch.float16),
        ({"amp": True}, "fp16", torch.float16),
    ],
)
def test_autocast_runs_products_in_the_asked_for_type(options, name, dtype):
    precision = Precision(CommonConfig(**options), device=CPU, world_size=1, update_freq=[1])
    assert precision.name == name
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype


def test_window_follows_world_size_and_update_freq():
    cfg = CommonConfig(fp16=True)
    precision = Precision(cfg, device=CPU, world_size=4, update_freq=[2])
    assert precision.scaler is not None
    assert precision.scaler.scale_window == 2**14 // 8
    with pytest.raises(ConfigError, match="fp16_scale_window"):
        Precision(cfg, device=CPU, world_size=1, update_freq=[1, 2])


def test_only_fp16_lets_the_host_know_of_a_skip():
    norm = torch.tensor(math.inf)
    fp32 = Precision(CommonConfig(), device=CPU, world_size=1, update_freq=[1])
    fp16 = Precision(CommonConfig(fp16=True), device=CPU, world_size=1, update_freq=[1])
    assert [float(fp32.skip_flag(norm)[0]), fp32.skip_flag(norm)[1]] == [1.0, False]
    assert [float(fp16.skip_flag(norm)[0]), fp16.skip_flag(norm)[1]] == [1.0, True]


def test_two_half_precisions_are_refused():
    with pytest.raises(ConfigError, match="exclude each other"):
        CommonConfig(fp16=True, bf16=True)
