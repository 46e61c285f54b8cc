"""What every method must do under the trainer: resume and reload exactly, survive a kill, train in bf16."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairseq_ecg.config import RunConfig
from fairseq_ecg.trainer.checkpoint import load_model, read_optimizer, read_state, read_tensors
from fairseq_ecg.trainer.trainer import Trainer
from tests.training import METHODS, ROOT


def trained(cfg: RunConfig) -> Path:
    """Run a config; its last checkpoint."""
    Trainer.from_config(cfg).run()
    return Path(cfg.checkpoint.save_dir) / "checkpoints" / "checkpoint_last"


def assert_same_state(one: Path, other: Path) -> None:
    """Weights, moments, counters and selection are equal bit for bit."""
    ours, theirs = read_tensors(one), read_tensors(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    ours, theirs = read_optimizer(one), read_optimizer(other)
    assert ours.keys() == theirs.keys()
    for name, moments in ours.items():
        assert all(torch.equal(moments[key], theirs[name][key]) for key in moments), name
    mine, yours = read_state(one), read_state(other)
    for state in (mine, yours):
        state.pop("train_seconds")
    assert mine == yours


@pytest.mark.parametrize("update_freq", [1, 2])
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("method", METHODS)
def test_resuming_inside_an_epoch_equals_never_stopping(
    method, num_workers, update_freq, manifest_dir, tmp_path
):
    options = [f"dataset.num_workers={num_workers}", f"optimization.update_freq=[{update_freq}]"]
    total = ["optimization.max_update=9"]
    whole = trained(METHODS[method](manifest_dir, tmp_path / "whole", *options, *total))
    trained(METHODS[method](manifest_dir, tmp_path / "parts", *options, "optimization.max_update=4"))
    middle = read_state(tmp_path / "parts" / "checkpoints" / "checkpoint_last")
    assert middle["batches_done"] > 0, "the stop must lie inside an epoch"
    parts = trained(METHODS[method](manifest_dir, tmp_path / "parts", *options, *total))
    assert_same_state(whole, parts)


@pytest.mark.parametrize("method", METHODS)
def test_resuming_at_an_epoch_end_equals_never_stopping(method, manifest_dir, tmp_path):
    whole = trained(METHODS[method](manifest_dir, tmp_path / "whole", "optimization.max_epoch=2"))
    trained(METHODS[method](manifest_dir, tmp_path / "parts", "optimization.max_epoch=1"))
    parts = trained(METHODS[method](manifest_dir, tmp_path / "parts", "optimization.max_epoch=2"))
    assert_same_state(whole, parts)


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_reloads_bitwise_without_data_or_task(method, manifest_dir, tmp_path):
    cfg = METHODS[method](manifest_dir, tmp_path, "optimization.max_update=2")
    trainer = Trainer.from_config(cfg)
    trainer.run()
    loaded = load_model(tmp_path)
    assert loaded.num_updates == 2
    assert loaded.contract == trainer.task.contract
    assert not loaded.report.missing
    assert not loaded.report.unexpected
    own = trainer.model.eval().state_dict()
    assert all(torch.equal(value, own[name]) for name, value in loaded.model.state_dict().items())
    source = torch.randn(2, 12, 500, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, actual = trainer.model.encode(source), loaded.model.encode(source)
    assert torch.equal(expected.frames, actual.frames)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_every_trainable_parameter(method, manifest_dir, tmp_path):
    trainer = Trainer.from_config(METHODS[method](manifest_dir, tmp_path, "model.encoder_layerdrop=0.0"))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with trainer.task.loader("train", epoch=1, is_train=True) as loader:
        for batch in loader:
            trainer.update([batch])
    unchanged = [
        name
        for name, parameter in trainer.model.named_parameters()
        if parameter.requires_grad and torch.equal(before[name], parameter)
    ]
    assert unchanged == []


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_half_precisions_follow_fp32(method, precision, manifest_dir, tmp_path):
    """One update's gradient norm differs from fp32's by the rounding of the forward pass only."""
    norms = {}
    for name in ("fp32", precision):
        options = [f"common.{name}=true"] if name != "fp32" else []
        cfg = METHODS[method](manifest_dir, tmp_path / name, "optimization.max_update=1", *options)
        Trainer.from_config(cfg).run()
        line = json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[2])
        assert line["kind"] == "train_inner"
        assert line["skipped"] == 0
        norms[name] = line["gnorm"]
    assert norms[precision] == pytest.approx(norms["fp32"], rel=0.1)


def test_killed_while_saving_a_run_resumes_from_a_whole_checkpoint(manifest_dir, tmp_path):
    """Twenty kills at different points of a save, each followed by a resume (see kill_while_saving.py)."""
    script = "tests.conformance.kill_while_saving"
    done = subprocess.run(
        [sys.executable, "-m", script, str(manifest_dir), str(tmp_path), "20"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("killed at") == 20
    assert "resumed from" in done.stdout


def test_a_skipped_update_leaves_the_weights_and_is_counted(manifest_dir, tmp_path):
    trainer = Trainer.from_config(METHODS["diagnosis"](manifest_dir, tmp_path))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with trainer.task.loader("train", epoch=1, is_train=True) as loader:
        batch = next(loader)
    bad: Tensor = torch.full((len(batch), 12, 500), torch.nan)
    trainer.update([replace(batch, source=bad)])
    assert [float(value) for value in trainer.skips] == [1.0, 1.0]
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    trainer.update([batch])
    assert [float(value) for value in trainer.skips] == [1.0, 0.0]
    assert trainer.progress.num_updates == 2


def test_a_streak_of_bad_updates_aborts_and_keeps_the_last_good_checkpoint(manifest_dir, tmp_path):
    trained(METHODS["diagnosis"](manifest_dir, tmp_path, "optimization.max_update=1"))
    good = read_tensors(tmp_path / "checkpoints" / "checkpoint_last")
    cfg = METHODS["diagnosis"](manifest_dir, tmp_path, "common.max_nonfinite_updates=3")
    trainer = Trainer.from_config(cfg)
    prepare = trainer.task.prepare

    def poisoned(batch, *, is_train):
        batch = prepare(batch, is_train=is_train)
        return replace(batch, source=batch.source * torch.nan)

    trainer.task.prepare = poisoned
    with pytest.raises(
        FloatingPointError, match=r"3 updates in a row.*the input of encoder.feature_extractor.*u0000001"
    ):
        trainer.run()
    kept = read_tensors(tmp_path / "checkpoints" / "checkpoint_last")
    assert all(torch.equal(kept[name], good[name]) for name in good)
