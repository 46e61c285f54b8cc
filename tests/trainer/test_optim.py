"""Adam against the update rule written out, and the groups it works on."""

import pytest
import torch
from torch import nn

from fairseq_ecg.errors import CheckpointError, ConfigError
from fairseq_ecg.models.base import EcgModel
from fairseq_ecg.trainer.optim import (
    Adam,
    AdamConfig,
    DecayRule,
    clip_factor,
    overridden,
    parameter_groups,
    total_norm,
)


class Stack(nn.Module):
    """Three numbered layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))

    def layer_index(self, name: str) -> int:
        return int(name.split(".")[1])


def slow_adam(parameter, gradients, *, lr, betas, eps, weight_decay):
    """The rule in float64: eps is added before the bias correction, decay is decoupled."""
    p, m, v = parameter.double(), torch.zeros(3).double(), torch.zeros(3).double()
    for t, g in enumerate(gradients, start=1):
        m = betas[0] * m + (1 - betas[0]) * g.double()
        v = betas[1] * v + (1 - betas[1]) * g.double() ** 2
        p = p - lr * weight_decay * p
        p = p - lr * (1 - betas[1] ** t) ** 0.5 / (1 - betas[0] ** t) * m / (v.sqrt() + eps)
    return p.float()


def one_parameter(seed=0):
    generator = torch.Generator().manual_seed(seed)
    module = nn.ParameterDict({"p": nn.Parameter(torch.randn(3, generator=generator))})
    return module, [torch.randn(3, generator=generator) for _ in range(8)]


@pytest.mark.parametrize("eps", [1e-8, 1e-2])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_is_the_references_rule(eps, weight_decay):
    module, gradients = one_parameter()
    expected = slow_adam(
        module["p"].detach(), gradients, lr=0.05, betas=(0.9, 0.98), eps=eps, weight_decay=weight_decay
    )
    adam = Adam(AdamConfig(adam_betas=[0.9, 0.98], adam_eps=eps, weight_decay=weight_decay), model=module)
    for gradient in gradients:
        module["p"].grad = gradient.clone()
        adam.step(0.05, torch.zeros(()))
    torch.testing.assert_close(module["p"].detach(), expected, rtol=1e-5, atol=1e-6)


def test_a_skipped_update_changes_neither_parameters_nor_moments():
    module, gradients = one_parameter()
    adam = Adam(AdamConfig(weight_decay=0.1), model=module)
    module["p"].grad = gradients[0].clone()
    adam.step(0.05, torch.zeros(()))
    before = module["p"].detach().clone()
    moments = {name: value.clone() for name, value in adam.state_dict()["p"].items()}
    module["p"].grad = torch.full((3,), torch.nan)
    adam.step(0.05, torch.ones(()))
    assert torch.equal(module["p"].detach(), before)
    assert all(torch.equal(adam.state_dict()["p"][name], moments[name]) for name in moments)


def test_layer_decay_falls_from_the_head_to_the_input():
    groups = parameter_groups(Stack(), AdamConfig(layer_decay=0.5))
    assert [group.lr_scale for group in groups] == [0.25, 0.5, 1.0]
    assert groups[0].names == ("layers.0.weight", "layers.0.bias")


def test_layer_decay_changes_the_step_of_each_layer():
    model = Stack()
    before = [layer.weight.detach().clone() for layer in model.layers]
    adam = Adam(AdamConfig(layer_decay=0.5), model=model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    adam.step(0.1, torch.zeros(()))
    steps = [
        float((old - layer.weight.detach()).mean()) for old, layer in zip(before, model.layers, strict=True)
    ]
    assert steps == pytest.approx([0.025, 0.05, 0.1], rel=1e-4)


def test_decay_can_spare_vectors():
    groups = parameter_groups(Stack(), AdamConfig(weight_decay=0.1, decay_rule=DecayRule.MATRICES))
    assert {(group.weight_decay, all("weight" in name for name in group.names)) for group in groups} == {
        (0.1, True),
        (0.0, False),
    }


def test_frozen_parameters_get_no_group():
    model = Stack()
    model.layers[0].requires_grad_(False)
    names = [name for group in parameter_groups(model, AdamConfig()) for name in group.names]
    assert not any(name.startswith("layers.0") for name in names)


def test_layer_decay_needs_numbered_layers():
    with pytest.raises(ConfigError, match=r"layer_decay.*layer_index"):
        parameter_groups(nn.Linear(2, 2), AdamConfig(layer_decay=0.9))


def test_layer_decay_names_a_model_that_does_not_number_its_layers():
    class Plain(EcgModel):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 2)

    with pytest.raises(ConfigError, match=r"layer_decay: Plain does not number its layers"):
        parameter_groups(Plain(), AdamConfig(layer_decay=0.9))
    assert len(parameter_groups(Plain(), AdamConfig())) == 1


def test_optimizer_state_goes_by_name_and_comes_back():
    module, gradients = one_parameter()
    adam = Adam(AdamConfig(), model=module)
    module["p"].grad = gradients[0]
    adam.step(0.1, torch.zeros(()))
    twin, _ = one_parameter()
    twin.load_state_dict(module.state_dict())
    restored = Adam(AdamConfig(), model=twin)
    restored.load_state_dict(adam.state_dict())
    for one, other in ((module, adam), (twin, restored)):
        one["p"].grad = gradients[1].clone()
        other.step(0.1, torch.zeros(()))
    assert torch.equal(module["p"], twin["p"])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"q": {}}, "parameters the model has not, e.g. 'q'"),
        ({"p": {"exp_avg": torch.zeros(5)}}, "has shape \\(5,\\), the parameter \\(3,\\)"),
    ],
)
def test_foreign_optimizer_state_is_refused(state, message):
    module, _ = one_parameter()
    with pytest.raises(CheckpointError, match=message):
        Adam(AdamConfig(), model=module).load_state_dict(state)


def test_norm_and_clipping_are_global():
    gradients = [torch.tensor([3.0]), torch.tensor([[4.0]])]
    norm = total_norm(gradients)
    assert float(norm) == 5.0
    assert float(clip_factor(norm, 1.0)) == pytest.approx(1 / 5, rel=1e-5)
    assert float(clip_factor(norm, 10.0)) == 1.0
    assert float(clip_factor(norm, 0.0)) == 1.0


@pytest.mark.parametrize("betas", [[0.9], [0.9, 1.0]])
def test_betas_are_two_numbers_below_one(betas):
    with pytest.raises(ConfigError, match="adam_betas"):
        AdamConfig(adam_betas=betas)


def test_overrides_are_a_literal_dict():
    assert overridden(AdamConfig(weight_decay=0.1), "{'adam_eps': 1e-6}").adam_eps == 1e-6
    assert overridden(AdamConfig(weight_decay=0.1), "{}").weight_decay == 0.1
    with pytest.raises(ConfigError, match="a dict literal"):
        overridden(AdamConfig(), "__import__('os')")
    with pytest.raises(ConfigError, match=r"no option 'adam_ep'.*adam_eps"):
        overridden(AdamConfig(), "{'adam_ep': 1e-6}")


def test_parameters_without_a_gradient_are_left_alone_and_count_their_own_steps():
    """A parameter that was frozen for a while is corrected by the steps it made itself."""
    model = nn.ParameterDict({"a": nn.Parameter(torch.ones(3)), "b": nn.Parameter(torch.ones(3))})
    adam = Adam(AdamConfig(adam_betas=[0.9, 0.98], adam_eps=1e-2, weight_decay=0.1), model=model)
    gradients = [torch.full((3,), 0.01 * (step + 1)) for step in range(5)]
    for step, gradient in enumerate(gradients):
        model["a"].grad = gradient.clone()
        model["b"].grad = gradient.clone() if step >= 3 else None
        adam.step(0.05, torch.zeros(()))
        if step == 2:
            assert torch.equal(model["b"], torch.ones(3))
    rule = {"lr": 0.05, "betas": (0.9, 0.98), "eps": 1e-2, "weight_decay": 0.1}
    expected = {
        "a": slow_adam(torch.ones(3), gradients, **rule),
        "b": slow_adam(torch.ones(3), gradients[3:], **rule),
    }
    for name in expected:
        torch.testing.assert_close(model[name].detach(), expected[name], rtol=1e-5, atol=1e-6)
