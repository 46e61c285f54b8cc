"""MIMIC-IV-ECG: the list, the lead order, statements joined by study, ages of MIMIC-IV."""

import gzip

import numpy as np
import pytest

from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.prepare import PrepareOptions, prepare
from fairseq_ecg.data.readers.mimic_iv_ecg import MimicIvEcg, MimicIvEcgConfig
from fairseq_ecg.data.store import Store
from fairseq_ecg.errors import DataError
from tests.data.wfdb_files import samples, write_record

LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
STUDIES = ((10000032, 40689238, "2180-07-23 08:44:00"), (10000117, 44458630, "2190-01-02 10:00:00"))


@pytest.fixture
def tree(tmp_path):
    lines = ["subject_id,study_id,file_name,ecg_time,path"]
    for subject, study, time in STUDIES:
        path = f"files/p{subject // 10000}/p{subject}/s{study}/{study}"
        lines.append(f"{subject},{study},{study},{time},{path}")
        write_record(
            (tmp_path / path).parent,
            str(study),
            samples(seed=study),
            leads=LEADS,
            gain="200.0(0)/mV",
            comments=(f"# <subject_id>: {subject}",),
        )
    (tmp_path / "record_list.csv").write_text("\n".join(lines) + "\n")
    # In another order than the list: rows are joined by study_id.
    (tmp_path / "machine_measurements.csv").write_text(
        "subject_id,study_id,cart_id,report_0,report_1,report_2,rr_interval\n"
        "10000117,44458630,1,Atrial fibrillation,,Atrial fibrillation,600\n"
        '10000032,40689238,1,Sinus rhythm,"Borderline ECG, see|above",,800\n'
    )
    with gzip.open(tmp_path / "patients.csv.gz", "wt") as file:
        file.write("subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n")
        file.write("10000032,F,52,2178,2014 - 2016,\n10000117,M,91,2185,2014 - 2016,\n")
    return tmp_path


def read(tree, **options):
    return [item.read() for item in MimicIvEcg(MimicIvEcgConfig(**options)).records(tree)]


def test_rows_of_the_list_become_records(tree):
    first, second = read(tree)
    assert (first.record_id, first.patient_id, first.date) == ("40689238", "10000032", "2180-07-23T08:44:00")
    assert (first.labels, first.sex, first.sampling_rate) == ((), "", 500)
    assert first.leads == LEADS
    assert second.patient_id == "10000117"


def test_avf_and_avl_end_in_their_own_rows(tree):
    report = prepare(MimicIvEcg(MimicIvEcgConfig()), tree, tree / "store", PrepareOptions())
    assert report.num_records == 2
    stored = Store.open(tree / "store").read(0)
    raw = samples(seed=40689238) / np.float32(200)
    for row, lead in enumerate(STANDARD_LEADS):
        np.testing.assert_allclose(stored[row], raw[LEADS.index(lead)], atol=1e-6)


def test_statements_are_joined_by_study(tree):
    first, second = read(tree, machine_statements=True)
    assert first.labels == ("Sinus rhythm", "Borderline ECG, see/above")
    assert second.labels == ("Atrial fibrillation",)


def test_sex_and_age_come_from_the_patients_table(tree):
    first, second = read(tree, patients=tree / "patients.csv.gz")
    assert (first.sex, first.age, first.notes) == ("female", 54.0, first.notes)
    assert (second.sex, second.age) == ("male", 90.0)
    assert "age is over 89, kept as 90" in second.notes


def test_a_partial_download_is_read_when_asked_for(tree):
    (tree / "files/p1000/p10000032/s40689238/40689238.hea").unlink()
    assert [record.record_id for record in read(tree, only_present=True)] == ["44458630"]
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read(tree)


def test_missing_tables_name_the_remedy(tree):
    (tree / "machine_measurements.csv").unlink()
    with pytest.raises(DataError, match=r"machine_measurements\.csv is missing; --machine-statements needs"):
        read(tree, machine_statements=True)
    with pytest.raises(DataError, match=r"p\.csv is missing; --patients names"):
        read(tree, patients=tree / "p.csv")
    (tree / "record_list.csv").write_text("subject_id,study_id,path\n1,2,files/x\n")
    with pytest.raises(DataError, match=r"none of the records that record_list\.csv names is there"):
        read(tree, only_present=True)
