"""torch.compile: one graph, one compilation, the same numbers."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from fairseq_ecg.contracts import Batch, Keys
from fairseq_ecg.methods.wcr import Wav2Vec2, Wav2Vec2Config, Wav2Vec2Criterion, Wav2Vec2CriterionConfig


def make_batch() -> Batch:
    rows = np.arange(4)
    return Batch(
        keys=Keys(0, rows, rows * 0),
        source=torch.ones(4, 12, 320).cumsum(-1).sin(),
        scale=torch.ones(4),
        patient=torch.arange(4) // 2,
        segment=torch.arange(4) % 2,
    )


@pytest.mark.slow
def test_the_compiled_model_is_one_graph_and_equals_the_eager_one() -> None:
    torch.manual_seed(0)
    model = Wav2Vec2(replace(Wav2Vec2Config.tiny(), encoder_layers=1)).eval()
    source, mask = torch.randn(4, 12, 320), torch.zeros(4, 20, dtype=torch.bool)
    mask[:, [1, 2, 3, 8, 9, 17]] = True
    draws = {
        "mask_indices": mask,
        "negatives": torch.randint(6, (4, 6, 5)) + 6 * torch.arange(4)[:, None, None],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler, about itself
        torch._dynamo.reset()
        compiled = torch.compile(model, fullgraph=True, dynamic=False)
        output, expected = compiled(source, **draws), model(source, **draws)
    torch.testing.assert_close(output.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.encoder.frames, expected.encoder.frames, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.features_pen, expected.features_pen)


@pytest.mark.slow
def test_training_steps_with_drawn_masks_compile_once() -> None:
    torch.manual_seed(0)
    cfg = replace(
        Wav2Vec2Config.tiny(), encoder_layers=1, dropout=0.1, attention_dropout=0.1, dropout_input=0.1
    )
    model = Wav2Vec2(cfg).train()
    criterion = Wav2Vec2Criterion(Wav2Vec2CriterionConfig(loss_weights=[0.1, 10.0]))
    counter = CompileCounterWithBackend("inductor")
    losses = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._dynamo.reset()
        compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=False)
        for num_updates, seed in enumerate((3, 4, 3)):
            model.before_update(num_updates)  # the temperature changes, the graph does not
            torch.manual_seed(seed)
            output = compiled(make_batch().source)
            loss = criterion.score(output, make_batch()).loss
            loss.backward()
            losses.append(loss.item())
    assert counter.frame_count == 1
    assert losses[0] == pytest.approx(losses[2], rel=1e-4)
    assert losses[0] != losses[1]
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.slow
def test_compiled_dropout_draws_what_eager_code_draws() -> None:
    """Values and gradients: the backward pass must reuse the forward pass's draw, not make another."""
    torch.manual_seed(0)
    cfg = replace(
        Wav2Vec2Config.tiny(), encoder_layers=1, dropout=0.2, attention_dropout=0.2, dropout_input=0.2
    )
    encoder = Wav2Vec2(cfg).train().encoder
    x, probe = torch.randn(2, 20, 16), torch.randn(2, 20, 16)
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._dynamo.reset()
        for form in (encoder, torch.compile(encoder, fullgraph=True, dynamic=False)):
            encoder.zero_grad()
            torch.manual_seed(1)
            frames = form(x)[0]
            (frames * probe).sum().backward()
            results.append([frames.detach(), *(p.grad.clone() for p in encoder.parameters())])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)
    assert (results[0][0] - encoder.eval()(x)[0]).abs().max() > 0.1
