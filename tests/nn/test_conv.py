from __future__ import annotations

import pytest
import torch

from fairseq_ecg.errors import ConfigError
from fairseq_ecg.nn.conv import (
    ConvFeatureExtractor,
    ConvPositionalEmbedding,
    frame_lengths,
    parse_conv_layers,
)


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("[(256, 2, 2)] * 4", [(256, 2, 2)] * 4),
        (
            "[(512, 10, 5)] + [(512, 3, 2)] * 2 + [(512,2,2)]",
            [(512, 10, 5), (512, 3, 2), (512, 3, 2), (512, 2, 2)],
        ),
        ("2 * [(8, 4, 2)]", [(8, 4, 2)] * 2),
        ("[(8, 4, 2), [16, 3, 1]]", [(8, 4, 2), (16, 3, 1)]),
    ],
)
def test_conv_layers_are_read_without_evaluating_python(text: str, layers: list) -> None:
    assert parse_conv_layers(text) == layers


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "[(256, 2, 2)] * 4.0",
        "[(256, 2)]",
        "[(256, 2, 0)]",
        "[]",
        "[(1, 1, 1)] * 999999999",
        "(256, 2, 2",
        "[(True, 2, 2)]",
        "[(256, 2, 2)] - 1",
    ],
)
def test_anything_but_a_list_of_layers_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="conv_feature_layers"):
        parse_conv_layers(text)


def test_frame_lengths_are_those_of_the_convolutions() -> None:
    layers = [(4, 3, 2), (4, 2, 2), (4, 4, 1)]
    extractor = ConvFeatureExtractor(layers, 2, mode="default", conv_bias=True)
    for num_samples in (40, 41, 42, 43, 100):
        num_frames = extractor(torch.zeros(1, 2, num_samples)).shape[-1]
        assert frame_lengths(num_samples, layers) == num_frames
        assert frame_lengths(torch.tensor([num_samples, 1]), layers).tolist() == [num_frames, 0]
    assert frame_lengths(2500, [(256, 2, 2)] * 4) == 156
    assert frame_lengths(5000, [(256, 2, 2)] * 4) == 312


def slow_group_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * weight[:, None] + bias[:, None]


def test_the_first_layer_normalises_each_channel_over_time() -> None:
    torch.manual_seed(0)
    extractor = ConvFeatureExtractor([(4, 2, 2)] * 2, 3, mode="default", conv_bias=False)
    conv, _, norm, gelu = extractor.conv_layers[0]
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 3, 20)
    expected = gelu(slow_group_norm(conv(x), norm.weight, norm.bias))
    torch.testing.assert_close(extractor.conv_layers[0](x), expected, rtol=1e-5, atol=1e-5)
    assert len(extractor.conv_layers[1]) == 3  # no norm


def test_layer_norm_mode_normalises_over_channels_after_every_layer() -> None:
    torch.manual_seed(0)
    extractor = ConvFeatureExtractor([(4, 2, 2)] * 2, 3, mode="layer_norm", conv_bias=False)
    x = torch.randn(2, 3, 20)
    for conv, _, _, _ in extractor.conv_layers:
        y = conv(x)
        centred = y - y.mean(1, keepdim=True)
        x = torch.nn.functional.gelu(centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt())
    torch.manual_seed(0)
    again = ConvFeatureExtractor([(4, 2, 2)] * 2, 3, mode="layer_norm", conv_bias=False)
    torch.testing.assert_close(again(torch.randn(2, 3, 20)), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [4, 5])
def test_the_positional_embedding_is_a_weight_normalised_grouped_convolution(kernel: int) -> None:
    torch.manual_seed(0)
    module = ConvPositionalEmbedding(6, kernel, 2)
    original = module.pos_conv[0].parametrizations.weight
    torch.nn.init.normal_(original.original0)
    x = torch.randn(2, 9, 6)
    g, v = original.original0.detach(), original.original1.detach()
    expected = torch.zeros(2, 9, 6)
    for f in range(9):
        for out in range(6):
            group = out // 3
            for k in range(kernel):
                t = f + k - kernel // 2
                if 0 <= t < 9:
                    weight = g[0, 0, k] * v[out, :, k] / v[:, :, k].norm()
                    expected[:, f, out] += x[:, t, 3 * group : 3 * group + 3] @ weight
    expected = torch.nn.functional.gelu(expected + module.pos_conv[0].bias.detach())
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


def test_the_positional_embedding_starts_as_the_reference_does() -> None:
    torch.manual_seed(0)
    conv = ConvPositionalEmbedding(64, 16, 4).pos_conv[0]
    assert conv.weight.std().item() == pytest.approx((4 / (16 * 64)) ** 0.5, rel=0.03)
    assert not conv.bias.any()
    assert conv.parametrizations.weight.original0.shape == (1, 1, 16)


def test_groups_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="conv_pos_groups=4"):
        ConvPositionalEmbedding(6, 4, 4)
