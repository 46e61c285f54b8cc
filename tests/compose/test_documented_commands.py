"""Every override and folder in the documents of fairseq-signals and ECG-FM does what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairseq_ecg.compose import load_config
from fairseq_ecg.config import LogFormat, RunConfig

PRETRAINING = ["--config-dir", "/x/examples/w2v_clocs/config/pretraining", "--config-name", "w2v_cmsc_rlm"]
DIAGNOSIS = [
    "--config-dir",
    "/x/examples/w2v_cmsc/config/finetuning/ecg_transformer",
    "--config-name",
    "diagnosis",
]
POS_WEIGHT = [1.5 + i for i in range(26)]

ROWS = [
    (PRETRAINING, "task.data=manifests/cmsc", "task.data", "manifests/cmsc"),
    (DIAGNOSIS, "task.num_labels=9", "model.num_labels", 9),
    (DIAGNOSIS, "+task.label_file=labels/y.npy", "task.label_file", "labels/y.npy"),
    (DIAGNOSIS, "model.model_path=a/checkpoint_last.pt", "model.model_path", "a/checkpoint_last.pt"),
    (DIAGNOSIS, "model.num_labels=17", "model.num_labels", 17),
    (DIAGNOSIS, "criterion.report_cinc_score=True", "criterion.report_cinc_score", True),
    (DIAGNOSIS, "criterion.weights_file=weights.csv", "criterion.weights_file", "weights.csv"),
    (
        DIAGNOSIS,
        f"+criterion.pos_weight=[{','.join(map(str, POS_WEIGHT))}]",
        "criterion.pos_weight",
        POS_WEIGHT,
    ),
    (DIAGNOSIS, "dataset.valid_subset=valid", "dataset.valid_subsets", ["valid"]),
    (DIAGNOSIS, "dataset.valid_subset=test", "dataset.valid_subsets", ["test"]),
    (DIAGNOSIS, "dataset.valid_subset=valid,test", "dataset.valid_subsets", ["valid", "test"]),
    (DIAGNOSIS, "dataset.valid_subset=", "dataset.valid_subsets", []),
    (DIAGNOSIS, "dataset.batch_size=256", "dataset.batch_size", 256),
    (DIAGNOSIS, "dataset.num_workers=3", "dataset.num_workers", 3),
    (PRETRAINING, "dataset.disable_validation=false", "dataset.disable_validation", False),
    (DIAGNOSIS, "dataset.disable_validation=true", "dataset.disable_validation", True),
    (
        DIAGNOSIS,
        "distributed_training.distributed_world_size=4",
        "distributed_training.distributed_world_size",
        4,
    ),
    (
        DIAGNOSIS,
        "distributed_training.find_unused_parameters=True",
        "distributed_training.find_unused_parameters",
        True,
    ),
    (PRETRAINING, "optimization.update_freq=[2]", "optimization.update_freq", [2]),
    (DIAGNOSIS, "optimization.lr=[1e-06]", "optimization.lr", [1e-6]),
    (DIAGNOSIS, "optimization.lr=[1e-25]", "optimization.lr", [1e-25]),
    (DIAGNOSIS, "optimization.lr=1e-6", "optimization.lr", [1e-6]),
    (DIAGNOSIS, "optimization.max_epoch=140", "optimization.max_epoch", 140),
    (DIAGNOSIS, "optimization.max_update=1", "optimization.max_update", 1),
    (DIAGNOSIS, "checkpoint.save_dir=runs/x", "checkpoint.save_dir", "runs/x"),
    (DIAGNOSIS, "checkpoint.save_interval=10", "checkpoint.save_interval", 10),
    (DIAGNOSIS, "checkpoint.save_interval_updates=1", "checkpoint.save_interval_updates", 1),
    (DIAGNOSIS, "checkpoint.keep_last_epochs=0", "checkpoint.keep_last_epochs", 0),
    (DIAGNOSIS, "checkpoint.restore_file=b/checkpoint3.pt", "checkpoint.restore_file", "b/checkpoint3.pt"),
    (DIAGNOSIS, "common.log_format=csv", "common.log_format", LogFormat.CSV),
    (DIAGNOSIS, "common_eval.path=c.pt", "common_eval.path", "c.pt"),
    (DIAGNOSIS, "common_eval.results_path=out", "common_eval.results_path", "out"),
    (
        DIAGNOSIS,
        "common_eval.extract=[output,encoder_out,saliency]",
        "common_eval.extract",
        ["output", "encoder_out", "saliency"],
    ),
    (DIAGNOSIS, "common_eval.extract=[encoder_out]", "common_eval.extract", ["encoder_out"]),
    (
        DIAGNOSIS,
        "common_eval.model_overrides={'model_path': None}",
        "common_eval.model_overrides",
        "{'model_path': None}",
    ),
    (DIAGNOSIS, "dataset.fixed_validation_seed=1", "dataset.fixed_validation_seed", 1),
    (PRETRAINING, "optimizer.adam_betas=(0.9, 0.98)", "optimizer.adam_betas", [0.9, 0.98]),
]


def value_of(cfg: RunConfig, key: str) -> Any:
    group, name = key.split(".")
    holder = getattr(cfg, group)
    return getattr(getattr(holder, "config", holder), name)


@pytest.mark.parametrize(
    ("recipe", "override", "key", "expected"), ROWS, ids=[row[1].partition("=[")[0] for row in ROWS]
)
def test_a_documented_override_does_what_it_says(recipe, override, key, expected):
    for argv in ([override, *recipe], [*recipe, override]):
        assert value_of(load_config(argv), key) == expected


def test_the_pretraining_recipe_has_the_values_of_the_released_one():
    cfg = load_config(["--config-name", "w2v_cmsc_rlm"])
    assert (cfg.task.name, cfg.model.name, cfg.criterion.name) == (
        "ecg_pretraining",
        "wav2vec2_cmsc",
        "wav2vec2_with_cmsc",
    )
    expected = {
        "common.log_format": LogFormat.JSON,
        "common.log_interval": 10,
        "checkpoint.keep_last_epochs": 1,
        "task.perturbation_mode": ["random_leads_masking"],
        "task.p": [1.0],
        "task.mask_leads_selection": "random",
        "task.mask_leads_prob": 0.5,
        "task.enable_padding": True,
        "dataset.num_workers": 6,
        "dataset.batch_size": 64,
        "dataset.valid_subset": "",
        "dataset.disable_validation": True,
        "distributed_training.distributed_world_size": 4,
        "criterion.infonce": True,
        "criterion.log_keys": ["prob_perplexity", "code_perplexity", "temp"],
        "criterion.loss_weights": [0.1, 10.0],
        "optimization.max_epoch": 200,
        "optimization.lr": [5e-5],
        "optimization.update_freq": [2],
        "optimizer.adam_betas": [0.9, 0.98],
        "optimizer.adam_eps": 1e-6,
        "optimizer.weight_decay": 0.01,
        "lr_scheduler.warmup_updates": 0,
        "model.apply_mask": True,
        "model.mask_prob": 0.65,
        "model.quantize_targets": True,
        "model.final_dim": 256,
        "model.dropout_input": 0.1,
        "model.dropout_features": 0.1,
        "model.feature_grad_mult": 0.1,
        "model.encoder_embed_dim": 768,
        "model.encoder_layers": 12,
        "model.encoder_layerdrop": 0.0,
        "model.in_d": 12,
    }
    assert {key: value_of(cfg, key) for key in expected} == expected


def test_the_diagnosis_recipe_has_the_values_of_the_released_one():
    cfg = load_config(["--config-name", "diagnosis"])
    assert (cfg.task.name, cfg.model.name, cfg.criterion.name) == (
        "ecg_classification",
        "ecg_transformer_classifier",
        "binary_cross_entropy_with_logits",
    )
    expected = {
        "common.log_format": LogFormat.JSON,
        "common.log_interval": 10,
        "checkpoint.keep_last_epochs": 1,
        "task.enable_padding": True,
        "dataset.num_workers": 6,
        "dataset.batch_size": 128,
        "dataset.valid_subset": "valid,test",
        "criterion.report_auc": True,
        "criterion.report_cinc_score": False,
        "criterion.weights_file": None,
        "optimization.max_epoch": 100,
        "optimization.max_update": 320000,
        "optimization.lr": [5e-5],
        "optimizer.adam_betas": [0.9, 0.98],
        "optimizer.adam_eps": 1e-8,
        "lr_scheduler.warmup_updates": 0,
        "model.num_labels": 26,
        "model.dropout": 0.0,
        "model.attention_dropout": 0.0,
        "model.activation_dropout": 0.1,
        "model.feature_grad_mult": 0.0,
        "model.freeze_finetune_updates": 0,
    }
    assert {key: value_of(cfg, key) for key in expected} == expected


def test_the_sizes_differ_from_the_base_recipe_in_their_model_alone():
    base = load_config(["--config-name", "w2v_cmsc_rlm"]).to_dict()
    small = load_config(["--config-name", "w2v_cmsc_rlm_small"]).to_dict()
    large = load_config(["--config-name", "w2v_cmsc_rlm_large"])
    assert small == base | {"model": base["model"] | {"encoder_layers": 8}}
    segments = [
        cfg.dataset.batch_size
        * 2
        * cfg.distributed_training.distributed_world_size
        * cfg.optimization.update_freq[0]
        for cfg in (load_config(["--config-name", "w2v_cmsc_rlm"]), large)
    ]
    assert segments == [1024, 1024]
    model = large.model.config
    assert (model.encoder_layers, model.encoder_embed_dim, model.encoder_ffn_embed_dim) == (24, 1024, 4096)


@pytest.mark.parametrize(
    "config_dir",
    ["/x/examples/w2v_clocs/config/finetuning", "/x/examples/w2v_cmsc/config/finetuning/ecg_transformer"],
)
def test_both_eras_of_the_fine_tuning_folder_lead_to_one_recipe(config_dir):
    packaged = load_config(["--config-name", "diagnosis"])
    assert load_config(["--config-dir", config_dir, "--config-name", "diagnosis"]) == packaged


def test_relative_paths_stay_relative_to_the_working_directory(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(["task.data=../manifests", "checkpoint.save_dir=runs", *PRETRAINING])
    assert (cfg.task.config.data, cfg.checkpoint.save_dir) == ("../manifests", "runs")
    assert list(tmp_path.iterdir()) == []
