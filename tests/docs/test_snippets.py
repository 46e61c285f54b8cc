"""Pages whose files and commands are run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = re.compile(r"<!-- file: (\S+) -->\n+```\w+\n(.*?)\n```", re.DOTALL)
RUN = re.compile(r"<!-- run -->\n+```bash\n(.*?)\n```", re.DOTALL)
PAGE = ROOT / "docs" / "howto" / "write_a_plugin.md"


@pytest.fixture(scope="module")
def plugin_dir(tmp_path_factory: pytest.TempPathFactory, manifest_dir: Path) -> Path:
    """A folder with the page's files, in which ``data/manifest`` leads to tiny manifests."""
    folder = tmp_path_factory.mktemp("plugin_page")
    files = FILE.findall(PAGE.read_text(encoding="utf-8"))
    assert len(files) == 3
    for name, text in files:
        (folder / name).write_text(text + "\n", encoding="utf-8")
    (folder / "data").mkdir()
    (folder / "data" / "manifest").symlink_to(manifest_dir)
    return folder


def shell(script: str, cwd: Path) -> str:
    """What a script prints; ``fairseq-ecg`` is the package of this checkout."""
    command = f'fairseq-ecg() {{ "{sys.executable}" -m fairseq_ecg "$@"; }}\nset -e\n{script}\n'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_commands_of_the_plugin_page_run(plugin_dir):
    (script,) = RUN.findall(PAGE.read_text(encoding="utf-8"))
    shown = shell(script, plugin_dir)
    assert "gap_filling.py:" in shown
    assert "test squared_error " in shown
    assert "test.npz: 4 records, 64 dimensions" in shown
    assert (plugin_dir / "scores" / "results.json").is_file()


def test_the_tests_of_the_plugin_page_pass(plugin_dir):
    shown = shell(f'"{sys.executable}" -m pytest -q -p no:cacheprovider test_gap_filling.py', plugin_dir)
    assert "2 passed" in shown
