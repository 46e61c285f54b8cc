"""Every folder of real records through ``fairseq-ecg prepare``: what its README states is in the store."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fairseq_ecg.cli.main import main
from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.store import Store

HALF_UNIT = 0.00050001
"""Half a microvolt in mV: how far a stored sample may lie from the original."""


@pytest.fixture(scope="module")
def real(shared: Path) -> Path:
    folder = shared / "data" / "real_ecg"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: readers cannot be tested on real records")
    return folder


def prepared(reader: str, raw: Path, store: Path, *options: str) -> Store:
    assert main(["prepare", reader, str(raw), str(store), *options]) == 0
    return Store.open(store)


def rows(store: Store) -> dict[str, int]:
    """Row by record_id."""
    return {store.record_id(row): row for row in range(store.num_records)}


def table(path: Path, key: str) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row[key]: row for row in csv.DictReader(file)}


def findings(store: Store) -> dict[str, list[str]]:
    """Reasons by record of rejected.tsv."""
    found: dict[str, list[str]] = {}
    with (store.path / "rejected.tsv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            found.setdefault(row["record"], []).append(row["reason"])
    return found


def spread(signal: NDArray[np.float32]) -> float:
    """Median over leads of the range, mV."""
    return float(np.median(np.ptp(signal, axis=1)))


def digital(path: Path, num_signals: int) -> NDArray[np.int16]:
    """(lead, time) of a format 16 file, without any of the package's code."""
    return np.frombuffer(path.read_bytes(), "<i2").reshape(-1, num_signals).T


def test_cinc2021(real: Path, tmp_path: Path) -> None:
    store = prepared("physionet2021", real / "cinc2021", tmp_path / "s")
    expected = table(real / "cinc2021" / "records.csv", "record")
    place = rows(store)
    assert set(place) == set(expected)
    assert len(place) == 72
    for name, row in place.items():
        said = expected[name]
        assert store.read(row).shape == (12, int(said["n_samples"]))
        assert "|".join(store.labels(row)) == said["dx"]
        assert store.sex(row) == {"F": "female", "M": "male"}[said["sex"][0]]
        assert store.age(row) == float(said["age"])
        assert store.patient_id(row) == name
        raw = np.frombuffer((real / "cinc2021" / f"{name}.mat").read_bytes()[24:], "<i2").reshape(-1, 12).T
        np.testing.assert_allclose(store.read(row), raw / 1000, atol=HALF_UNIT)
    assert Counter(store.sex(row) for row in place.values()) == {"female": 37, "male": 35}
    ages = [store.age(row) for row in place.values()]
    assert (min(ages), max(ages)) == (5, 89)
    assert Counter(store.source(row) for row in place.values()) == {
        "ningbo": 25,
        "georgia": 20,
        "ptb-xl": 18,
        "chapman_shaoxing": 6,
        "cpsc_2018": 3,
    }
    flat = {name: store.flags(row) for name, row in place.items() if store.flags(row)}
    assert flat == dict.fromkeys(("JS20004", "JS20008"), ("flat:V2", "flat:V4", "flat:V6"))


@pytest.mark.parametrize(
    ("name", "leads", "derived"),
    [
        ("six_leads", ("I", "II", "III", "aVR", "aVL", "aVF"), ()),
        ("four_leads", ("I", "II", "III", "V2"), ("aVR", "aVL", "aVF")),
        ("three_leads", ("I", "II", "V2"), ("III", "aVR", "aVL", "aVF")),
        ("two_leads", ("I", "II"), ("III", "aVR", "aVL", "aVF")),
    ],
)
def test_cinc2021_reduced_leads(
    real: Path, tmp_path: Path, name: str, leads: tuple[str, ...], derived: tuple[str, ...]
) -> None:
    store = prepared("physionet2021", real / "cinc2021_reduced_leads" / name, tmp_path / "s")
    assert set(rows(store)) == {"E07502", "HR06000"}
    for record, row in rows(store).items():
        assert store.leads_present(row) == tuple(
            lead for lead in STANDARD_LEADS if lead in (*leads, *derived)
        )
        flags = {flag for flag in store.flags(row) if flag.startswith("derived")}
        assert flags == {f"derived:{lead}" for lead in derived}
        raw = np.frombuffer((real / "cinc2021" / f"{record}.mat").read_bytes()[24:], "<i2").reshape(-1, 12)
        for place, lead in enumerate(STANDARD_LEADS):
            stored = store.read(row)[place]
            if lead in leads:
                np.testing.assert_allclose(stored, raw[:, place] / 1000, atol=HALF_UNIT)
            elif lead in derived:  # the record's own leads are rounded to 1 uV, some to 5
                np.testing.assert_allclose(stored, raw[:, place] / 1000, atol=0.006)
            else:
                assert not stored.any()


def test_cinc2020_early_headers_are_reported_and_can_be_put_right(real: Path, tmp_path: Path) -> None:
    folder = real / "cinc2020_early_headers"
    store = prepared("physionet2021", folder, tmp_path / "s")
    place = rows(store)
    assert set(place) == {"A0001", "Q0002", "E00001", "HR00001", "S0001"}
    assert all(store.labels(row) == () for row in place.values())
    assert np.isnan(store.age(place["E00001"]))
    assert {name: store.source(row) for name, row in place.items()} == {
        "A0001": "cpsc_2018",
        "Q0002": "cpsc_2018_extra",
        "E00001": "georgia",
        "HR00001": "ptb-xl",
        "S0001": "ptb",
    }
    assert store.flags(place["S0001"]) == ("resampled:1000",)
    reported = findings(store)
    assert set(reported) == {"HR00001", "S0001", "E00001"}
    for name, gain in (("HR00001", "200/mV"), ("S0001", "2e+06/mV"), ("E00001", "4880/mV")):
        assert any(gain in reason and "--gain 1000" in reason for reason in reported[name])
    assert spread(store.read(place["S0001"])) < 0.002

    right = prepared("physionet2021", folder, tmp_path / "right", "--gain", "1000")
    for name, row in rows(right).items():
        assert 0.5 < spread(right.read(row)) < 4, name
    original = digital(real / "ptbxl/records500/00000/00001_hr.dat", 12)
    np.testing.assert_allclose(right.read(rows(right)["HR00001"]), original / 1000, atol=HALF_UNIT)


@pytest.mark.parametrize(("rate", "kind"), [(500, "hr"), (100, "lr")])
def test_ptbxl(real: Path, tmp_path: Path, rate: int, kind: str) -> None:
    store = prepared("ptbxl", real / "ptbxl", tmp_path / "s", "--sampling-rate", str(rate))
    expected = table(real / "ptbxl" / "ptbxl_database.csv", "ecg_id")
    place = rows(store)
    assert len(place) == len(expected) == 50
    assert findings(store) == {}
    patients = Counter(store.patient_id(row) for row in place.values())
    assert len(patients) == 26
    assert sum(count > 1 for count in patients.values()) == 17
    assert max(patients.values()) == 8
    assert {int(patient) for patient, count in patients.items() if count > 1} >= {340, 449, 8727, 21519}
    for ecg_id, said in expected.items():
        row = place[f"{int(ecg_id):05}_{kind}"]
        path = real / "ptbxl" / f"{said['filename_lr' if kind == 'lr' else 'filename_hr']}.dat"
        assert store.read(row).shape == (12, 10 * rate)
        assert not any(flag.startswith("resampled") for flag in store.flags(row))
        np.testing.assert_allclose(store.read(row), digital(path, 12) / 1000, atol=HALF_UNIT)
        assert f"{store.patient_id(row)}.0" == said["patient_id"]
        assert store.fold(row) == said["strat_fold"]
        assert store.sex(row) == ("male" if said["sex"] == "0" else "female")
        age = 90.0 if said["age"] == "300.0" else float(said["age"] or "nan")
        np.testing.assert_equal(store.age(row), age)
        stored = dict(zip(store.labels(row), store.likelihoods(row), strict=True))
        assert str(stored) == said["scp_codes"]


def test_ptbxl_is_split_by_its_own_folds(real: Path, tmp_path: Path) -> None:
    store = prepared("ptbxl", real / "ptbxl", tmp_path / "s", "--sampling-rate", "100")
    split = ["manifest", "split", str(tmp_path / "s"), str(tmp_path / "m"), "--segment-sec", "10"]
    assert main([*split, "--by", "fold", "--valid", "9", "--test", "10"]) == 0
    fold = {store.record_id(row): int(store.fold(row)) for row in range(store.num_records)}
    wanted = {"train": range(1, 9), "valid": (9,), "test": (10,)}
    for name, folds in wanted.items():
        manifest = Manifest.read(tmp_path / "m" / f"{name}.tsv")
        found = {manifest.record_ids[row] for row in range(manifest.num_rows)}
        assert found == {record for record, number in fold.items() if number in folds}
        assert found


def test_code15(real: Path, tmp_path: Path) -> None:
    from scipy.io import loadmat

    store = prepared("code15", real / "code15", tmp_path / "s", "--sampling-rate", "400")
    expected = table(real / "code15" / "exams.csv", "exam_id")
    place = rows(store)
    assert set(place) == set(expected)
    assert findings(store) == {}
    for exam, row in place.items():
        said = expected[exam]
        names = [name for name in ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF") if said[name] == "True"]
        assert set(store.labels(row)) == set(names or ["none_of_six"])
        assert store.patient_id(row) == said["patient_id"]
        assert store.age(row) == float(said["age"])
        assert store.sex(row) == ("male" if said["is_male"] == "True" else "female")
        mat = next((real / "code15" / "mat").glob(f"*{exam}*.mat"))
        np.testing.assert_allclose(store.read(row), loadmat(mat)["feats"], atol=2 * HALF_UNIT)
        assert 0.3 < spread(store.read(row)) < 8
    assert {store.read(row).shape[1] for row in place.values()} == {2934, 4096}
    assert len({store.patient_id(row) for row in place.values()}) == 7


def test_mitdb(real: Path, tmp_path: Path) -> None:
    options = ("--sampling-rate", "360", "--leads", "II,V5")
    store = prepared("mitbih", real / "mitdb", tmp_path / "s", *options)
    assert rows(store) == {"100": 0}
    signal = store.read(0)
    assert signal.shape == (2, 650_000)
    assert (store.age(0), store.sex(0), store.patient_id(0)) == (69, "male", "100")
    assert store.labels(0) == ("rhythm:N", "beat:A", "beat:N", "beat:V")
    # The header: 200 per mV, 0 mV at 1024, first samples 995 and 1011.
    np.testing.assert_allclose(signal[:, 0], [-0.145, -0.065], atol=1e-6)
    assert 1.5 < spread(signal) < 5


def test_ptbdb(real: Path, tmp_path: Path) -> None:
    leads = [*STANDARD_LEADS, "VX", "VY", "VZ"]
    options = ("--sampling-rate", "1000", "--leads", ",".join(leads), "--source-name", "ptb")
    store = prepared("wfdb", real / "ptbdb", tmp_path / "s", *options)
    assert rows(store) == {"s0010_re": 0}
    assert (store.source(0), store.age(0), store.sex(0)) == ("ptb", 81, "female")
    assert store.leads_present(0) == tuple(leads)
    raw = np.concatenate([digital(real / "ptbdb/s0010_re.dat", 12), digital(real / "ptbdb/s0010_re.xyz", 3)])
    assert raw.shape == (15, 38_400)
    np.testing.assert_allclose(store.read(0), raw / 2000, atol=HALF_UNIT)


def test_ludb(real: Path, tmp_path: Path) -> None:
    store = prepared("ludb", real / "ludb", tmp_path / "s")
    assert rows(store) == {"ludb-ecg": 0}
    assert store.leads_present(0) == STANDARD_LEADS
    assert store.labels(0)[0] == "Rhythm: Sinus bradycardia"
    assert len(store.labels(0)) == 5
    assert store.sex(0) == "female"
    assert np.isnan(store.age(0))
    assert findings(store) == {"ludb-ecg": ["age '5ludb-ecg' not understood"]}
    gains = [1716, 1206, 1229, 1368, 1368, 698, 1372, 1572, 2259, 2317, 2074, 1457]
    zeros = [6, 2, -5, -5, 5, -1, -1, 2, 3, 4, 4, 1]
    raw = digital(real / "ludb" / "ludb-ecg.dat", 12)
    expected = (raw - np.array(zeros)[:, None]) / np.array(gains)[:, None]
    np.testing.assert_allclose(store.read(0), expected, atol=HALF_UNIT)
    limb = store.read(0)[:3]
    assert 0.3 < np.abs(limb[0] + limb[2] - limb[1]).max() < 0.37


def test_derived_flac_equals_its_original(real: Path, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for path in (real / "derived").glob("ptbxl_00001_flac*"):
        (folder / path.name).symlink_to(path)
    store = prepared("wfdb", folder, tmp_path / "flac")
    original = prepared("ptbxl", real / "ptbxl", tmp_path / "ptbxl")
    row = rows(original)["00001_hr"]
    np.testing.assert_array_equal(store.raw(0), original.raw(row))
    assert int(store.index.crc32[0]) == int(original.index.crc32[row])
    assert findings(store) == {}
