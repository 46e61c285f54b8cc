import numpy as np
import pytest

from fairseq_ecg.cli.main import main
from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.labels import label_definition
from fairseq_ecg.data.store import StoreWriter
from fairseq_ecg.errors import DataError
from fairseq_ecg.evaluate.data import open_data
from tests.frozen import CODES, NOT_SCORED, RATE, make_manifests


@pytest.fixture
def manifests(tmp_path):
    return make_manifests(tmp_path, num_patients=12)


def test_prepared_labels_equal_those_made_from_the_codes(manifests):
    from_codes = open_data(manifests, str(manifests / "label_def.csv"))
    matrix = np.full((24, 3), np.nan, dtype=np.float32)
    for split in from_codes.splits.values():
        matrix[[item.idx for item in split.inputs]] = split.target
    np.save(manifests / "y.npy", matrix)
    prepared = open_data(manifests, None)
    assert prepared.labels == from_codes.labels
    for name, split in prepared.splits.items():
        assert np.array_equal(split.target, from_codes.splits[name].target)
        assert split.num_patients == len(split) // 2
    assert prepared.sources == ["synthetic"]


def test_records_without_any_label_are_left_out(manifests):
    matrix = np.zeros((24, 3), dtype=np.float32)
    matrix[0] = np.nan
    matrix[1, 1] = np.nan
    np.save(manifests / "y.npy", matrix)
    data = open_data(manifests, None)
    assert "r000_0" not in {item.record_id for item in data.splits["train"].inputs}
    assert "r000_1" in {item.record_id for item in data.splits["train"].inputs}
    np.save(manifests / "y.npy", np.full((24, 3), np.nan, dtype=np.float32))
    with pytest.raises(DataError, match=r"train\.tsv: no record of it has a label"):
        open_data(manifests, None)


def test_records_without_a_code_are_unlabelled_and_those_without_a_scored_one_negative(tmp_path):
    """The split's label array and the labels of an evaluation are made by one rule."""
    diagnoses = {"af": CODES[:1], "other": (NOT_SCORED,), "none": ()}
    with StoreWriter(tmp_path / "store", sampling_rate=RATE, leads=STANDARD_LEADS, choices={}) as writer:
        for number in range(12):
            for name, codes in diagnoses.items():
                record = Record(
                    record_id=f"{name}{number}",
                    patient_id=f"{name}{number}",
                    source="made",
                    signal=np.zeros((12, 5 * RATE), np.float32),
                    leads=STANDARD_LEADS,
                    sampling_rate=RATE,
                    labels=codes,
                )
                writer.add(record, leads_present=STANDARD_LEADS)
    split = ["manifest", "split", str(tmp_path / "store"), str(tmp_path / "split"), "--labels", "cinc2021"]
    assert main([*split, "--valid", "0.3", "--test", "0.3"]) == 0
    prepared, from_codes = (open_data(tmp_path / "split", labels) for labels in (None, "cinc2021"))
    af = prepared.labels.names.index("AF")
    seen = 0
    for name, part in prepared.splits.items():
        assert [item.record_id for item in part.inputs] == [
            item.record_id for item in from_codes.splits[name].inputs
        ]
        assert np.array_equal(part.target, from_codes.splits[name].target)
        for item, target in zip(part.inputs, part.target, strict=True):
            assert not item.record_id.startswith("none")
            assert np.flatnonzero(target).tolist() == ([af] if item.record_id.startswith("af") else [])
        seen += len(part)
    assert seen == 24
    y = np.load(tmp_path / "split" / "y.npy")
    assert np.isnan(y).all(axis=1).sum() == np.isnan(y).any(axis=1).sum() == 12


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((23, 3)), "has 23 rows but the manifests name row 23"),
        (np.zeros((24, 2)), r"has shape \(24, 2\), label_def.csv names 3 labels"),
        (np.zeros(24), r"has shape \(24,\)"),
    ],
)
def test_labels_of_another_size_are_refused(manifests, array, message):
    np.save(manifests / "y.npy", array)
    with pytest.raises(DataError, match=message):
        open_data(manifests, None)


def test_missing_or_unknown_labels_and_folders_are_refused(manifests, tmp_path):
    with pytest.raises(DataError, match=r"has no y\.npy"):
        open_data(manifests, None)
    (manifests / "y.npy").write_bytes(b"not an array")
    with pytest.raises(DataError, match="not a readable label array"):
        open_data(manifests, None)
    with pytest.raises(DataError, match="did you mean 'cinc2021'"):
        open_data(manifests, "cinc2012")
    with pytest.raises(DataError, match="is not a folder of manifests"):
        open_data(tmp_path / "absent", "cinc2021")
    (manifests / "valid.tsv").unlink()
    with pytest.raises(DataError, match=r"valid\.tsv"):
        open_data(manifests, "cinc2021")


def test_classes_are_those_of_the_definition(manifests):
    data = open_data(manifests, "cinc2021")
    assert data.labels == label_definition("cinc2021")
    assert data.splits["test"].target.shape[1] == 26
    assert not np.isnan(data.splits["test"].target).all(axis=1).any()
