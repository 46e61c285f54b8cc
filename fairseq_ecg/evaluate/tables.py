"""Results of an evaluation: rows with intervals, and how they are written and shown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fairseq_ecg.errors import DataError
from fairseq_ecg.metrics.bootstrap import Interval

METRICS = {
    "auroc_macro": "macro AUROC",
    "auroc_micro": "micro AUROC",
    "auprc_macro": "macro AUPRC",
    "auprc_micro": "micro AUPRC",
    "cinc_score": "CinC score",
}
"""Metrics of a row in their order, and what they are called."""

FILES = ("results.json", "results.tsv", "results.md")


@dataclass(frozen=True)
class AdjustedDifference:
    """A difference to the random twin; ``p_holm`` is corrected for every comparison of the table."""

    value: float
    low: float
    high: float
    p_value: float
    p_holm: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One encoder under one protocol."""

    encoder: str
    is_random: bool
    protocol: str
    twin: str | None
    """Name of the random-initialised encoder it is compared with; None for that encoder itself and for a
    checkpoint's own head."""
    strength: float | None
    """C of the probe, chosen on the validation split; None for a head."""
    threshold: float | None
    """Decision threshold of the Challenge score, chosen on the validation split."""
    metrics: dict[str, Interval]
    per_label: dict[str, Interval]
    """AUROC by label."""
    differences: dict[str, AdjustedDifference] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole evaluation."""

    data: str
    labels: list[str]
    """Labels that are averaged over."""
    left_out: dict[str, int]
    """Labels that are not, with their positives in the test split."""
    min_positives: int
    num_records: dict[str, int]
    """By split."""
    num_patients: dict[str, int]
    sources: list[str]
    is_synthetic: bool
    num_resamples: int
    seed: int
    version: str
    cinc: str
    """The score table in use, or why there is no Challenge score."""
    warnings: list[str]
    rows: list[Row]

    def to_dict(self) -> dict[str, Any]:
        """Plain containers; numbers that are not finite become None, for JSON has no such numbers."""
        plain = _finite(asdict(self))
        assert isinstance(plain, dict)
        return plain


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_writable(out_dir: Path, overwrite: bool, names: Sequence[str] = FILES) -> None:
    """Refuse, before hours of work, a folder whose results would be lost or that cannot be written.

    Raises:
        DataError: results are there and ``overwrite`` is off, or the folder cannot be made.
    """
    there = [name for name in names if (out_dir / name).exists()]
    if there and not overwrite:
        raise DataError(f"{out_dir / there[0]} exists; choose another --out, or replace it with --overwrite")
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out_dir} cannot be written: {error.strerror}; choose another --out") from error


def write_results(results: Results, out_dir: Path) -> None:
    """Write ``results.json``, ``results.tsv`` (one line per number) and ``results.md``."""
    text = json.dumps(results.to_dict(), indent=1, ensure_ascii=False)
    (out_dir / "results.json").write_text(text + "\n", encoding="utf-8")
    (out_dir / "results.tsv").write_text("\n".join(tsv_lines(results)) + "\n", encoding="utf-8")
    (out_dir / "results.md").write_text("\n".join(markdown_lines(results)) + "\n", encoding="utf-8")


def tsv_lines(results: Results) -> list[str]:
    head = ["encoder", "protocol", "quantity", "metric", "value", "low", "high", "p_value", "p_holm"]
    head += ["num_records", "num_patients", "synthetic"]
    tail = [
        str(results.num_records["test"]),
        str(results.num_patients["test"]),
        str(results.is_synthetic).lower(),
    ]
    lines = ["\t".join(head)]
    for row in results.rows:
        for name, interval in row.metrics.items():
            values = [interval.value, interval.low, interval.high, math.nan, math.nan]
            lines.append("\t".join([row.encoder, row.protocol, "value", name, *map(_cell, values), *tail]))
        for name, item in row.differences.items():
            values = [item.value, item.low, item.high, item.p_value, item.p_holm]
            lines.append(
                "\t".join([row.encoder, row.protocol, "difference", name, *map(_cell, values), *tail])
            )
    return lines


def _cell(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and cells: a line per encoder, followed by its difference to the random twin."""
    names = [name for name in METRICS if any(name in row.metrics for row in results.rows)]
    head = ["encoder", "protocol", "n", "patients", *(METRICS[name] for name in names)]
    size = [str(results.num_records["test"]), str(results.num_patients["test"])]
    cells = []
    for row in results.rows:
        cells.append([row.encoder, row.protocol, *size, *(_interval(row.metrics[name]) for name in names)])
        if row.differences:
            cells.append(
                [
                    f"  minus {row.twin}",
                    "",
                    "",
                    "",
                    *(_difference(row.differences.get(name)) for name in names),
                ]
            )
    return head, cells


def _interval(item: Interval) -> str:
    return f"{item.value:.3f} [{item.low:.3f}, {item.high:.3f}]"


def _difference(item: AdjustedDifference | None) -> str:
    if item is None:
        return ""
    return f"{item.value:+.3f} [{item.low:+.3f}, {item.high:+.3f}] p={item.p_holm:.3g}"


def remarks(results: Results) -> list[str]:
    """What a reader of the numbers must know."""
    parts = ", ".join(
        f"{name} {results.num_records[name]} records of {results.num_patients[name]} patients"
        for name in results.num_records
    )
    lines = [
        f"Data: {results.data} ({', '.join(results.sources)}); {parts}.",
        f"Intervals: 95 %, {results.num_resamples} bootstrap resamples of test patients, "
        f"seed {results.seed}; p values are two-sided, Holm-corrected over all differences of the table.",
        f"Averaged over {len(results.labels)} labels: {', '.join(results.labels)}.",
        f"Challenge score: {results.cinc}.",
    ]
    if any(row.protocol == "head" for row in results.rows):
        lines.append(
            "head: the checkpoint's own classifier, fine-tuned before; linear: a probe of frozen embeddings."
        )
    if results.left_out:
        named = ", ".join(f"{name} ({count})" for name, count in results.left_out.items())
        lines.append(
            f"Left out for fewer than {results.min_positives} positive test records, or for want of "
            f"training records with and without the label: {named}."
        )
    if results.is_synthetic:
        lines.insert(0, "SYNTHETIC DATA: these numbers say nothing about real patients.")
    return [*lines, *(f"Warning: {text}" for text in results.warnings)]


def markdown_lines(results: Results) -> list[str]:
    head, cells = table(results)
    rule = ["---", "---", *("--:" for _ in head[2:])]
    rows = ["| " + " | ".join(row) + " |" for row in [head, rule, *cells]]
    title = "# Evaluation" + (" (synthetic data)" if results.is_synthetic else "")
    return [title, "", *rows, "", *(f"- {line}" for line in remarks(results))]


def text_lines(results: Results) -> list[str]:
    """The table for a terminal."""
    head, cells = table(results)
    widths = [max(len(row[column]) for row in [head, *cells]) for column in range(len(head))]
    rows = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *cells]
    ]
    return [rows[0], "-" * len(rows[0]), *rows[1:], "", *remarks(results)]
