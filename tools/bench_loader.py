"""Segments per second of the loader, beside fairseq-signals' way of reading and a plain dataset's.

    python tools/bench_loader.py [--num-records 2000] [--batch-size 128] [--num-pairs 7]

Timed is the whole ``for batch in loader`` of three epochs: keys drawn and shuffled, lead masks drawn,
segments gathered and handed out; in the float32 lines also dequantisation and masking, up to the model's
input. All on one core unless --num-workers says otherwise, from the page cache, 12 leads x 2500 samples at
500 Hz. Each pair times baseline and ours one after the other; the ratio is taken within the pair.

Baselines:
    mat      one .mat file per segment (float64 mV) read by scipy.io, leads masked one sample at a time,
             collated: what fairseq-signals does
    samples  the same store, one sample at a time: a slice of the memory map, float32 mV, masked, collated
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.augment.pipeline import Pipeline
from fairseq_ecg.data.dataset import ManifestDataset
from fairseq_ecg.data.device import prepare_source
from fairseq_ecg.data.loader import Loader
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.pairing import single
from fairseq_ecg.data.sampler import BatchSampler
from fairseq_ecg.data.segments import StoreSegments
from fairseq_ecg.data.split import SplitOptions, split_stores
from fairseq_ecg.data.store import StoreWriter

GOALS = {"int16": 100_000, "float32": 40_000}
NUM_SAMPLES = 2500
NUM_EPOCHS = 3
MASK_PROB = 0.5


def main(argv: list[str] | None = None) -> int:
    """Make the data, time the pairs, print one line per comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-records", type=int, default=2000, help="10 s records, two segments each")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--num-pairs", type=int, default=7)
    parser.add_argument("--num-workers", type=int, default=0, help="threads; 0: all in the one that is timed")
    parser.add_argument("--num-baseline", type=int, default=640, help="segments per timing of a baseline")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = make_dataset(folder, options.num_records)
        loader = LoaderRate(dataset, options.batch_size, options.num_workers)
        write_mat_segments(dataset, folder / "mat", options.num_baseline)
        samples = sample_baseline(dataset, options.num_baseline, options.batch_size)
        mats = mat_baseline(folder / "mat", options.batch_size)
        size = f"batches of {options.batch_size}, {options.num_workers} workers"
        for title, baseline in (("mat", mats), ("samples", samples)):
            for kind in GOALS:
                compare(title, kind, baseline, partial(loader, kind), options.num_pairs, size)
    return 0


def compare(
    title: str, kind: str, baseline: Callable[[], float], ours: Callable[[], float], num_pairs: int, size: str
) -> None:
    """Time interleaved pairs and print their median and spread."""
    baseline()
    ours()
    rates = [(baseline(), ours()) for _ in range(num_pairs)]
    ratio = sorted(mine / theirs for theirs, mine in rates)
    mine = sorted(rate for _, rate in rates)
    theirs = statistics.median(rate for rate, _ in rates)
    print(
        f"{kind} for batch in loader ({size}) vs {title}: ours {statistics.median(mine):,.0f} segments/s "
        f"({mine[0]:,.0f} to {mine[-1]:,.0f}; goal {GOALS[kind]:,}), {title} {theirs:,.0f}, "
        f"ratio {statistics.median(ratio):.1f} ({ratio[0]:.1f} to {ratio[-1]:.1f}), {num_pairs} pairs"
    )


class LoaderRate:
    """Segments per second of some epochs, others at every call."""

    def __init__(self, dataset: ManifestDataset, batch_size: int, num_workers: int) -> None:
        self.dataset = dataset
        self.num_workers = num_workers
        self.epoch = 0
        self.sampler = BatchSampler(
            lambda epoch: single(dataset.manifest, epoch, 1),
            dataset.manifest.num_samples,
            batch_size=batch_size,
            seed=1,
        )

    def __call__(self, kind: str) -> float:
        count = 0
        start = time.perf_counter()
        for _ in range(NUM_EPOCHS):
            self.epoch += 1
            loader = Loader(self.dataset, self.sampler, epoch=self.epoch, num_workers=self.num_workers)
            for batch in loader:
                if kind == "float32":
                    batch = prepare_source(batch, self.dataset.pipeline, "none", train=True)
                count += len(batch)
        return count / (time.perf_counter() - start)


def sample_baseline(dataset: ManifestDataset, num_segments: int, batch_size: int) -> Callable[[], float]:
    """Per-sample slices of the same store."""
    segments = dataset.segments
    assert isinstance(segments, StoreSegments)
    store = segments.stores[0]
    rng = np.random.default_rng(0)

    def read(row: int) -> torch.Tensor:
        place = segments.locate(row)[1]
        start = int(dataset.manifest.start[row])
        units = store.raw(place)[:, start : start + NUM_SAMPLES]
        return torch.from_numpy(units * np.float32(store.index.scale[place]))

    def rate() -> float:
        rows = rng.permutation(dataset.manifest.num_rows)[:num_segments].tolist()
        return _collate_all(rows, read, batch_size, rng)

    return rate


def mat_baseline(folder: Path, batch_size: int) -> Callable[[], float]:
    """One scipy.io.loadmat per segment."""
    import scipy.io

    paths = sorted(folder.iterdir())
    rng = np.random.default_rng(0)

    def read(row: int) -> torch.Tensor:
        return torch.from_numpy(scipy.io.loadmat(paths[row])["feats"]).float()

    return lambda: _collate_all(rng.permutation(len(paths)).tolist(), read, batch_size, rng)


def _collate_all(
    rows: list[int], read: Callable[[int], torch.Tensor], batch_size: int, rng: np.random.Generator
) -> float:
    start = time.perf_counter()
    for first in range(0, len(rows), batch_size):
        samples = []
        for row in rows[first : first + batch_size]:
            keep = torch.from_numpy((rng.random(len(STANDARD_LEADS)) >= MASK_PROB).astype(np.float32))
            samples.append(read(row) * keep[:, None])
        torch.stack(samples)
    return len(rows) / (time.perf_counter() - start)


def make_dataset(folder: Path, num_records: int) -> ManifestDataset:
    """A store of noise and its manifest of two segments per record."""
    rng = np.random.default_rng(0)
    with StoreWriter(folder / "store", sampling_rate=500, leads=STANDARD_LEADS, choices={}) as writer:
        for i in range(num_records):
            record = Record(
                record_id=f"r{i}",
                patient_id=f"p{i}",
                source="bench",
                signal=rng.standard_normal((len(STANDARD_LEADS), 2 * NUM_SAMPLES), dtype=np.float32),
                leads=STANDARD_LEADS,
                sampling_rate=500,
            )
            writer.add(record, leads_present=STANDARD_LEADS)
    split_stores([folder / "store"], folder, SplitOptions(segment_sec=5.0, valid="0", test="0"))
    return ManifestDataset(
        Manifest.read(folder / "train.tsv"),
        leads=STANDARD_LEADS,
        num_samples=None,
        pipeline=Pipeline.parse(f"random_lead_mask(p={MASK_PROB})"),
        seed=1,
    )


def write_mat_segments(dataset: ManifestDataset, folder: Path, num_segments: int) -> None:
    """The .mat files that fairseq-signals' preprocessing leaves: float64 mV and a few scalars."""
    from scipy.io import savemat

    folder.mkdir()
    for row in range(min(num_segments, dataset.manifest.num_rows)):
        feats = dataset.segments.witness(row).astype(np.float64)
        savemat(folder / f"{row:06d}.mat", {"feats": feats, "curr_sample_rate": 500, "idx": row})


if __name__ == "__main__":
    raise SystemExit(main())
