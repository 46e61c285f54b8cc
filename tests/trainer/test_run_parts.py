"""Meters, logs, selection, limits and signals: the small parts of a run."""

import csv
import json
import math
import os
import signal
import sys
import types

import pytest
import torch

from fairseq_ecg.config import CheckpointConfig, CommonConfig, LogFormat, OptimizationConfig
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.trainer.distributed import World
from fairseq_ecg.trainer.log import RunLog
from fairseq_ecg.trainer.meters import Meters, in_bits
from fairseq_ecg.trainer.progress import Progress
from fairseq_ecg.trainer.seeds import derive_seed, seed_batch
from fairseq_ecg.trainer.selection import Selection
from fairseq_ecg.trainer.stopping import SignalWatch, limit_reached


def pair(total, count):
    return torch.tensor(float(total)), torch.tensor(float(count))


def test_meters_divide_sums_by_counts_once():
    meters = Meters(torch.device("cpu"))
    meters.add({"loss": pair(6, 2), "accuracy": pair(1, 4)})
    meters.add({"loss": pair(10, 6)})
    assert meters.reduce(World()) == {"loss": 2.0, "accuracy": 0.25}
    assert meters.reduce(World()) == {}


def test_a_stand_in_names_its_values_and_adds_nothing():
    meters = Meters(torch.device("cpu"))
    meters.add({"loss": pair(6, 2)}, weight=0.0)
    assert math.isnan(meters.reduce(World())["loss"])


def test_losses_are_reported_in_bits_and_the_total_in_nats_too():
    values = in_bits({"loss": math.log(2), "loss_0": 2 * math.log(2), "accuracy": 0.5})
    assert values == pytest.approx({"loss": 1.0, "loss_0": 2.0, "accuracy": 0.5, "loss_nats": math.log(2)})


def test_csv_keeps_one_header_and_appends_new_columns(tmp_path):
    log = RunLog(CommonConfig(log_format=LogFormat.NONE), tmp_path)
    log.line("train", {"num_updates": 1, "loss": 2.0})
    log.line("train", {"num_updates": 2, "loss": math.nan, "gnorm": 1.5})
    log.close()
    with (tmp_path / "train.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["num_updates", "loss", "gnorm"], ["1", "2.0", ""], ["2", "", "1.5"]]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[1] == {"kind": "train", "num_updates": 2, "loss": None, "gnorm": 1.5}


@pytest.mark.parametrize(
    ("log_format", "expected"),
    [
        (LogFormat.JSON, '{"kind": "train", "loss": 2.0}'),
        (LogFormat.SIMPLE, "train | loss 2"),
        (LogFormat.CSV, "train | loss 2"),
        (LogFormat.NONE, ""),
    ],
)
def test_lines_are_printed_in_the_asked_for_format(tmp_path, capsys, log_format, expected):
    log = RunLog(CommonConfig(log_format=log_format), tmp_path)
    log.line("train", {"loss": 2.0})
    log.close()
    assert capsys.readouterr().err.strip() == expected


def test_a_log_file_gets_the_printed_lines(tmp_path):
    log = RunLog(CommonConfig(log_format=LogFormat.NONE, log_file=str(tmp_path / "run.log")), tmp_path)
    log.note("hello")
    log.close()
    assert (tmp_path / "run.log").read_text() == "hello\n"


def test_tensorboard_files_hold_the_values(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = RunLog(
        CommonConfig(log_format=LogFormat.NONE, tensorboard_logdir=str(tmp_path / "board")), tmp_path
    )
    log.line("valid", {"num_updates": 3, "loss": 2.5})
    log.close()
    events = reader.EventAccumulator(str(tmp_path / "board")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("valid/loss")] == [(3, 2.5)]


def test_other_ranks_write_nothing(tmp_path):
    log = RunLog(CommonConfig(), tmp_path, enabled=False)
    log.note("hello")
    log.line("train", {"loss": 1.0})
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_selection_keeps_the_first_of_equals_and_counts_patience():
    selection = Selection(CheckpointConfig(patience=2))
    assert [selection.see({"loss": value}) for value in (3.0, 2.0, 2.0, 4.0)] == [True, True, True, False]
    assert selection.best == 2.0
    assert "patience=2" in selection.exhausted


def test_selection_can_maximise_and_survives_a_checkpoint():
    cfg = CheckpointConfig(best_checkpoint_metric="auroc_macro", maximize_best_checkpoint_metric=True)
    selection = Selection(cfg)
    assert [selection.see({"auroc_macro": value}) for value in (0.6, 0.7, 0.65)] == [True, True, False]
    twin = Selection(cfg)
    twin.load_state_dict(json.loads(json.dumps(selection.state_dict())))
    assert (twin.best, twin.stale) == (0.7, 1)


def test_a_metric_nobody_logs_is_refused_with_the_logged_ones():
    selection = Selection(CheckpointConfig(best_checkpoint_metric="auroc"))
    with pytest.raises(ConfigError, match=r"best_checkpoint_metric=auroc is not logged.*auroc_macro"):
        selection.see({"auroc_macro": 0.5, "loss": 1.0})


@pytest.mark.parametrize(
    ("limits", "progress", "rate", "reason"),
    [
        ({"max_update": 5}, Progress(num_updates=5), 1.0, "max_update=5"),
        ({"max_epoch": 2}, Progress(epoch=3), 1.0, "max_epoch=2"),
        ({"stop_min_lr": 1e-6}, Progress(), 1e-6, "stop_min_lr"),
        ({"max_update": 5, "max_epoch": 2}, Progress(num_updates=4, epoch=2), 1.0, ""),
        ({}, Progress(num_updates=10**9, epoch=10**6), 0.0, ""),
    ],
)
def test_limits_stop_a_run(limits, progress, rate, reason):
    stopped = limit_reached(OptimizationConfig(**limits), progress, rate)
    assert (reason in stopped) if reason else stopped == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_noted_and_handlers_given_back(number):
    before = signal.getsignal(number)
    watch = SignalWatch()
    with watch:
        os.kill(os.getpid(), number)
    assert watch.received == number
    assert watch.name == signal.Signals(number).name
    assert signal.getsignal(number) is before


def test_batch_seeds_differ_in_every_part():
    seeds = {
        derive_seed(seed, "batch", epoch, batch)
        for seed in range(4)
        for epoch in range(4)
        for batch in range(64)
    }
    assert len(seeds) == 4 * 4 * 64


def test_a_batch_seed_fixes_the_draws():
    draws = []
    for batch in (3, 4, 3):
        seed_batch(1, 2, batch)
        draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_the_progress_bar_shows_rates_and_leaves_the_lines(tmp_path, capsys):
    log = RunLog(CommonConfig(log_format=LogFormat.TQDM), tmp_path)
    log.begin_epoch(3, 10, 12)
    log.advance()
    log.line("train_inner", {"num_updates": 11, "loss": 2.0, "segments_per_sec": 1234.0})
    log.line("valid", {"num_updates": 11, "loss": 2.5})
    log.close()
    shown = capsys.readouterr().err
    assert "epoch 3" in shown
    assert "11/12" in shown
    assert "segments_per_sec=1234" in shown
    assert "valid | num_updates 11 | loss 2.5" in shown
    assert (tmp_path / "train_inner.csv").read_text().startswith("num_updates,loss,segments_per_sec\n")


def test_no_progress_bar_means_plain_lines(tmp_path):
    log = RunLog(CommonConfig(log_format=LogFormat.TQDM, no_progress_bar=True), tmp_path)
    log.close()
    assert log.format is LogFormat.SIMPLE


def test_wandb_gets_every_line(tmp_path, monkeypatch):
    calls = []
    fake = types.SimpleNamespace(
        init=lambda **options: calls.append(options) or fake,
        log=calls.append,
        finish=lambda: calls.append("finished"),
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_NAME", "a name")
    log = RunLog(CommonConfig(log_format=LogFormat.NONE, wandb_project="p", wandb_entity="e"), tmp_path)
    log.line("train", {"loss": 1.0})
    log.close()
    assert calls == [
        {"project": "p", "entity": "e", "name": "a name", "dir": str(tmp_path)},
        {"train/loss": 1.0},
        "finished",
    ]


@pytest.mark.parametrize(
    ("option", "module"),
    [("wandb_project", "wandb"), ("tensorboard_logdir", "torch.utils.tensorboard")],
)
def test_an_absent_tracker_is_one_clear_error(tmp_path, monkeypatch, option, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"{option} needs .*pip install 'fairseq-ecg\[track\]'"):
        RunLog(CommonConfig(log_format=LogFormat.NONE, **{option: "somewhere"}), tmp_path)
