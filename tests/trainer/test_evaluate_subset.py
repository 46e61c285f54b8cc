"""What a limited validation sees, on one rank and on two."""

from __future__ import annotations

import pytest

from fairseq_ecg.trainer.distributed import World
from fairseq_ecg.trainer.trainer import Trainer
from fairseq_ecg.trainer.validate import evaluate_subset
from tests.training import diagnosis


class Alone(World):
    """One rank of several, whose collectives answer for itself."""

    def all_reduce(self, value):
        return value

    def gather_rows(self, value):
        return value


@pytest.mark.parametrize("max_batches", [1, 3])
def test_a_limited_validation_sees_the_same_batches_on_any_number_of_ranks(
    manifest_dir, tmp_path, max_batches
):
    trainer = Trainer.from_config(diagnosis(manifest_dir, tmp_path, "dataset.batch_size_valid=1"))

    def evaluated(world: World) -> tuple[list[int], float]:
        """Numbers of the batches seen, and the mean loss over them."""
        numbers = []
        values = evaluate_subset(
            trainer.task,
            trainer.model,
            trainer.criterion,
            "valid",
            world=world,
            precision=trainer.precision,
            seed=1,
            max_batches=max_batches,
            sink=lambda batch, output: numbers.extend([batch.batch_index] if batch.weight else []),
        )
        return numbers, values["loss"]

    expected = list(range(max_batches))
    numbers, loss = evaluated(World())
    assert numbers == expected
    parts = [evaluated(Alone(rank=rank, size=2)) for rank in range(2)]
    assert sorted(parts[0][0] + parts[1][0]) == expected
    total = sum(len(part) * mean for part, mean in parts if part)
    assert total / max_batches == pytest.approx(loss, rel=1e-5)
