import numpy as np
import pytest

from fairseq_ecg.cli.main import main
from tests.frozen import make_manifests, make_model, save_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embed_command")
    make_manifests(folder, num_patients=6)
    save_checkpoint(folder / "run", make_model())
    return folder


def test_manifests_and_files_are_embedded_into_one_file(folder, tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(2, 400)))
    inputs = [str(folder / "manifests" / "test.tsv"), str(tmp_path / "a.npy")]
    options = ["--sampling-rate", "100", "--leads", "I,II", "--unit", "mV", "--device", "cpu"]
    assert main(["embed", str(folder / "run"), *inputs, str(tmp_path / "out.npz"), *options]) == 0
    with np.load(tmp_path / "out.npz") as saved:
        assert saved["embedding"].shape == (5, 16)
        assert saved["record_id"].tolist()[-1] == "a"
        assert saved["source"].tolist() == ["synthetic"] * 4 + [""]
    assert "out.npz: 5 records, 16 dimensions" in capsys.readouterr().out


def test_bad_records_are_listed_and_stale_lists_removed(folder, tmp_path, capsys):
    signal = np.random.default_rng(0).normal(size=(2, 400))
    np.save(tmp_path / "good.npy", signal)
    np.save(tmp_path / "bad.npy", np.where(signal > 2, np.nan, signal))
    files = [str(tmp_path / "good.npy"), str(tmp_path / "bad.npy"), str(tmp_path / "out.npz")]
    options = ["--sampling-rate", "100", "--leads", "I,II", "--unit", "mV"]
    command = ["embed", str(folder / "run"), *files, *options]
    assert main(command) == 0
    assert "1 records left out" in capsys.readouterr().out
    assert "bad\tbad: values of lead" in (tmp_path / "out.rejected.tsv").read_text()
    assert main(command) == 2
    assert "out.npz exists" in capsys.readouterr().err
    np.save(tmp_path / "bad.npy", signal)
    assert main([*command, "--overwrite"]) == 0
    assert not (tmp_path / "out.rejected.tsv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.npy", "out.npy"], "ends with .npz"),
        (["in.npy", "absent/out.npz"], "absent is not a folder"),
        (["absent.npy", "out.npz"], "absent.npy: no manifest"),
        (["in.npy", "out.npz"], "does not say its sampling_rate"),
        (["in.npy", "out.npz", "--batch-size", "0"], "--batch-size 0"),
        (["out.npz"], "the following arguments are required"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(folder, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    np.save("in.npy", np.zeros((2, 400)))
    assert main(["embed", str(folder / "run"), *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert error[-1].startswith("fairseq-ecg embed: error: ")


def test_help_teaches_by_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["embed", "--help"])
    assert stopped.value.code == 0
    assert "examples:" in capsys.readouterr().out
