from __future__ import annotations

import logging

import pytest
import yaml

from fairseq_ecg.compose import config_from_dict, load_config
from fairseq_ecg.compose.eras import written_by_reference
from fairseq_ecg.errors import ConfigError

SEED_PRETRAINING = """\
task: {_name: ecg_pretraining, clocs_mode: cmsc}
criterion: {_name: wav2vec2_with_clocs, infonce: true, log_keys: [temp], loss_weights: [0.1, 10]}
model: {_name: wav2vec2_clocs, encoder_layerdrop: 0.05, quantize_targets: true, final_dim: 256}
"""

SEED_DIAGNOSIS = """\
task: {_name: multi_label_classification, num_labels: 26}
criterion: {_name: binary_cross_entropy_with_logits}
model:
  _name: linear_projection
  apply_mask: false
  mask_prob: 0.65
  mask_channel_prob: 0.5
  mask_channel_length: 64
  encoder_layerdrop: 0.1
"""

REFERENCE = """\
common:
  _name: null
  no_progress_bar: false
  log_interval: 10
  log_format: json
  seed: 1
  fp16: false
  memory_efficient_fp16: false
  fp16_no_flatten_grads: false
  on_cpu_convert_precision: false
  all_gather_list_size: 2048000
  model_parallel_size: 1
  profile: false
common_eval: {_name: null, path: null, model_overrides: '{}', extract: null}
distributed_training: {distributed_world_size: 4, heartbeat_timeout: -1, fp16: '${common.fp16}'}
dataset: {num_workers: 6, batch_size: 64, batch_size_valid: '${dataset.batch_size}', num_shards: 1}
optimization: {max_epoch: 200, lr: [5e-05], update_freq: [2]}
checkpoint: {save_dir: checkpoints, checkpoint_suffix: '', checkpoint_shard_count: 1}
generation: {beam: 5}
task:
  _name: ecg_pretraining
  data: /somewhere
  normalize: false
  filter: false
  num_batch_buckets: 0
  precompute_mask_indices: false
  perturbation_mode: [random_leads_masking]
  p: [1.0]
  criterion_name: '${criterion._name}'
criterion:
  _name: wav2vec2_with_cmsc
  infonce: true
  loss_weights: [0.1, 10]
  all_gather: '${model.all_gather}'
optimizer:
  _name: adam
  adam_betas: '(0.9, 0.98)'
  adam_eps: 1e-06
  use_old_adam: false
  lr: '${optimization.lr}'
lr_scheduler: {_name: fixed, warmup_updates: 0, lr: '${optimization.lr}', force_anneal: null}
model:
  _name: wav2vec2_cmsc
  apply_mask: true
  mask_prob: 0.65
  quantize_targets: true
  final_dim: 256
  latent_temp: '(2, 0.5, 0.999995)'
  all_gather: false
  normalize: '${task.normalize}'
  filter: '${task.filter}'
  data: '${task.data}'
  args: null
  something_new: 3
job_logging_cfg: {version: 1}
"""


@pytest.fixture
def write(tmp_path):
    """Write a config and return the command line that names it."""

    def write(text: str) -> list[str]:
        (tmp_path / "era.yaml").write_text(text)
        return ["--config-dir", str(tmp_path), "--config-name", "era"]

    return write


def test_a_pretraining_config_of_the_seed_era_brings_its_defaults(write, caplog):
    cfg = load_config(write(SEED_PRETRAINING))
    assert (cfg.model.name, cfg.criterion.name) == ("wav2vec2_cmsc", "wav2vec2_with_cmsc")
    model = cfg.model.config
    assert (model.apply_mask, model.mask_prob, model.encoder_layerdrop) == (True, 0.65, 0.05)
    assert "'wav2vec2_clocs' is called 'wav2vec2_cmsc' today, with that era's apply_mask=True" in caplog.text


def test_what_the_config_says_wins_over_its_eras_defaults(write):
    cfg = load_config([*write(SEED_PRETRAINING), "model.mask_prob=0.4", "model.encoder_layerdrop=0"])
    assert (cfg.model.config.mask_prob, cfg.model.config.encoder_layerdrop) == (0.4, 0.0)


def test_a_diagnosis_config_of_the_seed_era_is_todays_classifier(write):
    cfg = load_config(write(SEED_DIAGNOSIS))
    assert (cfg.task.name, cfg.model.name) == ("ecg_classification", "ecg_transformer_classifier")
    model = cfg.model.config
    assert (model.num_labels, model.encoder_layerdrop, model.mask_channel_length) == (26, 0.1, 64)


@pytest.mark.parametrize(
    ("override", "expected"),
    [("task.num_labels=9", 9), ("model.num_labels=9", 9), ("+task.num_labels=9", 9)],
)
def test_the_command_line_sets_the_number_of_labels_under_either_name(write, override, expected):
    assert load_config([*write(SEED_DIAGNOSIS), override]).model.config.num_labels == expected
    assert load_config(["--config-name", "diagnosis", override]).model.config.num_labels == expected


def test_contradicting_numbers_of_labels_are_refused(write):
    with pytest.raises(ConfigError, match=r"task\.num_labels=3 contradicts model\.num_labels=4"):
        load_config([*write(SEED_DIAGNOSIS), "task.num_labels=3", "model.num_labels=4"])


def test_names_of_the_seed_era_work_as_overrides():
    cfg = load_config(
        ["--config-name", "diagnosis", "task=multi_label_classification", "model=linear_projection"]
    )
    assert (cfg.task.name, cfg.model.name) == ("ecg_classification", "ecg_transformer_classifier")


def test_other_modes_ask_for_the_criterion_of_that_name(write):
    with pytest.raises(ConfigError, match="wav2vec2_with_cmlc"):
        load_config([*write(SEED_PRETRAINING), "task.clocs_mode=cmlc"])
    with pytest.raises(ConfigError, match=r"task\.clocs_mode='cmsx': one of cmsc, cmlc, cmsmlc"):
        load_config([*write(SEED_PRETRAINING), "task.clocs_mode=cmsx"])


def test_the_misspelt_period_of_the_step_schedule_is_understood():
    argv = ["--config-name", "w2v_cmsc_rlm", "lr_scheduler=step", "lr_scheduler.lr_deacy_period=7"]
    assert load_config(argv).lr_scheduler.config.lr_decay_period == 7


def test_a_complete_config_of_the_reference_is_read_and_what_is_obsolete_told(write, caplog):
    assert written_by_reference(yaml.safe_load(REFERENCE))
    with caplog.at_level(logging.WARNING):
        cfg = load_config(write(REFERENCE))
    assert cfg.dataset.batch_size_valid == 64
    assert cfg.optimizer.config.adam_betas == [0.9, 0.98]
    assert cfg.model.config.latent_temp == [2.0, 0.5, 0.999995]
    for told in ("model_parallel_size=1", "heartbeat_timeout=-1", "'generation'", "something_new=3"):
        assert told in caplog.text
    assert "optimizer: lr" not in caplog.text


def test_a_stored_config_of_the_reference_is_read_as_a_dict():
    cfg = config_from_dict(yaml.safe_load(REFERENCE), source="checkpoint.pt")
    assert cfg.model.config.final_dim == 256


def test_a_key_typed_beside_a_complete_config_is_still_checked(write):
    with pytest.raises(ConfigError, match=r"model\.something_old on the command line"):
        load_config([*write(REFERENCE), "+model.something_old=3"])


def test_a_few_obsolete_keys_do_not_make_a_config_the_references(write):
    text = SEED_DIAGNOSIS + "common: {all_gather_list_size: 2048000, sed: 3}\n"
    with pytest.raises(ConfigError, match=r"common\.sed in .*'seed'"):
        load_config(write(text))


@pytest.mark.parametrize(
    "override",
    [
        "common.all_gather_list_size=2048000",
        "+common.memory_efficient_fp16=true",
        "distributed_training.heartbeat_timeout=-1",
        "dataset.num_shards=1",
        "checkpoint.checkpoint_suffix=x",
        "optimizer.use_old_adam=true",
    ],
)
def test_an_option_without_effect_is_accepted_with_a_notice(override, caplog):
    load_config(["--config-name", "w2v_cmsc_rlm", override])
    assert override.lstrip("+").split(".")[1] in caplog.text
