"""Headers and samples of WFDB records, with the wfdb package as oracle."""

from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.data.wfdb_format import (
    parse_header,
    read_digital,
    read_header,
    read_physical,
    to_physical,
    to_physical_float64,
)
from fairseq_ecg.errors import DataError
from tests.data.wfdb_files import LEADS, samples, write_record

REAL_FOLDERS = (
    "cinc2021",
    "cinc2021_reduced_leads",
    "cinc2020_early_headers",
    "ptbxl",
    "mitdb",
    "ptbdb",
    "ludb",
    "derived",
)


def header_of(line: str, record_line: str = "r 1 500 10"):
    return parse_header(f"{record_line}\n{line}\n", Path("r.hea"))


@pytest.mark.parametrize("folder", REAL_FOLDERS)
def test_digital_and_physical_samples_gains_and_baselines_equal_wfdb_on_real_records(shared, folder):
    import wfdb

    paths = sorted((shared / "data/real_ecg" / folder).rglob("*.hea"))
    assert paths
    compared = 0
    for path in paths:
        digital, header = read_digital(path)  # verifies first values and checksums of dotted names too
        physical, _ = read_physical(path)
        if "." in header.record_name:
            continue  # wfdb cannot open these; the next test shows it
        theirs = wfdb.rdrecord(str(path.with_suffix("")), physical=False)
        calibrations = [signal.calibration for signal in header.signals]
        np.testing.assert_array_equal(digital, theirs.d_signal.T, err_msg=str(path))
        assert [calibration.gain for calibration in calibrations] == theirs.adc_gain
        assert [calibration.baseline for calibration in calibrations] == theirs.baseline
        assert [calibration.unit for calibration in calibrations] == theirs.units
        assert [signal.name for signal in header.signals] == theirs.sig_name
        assert header.sampling_rate == theirs.fs
        in_mv = wfdb.rdrecord(str(path.with_suffix(""))).p_signal.T.astype(np.float32)
        np.testing.assert_array_equal(physical, in_mv, err_msg=str(path))
        compared += 1
    assert compared >= len(paths) - 7
    assert compared > 0


def test_a_dotted_record_name_that_wfdb_refuses_is_read(shared):
    import wfdb

    path = shared / "data/real_ecg/cinc2021/E03823.hea"
    with pytest.raises(wfdb.io.header.HeaderSyntaxError):
        wfdb.rdheader(str(path.with_suffix("")))
    digital, header = read_digital(path)
    assert header.record_name == "E03823.mat"
    assert digital.shape == (12, header.num_samples)


@pytest.mark.parametrize(
    ("text", "gain", "baseline", "unit", "stated"),
    [
        ("1000/mV", 1000, 7, "mV", True),
        ("1000.0(0)/mV", 1000, 0, "mV", True),
        ("1716(6)/mv", 1716, 6, "mv", True),
        ("1229(-5)/uV", 1229, -5, "uV", True),
        ("200", 200, 7, "mV", True),
        ("1e3(+2)", 1000, 2, "mV", True),
        (".5/V", 0.5, 7, "V", True),
        ("0", 200, 7, "mV", False),
    ],
)
def test_every_spelling_of_a_gain_is_understood(text, gain, baseline, unit, stated):
    header = header_of(f"r.dat 16 {text} 16 7 0 0 0 I")
    assert header.signals[0].calibration == (gain, baseline, unit, stated)


def test_a_signal_line_may_end_after_the_format():
    signal = header_of("r.dat 16").signals[0]
    assert signal.calibration == (200, 0, "mV", False)
    assert signal.checksum is None
    assert signal.first_value is None
    assert signal.name == ""


@pytest.mark.parametrize(
    ("text", "storage"),
    [
        ("16", ("16", 1, 0, 0)),
        ("16+24", ("16", 1, 0, 24)),
        ("16x1+24", ("16", 1, 0, 24)),
        ("212x4:3", ("212", 4, 3, 0)),
    ],
)
def test_every_spelling_of_a_storage_format_is_understood(text, storage):
    assert header_of(f"r.dat {text}").signals[0].storage == storage


@pytest.mark.parametrize(
    ("line", "date"),
    [
        ("r 1 500 10", ""),
        ("r 1 500 10 12-May-2020 12:33:59", "2020-05-12T12:33:59"),
        ("r 1 500 10 9:05:00 01/10/1990", "1990-10-01T09:05:00"),
        ("r 1 500 10 12:33:59", ""),
        ("r 1 500 10 31/31/1990", ""),
    ],
)
def test_the_date_is_read_in_either_order(line, date):
    assert header_of("r.dat 16", line).date == date


def test_comments_and_blank_lines_may_stand_anywhere():
    header = parse_header("# first\n\nr 1 360/720(0) 10\n\nr.dat 16\n#Age: 4\n", Path("r.hea"))
    assert header.comments == ("first", "Age: 4")
    assert header.sampling_rate == 360


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "header is empty"),
        ("r 1\n", "is not 'NAME SIGNALS RATE"),
        ("r x 500 10\n", "is not 'NAME SIGNALS RATE"),
        ("r 2 500 10\nr.dat 16\n", "announces 2 signals, 1 lines follow"),
        ("r 1 500 10\nr.dat\n", "is not 'FILE FORMAT"),
        ("r 1 500 10\nr.dat sixteen\n", "format 'sixteen'"),
        ("r 1 500 10\nr.dat 16 fast\n", "gain 'fast'"),
        ("r 1 500 10\nr.dat 16 200 16 0 x 0 0 I\n", "invalid literal"),
    ],
)
def test_a_header_that_cannot_be_understood_says_which_line(text, reason):
    with pytest.raises(DataError, match=reason):
        parse_header(text, Path("r.hea"))


def test_interleaved_samples_come_out_by_lead(tmp_path):
    digital = samples()
    found, header = read_digital(write_record(tmp_path, "A0001", digital))
    np.testing.assert_array_equal(found, digital)
    assert found.flags.c_contiguous
    assert [signal.name for signal in header.signals] == list(LEADS)


def test_physical_samples_are_the_equation_and_the_invalid_value_is_nan(tmp_path):
    digital = samples(2, 50)
    digital[1, 3] = -32768
    path = write_record(tmp_path, "r", digital, leads=("I", "II"), gain="1716.3(6)/mV")
    physical, _ = read_physical(path)
    assert np.isnan(physical[1, 3])
    for row in range(2):
        for column in range(50):
            if (row, column) != (1, 3):
                expected = np.float32((int(digital[row, column]) - 6) / 1716.3)
                assert physical[row, column] == expected


def test_the_signals_of_several_files_are_put_together(tmp_path):
    digital = samples(3, 40)
    sums = [int(row.astype(np.int64).sum().astype(np.int16)) for row in digital]
    lines = ["r 3 500 40"]
    for name, row in (("a.dat", 0), ("b.xyz", 1), ("a.dat", 2)):
        offset = "+4" if name == "b.xyz" else ""
        lines.append(f"{name} 16{offset} 1000/mV 16 0 {digital[row, 0]} {sums[row]} 0 {LEADS[row]}")
    (tmp_path / "r.hea").write_text("\n".join(lines))
    (tmp_path / "a.dat").write_bytes(digital[[0, 2]].T.astype("<i2").tobytes())
    (tmp_path / "b.xyz").write_bytes(bytes(4) + digital[1].astype("<i2").tobytes())
    found, _ = read_digital(tmp_path / "r.hea")
    np.testing.assert_array_equal(found, digital)


def test_without_a_length_the_file_tells_it_and_unequal_files_are_refused(tmp_path):
    digital = samples(2, 40)
    (tmp_path / "r.hea").write_text("r 2 500\na.dat 16\nb.dat 16\n")
    for name, row in (("a.dat", 0), ("b.dat", 1)):
        (tmp_path / name).write_bytes(digital[row].astype("<i2").tobytes())
    np.testing.assert_array_equal(read_digital(tmp_path / "r.hea")[0], digital)
    (tmp_path / "b.dat").write_bytes(digital[1, :30].astype("<i2").tobytes())
    with pytest.raises(DataError, match=r"different numbers of samples: \[30, 40\]"):
        read_digital(tmp_path / "r.hea")


def test_a_missing_signal_file_is_named(tmp_path):
    path = write_record(tmp_path, "A0001")
    (tmp_path / "A0001.mat").unlink()
    with pytest.raises(DataError, match=r"A0001\.mat: named by A0001\.hea, cannot be read: No such file"):
        read_digital(path)


def test_a_truncated_signal_file_is_refused(tmp_path):
    path = write_record(tmp_path, "A0001")
    signal_path = tmp_path / "A0001.mat"
    signal_path.write_bytes(signal_path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"truncated: .* hold 999 samples of 12 leads, the header says 1000"):
        read_digital(path)


def test_one_flipped_bit_is_found_by_the_checksum(tmp_path):
    path = write_record(tmp_path, "A0001")
    signal_path = tmp_path / "A0001.mat"
    content = bytearray(signal_path.read_bytes())
    content[24 + 2 * (12 * 500 + 7)] ^= 1  # sample 500 of V2
    signal_path.write_bytes(content)
    with pytest.raises(DataError, match=r"lead V2: the samples sum to .* corrupt"):
        read_digital(path)


def test_swapped_samples_that_keep_the_sum_are_found_by_the_first_value(tmp_path):
    digital = samples(1, 10)
    path = write_record(tmp_path, "r", digital, leads=("I",))
    (tmp_path / "r.mat").write_bytes(bytes(24) + digital[:, ::-1].T.astype("<i2").tobytes())
    with pytest.raises(DataError, match="the first sample is"):
        read_digital(path)


def test_other_formats_are_read_by_wfdb_and_their_checksums_verified(shared, tmp_path):
    source = shared / "data/real_ecg/mitdb"
    (tmp_path / "100.dat").write_bytes((source / "100.dat").read_bytes())
    text = (source / "100.hea").read_text()
    (tmp_path / "100.hea").write_text(text.replace("-22131", "-22130"))
    with pytest.raises(DataError, match="lead MLII: the samples sum to -22131"):
        read_digital(tmp_path / "100.hea")


def test_what_wfdb_cannot_read_is_one_clear_error(tmp_path):
    (tmp_path / "r.hea").write_text("r 1 500 10\nr.dat 212\n")
    with pytest.raises(DataError, match=r"r\.dat: named by r\.hea, cannot be read: No such file"):
        read_digital(tmp_path / "r.hea")
    (tmp_path / "r.hea").write_text("r 1 500 10\nr.dat 999\n")
    with pytest.raises(DataError, match="wfdb cannot read it"):
        read_digital(tmp_path / "r.hea")


def test_truncation_that_wfdb_would_hide_by_repeating_samples_is_refused(tmp_path):
    (tmp_path / "r.hea").write_text("r 1 500 10\nr.dat 212\n")
    (tmp_path / "r.dat").write_bytes(bytes(14))
    with pytest.raises(DataError, match="truncated: 14 bytes where the header's 10 samples need 15"):
        read_digital(tmp_path / "r.hea")
    (tmp_path / "r.dat").write_bytes(bytes(15))
    np.testing.assert_array_equal(read_digital(tmp_path / "r.hea")[0], np.zeros((1, 10)))


def test_a_truncated_flac_file_is_refused(shared, tmp_path):
    for path in (shared / "data/real_ecg/derived").glob("ptbxl_00001_flac*"):
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[: len(content) // 2] if "_2.dat" in path.name else content)
    with pytest.raises(DataError, match="wfdb cannot read it"):
        read_digital(tmp_path / "ptbxl_00001_flac.hea")


def test_a_record_of_several_segments_is_read_in_physical_units(tmp_path):
    first, second = samples(2, 30, seed=1), samples(2, 20, seed=2)
    for name, digital in (("r_1", first), ("r_2", second)):
        write_record(tmp_path, name, digital, leads=("I", "II"), comments=())
    (tmp_path / "r.hea").write_text("r/2 2 500 50\nr_1 30\nr_2 20\n")
    physical, header = read_physical(tmp_path / "r.hea")
    np.testing.assert_allclose(physical, np.hstack([first, second]) / 1000, atol=1e-6)
    assert [signal.name for signal in header.signals] == ["I", "II"]
    with pytest.raises(DataError, match="2 segments"):
        read_digital(tmp_path / "r.hea")
    (tmp_path / "r_2.mat").write_bytes(bytes(30))
    with pytest.raises(DataError, match=r"r_2\.mat: truncated"):
        read_physical(tmp_path / "r.hea")


def test_samples_wider_than_int16_are_read_in_physical_units_only(tmp_path):
    values = np.array([0, 100_000, -100_000], "<i4")
    (tmp_path / "r.hea").write_text("r 1 500 3\nr.dat 32 1000/mV 32 0 0 0 0 I\n")
    (tmp_path / "r.dat").write_bytes(values.tobytes())
    physical, _ = read_physical(tmp_path / "r.hea")
    np.testing.assert_array_equal(physical, [[0, 100, -100]])
    with pytest.raises(DataError, match="exceed int16"):
        read_digital(tmp_path / "r.hea")


def test_a_header_that_is_not_there_or_names_no_signal_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.hea: cannot be read"):
        read_header(tmp_path / "none.hea")
    (tmp_path / "r.hea").write_text("r 0 500 10\n")
    with pytest.raises(DataError, match="names no signals"):
        read_digital(tmp_path / "r.hea")


def test_double_precision_is_the_quotient_with_or_without_the_baseline(tmp_path):
    path = write_record(tmp_path, "A0001", samples(seed=4))
    digital, header = read_digital(path)
    digital = digital.copy()
    digital[2, 5] = -32768
    signals = [
        item._replace(calibration=item.calibration._replace(gain=3.0 + row, baseline=10 * row))
        for row, item in enumerate(header.signals)
    ]
    header = header._replace(signals=tuple(signals))
    exact, shifted = (to_physical_float64(digital, header, reference_baseline=flag) for flag in (False, True))
    assert np.isnan([exact[2, 5], shifted[2, 5]]).all()
    for row, time in ((0, 0), (3, 17), (11, 99)):
        value = int(digital[row, time])
        assert exact[row, time] == (value - 10 * row) / (3.0 + row)
        assert shifted[row, time] == value / (3.0 + row)
    np.testing.assert_allclose(to_physical(digital, header), exact, rtol=1e-6)


def test_checksums_that_are_all_0_are_none(tmp_path):
    path = write_record(tmp_path, "a", samples(2), leads=("I", "II"))
    lines = path.read_text().splitlines()
    without = [" ".join([*line.split()[:6], "0", *line.split()[7:]]) for line in lines[1:3]]
    path.write_text("\n".join([lines[0], *without]) + "\n")
    np.testing.assert_array_equal(read_digital(path)[0], samples(2))
    path.write_text("\n".join([lines[0], lines[1], without[1]]) + "\n")
    with pytest.raises(DataError, match="lead II: the samples sum to"):
        read_digital(path)


@pytest.mark.parametrize("name", ["../b.mat", "/etc/b.mat", "x/../../b.mat", "..\\b.mat", "C:\\b.mat"])
def test_signal_files_outside_the_folder_are_refused(tmp_path, name):
    path = write_record(tmp_path / "in", "a")
    path.write_text(path.read_text().replace("a.mat", name))
    with pytest.raises(DataError, match="which is not below the header's folder"):
        read_digital(path)


def test_segments_of_segments_and_outside_the_folder_are_refused(tmp_path):
    (tmp_path / "m.hea").write_text("m/1 2 500 1000\nm 1000\n")
    with pytest.raises(DataError, match="its segment m has segments itself"):
        read_physical(tmp_path / "m.hea")
    (tmp_path / "m.hea").write_text("m/1 2 500 1000\n../s 1000\n")
    with pytest.raises(DataError, match="which is not below the header's folder"):
        read_physical(tmp_path / "m.hea")


def test_signal_files_may_lie_in_a_folder_below(tmp_path):
    path = write_record(tmp_path, "a")
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.mat").rename(tmp_path / "sub" / "a.mat")
    path.write_text(path.read_text().replace("a.mat", "sub/a.mat"))
    np.testing.assert_array_equal(read_digital(path)[0], samples())
