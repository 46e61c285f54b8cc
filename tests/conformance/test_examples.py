"""Every packaged recipe trains: two updates of a tiny model, and its checkpoint names what was trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairseq_ecg.compose import load_config
from fairseq_ecg.compose.find import display, packaged_configs
from fairseq_ecg.trainer.checkpoint import load_model, read_config, read_state, resolve
from fairseq_ecg.trainer.trainer import Trainer
from tests.tiny_data import NUM_LABELS
from tests.training import TINY_MODEL, TINY_RUN

TINY_PRETRAINING = (
    "model.latent_vars=6",
    "model.final_dim=8",
    "model.num_negatives=5",
    "model.mask_length=3",
)
TINY_FINETUNING = (f"model.num_labels={NUM_LABELS}",)


@pytest.mark.parametrize("path", packaged_configs(), ids=display)
def test_a_packaged_recipe_trains(path: Path, manifest_dir: Path, tmp_path: Path):
    stage = TINY_PRETRAINING if "pretraining" in path.parts else TINY_FINETUNING
    argv = [f"task.data={manifest_dir}", f"checkpoint.save_dir={tmp_path}", "optimization.max_update=2"]
    where = ["--config-dir", str(path.parent), "--config-name", path.stem]
    cfg = load_config([*argv, *where, *TINY_MODEL, *TINY_RUN, *stage])
    Trainer.from_config(cfg).run()
    folder = resolve(tmp_path)
    assert read_state(folder)["num_updates"] == 2
    assert read_config(folder)["model"]["_name"] == cfg.model.name
    assert not load_model(folder).report.missing
