"""Embed records with the encoder of a checkpoint: one vector per record."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from fairseq_ecg.cli._parser import CommandParser

EPILOG = """An INPUT is a manifest (.tsv), a prepared store, a folder of WFDB records or a record file (.hea,
.mat, .npy, .csv, .wav, .flac). Records are converted to what the checkpoint was trained on (rate, lead order,
unit; missing leads become zeros) and every conversion is said. Records longer than a segment are cut, and
their segments averaged. Records that cannot be used are listed in OUT.rejected.tsv.

OUT.npz holds the arrays record_id, embedding (records, dim), patient_id and source.

examples:
  fairseq-ecg embed runs/pretrained data/manifest/test.tsv test.npz
  fairseq-ecg embed runs/pretrained/checkpoints/checkpoint_best.pt records/A0001.hea records/A0002.hea out.npz
  fairseq-ecg embed runs/pretrained a.npy out.npz --sampling-rate 250 --leads I,II,V1 --unit uV"""


def parser() -> CommandParser:
    parser = CommandParser("embed", description=__doc__, epilog=EPILOG)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint folder or file, or a run folder")
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="what to embed")
    parser.add_argument("out", metavar="OUT.npz", type=Path, help="file to write")
    parser.add_argument("--format", help="importer of a foreign checkpoint; recognised by content by default")
    parser.add_argument("--sampling-rate", type=int, metavar="HZ", help="of files that do not say it")
    parser.add_argument("--leads", metavar="I,II,...", help="of files that do not name them")
    parser.add_argument("--unit", metavar="mV", help="of files that do not say it")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="segments at once (64)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one")
    parser.add_argument(
        "--user-dir", type=Path, metavar="PATH", help="folder or file with components the checkpoint needs"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.npz")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """``fairseq-ecg embed CHECKPOINT INPUT [INPUT ...] OUT.npz``"""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    from dataclasses import replace

    from fairseq_ecg.errors import ConfigError, DataError
    from fairseq_ecg.infer.embed import check_writable, embed, write_rejected
    from fairseq_ecg.infer.inputs import FileOptions, find_inputs
    from fairseq_ecg.infer.load import load_encoder, pick_device

    out: Path = args.out
    if out.suffix != ".npz":
        raise ConfigError(f"{out}: the last argument is the file to write and ends with .npz")
    rejected = out.with_name(f"{out.stem}.rejected.tsv")
    for path in (out, rejected):
        if path.exists() and not args.overwrite:
            raise DataError(f"{path} exists; choose another name, or replace it with --overwrite")
    if not out.parent.is_dir():
        raise DataError(f"{out.parent} is not a folder; make it first")
    check_writable(out)
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size {args.batch_size}: must be at least 1")
    leads = tuple(args.leads.split(",")) if args.leads else None
    options = FileOptions(sampling_rate=args.sampling_rate, leads=leads, unit=args.unit)
    inputs = [item for path in args.inputs for item in find_inputs(Path(path), options)]
    encoder = replace(
        load_encoder(args.checkpoint, args.format, user_dir=args.user_dir), batch_size=args.batch_size
    )
    embeddings = embed(encoder.to(pick_device(args.device)), inputs, skip_bad=True)
    embeddings.save(out)
    print(f"{out}: {len(embeddings)} records, {embeddings.embedding.shape[1]} dimensions")
    rejected.unlink(missing_ok=True)
    if embeddings.rejected:
        write_rejected(rejected, embeddings.rejected)
        print(f"{rejected}: {len(embeddings.rejected)} records left out, with their reasons")
    return 0
