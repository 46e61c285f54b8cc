from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fairseq_ecg.errors import CheckpointError
from fairseq_ecg.interop.fairseq_signals import CONFIGS, KEYS, FairseqSignalsImporter, import_checkpoint
from fairseq_ecg.methods.wcr import Wav2Vec2, Wav2Vec2Config
from fairseq_ecg.models.base import load_tensors
from fairseq_ecg.models.classifier import EcgTransformerClassifier, EcgTransformerClassifierConfig
from fairseq_ecg.registry import IMPORTERS, MODELS


@pytest.mark.parametrize("name", ["checkpoint_last.pt", "checkpoint_legacy_weightnorm.pt"])
def test_reference_checkpoints_give_the_reference_features(shared: Path, name: str) -> None:
    folder = shared / "golden" / "fairseq_signals_checkpoint"
    golden = np.load(folder / "io.npz")
    imported = import_checkpoint(folder / name)
    weights = load_file(folder / "weights.safetensors")
    assert imported.state.keys() == weights.keys()
    assert all(torch.equal(imported.state[key], value) for key, value in weights.items())
    model = MODELS.build(imported.name, CONFIGS[imported.name](**imported.config))
    assert load_tensors(model, imported.state, source=name).missing == ()
    assert [key for key, _ in model.named_parameters()] == golden["adam_param_order"].tolist()
    model.eval()
    with torch.no_grad():
        encoded = model.encode(torch.from_numpy(golden["source"]))
        padding = (
            torch.arange(golden["source"].shape[-1]) >= torch.from_numpy(golden["pad__lengths"])[:, None]
        )
        padded = model.encode(torch.from_numpy(golden["pad__source"]), padding)
    for mine, key in (
        (encoded.frames, "feat__x"),
        (encoded.pooled(), "feat__pooled"),
        (padded.frames, "pad__x"),
    ):
        np.testing.assert_allclose(mine, golden[key], rtol=0, atol=2e-5)
    np.testing.assert_array_equal(padded.padding_mask, golden["pad__padding_mask"])
    if name == "checkpoint_last.pt":
        assert imported.num_updates == golden["num_updates"] == 2
        model.before_update(imported.num_updates)
        assert model.quantizer.temperature.item() == pytest.approx(float(golden["quantizer_temp_after_load"]))
        assert imported.criterion["_name"] == "wav2vec2_with_cmsc"


def test_every_model_kind_survives_a_round_trip_whatever_its_config_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    cfg = replace(
        Wav2Vec2Config.tiny(), target_glu=True, latent_dim=12, conv_bias=True, layer_norm_first=True
    )
    classifier = EcgTransformerClassifier(EcgTransformerClassifierConfig.tiny())
    for name, model in (("wav2vec2", Wav2Vec2(cfg)), ("ecg_transformer_classifier", classifier)):
        group = {
            "_name": name,
            **asdict(model.cfg),
            "encoder_embed_dim": 768,
            "data": "somewhere",
            "args": None,
        }
        old = {KEYS.foreign(key): value for key, value in model.state_dict().items()}
        assert any(key.endswith("weight_g") for key in old)
        path = tmp_path / f"{name}.pt"
        torch.save({"cfg": {"model": group}, "model": old}, path)
        imported = import_checkpoint(path)
        rebuilt = MODELS.build(imported.name, CONFIGS[imported.name](**imported.config))
        report = load_tensors(rebuilt, imported.state, source=str(path))
        assert (report.missing, report.unexpected) == ((), ())
        assert imported.name == name
        source = torch.randn(2, 12, 100)
        assert torch.equal(rebuilt.eval().encode(source).frames, model.eval().encode(source).frames)
        assert imported.contract.sampling_rate == 500


def test_names_of_earlier_years_are_known() -> None:
    model = EcgTransformerClassifier(EcgTransformerClassifierConfig.tiny())
    cfg = {"model": {"_name": "linear_projection", "encoder_attention_heads": 2}}
    imported = FairseqSignalsImporter().translate({"cfg": cfg, "model": model.state_dict()})
    assert imported.name == "ecg_transformer_classifier"
    assert imported.config["num_labels"] == 3
    without = FairseqSignalsImporter().translate({"model": model.state_dict()})
    assert without.name == "ecg_transformer_classifier"


def test_a_mask_embedding_without_a_use_is_dropped_and_said_so() -> None:
    model = EcgTransformerClassifier(EcgTransformerClassifierConfig.tiny())
    state = {"encoder.mask_emb": torch.zeros(16), **model.state_dict()}
    group = {"_name": "ecg_transformer_classifier", "apply_mask": True}
    imported = FairseqSignalsImporter().translate({"cfg": {"model": group}, "model": state})
    assert imported.dropped == ("encoder.mask_emb",)
    assert imported.config["apply_mask"] is False


def test_key_tables_are_invertible() -> None:
    keys = [
        "encoder.conv_pos.pos_conv.0.weight_g",
        "conv_pos.pos_conv.0.weight_v",
        "encoder.layers.0.fc1.bias",
    ]
    assert [KEYS.foreign(KEYS.ours(key)) for key in keys] == keys
    assert KEYS.ours(keys[0]) == "encoder.conv_pos.pos_conv.0.parametrizations.weight.original0"
    both = {
        "conv_pos.pos_conv.0.weight_g": torch.zeros(1),
        KEYS.ours("conv_pos.pos_conv.0.weight_g"): torch.ones(1),
    }
    with pytest.raises(CheckpointError, match="mixes two formats"):
        KEYS.translate(both)


def test_what_is_not_of_this_family_is_refused(tmp_path: Path) -> None:
    assert "fairseq_signals" in IMPORTERS
    path = tmp_path / "x.pt"
    torch.save({"model": {"conv1.weight": torch.zeros(2)}}, path)
    with pytest.raises(CheckpointError, match="not a fairseq-signals checkpoint"):
        import_checkpoint(path)
    torch.save({"model": {"encoder.pos_conv.0.bias": torch.zeros(2)}}, path)
    with pytest.raises(CheckpointError, match=r"x\.pt: was written .* before November 2022"):
        import_checkpoint(path)
    state = EcgTransformerClassifier(EcgTransformerClassifierConfig.tiny()).state_dict()
    torch.save({"cfg": {"model": {"_name": "m3ae"}}, "model": state}, path)
    with pytest.raises(CheckpointError, match="'m3ae'"):
        import_checkpoint(path)


def test_the_classifier_file_with_meters_is_read(shared: Path) -> None:
    folder = shared / "golden" / "fairseq_signals_classifier"
    imported = import_checkpoint(folder / "checkpoint_auc_meters.pt")
    weights = load_file(folder / "weights.safetensors")
    assert all(torch.equal(imported.state[key], value) for key, value in weights.items())
    config = json.loads((folder / "config.json").read_text())
    assert imported.config["num_labels"] == config["cfg"]["model"]["num_labels"]
