"""Every reader: its options are options of the command, its file says where the data come from."""

import inspect
import sys
from dataclasses import fields

import pytest

from fairseq_ecg import plugins
from fairseq_ecg.cli.prepare import main
from fairseq_ecg.errors import DataError
from fairseq_ecg.registry import READERS

plugins.load_all(None)
DATABASES = (
    "code15",
    "ludb",
    "mimic_iv_ecg",
    "mitbih",
    "physionet2021",
    "ptbxl",
    "ribeiro",
    "wfdb",
    "zheng",
)


@pytest.mark.parametrize("name", DATABASES)
def test_options_of_a_reader_are_options_of_prepare(name, capsys):
    with pytest.raises(SystemExit) as done:
        main([name, "raw", "store", "--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    for option in fields(READERS.get(name).config):
        assert f"--{option.name.replace('_', '-')}" in shown


@pytest.mark.parametrize("name", DATABASES)
def test_an_absent_or_empty_folder_is_one_line_with_the_path(name, tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(DataError, match=str(folder)) as caught:
            list(READERS.build(name).records(folder))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in DATABASES if name != "wfdb"])
def test_a_reader_states_source_and_licence(name):
    text = inspect.getdoc(sys.modules[READERS.get(name).factory.__module__]) or ""
    assert any(licence in text for licence in ("CC BY 4.0", "ODC-By 1.0", "ODbL 1.0"))
    assert "20" in text.splitlines()[0]
