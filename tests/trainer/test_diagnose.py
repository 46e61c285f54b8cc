"""The first module to produce a NaN is named, and the model is left as it was."""

import torch
from torch import Tensor, nn

from fairseq_ecg.trainer.diagnose import first_nonfinite


class Root(nn.Module):
    """Negative numbers have no square root."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


def stack() -> nn.Sequential:
    return nn.Sequential(nn.Identity(), nn.Sequential(Root(), nn.Identity()))


def test_the_innermost_module_that_makes_a_nan_is_named():
    model = stack()
    assert first_nonfinite(model, lambda: model(torch.tensor([-1.0]))) == "the output of 1.0 (Root)"
    assert first_nonfinite(model, lambda: model(torch.tensor([4.0]))) == ""


def test_bad_input_is_told_from_bad_modules():
    model = stack()
    found = first_nonfinite(model, lambda: model(torch.tensor([torch.nan])))
    assert found == "the input of 0 (Identity)"


def test_a_bad_parameter_is_named_before_anything_runs():
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(torch.inf)
    assert first_nonfinite(model, lambda: model(torch.ones(1))) == "parameter weight"


def test_no_hook_stays_behind():
    model = stack()
    first_nonfinite(model, lambda: model(torch.tensor([-1.0])))
    assert all(not module._forward_hooks for module in model.modules())
