"""The readers of folders of single files, through to a store."""

import numpy as np
import pytest

from fairseq_ecg.cli.prepare import main
from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.raw_files import file_items
from fairseq_ecg.data.readers.any_file import read_record
from fairseq_ecg.data.store import Store
from fairseq_ecg.errors import ConfigError, DataError
from tests.data.waveform_files import EIGHT_LEADS, counts, write_dicom, write_edf, write_muse


def test_muse_files_become_twelve_leads_in_a_store(tmp_path):
    raw = tmp_path / "raw" / "ward 3"
    raw.mkdir(parents=True)
    values = counts(8, 600)
    write_muse(raw / "b.xml", values)
    write_muse(raw / "a.xml", values, changes={"<LeadDataCRC32>": "<LeadDataCRC32>1"})
    assert main(["muse_xml", str(tmp_path / "raw"), str(tmp_path / "s")]) == 0
    store = Store.open(tmp_path / "s")
    assert (store.num_records, store.record_id(0), store.source(0)) == (1, "ward 3/b", "muse_xml")
    assert store.leads == STANDARD_LEADS
    assert store.flags(0) == ("derived:III", "derived:aVR", "derived:aVL", "derived:aVF")
    one, two = values[0] * 0.00488, values[1] * 0.00488
    np.testing.assert_allclose(store.read(0)[3], -(one + two) / 2, atol=0.0006)
    assert "corrupt" in (tmp_path / "s" / "rejected.tsv").read_text()


def test_read_record_computes_the_leads_that_muse_leaves_out(tmp_path):
    record = read_record(write_muse(tmp_path / "a.xml", counts(8, 60)))
    assert record.leads == STANDARD_LEADS
    np.testing.assert_allclose(record.signal[2], record.signal[1] - record.signal[0], atol=1e-6)
    assert record.notes == ("III, aVR, aVL, aVF computed from I and II",)
    few = read_record(write_muse(tmp_path / "b.xml", counts(2, 60), leads=EIGHT_LEADS[:2]))
    assert few.leads == ("I", "II")


def test_dicom_and_edf_folders_are_prepared(tmp_path):
    for name in ("dicom", "edf"):
        (tmp_path / name).mkdir()
    codes = [("2:1", "MDC", "I"), ("2:2", "MDC", "II")]
    write_dicom(tmp_path / "dicom/a.dcm", counts(2, 600), codes=codes)
    values = np.random.default_rng(0).uniform(-1, 1, 1000)
    write_edf(tmp_path / "edf/a.edf", {"ECG II": (values, 500, "mV")})
    for name in ("dicom", "edf"):
        assert main([name, str(tmp_path / name), str(tmp_path / f"s_{name}"), "--leads", "II"]) == 0
        assert Store.open(tmp_path / f"s_{name}").source(0) == name


def test_sound_needs_its_channels_and_unit(tmp_path):
    import soundfile

    (tmp_path / "raw").mkdir()
    values = counts(2, 600)
    soundfile.write(tmp_path / "raw/a.flac", values.T, 500, subtype="PCM_16")
    arguments = ["audio", str(tmp_path / "raw"), str(tmp_path / "s"), "--leads", "II,I"]
    with pytest.raises(ConfigError, match="give --channels"):
        main(arguments)
    with pytest.raises(ConfigError, match="unknown lead 'X'"):
        main([*arguments, "--channels", "I,X", "--unit", "uV"])
    assert main([*arguments, "--channels", "I,II", "--unit", "uV"]) == 0
    np.testing.assert_array_equal(Store.open(tmp_path / "s").raw(0), values[::-1])


def test_arrays_and_leads_of_unequal_length_are_prepared(tmp_path):
    from scipy.io import savemat

    (tmp_path / "raw").mkdir()
    long, short = np.sin(np.arange(1000) / 50), np.cos(np.arange(500) / 25)
    np.save(tmp_path / "raw/a.npy", np.stack([long, long / 2]))
    np.savez(tmp_path / "raw/b.npz", **{"V1": short, "lead i": long})
    savemat(tmp_path / "raw/c.mat", {"V1": short, "I": long})
    savemat(tmp_path / "raw/d.mat", {"signal": np.stack([long, long / 2])})
    (tmp_path / "raw/e.csv").write_text(
        "I,V1\n" + "\n".join(f"{a},{b}" for a, b in zip(long, long / 2, strict=True))
    )
    options = ["--array-rate", "500", "--array-leads", "I,V1", "--unit", "mV", "--leads", "V1,I"]
    with pytest.raises(ConfigError, match="array_rate 0"):
        main(["array", str(tmp_path / "raw"), str(tmp_path / "s"), "--array-rate", "0"])
    assert main(["array", str(tmp_path / "raw"), str(tmp_path / "s"), *options]) == 0
    store = Store.open(tmp_path / "s")
    assert store.index.text("record_id").values() == ["a", "b", "c", "d", "e"]
    stretched = np.interp(np.linspace(0, 1, 1000), np.linspace(0, 1, 500), short)
    for row, expected in enumerate([long / 2, stretched, stretched, long / 2, long / 2]):
        np.testing.assert_allclose(store.read(row), [expected, long], atol=0.00051)
    record = read_record(tmp_path / "raw/b.npz", sampling_rate=500, unit="mV")
    assert record.notes == ("interpolated to 1000 samples: V1 (500)",)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(4)}, "named by a lead"),
        ({"I": np.zeros((2, 2))}, r"shape \(2, 2\), a row of numbers"),
        ({"I": np.array(["a"])}, "a row of numbers"),
        ({"I": np.zeros(4), "lead I": np.zeros(4)}, "lead I is there twice"),
    ],
)
def test_archives_without_a_lead_per_array_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_record(tmp_path / "a.npz", sampling_rate=500, unit="mV")


def test_announced_sizes_are_not_believed(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 10)))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"(2, 10), }    ", b"(2, 10000), } "))
    with pytest.raises(DataError, match=r"shape \(2, 10000\) of float64 is not in the file"):
        read_record(tmp_path / "a.npy", sampling_rate=500, leads=["I", "II"], unit="mV")


def test_files_are_found_in_order_and_links_out_of_the_folder_are_not(tmp_path):
    raw = tmp_path / "raw"
    (raw / "b").mkdir(parents=True)
    (raw / ".hidden").mkdir()
    for name in ("b/x.EDF", "a.edf", ".c.edf", ".hidden/d.edf", "e.txt"):
        (raw / name).write_text("")
    (tmp_path / "out.edf").write_text("")
    (raw / "z.edf").symlink_to(tmp_path / "out.edf")
    items = list(file_items(raw, (".edf",), read_record))
    assert [item.record_id for item in items] == ["a", "b/x"]
    for folder in (tmp_path / "none", raw / ".hidden" / "d.edf"):
        with pytest.raises(DataError, match="no such folder"):
            list(file_items(folder, (".edf",), read_record))
    with pytest.raises(DataError, match="no file with the suffix"):
        list(file_items(raw, (".dcm",), read_record))
