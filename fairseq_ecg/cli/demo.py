"""Walk the whole path on synthetic records: prepare, pre-train, fine-tune, score. Takes a few minutes."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from fairseq_ecg.cli._parser import CommandParser
from fairseq_ecg.errors import ConfigError

SMALL_MODEL = (
    "model.conv_feature_layers=[(64, 2, 2)] * 4",
    "model.encoder_layers=3",
    "model.encoder_embed_dim=96",
    "model.encoder_ffn_embed_dim=384",
    "model.encoder_attention_heads=4",
    "model.conv_pos=32",
    "model.conv_pos_groups=8",
)
"""0.4 million parameters instead of 90 million: two CPU cores train it in a minute."""

RUN = (
    "distributed_training.distributed_world_size=1",
    "optimization.update_freq=[1]",
    "optimization.lr=[1e-3]",
    "common.log_interval=10",
    "common.log_format=simple",
)


def main(argv: Sequence[str] | None = None) -> int:
    """``fairseq-ecg demo``"""
    options = _parser().parse_args(argv)
    folder: Path = options.dir
    if folder.exists():
        if not options.overwrite:
            raise ConfigError(f"{folder} exists; choose another folder, or replace it with --overwrite")
        _remove_earlier(folder)
    folder.mkdir(parents=True)
    steps = commands(folder, options.num_patients, options.updates)
    print(
        f"The whole path on SYNTHETIC records of {options.num_patients} invented patients, in {folder}/.\n"
        "Every step is a command that you can type yourself.",
        flush=True,
    )
    start = time.monotonic()
    for number, (what, command) in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {what}\n$ {shlex.join(['fairseq-ecg', *command])}", flush=True)
        status = _run(command)
        if status:
            return status
    print(closing(folder, time.monotonic() - start))
    return 0


def commands(folder: Path, num_patients: int, updates: int) -> list[tuple[str, list[str]]]:
    """What each step does, and its command line without the program's name."""
    raw, store, manifests = (str(folder / name) for name in ("raw", "store", "manifests"))
    pretrained, diagnosis = str(folder / "pretrained"), str(folder / "diagnosis")
    best = str(folder / "diagnosis" / "checkpoints" / "checkpoint_best")
    run = (*RUN, f"task.data={manifests}", "dataset.batch_size=32")
    return [
        (
            "Make synthetic 12-lead records as WFDB files, and prepare a store of them",
            ["prepare", "synthetic", raw, store, f"--num-patients={num_patients}", "--seed=0"],
        ),
        (
            "Split the patients; labels are the 26 classes of the PhysioNet/CinC Challenge 2021",
            ["manifest", "split", store, manifests, "--labels=cinc2021", "--valid=0.15", "--test=0.35"],
        ),
        (
            "Pre-train a small W2V+CMSC+RLM model without labels",
            [
                *("train", "--config-name=w2v_cmsc_rlm", f"checkpoint.save_dir={pretrained}", *run),
                *SMALL_MODEL,
                *("model.final_dim=64", "lr_scheduler.warmup_updates=20"),
                f"optimization.max_update={updates}",
            ],
        ),
        (
            "Fine-tune it for diagnosis; the best update is chosen on the validation patients",
            [
                *("train", "--config-name=diagnosis", f"checkpoint.save_dir={diagnosis}", *run),
                *(f"model.model_path={pretrained}", "model.feature_grad_mult=0.1"),
                *("dataset.valid_subset=valid", "criterion.report_cinc_score=true"),
                f"optimization.max_update={2 * updates}",
                "checkpoint.best_checkpoint_metric=auroc_macro",
                "checkpoint.maximize_best_checkpoint_metric=true",
            ],
        ),
        (
            "Score the pre-trained encoder by a linear probe, beside a random-initialised one",
            [
                "evaluate",
                pretrained,
                f"--data={manifests}",
                "--protocol=linear",
                f"--out={folder}/scores_probe",
            ],
        ),
        (
            "Score the fine-tuned model on the held-out patients",
            ["validate", f"common_eval.path={best}", "dataset.valid_subset=test"],
        ),
    ]


def closing(folder: Path, seconds: float) -> str:
    """Where everything lies."""
    places = [
        ("raw/", "the synthetic WFDB records"),
        ("store/", "the prepared store: int16 shards, index.tsv, rejected.tsv"),
        ("manifests/", "train.tsv, valid.tsv, test.tsv, y.npy, label_def.csv"),
        ("pretrained/, diagnosis/", "the runs: checkpoints/, config.yaml, log.jsonl, csv files"),
        ("scores_probe/", "results.md, results.tsv, results.json, predictions.npz"),
    ]
    width = max(len(name) for name, _ in places)
    lines = [f"  {folder}/{name:<{width}}  {what}" for name, what in places]
    return "\n".join(
        [
            "",
            f"Done in {seconds / 60:.1f} minutes. All of it lies in {folder}/:",
            *lines,
            "The records are SYNTHETIC: these scores show that the path works, and nothing about patients.",
            "The same path on real records: README.md, 'On your own records'.",
        ]
    )


def _run(command: Sequence[str]) -> int:
    """Run one step in this process, by the function that the command line would run."""
    from importlib import import_module

    name, *arguments = command
    return int(import_module(f"fairseq_ecg.cli.{name}").main(arguments))


def _remove_earlier(folder: Path) -> None:
    """Remove an earlier demo's folder, and nothing that is not one.

    Raises:
        ConfigError: the folder holds something else.
    """
    if not folder.is_dir() or not (folder / "raw").is_dir():
        raise ConfigError(f"{folder} is not the folder of an earlier demo; choose another one")
    shutil.rmtree(folder)


def _parser() -> CommandParser:
    parser = CommandParser(
        "demo",
        description=__doc__,
        epilog="Examples:\n  fairseq-ecg demo\n  fairseq-ecg demo quick --num-patients 64 --updates 20",
    )
    parser.add_argument("dir", nargs="?", type=Path, default=Path("demo"), help="folder to make (demo)")
    parser.add_argument("--num-patients", type=int, default=300, help="synthetic (%(default)s)")
    parser.add_argument(
        "--updates", type=int, default=100, help="of pre-training; twice as many of fine-tuning"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the folder of an earlier demo")
    return parser
