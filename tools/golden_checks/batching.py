"""Sample order, batch composition, epoch order and shards of fairseq-signals, against ``reference_order``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.sampler import BatchSampler, group, reference_epoch_order, reference_order, shard
from tools.golden_checks.report import Report


def check(folder: Path, report: Report) -> None:
    """Recompute every case of a fixture folder: lists of lengths in, lists of batches out."""
    cases = json.loads((folder / "config.json").read_text(encoding="utf-8"))["cases"]
    with np.load(folder / "io.npz", allow_pickle=False) as arrays:
        for name, case in cases.items():
            sizes = arrays[f"{name}/sizes"].astype(np.int64)
            _check_case(name, case, sizes, arrays[f"{name}/order"], report)


def _check_case(
    name: str, case: dict[str, Any], sizes: NDArray[np.int64], golden: NDArray[Any], report: Report
) -> None:
    cap, seed, num_shards = case["max_sample_size"], case["seed"], case["num_shards"]
    capped = sizes if cap is None else np.minimum(sizes, cap)
    order = reference_order(capped, seed) if case["shuffle_samples"] else np.arange(len(sizes))
    report.equal(f"{name}/order", order, golden)
    lengths = sizes if case["enable_padding"] else capped
    limits = {"batch_size": case["batch_size"], "max_tokens": case["max_tokens"]}
    multiple = case["required_batch_size_multiple"]
    batches = [part.tolist() for part in group(order, lengths, multiple=multiple, **limits)]
    report.equal(f"{name}/batches", batches, case["batches"])
    sampler = BatchSampler(
        lambda epoch: np.arange(len(sizes), dtype=np.int64)[:, None],
        sizes,
        seed=seed,
        shuffle=case["shuffle_samples"],
        required_batch_size_multiple=multiple,
        reference_order=True,
        max_sample_size=cap,
        enable_padding=case["enable_padding"],
        **limits,
    )
    for text, expected in case["epochs"].items():
        epoch = int(text)
        if case["shuffle_batches"]:
            place = reference_epoch_order(len(batches), seed, epoch).tolist()
        else:
            place = list(range(len(batches)))
        epoch_batches = [batches[i] for i in place]
        shards = [
            [epoch_batches[g] if g < len(batches) else [] for g in shard(len(batches), rank, num_shards)]
            for rank in range(num_shards)
        ]
        report.equal(f"{name}/epoch {epoch}", shards, expected)
        if case["shuffle_samples"] == case["shuffle_batches"]:  # the combinations a run can ask for
            keys = [key.index.tolist() for key in sampler.epoch(epoch)]
            report.equal(f"{name}/epoch {epoch}/sampler", keys, epoch_batches)
