"""Damaged files give a record or a DataError: no other exception, hang, flood of memory or way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.mutations import mutate
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
FEW, MANY = 20, 150


def run(folder: Path, first: int, count: int, *kinds: str) -> dict[str, Any]:
    """Run cases in another process; a crash of it is a failure of the case at work."""
    command = [sys.executable, "-m", "tests.fuzz.worker", str(folder), str(first), str(count), *kinds]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    case = (folder / "case").read_text() if (folder / "case").exists() else "no case"
    assert done.returncode == 0, (
        f"the process ended with {done.returncode} in case {case}: {done.stderr[-2000:]}"
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def judge(result: dict[str, Any], count: int) -> None:
    failures = result["failures"]
    shown = "\n".join(f"{item['kind']} {item['seed']}: {item['why']}" for item in failures[:10])
    assert not failures, f"{len(failures)} cases failed:\n{shown}"
    for kind, counts in result["kinds"].items():
        assert counts["cases"] == count
        print(f"{kind}: {counts['record']} read, {counts['error']} refused")


def test_a_few_hundred_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    result = run(tmp_path, 0, FEW, *TARGETS)
    judge(result, FEW)
    # Damage that nobody notices would test nothing, and so would damage that everybody refuses.
    assert sum(counts["error"] for counts in result["kinds"].values()) > FEW
    assert sum(counts["record"] for counts in result["kinds"].values()) > FEW


@pytest.mark.slow
@pytest.mark.parametrize("kind", TARGETS)
def test_thousands_of_damaged_files_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    judge(run(tmp_path, 1000, MANY, kind), MANY)


def test_damage_is_the_same_for_the_same_seed() -> None:
    content = bytes(range(256)) * 8 + b"a 12 500 1.5e3\nb c\n" * 5
    made = [mutate(content, seed) for seed in range(200)]
    assert made == [mutate(content, seed) for seed in range(200)]
    assert all(data != content for data in made)
    assert len(set(made)) > 190
