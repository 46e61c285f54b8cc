from __future__ import annotations

import logging
import sys
from importlib import metadata
from pathlib import Path

import pytest

from fairseq_ecg import plugins, registry
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.registry import MODELS, READERS, REGISTRIES

MODEL = """\
from fairseq_ecg.registry import register_model

@register_model("{name}")
class Mine:
    "A model."
"""


@pytest.fixture(autouse=True)
def forget_afterwards(monkeypatch):
    """What a test imports and registers is gone after it."""
    plugins.load_all()
    modules = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    failures = []
    for module in (registry, plugins):
        monkeypatch.setattr(module, "FAILURES", failures)
    monkeypatch.setattr(plugins, "_loaded", set(plugins._loaded))
    for kind in REGISTRIES.values():
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))
    yield
    for name in set(sys.modules) - modules:
        if not name.startswith("fairseq_ecg"):
            del sys.modules[name]


def folder_of(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def test_every_built_in_folder_exists_and_imports_without_failure(monkeypatch):
    monkeypatch.setattr(plugins, "_loaded", set())
    plugins.load_built_ins()
    assert registry.FAILURES == []
    assert {"wav2vec2", "wav2vec2_cmsc"} <= set(MODELS.names())
    assert "physionet2021" in READERS


def test_every_built_in_component_is_described_and_located():
    for kind in REGISTRIES.values():
        for entry in kind:
            if not entry.factory.__module__.startswith("fairseq_ecg."):
                continue  # registered by another test
            assert entry.summary, f"{kind.kind} {entry.name} has no docstring"
            assert ".py:" in entry.location


def test_a_user_folder_is_imported_with_its_modules_and_sub_packages(tmp_path):
    path = folder_of(
        tmp_path / "my_ecg_plugin",
        {
            "__init__.py": "",
            "encoder.py": MODEL.format(name="user_folder_model"),
            "models/__init__.py": "",
            "models/deep.py": "from my_ecg_plugin.encoder import Mine\n"
            + MODEL.format(name="user_deep_model"),
        },
    )
    plugins.load_user_dir(path)
    assert {"user_folder_model", "user_deep_model"} <= set(MODELS.names())
    assert sys.path[0] == str(tmp_path)


def test_a_user_folder_needs_no_init_file(tmp_path):
    path = folder_of(tmp_path / "my_plain_folder", {"encoder.py": MODEL.format(name="plain_folder_model")})
    plugins.load_user_dir(path)
    assert "plain_folder_model" in MODELS


def test_tests_and_set_up_files_of_a_user_folder_are_left_alone(tmp_path):
    refuse = "raise RuntimeError('not for import')\n"
    files = {name: refuse for name in ("setup.py", "conftest.py", "test_x.py", "_private.py")}
    plugins.load_user_dir(folder_of(tmp_path / "my_quiet_plugin", files))
    assert registry.FAILURES == []


def test_a_user_dir_may_be_one_file(tmp_path):
    path = folder_of(tmp_path, {"my_single_file.py": MODEL.format(name="single_file_model")})
    plugins.load_user_dir(path / "my_single_file.py")
    assert "single_file_model" in MODELS


def test_a_relative_user_dir_is_relative_to_the_working_directory(tmp_path, monkeypatch):
    folder_of(tmp_path, {"my_relative_file.py": MODEL.format(name="relative_model")})
    monkeypatch.chdir(tmp_path)
    plugins.load_user_dir("my_relative_file.py")
    assert "relative_model" in MODELS


def test_loading_again_imports_nothing_again(tmp_path):
    counter = tmp_path / "count"
    text = f"with open({str(counter)!r}, 'a') as counter:\n    counter.write('x')\n"
    path = folder_of(tmp_path, {"my_counted_file.py": text})
    plugins.load_user_dir(path / "my_counted_file.py")
    plugins.load_user_dir(path / "my_counted_file.py")
    assert counter.read_text() == "x"


def test_a_user_dir_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"common\.user_dir='nowhere' does not exist"):
        plugins.load_user_dir("nowhere")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=r"neither a folder nor a \.py file"):
        plugins.load_user_dir(tmp_path / "notes.txt")


def test_a_user_dir_named_like_an_imported_module_is_refused(tmp_path):
    folder_of(tmp_path / "json", {"__init__.py": ""})
    with pytest.raises(ConfigError, match=r"'json' is already imported from .*rename"):
        plugins.load_user_dir(tmp_path / "json")


def test_a_broken_module_is_named_at_once_and_fatal_only_when_used(tmp_path, caplog):
    path = folder_of(
        tmp_path / "my_half_broken",
        {"good.py": MODEL.format(name="half_good_model"), "bad.py": "import package_that_is_not_installed\n"},
    )
    with caplog.at_level(logging.WARNING):
        plugins.load_user_dir(path)
    assert "my_half_broken.bad failed to import: ModuleNotFoundError" in caplog.text
    assert MODELS.get("half_good_model").name == "half_good_model"
    with pytest.raises(
        ConfigError, match=r"unknown model 'half_bad_model'.*my_half_broken\.bad failed to import"
    ):
        MODELS.get("half_bad_model")


def test_a_name_that_is_taken_is_a_broken_module(tmp_path):
    plugins.load_user_dir(folder_of(tmp_path, {"my_copy.py": MODEL.format(name="wav2vec2")}) / "my_copy.py")
    (failure,) = registry.FAILURES
    assert "'wav2vec2' is already registered at" in str(failure)
    assert MODELS.get("wav2vec2").factory.__module__ == "fairseq_ecg.methods.wcr"


def installed(monkeypatch, tmp_path: Path, name: str, value: str) -> None:
    """Pretend that a distribution with one entry point is installed in ``tmp_path``."""
    folder_of(
        tmp_path,
        {
            f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            f"{name}-1.0.dist-info/entry_points.txt": f"[{plugins.ENTRY_POINT_GROUP}]\n{name} = {value}\n",
        },
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert any(point.name == name for point in metadata.entry_points(group=plugins.ENTRY_POINT_GROUP))


def test_an_installed_plugin_is_found_by_its_entry_point(tmp_path, monkeypatch):
    folder_of(tmp_path, {"installed_ecg_plugin.py": MODEL.format(name="installed_model")})
    installed(monkeypatch, tmp_path, "installed_ecg_plugin", "installed_ecg_plugin")
    plugins.load_installed()
    plugins.load_installed()
    assert "installed_model" in MODELS


def test_a_broken_installed_plugin_is_named_with_its_distribution(tmp_path, monkeypatch):
    installed(monkeypatch, tmp_path, "broken_ecg_plugin", "module_that_is_not_there")
    plugins.load_installed()
    plugins.load_installed()
    (failure,) = registry.FAILURES
    assert "'broken_ecg_plugin'" in str(failure)
    assert "installed by broken_ecg_plugin" in str(failure)
