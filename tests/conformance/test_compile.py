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
    """Batches of one size. Dropout draws the same numbers either way; a compiled graph draws masks, negatives
    and Gumbel noise from a generator of its own (of the same seeds): pre-training agrees in the mean.
    """
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
    tolerance = 1e-4 if method == "diagnosis" else 0.1
    assert losses["true"] == pytest.approx(losses["false"], rel=tolerance)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == 1, f"{graphs} graphs were compiled"
    assert not torch._dynamo.utils.counters["graph_break"]
