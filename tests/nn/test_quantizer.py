from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fairseq_ecg.errors import ConfigError
from fairseq_ecg.nn.quantizer import GumbelQuantizer


def slow_quantizer(module: GumbelQuantizer, x: Tensor, noise: Tensor | None, tau: float) -> Tensor:
    """The one-hot product of the paper, with its straight-through gradient."""
    logits = module.weight_proj(x).view(-1, module.num_vars_per_group)  # frame-major, then group
    if noise is None:
        one_hot = torch.nn.functional.one_hot(logits.argmax(-1), module.num_vars_per_group).float()
    else:
        soft = ((logits + noise) / tau).softmax(-1)
        hard = torch.nn.functional.one_hot(soft.argmax(-1), module.num_vars_per_group).float()
        one_hot = hard - soft.detach() + soft
    one_hot = one_hot.view(*x.shape[:2], module.num_vars)
    product = one_hot[..., None] * module.vars[0]
    return product.view(*x.shape[:2], module.groups, module.num_vars_per_group, -1).sum(3).flatten(2)


@pytest.mark.parametrize("training", [False, True])
def test_look_ups_equal_the_one_hot_product_with_its_gradients(training: bool) -> None:
    torch.manual_seed(0)
    module = GumbelQuantizer(5, 7, 3, 6, (2.0, 0.5, 0.9)).train(training)
    module.set_num_updates(2)
    x = torch.randn(2, 4, 5, requires_grad=True)
    noise = -torch.empty(2 * 4 * 3, 7).exponential_().log()
    probe = torch.randn(2, 4, 6)
    results = []
    for quantized in (
        module(x, noise=noise).quantized,
        slow_quantizer(module, x, noise if training else None, 2.0 * 0.9**2),
    ):
        module.zero_grad()
        x.grad = None
        (quantized * probe).sum().backward()
        grads = [module.vars.grad, module.weight_proj.weight.grad, x.grad]
        results.append([quantized.detach(), *(g.clone() if g is not None else torch.zeros(1) for g in grads)])
    for mine, slow in zip(*results, strict=True):
        torch.testing.assert_close(mine, slow.view_as(mine) if slow.numel() == mine.numel() else slow)
    if training:
        assert results[0][2].abs().max() > 0  # the choice itself learns


def test_perplexities_count_valid_frames_only() -> None:
    torch.manual_seed(0)
    module = GumbelQuantizer(5, 7, 2, 6, (2.0, 0.5, 0.9)).eval()
    x = torch.randn(3, 4, 5)
    valid = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    output = module(x, valid)
    logits = module.weight_proj(x)[valid].view(-1, 2, 7)
    code = prob = 0.0
    for group in range(2):
        shares = [(logits[:, group].argmax(-1) == v).float().mean().item() for v in range(7)]
        code += math.exp(-sum(p * math.log(p + 1e-7) for p in shares))
        means = logits[:, group].softmax(-1).mean(0).tolist()
        prob += math.exp(-sum(p * math.log(p + 1e-7) for p in means))
    assert output.code_perplexity.item() == pytest.approx(code, rel=1e-5)
    assert output.prob_perplexity.item() == pytest.approx(prob, rel=1e-5)
    assert output.num_vars == 14


def test_the_noise_is_gumbel() -> None:
    """A choice with Gumbel noise is a draw from the softmax."""
    torch.manual_seed(0)
    module = GumbelQuantizer(1, 4, 1, 1, (2.0, 0.5, 0.9))
    with torch.no_grad():
        module.weight_proj.weight.zero_()
        module.weight_proj.bias.copy_(torch.tensor([0.0, 1.0, 2.0, -1.0]))
    codes = module(torch.zeros(1, 40_000, 1)).codes.flatten()
    shares = torch.bincount(codes, minlength=4) / 40_000
    torch.testing.assert_close(shares, module.weight_proj.bias.detach().softmax(0), rtol=0, atol=0.012)


def test_the_temperature_decays_to_its_floor() -> None:
    module = GumbelQuantizer(1, 4, 1, 1, (2.0, 0.5, 0.999995))
    assert module.temperature.item() == 2.0
    module.set_num_updates(1000)
    assert module.temperature.item() == pytest.approx(1.9900249335099047)
    assert module.temperature_at(277_257) > 0.5
    assert module.temperature_at(277_259) == 0.5
    assert "temperature" not in module.state_dict()


def test_groups_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="latent_groups=2"):
        GumbelQuantizer(4, 4, 2, 5, (2.0, 0.5, 0.9))
