"""GE MUSE XML: decoding, checks, and XML that means harm."""

import base64
import re
import zlib

import numpy as np
import pytest

from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.data.muse_format import read_muse
from fairseq_ecg.data.readers.any_file import read_record
from fairseq_ecg.errors import DataError
from tests.data.waveform_files import EIGHT_LEADS, counts, write_muse


def test_samples_demographics_and_statements_are_read(tmp_path):
    values = counts(8, 700)
    statements = (
        "<Diagnosis><DiagnosisStatement><StmtFlag>ENDSLINE</StmtFlag><StmtText>Sinus rhythm</StmtText>"
        "</DiagnosisStatement><DiagnosisStatement><StmtText>Consider</StmtText></DiagnosisStatement>"
        "<DiagnosisStatement><StmtFlag>ENDSLINE</StmtFlag><StmtText>AT&T|x</StmtText></DiagnosisStatement>"
        "</Diagnosis>"
    )
    record = read_muse(write_muse(tmp_path / "a.xml", values, statements=statements))
    np.testing.assert_allclose(record.signal, values * 0.00488, rtol=1e-6)
    assert record.leads == EIGHT_LEADS
    assert (record.sampling_rate, record.patient_id, record.sex) == (500, "P 1", "male")
    assert record.age == pytest.approx(7 / 12)
    assert record.date == "2016-02-29T09:17:34"
    assert record.labels == ("Sinus rhythm", "Consider AT&T/x")


def test_a_real_layout_equals_the_ptbxl_record_within_quantisation(shared):
    made = read_record(shared / "data/real_ecg/derived/ptbxl_00001_muse_layout.xml")
    original = read_record(shared / "data/real_ecg/ptbxl/records500/00000/00001_hr.hea")
    assert made.leads == STANDARD_LEADS
    assert (made.sampling_rate, made.patient_id, made.sex) == (500, "PTBXL15709", "female")
    assert made.date == "1984-11-09T09:17:34"
    error = np.abs(made.signal - original.signal).max(axis=1)
    recorded = [STANDARD_LEADS.index(lead) for lead in EIGHT_LEADS]
    # Half a step of 4.88 uV where a lead was stored; one and a half of two leads where it is computed, plus
    # PTB-XL's own rounding of these leads.
    assert error[recorded].max() <= 0.002441
    assert error.max() <= 0.0056


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"<LeadDataCRC32>": "<LeadDataCRC32>1"}, "corrupt: CRC32"),
        ({"<LeadByteCountTotal>1": "<LeadByteCountTotal>2"}, "truncated"),
        ({"<LeadSampleCountTotal>7": "<LeadSampleCountTotal>8"}, "truncated"),
        ({"<WaveFormData>\n": "<WaveFormData>\n!!"}, "not base64"),
        ({"4.88": "-4.88"}, "LeadAmplitudeUnitsPerBit is '-4.88'"),
        ({"4.88": "nan"}, "LeadAmplitudeUnitsPerBit is 'nan'"),
        ({"MICROVOLTS": "FURLONGS"}, "LeadAmplitudeUnits 'FURLONGS', known are"),
        ({"<SampleBase>500": "<SampleBase>0"}, "a whole rate from 1"),
        ({"<SampleExponent>0": "<SampleExponent>-3"}, "a whole rate from 1"),
        ({"<LeadSampleSize>2": "<LeadSampleSize>3"}, "known are 2 and 4 bytes"),
        ({"<LeadID>": "<LeadTimeOffset>4</LeadTimeOffset><LeadID>"}, "cannot be aligned"),
        ({"Rhythm": "Median"}, "0 waveforms of type Rhythm"),
        ({"</RestingECG>": ""}, "not well-formed XML"),
    ],
)
def test_what_does_not_agree_is_refused(tmp_path, changes, message):
    path = write_muse(tmp_path / "a.xml", counts(8, 700), changes=changes)
    with pytest.raises(DataError, match=message) as caught:
        read_muse(path)
    assert "\n" not in str(caught.value)


def test_the_checksum_is_the_crc32_of_the_raw_bytes(tmp_path):
    text = write_muse(tmp_path / "a.xml", counts(1, 9), leads=("I",)).read_text("latin-1")
    content = base64.b64decode(re.search("<WaveFormData>(.*?)</", text, re.DOTALL)[1])
    assert f"<LeadDataCRC32>{zlib.crc32(content)}<" in text
    assert read_muse(tmp_path / "a.xml").num_samples == 9


def test_entities_are_refused_before_they_expand_and_nothing_is_fetched(tmp_path):
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    (tmp_path / "secret.txt").write_text("stolen")
    for doctype in (
        f'<!DOCTYPE RestingECG [<!ENTITY l0 "lol">{laughs}]>',
        f'<!DOCTYPE RestingECG [<!ENTITY x SYSTEM "file://{tmp_path}/secret.txt">]>',
        f'<!DOCTYPE RestingECG [<!ENTITY % p SYSTEM "file://{tmp_path}/secret.txt"> %p;]>',
    ):
        path = write_muse(tmp_path / "a.xml", counts(8, 50), doctype=doctype, changes={"P 1": "&x;"})
        with pytest.raises(DataError, match="XML entities, which are not allowed"):
            read_muse(path)
    path = write_muse(tmp_path / "a.xml", counts(8, 50), changes={"P 1": "&nbsp;"})
    with pytest.raises(DataError, match="entit"):
        read_muse(path)


def test_deep_and_foreign_xml_is_refused(tmp_path):
    (tmp_path / "a.xml").write_text("<a>" * 100_000)
    with pytest.raises(DataError, match="more than 64 levels"):
        read_muse(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_text("<svg/>")
    with pytest.raises(DataError, match="the root is <svg>"):
        read_muse(tmp_path / "a.xml")
