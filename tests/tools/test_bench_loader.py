from __future__ import annotations

import re

import pytest

from tools.bench_loader import main


def test_the_benchmark_prints_median_spread_and_what_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--num-records", "6", "--batch-size", "4", "--num-pairs", "2", "--num-baseline", "4"]
    assert main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    pattern = r"(int16|float32) for batch in loader \(batches of 4, 0 workers\) vs (mat|samples): ours [\d,]+"
    assert len(lines) == 4
    assert all(re.match(pattern, line) and "2 pairs" in line for line in lines)
