"""Processed folders of ecg-selfsupervised: the records they hold, and folders that are not what they say."""

from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.data.prepare import PrepareOptions, prepare
from fairseq_ecg.data.readers.ecg_selfsupervised import (
    LEADS,
    META,
    EcgSelfSupervised,
    EcgSelfSupervisedConfig,
)
from fairseq_ecg.data.store import Store
from fairseq_ecg.errors import ConfigError, DataError

READER = EcgSelfSupervised(EcgSelfSupervisedConfig())


def write_folder(folder: Path, lengths: list[int], **changes: object) -> np.ndarray:
    """The samples as the original writes them: (time, lead)."""
    samples = np.random.default_rng(0).normal(size=(sum(lengths), 12)).astype(np.float32)
    folder.mkdir()
    samples.tofile(folder / "memmap.npy")
    meta = {
        "start": np.cumsum([0, *lengths[:-1]]),
        "length": np.array(lengths),
        "file_idx": np.zeros(len(lengths), np.int64),
        "shape": np.array([samples.shape]),
        "dtype": np.array(np.dtype("float32"), dtype=object),
        "filenames": np.array(["memmap.npy"]),
    }
    np.savez(folder / META, **{**meta, **changes})
    return samples


def test_records_are_cut_out_of_the_samples_in_mv_with_the_leads_in_their_order(tmp_path):
    samples = write_folder(tmp_path / "ptb_xl", [300, 250, 400])
    records = [item.read() for item in READER.records(tmp_path / "ptb_xl")]
    assert [record.record_id for record in records] == ["ptb_xl_0", "ptb_xl_1", "ptb_xl_2"]
    assert {record.source for record in records} == {"ptb_xl"}
    assert records[0].leads == LEADS
    assert records[0].sampling_rate == 100
    for record, part in zip(records, np.split(samples, [300, 550]), strict=True):
        np.testing.assert_array_equal(record.signal, part.T)


def test_a_folder_is_prepared_into_the_lead_order_of_the_store(tmp_path):
    samples = write_folder(tmp_path / "zheng", [300, 250])
    prepare(READER, tmp_path / "zheng", tmp_path / "store", PrepareOptions(sampling_rate=100))
    stored = Store.open(tmp_path / "store").read(1)
    np.testing.assert_allclose(stored[6], samples[300:, 2], atol=0.00051)  # V1 is third there, seventh here


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"length": np.array([300, 251])}, "says samples 300 to 551 of 550"),
        ({"start": np.array([-1, 300])}, "says samples -1"),
        ({"shape": np.array([[549, 12]])}, "float32 samples are named"),
        ({"shape": np.array([[550, 8]])}, r"\[8\] leads"),
        ({"length": np.array([1.0, 2.0])}, "do not describe"),
        ({"file_idx": np.array([0, 1])}, "in a file it does not name"),
        ({"filenames": np.array(["../memmap.npy"])}, "no path below"),
        ({"filenames": np.array(["other.npy"])}, "cannot be read"),
        ({"filenames": np.array(["memmap.npy"], dtype=object)}, "cannot be read"),
    ],
)
def test_a_folder_that_is_not_what_it_says_is_refused(tmp_path, changes, words):
    write_folder(tmp_path / "broken", [300, 250], **changes)
    with pytest.raises(DataError, match=words):
        [item.read() for item in READER.records(tmp_path / "broken")]


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="ecg-selfsupervised has processed"):
        READER.records(tmp_path)
    (tmp_path / META).write_bytes(b"not an archive")
    with pytest.raises(DataError, match="cannot be read"):
        READER.records(tmp_path)
    with pytest.raises(ConfigError, match="at least 1 Hz"):
        EcgSelfSupervisedConfig(raw_sampling_rate=0)
