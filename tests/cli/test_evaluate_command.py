import json

import pytest

from fairseq_ecg.cli.main import main
from tests.frozen import make_manifests, make_model, save_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate_command")
    make_manifests(folder)
    save_checkpoint(folder / "run", make_model(), sources=("synthetic",))
    return folder


def test_a_checkpoint_is_evaluated_beside_its_twin(folder, tmp_path, capsys):
    command = ["evaluate", str(folder / "run"), "--data", str(folder / "manifests"), "--labels", "cinc2021"]
    options = ["--out", str(tmp_path / "scores"), "--resamples", "50", "--min-positives", "5", "--seed", "3"]
    assert main([*command, *options, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    for text in (
        "SYNTHETIC DATA",
        "random init (seed 3)",
        "macro AUROC",
        "CinC score",
        "Left out",
        "Warning",
    ):
        assert text in printed
    assert "0 of 20 test patients are in its training manifest" in printed
    stored = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert [row["encoder"] for row in stored["rows"]] == [str(folder / "run"), "random init (seed 3)"]
    assert stored["num_records"]["test"] == 40
    assert main([*command, *options]) == 2
    assert "results.json exists" in capsys.readouterr().err
    assert main([*command, *options, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--protocol", "liner"], "did you mean 'linear'"),
        (["--labels", "cinc2012"], "did you mean 'cinc2021'"),
        (["--labels", "cinc2021", "--min-positives", "500"], "no label has 500 positive test records"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--seed", "x"], "argument --seed"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(folder, tmp_path, capsys, options, message):
    command = ["evaluate", str(folder / "run"), "--data", str(folder / "manifests"), "--out", str(tmp_path)]
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
