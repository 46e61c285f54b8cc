"""Quality of records: what is measured, and the page that shows it."""

import csv
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.prepare import Policy, PrepareOptions, prepare
from fairseq_ecg.data.qc import (
    QC_COLUMNS,
    Extremes,
    Quality,
    amplitude,
    clipped_rows,
    heart_rate,
    reason_kind,
)
from fairseq_ecg.data.qc_drawing import ecg_drawing
from fairseq_ecg.data.qc_page import Summary
from fairseq_ecg.data.readers.physionet2021 import PhysioNet2021, PhysioNet2021Config
from tests.data.wfdb_files import write_record

READER = PhysioNet2021(PhysioNet2021Config())


def beats(rate: float, sampling_rate: int = 500, seconds: float = 10.0, num_leads: int = 12) -> np.ndarray:
    """(lead, time) narrow bumps of about 1 mV at a heart rate, over noise and a slow wave."""
    time = np.arange(int(seconds * sampling_rate)) / sampling_rate
    phase = (time * rate / 60 + 0.3) % 1 * 60 / rate
    beat = np.exp(-(((phase - 0.2) / 0.015) ** 2)) + 0.25 * np.exp(-(((phase - 0.45) / 0.05) ** 2))
    noise = np.random.default_rng(int(rate)).normal(0, 0.01, (num_leads, len(time)))
    lead = np.linspace(0.8, 1.2, num_leads)[:, None]
    return (lead * beat + 0.2 * np.sin(time) + noise).astype(np.float32)


@pytest.mark.parametrize("sampling_rate", [100, 257, 500, 1000])
@pytest.mark.parametrize("rate", [42, 60, 75, 120, 180])
def test_the_heart_rate_is_found_within_a_few_beats(rate, sampling_rate):
    found = heart_rate(beats(rate, sampling_rate), STANDARD_LEADS, sampling_rate)
    assert found == pytest.approx(rate, rel=0.04)


def test_without_a_rhythm_there_is_no_heart_rate():
    noise = np.random.default_rng(0).normal(0, 1, (12, 5000)).astype(np.float32)
    assert np.isnan(heart_rate(noise, STANDARD_LEADS, 500))
    assert np.isnan(heart_rate(np.zeros((12, 5000), np.float32), STANDARD_LEADS, 500))
    for length in (1, 5, 100, 200):
        heart_rate(beats(60)[:, :length], STANDARD_LEADS, 500)  # too short to say, never an error


def slow_clipped(signal: np.ndarray, sampling_rate: int) -> list[bool]:
    """Sample by sample: the longest time at the largest or smallest value, when far from the mean."""
    found = []
    for lead in signal.tolist():
        longest = 0.0
        for extreme in (min(lead), max(lead)):
            run = 0
            for value in lead:
                run = run + 1 if value == extreme else 0
                if abs(extreme - sum(lead) / len(lead)) >= 0.5:
                    longest = max(longest, run / sampling_rate)
        found.append(longest >= 0.02)
    return found


@pytest.mark.parametrize("sampling_rate", [100, 360, 500])
def test_a_lead_is_clipped_when_it_stands_at_its_extreme(sampling_rate):
    signal = beats(60, sampling_rate)
    rng = np.random.default_rng(1)
    for row in range(12):
        run = int(rng.integers(1, 25))
        start = int(rng.integers(0, signal.shape[1] - run))
        signal[row, start : start + run] = signal[row].max() + 1 if row % 2 else signal[row].min() - 1
    expected = slow_clipped(signal, sampling_rate)
    assert clipped_rows(signal, Extremes.of(signal), sampling_rate).tolist() == expected
    assert 0 < sum(expected) < 12


def test_a_low_or_flat_lead_is_not_clipped():
    low = np.round(beats(60) * 0.05, 2)  # a few steps of a coarse converter
    low[3] = 0.7
    assert not clipped_rows(low, Extremes.of(low), 500)[[0, 1, 2, 4]].any()
    assert not clipped_rows(low, Extremes.of(low), 500)[3]  # a constant is its own mean
    assert not clipped_rows(low[:, :5], Extremes.of(low[:, :5]), 500).any()


def test_extremes_find_missing_samples_and_constant_leads():
    signal = beats(60)[:4]
    signal[1, 7] = np.nan
    signal[2] = -0.3
    signal[3, 5] = np.inf
    extremes = Extremes.of(signal)
    assert extremes.broken.tolist() == [False, True, False, True]
    assert extremes.flat.tolist() == [False, False, True, False]


def test_the_amplitude_is_the_median_over_recorded_leads():
    signal = np.zeros((4, 10), np.float32)
    signal[:, 3] = (1, 2, 4, 50)
    extremes = Extremes.of(signal)
    assert amplitude(extremes, [True] * 4) == 3
    assert amplitude(extremes, [True, True, True, False]) == 2
    assert np.isnan(amplitude(extremes, [False] * 4))


def test_the_score_rises_with_bad_leads_and_implausible_amplitude():
    good = Quality("a", "s", 500, 5000, 12, 1.5, 60.0)
    assert good.score == 0
    assert good._replace(flat=("I", "V1"), clipped=("I",)).score == pytest.approx(2 / 12)
    # Two doublings above 8 mV, and log2(32 / 1.5) from the typical amplitude.
    assert good._replace(amplitude_mv=32.0).score == pytest.approx(2 + 0.1 * np.log2(32 / 1.5))
    assert good._replace(amplitude_mv=0.125).score == pytest.approx(1 + 0.1 * np.log2(1.5 / 0.125))


def test_a_row_has_every_column_and_no_stray_tab():
    row = Quality("a\tb", "s", 500, 2501, 12, 1.25, 61.2, nan=("I", "V1"), reason="two\nlines")
    cells = dict(zip(QC_COLUMNS, row.line().rstrip("\n").split("\t"), strict=True))
    assert cells["record_id"] == "a b"
    assert (cells["kept"], cells["reason"]) == ("no", "two lines")
    assert (cells["duration_sec"], cells["amplitude_mv"], cells["heart_rate"]) == ("5.002", "1.250", "61")
    assert cells["nan"] == "I,V1"
    unread = Quality("a", reason="does not exist").line().rstrip("\n").split("\t")
    assert unread == ["a", "", "no", *[""] * 9, "does not exist"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of forty records of which many are bad, one of them with a name that is markup."""
    folder = tmp_path_factory.mktemp("qc")
    raw = folder / "raw"
    for number in range(40):
        digital = np.rint(beats(50 + 2 * number) * 1000).astype(np.int16)
        kind, gain, rate = number % 8, "1000/mV", 500
        if kind == 1:
            digital[number % 12] = 4
        if kind == 2:
            digital[3, 50:60] = -32768
        if kind == 3:
            digital = np.clip(digital, -600, 600)
        if kind == 4:
            gain = "20000/mV"
        if kind == 5:
            rate, digital = 250, digital[:, ::2]
        path = write_record(raw, f"A{number:04}", digital, gain=gain, sampling_rate=rate)
        if kind == 6:
            path.with_suffix(".mat").write_bytes(b"short")
    write_record(raw, "A<b>&amp;", np.rint(beats(60)[:2] * 9000).astype(np.int16), leads=("I", "II"))
    prepare(READER, raw, folder / "store", PrepareOptions())
    return folder / "store"


def rows(store: Path) -> list[dict[str, str]]:
    with (store / "qc.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_the_table_has_a_row_for_every_record_found(store):
    table = rows(store)
    assert [row["record_id"] for row in table][:3] == ["A0000", "A0001", "A0002"]
    assert len(table) == 41
    assert Counter(row["kept"] for row in table) == {"yes": 31, "no": 10}
    assert table[1]["flat"] == "II"
    assert (table[2]["nan"], table[2]["reason"]) == ("aVR", "nan lead aVR")
    assert table[3]["clipped"] == ",".join(STANDARD_LEADS)
    assert float(table[4]["score"]) > 1
    assert (table[5]["sampling_rate"], table[5]["duration_sec"]) == ("250", "10.000")
    assert "truncated" in table[6]["reason"]
    assert table[40]["missing"] == "V1,V2,V3,V4,V5,V6"
    for number in (0, 9, 15, 24):
        assert float(table[number]["heart_rate"]) == pytest.approx(50 + 2 * number, rel=0.04)


class Page(HTMLParser):
    """Collects what the test looks at, and checks that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.open.append(tag)
        if tag in ("meta",):
            self.open.pop()

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((tuple(self.open), data.strip()))


def page_of(store: Path) -> Page:
    return Page((store / "qc.html").read_text(encoding="utf-8"))


def test_the_page_is_whole_and_asks_for_nothing(store):
    text = (store / "qc.html").read_text(encoding="utf-8")
    page = page_of(store)
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "link", "iframe", "img", "object", "embed", "form", "a"} & set(page.tags)
    assert not [entry for entry in page.attributes if entry[1] in ("src", "href") or entry[1][:2] == "on"]
    assert "<b>&amp;amp;" not in text.replace("&lt;b&gt;&amp;amp;", "")
    assert any(data == "A<b>&amp;" for _, data in page.texts)


def table_cells(text: str, name: str) -> list[list[str]]:
    table = re.search(rf'<table[^>]*id="{name}">(.*?)</table>', text, re.DOTALL)
    assert table is not None
    return [
        [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", table[1])
    ]


def test_the_numbers_of_the_page_are_those_of_the_table(store):
    text = (store / "qc.html").read_text(encoding="utf-8")
    table = rows(store)
    tiles = dict(
        (name, value)
        for value, name in re.findall(r'<div class="card tile"><b>(.*?)</b><span>(.*?)</span>', text)
    )
    kept = [row for row in table if row["kept"] == "yes"]
    assert (tiles["records found"], tiles["kept"], tiles["left out"]) == ("41", "31", "10")
    assert float(tiles["hours kept"]) == pytest.approx(
        sum(float(row["duration_sec"]) for row in kept) / 3600, abs=0.05
    )

    reasons = {cells[0]: int(cells[1]) for cells in table_cells(text, "reasons")[1:]}
    assert reasons == Counter(reason_kind(row["reason"]) for row in table if row["reason"])

    heads, *body = table_cells(text, "leads")
    assert heads[1:-1] == list(STANDARD_LEADS)
    for (name, *counts), kind in zip(body, ("flat", "nan", "clipped", "missing"), strict=True):
        assert name.lower() == kind
        expected = [sum(lead in row[kind].split(",") for row in table) for lead in STANDARD_LEADS]
        assert [int(count) for count in counts] == [*expected, sum(bool(row[kind]) for row in table)]

    bars = [
        (low, high, int(count))
        for low, high, count in re.findall(r"<title>([\d.]+) to ([\d.]+) per minute: (\d+) records", text)
    ]
    for low, high, count in bars:
        expected = sum(
            bool(row["heart_rate"]) and float(low) <= int(row["heart_rate"]) < float(high) for row in table
        )
        assert count == expected
    bars = re.findall(r"<title>[\d.]+ to [\d.]+ mV: (\d+) records", text)
    assert sum(map(int, bars)) == sum(bool(row["amplitude_mv"]) for row in table)
    assert re.findall(r"<title>(\d+) Hz: (\d+) records", text) == [
        (rate, str(sum(row["sampling_rate"] == rate for row in table))) for rate in ("250", "500")
    ]


def test_the_worst_records_that_were_kept_are_drawn_worst_first(store):
    table = [row for row in rows(store) if row["kept"] == "yes"]
    worst = sorted(table, key=lambda row: -float(row["score"]))[:12]
    page = page_of(store)
    drawn = [data for where, data in page.texts if where[-3:] == ("figure", "figcaption", "b")]
    assert drawn == [row["record_id"] for row in worst]
    assert page.tags["polyline"] == 12 * 12


def test_a_page_of_a_store_without_findings_says_so(tmp_path):
    write_record(tmp_path / "raw", "A0001", np.rint(beats(70) * 1000).astype(np.int16))
    prepare(READER, tmp_path / "raw", tmp_path / "store", PrepareOptions(policy_nan=Policy.ERROR))
    assert any("No record was left out" in data for _, data in page_of(tmp_path / "store").texts)
    assert Summary.of(tmp_path / "store" / "qc.tsv").kept == 1


@pytest.mark.parametrize(
    ("num_leads", "seconds"), [(1, 10), (2, 1800), (12, 10), (12, 1), (15, 3), (3, 0.004)]
)
def test_any_record_can_be_drawn(num_leads, seconds):
    leads = [f"L{number}" for number in range(num_leads)]
    signal = np.resize(beats(60), (num_leads, max(1, int(seconds * 500))))
    drawing = ecg_drawing(signal, leads, 500, {"L0"})
    assert drawing.count("<polyline") == num_leads
    assert "nan" not in drawing
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing).groups())
    for points in re.findall(r'points="(.*?)"', drawing):
        for point in points.split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width + 0.1
            assert 0 <= y <= height


def test_a_drawing_keeps_the_highest_peak():
    signal = np.zeros((2, 5000), np.float32)
    signal[0, 1234] = 1.0  # a single sample
    drawing = ecg_drawing(signal, ["I", "II"], 500, set())
    heights = [float(point.split(",")[1]) for point in re.search(r'points="(.*?)"', drawing)[1].split()]
    assert max(heights) - min(heights) == pytest.approx(10.0, abs=0.11)  # 10 mm per mV
