"""``qc.html``: one page about the records of a store, made of ``qc.tsv`` and of the store alone.

The page needs nothing but itself: no script, no font, no image from elsewhere. Equal stores have equal pages.
"""

from __future__ import annotations

import csv
import heapq
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TypeVar

from fairseq_ecg.data.qc import QC_FILE, TYPICAL_MV, reason_kind
from fairseq_ecg.data.qc_drawing import Bar, ecg_drawing, histogram
from fairseq_ecg.data.signal import PLAUSIBLE_MV
from fairseq_ecg.data.store import Store

PAGE = "qc.html"
NUM_SHOWN = 12
"""Records drawn."""

Number = TypeVar("Number", int, float)

_KINDS = ("flat", "nan", "clipped", "missing")
_AMPLITUDE_STEPS = range(-10, 15)
"""Edges of the histogram of amplitudes in half octaves of mV: 0.03 to 128 mV."""
_HEART_RATES = range(30, 230, 10)

_STYLE = """
:root { --ink: #22262b; --soft: #68707a; --line: #e4e0da; --paper: #fbfaf8; --card: #ffffff;
  --accent: #b3263e; --warm: 179, 38, 62; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 40px 28px 72px; background: var(--paper);
  color: var(--ink); font-variant-numeric: tabular-nums;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; font-weight: 650; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 44px 0 4px; font-weight: 650; }
p { margin: 0 0 14px; color: var(--soft); max-width: 76ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 22px 0 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 25px; font-weight: 650; line-height: 1.25; }
.tile span { color: var(--soft); font-size: 13px; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 16px; }
.card h3 { margin: 0 0 2px; font-size: 15px; font-weight: 650; }
.card p { font-size: 13px; margin: 0 0 8px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; }
th, td { padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.count, th.count { text-align: right; white-space: nowrap; padding-right: 14px; }
td.example { color: var(--soft); overflow-wrap: anywhere; }
.heat { table-layout: fixed; }
.heat td { text-align: center; padding: 5px 4px; border: 2px solid var(--card); border-radius: 4px; }
.heat th { text-align: center; vertical-align: middle; border: 0; padding: 4px; }
.heat th:first-child { text-align: left; }
.zero { color: #b9bcc0; }
svg { display: block; width: 100%; height: auto; }
.records { display: grid; grid-template-columns: repeat(auto-fit, minmax(520px, 1fr)); gap: 16px; }
.record { padding: 12px; margin: 0; }
.record svg { border-radius: 6px; }
.record figcaption { display: flex; flex-wrap: wrap; gap: 2px 12px; align-items: baseline; margin: 0 2px 8px;
  font-size: 13px; color: var(--soft); }
.record b { font-size: 15px; color: var(--ink); font-weight: 650; }
.bad { color: var(--accent); font-weight: 600; }
footer { margin-top: 48px; color: var(--soft); font-size: 13px; }
@media print { body { background: #fff; } .card { break-inside: avoid; } }
"""


@dataclass
class Shown:
    """A record that may be drawn."""

    row: int
    cells: dict[str, str]


@dataclass
class Summary:
    """Everything the page says, counted in one pass over ``qc.tsv``."""

    found: int = 0
    kept: int = 0
    seconds: float = 0.0
    sources: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    leads: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in _KINDS})
    records_with: Counter[str] = field(default_factory=Counter)
    amplitudes: Counter[int] = field(default_factory=Counter)
    heart_rates: Counter[int] = field(default_factory=Counter)
    sampling_rates: Counter[int] = field(default_factory=Counter)
    durations: Counter[float] = field(default_factory=Counter)
    without_amplitude: int = 0
    without_heart_rate: int = 0
    worst: list[tuple[float, int, Shown]] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path) -> Summary:
        summary = cls()
        for cells in _rows(path):
            summary._add(cells)
        summary.worst.sort(reverse=True)
        return summary

    def _add(self, cells: dict[str, str]) -> None:
        self.found += 1
        if cells["kept"] == "yes":
            self._add_kept(cells)
        else:
            kind = reason_kind(cells["reason"])
            self.reasons[kind] += 1
            self.examples.setdefault(kind, f"{cells['record_id']}: {cells['reason']}")
        for kind in _KINDS:
            leads = cells[kind].split(",") if cells[kind] else []
            self.leads[kind].update(leads)
            self.records_with[kind] += bool(leads)
        if cells["sampling_rate"]:
            self.sampling_rates[int(cells["sampling_rate"])] += 1
            self.durations[float(cells["duration_sec"])] += 1
        if cells["amplitude_mv"] and float(cells["amplitude_mv"]) > 0:
            step = math.floor(2 * math.log2(float(cells["amplitude_mv"])))
            self.amplitudes[min(max(step, _AMPLITUDE_STEPS[0]), _AMPLITUDE_STEPS[-2])] += 1
        else:
            self.without_amplitude += 1
        if cells["heart_rate"]:
            step = int(cells["heart_rate"]) // 10 * 10
            self.heart_rates[min(max(step, _HEART_RATES[0]), _HEART_RATES[-2])] += 1
        else:
            self.without_heart_rate += 1

    def _add_kept(self, cells: dict[str, str]) -> None:
        self.sources[cells["source"] or "unknown"] += 1
        self.seconds += float(cells["duration_sec"])
        # The kept rows of the table are the rows of the store. Of equal scores the earlier record is worse.
        entry = (float(cells["score"]), -self.kept, Shown(self.kept, cells))
        push = heapq.heappush if len(self.worst) < NUM_SHOWN else heapq.heappushpop
        push(self.worst, entry)
        self.kept += 1


def write_page(folder: Path) -> None:
    """Write ``qc.html`` into a store's folder."""
    store = Store.open(folder)
    content = page(Summary.of(folder / QC_FILE), store)
    (folder / PAGE).write_text(content, encoding="utf-8")


def page(summary: Summary, store: Store) -> str:
    """The whole page."""
    body = [
        f"<h1>Quality of {summary.found:,} ECG records</h1>",
        f"<p>{escape(_sources(summary.sources))}</p>",
        _tiles(summary, store),
        "<h2>Left out</h2>",
        _reasons(summary),
        "<h2>Leads</h2>",
        "<p>Records, left out ones included, in which a lead is constant (flat), has missing samples (NaN), "
        "stands at its largest or smallest value for 20 ms (clipped), or was not recorded (missing).</p>",
        _leads(summary, store.leads),
        "<h2>Signals</h2>",
        "<p>As they were read, before resampling.</p>",
        _histograms(summary),
        "<h2>The most unusual records that were kept</h2>",
        f"<p>By score: the share of bad leads, plus the doublings by which the amplitude leaves "
        f"{PLAUSIBLE_MV[0]:g} to {PLAUSIBLE_MV[1]:g} mV, plus a tenth of those that part it from "
        f"{TYPICAL_MV:g} mV. A small square is 0.04 s wide and, at 10 mm/mV, 0.1 mV high.</p>",
        _records(summary, store),
        "<footer>Every record found has a row in qc.tsv; what was left out or repaired, and why, is in "
        "rejected.tsv. Heart rates are rough estimates by autocorrelation.</footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Quality of {summary.found:,} ECG records</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def _sources(sources: Mapping[str, int]) -> str:
    return " · ".join(f"{name} {count:,}" for name, count in sorted(sources.items()))


def _tiles(summary: Summary, store: Store) -> str:
    tiles = {
        "records found": f"{summary.found:,}",
        "kept": f"{summary.kept:,}",
        "left out": f"{summary.found - summary.kept:,}",
        "hours kept": f"{summary.seconds / 3600:,.1f}",
        "patients": f"{store.json['counts']['patients']:,}",
        "Hz in the store": f"{store.sampling_rate:,}",
    }
    cells = (
        f'<div class="card tile"><b>{value}</b><span>{name}</span></div>' for name, value in tiles.items()
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def _reasons(summary: Summary) -> str:
    if not summary.reasons:
        return '<div class="card">No record was left out.</div>'
    rows = "".join(
        f"<tr><td>{escape(kind)}</td><td class='count'>{count:,}</td>"
        f"<td class='count'>{count / summary.found:.2%}</td>"
        f"<td class='example'>{escape(_short(summary.examples[kind]))}</td></tr>"
        for kind, count in sorted(summary.reasons.items(), key=lambda entry: (-entry[1], entry[0]))
    )
    return (
        '<div class="card"><table id="reasons"><tr><th>reason</th><th class="count">records</th>'
        f'<th class="count">share</th><th>the first one</th></tr>{rows}</table></div>'
    )


def _short(text: str, length: int = 160) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _leads(summary: Summary, leads: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(lead)}</th>" for lead in leads)
    rows = []
    for kind in _KINDS:
        cells = "".join(_heat(summary.leads[kind][lead], summary.found) for lead in leads)
        name = "NaN" if kind == "nan" else kind
        rows.append(f"<tr><th>{name}</th>{cells}{_heat(summary.records_with[kind], summary.found)}</tr>")
    return (
        f'<div class="card"><table class="heat" id="leads"><tr><th></th>{head}<th>any</th></tr>'
        f"{''.join(rows)}</table></div>"
    )


def _heat(count: int, total: int) -> str:
    if not count:
        return '<td class="zero">0</td>'
    strength = 0.10 + 0.55 * math.sqrt(count / total)
    return f'<td style="background: rgba(var(--warm), {strength:.2f})">{count:,}</td>'


def _histograms(summary: Summary) -> str:
    low, high = (2 * math.log2(limit) for limit in PLAUSIBLE_MV)
    amplitudes = [
        Bar(
            _mv(step) if step % 2 == 0 else "",
            f"{_mv(step)} to {_mv(step + 1)} mV",
            summary.amplitudes[step],
            step + 1 <= low or step >= high,
        )
        for step in _AMPLITUDE_STEPS[:-1]
    ]
    rates = [
        Bar(
            str(rate) if rate % 30 == 0 else "",
            f"{rate} to {rate + 10} per minute",
            summary.heart_rates[rate],
        )
        for rate in _HEART_RATES[:-1]
    ]
    sampling = [Bar(str(rate), f"{rate} Hz", count) for rate, count in _most(summary.sampling_rates)]
    durations = [Bar(f"{seconds:g}", f"{seconds:g} s", count) for seconds, count in _most(summary.durations)]
    no_amplitude = f", {summary.without_amplitude:,} without" if summary.without_amplitude else ""
    no_rate = f", {summary.without_heart_rate:,} without" if summary.without_heart_rate else ""
    cards = (
        (
            "Amplitude, mV",
            f"Median over leads of largest minus smallest value{no_amplitude}; red: implausible, most likely "
            "a wrong gain",
            amplitudes,
        ),
        ("Heart rate, per minute", f"Rough estimate{no_rate}", rates),
        ("Sampling rate, Hz", "Of the raw records; the most frequent ones", sampling),
        ("Duration, s", "The most frequent ones", durations),
    )
    return (
        '<div class="two">'
        + "".join(
            f'<div class="card"><h3>{title}</h3><p>{text}.</p>{histogram(title, bars)}</div>'
            for title, text, bars in cards
        )
        + "</div>"
    )


def _mv(step: int) -> str:
    """An edge in half octaves as mV."""
    return f"{2 ** (step / 2):.2g}" if step < 13 else f"{2 ** (step / 2):.0f}"


def _most(counts: Counter[Number], limit: int = 12) -> list[tuple[Number, int]]:
    """The most frequent values, in ascending order."""
    return sorted(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:limit])


def _records(summary: Summary, store: Store) -> str:
    figures = []
    for _, _, shown in summary.worst:
        cells = shown.cells
        bad = {
            lead: kind
            for kind in ("missing", "nan", "clipped", "flat")
            for lead in (cells[kind].split(",") if cells[kind] else [])
        }
        facts = [
            cells["source"],
            f"{cells['amplitude_mv']} mV" if cells["amplitude_mv"] else "",
            f"{cells['heart_rate']} per minute" if cells["heart_rate"] else "",
            f"score {cells['score']}",
        ]
        drawing = ecg_drawing(store.read(shown.row), store.leads, store.sampling_rate, set(bad))
        findings = "; ".join(
            f"{'NaN' if kind == 'nan' else kind} {cells[kind].replace(',', ', ')}"
            for kind in _KINDS
            if cells[kind]
        )
        figures.append(
            f'<figure class="card record"><figcaption><b>{escape(cells["record_id"])}</b>'
            f"<span>{escape(' · '.join(fact for fact in facts if fact))}</span>"
            f'<span class="bad">{escape(findings)}</span></figcaption>{drawing}</figure>'
        )
    return f'<div class="records">{"".join(figures)}</div>'
