"""Operation counts against PyTorch's own counter, and against the figure the documents quote."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fairseq_ecg.models.ecg_transformer import EcgTransformer, EcgTransformerConfig, forward_flops


def test_counted_operations_are_what_a_forward_pass_does():
    """PyTorch counts products and convolutions; the attention of the tiny model is below its notice."""
    cfg = EcgTransformerConfig.tiny()
    with torch.device("meta"):
        model = EcgTransformer(cfg).eval()
        source = torch.empty(1, 12, 500)
    with FlopCounterMode(display=False) as counter:
        model.encode(source)
    assert counter.get_total_flops() == pytest.approx(forward_flops(cfg, 500), rel=0.05)


def test_an_update_of_the_base_model_is_about_88_gflop_per_segment():
    assert 3 * forward_flops(EcgTransformerConfig(), 2500) == pytest.approx(88e9, rel=0.02)
