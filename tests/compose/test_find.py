from __future__ import annotations

from pathlib import Path

import pytest

from fairseq_ecg.compose import find
from fairseq_ecg.compose.find import display, find_config, packaged_configs
from fairseq_ecg.errors import ConfigError


@pytest.mark.parametrize(
    ("config_dir", "name", "expected"),
    [
        (None, "w2v_cmsc_rlm", "pretraining/w2v_cmsc_rlm.yaml"),
        (None, "diagnosis", "finetuning/ecg_transformer/diagnosis.yaml"),
        (None, "finetuning/ecg_transformer/diagnosis", "finetuning/ecg_transformer/diagnosis.yaml"),
        (None, "diagnosis.yaml", "finetuning/ecg_transformer/diagnosis.yaml"),
        ("examples/w2v_clocs/config/pretraining", "w2v_cmsc_rlm", "pretraining/w2v_cmsc_rlm.yaml"),
        (
            "/x/fairseq-signals/examples/w2v_clocs/config/pretraining",
            "w2v_cmsc_rlm",
            "pretraining/w2v_cmsc_rlm.yaml",
        ),
        ("/x/examples/w2v_clocs/config/finetuning", "diagnosis", "finetuning/ecg_transformer/diagnosis.yaml"),
        ("/x/examples/w2v_cmsc/config/pretraining", "w2v_cmsc_rlm", "pretraining/w2v_cmsc_rlm.yaml"),
        (
            "/x/examples/w2v_cmsc/config/finetuning/ecg_transformer",
            "diagnosis",
            "finetuning/ecg_transformer/diagnosis.yaml",
        ),
        ("absent", "diagnosis", "finetuning/ecg_transformer/diagnosis.yaml"),
    ],
)
def test_documented_folders_and_names_lead_to_the_packaged_file(
    config_dir, name, expected, tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    assert display(find_config(name, config_dir)) == f"examples/w2v_cmsc/config/{expected}"
    assert ("--config-dir" in caplog.text) == (config_dir is not None)


def test_a_folder_of_the_examples_need_not_be_the_deepest(caplog):
    folder = find.examples_dir() / "w2v_cmsc" / "config"
    assert find_config("diagnosis", str(folder)).stem == "diagnosis"
    assert "has no such file" in caplog.text


def test_a_folder_of_the_users_own_wins_over_packaged_names(tmp_path, caplog):
    (tmp_path / "diagnosis.yaml").write_text("common: {seed: 2}\n")
    assert find_config("diagnosis", str(tmp_path)) == (tmp_path / "diagnosis.yaml").resolve()
    assert caplog.text == ""


def test_a_config_name_may_be_the_path_of_a_file(tmp_path):
    (tmp_path / "own.yaml").write_text("common: {seed: 2}\n")
    assert find_config(str(tmp_path / "own.yaml"), None) == (tmp_path / "own.yaml").resolve()


def test_an_unknown_name_lists_what_is_packaged():
    with pytest.raises(
        ConfigError, match=r"did you mean 'w2v_cmsc_rlm'.*packaged: .*diagnosis.*--config-dir"
    ):
        find_config("w2v_cmsc_rml", None)
    with pytest.raises(ConfigError, match=r"absent does not exist.*known: .*diagnosis"):
        find_config("zzz", "absent")


def test_an_unknown_name_in_a_folder_that_exists_lists_what_is_there(tmp_path):
    (tmp_path / "mine.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"no mini.yaml in --config-dir .*'mine'"):
        find_config("mini", str(tmp_path))


def test_a_name_that_several_packaged_configs_have_is_refused_with_all_of_them(tmp_path, monkeypatch):
    for system in ("one", "two"):
        folder = tmp_path / "examples" / system / "config"
        folder.mkdir(parents=True)
        (folder / "same.yaml").write_text("")
    monkeypatch.setattr(find, "examples_dir", lambda: tmp_path / "examples")
    with pytest.raises(ConfigError, match=r"examples/one/config/same.yaml, examples/two/config/same.yaml"):
        find_config("same", None)
    assert display(find_config("two/config/same", None)) == "examples/two/config/same.yaml"
    assert find_config("same", "examples/two/config").parent.parent.name == "two"


def test_every_packaged_config_begins_with_paper_table_and_command():
    assert packaged_configs()
    for path in packaged_configs():
        comment = path.read_text().partition("\n\n")[0]
        assert all(line.startswith("#") for line in comment.splitlines()), path
        assert "arXiv" in comment, path
        assert "able" in comment, path
        assert f"--config-name {path.stem}" in comment, path


def test_examples_inside_the_package_come_first(tmp_path, monkeypatch):
    package = tmp_path / "fairseq_ecg"
    (package / "compose").mkdir(parents=True)
    monkeypatch.setattr(find, "__file__", str(package / "compose" / "find.py"))
    find.examples_dir.cache_clear()
    try:
        assert find.examples_dir() == Path(tmp_path).resolve() / "examples"
        (package / "examples").mkdir()
        find.examples_dir.cache_clear()
        assert find.examples_dir() == Path(package).resolve() / "examples"
    finally:
        find.examples_dir.cache_clear()
