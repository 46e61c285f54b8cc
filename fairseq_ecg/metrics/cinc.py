"""The scored metric of the PhysioNet/CinC Challenges 2020 and 2021 (Reyna et al. 2020, 2022).

A record earns the weight of every (labelled class, predicted class) pair, divided by the number of classes
that are labelled or predicted; the sum is rescaled so that always answering sinus rhythm scores 0 and the
labels themselves score 1. All three sums are plain sums over records, so batches and ranks add up exactly.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fairseq_ecg.errors import ConfigError, DataError
from fairseq_ecg.metrics.rows import logits_and_target
from fairseq_ecg.registry import register_metric

SINUS_RHYTHM = "426783006"
"""SNOMED CT code of the class that earns nothing when it is always predicted."""

EQUIVALENT_2020 = {"59118001": "713427006", "63593006": "284470004", "17338001": "427172004"}
"""The 2020 tables list these codes apart; the evaluator scores each as the code on the right."""


@dataclass(frozen=True)
class ScoreTable:
    """Scored classes in their order, and what each pair of labelled and predicted class earns.

    Shape:
        weights: (C, C), float64, rows = labelled class, columns = predicted class; NaN earns nothing.
    """

    names: tuple[str, ...]
    """As the evaluator's reports print them."""
    codes: tuple[frozenset[str], ...]
    """Codes that mean the class."""
    weights: NDArray[np.float64]
    source: str
    """File the table was read from, for messages."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def normal_index(self) -> int:
        """Column of sinus rhythm.

        Raises:
            DataError: no class of the table is sinus rhythm.
        """
        for index, codes in enumerate(self.codes):
            if SINUS_RHYTHM in codes:
                return index
        raise DataError(
            f"{self.source}: no class is sinus rhythm ({SINUS_RHYTHM}), which the score is measured against; "
            f"classes: {', '.join(self.names)}"
        )

    def multi_hot(self, codes_of_records: Sequence[Collection[str]]) -> NDArray[np.bool_]:
        """(N, C) labels: a class is present when any of its codes is."""
        return np.array(
            [[not own.isdisjoint(codes) for own in self.codes] for codes in codes_of_records], dtype=bool
        ).reshape(len(codes_of_records), len(self))

    def columns(self, codes: Sequence[Collection[str]]) -> list[int]:
        """For every class of the table, the label column that means the same codes.

        Args:
            codes: the codes of every label column.

        Raises:
            DataError: a class has no such column.
        """
        column_of = {frozenset(column): index for index, column in enumerate(codes)}
        missing = [name for name, own in zip(self.names, self.codes, strict=True) if own not in column_of]
        if missing:
            raise DataError(
                f"{self.source}: {len(missing)} of its {len(self)} classes are no label of the data "
                f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); "
                "give the weight table of these labels, or the labels of this table"
            )
        return [column_of[own] for own in self.codes]


def read_table(path: str | Path, year: int = 2021) -> ScoreTable:
    """Read a weights.csv; with ``year=2020`` the codes the 2020 evaluator holds equivalent are merged.

    Raises:
        DataError: the file is missing, or is not a square table with the same names in rows and columns.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"weights file {path} cannot be read: {error.strerror}") from error
    return _parse_table(text, str(path), year)


def builtin_table(year: int = 2021) -> ScoreTable:
    """The official table of a Challenge year: 26 classes in 2021, 24 in 2020."""
    if year not in (2020, 2021):
        raise ConfigError(f"year={year}: the packaged tables are those of 2020 and 2021; give a weights_file")
    file = resources.files("fairseq_ecg") / "metrics" / "cinc_tables" / str(year) / "weights.csv"
    return _parse_table(file.read_text(encoding="utf-8"), f"cinc_tables/{year}/weights.csv", year)


def _parse_table(text: str, source: str, year: int) -> ScoreTable:
    lines = [[cell.strip() for cell in line] for line in csv.reader(text.splitlines()) if any(line)]
    if not lines or len(lines[0]) < 2:
        raise DataError(f"{source}: the first line must be an empty cell followed by the class names")
    names, rows = lines[0][1:], lines[1:]
    if [row[0] for row in rows] != names:
        raise DataError(f"{source}: the row names must be the column names, in the same order")
    if bad := [row[0] for row in rows if len(row) != len(names) + 1]:
        raise DataError(f"{source}: row {bad[0]} must have {len(names)} weights")
    weights = np.array([[_finite_or_nan(cell) for cell in row[1:]] for row in rows])
    codes = [frozenset(code.strip() for code in name.split("|")) for name in names]
    if year == 2020:
        return _merge_equivalent(names, weights, source)
    seen: set[str] = set()
    for name, own in zip(names, codes, strict=True):
        if own & seen:
            raise DataError(f"{source}: class {name} repeats a code of another class; names must be distinct")
        seen |= own
    return ScoreTable(tuple("|".join(sorted(own)) for own in codes), tuple(codes), weights, source)


def _merge_equivalent(names: Sequence[str], weights: NDArray[np.float64], source: str) -> ScoreTable:
    """Keep the first place of every representative, as the 2020 evaluator does."""
    representatives = [EQUIVALENT_2020.get(name, name) for name in names]
    order = list(dict.fromkeys(representatives))
    first = [representatives.index(name) for name in order]
    for index, name in enumerate(representatives):
        keep = representatives.index(name)
        same_row = np.array_equal(weights[index], weights[keep], equal_nan=True)
        if not (same_row and np.array_equal(weights[:, index], weights[:, keep], equal_nan=True)):
            raise DataError(
                f"{source}: {names[index]} and {names[keep]} are one class but their weights differ"
            )
    codes = tuple(
        frozenset(other for other, own in zip(names, representatives, strict=True) if own == name)
        | {other for other, own in EQUIVALENT_2020.items() if own == name}
        | {name}
        for name in order
    )
    return ScoreTable(tuple(order), codes, weights[np.ix_(first, first)], source)


def _finite_or_nan(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        return float("nan")
    return value if np.isfinite(value) else float("nan")


def confusion(labels: ArrayLike, outputs: ArrayLike) -> NDArray[np.float64]:
    """Multi-class confusion: a record adds one over its number of labelled or predicted classes to each pair.

    Shape:
        labels, outputs: (N, C), bool.
        returns: (C, C), float64, rows = labelled class, columns = predicted class.
    """
    true, said = _same_shape(labels, outputs)
    share = 1.0 / np.maximum((true | said).sum(axis=1, keepdims=True), 1)
    total: NDArray[np.float64] = true.T.astype(np.float64) @ (share * said)
    return total


def record_sums(
    weights: NDArray[np.float64], labels: ArrayLike, outputs: ArrayLike, normal_index: int
) -> NDArray[np.float64]:
    """What every record adds to the observed, the correct and the inactive sum.

    Shape:
        weights: (C, C).
        labels, outputs: (N, C), bool.
        returns: (N, 3), float64.

    Raises:
        DataError: the shapes do not fit.
    """
    true, said = _same_shape(labels, outputs)
    if true.shape[1] != len(weights):
        raise DataError(f"labels have {true.shape[1]} classes but the weight table has {len(weights)}")
    earned = true @ np.nan_to_num(weights, nan=0.0)  # (N, C): what each predicted class would earn
    inactive = np.zeros_like(said)
    inactive[:, normal_index] = True
    sums = [
        (earned * answer).sum(axis=1) / np.maximum((true | answer).sum(axis=1), 1)
        for answer in (said, true, inactive)
    ]
    return np.stack(sums, axis=1)


def challenge_score(sums: ArrayLike) -> NDArray[np.float64]:
    """The score of summed records: (observed - inactive) / (correct - inactive), 0 where that is 0 / 0.

    Shape:
        sums: (..., 3): observed, correct, inactive.
        returns: (...), float64.
    """
    observed, correct, inactive = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    above, span = observed - inactive, correct - inactive
    result: NDArray[np.float64] = np.divide(above, span, out=np.zeros_like(above), where=span != 0)
    return result


def _same_shape(labels: ArrayLike, outputs: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    true, said = np.asarray(labels, dtype=bool), np.asarray(outputs, dtype=bool)
    if true.ndim != 2 or true.shape != said.shape:
        raise DataError(f"labels {true.shape} and outputs {said.shape} must both be (records, classes)")
    return true, said


@dataclass(kw_only=True)
class CincConfig:
    weights_file: str | None = None
    """Weight table in the Challenge's format; None: the official one of ``year``."""
    year: int = 2021
    """2020 merges the codes that the 2020 evaluator holds equivalent."""
    threshold: float = 0.5
    """A class is predicted when its probability is larger than this."""

    def __post_init__(self) -> None:
        if self.year not in (2020, 2021):
            raise ConfigError(f"year={self.year}: 2020 or 2021")
        if not 0.0 <= self.threshold <= 1.0:
            raise ConfigError(f"threshold={self.threshold}: a probability between 0 and 1")


@register_metric("cinc", config=CincConfig)
class CincScore:
    """PhysioNet/CinC Challenge score of the predicted classes.

    State: one row of float64 sums: observed, correct, inactive.
    """

    def __init__(self, cfg: CincConfig) -> None:
        self.cfg = cfg
        self.table = read_table(cfg.weights_file, cfg.year) if cfg.weights_file else builtin_table(cfg.year)
        self.normal_index = self.table.normal_index
        self._columns: list[int] | None = None
        self.reset()

    def check_labels(self, codes: Sequence[Collection[str]]) -> None:
        """Match the table's classes with the label columns; further columns are not scored.

        Labels of which no code is known are taken to be the table's classes in its order.

        Raises:
            DataError: the labels lack a class of the table.
        """
        if not any(codes):
            if len(codes) != len(self.table):
                raise DataError(
                    f"{self.table.source} has {len(self.table)} classes, the data have {len(codes)} labels; "
                    "give the weight table of these labels, or put their label_def.csv beside the label file"
                )
            return
        self._columns = self.table.columns(codes)

    def update(self, outputs: Mapping[str, Tensor]) -> None:
        """Add a batch.

        Raises:
            DataError: NaN logits, another number of classes than the table's, or a record labelled in part.
        """
        logits, target = logits_and_target(outputs)
        if self._columns is not None:
            logits, target = logits[:, self._columns], target[:, self._columns]
        labels = target.cpu().numpy()
        unlabelled = np.isnan(labels)
        known = ~unlabelled.all(axis=1)
        if unlabelled[known].any():
            raise DataError(
                f"{int(unlabelled[known].any(axis=1).sum())} records have labels for some classes of "
                f"{self.table.source} only; the Challenge score needs all of them"
            )
        if logits.isnan().any():
            raise DataError("the Challenge score of NaN logits is undefined; look for the non-finite output")
        said = (logits.sigmoid() > self.cfg.threshold).cpu().numpy()
        sums = record_sums(self.table.weights, labels[known] > 0.5, said[known], self.normal_index)
        self._sums += torch.from_numpy(sums.sum(axis=0))

    def state(self) -> dict[str, Tensor]:
        return {"sums": self._sums[None].clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._sums = state["sums"].sum(dim=0)

    def reset(self) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        return {"cinc_score": float(challenge_score(self._sums.numpy()))}
