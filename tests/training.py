"""Run configs small enough for tests, made through the same front door as a user's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fairseq_ecg.compose import load_config
from fairseq_ecg.config import RunConfig
from tests.tiny_data import NUM_LABELS

ROOT = Path(__file__).resolve().parent.parent

TINY_MODEL = (
    "model.encoder_layers=2",
    "model.encoder_embed_dim=16",
    "model.encoder_ffn_embed_dim=32",
    "model.encoder_attention_heads=2",
    "model.conv_feature_layers=[(8, 2, 2)] * 4",
    "model.conv_pos=4",
    "model.conv_pos_groups=2",
)
TINY_RUN = (
    "dataset.batch_size=3",
    "dataset.num_workers=0",
    "distributed_training.distributed_world_size=1",
    "optimization.update_freq=[1]",
    "optimization.lr=[1e-3]",
    "common.log_format=none",
    "common.log_interval=1",
    "common.cpu=true",
)


def pretraining(data: Path, save_dir: Path, *overrides: str) -> RunConfig:
    """W2V+CMSC+RLM with every draw on: dropouts, masks, negatives, Gumbel noise, lead masks."""
    return load_config(
        [
            "--config-name=w2v_cmsc_rlm",
            f"task.data={data}",
            f"checkpoint.save_dir={save_dir}",
            *TINY_MODEL,
            *TINY_RUN,
            "model.latent_vars=6",
            "model.final_dim=8",
            "model.num_negatives=5",
            "model.mask_length=3",
            *overrides,
        ]
    )


def diagnosis(data: Path, save_dir: Path, *overrides: str) -> RunConfig:
    """Fine-tuning of a classifier on the tiny labels."""
    return load_config(
        [
            "--config-name=diagnosis",
            f"task.data={data}",
            f"checkpoint.save_dir={save_dir}",
            *TINY_MODEL,
            *TINY_RUN,
            f"model.num_labels={NUM_LABELS}",
            "model.feature_grad_mult=0.1",
            *overrides,
        ]
    )


METHODS: dict[str, Callable[..., RunConfig]] = {"w2v_cmsc_rlm": pretraining, "diagnosis": diagnosis}
"""Every recipe the conformance tests run."""
