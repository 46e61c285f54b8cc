"""Downloads against their list of checksums."""

import hashlib

import pytest

from fairseq_ecg.cli.prepare import main
from fairseq_ecg.data.download import check_download
from fairseq_ecg.errors import DataError


@pytest.fixture
def folder(tmp_path):
    files = {"RECORDS": b"one\n", "a/one.hea": b"header", "a/one.mat": b"signal" * 99, "with space.txt": b""}
    lines = []
    for name, content in files.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        mark = "*" if name.endswith(".mat") else " "  # the list's mark of binary mode
        lines.append(f"{hashlib.sha256(content).hexdigest()} {mark}{name}\n")
    (tmp_path / "data" / "SHA256SUMS.txt").write_text("".join(lines))
    return tmp_path / "data"


def test_a_whole_download_is_whole(folder, capsys):
    assert check_download(folder) == (4, [], [], [])
    assert main(["check-download", str(folder)]) == 0
    assert "4 files listed, 0 missing, 0 corrupt, 0 extra" in capsys.readouterr().out


def test_missing_corrupt_and_extra_files_are_named(folder, capsys):
    (folder / "a" / "one.hea").unlink()
    (folder / "a" / "one.mat").write_bytes(b"signal" * 98)
    (folder / "b").mkdir()
    (folder / "b" / "index.html").write_text("")
    found = check_download(folder)
    assert found == (4, ["a/one.hea"], ["a/one.mat"], ["b/index.html"])
    assert main(["check-download", str(folder)]) == 1
    text = capsys.readouterr().out
    for line in ("missing: a/one.hea", "corrupt: a/one.mat", "extra: b/index.html", "fetch"):
        assert line in text


def test_extra_files_alone_are_no_failure(folder):
    (folder / "mine.txt").write_text("")
    assert main(["check-download", str(folder)]) == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "lists no file"),
        ("abc  RECORDS\n", "line 1: 'abc  RECORDS' is not 'SHA256 FILE'"),
        (f"{'0' * 64}  ../../etc/passwd\n", "outside the folder"),
        (f"{'0' * 64}  /etc/passwd\n", "outside the folder"),
        (f"{'0' * 64}  a/../../b\n", "outside the folder"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(folder, text, reason):
    (folder / "SHA256SUMS.txt").write_text(text)
    with pytest.raises(DataError, match=reason):
        check_download(folder)


def test_a_folder_without_a_list_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"has no SHA256SUMS\.txt or SHA256SUMS"):
        check_download(tmp_path)


def test_the_real_records_are_what_their_list_says(shared):
    found = check_download(shared / "data" / "real_ecg")
    assert found.is_whole
    assert found.num_files > 100
