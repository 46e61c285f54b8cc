"""Preparation: what becomes of records that are as they should be, and of every kind that is not."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.prepare import Policy, PrepareOptions, prepare
from fairseq_ecg.data.readers.physionet2021 import PhysioNet2021, PhysioNet2021Config
from fairseq_ecg.data.signal import Resampling, resample
from fairseq_ecg.data.store import Store
from fairseq_ecg.errors import ConfigError, DataError
from tests.data.wfdb_files import samples, write_record

READER = PhysioNet2021(PhysioNet2021Config())


def run(raw: Path, store: Path, **options):
    report = prepare(READER, raw, store, PrepareOptions(**options))
    return report, Store.open(store), rejected(store)


def rejected(store: Path) -> list[dict[str, str]]:
    with open(store / "rejected.tsv", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with one good record, to which tests add a bad one."""
    write_record(tmp_path / "raw", "A0001", samples())
    return tmp_path / "raw"


def test_a_good_record_is_stored_as_it_is(raw, tmp_path):
    report, store, rows = run(raw, tmp_path / "store")
    assert rows == []
    assert (report.num_records, report.num_found) == (1, 1)
    # 1 uV per unit holds samples at 1000 per mV exactly.
    np.testing.assert_array_equal(np.rint(store.read(0) * 1000), samples())
    assert store.record_id(0) == "A0001"
    assert store.labels(0) == ("426783006",)
    assert store.source(0) == "cpsc_2018"
    assert store.flags(0) == ()
    assert store.leads_present(0) == STANDARD_LEADS
    assert store.json["choices"]["policy_nan"] == "skip"
    assert "1 of 1 records, 0.00 hours (cpsc_2018: 1)" in report.summary()


def break_missing(path: Path) -> None:
    path.with_suffix(".mat").unlink()


def break_truncated(path: Path) -> None:
    signal = path.with_suffix(".mat")
    signal.write_bytes(signal.read_bytes()[:5000])


def break_checksum(path: Path) -> None:
    signal = path.with_suffix(".mat")
    content = bytearray(signal.read_bytes())
    content[3001] ^= 64
    signal.write_bytes(content)


def break_header(path: Path) -> None:
    path.write_text("A0002 twelve 500\n")


@pytest.mark.parametrize(
    ("damage", "reason", "kind"),
    [
        (break_missing, "cannot be read: No such file", "missing file"),
        (break_truncated, "truncated", "truncated"),
        (break_checksum, "checksum", "corrupt"),
        (break_header, "record line", "unusable"),
    ],
)
def test_an_unreadable_record_is_left_out_and_listed_or_stops_the_preparation(
    raw, tmp_path, damage, reason, kind
):
    path = write_record(raw, "A0002", samples(seed=1))
    damage(path)
    report, store, rows = run(raw, tmp_path / "store")
    assert store.num_records == 1
    assert report.rejected == {kind: 1}
    assert f"left out: 1 {kind}" in report.summary()
    (row,) = rows
    assert (row["record"], row["path"], row["action"]) == ("A0002", str(path), "left out")
    assert reason in row["reason"]
    with pytest.raises(DataError, match=f"A0002.*{reason}"):
        prepare(READER, raw, tmp_path / "strict", PrepareOptions(policy_unreadable=Policy.ERROR))
    assert not (tmp_path / "strict").exists()


def record_with_nan(raw: Path) -> np.ndarray:
    digital = samples(seed=1)
    digital[7, 100:110] = -32768  # the value that marks a missing sample
    write_record(raw, "A0002", digital)
    return digital


def test_a_lead_with_missing_samples_follows_its_policy(raw, tmp_path):
    digital = record_with_nan(raw)
    report, store, rows = run(raw, tmp_path / "skip")
    assert store.num_records == 1
    assert report.rejected == {"nan lead": 1}
    assert rows[0]["reason"] == "nan lead V2"

    report, store, rows = run(raw, tmp_path / "zero", policy_nan=Policy.ZERO)
    assert store.num_records == 2
    assert store.flags(1) == ("nan:V2",)
    assert rows[0]["action"] == "set to zero"
    expected = np.where(digital == -32768, 0, digital)
    np.testing.assert_array_equal(np.rint(store.read(1) * 1000), expected)

    with pytest.raises(DataError, match=r"A0002.*nan lead V2"):
        run(raw, tmp_path / "error", policy_nan=Policy.ERROR)


def test_a_constant_lead_follows_its_policy(raw, tmp_path):
    digital = samples(seed=1)
    digital[3], digital[6] = 0, 55
    write_record(raw, "A0002", digital)
    report, store, rows = run(raw, tmp_path / "zero")
    assert store.flags(1) == ("flat:aVR", "flat:V1")
    assert not store.read(1)[[3, 6]].any()
    assert report.repaired == {"flat lead": 1}
    assert rows[0]["reason"] == "flat lead aVR,V1"
    report, store, _ = run(raw, tmp_path / "skip", policy_flat=Policy.SKIP)
    assert (store.num_records, report.rejected) == (1, {"flat lead": 1})
    with pytest.raises(DataError, match="flat lead aVR,V1"):
        run(raw, tmp_path / "error", policy_flat=Policy.ERROR)


def test_a_record_whose_leads_are_all_constant_is_left_out(raw, tmp_path):
    write_record(raw, "A0002", np.zeros((12, 1000), np.int16))
    report, store, rows = run(raw, tmp_path / "store")
    assert (store.num_records, report.rejected) == (1, {"constant": 1})
    assert rows[0]["reason"] == "every lead is constant"


def test_a_record_of_another_rate_is_resampled_flagged_and_counted(raw, tmp_path):
    digital = samples(num_samples=2570, seed=1)
    write_record(raw, "I0002", digital, sampling_rate=257)
    for method in Resampling:
        report, store, rows = run(raw, tmp_path / method, resample=method)
        assert rows == []
        assert report.repaired == {"resampled": 1}
        assert store.flags(1) == ("resampled:257",)
        expected = resample((digital / 1000).astype(np.float32), 257, 500, method)
        assert store.read(1).shape == (12, 5000)
        np.testing.assert_allclose(store.read(1), expected, atol=0.00051)  # half a unit of 1 uV
    assert store.json["choices"]["resample"] == "linear"


def test_a_record_too_short_for_the_new_rate_is_left_out(raw, tmp_path):
    write_record(raw, "A0002", samples(num_samples=3), sampling_rate=5000)
    report, store, rows = run(raw, tmp_path / "store")
    assert (store.num_records, report.rejected) == (1, {"unusable": 1})
    assert "too few" in rows[0]["reason"]


def test_a_record_of_three_leads_is_filled_up_or_left_out(raw, tmp_path):
    digital = samples(3, seed=1)
    write_record(raw, "A0002", digital, leads=("I", "II", "V2"))
    report, store, rows = run(raw, tmp_path / "zero")
    assert store.leads_present(1) == ("I", "II", "III", "aVR", "aVL", "aVF", "V2")
    assert {flag for flag in store.flags(1) if flag.startswith("missing")} == {
        f"missing:{lead}" for lead in ("V1", "V3", "V4", "V5", "V6")
    }
    assert "derived:III" in store.flags(1)
    np.testing.assert_allclose(store.read(1)[2], (digital[1] - digital[0]) / 1000, atol=1e-6)
    assert not store.read(1)[6].any()
    assert report.repaired == {"missing lead": 1}
    assert rows[0]["reason"] == "missing lead V1,V3,V4,V5,V6"
    report, store, _ = run(raw, tmp_path / "skip", policy_missing=Policy.SKIP)
    assert (store.num_records, report.rejected) == (1, {"missing lead": 1})
    with pytest.raises(DataError, match="missing lead V1"):
        run(raw, tmp_path / "error", policy_missing=Policy.ERROR)


def test_a_record_with_none_of_the_leads_or_a_lead_twice_is_left_out(raw, tmp_path):
    write_record(raw, "A0002", samples(1), leads=("VX",))
    write_record(raw, "A0003", samples(2), leads=("V1", "v1"))
    _, store, rows = run(raw, tmp_path / "store")
    assert store.num_records == 1
    assert [row["reason"].split(" ")[0] for row in rows] == ["has", "leads"]


def test_of_two_records_with_one_id_the_first_by_path_counts(raw, tmp_path):
    write_record(raw / "sub", "A0001", samples(seed=1))
    report, store, rows = run(raw, tmp_path / "store")
    assert report.rejected == {"duplicate": 1}
    np.testing.assert_array_equal(np.rint(store.read(0) * 1000), samples())
    assert rows[0]["path"] == str(raw / "sub" / "A0001.hea")
    assert str(raw / "A0001.hea") in rows[0]["reason"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_of_records_with_one_id_the_first_one_that_can_be_read_counts(tmp_path, num_workers):
    raw, store = tmp_path / "raw", tmp_path / "store"
    for seed, folder in enumerate(("broken", "good", "late")):
        path = write_record(raw / folder, "A1", samples(seed=seed))
        if folder == "broken":
            break_truncated(path)
    report = prepare(READER, raw, store, PrepareOptions(), num_workers=num_workers)
    assert (report.num_records, report.rejected) == (1, {"truncated": 1, "duplicate": 1})
    np.testing.assert_array_equal(np.rint(Store.open(store).read(0) * 1000), samples(seed=1))
    rows = rejected(store)
    assert [Path(row["path"]).parent.name for row in rows] == ["broken", "late"]
    assert f"{raw / 'good' / 'A1.hea'} came first" in rows[1]["reason"]


def test_text_that_a_table_cannot_hold_leaves_one_record_out(raw, tmp_path):
    write_record(raw, "A0002", samples(seed=1), comments=("#Dx: 1\t2",))
    report, store, rows = run(raw, tmp_path / "store")
    assert (store.num_records, report.rejected) == (1, {"unusable": 1})
    assert "tab" in rows[0]["reason"]
    with pytest.raises(DataError, match="tab"):
        run(raw, tmp_path / "strict", policy_unreadable=Policy.ERROR)


def test_a_remark_of_the_reader_is_listed_and_the_record_kept(raw, tmp_path):
    write_record(raw, "A0002", samples(seed=1), gain="2000000/mV")
    report, store, rows = run(raw, tmp_path / "store")
    assert store.num_records == 2
    assert report.noted == 1
    assert rows[0]["action"] == "kept as it is"
    assert "2e+06/mV" in rows[0]["reason"]


def test_chosen_leads_are_stored_in_the_chosen_order(raw, tmp_path):
    _, store, _ = run(raw, tmp_path / "store", leads=("v6", "I"))
    assert store.leads == ("V6", "I")
    np.testing.assert_array_equal(np.rint(store.read(0) * 1000), samples()[[11, 0]])


def test_an_empty_folder_and_no_usable_record_leave_no_store_behind(raw, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.hea file"):
        run(tmp_path / "empty", tmp_path / "store")
    (raw / "A0001.mat").unlink()
    with pytest.raises(DataError, match="none of 1 records can be used, the first because: A0001"):
        run(raw, tmp_path / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "raw"]


def test_an_existing_store_is_kept_unless_overwriting(raw, tmp_path):
    run(raw, tmp_path / "store")
    write_record(raw, "A0002", samples(seed=1))
    with pytest.raises(DataError, match="overwrite"):
        run(raw, tmp_path / "store")
    assert Store.open(tmp_path / "store").num_records == 1
    prepare(READER, raw, tmp_path / "store", PrepareOptions(), overwrite=True)
    assert Store.open(tmp_path / "store").num_records == 2


def test_an_output_that_cannot_be_written_is_one_clear_error(raw, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="cannot be written"):
        run(raw, tmp_path / "file" / "store")
    if os.geteuid():  # root may write everywhere
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        with pytest.raises(DataError, match="cannot be written"):
            run(raw, locked / "store")


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(raw, tmp_path, monkeypatch):
    def full(*_args: object, **_options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fairseq_ecg.data.store.StoreWriter.add", full)
    with pytest.raises(DataError, match="No space left on device"):
        run(raw, tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_any_number_of_workers_makes_the_same_store(raw, tmp_path):
    for number in range(2, 9):
        write_record(raw, f"A{number:04}", samples(num_samples=514, seed=number), sampling_rate=257)
    write_record(raw / "z", "A0003")
    for workers in (0, 3):
        prepare(READER, raw, tmp_path / str(workers), PrepareOptions(), num_workers=workers)
    for name in ("index.tsv", "shard-00000.npy", "rejected.tsv", "store.json"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match="policy_unreadable=zero"):
        PrepareOptions(policy_unreadable=Policy.ZERO)
    with pytest.raises(ConfigError, match="sampling_rate=0"):
        PrepareOptions(sampling_rate=0)
    with pytest.raises(DataError, match="unknown lead"):
        PrepareOptions(leads=("IV",))


def test_a_source_that_gives_plain_nan_is_treated_like_missing_samples(tmp_path):
    class Item:
        path, record_id = tmp_path / "x", "x"

        def read(self) -> Record:
            signal = np.ones((12, 4), np.float32).cumsum(axis=1)
            signal[0] = np.nan
            return Record(
                record_id="x",
                patient_id="x",
                source="",
                signal=signal,
                leads=STANDARD_LEADS,
                sampling_rate=500,
            )

    class Source:
        def records(self, raw_dir: Path):
            return iter([Item()])

    prepare(Source(), tmp_path, tmp_path / "store", PrepareOptions(policy_nan=Policy.ZERO))
    assert Store.open(tmp_path / "store").flags(0) == ("nan:I", "flat:I")


def test_real_challenge_records_are_all_prepared_and_flat_leads_flagged(shared, tmp_path):
    folder = shared / "data/real_ecg/cinc2021"
    report, store, rows = run(folder, tmp_path / "store")
    assert report.num_records == report.num_found == store.num_records == 72
    assert [row["record"] for row in rows] == ["JS20004", "JS20008"]
    with open(folder / "records.csv", newline="") as file:
        table = {row["record"]: row for row in csv.DictReader(file)}
    for row in range(72):
        name = store.record_id(row)
        assert "|".join(store.labels(row)) == table[name]["dx"]
        flags = ("flat:V2", "flat:V4", "flat:V6") if name in ("JS20004", "JS20008") else ()
        assert store.flags(row) == flags
