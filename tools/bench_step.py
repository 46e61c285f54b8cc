"""Time whole updates of a W2V model and give them as a share of the matrix-product rate of the same machine.

Inside the timed region of an update: seeding, temperature, drawing masks, negatives, noise and dropouts,
forward, both losses (InfoNCE with its penalties, CMSC), backward, fused Adam, clearing gradients. Outside:
making the data, building and compiling the model, two warm-up updates. A baseline is timed right before and
right after each update and the two are averaged, so that a busy machine slows both. Operations are counted
from shapes as multiply and add of the direct algorithm (three forward passes per update), whatever the
program really does: on a CPU the wide positional convolution goes by frequencies and does fewer.

    python tools/bench_step.py --dropouts recipe
    python tools/bench_step.py --dropouts zero --pairs 9
    python tools/bench_step.py --dropouts recipe --compile
    python tools/bench_step.py --bf16            # autocast against float32
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from fairseq_ecg.contracts import Batch, Keys
from fairseq_ecg.methods.wcr import Wav2Vec2, Wav2Vec2Config, Wav2Vec2WithCmsc, Wav2Vec2WithCmscConfig
from fairseq_ecg.models.ecg_transformer import forward_flops

NUM_SAMPLES = 2500
PRODUCT_SIZE = 2048


def make_config(dropouts: str, layers: int) -> Wav2Vec2Config:
    """W2V base with the options of the W2V+CMSC+RLM recipe."""
    p = 0.1 if dropouts == "recipe" else 0.0
    return Wav2Vec2Config(
        encoder_layers=layers,
        apply_mask=True,
        mask_prob=0.65,
        quantize_targets=True,
        final_dim=256,
        feature_grad_mult=0.1,
        dropout=p,
        attention_dropout=p,
        dropout_input=p,
        dropout_features=p,
    )


def make_batch(size: int, device: torch.device) -> Batch:
    """Random segments in pairs, half of their leads zero as random lead masking leaves them."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(size, 12, NUM_SAMPLES, generator=generator)
    source *= torch.rand(size, 12, 1, generator=generator) > 0.5
    rows = np.arange(size)
    batch = Batch(
        keys=Keys(0, rows, rows % 2),
        source=source,
        scale=torch.ones(size),
        patient=torch.arange(size) // 2,
        segment=torch.arange(size) % 2,
    )
    return batch.to(device)


class Updates:
    """A model, its criterion and its optimizer; calling it does one update."""

    def __init__(self, cfg: Wav2Vec2Config, batch: Batch, *, compiled: bool, bf16: bool) -> None:
        torch.manual_seed(0)
        self.device, self.batch, self.bf16, self.count = batch.source.device, batch, bf16, 0
        self.model = Wav2Vec2(cfg).to(self.device).train()
        self.forward: Any = torch.compile(self.model) if compiled else self.model
        self.criterion = Wav2Vec2WithCmsc(Wav2Vec2WithCmscConfig(loss_weights=[0.1, 10.0]))
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=5e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01, fused=True
        )

    def __call__(self) -> None:
        torch.manual_seed(self.count)
        self.model.before_update(self.count)
        with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            step = self.criterion(self.forward, self.batch)
        step.loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.count += 1


def products(device: torch.device, repeats: int) -> Callable[[], None]:
    """Square float32 matrix products."""
    a = torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device=device)
    b = torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device=device)

    def run() -> None:
        for _ in range(repeats):
            torch.mm(a, b)

    return run


def seconds(run: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def interleave(
    baseline: Callable[[], None], ours: Callable[[], None], pairs: int, device: torch.device
) -> list[tuple[float, float]]:
    """(baseline, ours) in seconds; each baseline is the mean of the runs before and after."""
    result, before = [], seconds(baseline, device)
    for _ in range(pairs):
        mine = seconds(ours, device)
        after = seconds(baseline, device)
        result.append(((before + after) / 2, mine))
        before = after
    return result


def summarise(name: str, values: list[float], unit: str) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{name}: median {middle:.3f}{unit}, spread {low:.3f} to {high:.3f}, n={len(values)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dropouts", choices=("recipe", "zero"), default="recipe")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast against float32")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--segments", type=int, default=16, help="segments of an update")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    cfg = make_config(args.dropouts, args.layers)
    batch = make_batch(args.segments, device)
    operations = 3 * forward_flops(cfg, NUM_SAMPLES) * args.segments
    print(
        f"{args.segments} segments of 12 x {NUM_SAMPLES}, {args.layers} layers, dropouts {args.dropouts}, "
        f"{operations / args.segments / 1e9:.1f} GFLOP per segment, device {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print("timed: seeding, draws, forward, both losses, backward, fused Adam, zero_grad")

    ours = Updates(cfg, batch, compiled=args.compile, bf16=args.bf16)
    kind = ("compiled " if args.compile else "eager ") + ("bfloat16 autocast" if args.bf16 else "float32")
    if args.bf16:
        other = Updates(cfg, batch, compiled=args.compile, bf16=False)
        for run in (ours, other, ours, other):
            run()
        timings = interleave(other, ours, args.pairs, device)
        print(summarise("float32 update", [base for base, _ in timings], " s"))
        print(summarise(f"{kind} update", [mine for _, mine in timings], " s"))
        print(summarise("speed-up over float32", [base / mine for base, mine in timings], ""))
        return
    for _ in range(2):
        ours()
    # As many products as take about a third of an update.
    product = 2 * PRODUCT_SIZE**3
    repeats = max(1, round(operations / 3 / product))
    baseline = products(device, repeats)
    baseline()
    timings = interleave(baseline, ours, args.pairs, device)
    rates = [operations / mine for _, mine in timings]
    bases = [repeats * product / base for base, _ in timings]
    print(
        summarise(f"float32 product of {PRODUCT_SIZE} x {PRODUCT_SIZE}", [b / 1e9 for b in bases], " GFLOP/s")
    )
    print(summarise(f"{kind} update", [mine for _, mine in timings], " s"))
    print(summarise("segments/s", [args.segments / mine for _, mine in timings], ""))
    print(summarise("share of the product rate", [r / b for r, b in zip(rates, bases, strict=True)], ""))


if __name__ == "__main__":
    main()
