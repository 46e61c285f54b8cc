"""Chapman-Shaoxing's CSV release: microvolts, the exported table."""

import numpy as np
import pytest

from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.readers.zheng import Zheng, ZhengConfig
from fairseq_ecg.errors import DataError
from tests.data.wfdb_files import samples

TABLE = """FileName,Rhythm,Beat,PatientAge,Gender,VentricularRate
MUSE_1,AFIB,RBBB TWC,85,MALE,117
MUSE_2,SB,NONE,59,FEMALE,52
"""


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "Diagnostics.csv").write_text(TABLE)
    for folder, header in (("ECGData", ",".join(STANDARD_LEADS) + "\n"), ("ECGDataDenoised", "")):
        (tmp_path / folder).mkdir()
        for seed in (1, 2):
            rows = "\n".join(",".join(f"{value / 4}" for value in row) for row in samples(seed=seed).T)
            (tmp_path / folder / f"MUSE_{seed}.csv").write_text(f"{header}{rows}\n")
    return tmp_path


def items(tree, **options):
    return list(Zheng(ZhengConfig(**options)).records(tree))


@pytest.mark.parametrize("denoised", [False, True])
def test_rows_of_the_table_become_records_in_mv(tree, denoised):
    first, second = (item.read() for item in items(tree, denoised=denoised))
    assert (first.record_id, first.patient_id, first.source) == ("MUSE_1", "MUSE_1", "zheng")
    assert (first.labels, second.labels) == (("AFIB", "RBBB", "TWC"), ("SB",))
    assert (first.age, first.sex, second.sex) == (85, "male", "female")
    assert (first.sampling_rate, first.leads, first.notes) == (500, STANDARD_LEADS, ())
    np.testing.assert_allclose(first.signal, samples(seed=1) / 4 / 1000, rtol=1e-6)


def test_leads_are_taken_by_the_names_of_the_first_row(tree):
    path = tree / "ECGData" / "MUSE_1.csv"
    path.write_text(path.read_text().replace("aVR,aVL", "aVL,aVR", 1))
    assert items(tree)[0].read().leads[3:5] == ("aVL", "aVR")


def test_a_workbook_alone_says_how_to_export_it(tree):
    (tree / "Diagnostics.csv").rename(tree / "Diagnostics.xlsx")
    with pytest.raises(
        DataError, match=r"Diagnostics\.csv is missing; export Diagnostics\.xlsx to it: .*as CSV"
    ):
        items(tree)


def test_a_missing_folder_is_named(tree):
    (tree / "ECGDataDenoised").rename(tree / "x")
    with pytest.raises(DataError, match=r"ECGDataDenoised is missing; unpack ECGDataDenoised\.zip"):
        items(tree, denoised=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("", "empty; fetch"),
        (",".join(STANDARD_LEADS) + "\n", "no samples in it"),
        ("1,2,3\n", r"\(1, 3\) is not \(time, 12 leads\)"),
        ("1,2\n1\n", "fetch the file again"),
        ("I,II,V99\n1,2,3\n", "unknown lead 'V99'"),
    ],
)
def test_a_wrong_file_costs_its_record_only(tree, content, message):
    path = tree / "ECGData" / "MUSE_1.csv"
    path.unlink()
    if content is not None:
        path.write_text(content)
    bad, good = items(tree)
    assert good.read().labels == ("SB",)
    with pytest.raises(DataError, match=message):
        bad.read()


def test_values_that_are_no_microvolts_are_noted(tree):
    path = tree / "ECGData" / "MUSE_1.csv"
    rows = "\n".join(",".join(f"{value / 1000}" for value in row) for row in samples(seed=1).T)
    path.write_text(rows + "\n")
    assert "are the samples uV?" in items(tree)[0].read().notes[0]
