from __future__ import annotations

import importlib
import subprocess
import sys
import types

import pytest

from fairseq_ecg import __version__
from fairseq_ecg.cli import main as cli
from fairseq_ecg.errors import DataError


def stand_in(monkeypatch, command: str, main) -> None:
    """Put a sub-command's ``main`` in place of the real one."""
    module = types.ModuleType(f"fairseq_ecg.cli.{command}")
    module.main = main
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_help_lists_every_command_with_a_line_and_a_path_from_raw_data_to_a_score(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command, summary in cli.commands().items():
        assert summary, f"cli/{command}.py has no docstring"
        assert f"  {command:<10} {summary}" in shown
    for step in ("prepare physionet2021", "manifest split", "--config-name w2v_cmsc_rlm", "evaluate"):
        assert step in shown
    assert cli.main([]) == 0


def test_the_commands_are_the_files_of_the_folder():
    assert {"train", "validate", "list"} <= set(cli.commands())
    for command in cli.commands():
        assert callable(importlib.import_module(f"fairseq_ecg.cli.{command}").main)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["validate", "--help"], ["--version"]]
)
def test_help_imports_no_torch(arguments):
    program = (
        "import sys; from fairseq_ecg.cli.main import main; status = main(sys.argv[1:]);"
        "assert status == 0; assert 'torch' not in sys.modules, 'torch was imported'"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_the_version_is_printed(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"fairseq-ecg {__version__}\n"


def test_python_dash_m_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "fairseq_ecg", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout == f"fairseq-ecg {__version__}\n"


def test_an_unknown_command_suggests_the_nearest(capsys):
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr().err == "fairseq-ecg: error: unknown command 'trian': did you mean 'train'?\n"


def test_a_users_mistake_is_one_line_and_status_2(monkeypatch, capsys):
    def fail(argv):
        raise DataError(f"{argv[0]} is no store")

    stand_in(monkeypatch, "train", fail)
    assert cli.main(["train", "here"]) == 2
    assert capsys.readouterr().err == "fairseq-ecg train: error: here is no store\n"
    assert cli.train(["here"]) == 2
    assert capsys.readouterr().err == "fairseq-ecg-train: error: here is no store\n"


def test_the_status_of_a_command_is_the_programs(monkeypatch):
    stand_in(monkeypatch, "train", lambda argv: 143)
    assert cli.main(["train"]) == 143


def test_an_interrupt_ends_with_130(monkeypatch, capsys):
    def interrupt(argv):
        raise KeyboardInterrupt

    stand_in(monkeypatch, "train", interrupt)
    assert cli.main(["train"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_defect_of_the_program_keeps_its_traceback(monkeypatch):
    def fail(argv):
        raise ZeroDivisionError

    stand_in(monkeypatch, "train", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


def test_a_reader_that_has_seen_enough_causes_no_traceback():
    program = "import sys; from fairseq_ecg.cli.main import main; sys.exit(main(['list']))"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()  # as head does
        error = process.stderr.read()
    assert "Traceback" not in error
    assert "BrokenPipe" not in error
    assert process.returncode == 141
