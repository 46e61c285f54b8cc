"""The demo, small: every step runs, its folder holds what it says, and it guards what is there."""

from __future__ import annotations

import json

import pytest

from fairseq_ecg.cli import demo
from fairseq_ecg.cli.main import main


@pytest.fixture(scope="module")
def finished(tmp_path_factory, monkeypatch_module):
    """The demo with a model of one layer, on as few patients as the score's labels need."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    small = ("model.conv_feature_layers=[(8, 2, 2)] * 4", "model.encoder_layers=1")
    small += (
        "model.encoder_embed_dim=16",
        "model.encoder_ffn_embed_dim=16",
        "model.encoder_attention_heads=2",
    )
    monkeypatch_module.setattr(demo, "SMALL_MODEL", (*small, "model.conv_pos=4", "model.conv_pos_groups=2"))
    monkeypatch_module.chdir(folder.parent)
    assert main(["demo", "demo", "--num-patients", "100", "--updates", "2"]) == 0
    return folder


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_the_folder_holds_what_the_demo_says(finished):
    expected = {"raw", "store", "manifests", "pretrained", "diagnosis", "scores_probe", "scores_diagnosis"}
    assert {item.name for item in finished.iterdir()} == expected
    assert (finished / "pretrained" / "checkpoints" / "checkpoint_last" / "model.safetensors").is_file()


def test_scores_are_marked_as_synthetic_and_stand_beside_a_random_encoder(finished):
    probe = json.loads((finished / "scores_probe" / "results.json").read_text())
    assert probe["is_synthetic"]
    assert [row["is_random"] for row in probe["rows"]] == [False, True]
    for row in probe["rows"]:
        interval = row["metrics"]["auroc_macro"]
        assert interval["low"] <= interval["value"] <= interval["high"]
    head = json.loads((finished / "scores_diagnosis" / "results.json").read_text())
    assert [row["protocol"] for row in head["rows"]] == ["head"]
    assert "cinc_score" in head["rows"][0]["metrics"]


def test_an_earlier_demo_is_not_replaced_unasked(finished, capsys):
    assert main(["demo", str(finished)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_overwrite_removes_nothing_that_is_not_a_demo(tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft.txt").write_text("years of work")
    assert main(["demo", str(tmp_path / "thesis"), "--overwrite"]) == 2
    assert "is not the folder of an earlier demo" in capsys.readouterr().err
    assert (tmp_path / "thesis" / "draft.txt").read_text() == "years of work"
