from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fairseq_ecg.errors import CheckpointError, ConfigError
from fairseq_ecg.models.base import Encoder, load_tensors
from fairseq_ecg.models.ecg_transformer import EcgTransformer, EcgTransformerConfig, sizes_from_tensors


def tiny(**options: object) -> EcgTransformer:
    torch.manual_seed(0)
    return EcgTransformer(replace(EcgTransformerConfig.tiny(), **options))


def test_parameters_are_named_and_ordered_as_in_the_reference() -> None:
    names = [name for name, _ in tiny(encoder_layers=1, conv_bias=True).named_parameters()]
    layer = "encoder.layers.0."
    kinds = ("weight", "bias")
    projections = [
        f"{layer}self_attn.{part}_proj.{kind}" for part in ("k", "v", "q", "out") for kind in kinds
    ]
    others = ("self_attn_layer_norm", "fc1", "fc2", "final_layer_norm")
    expected = [
        *projections,
        *(f"{layer}{part}.{kind}" for part in others for kind in ("weight", "bias")),
        "encoder.layer_norm.weight",
        "encoder.layer_norm.bias",
        "feature_extractor.conv_layers.0.0.weight",
        "feature_extractor.conv_layers.0.0.bias",
        "feature_extractor.conv_layers.0.2.weight",
        "feature_extractor.conv_layers.0.2.bias",
        *(f"feature_extractor.conv_layers.{i}.0.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")),
        "post_extract_proj.weight",
        "post_extract_proj.bias",
        "conv_pos.pos_conv.0.bias",
        "conv_pos.pos_conv.0.parametrizations.weight.original0",
        "conv_pos.pos_conv.0.parametrizations.weight.original1",
        "layer_norm.weight",
        "layer_norm.bias",
    ]
    assert names == expected


def test_a_projection_exists_only_between_different_widths() -> None:
    assert tiny(encoder_embed_dim=8, encoder_attention_heads=2).post_extract_proj is None
    assert tiny().post_extract_proj is not None


def test_frames_and_padding_follow_the_convolutions() -> None:
    model = tiny().eval()
    source = torch.randn(3, 12, 100)
    lengths = torch.tensor([100, 47, 5])
    output = model(source, torch.arange(100) >= lengths[:, None])
    assert output.frames.shape == (3, 6, 16)
    assert (~output.padding_mask).sum(1).tolist() == [6, 2, 0]
    assert torch.isfinite(output.pooled()).all()
    assert isinstance(model, Encoder)
    assert model.embed_dim == 16


def test_saliency_is_head_averaged_attention_and_leaves_the_frames_alone() -> None:
    plain, explained = tiny().eval(), tiny(saliency=True).eval()
    source = torch.randn(2, 12, 100)
    output = explained(source)
    assert output.saliency.shape == (2, 2, 6, 6)
    torch.testing.assert_close(output.saliency.sum(-1), torch.ones(2, 2, 6))
    torch.testing.assert_close(output.frames, plain(source).frames, rtol=1e-5, atol=1e-6)


def test_the_convolutions_gradient_is_scaled_or_absent() -> None:
    source = torch.randn(2, 12, 100)
    grads = {}
    for factor in (1.0, 0.25, 0.0):
        model = tiny(feature_grad_mult=factor).eval()
        (model(source).frames * torch.arange(16)).sum().backward()
        grads[factor] = model.feature_extractor.conv_layers[0][0].weight.grad
    torch.testing.assert_close(grads[0.25], grads[1.0] / 4, rtol=1e-4, atol=1e-6)
    assert grads[0.0] is None


def test_layers_are_numbered_from_the_input_to_the_head() -> None:
    model = tiny()
    assert model.num_layers == 4
    assert model.layer_index("feature_extractor.conv_layers.0.0.weight") == 0
    assert model.layer_index("encoder.layer_norm.weight") == 0
    assert model.layer_index("encoder.layers.1.fc1.weight") == 2
    assert tiny(layer_norm_first=True).layer_index("encoder.layer_norm.weight") == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"apply_mask": True}, "apply_mask"),
        ({"all_gather": True}, "all_gather"),
        ({"encoder_attention_heads": 5}, "encoder_attention_heads=5"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"encoder_layerdrop": -0.1}, "encoder_layerdrop"),
        ({"in_d": 0}, "in_d=0"),
        ({"conv_feature_layers": "[(1, 2)]"}, "conv_feature_layers"),
    ],
)
def test_what_cannot_work_is_refused(options: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        tiny(**options)


def test_sizes_are_read_from_tensors_whatever_the_config_says() -> None:
    model = tiny(conv_feature_layers="[(8, 4, 2)] + [(8, 2, 2)] * 2", conv_bias=True, in_d=3, conv_pos=6)
    sizes = sizes_from_tensors(model.state_dict(), {"encoder_embed_dim": 768})
    assert sizes["conv_feature_layers"] == "[(8, 4, 4), (8, 2, 2), (8, 2, 2)]"  # strides leave no trace
    told = {"conv_feature_layers": "[(8, 4, 2)] + [(8, 2, 2)] * 2"}
    rebuilt = EcgTransformer(
        replace(EcgTransformerConfig.tiny(), **sizes_from_tensors(model.state_dict(), told))
    )
    assert load_tensors(rebuilt, model.state_dict(), source="test").missing == ()
    source = torch.randn(1, 3, 100)
    assert torch.equal(rebuilt.eval()(source).frames, model.eval()(source).frames)


def test_a_load_reports_what_it_found_and_fails_when_nothing_matches() -> None:
    model = tiny()
    state = model.state_dict()
    del state["layer_norm.bias"]
    report = load_tensors(model, {**state, "extra": torch.zeros(1)}, source="x.pt")
    assert report.missing == ("layer_norm.bias",)
    assert report.unexpected == ("extra",)
    assert f"loaded {len(state)} tensors" in str(report)
    with pytest.raises(CheckpointError, match=r"x\.pt: none of its 1 tensors"):
        load_tensors(model, {"extra": torch.zeros(1)}, source="x.pt")
    with pytest.raises(CheckpointError, match=r"layer_norm\.weight has shape \(2,\)"):
        load_tensors(model, {**state, "layer_norm.weight": torch.zeros(2)}, source="x.pt")
