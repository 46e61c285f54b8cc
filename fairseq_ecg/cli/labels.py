"""``fairseq-ecg labels``: the label matrix of stores by a definition, with the weights of positives."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fairseq_ecg.cli._parser import CommandParser

EXAMPLES = """examples:
  fairseq-ecg labels stores/cinc2021 manifests/cinc2021 --definition cinc2021 --manifest manifests/cinc2021
  fairseq-ecg labels stores/ptbxl stores/georgia labels/own --definition my_labels.csv
  fairseq-ecg labels stores/code15 labels/code15 --definition code15

Writes OUT_DIR/y.npy (a row per idx, a column per class), label_def.csv (the definition, with counts and
weights per split) and pos_weight.txt ((1 - q) / q of the training split), for
  +task.label_file=OUT_DIR/y.npy  +criterion.pos_weight=$(cat OUT_DIR/pos_weight.txt)
NaN marks what nobody has judged: no codes, or codes of a data set that says nothing of the class."""


def main(argv: Sequence[str] | None = None) -> int:
    """fairseq-ecg labels STORE_DIR... OUT_DIR --definition NAME|FILE [--manifest DIR]"""
    from fairseq_ecg.data.labels import BUILT_IN

    parser = CommandParser("labels", description=None, epilog=EXAMPLES)
    parser.add_argument(
        "stores", nargs="+", type=Path, metavar="STORE_DIR", help="prepared stores of one rate"
    )
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="folder to write to")
    parser.add_argument(
        "--definition", required=True, metavar="NAME|FILE", help=f"{', '.join(BUILT_IN)}, or a .csv file"
    )
    parser.add_argument(
        "--manifest", type=Path, metavar="DIR", help="take idx and splits from these manifests of the stores"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace label files that are there")
    options = parser.parse_args(list(sys.argv[1:] if argv is None else argv))

    from fairseq_ecg.data.label_files import idx_from_manifests, label_matrix, write_label_files
    from fairseq_ecg.data.labels import label_definition
    from fairseq_ecg.data.manifest_edit import read_folder
    from fairseq_ecg.data.split import LABEL_FILES
    from fairseq_ecg.data.store_records import StoreRecords, refuse_existing

    definition = label_definition(options.definition)
    records = StoreRecords.open(options.stores)
    members = {}
    if options.manifest is not None:
        manifests = {Path(name).stem: item for name, item in read_folder(options.manifest).items()}
        members = idx_from_manifests(records, manifests)
    refuse_existing(options.out, LABEL_FILES, options.overwrite)
    y = label_matrix(records, definition)
    counts = write_label_files(options.out, y, definition, members or {"all": records.idx})
    for name, count in counts.items():
        print(
            f"{name}: {count.num_records} records, {count.num_unlabelled} without any label of the definition"
        )
    used = counts.get("train", counts["all"])
    if counts["all"].num_unlabelled == counts["all"].num_records:
        print(
            f"warning: {options.definition} says nothing of any record; their codes are others, "
            f"e.g. {next(filter(None, records.texts('labels')), '(none)')}"
        )
    elif absent := [name for name, number in zip(definition.names, used.positive, strict=True) if not number]:
        print(f"warning: no positive record to weigh, 1 is written for: {', '.join(absent)}")
    if records.was_renumbered and options.manifest is None:
        print("warning: idx of the stores overlap and were numbered anew; give --manifest to match manifests")
    print(f"{options.out / 'y.npy'}: {y.shape[0]} rows, {y.shape[1]} classes")
    return 0
