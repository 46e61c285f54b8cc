"""Verification of a store against the raw records it was made of."""

import re
import shutil

import numpy as np
import pytest

from fairseq_ecg.cli.prepare import main
from fairseq_ecg.data.prepare_verify import verify
from fairseq_ecg.data.store import StoreWriter
from fairseq_ecg.errors import DataError
from tests.data.wfdb_files import samples, write_record


@pytest.fixture
def prepared(tmp_path):
    """A raw folder with two good records, a bad one and one of another rate, and its store."""
    raw, store = tmp_path / "raw", tmp_path / "store"
    for number in range(2):
        write_record(raw, f"A{number:04}", samples(seed=number), gain="333/mV")
    write_record(raw, "A0002", samples(3), leads=("I", "II", "V1"), gain="11/mV")
    write_record(raw, "A0003", samples(num_samples=514), sampling_rate=257)
    digital = samples(seed=5)
    digital[0, 5] = -32768
    write_record(raw, "A0004", digital)
    write_record(raw / "z", "A0001")
    assert main(["physionet2021", str(raw), str(store), "--verify"]) == 0
    return raw, store


def command(raw, store, capsys):
    capsys.readouterr()
    return main(["verify", str(store), str(raw)]), capsys.readouterr().out


def test_a_store_is_what_its_raw_records_say(prepared, capsys):
    status, text = command(*prepared, capsys)
    assert (status, text) == (0, f"{prepared[1]}: 6 raw records compared, 0 differ\n")


def test_a_part_is_compared_with_its_range(prepared, tmp_path, capsys):
    raw, _ = prepared
    part = ["--shard-index", "1", "--num-shards", "2"]
    assert main(["physionet2021", str(raw), str(tmp_path / "part"), *part, "--verify"]) == 0
    assert "3 raw records compared, 0 differ" in capsys.readouterr().out


def change_header(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def changed_sample(raw, store):
    digital = samples(seed=1)
    digital[3, 100] += 1
    write_record(raw, "A0001", digital, gain="333/mV")


def changed_store(raw, store):
    with (store / "shard-00000.npy").open("r+b") as file:
        file.seek(128 + 12 * 1000 * 2 + 500)
        file.write(b"\x01\x02")


@pytest.mark.parametrize(
    ("change", "record", "what"),
    [
        (changed_sample, "A0001", "samples differ by up to 0.00[23]"),
        (changed_store, "A0001", "no longer have the checksum"),
        (lambda raw, _: write_record(raw, "A0009"), "A0009", "not in the store"),
        (lambda raw, _: (raw / "A0000.hea").unlink(), "A0000", "not among the raw records"),
        (lambda raw, _: (raw / "A0000.mat").unlink(), "A0000", "now left out: .*cannot be read"),
        (
            lambda raw, _: change_header(raw / "A0000.hea", "#Dx: 426783006", "#Dx: 1"),
            "A0000",
            r"labels \('426783006',\) in the store, \('1',\) in the raw record",
        ),
        (
            lambda raw, _: write_record(raw, "A0000", samples(num_samples=900), gain="333/mV"),
            "A0000",
            r"\(12, 1000\) in the store, \(12, 900\)",
        ),
    ],
)
def test_every_difference_is_reported(prepared, capsys, change, record, what):
    raw, store = prepared
    change(raw, store)
    (difference,) = verify(store, raw).differences
    assert difference.record_id == record
    assert re.search(what, difference.what)
    status, text = command(raw, store, capsys)
    assert status == 1
    assert f"1 differ\n  {record}: " in text


def test_a_difference_of_rounding_is_none(prepared):
    raw, store = prepared
    result = verify(store, raw)  # 1/333 and 1/11 mV are no multiples of the store's unit
    assert result.differences == []


def test_a_store_made_otherwise_cannot_be_verified(prepared, tmp_path):
    raw, _ = prepared
    with StoreWriter(tmp_path / "own", sampling_rate=500, leads=("I",), choices={}):
        pass
    with pytest.raises(DataError, match="names no reader"):
        verify(tmp_path / "own", raw)


def test_many_differences_are_counted_and_some_shown(prepared, tmp_path, capsys):
    raw, store = prepared
    for number in range(30):
        write_record(raw, f"B{number:04}", np.ascontiguousarray(samples(num_samples=50)))
    status, text = command(raw, store, capsys)
    assert status == 1
    assert "30 differ" in text
    assert "... and 10 more" in text
    shutil.rmtree(raw)
    with pytest.raises(DataError, match="no such folder"):
        verify(store, raw)
