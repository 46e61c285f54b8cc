"""A file is there whole, or as it was before."""

from pathlib import Path

import pytest

from fairseq_ecg.data.whole_file import whole_file


def interrupted(path: Path) -> None:
    with whole_file(path) as file:
        file.write(b"half of the ne")
        raise KeyboardInterrupt


def test_a_block_that_raises_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with whole_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
