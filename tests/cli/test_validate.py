from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fairseq_ecg.cli.main import main
from fairseq_ecg.cli.validate import with_checkpoint
from fairseq_ecg.compose import finish, parse_argv, read_draft
from fairseq_ecg.trainer.trainer import Trainer
from tests.training import diagnosis


@pytest.fixture(scope="module")
def run_dir(manifest_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one update, validated."""
    folder = tmp_path_factory.mktemp("validate") / "run"
    cfg = diagnosis(manifest_dir, folder, "optimization.max_update=1", "dataset.valid_subset=valid")
    Trainer.from_config(cfg).run()
    return folder


def values_of(shown: str) -> dict[str, float]:
    return {" ".join(line.split()[:2]): float(line.split()[2]) for line in shown.splitlines()}


def test_a_run_folder_alone_is_enough(run_dir, capsys):
    assert main(["validate", f"common_eval.path={run_dir}", "common.cpu=true"]) == 0
    values = values_of(capsys.readouterr().out)
    assert {key.split()[0] for key in values} == {"valid"}
    assert values["valid loss"] > 0


def test_no_subset_is_a_mistake_and_not_a_silent_success(run_dir, capsys):
    assert main(["validate", f"common_eval.path={run_dir}", "dataset.valid_subset="]) == 2
    assert "give dataset.valid_subset=valid" in capsys.readouterr().err


def test_every_named_subset_is_validated(run_dir, capsys):
    argv = [f"common_eval.path={run_dir}", "dataset.valid_subset=valid,test", "common.cpu=true"]
    assert main(["validate", *argv]) == 0
    assert {key.split()[0] for key in values_of(capsys.readouterr().out)} == {"valid", "test"}


def test_criterion_options_of_the_command_line_win(run_dir, capsys):
    argv = ["validate", f"common_eval.path={run_dir}", "common.cpu=true"]
    assert main(argv) == 0
    plain = values_of(capsys.readouterr().out)
    assert main([*argv, "criterion.pos_weight=[3,3,3]"]) == 0
    weighted = values_of(capsys.readouterr().out)
    assert weighted["valid loss"] > plain["valid loss"]


def finished(*argv: str):
    return finish(with_checkpoint(read_draft(parse_argv(argv))))


def test_model_options_come_from_command_line_then_overrides_then_checkpoint_never_from_a_recipe(run_dir):
    path = f"common_eval.path={run_dir}"
    assert finished(path).model.config.encoder_layers == 2
    cfg = finished(path, "--config-name", "diagnosis", "dataset.batch_size=5")
    assert (cfg.model.config.encoder_layers, cfg.model.config.num_labels) == (2, 3)
    assert (cfg.dataset.batch_size, cfg.dataset.valid_subset) == (5, "valid,test")
    overrides = "common_eval.model_overrides={'dropout': 0.25, 'final_dropout': 0.5}"
    cfg = finished(path, overrides, "model.dropout=0.75")
    assert (cfg.model.config.dropout, cfg.model.config.final_dropout) == (0.75, 0.5)


def test_the_file_a_checkpoint_was_fine_tuned_from_is_not_needed(run_dir, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in (run_dir / "checkpoints" / "checkpoint_last").resolve().iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    stored["model"]["model_path"] = "/gone/pretrained.pt"
    (folder / "config.yaml").write_text(yaml.safe_dump(stored))
    model = finished(f"common_eval.path={folder}").model.config
    assert (model.model_path, model.no_pretrained_weights) == (None, True)


def test_cfg_job_prints_what_would_be_validated(run_dir, capsys):
    assert main(["validate", "--cfg", "job", f"common_eval.path={run_dir}"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["encoder_layers"] == 2


def test_extracting_without_a_folder_explains_the_line_continuation(run_dir, capsys):
    assert main(["validate", f"common_eval.path={run_dir}", "common_eval.extract=[output,encoder_out]"]) == 2
    error = capsys.readouterr().err
    assert "common_eval.results_path=DIR" in error
    assert "line continuation" in error


def test_extraction_makes_the_folder_and_writes_arrays(run_dir, tmp_path):
    results = tmp_path / "new" / "results"
    argv = [
        "common_eval.extract=[output,encoder_out]",
        f"common_eval.results_path={results}",
        "common.cpu=true",
    ]
    assert main(["validate", f"common_eval.path={run_dir}", *argv]) == 0
    assert list(results.glob("*.npy"))


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        ([], "give common_eval.path=CHECKPOINT"),
        (["common_eval.path=nowhere/checkpoint_best.pt"], "no checkpoint at nowhere/checkpoint_best.pt"),
        (["-m", "common_eval.path=x", "common.seed=1,2"], "--multirun is for training"),
    ],
)
def test_a_mistake_is_one_line(argv, hint, capsys):
    assert main(["validate", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fairseq-ecg validate: error: ")
    assert hint in line


def test_overrides_that_are_no_dict_are_refused(run_dir, capsys):
    assert main(["validate", f"common_eval.path={run_dir}", "common_eval.model_overrides=dropout"]) == 2
    assert "common_eval.model_overrides='dropout'" in capsys.readouterr().err


def test_a_foreign_checkpoint_brings_its_model_and_criterion(shared):
    folder = shared / "golden" / "fairseq_signals_classifier"
    path = next(iter(sorted(folder.glob("*.pt"))))
    draft = with_checkpoint(read_draft(parse_argv([f"common_eval.path={path}", "task=ecg_classification"])))
    cfg = finish(replace(draft))
    assert cfg.model.name == "ecg_transformer_classifier"
    assert cfg.criterion.name == "binary_cross_entropy_with_logits"
