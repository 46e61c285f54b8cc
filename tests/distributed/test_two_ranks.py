"""Two processes do what one does: same updates, same validation, one message per mistake, signals to all."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_ecg.cli.validate import main as validate
from fairseq_ecg.trainer.checkpoint import read_state, read_tensors
from fairseq_ecg.trainer.distributed import free_port, spawn
from fairseq_ecg.trainer.launch import launch
from tests.training import METHODS, ROOT

RANKS = "distributed_training.distributed_world_size=2"


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_do_the_updates_of_one_process(method, manifest_dir, tmp_path):
    """Dropout, LayerDrop, masks, Gumbel noise, lead masks on; epochs end raggedly (stand-ins)."""
    common = ["optimization.max_epoch=2", "dataset.batch_size=2", "optimization.clip_norm=0.5"]
    common += ["model.encoder_layerdrop=0.3"]
    one = METHODS[method](manifest_dir, tmp_path / "one", *common, "optimization.update_freq=[4]")
    two = METHODS[method](manifest_dir, tmp_path / "two", *common, "optimization.update_freq=[2]", RANKS)
    assert launch(one)[0] == launch(two)[0] == 0
    last = Path("checkpoints") / "checkpoint_last"
    assert (
        read_state(tmp_path / "one" / last)["num_updates"]
        == read_state(tmp_path / "two" / last)["num_updates"]
    )
    ours, theirs = read_tensors(tmp_path / "one" / last), read_tensors(tmp_path / "two" / last)
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=0.0, atol=1e-6, msg=name)
    subset = "valid" if method == "diagnosis" else "train"
    rows = [_last_row(tmp_path / run / f"{subset}.csv") for run in ("one", "two")]
    for name in rows[0]:
        assert float(rows[1][name]) == pytest.approx(float(rows[0][name]), rel=1e-5, abs=1e-6), name


def test_a_rank_without_a_validation_batch_adds_nothing(manifest_dir, tmp_path):
    """The subset is one micro-batch: the second rank only sees a stand-in, and states must still merge."""
    common = ["optimization.max_update=1", "dataset.batch_size=2", "dataset.batch_size_valid=64"]
    one = METHODS["diagnosis"](manifest_dir, tmp_path / "one", *common, "optimization.update_freq=[2]")
    two = METHODS["diagnosis"](manifest_dir, tmp_path / "two", *common, RANKS)
    (status, values), (status_of_two, values_of_two) = launch(one), launch(two)
    assert status == status_of_two == 0
    assert {"auroc_macro", "accuracy", "loss"} <= values.keys() == values_of_two.keys()
    for name, value in values.items():
        assert values_of_two[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_a_rank_without_a_batch_takes_part_in_an_extraction(manifest_dir, tmp_path):
    """Arrays are opened by all ranks together: one that only sees a stand-in must not be waited for."""
    cfg = METHODS["diagnosis"](manifest_dir, tmp_path / "run", "optimization.max_update=1")
    assert launch(cfg)[0] == 0
    argv = [f"common_eval.path={tmp_path / 'run'}", "dataset.valid_subset=valid", "common.cpu=true"]
    argv += ["common_eval.extract=[output,encoder_out]", "dataset.batch_size_valid=64"]
    one, two = ([*argv, f"common_eval.results_path={tmp_path / name}"] for name in ("one", "two"))
    assert validate(one) == spawn(validate, two, size=2, port=free_port(0)) == 0
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert {"encoder_out_valid.npy", "outputs_valid.npy", "rows_valid.tsv"} <= set(names)
    for name in [name for name in names if name.endswith(".npy")]:
        ours, theirs = np.load(tmp_path / "one" / name), np.load(tmp_path / "two" / name)
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_mistake_in_every_rank_is_one_error(manifest_dir, tmp_path):
    from fairseq_ecg.errors import ConfigError

    cfg = METHODS["diagnosis"](manifest_dir, tmp_path, RANKS, "model.num_labels=7")
    with pytest.raises(ConfigError, match=r"model.num_labels=7, but .* has 3 labels"):
        launch(cfg)


def test_sigterm_saves_on_all_ranks_and_exits_143(manifest_dir, tmp_path):
    command = [
        sys.executable,
        "-c",
        "from tests.training import METHODS; from fairseq_ecg.trainer.launch import launch; import sys, "
        "pathlib;"
        f"sys.exit(launch(METHODS['w2v_cmsc_rlm'](pathlib.Path({str(manifest_dir)!r}), "
        f"pathlib.Path({str(tmp_path)!r}), {RANKS!r}))[0])",
    ]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        while not (tmp_path / "train_inner.csv").exists():
            assert process.poll() is None, "the run ended by itself"
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 143
    finally:
        if process.poll() is None:
            process.kill()
    state = read_state(tmp_path / "checkpoints" / "checkpoint_last")
    assert state["num_updates"] > 0


def _last_row(path: Path) -> dict[str, str]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))[-1]
