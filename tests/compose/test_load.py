from __future__ import annotations

import logging
import os

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from fairseq_ecg.cli.train import to_yaml
from fairseq_ecg.compose import component_from_dict, config_from_dict, load_config
from fairseq_ecg.errors import ConfigError


def refused(load, *argv: str) -> str:
    """The one line with which a command line is refused."""
    with pytest.raises(ConfigError) as refusal:
        load(*argv)
    message = str(refusal.value)
    assert "\n" not in message
    return message


def test_values_of_a_file_get_the_types_of_their_fields(load):
    cfg = load()
    assert cfg.optimizer.config.adam_betas == [0.9, 0.98]
    assert cfg.optimizer.config.adam_eps == 1e-6
    assert cfg.optimization.lr == [5e-5]
    assert cfg.model.config.encoder_layers == 3


def test_a_mandatory_mark_only_matters_when_the_value_is_read(load):
    cfg = load()
    assert cfg.task.config.data is None
    assert cfg.criterion.config.weights_file is None


@pytest.mark.parametrize("prefix", ["", "+", "++"])
@pytest.mark.parametrize("key", ["model.encoder_layers", "model.num_labels"])
def test_a_known_key_may_have_any_prefix_whether_the_file_has_it_or_not(load, prefix, key):
    cfg = load(f"{prefix}{key}=7")
    assert getattr(cfg.model.config, key.split(".")[1]) == 7


def test_the_command_line_wins_over_the_file_on_either_side_of_the_flags(recipe):
    cfg = load_config(
        ["optimization.lr=1e-6", "--config-dir", str(recipe), "--config-name", "recipe", "common.seed=9"]
    )
    assert (cfg.optimization.lr, cfg.common.seed) == ([1e-6], 9)


def test_a_deleted_key_falls_back_to_the_default(load):
    assert load("~model.encoder_layers").model.config.encoder_layers == 12


def test_deleting_what_is_not_there_is_refused(load):
    assert "'encoder_layers'" in refused(load, "~model.encoder_layer")


def test_a_component_is_chosen_by_its_group(choose):
    cfg = choose("model=toy_model_with_required_option", "model.required=4")
    assert (cfg.model.name, cfg.model.config.required) == ("toy_model_with_required_option", 4)


def test_replacing_a_component_drops_the_options_of_the_old_one_with_a_notice(load, caplog):
    cfg = load("model=toy_model_with_required_option", "model.required=4")
    assert cfg.model.config.width == 3
    assert "encoder_layers=3" in caplog.text


def test_an_option_without_default_must_be_given(choose):
    message = refused(choose, "model=toy_model_with_required_option")
    assert "model.required=VALUE" in message


def test_text_with_brackets_quotes_equals_and_backslashes_arrives_as_typed(load):
    for text in ["/a/b=c", "it's [1, 2]", "{x: 1}", r"C:\data\ecg", "a,b", "50%"]:
        assert load(f"checkpoint.save_dir={text}").checkpoint.save_dir == text


def test_a_quoted_value_loses_its_quotes(load):
    assert load("checkpoint.save_dir='my runs'").checkpoint.save_dir == "my runs"


def test_a_long_list_of_weights_is_read(load):
    weights = [1.0 + i for i in range(500)]
    cfg = load("+criterion.pos_weight=[" + ",".join(map(str, weights)) + "]")
    assert cfg.criterion.config.pos_weight == weights


def test_interpolations_reach_values_and_defaults_of_other_groups(recipe):
    (recipe / "links.yaml").write_text(
        "defaults: [recipe, _self_]\n"
        "checkpoint: {save_dir: 'runs/${common.seed}'}\n"
        "dataset: {batch_size: 4, batch_size_valid: '${dataset.batch_size}'}\n"
        "lr_scheduler: {lr: '${optimization.lr}'}\n"
        "model: {dropout: '${.mask_prob}'}\n"
    )
    cfg = load_config(["--config-dir", str(recipe), "--config-name", "links", "common.seed=5"])
    assert cfg.checkpoint.save_dir == "runs/5"
    assert cfg.dataset.batch_size_valid == 4
    assert cfg.model.config.dropout == 0.0
    assert cfg.model.config.encoder_layers == 3


def test_an_interpolation_into_nowhere_is_refused(load):
    message = refused(load, "checkpoint.save_dir=${common.sed}")
    assert "checkpoint.save_dir on the command line" in message
    assert "common.sed" in message


def test_hydra_groups_beside_the_file_can_be_chosen(recipe):
    (recipe / "model").mkdir()
    (recipe / "model" / "big.yaml").write_text("_name: toy_model\nencoder_layers: 24\n")
    (recipe / "model" / "flat.yaml").write_text("_name: toy_model\nencoder_layers: 1\n")
    (recipe / "grouped.yaml").write_text("defaults: [recipe, model: big, _self_]\n")
    argv = ["--config-dir", str(recipe), "--config-name", "grouped"]
    assert load_config(argv).model.config.encoder_layers == 24
    assert load_config([*argv, "model=flat"]).model.config.encoder_layers == 1
    assert load_config(["--config-dir", str(recipe), "--config-name", "recipe", "+model=flat"]).model.config


def test_a_file_that_starts_like_fairseqs_is_read(recipe):
    text = (recipe / "recipe.yaml").read_text()
    (recipe / "old.yaml").write_text("# @package _group_\n" + text)
    cfg = load_config(
        ["--config-dir", str(recipe), "--config-name", "old", "model.dropout=0.5", "~optimization.lr"]
    )
    assert (cfg.model.config.encoder_layers, cfg.model.config.dropout) == (3, 0.5)
    assert cfg.optimization.lr == [0.25]


def test_hydra_settings_are_ignored_with_a_notice_and_launchers_refused(load, caplog):
    load("hydra.run.dir=.")
    assert "checkpoint.save_dir" in caplog.text
    assert "--multirun" in refused(load, "hydra/launcher=submitit_slurm")


def test_loading_writes_nothing_and_stays_in_the_working_directory(load, tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    cfg = load("task.data=here", "checkpoint.save_dir=there")
    assert (cfg.task.config.data, cfg.checkpoint.save_dir) == ("here", "there")
    assert os.getcwd() == str(work)
    assert list(work.iterdir()) == []


def test_a_caller_inside_a_hydra_application_keeps_it(load, recipe):
    with initialize_config_dir(version_base="1.3", config_dir=str(recipe)):
        assert load().model.config.encoder_layers == 3
        assert compose(config_name="recipe").model.encoder_layers == 3
    assert not GlobalHydra.instance().is_initialized()


def test_the_finished_yaml_reads_back_as_the_same_config(load, tmp_path):
    cfg = load("optimization.update_freq=[1,2]", "common.log_format=csv", "task.leads_to_load=I,II")
    (tmp_path / "finished.yaml").write_text(to_yaml(cfg))
    assert load_config(["--config-dir", str(tmp_path), "--config-name", "finished"]) == cfg
    assert config_from_dict(yaml.safe_load(to_yaml(cfg)), source="finished.yaml") == cfg


def test_a_single_component_is_finished_from_a_dict():
    choice = component_from_dict("model", {"_name": "toy_model", "encoder_layers": "5"}, source="c.yaml")
    assert (choice.name, choice.config.encoder_layers) == ("toy_model", 5)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        component_from_dict("model", {"_name": "toy_model", "layers": 5}, source="c.yaml")


@pytest.mark.parametrize(
    ("override", "hints"),
    [
        ("common.sed=1", ["common.sed on the command line", "'seed'"]),
        ("+task.lable_file=y.npy", ["'label_file'"]),
        ("model.batch_size=3", ["'dataset.batch_size'"]),
        ("lr=1e-4", ["write optimization.lr"]),
        ("encoder_layers=3", ["write model.encoder_layers"]),
        ("task.encoder_layers=3", ["'model.encoder_layers'"]),
        ("optimisation.lr=1e-4", ["'optimization'"]),
        ("optimizer.lr=1e-4", ["set optimization.lr instead"]),
        ("model.encoder_layers=many", ["model.encoder_layers on the command line", "'many'", "whole number"]),
        ("model.encoder_layers=0", ["at least 1"]),
        ("model.dropout=0.1,0.2", ["--multirun"]),
        ("model.encoder_layers=null", ["'null' is not a whole number"]),
        ("model.mask_selection=normal", ["static, uniform, none"]),
        ("common.log_interval=0", ["log_interval=0"]),
        ("model=toy_modle", ["model._name='toy_modle' on the command line", "'toy_model'"]),
        ("task=null", ["no task chosen", "task=NAME"]),
        ("dataset=big", ["dataset='big'", "mapping"]),
        ("model.encoder_layers.x=1", ["model.encoder_layers on the command line", "whole number"]),
    ],
)
def test_what_is_wrong_on_the_command_line_is_refused_with_the_remedy(load, override, hints):
    message = refused(load, override)
    for hint in hints:
        assert hint in message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("common: {sed: 1}\n", "common.sed in"),
        ("comon: {seed: 1}\n", "'common'"),
        ("model: {_name: toy_modle}\n", "'toy_model'"),
        ("common: [1\n", "broken.yaml"),
        ("- a\n- b\n", "broken.yaml"),
        ("common: 3\n", "must be a mapping"),
        ("task: {_name: toy_task}\nmodel: {_name: toy_model}\n", "no criterion chosen"),
        ("defaults: [absent]\n", "absent"),
        ("optimizer: {_name: toy_optimizer, lr: [1.0]}\n", "set optimization.lr instead"),
    ],
)
def test_what_is_wrong_in_a_file_is_refused_with_its_name(tmp_path, text, hint):
    names = [
        "task",
        "model",
        "optimizer",
        "lr_scheduler",
        *(["criterion"] if "criterion" not in hint else []),
    ]
    toys = {name: "toy_schedule" if name == "lr_scheduler" else f"toy_{name}" for name in names}
    needed = [f"{name}: {toy}" for name, toy in toys.items() if f"{name}:" not in text]
    (tmp_path / "broken.yaml").write_text(text + ("" if text.startswith("-") else "\n".join(needed)))
    message = refused(
        lambda *argv: load_config(list(argv)), "--config-dir", str(tmp_path), "--config-name", "broken"
    )
    assert hint in message
    assert "broken.yaml" in message


def test_a_component_may_refuse_a_run_that_trains_nothing(load):
    message = refused(load, "criterion.report_cinc_score=true")
    assert "model.apply_mask=true" in message
    assert load("criterion.report_cinc_score=true", "model.apply_mask=true")


def test_a_multirun_is_not_one_config(load):
    assert "--multirun" in refused(load, "--multirun", "common.seed=1,2")


def test_a_user_dir_is_imported_before_names_are_resolved(recipe, user_folder):
    name = user_folder("my_plugin", "my_model")
    cfg = load_config(
        [f"common.user_dir={name}", "model=my_model", "--config-dir", str(recipe), "--config-name", "recipe"]
    )
    assert cfg.model.name == "my_model"


def test_a_user_dir_of_a_checkpoint_is_not_imported_unless_trusted(load, user_folder):
    name = user_folder("my_other_plugin", "my_other_model")
    nested = load().to_dict() | {"model": {"_name": "my_other_model"}}
    nested["common"]["user_dir"] = str(name)
    with pytest.raises(ConfigError, match="my_other_model"):
        config_from_dict(nested, source="a checkpoint")
    assert config_from_dict(nested, source="this run", import_user_dir=True).model.name == "my_other_model"


def test_a_missing_user_dir_is_refused(load):
    message = refused(load, "common.user_dir=nowhere")
    assert "common.user_dir='nowhere' does not exist" in message


def test_an_unknown_name_mentions_the_plugin_that_failed_to_import(load, user_folder, caplog):
    name = user_folder("my_broken_plugin", "my_lost_model", broken=True)
    with caplog.at_level(logging.WARNING):
        assert load(f"common.user_dir={name}").model.name == "toy_model"
    assert "my_broken_plugin" in caplog.text
    message = refused(load, f"common.user_dir={name}", "model=my_lost_model")
    assert "my_broken_plugin" in message
    assert "ZeroDivisionError" in message
