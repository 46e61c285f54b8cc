"""Rates of the log are of the updates they were measured over."""

import json

from fairseq_ecg.trainer.clock import Clock
from fairseq_ecg.trainer.trainer import Trainer
from tests.training import diagnosis


class Waiting:
    wait_seconds = 0.25


def test_a_reading_covers_what_happened_since_the_last_one():
    clock = Clock(Waiting())
    clock.updates, clock.rows = 3, 12
    assert clock.read()[1:] == (3, 12, 0.25)
    clock.updates, clock.rows = 4, 16
    assert clock.read()[1:] == (1, 4, 0.0)


def test_the_first_line_of_an_epoch_does_not_count_updates_of_the_one_before(manifest_dir, tmp_path):
    """32 segments in batches of 3 are 11 updates: update 12 is the first of epoch 2."""
    options = ("optimization.max_update=12", "common.log_interval=4", "dataset.valid_subset=valid")
    Trainer.from_config(diagnosis(manifest_dir, tmp_path, *options)).run()
    lines = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    per_update = [line["segments_per_sec"] / line["ups"] for line in lines if line["kind"] == "train_inner"]
    assert [round(value, 6) for value in per_update] == [3.0, 3.0, 3.0]
