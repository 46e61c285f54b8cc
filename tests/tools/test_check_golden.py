import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "tests" / "golden" / "cinc_score"


def check_golden(*arguments, cwd):
    command = [sys.executable, str(ROOT / "tools" / "check_golden.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_all_score_cases_pass_from_any_folder(tmp_path):
    result = check_golden(CASES, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    (folder,) = json.loads(result.stdout)
    names = {line["name"] for line in folder["arrays"]}
    assert folder["passed"]
    assert {name.split("/")[0] for name in names} == {path.name for path in CASES.iterdir() if path.is_dir()}
    assert {"20_files_2021/scores.csv", "22_files_spaced_header/lenient_challenge_metric"} <= names


def test_a_renamed_folder_and_a_single_case_are_recognised(tmp_path):
    hidden = tmp_path / "cinc_score_hidden"
    shutil.copytree(CASES / "12_rules_2020", hidden / "99_other")
    result = check_golden(hidden, "cinc_score_hidden/99_other", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "pass: cinc_score_hidden" in result.stdout
    assert "pass: 99_other" in result.stdout


@pytest.mark.parametrize("name", ["labels", "scalar_outputs", "weights", "auprc_classes", "observed_score"])
def test_a_fixture_with_one_number_changed_fails(tmp_path, name):
    case = shutil.copytree(CASES / "01_random_small", tmp_path / "cinc_score" / "case")
    with np.load(case / "io.npz") as archive:
        arrays = dict(archive)
    changed = arrays[name]
    if name == "labels":
        changed[0, 0] = not changed[0, 0]
    elif name == "scalar_outputs":
        # The best score of a class that is ranked becomes its worst.
        ranked = int(np.flatnonzero(np.isfinite(arrays["auroc_classes"]))[0])
        changed[changed[:, ranked].argmax(), ranked] = -1.0
    else:
        finite = np.flatnonzero(np.isfinite(changed))
        changed[np.unravel_index(finite[len(finite) // 2], changed.shape)] += 1e-6
    np.savez(case / "io.npz", **arrays)
    result = check_golden(case, cwd=tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "FAIL" in result.stdout


def test_a_changed_output_file_or_report_fails(tmp_path):
    parent = tmp_path / "cinc_score"
    case = shutil.copytree(CASES / "20_files_2021", parent / "files")
    report = (case / "class_scores.csv").read_text()
    (case / "class_scores.csv").write_text(report.replace("0.250", "0.251", 1))
    result = check_golden(parent, cwd=tmp_path)
    assert result.returncode == 1
    assert "files/class_scores.csv" in result.stdout


def test_unknown_folders_and_missing_files_are_named_in_one_line(tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copytree(CASES / "01_random_small", tmp_path / "cinc_score" / "case")
    (tmp_path / "cinc_score" / "case" / "io.npz").unlink()
    result = check_golden("other", "absent", "cinc_score", cwd=tmp_path)
    assert result.returncode == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert "no checker's name begins" in lines[0]
    assert "absent is not a folder" in lines[1]
    assert "io.npz" in lines[2]


def test_known_names_the_folders_it_passes_over(shared, tmp_path):
    (tmp_path / "some_other_system").mkdir()
    known = shared / "golden" / "optim"
    done = check_golden("--known", tmp_path / "some_other_system", known, cwd=tmp_path)
    assert done.returncode == 0
    assert "not checked, for want of a checker: some_other_system" in done.stdout
    assert "pass: optim" in done.stdout
