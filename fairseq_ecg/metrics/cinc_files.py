"""Challenge files: label headers, one csv of outputs per record, and the two text reports.

The years differ in what they accept; both sets of rules are the official evaluators'.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.errors import ConfigError, DataError
from fairseq_ecg.metrics.auroc import areas, nanmean
from fairseq_ecg.metrics.cinc import ScoreTable, challenge_score, record_sums
from fairseq_ecg.metrics.classification import beta_measures, exact_match, f_measure_classes

TRUE_WORDS = frozenset({"True", "true", "T", "t"})


@dataclass(frozen=True)
class Outputs:
    """What a model answered.

    Shape:
        binary: (N, C), bool.
        scalar: (N, C), float64.
    """

    binary: NDArray[np.bool_]
    scalar: NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Every number of the evaluator's reports; NaN where one is undefined.

    Shape:
        auroc_classes, auprc_classes, f_measure_classes: (C,), float64.
        sums: (3,), float64: observed, correct, inactive.
    """

    auroc: float
    auprc: float
    accuracy: float
    f_measure: float
    f_beta_measure: float
    g_beta_measure: float
    challenge_metric: float
    auroc_classes: NDArray[np.float64]
    auprc_classes: NDArray[np.float64]
    f_measure_classes: NDArray[np.float64]
    sums: NDArray[np.float64]


def score(table: ScoreTable, labels: NDArray[np.bool_], outputs: Outputs) -> Scores:
    """All numbers of the evaluators for parsed labels and outputs.

    Raises:
        DataError: shapes do not fit the table, scores are NaN, or the table lacks sinus rhythm.
    """
    sums = record_sums(table.weights, labels, outputs.binary, table.normal_index).sum(axis=0)
    both = areas(outputs.scalar, labels)
    f_classes = f_measure_classes(labels, outputs.binary)
    f_beta, g_beta = beta_measures(labels, outputs.binary)
    return Scores(
        auroc=nanmean(both.auroc),
        auprc=nanmean(both.auprc),
        accuracy=exact_match(labels, outputs.binary),
        f_measure=nanmean(f_classes),
        f_beta_measure=f_beta,
        g_beta_measure=g_beta,
        challenge_metric=float(challenge_score(sums)),
        auroc_classes=both.auroc,
        auprc_classes=both.auprc,
        f_measure_classes=f_classes,
        sums=sums,
    )


def find_headers(label_dir: Path) -> list[Path]:
    """The headers the evaluators score: ``*.hea`` in any case, not hidden, sorted by name.

    Raises:
        DataError: the folder is missing or holds none.
    """
    if not label_dir.is_dir():
        raise DataError(f"{label_dir} is not a folder of label headers")
    headers = [
        path
        for path in sorted(label_dir.iterdir())
        if path.is_file() and path.suffix.lower() == ".hea" and not path.name.startswith(".")
    ]
    if not headers:
        raise DataError(f"{label_dir} holds no .hea header")
    return headers


def diagnosis_codes(header: Path, *, strict: bool = False) -> frozenset[str]:
    """Codes of all diagnosis lines of a header.

    The official parser (``strict``) wants exactly ``#Dx`` and so finds nothing in the headers of PhysioNet's
    release 1.0.3, which write ``# Dx``; by default both are read.
    """
    opening = re.compile(r"#Dx.*?: (.*)" if strict else r"#\s*Dx.*?:(.*)")
    codes: list[str] = []
    for line in header.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := opening.match(line):
            codes += [code.strip() for code in match[1].split(": ")[0].split(",")]
    return frozenset(codes) - {""}


def read_labels(headers: Sequence[Path], table: ScoreTable, *, strict: bool = False) -> NDArray[np.bool_]:
    """(N, C) labels of the headers.

    The 2020 evaluator shifts all later labels by one row when a header has no diagnosis line; here such a
    record has no label.
    """
    return table.multi_hot([diagnosis_codes(header, strict=strict) for header in headers])


def read_outputs(headers: Sequence[Path], output_dir: Path, table: ScoreTable, year: int) -> Outputs:
    """The csv beside every header's name, by the rules of ``year``; other csv files are ignored.

    Raises:
        ConfigError: the year has no rules.
        DataError: a csv is missing or, by the rules of 2021, malformed.
    """
    if year not in (2020, 2021):
        raise ConfigError(f"year={year}: the evaluators of 2020 and 2021 are known")
    reader = _read_2021 if year == 2021 else _read_2020
    rows = []
    for header in headers:
        path = output_dir / f"{header.stem}.csv"
        if not path.is_file():
            raise DataError(f"{path} is missing: every label header needs the outputs of its record")
        rows.append(reader(path, table))
    return Outputs(
        binary=np.array([binary for binary, _ in rows], dtype=bool),
        scalar=np.array([scalar for _, scalar in rows], dtype=np.float64),
    )


def _read_2021(path: Path, table: ScoreTable) -> tuple[list[bool], list[float]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    if len(lines) < 4:
        raise DataError(f"{path} has {len(lines)} lines; name, classes, binary and scalar outputs are 4")
    names, binary, scalar = ([cell.strip() for cell in line.split(",")] for line in lines[1:4])
    columns = [
        [index for index, name in enumerate(names) if own & {code.strip() for code in name.split("|")}]
        for own in table.codes
    ]
    if any(index >= min(len(binary), len(scalar)) for found in columns for index in found):
        raise DataError(
            f"{path}: {len(names)} classes but {len(binary)} binary and {len(scalar)} scalar outputs"
        )
    return (
        [any(_is_true_2021(binary[index]) for index in found) for found in columns],
        [sum(_finite_or_zero(scalar[index]) for index in found) / max(len(found), 1) for found in columns],
    )


def _is_true_2021(cell: str) -> bool:
    return cell in TRUE_WORDS or _number(cell) == 1.0


def _finite_or_zero(cell: str) -> float:
    value = _number(cell)
    return value if math.isfinite(value) else 0.0


def _read_2020(path: Path, table: ScoreTable) -> tuple[list[bool], list[float]]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [[cell.strip() for cell in line.split(",")] for line in lines if line and not line.startswith("#")]
    if len(rows) < 3 or len({len(row) for row in rows}) != 1:
        return [False] * len(table), [0.0] * len(table)
    names, binary, scalar = rows[:3]
    columns = [[index for index, name in enumerate(names) if name in own] for own in table.codes]
    means = [
        [value for value in (_number(scalar[index]) for index in found) if not math.isnan(value)]
        for found in columns
    ]
    return (
        [any(binary[index] in TRUE_WORDS | {"1"} for index in found) for found in columns],
        # Infinities are kept; those of both signs together have no mean and count as no score.
        [_finite_sum(values) / max(len(values), 1) for values in means],
    )


def _finite_sum(values: Sequence[float]) -> float:
    total = sum(values)
    return 0.0 if math.isnan(total) else total


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def write_scores(path: Path, scores: Scores, year: int) -> None:
    """The one-line report of the evaluator of ``year``: three decimals, no newline at the end."""
    columns = [
        ("AUROC", scores.auroc),
        ("AUPRC", scores.auprc),
        ("Accuracy", scores.accuracy),
        ("F-measure", scores.f_measure),
    ]
    if year == 2020:
        columns += [("Fbeta-measure", scores.f_beta_measure), ("Gbeta-measure", scores.g_beta_measure)]
    columns.append(("Challenge metric", scores.challenge_metric))
    names, values = zip(*columns, strict=True)
    path.write_text(f"{','.join(names)}\n{','.join(f'{value:.3f}' for value in values)}", encoding="utf-8")


def write_class_scores(path: Path, scores: Scores, table: ScoreTable) -> None:
    """The per-class report: one column per class, three decimals, no newline at the end."""
    rows = [("Classes", list(table.names))]
    for name, values in (
        ("AUROC", scores.auroc_classes),
        ("AUPRC", scores.auprc_classes),
        ("F-measure", scores.f_measure_classes),
    ):
        rows.append((name, [f"{value:.3f}" for value in values]))
    path.write_text("\n".join(",".join([name, *cells]) for name, cells in rows), encoding="utf-8")
