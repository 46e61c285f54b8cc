from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fairseq_ecg.nn.grad import scale_gradient
from fairseq_ecg.nn.pooling import masked_mean
from fairseq_ecg.nn.transformer import TransformerEncoder, TransformerLayer


def make(
    norm_first: bool, *, layerdrop: float = 0.0, num_layers: int = 2, dropout: float = 0.0
) -> TransformerEncoder:
    torch.manual_seed(0)
    layers = [
        TransformerLayer(
            8,
            16,
            2,
            dropout=dropout,
            attention_dropout=dropout,
            activation_dropout=dropout,
            norm_first=norm_first,
        )
        for _ in range(num_layers)
    ]
    return TransformerEncoder(layers, 8, dropout=dropout, layerdrop=layerdrop)


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_encoder_is_the_equations(norm_first: bool) -> None:
    encoder, x = make(norm_first), torch.randn(2, 5, 8)
    expected = x if norm_first else encoder.layer_norm(x)
    for layer in encoder.layers:
        if norm_first:
            expected = expected + layer.self_attn(layer.self_attn_layer_norm(expected))[0]
            expected = expected + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(expected))))
        else:
            expected = layer.self_attn_layer_norm(expected + layer.self_attn(expected)[0])
            expected = layer.final_layer_norm(expected + layer.fc2(F.gelu(layer.fc1(expected))))
    if norm_first:
        expected = encoder.layer_norm(expected)
    assert torch.equal(encoder(x)[0], expected)


def test_padded_frames_do_not_reach_valid_ones() -> None:
    encoder = make(norm_first=False).eval()
    x, padding = torch.randn(2, 5, 8), torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]], dtype=torch.bool)
    other = x.masked_fill(padding[..., None], 99.0)
    assert torch.equal(encoder(x, padding)[0], encoder(other, padding)[0])
    alone = encoder(x[1:, :3])[0]
    torch.testing.assert_close(encoder(x, padding)[0][1:, :3], alone, rtol=1e-5, atol=1e-6)


def test_a_row_of_padding_alone_stays_finite() -> None:
    encoder = make(norm_first=False).eval()
    for need_probs in (False, True):
        y, _ = encoder(torch.randn(1, 4, 8), torch.ones(1, 4, dtype=torch.bool), need_probs)
        assert torch.isfinite(y).all()


def test_layerdrop_skips_layers_with_its_probability_and_leaves_no_parameter_without_gradient() -> None:
    encoder = make(norm_first=True, layerdrop=0.3, num_layers=1)
    encoder.layer_norm = torch.nn.Identity()
    x = torch.randn(1, 3, 8)
    skipped = 0
    for i in range(400):
        torch.manual_seed(i)
        y = encoder(x)[0]
        skipped += int(torch.equal(y, x))
        if i < 20:
            encoder.zero_grad(set_to_none=True)
            y.sum().backward()
            assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())
    assert skipped / 400 == pytest.approx(0.3, abs=0.1)
    assert not torch.equal(encoder.eval()(x)[0], x)


def test_dropout_is_active_in_training_only() -> None:
    encoder, x = make(norm_first=False, dropout=0.5), torch.randn(2, 5, 8)
    assert not torch.equal(encoder(x)[0], encoder(x)[0])
    encoder.eval()
    assert torch.equal(encoder(x)[0], encoder(x)[0])


def test_linear_layers_start_with_a_standard_deviation_of_two_hundredths() -> None:
    encoder = make(norm_first=False, num_layers=20)
    weights = torch.cat([layer.fc1.weight.flatten() for layer in encoder.layers])
    assert weights.std().item() == pytest.approx(0.02, rel=0.05)
    assert not any(layer.self_attn.k_proj.bias.any() for layer in encoder.layers)


def test_gradients_are_scaled_and_values_are_not() -> None:
    x = torch.randn(5, requires_grad=True)
    y = scale_gradient(x, 0.1)
    assert torch.equal(y, x)
    (y * torch.arange(5)).sum().backward()
    torch.testing.assert_close(x.grad, 0.1 * torch.arange(5))


def test_the_mean_leaves_padding_out() -> None:
    x = torch.arange(12.0).view(2, 3, 2)
    padding = torch.tensor([[False, False, True], [True, True, True]])
    assert masked_mean(x, padding).tolist() == [[1.0, 2.0], [0.0, 0.0]]
    assert torch.equal(masked_mean(x), x.mean(1))
