"""torch.compile under the trainer: the same update, one graph for a whole epoch."""

from __future__ import annotations

import pytest
import torch

from fairseq_ecg.trainer.trainer import Trainer
from tests.training import METHODS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns about itself
@pytest.mark.parametrize("method", METHODS)
def test_a_compiled_run_follows_the_eager_one_without_recompiling(method, manifest_dir, tmp_path):
    """Batches of one size; draws come from the same generator, so that losses agree to rounding."""
    torch._dynamo.reset()
    losses = {}
    for compile_model in ("false", "true"):
        # 16 segments of the split make four equal batches: no ragged end, no second shape.
        cfg = METHODS[method](
            manifest_dir,
            tmp_path / compile_model,
            f"common.compile={compile_model}",
            "dataset.batch_size=4",
            "optimization.max_epoch=1",
            "dataset.disable_validation=true",
        )
        losses[compile_model] = Trainer.from_config(cfg).run()["loss"]
    assert losses["true"] == pytest.approx(losses["false"], rel=1e-4)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == 1, f"{graphs} graphs were compiled"
    assert not torch._dynamo.utils.counters["graph_break"]
