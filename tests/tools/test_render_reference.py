from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest

from fairseq_ecg.compose.groups import FIXED_GROUPS
from fairseq_ecg.registry import REGISTRIES
from tools.render_reference import field_docs, main, options_table


@dataclass(kw_only=True)
class Base:
    width: int = 3
    """Channels;
    two lines | one cell."""
    depth: int | None = None


@dataclass(kw_only=True)
class Derived(Base):
    depth: int | None = 2
    """Layers."""
    names: list[str] = dataclasses.field(default_factory=lambda: ["a"])
    needed: bool


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    assert main(["--out", str(folder)]) == 0
    return folder


def test_the_string_below_a_field_is_its_documentation_also_when_inherited():
    assert field_docs(Derived) == {"width": "Channels; two lines \\| one cell.", "depth": "Layers."}


def test_a_table_shows_type_and_default_of_every_option():
    rows = options_table(Derived).splitlines()[2:]
    assert rows == [
        "| `width` | int | `3` | Channels; two lines \\| one cell. |",
        "| `depth` | int or null | `2` | Layers. |",
        "| `names` | list of str | `['a']` |  |",
        "| `needed` | bool | required |  |",
    ]


def test_every_option_of_every_component_is_on_a_page(pages):
    config = (pages / "config.md").read_text()
    for group, config_class in FIXED_GROUPS.items():
        assert f"## `{group}`" in config
        for item in dataclasses.fields(config_class):
            assert f"| `{item.name}` |" in config
    models = (pages / "models.md").read_text()
    for entry in REGISTRIES["model"]:
        assert f"## `{entry.name}`" in models
        for item in dataclasses.fields(entry.config):
            assert f"| `{item.name}` |" in models


def test_every_page_is_linked_from_the_index(pages):
    index = (pages / "index.md").read_text()
    for page in pages.glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index


def test_check_tells_a_page_that_is_stale_missing_or_left_over(pages, tmp_path, capsys):
    for page in pages.glob("*.md"):
        (tmp_path / page.name).write_text(page.read_text())
    check = ["--check", "--out", str(tmp_path)]
    assert main(check) == 0
    (tmp_path / "config.md").write_text((tmp_path / "config.md").read_text() + "by hand")
    assert main(check) == 1
    assert "config.md is out of date" in capsys.readouterr().err
    assert main(["--out", str(tmp_path)]) == 0
    (tmp_path / "models.md").unlink()
    assert main(check) == 1
    assert main(["--out", str(tmp_path)]) == 0
    (tmp_path / "left_over.md").write_text((tmp_path / "config.md").read_text())
    (tmp_path / "by_hand.md").write_text("# A page of somebody's own\n")
    assert main(check) == 1
    assert main(["--out", str(tmp_path)]) == 0
    assert not (tmp_path / "left_over.md").exists()
    assert (tmp_path / "by_hand.md").exists()
    assert main(check) == 0
