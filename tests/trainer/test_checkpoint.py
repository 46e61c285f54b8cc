"""Checkpoint folders: names, links, pruning, the resolver, damage; and where a run starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from fairseq_ecg.config import CheckpointConfig
from fairseq_ecg.errors import CheckpointError, ConfigError
from fairseq_ecg.trainer.checkpoint import (
    CheckpointFolder,
    load_model,
    read_config,
    read_state,
    read_tensors,
    resolve,
)
from fairseq_ecg.trainer.trainer import Trainer
from tests.training import diagnosis, pretraining


def save(folder: CheckpointFolder, number: int, *links: str) -> Path:
    return folder.save(
        tensors={"w": torch.full((2,), float(number))},
        optimizer=None,
        state={"num_updates": number},
        config={"model": {"_name": "x"}},
        links=["checkpoint_last", *links],
    )


def folder_of(tmp_path: Path, **options: object) -> CheckpointFolder:
    folder = CheckpointFolder(CheckpointConfig(save_dir=str(tmp_path / "run"), **options))
    folder.prepare()
    return folder


def names(folder: CheckpointFolder) -> set[str]:
    return {item.name for item in folder.path.iterdir()}


def test_links_are_relative_so_that_a_run_can_be_moved(tmp_path):
    folder = folder_of(tmp_path)
    save(folder, 1, "checkpoint1", "checkpoint_best")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    for name in ("checkpoint_last", "checkpoint1", "checkpoint_best"):
        assert float(read_tensors(moved / "checkpoints" / name)["w"][0]) == 1.0


def test_the_last_two_folders_stay_without_links(tmp_path):
    folder = folder_of(tmp_path)
    for number in (1, 2, 3, 4):
        save(folder, number)
    assert names(folder) == {"u0000003", "u0000004", "checkpoint_last"}


def test_newest_epochs_are_kept_and_0_keeps_all(tmp_path):
    kept = folder_of(tmp_path / "kept", keep_last_epochs=2)
    everything = folder_of(tmp_path / "all", keep_last_epochs=0)
    for number in (1, 2, 3, 4):
        save(kept, number, f"checkpoint{number}")
        save(everything, number, f"checkpoint{number}")
    assert names(kept) == {"u0000003", "u0000004", "checkpoint3", "checkpoint4", "checkpoint_last"}
    assert {f"checkpoint{number}" for number in (1, 2, 3, 4)} < names(everything)


def test_update_checkpoints_are_pruned_but_for_the_pattern(tmp_path):
    folder = folder_of(tmp_path, keep_interval_updates=1, keep_interval_updates_pattern=20)
    for number in (10, 20, 30, 40, 50):
        save(folder, number, f"checkpoint_1_{number}")
    links = {name for name in names(folder) if name.startswith("checkpoint_1_")}
    assert links == {"checkpoint_1_20", "checkpoint_1_40", "checkpoint_1_50"}


@pytest.mark.parametrize(("maximise", "expected"), [(False, {0.1, 0.2}), (True, {0.2, 0.3})])
def test_best_checkpoints_are_ranked_by_their_value(tmp_path, maximise, expected):
    folder = folder_of(tmp_path, keep_best_checkpoints=2, maximize_best_checkpoint_metric=maximise)
    for number, value in enumerate((0.3, 0.1, 0.2), start=1):
        save(folder, number, f"checkpoint.best_auroc_macro_{value}_u{number}")
    kept = {float(name.split("_")[3]) for name in names(folder) if name.startswith("checkpoint.best")}
    assert kept == expected


def test_a_number_reached_again_gets_a_name_of_its_own(tmp_path):
    folder = folder_of(tmp_path)
    assert save(folder, 5).name == "u0000005"
    assert save(folder, 5).name == "u0000005.1"
    last = folder.last()
    assert last is not None
    assert last.name == "u0000005.1"


def test_leftovers_of_an_interrupted_save_are_removed(tmp_path):
    folder = folder_of(tmp_path)
    save(folder, 1)
    (folder.path / ".tmp-u0000002-77").mkdir()
    (folder.path / ".tmp-link-checkpoint_last-77").symlink_to("nowhere")
    folder.prepare()
    assert names(folder) == {"u0000001", "checkpoint_last"}


def test_a_dangling_link_falls_back_to_the_newest_folder(tmp_path):
    folder = folder_of(tmp_path)
    save(folder, 1)
    (folder.path / "checkpoint_last").unlink()
    (folder.path / "checkpoint_last").symlink_to("u0000009")
    last = folder.last()
    assert last is not None
    assert last.name == "u0000001"


def test_the_resolver_understands_what_users_type(tmp_path):
    folder = folder_of(tmp_path)
    written = save(folder, 1, "checkpoint_best")
    run = tmp_path / "run"
    for path in (
        run,
        run / "checkpoint_best.pt",
        run / "checkpoint_last",
        folder.path / "checkpoint_best",
        folder.path / "checkpoint_best.pt",
        folder.path / "u0000001",
    ):
        assert resolve(path).resolve() == written, path
    foreign = run / "checkpoint_best.pt"
    foreign.write_bytes(b"")
    assert resolve(foreign) == foreign


def test_a_wrong_path_names_what_is_there(tmp_path):
    save(folder_of(tmp_path), 1, "checkpoint_best")
    with pytest.raises(CheckpointError, match="did you mean 'checkpoint_best'"):
        resolve(tmp_path / "run" / "checkpoint_bets.pt")
    with pytest.raises(CheckpointError, match="holds none"):
        resolve(tmp_path / "nowhere" / "checkpoint_last.pt")


def test_damage_is_one_clear_error(tmp_path):
    written = save(folder_of(tmp_path), 1)
    (written / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read"):
        read_tensors(written)
    (written / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"state.json cannot be read"):
        read_state(written)
    (written / "state.json").write_text('{"format": 99}')
    with pytest.raises(CheckpointError, match="format 99, this version reads 1"):
        read_state(written)
    (written / "config.yaml").write_text("- 1")
    with pytest.raises(CheckpointError, match="no group 'model'"):
        read_config(written)


def test_an_unwritable_run_folder_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"save_dir=.*cannot be written"):
        CheckpointFolder(CheckpointConfig(save_dir=str(tmp_path / "file" / "run"))).prepare()


@pytest.fixture(scope="module")
def finished(manifest_dir, tmp_path_factory) -> Path:
    """A pre-training run of three updates."""
    run = tmp_path_factory.mktemp("finished") / "run"
    Trainer.from_config(pretraining(manifest_dir, run, "optimization.max_update=3")).run()
    return run


def start(cfg) -> Trainer:
    """A trainer brought to where its run would start, without an update."""
    trainer = Trainer.from_config(cfg)
    trainer.cfg.optimization.max_update = trainer.progress.num_updates or 1
    trainer.reason_to_stop = lambda: "test"
    trainer.run()
    return trainer


def test_finetune_from_model_takes_weights_only(finished, manifest_dir, tmp_path):
    trainer = start(pretraining(manifest_dir, tmp_path / "new", f"checkpoint.finetune_from_model={finished}"))
    stored = read_tensors(resolve(finished))
    own = trainer.model.state_dict()
    assert all(torch.equal(own[name], stored[name]) for name in stored)
    assert trainer.progress.num_updates == 0
    assert trainer.optimizer.state_dict() == {}


def test_restore_file_names_another_checkpoint(finished, manifest_dir, tmp_path):
    trainer = start(pretraining(manifest_dir, tmp_path / "new", f"checkpoint.restore_file={finished}"))
    assert trainer.progress.num_updates == 3
    assert trainer.optimizer.state_dict()
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        start(pretraining(manifest_dir, tmp_path / "other", "checkpoint.restore_file=missing.pt"))


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ("reset_optimizer", {"optimizer": {}}),
        ("reset_dataloader", {"batches_done": 0}),
    ],
)
def test_each_reset_leaves_out_its_part(finished, manifest_dir, tmp_path, option, changed):
    trainer = start(
        pretraining(
            manifest_dir, tmp_path, f"checkpoint.restore_file={finished}", f"checkpoint.{option}=true"
        )
    )
    state = {
        "optimizer": trainer.optimizer.state_dict(),
        "batches_done": trainer.progress.batches_done,
        "num_updates": trainer.progress.num_updates,
    }
    for name, value in changed.items():
        assert state.pop(name) == value
    assert all(bool(value) for value in state.values()), state


def test_a_checkpoint_of_another_model_is_refused(finished, manifest_dir, tmp_path):
    with pytest.raises(CheckpointError, match=r"has shape|does not fit the model"):
        start(
            pretraining(
                manifest_dir,
                tmp_path,
                f"checkpoint.restore_file={finished}",
                "model.encoder_embed_dim=32",
            )
        )


def test_load_model_takes_overrides_and_names_what_it_cannot_build(finished):
    assert load_model(finished, model_overrides={"saliency": True}).model.cfg.saliency
    with pytest.raises(ConfigError, match="encoder_layer"):
        load_model(finished, model_overrides={"encoder_layer": 3})


def test_fine_tuning_takes_the_encoder_of_a_run_folder(finished, manifest_dir, tmp_path):
    trainer = Trainer.from_config(diagnosis(manifest_dir, tmp_path, f"model.model_path={finished}"))
    stored = read_tensors(resolve(finished))
    own = trainer.model.state_dict()
    name = "encoder.layers.1.fc1.weight"
    assert torch.equal(own[f"encoder.{name}"], stored[name])
    assert trainer.meta.sources == ["tiny"]


@pytest.mark.parametrize("weights", [(), ("model.no_pretrained_weights=true",)])
def test_a_fine_tuning_is_resumed_after_its_pre_training_has_moved(finished, manifest_dir, tmp_path, weights):
    pretrained = shutil.copytree(finished, tmp_path / "pretrained", symlinks=True)
    options = [f"model.model_path={pretrained}", "model.encoder_layers=3", *weights]

    def trained(folder, num_updates):
        limit = f"optimization.max_update={num_updates}"
        trainer = Trainer.from_config(diagnosis(manifest_dir, tmp_path / folder, *options, limit))
        trainer.run()
        return trainer

    whole = trained("whole", 2)
    trained("parts", 1)
    shutil.rmtree(pretrained)
    resumed = trained("parts", 2)
    assert resumed.model.cfg.encoder_layers == 2  # the pre-trained encoder's, whatever the options say
    assert resumed.progress.num_updates == 2
    assert resumed.meta.sources == whole.meta.sources
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        trained("new", 1)


def test_save_intervals_validation_and_early_stopping(manifest_dir, tmp_path):
    cfg = diagnosis(
        manifest_dir,
        tmp_path,
        "optimization.max_update=40",
        "checkpoint.save_interval_updates=2",
        "dataset.validate_interval=100",
        "checkpoint.best_checkpoint_metric=loss",
        "checkpoint.maximize_best_checkpoint_metric=true",
        "checkpoint.patience=2",
        "checkpoint.no_epoch_checkpoints=true",
        "optimization.lr=[1e-2]",
    )
    trainer = Trainer.from_config(cfg)
    trainer.run()
    links = {item.name for item in (tmp_path / "checkpoints").iterdir() if item.is_symlink()}
    assert "checkpoint_1_2" in links
    assert not any(name.startswith("checkpoint") and name[10:].isdigit() for name in links)
    assert trainer.selection.stale == 2, "a loss that is to grow, and does not, ends the run"
    best = read_state(tmp_path / "checkpoints" / "checkpoint_best")
    assert trainer.progress.num_updates == best["num_updates"] + 4 < 40, "two validations, two updates apart"


@pytest.mark.parametrize(
    ("option", "absent"),
    [
        ("checkpoint.no_save=true", "checkpoints/checkpoint_last"),
        ("checkpoint.no_last_checkpoints=true", "checkpoints/checkpoint_last"),
        ("checkpoint.no_save_optimizer_state=true", "checkpoints/u0000001/optimizer.pt"),
    ],
)
def test_what_is_not_wanted_is_not_written(manifest_dir, tmp_path, option, absent):
    Trainer.from_config(pretraining(manifest_dir, tmp_path, "optimization.max_update=1", option)).run()
    assert not (tmp_path / absent).exists()


def test_a_selection_metric_nobody_logs_is_refused_before_the_first_update(manifest_dir, tmp_path):
    cfg = diagnosis(manifest_dir, tmp_path, "checkpoint.best_checkpoint_metric=auroc_marco")
    with pytest.raises(ConfigError, match=r"auroc_marco is not logged here; did you mean 'auroc_macro'"):
        Trainer.from_config(cfg).run()
    assert not list((tmp_path / "checkpoints").iterdir())


def test_validation_draws_depend_on_the_fixed_seed_even_if_it_is_0(manifest_dir, tmp_path):
    losses = []
    for number, seed in enumerate((0, 0, 5)):
        cfg = pretraining(
            manifest_dir,
            tmp_path / str(number),
            f"dataset.fixed_validation_seed={seed}",
            "dataset.disable_validation=false",
            "dataset.valid_subset=valid",
        )
        losses.append(Trainer.from_config(cfg).evaluate("valid", None)["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_resetting_the_schedule_starts_it_anew_and_keeps_the_count(finished, manifest_dir, tmp_path):
    options = [f"checkpoint.restore_file={finished}", "lr_scheduler.warmup_updates=10"]
    kept = start(pretraining(manifest_dir, tmp_path / "kept", *options))
    anew = start(pretraining(manifest_dir, tmp_path / "anew", *options, "checkpoint.reset_lr_scheduler=true"))
    assert (kept.progress.num_updates, anew.progress.num_updates) == (3, 3)
    assert (kept.rate, anew.rate) == pytest.approx((4e-4, 1e-4))


def test_a_missing_optimizer_state_is_not_passed_over(manifest_dir, tmp_path):
    options = ["checkpoint.no_save_optimizer_state=true"]
    Trainer.from_config(pretraining(manifest_dir, tmp_path, "optimization.max_update=1", *options)).run()
    with pytest.raises(CheckpointError, match=r"has no optimizer state.*reset_optimizer=true"):
        start(pretraining(manifest_dir, tmp_path, *options))
    assert (
        start(pretraining(manifest_dir, tmp_path, "checkpoint.reset_optimizer=true")).progress.num_updates
        == 1
    )


def test_larger_batches_after_a_resume_go_on_with_the_next_epoch(manifest_dir, tmp_path):
    first = diagnosis(manifest_dir, tmp_path, "dataset.batch_size=2", "optimization.max_update=12")
    Trainer.from_config(first).run()
    trainer = Trainer.from_config(
        diagnosis(manifest_dir, tmp_path, "dataset.batch_size=8", "optimization.max_update=14")
    )
    trainer.run()
    assert (trainer.progress.num_updates, trainer.progress.epoch) == (14, 2)


def test_bad_validation_data_are_known_before_the_first_update(manifest_dir, tmp_path):
    cfg = pretraining(
        manifest_dir,
        tmp_path / "run",
        "dataset.disable_validation=false",
        "dataset.valid_subset=valid",
        "dataset.max_tokens_valid=10",
    )
    with pytest.raises(ConfigError, match="max_tokens=10"):
        Trainer.from_config(cfg).run()
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_weights_made_for_other_input_are_refused_and_their_sources_kept(finished, manifest_dir, tmp_path):
    source = f"checkpoint.finetune_from_model={finished}"
    with pytest.raises(ConfigError, match="normalisation"):
        start(pretraining(manifest_dir, tmp_path / "a", source, "task.normalisation=record_zscore"))
    assert start(pretraining(manifest_dir, tmp_path / "b", source)).meta.sources == ["tiny"]


def test_a_frozen_encoder_stays_as_it_is_under_weight_decay(manifest_dir, tmp_path):
    cfg = diagnosis(manifest_dir, tmp_path, "model.freeze_finetune_updates=2", "optimizer.weight_decay=0.5")
    trainer = Trainer.from_config(cfg)
    before = {name: value.clone() for name, value in trainer.model.encoder.state_dict().items()}
    with trainer.task.loader("train", epoch=1, is_train=True) as loader:
        for number, batch in zip(range(3), loader, strict=False):
            same = all(torch.equal(before[name], v) for name, v in trainer.model.encoder.state_dict().items())
            assert same, f"before update {number}"
            trainer.update([batch])
    assert not torch.equal(before["layer_norm.weight"], trainer.model.encoder.layer_norm.weight)


def test_a_run_that_early_stopping_ended_stays_ended(manifest_dir, tmp_path):
    options = ["checkpoint.best_checkpoint_metric=loss", "checkpoint.maximize_best_checkpoint_metric=true"]
    options += ["checkpoint.patience=1", "optimization.lr=[1e-2]", "dataset.validate_interval_updates=3"]
    ended = Trainer.from_config(diagnosis(manifest_dir, tmp_path, *options))
    ended.run()
    again = Trainer.from_config(diagnosis(manifest_dir, tmp_path, *options))
    again.run()
    assert again.progress.num_updates == ended.progress.num_updates


def test_stopping_for_a_limit_does_not_use_up_patience(manifest_dir, tmp_path):
    """lr 0 never improves: the run must end where it would have ended without the stops."""
    options = ["checkpoint.patience=3", "optimization.lr=[0.0]", "optimization.stop_min_lr=-1.0"]
    whole = Trainer.from_config(diagnosis(manifest_dir, tmp_path / "whole", *options))
    whole.run()
    for limit in (1, 2, 3, 5):
        cfg = diagnosis(manifest_dir, tmp_path / "parts", *options, f"optimization.max_update={limit}")
        Trainer.from_config(cfg).run()
    parts = Trainer.from_config(diagnosis(manifest_dir, tmp_path / "parts", *options))
    parts.run()
    assert parts.progress.num_updates == whole.progress.num_updates
