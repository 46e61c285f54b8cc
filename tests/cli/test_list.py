from __future__ import annotations

import pytest

from fairseq_ecg import registry
from fairseq_ecg.cli import list as command
from fairseq_ecg.cli.main import main
from fairseq_ecg.registry import MODELS, Failure


def test_every_kind_is_shown_with_name_doc_place_and_paper(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for kind in ("model", "criterion", "metric", "reader"):
        assert f"{kind}:" in shown
    assert "wav2vec2_with_cmsc" in shown
    assert "fairseq_ecg/methods/wcr.py:" in shown
    assert "Oh et al. 2022, arXiv 2203.06889" in shown


@pytest.mark.parametrize("kind", ["model", "models"])
def test_a_kind_and_a_pattern_choose(kind, capsys):
    assert main(["list", kind, "wav2vec2*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "model:"
    names = [line.split()[0] for line in lines[1::2]]
    assert names == sorted(name for name in MODELS.names() if name.startswith("wav2vec2"))


def test_a_word_without_wildcards_matches_anywhere(capsys):
    assert main(["list", "criteria", "cross_entropy"]) == 0
    assert "binary_cross_entropy_with_logits" in capsys.readouterr().out


def test_an_unknown_kind_is_refused_with_the_nearest(capsys):
    assert main(["list", "modle"]) == 2
    assert capsys.readouterr().err == "fairseq-ecg list: error: unknown kind 'modle': did you mean 'model'?\n"


def test_a_pattern_that_matches_nothing_is_said(capsys):
    assert main(["list", "models", "wav2vec3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fairseq-ecg list: error: no model matches 'wav2vec3': did you mean 'wav2vec2'")


def test_a_mistyped_option_is_one_line(capsys):
    assert main(["list", "--userdir", "x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_broken_plugins_are_shown(monkeypatch, capsys):
    monkeypatch.setattr(command, "FAILURES", [Failure("plugin 'x'", ImportError("no module y"))])
    assert main(["list", "models"]) == 0
    assert "broken: plugin 'x' failed to import: ImportError: no module y" in capsys.readouterr().out


def test_a_user_dir_is_listed_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry.MODELS, "_entries", dict(MODELS._entries))
    (tmp_path / "listed_plugin.py").write_text(
        "from fairseq_ecg.registry import register_model\n"
        "@register_model('listed_model')\nclass Mine:\n    'Says what it is (Somebody 2020).'\n"
    )
    assert main(["list", "models", "listed_model", "--user-dir", str(tmp_path / "listed_plugin.py")]) == 0
    shown = capsys.readouterr().out
    assert "Says what it is" in shown
    assert "listed_plugin.py:2; Somebody 2020" in shown
