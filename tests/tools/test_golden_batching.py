from __future__ import annotations

import json
import shutil
from pathlib import Path

from tools.golden_checks.batching import check
from tools.golden_checks.report import Report


def test_the_reference_order_reproduces_every_entry(shared: Path) -> None:
    report = Report()
    check(shared / "golden" / "batching", report)
    assert report.passed
    assert len(report.lines) > 40


def test_one_changed_number_fails(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "batching"
    shutil.copytree(shared / "golden" / "batching", folder)
    config = json.loads((folder / "config.json").read_text())
    case = next(iter(config["cases"].values()))
    first = case["epochs"]["1"][0][0]
    first[0], first[1] = first[1], first[0]
    (folder / "config.json").write_text(json.dumps(config))
    report = Report()
    check(folder, report)
    assert not report.passed
