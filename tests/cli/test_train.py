from __future__ import annotations

import logging
import shlex
import sys
import types
from pathlib import Path

import pytest
import yaml

from fairseq_ecg.cli.main import main, train
from fairseq_ecg.errors import DataError
from tests.training import TINY_MODEL, TINY_RUN

RECIPE = ["--config-name", "w2v_cmsc_rlm"]
TINY_PRETRAINING = (
    "model.latent_vars=6",
    "model.final_dim=8",
    "model.num_negatives=5",
    "model.mask_length=3",
)
SMALL = ["model.encoder_layers=1", "model.encoder_embed_dim=16", "model.encoder_attention_heads=2"]


@pytest.fixture
def runs(monkeypatch):
    """Stand in for the launcher; collects the configs it is given."""
    configs = []

    def launch(cfg):
        configs.append(cfg)
        if cfg.optimization.lr == [7.0]:
            raise DataError("no such store")
        if cfg.optimization.lr == [6.0]:
            raise FloatingPointError("3 updates in a row")
        return (143 if cfg.common.seed == 143 else 0), {"valid_loss": cfg.optimization.lr[0]}

    module = types.ModuleType("fairseq_ecg.trainer.launch")
    module.launch = launch
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return configs


def test_a_run_gets_the_finished_config_and_prints_its_results(runs, capsys):
    assert main(["train", "task.data=here", "optimization.lr=0.5", *RECIPE, *SMALL]) == 0
    (cfg,) = runs
    assert (cfg.task.config.data, cfg.model.config.encoder_embed_dim) == ("here", 16)
    assert capsys.readouterr().out == "valid_loss 0.5\n"


def test_only_the_first_process_prints_results(runs, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "task.data=here", *RECIPE]) == 0
    assert capsys.readouterr().out == ""


def test_a_run_that_a_signal_ended_hands_on_its_status(runs):
    assert main(["train", "task.data=here", "common.seed=143", *RECIPE]) == 143


def test_without_data_the_error_names_commands_that_make_some(runs, capsys):
    assert main(["train", "common.seed=3", "checkpoint.save_dir=my runs", *RECIPE]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[0].startswith("fairseq-ecg train: error: task.data is not set")
    prepare, split, again = (shlex.split(line) for line in error[1:])
    assert prepare[:3] == ["fairseq-ecg", "prepare", "synthetic"]
    assert split[:3] == ["fairseq-ecg", "manifest", "split"]
    assert prepare[4] == split[3], "the store that is made is the one that is split"
    assert again == [
        "fairseq-ecg-train",
        f"task.data={split[4]}",
        "common.seed=3",
        "checkpoint.save_dir=my runs",
        *RECIPE,
    ]
    assert runs == []


def test_without_labelled_data_the_commands_make_labels_too(runs, capsys):
    assert main(["train", "--config-name", "diagnosis"]) == 2
    error = capsys.readouterr().err
    assert "--labels cinc2021" in error
    assert "+task.label_file=data/manifest/y.npy" in error


def test_cfg_job_prints_the_finished_yaml_and_needs_no_data(runs, capsys):
    assert main(["train", "--cfg", "job", *RECIPE, *SMALL]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["model"]["encoder_embed_dim"] == 16
    assert shown["model"]["logit_temp"] == 0.1
    assert (
        shown["optimizer"] | {"_name": "adam", "adam_betas": [0.9, 0.98], "adam_eps": 1e-6}
        == shown["optimizer"]
    )
    assert runs == []


def test_help_teaches_the_grammar_and_lists_the_packaged_recipes(capsys):
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("task.data=DIR", "--multirun", "--cfg job", "w2v_cmsc_rlm ", "diagnosis "):
        assert word in shown


def test_a_multirun_trains_each_combination_in_its_own_folder_and_ends_with_a_table(runs, capsys, tmp_path):
    argv = [
        "task.data=here",
        f"checkpoint.save_dir={tmp_path}/sweep",
        "optimization.lr=0.1,0.2",
        "common.seed=1,2",
    ]
    assert main(["train", "-m", *argv, *RECIPE, *SMALL]) == 0
    assert [(cfg.optimization.lr, cfg.common.seed) for cfg in runs] == [
        ([0.1], 1),
        ([0.1], 2),
        ([0.2], 1),
        ([0.2], 2),
    ]
    folders = [Path(cfg.checkpoint.save_dir) for cfg in runs]
    assert [folder.name for folder in folders] == [
        "00-lr=0.1,seed=1",
        "01-lr=0.1,seed=2",
        "02-lr=0.2,seed=1",
        "03-lr=0.2,seed=2",
    ]
    assert {folder.parent for folder in folders} == {tmp_path / "sweep"}
    captured = capsys.readouterr()
    assert captured.err.splitlines()[3].startswith("run 4 of 4: optimization.lr=0.2 common.seed=2 -> ")
    head, *rows = captured.out.splitlines()
    assert head.split() == ["save_dir", "overrides", "result"]
    assert [row.split()[1:] for row in rows] == [
        [
            f"optimization.lr={cfg.optimization.lr[0]}",
            f"common.seed={cfg.common.seed}",
            f"valid_loss={cfg.optimization.lr[0]:g}",
        ]
        for cfg in runs
    ]


def test_a_folder_name_of_a_multirun_is_safe_whatever_was_swept(runs):
    assert main(["train", "-m", "task.data='a/b','c:d'", "optimization.lr=[1],[2]", *RECIPE]) == 0
    names = [Path(cfg.checkpoint.save_dir).name for cfg in runs]
    assert names == ["00-data=a_b,lr=1", "01-data=a_b,lr=2", "02-data=c_d,lr=1", "03-data=c_d,lr=2"]


def test_a_multirun_checks_every_config_before_the_first_run(runs, capsys):
    assert main(["train", "-m", "task.data=here", "model.mask_prob=0.5,many", *RECIPE]) == 2
    assert "model.mask_prob" in capsys.readouterr().err
    assert runs == []


def test_a_failed_run_of_a_multirun_is_told_and_the_others_go_on(runs, capsys):
    assert main(["train", "-m", "task.data=here", "optimization.lr=7,6,8", *RECIPE]) == 2
    assert len(runs) == 3
    rows = capsys.readouterr().out.splitlines()[1:]
    assert "failed: no such store" in rows[0]
    assert "failed: 3 updates in a row" in rows[1], "a run that diverges"
    assert "valid_loss=8" in rows[2]


def test_a_signal_ends_a_multirun(runs):
    assert main(["train", "-m", "task.data=here", "common.seed=143,1", *RECIPE]) == 143
    assert len(runs) == 1


def test_cfg_job_of_a_multirun_prints_every_config(runs, capsys):
    assert main(["train", "-m", "--cfg", "job", "common.seed=1,2", *RECIPE]) == 0
    seeds = [job["common"]["seed"] for job in yaml.safe_load_all(capsys.readouterr().out)]
    assert seeds == [1, 2]
    assert runs == []


def test_a_mistake_is_one_line(runs, capsys):
    assert main(["train", "task.data=here", "model.mask_prop=0.5", *RECIPE]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fairseq-ecg train: error: unknown option model.mask_prop on the command line: ")
    assert "did you mean 'mask_prob'" in line


def test_a_wav2vec2_criterion_without_a_mask_is_refused(runs, capsys):
    assert main(["train", "task.data=here", "model.apply_mask=false", *RECIPE]) == 2
    assert "model.apply_mask=true" in capsys.readouterr().err
    assert runs == []


def test_obsolete_options_are_accepted_with_a_notice(runs, caplog):
    with caplog.at_level(logging.WARNING):
        assert main(["train", "task.data=here", "common.all_gather_list_size=2048000", *RECIPE]) == 0
    assert "all_gather_list_size=2048000" in caplog.text


def test_a_multirun_really_trains_every_combination(manifest_dir, tmp_path, capsys):
    small = [*TINY_MODEL, *TINY_RUN, *TINY_PRETRAINING, "optimization.max_epoch=1"]
    argv = [f"task.data={manifest_dir}", f"checkpoint.save_dir={tmp_path}/sweep", "common.seed=1,2"]
    assert main(["train", "--multirun", *argv, *small, *RECIPE]) == 0
    for folder in ("00-seed=1", "01-seed=2"):
        assert (
            tmp_path / "sweep" / folder / "checkpoints" / "checkpoint_last" / "model.safetensors"
        ).is_file()
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(str(tmp_path))]
    assert [row[1] for row in rows] == ["common.seed=1", "common.seed=2"]
    assert rows[0][2:] != rows[1][2:], "another seed gives another loss"
    assert all(any("loss=" in cell for cell in row) for row in rows)


def test_the_commands_that_make_data_make_what_the_run_reads(runs, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config-name", "diagnosis"]) == 2
    prepare, split, again = (shlex.split(line) for line in capsys.readouterr().err.splitlines()[1:])
    fewer = ["6" if word == "64" else word for word in prepare[1:]]
    assert main(fewer) == 0
    assert main(split[1:]) == 0
    assert again[0] == "fairseq-ecg-train"
    assert train(again[1:]) == 0
    (cfg,) = runs
    for subset in ("train", *cfg.dataset.valid_subsets):
        assert (Path(cfg.task.config.data) / f"{subset}.tsv").is_file()
    assert Path(cfg.task.config.label_file).is_file()
