"""Compare encoders on labelled records, each beside a random-initialised twin, with intervals."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from fairseq_ecg.cli._parser import CommandParser

EPILOG = """Encoders stay frozen; the test split is only measured. The protocols:

  linear  logistic regression per label on the embeddings of the records; regularisation and the decision
          threshold of the Challenge score are chosen on the validation split. A random-initialised twin of
          every encoder is evaluated in the same way.
  head    the checkpoint's own classifier, as fine-tuned: mean probability over the segments of a record, the
          threshold chosen likewise. Its labels must be those of the data.

DIR gets results.json, results.tsv, results.md and predictions.npz (test probabilities).

examples:
  fairseq-ecg evaluate runs/pretrained --data data/manifest --labels cinc2021 --out runs/scores
  fairseq-ecg evaluate runs/a runs/b --data data/manifest --out runs/scores --seed 1
  fairseq-ecg evaluate runs/diagnosis --data data/manifest --protocol linear,head --out runs/scores"""


def parser() -> CommandParser:
    parser = CommandParser("evaluate", description=__doc__, epilog=EPILOG)
    parser.add_argument(
        "checkpoints", metavar="CHECKPOINT", nargs="+", help="checkpoint or run folder, or file"
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="MANIFEST_DIR", help="folder of train, valid and test.tsv"
    )
    parser.add_argument(
        "--labels",
        metavar="NAME|FILE",
        help="cinc2021, cinc2020 or a label_def.csv; default: y.npy of the data",
    )
    parser.add_argument(
        "--protocol", default="linear", metavar="NAME,...", help="linear (the default), head, or linear,head"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--seed", type=int, default=0, help="of the random twin and the bootstrap (0)")
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap (1000)")
    parser.add_argument(
        "--min-positives", type=int, default=10, metavar="N", help="test records a label needs to count (10)"
    )
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="segments at once (64)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one")
    parser.add_argument(
        "--user-dir", type=Path, metavar="PATH", help="folder or file with components a checkpoint needs"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """``fairseq-ecg evaluate CHECKPOINT [CHECKPOINT ...] --data MANIFEST_DIR --out DIR``"""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    from dataclasses import replace

    from fairseq_ecg.errors import ConfigError
    from fairseq_ecg.evaluate.data import open_data
    from fairseq_ecg.evaluate.run import Settings, evaluate
    from fairseq_ecg.evaluate.tables import FILES, check_writable, text_lines, write_results
    from fairseq_ecg.infer.load import load_encoder, pick_device

    settings = Settings(
        protocols=tuple(name.strip() for name in args.protocol.split(",")),
        seed=args.seed,
        num_resamples=args.resamples,
        min_positives=args.min_positives,
    )
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size {args.batch_size}: must be at least 1")
    check_writable(args.out, args.overwrite, (*FILES, "predictions.npz"))
    data = open_data(args.data, args.labels)
    device = pick_device(args.device)
    encoders = [
        replace(load_encoder(path, user_dir=args.user_dir), batch_size=args.batch_size).to(device)
        for path in args.checkpoints
    ]
    results = evaluate(encoders, data, settings, args.out)
    write_results(results, args.out)
    print("\n".join([*text_lines(results), "", f"Written to {args.out}"]))
    return 0
