"""Convolutions around the transformer: the feature extractor and the positional embedding."""

from __future__ import annotations

import ast
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from fairseq_ecg.errors import ConfigError
from fairseq_ecg.nn.spectral import correlate

ConvLayer = tuple[int, int, int]
"""Channels, kernel size, stride."""

_WIDE_KERNEL = 32
"""Taps from which the positional convolution goes by way of frequencies on a CPU."""


def parse_conv_layers(text: str) -> list[ConvLayer]:
    """Read ``conv_feature_layers``: lists of (channels, kernel, stride), their sums and integer multiples.

    The reference evaluates the string as Python; here only literals, ``+`` and ``*`` are understood.

    Raises:
        ConfigError: the text is anything else.
    """
    problem = (
        f"conv_feature_layers={text!r}: write a list of (channels, kernel, stride) of positive integers, "
        "such as '[(256, 2, 2)] * 4'"
    )
    try:
        value = _evaluate(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(problem) from error
    if not isinstance(value, list) or not 0 < len(value) <= 64:
        raise ConfigError(problem)
    layers: list[ConvLayer] = []
    for item in value:
        whole = isinstance(item, tuple | list) and all(type(number) is int and number > 0 for number in item)
        if not whole or len(item) != 3:
            raise ConfigError(problem)
        layers.append((item[0], item[1], item[2]))
    return layers


def _evaluate(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        left, right = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
            return left + right
        if isinstance(left, int):
            left, right = right, left
        if isinstance(node.op, ast.Mult) and isinstance(left, list) and isinstance(right, int):
            if len(left) * right > 1000:
                raise ValueError(f"{len(left)} layers times {right}")
            return left * right
        raise ValueError(f"{ast.dump(node)}")
    return ast.literal_eval(node)


def frame_lengths(num_samples: Any, layers: list[ConvLayer]) -> Any:
    """Frames that the extractor makes of so many samples: floor((n - kernel) / stride + 1), layer by layer.

    Works on an int and on an integer tensor; never below 0.
    """
    for _, kernel, stride in layers:
        num_samples = (num_samples - kernel) // stride + 1
        num_samples = max(num_samples, 0) if isinstance(num_samples, int) else num_samples.clamp(min=0)
    return num_samples


class FeatureNorm(nn.GroupNorm):
    """Normalise every channel over time, in float32 whatever the input type."""

    def __init__(self, num_channels: int) -> None:
        super().__init__(num_channels, num_channels)

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return F.group_norm(input.float(), self.num_groups, weight, bias, self.eps).to(input.dtype)


class ChannelLayerNorm(nn.LayerNorm):
    """Normalise over channels at every time step of a (B, C, T) tensor, in float32."""

    def forward(self, input: Tensor) -> Tensor:
        x = input.transpose(1, 2).float()
        x = F.layer_norm(x, self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return x.transpose(1, 2).to(input.dtype)


class ConvFeatureExtractor(nn.Module):
    """Unpadded convolutions over time in which all leads enter jointly, as channels.

    ``default`` normalises after the first layer only, each channel over time; ``layer_norm`` after every
    layer, over channels. A zero-padded tail therefore changes the statistics of the default form.

    Shape:
        source: (B, L, T), or (B, T) for one lead.
        returns: (B, C, F).
    """

    def __init__(self, layers: list[ConvLayer], in_d: int, *, mode: str, conv_bias: bool) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList()
        for i, (channels, kernel, stride) in enumerate(layers):
            conv = nn.Conv1d(in_d, channels, kernel, stride=stride, bias=conv_bias)
            nn.init.kaiming_normal_(conv.weight)
            # The places of the reference's list: 1 is a dropout that is never used, 2 a norm where there is
            # one.
            parts: list[nn.Module] = [conv, nn.Identity()]
            if mode == "layer_norm":
                parts.append(ChannelLayerNorm(channels))
            elif i == 0:
                parts.append(FeatureNorm(channels))
            self.conv_layers.append(nn.Sequential(*parts, nn.GELU()))
            in_d = channels

    def forward(self, source: Tensor) -> Tensor:
        x = source[:, None] if source.ndim == 2 else source
        for layer in self.conv_layers:
            x = layer(x)
        return x


class ConvPositionalEmbedding(nn.Module):
    """Relative positions by a wide grouped convolution whose weight is normalised per tap.

    weight[:, :, k] = g[k] v[:, :, k] / ||v[:, :, k]||.

    Shape:
        x: (B, F, C).
        returns: (B, F, C), to be added to x.
    """

    def __init__(self, embed_dim: int, kernel_size: int, groups: int) -> None:
        super().__init__()
        if embed_dim % groups:
            raise ConfigError(f"encoder_embed_dim={embed_dim} is not a multiple of conv_pos_groups={groups}")
        conv = nn.Conv1d(embed_dim, embed_dim, kernel_size, padding=kernel_size // 2, groups=groups)
        nn.init.normal_(conv.weight, std=math.sqrt(4.0 / (kernel_size * embed_dim)))
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        self.pos_conv = nn.Sequential(weight_norm(conv, dim=2))
        self.groups = groups
        self.wide = kernel_size >= _WIDE_KERNEL

    def forward(self, x: Tensor) -> Tensor:
        if self.wide and x.device.type == "cpu":
            conv = self.pos_conv[0]
            assert isinstance(conv, nn.Conv1d)
            assert conv.bias is not None
            with torch.autocast("cpu", enabled=False):
                y = correlate(x.float(), conv.weight.float(), self.groups) + conv.bias.float()
            return F.gelu(y)
        # An even kernel with padding kernel // 2 gives one frame too many.
        y = self.pos_conv(x.transpose(1, 2))[..., : x.shape[1]]
        return F.gelu(y).transpose(1, 2)
