from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_ecg.contracts import Batch, Keys
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.methods.wcr import (
    Wav2Vec2,
    Wav2Vec2Config,
    Wav2Vec2Criterion,
    Wav2Vec2CriterionConfig,
    Wav2Vec2WithCmsc,
    Wav2Vec2WithCmscConfig,
    draw_cross_negatives,
    draw_negatives,
)
from fairseq_ecg.models.ecg_transformer import EcgTransformer, EcgTransformerConfig


def tiny(**options: object) -> Wav2Vec2:
    torch.manual_seed(0)
    return Wav2Vec2(replace(Wav2Vec2Config.tiny(), **options))


def make_batch(size: int = 4, padded: bool = False) -> Batch:
    torch.manual_seed(9)
    rows = np.arange(size)
    lengths = torch.tensor([320, 250, 320, 200])[:size]
    return Batch(
        keys=Keys(0, rows, rows * 0),
        source=torch.randn(size, 12, 320),
        scale=torch.ones(size),
        patient=torch.arange(size) // 2,
        segment=torch.arange(size) % 2,
        padding_mask=torch.arange(320) >= lengths[:, None] if padded else None,
    )


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 90_883_072),
        (
            {
                "encoder_layers": 24,
                "encoder_embed_dim": 1024,
                "encoder_ffn_embed_dim": 4096,
                "encoder_attention_heads": 16,
            },
            311_940_352,
        ),
        ({"encoder_layers": 8}, 62_531_584),
    ],
)
def test_the_published_sizes_have_the_published_parameter_counts(options: dict, count: int) -> None:
    with torch.device("meta"):
        model = Wav2Vec2(Wav2Vec2Config(apply_mask=True, quantize_targets=True, final_dim=256, **options))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def slow_logits(model: Wav2Vec2, prediction: Tensor, candidate: Tensor, negatives: Tensor) -> Tensor:
    """Negatives copied out one by one: (B, M, 1 + N)."""
    rows, places, number = negatives.shape
    flat = candidate.reshape(-1, candidate.shape[-1])
    logits = torch.empty(rows, places, number + 1)
    for b in range(rows):
        for m in range(places):
            x, y = prediction[b, m], candidate[b, m]
            logits[b, m, 0] = F.cosine_similarity(x, y, dim=0)
            for n in range(number):
                other = flat[negatives[b, m, n]]
                equal = torch.equal(other, y)
                logits[b, m, n + 1] = -torch.inf if equal else F.cosine_similarity(x, other, dim=0)
    return logits / model.cfg.logit_temp


@pytest.mark.parametrize("cross", [0, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"quantize_targets": False}, {"target_glu": True}, {"latent_dim": 12}, {"latent_vars": 2}],
)
def test_logits_equal_those_of_copied_negatives(options: dict, cross: int) -> None:
    model = tiny(cross_sample_negatives=cross, **options).eval()
    batch = make_batch()
    mask = torch.zeros(4, 20, dtype=torch.bool)
    mask[:, [1, 2, 3, 8, 9, 17]] = True
    if cross:
        negatives = torch.randint(24, (4, 6, 5 + cross))
    else:
        negatives = torch.randint(6, (4, 6, 5)) + 6 * torch.arange(4)[:, None, None]
    output = model(batch.source, mask_indices=mask, negatives=negatives)

    features = model.front_end(batch.source, None).features
    x = torch.where(mask[..., None], model.mask_emb, model.project(features))
    frames = model.contextualise(x, None).frames
    prediction = model.final_proj(frames[mask].view(4, 6, -1))
    target = features[mask].view(4, 6, -1)
    if model.quantizer is not None:
        target = model.quantizer(target).quantized
    candidate = model.project_q(target)
    if model.target_glu is not None:
        candidate = model.target_glu(candidate)
    expected = slow_logits(model, prediction, candidate, negatives)
    assert torch.equal(output.logits.isinf(), expected.isinf())
    torch.testing.assert_close(output.logits, expected, rtol=1e-5, atol=1e-5)
    if options.get("latent_vars") == 2:
        assert expected.isinf().float().mean() > 0.2  # few codes: equality was put to the test
    loss = Wav2Vec2Criterion(Wav2Vec2CriterionConfig()).score(output, batch).loss
    slow = sum(F.cross_entropy(row[None], torch.zeros(1, dtype=torch.int64)) for row in expected.view(24, -1))
    torch.testing.assert_close(loss, slow, rtol=1e-5, atol=1e-5)


def test_codebook_negatives_are_projected_codes() -> None:
    model = tiny(codebook_negatives=400, num_negatives=0, latent_vars=3, latent_groups=2).eval()
    output = model(make_batch().source)
    codes = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    table = model.project_q(model.quantizer.look_up(codes))  # the nine vectors there are
    for b in range(4):
        for m in output.valid[b].nonzero()[:, 0]:
            own = output.quantizer.codes[b, m]
            values = output.logits[b, m, 1:]
            # Eight of nine codes are seen, the positive's own share is -inf.
            assert values.isinf().float().mean().item() == pytest.approx(1 / 9, abs=0.08)
            assert len(values[values.isfinite()].round(decimals=4).unique()) <= 8
            positive = F.normalize(table[own[0] * 3 + own[1]], dim=0)
            assert not torch.isclose(values[values.isfinite()] * 0.1, positive @ positive, atol=0).all()


def test_negatives_are_uniform_over_the_other_valid_places_of_the_row() -> None:
    torch.manual_seed(0)
    valid = torch.tensor(
        [[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]], dtype=torch.bool
    )
    index = draw_negatives(valid, 30_000)
    for b, count in ((0, 5), (1, 3)):
        for m in range(count):
            shares = torch.bincount(index[b, m], minlength=7) / 30_000
            expected = torch.tensor([0.0 if n == m or n >= count else 1 / (count - 1) for n in range(7)])
            torch.testing.assert_close(shares, expected, rtol=0, atol=0.015)
    assert (index[2, 0] == 0).all()  # alone: its own negative, which the logits leave out
    assert (index >= 0).all()
    assert (index < 7).all()


def test_cross_negatives_are_uniform_over_the_other_valid_places_of_the_batch() -> None:
    torch.manual_seed(0)
    valid = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    index = draw_cross_negatives(valid, 30_000)
    places = [0, 1, 2, 4, 5]
    for own in places:
        shares = torch.bincount(index.view(8, -1)[own], minlength=8) / 30_000
        expected = torch.tensor([0.25 if n in places and n != own else 0.0 for n in range(8)])
        torch.testing.assert_close(shares, expected, rtol=0, atol=0.015)


@pytest.mark.parametrize("padded", [False, True])
def test_places_without_a_masked_frame_change_nothing(padded: bool) -> None:
    """The constant capacity is a matter of shapes: the loss is that of the masked frames alone."""
    model, batch = tiny().eval(), make_batch(padded=padded)
    mask = torch.zeros(4, 20, dtype=torch.bool)
    mask[:, [0, 3, 4, 7, 10]] = True
    negatives = (torch.randint(4, (4, 5, 5)) + torch.arange(5)[:, None] + 1) % 5 + 5 * torch.arange(4)[
        :, None, None
    ]
    exact = model(batch.source, batch.padding_mask, mask_indices=mask, negatives=negatives)
    wide = torch.cat(
        [negatives % 5 + 9 * torch.arange(4)[:, None, None], torch.zeros(4, 4, 5, dtype=torch.int64)], 1
    )
    roomy = model(batch.source, batch.padding_mask, mask_indices=mask, negatives=wide)
    criterion = Wav2Vec2WithCmsc(Wav2Vec2WithCmscConfig(loss_weights=[0.1, 10.0]))
    first, second = criterion.score(exact, batch), criterion.score(roomy, batch)
    assert roomy.logits.shape[1] == 9
    assert first.sample_size == second.sample_size == 20
    torch.testing.assert_close(first.loss, second.loss, rtol=1e-5, atol=1e-5)
    assert first.logs["accuracy"] == second.logs["accuracy"]


def test_the_total_is_the_weighted_sum_of_its_terms() -> None:
    model, batch = tiny().eval(), make_batch()
    output = model(batch.source)
    step = Wav2Vec2WithCmsc(
        Wav2Vec2WithCmscConfig(
            loss_weights=[0.3, 2.0], cmsc_weights=0.7, log_keys=["temp", "code_perplexity", "prob_perplexity"]
        )
    ).score(output, batch)
    size = step.sample_size
    assert size == output.valid.sum()
    num_vars = output.quantizer.num_vars
    diversity = (num_vars - output.quantizer.prob_perplexity) / num_vars
    torch.testing.assert_close(step.logs["loss_1"][0], 0.3 * diversity * size)
    torch.testing.assert_close(step.logs["loss_2"][0], 2.0 * output.features_pen * size)
    parts = sum(step.logs[f"loss_{i}"][0] for i in range(4))
    torch.testing.assert_close(step.loss, parts)
    assert step.logs["temp"][0] == 2.0
    assert step.logs["accuracy"][1] == size
    plain = Wav2Vec2Criterion(Wav2Vec2CriterionConfig()).score(output, batch)
    torch.testing.assert_close(plain.loss, step.logs["loss_0"][0])


def test_a_penalty_without_a_quantizer_takes_the_last_weight() -> None:
    model, batch = tiny(quantize_targets=False).eval(), make_batch()
    output = model(batch.source)
    for weights in ([10.0], [0.1, 10.0]):
        cfg = Wav2Vec2CriterionConfig(loss_weights=weights, log_keys=["temp"])
        step = Wav2Vec2Criterion(cfg).score(output, batch)
        assert "temp" not in step.logs
        torch.testing.assert_close(step.logs["loss_1"][0], 10.0 * output.features_pen * step.sample_size)
        assert "loss_2" not in step.logs


def test_every_parameter_learns_in_one_update() -> None:
    model = tiny(target_glu=True, conv_bias=True).train()
    Wav2Vec2WithCmsc(Wav2Vec2WithCmscConfig(loss_weights=[0.1, 10.0]))(model, make_batch()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    frozen = [name for name, p in model.named_parameters() if not p.grad.any()]
    assert frozen == []


def test_a_step_depends_on_the_seed_and_on_nothing_else() -> None:
    model = tiny(
        dropout=0.1, attention_dropout=0.1, dropout_input=0.1, dropout_features=0.1, encoder_layerdrop=0.2
    )
    criterion, batch = Wav2Vec2WithCmsc(Wav2Vec2WithCmscConfig()), make_batch(padded=True)
    losses = []
    for seed in (5, 6, 5):
        torch.manual_seed(seed)
        losses.append(criterion(model.train(), batch).loss.item())
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize("padded", [False, True])
def test_bfloat16_stays_near_float32(padded: bool) -> None:
    model, batch = tiny().eval(), make_batch(padded=padded)
    criterion = Wav2Vec2WithCmsc(Wav2Vec2WithCmscConfig(loss_weights=[0.1, 10.0]))
    torch.manual_seed(1)
    exact = criterion(model, batch).loss
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = criterion(model, batch).loss
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.03)


def test_channel_masks_zero_whole_channels() -> None:
    model = tiny(mask_channel_prob=0.5, mask_channel_length=4).eval()
    seen: list[Tensor] = []
    model.conv_pos.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    model(make_batch().source)
    dropped = (seen[0] == 0).all(dim=1)  # (B, C)
    assert 0.1 < dropped.float().mean() < 0.7
    assert len(set(dropped.sum(1).tolist())) == 1


def test_the_temperature_follows_the_updates() -> None:
    model = tiny()
    model.before_update(1000)
    assert model(make_batch().source).quantizer.temperature.item() == pytest.approx(1.9900249335)


def test_embedding_masks_nothing() -> None:
    model = tiny()
    plain = EcgTransformer(EcgTransformerConfig.tiny())
    plain.load_state_dict(model.state_dict(), strict=False)
    source = make_batch().source
    assert torch.equal(model.eval().encode(source).frames, plain.eval().encode(source).frames)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"quantize_input": True}, "quantize_input"),
        ({"negatives_from_everywhere": True}, "negatives_from_everywhere"),
        ({"num_negatives": 0}, "num_negatives=0"),
        ({"codebook_negatives": 3, "quantize_targets": False}, "codebook_negatives=3"),
        ({"latent_temp": [1.0, 0.5]}, "latent_temp"),
        ({"logit_temp": 0.0}, "logit_temp"),
        ({"latent_groups": 3}, "latent_groups=3"),
        ({"mask_prob": 1.2}, "probability"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        tiny(**options)


def test_a_final_width_of_zero_is_the_encoders() -> None:
    assert tiny(final_dim=0).final_proj.out_features == 16


def test_a_criterion_refuses_a_model_that_would_train_nothing() -> None:
    criterion = Wav2Vec2Criterion(Wav2Vec2CriterionConfig())
    with pytest.raises(ConfigError, match=r"apply_mask=false and model\.mask_prob=0\.5"):
        criterion.validate_model(tiny(apply_mask=False))
    with pytest.raises(ConfigError, match=r"mask_prob=0\.0"):
        criterion.validate_model(tiny(mask_prob=0.0))
    with pytest.raises(ConfigError, match="not EcgTransformer"):
        criterion.validate_model(EcgTransformer(EcgTransformerConfig.tiny()))
    with pytest.raises(ConfigError, match="apply_mask=false"):
        tiny(apply_mask=False)(make_batch().source)
    criterion.validate_model(tiny())


@pytest.mark.parametrize(
    "options", [{"infonce": False}, {"log_keys": ["temperature"]}, {"loss_weights": [1.0, 2.0, 3.0]}]
)
def test_criterion_options_that_cannot_work_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        Wav2Vec2WithCmscConfig(**options)
