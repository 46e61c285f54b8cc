from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from fairseq_ecg.errors import CheckpointError, ConfigError
from fairseq_ecg.methods.wcr import Wav2Vec2, Wav2Vec2Config
from fairseq_ecg.models.classifier import EcgTransformerClassifier, EcgTransformerClassifierConfig


def tiny(**options: object) -> EcgTransformerClassifier:
    torch.manual_seed(1)
    return EcgTransformerClassifier(replace(EcgTransformerClassifierConfig.tiny(), **options))


def test_logits_are_the_head_on_the_mean_of_valid_frames() -> None:
    model = tiny().eval()
    source, padding = torch.randn(2, 12, 100), torch.arange(100).expand(2, 100) >= torch.tensor([[100], [50]])
    output = model(source, padding)
    frames = output.encoder.frames
    means = torch.stack([frames[0].mean(0), frames[1, :3].mean(0)])
    torch.testing.assert_close(output.logits, means @ model.proj.weight.T + model.proj.bias)


def test_the_head_starts_as_xavier_with_a_zero_bias() -> None:
    model = tiny(num_labels=500)
    assert model.proj.weight.abs().max().item() <= (6 / 516) ** 0.5
    assert not model.proj.bias.any()


def test_fine_tuning_defaults_have_no_dropout_and_frozen_convolutions() -> None:
    cfg = EcgTransformerClassifierConfig(num_labels=26)
    assert (cfg.dropout, cfg.attention_dropout, cfg.feature_grad_mult) == (0.0, 0.0, 0.0)


def pretrained(**options: object) -> Wav2Vec2:
    torch.manual_seed(2)
    return Wav2Vec2(replace(Wav2Vec2Config.tiny(), encoder_layers=3, encoder_embed_dim=24, **options))


def test_a_pretrained_encoder_replaces_sizes_and_weights() -> None:
    source_model = pretrained(layer_norm_first=True, encoder_attention_heads=4).eval()
    model = tiny(dropout=0.25)
    report = model.load_pretrained(source_model.state_dict(), asdict(source_model.cfg))
    model.eval()
    assert not report.missing
    assert {name.split(".")[0] for name in report.unexpected} == {
        "mask_emb",
        "quantizer",
        "project_q",
        "final_proj",
    }
    assert model.cfg.encoder_layers == 3
    assert model.cfg.encoder_attention_heads == 4
    assert model.cfg.layer_norm_first
    assert model.cfg.dropout == 0.25
    assert model.proj.in_features == 24
    source = torch.randn(2, 12, 100)
    assert torch.equal(model.encode(source).frames, source_model.encode(source).frames)


def test_sizes_come_from_the_weights_when_the_config_contradicts_them() -> None:
    source_model = pretrained()
    told = {**asdict(source_model.cfg), "encoder_embed_dim": 16, "encoder_layers": 2}
    model = tiny()
    model.load_pretrained(source_model.state_dict(), told)
    assert model.cfg.encoder_embed_dim == 24
    assert model.cfg.encoder_layers == 3


def test_a_fine_tuned_classifier_can_be_fine_tuned_again_without_its_head() -> None:
    first, second = tiny(num_labels=7), tiny(num_labels=2)
    second.load_pretrained(first.state_dict(), asdict(first.cfg))
    assert second.proj.out_features == 2
    source = torch.randn(1, 12, 100)
    assert torch.equal(first.eval().encode(source).frames, second.eval().encode(source).frames)


def test_no_pretrained_weights_takes_the_sizes_only() -> None:
    source_model = pretrained()
    model = tiny(no_pretrained_weights=True)
    report = model.load_pretrained(source_model.state_dict(), asdict(source_model.cfg))
    assert report.loaded == ()
    assert model.cfg.encoder_embed_dim == 24
    name = "layers.0.fc1.weight"
    assert not torch.equal(model.encoder.encoder.state_dict()[name], source_model.encoder.state_dict()[name])


def test_incomplete_or_foreign_checkpoints_are_refused() -> None:
    state = dict(pretrained().state_dict())
    model = tiny(model_path="some/model.pt")
    with pytest.raises(CheckpointError, match=r"some/model\.pt: no ecg_transformer encoder"):
        model.load_pretrained({"conv1.weight": torch.zeros(3)}, {})
    del state["encoder.layers.1.fc2.bias"]
    with pytest.raises(CheckpointError, match=r"encoder\.layers\.1\.fc2\.bias is missing"):
        model.load_pretrained(state, {})


def test_the_encoder_is_frozen_for_the_first_updates_only() -> None:
    model = tiny(freeze_finetune_updates=2, feature_grad_mult=1.0)
    assert model.has_unused_parameters
    for num_updates, learns in ((0, False), (1, False), (2, True)):
        model.zero_grad(set_to_none=True)
        model.before_update(num_updates)
        model(torch.randn(1, 12, 100)).logits.sum().backward()
        assert (model.encoder.encoder.layers[0].fc1.weight.grad is not None) == learns
        assert model.proj.weight.grad is not None


def test_final_dropout_keeps_the_expected_mean() -> None:
    model = tiny(final_dropout=0.5)
    source = torch.randn(1, 12, 100)
    expected = model.eval()(source).logits
    model.train()
    draws = torch.stack([model(source).logits for _ in range(400)])
    assert draws.std() > 0
    torch.testing.assert_close(draws.mean(0), expected, rtol=0, atol=5 * draws.std().item() / 20)


def test_layers_are_numbered_through_the_prefix() -> None:
    model = tiny()
    assert model.layer_index("encoder.encoder.layers.0.fc1.weight") == 1
    assert model.layer_index("encoder.layer_norm.weight") == 0
    assert model.layer_index("proj.weight") == model.num_layers - 1


@pytest.mark.parametrize("options", [{"num_labels": None}, {"num_labels": 0}, {"final_dropout": 1.0}])
def test_what_cannot_work_is_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        tiny(**options)
