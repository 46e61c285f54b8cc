import numpy as np
import pytest

from fairseq_ecg.errors import ConfigError, DataError
from fairseq_ecg.metrics.cinc import builtin_table
from fairseq_ecg.metrics.cinc_files import (
    Outputs,
    diagnosis_codes,
    find_headers,
    read_labels,
    read_outputs,
    score,
    write_class_scores,
    write_scores,
)

AF, AFL, PAC, SVPB = "164889003", "164890007", "284470004", "63593006"


def header(tmp_path, comments, name="A.hea"):
    path = tmp_path / name
    path.write_text("A 1 500 10\nA.mat 16 1000/mV 16 0 0 0 0 I\n" + comments)
    return path


@pytest.mark.parametrize(
    ("comments", "strict", "lenient"),
    [
        (f"#Dx: {AF}, {AFL}\n", {AF, AFL}, {AF, AFL}),
        (f"# Dx: {AF}\n", set(), {AF}),
        (f"#Dx:{AF}\n", set(), {AF}),
        (f"#Dx: {AF}\n#Dx: {AFL}: x\n", {AF, AFL}, {AF, AFL}),
        ("#Dx: \n", set(), set()),
        ("#Age: 3\n", set(), set()),
    ],
)
def test_diagnosis_lines_of_both_dialects(tmp_path, comments, strict, lenient):
    path = header(tmp_path, comments)
    assert diagnosis_codes(path, strict=True) == strict
    assert diagnosis_codes(path) == lenient


def outputs(tmp_path, text, year):
    (tmp_path / "A.csv").write_text(text)
    table = builtin_table(year)
    read = read_outputs([header(tmp_path, "")], tmp_path, table, year)
    return lambda code: (
        bool(read.binary[0, index := [code in own for own in table.codes].index(True)]),
        read.scalar[0, index],
    )


def test_outputs_by_the_rules_of_2021(tmp_path):
    of = outputs(tmp_path, f"#A\n{SVPB}, {AF} ,{PAC},{AFL},x\n1.0,TRUE,0,t\n0.5,nan,0.1,inf\n", 2021)
    assert of(PAC) == (True, pytest.approx(0.3))
    assert of(AF) == (False, 0.0)
    assert of(AFL) == (True, 0.0)
    assert of("426783006") == (False, 0.0)


def test_outputs_by_the_rules_of_2020(tmp_path):
    of = outputs(tmp_path, f"#A\n\n{SVPB},{AF},{PAC},{AFL}\n1.0,1,0,T\n0.5,nan,nan,inf\n", 2020)
    assert of(PAC) == (False, 0.5)
    assert of(AF) == (True, 0.0)
    assert of(AFL) == (True, np.inf)


def test_a_malformed_output_file_is_all_negative_in_2020_and_refused_in_2021(tmp_path):
    assert outputs(tmp_path, f"#A\n{AF},{AFL}\n1\n0.5,0.5\n", 2020)(AF) == (False, 0.0)
    with pytest.raises(DataError, match="has 3 lines"):
        outputs(tmp_path, f"#A\n{AF}\n1\n", 2021)
    with pytest.raises(DataError, match="2 classes but 1 binary"):
        outputs(tmp_path, f"#A\n{AF},{AFL}\n1\n0.5,0.5\n", 2021)


def test_missing_files_and_unknown_years_are_refused(tmp_path):
    table = builtin_table(2021)
    with pytest.raises(DataError, match="not a folder"):
        find_headers(tmp_path / "none")
    with pytest.raises(DataError, match=r"no \.hea header"):
        find_headers(tmp_path)
    path = header(tmp_path, "")
    with pytest.raises(DataError, match=r"A\.csv is missing"):
        read_outputs([path], tmp_path, table, 2021)
    with pytest.raises(ConfigError, match="year=2019"):
        read_outputs([path], tmp_path, table, 2019)


def test_headers_are_found_in_any_case_hidden_ones_are_not(tmp_path):
    for name in ("b.HEA", "a.hea", ".c.hea", "d.csv"):
        header(tmp_path, f"#Dx: {AF}\n", name)
    headers = find_headers(tmp_path)
    assert [path.name for path in headers] == ["a.hea", "b.HEA"]
    assert read_labels(headers, builtin_table(2021))[:, 0].all()


def test_the_reports_have_the_columns_of_their_year(tmp_path):
    table = builtin_table(2020)
    labels = np.zeros((2, 24), dtype=bool)
    labels[0, 0] = labels[1, 20] = True
    scores = score(table, labels, Outputs(labels, labels.astype(float)))
    write_scores(tmp_path / "2020.csv", scores, 2020)
    write_scores(tmp_path / "2021.csv", scores, 2021)
    assert (tmp_path / "2021.csv").read_text() == (
        "AUROC,AUPRC,Accuracy,F-measure,Challenge metric\n1.000,1.000,1.000,1.000,1.000"
    )
    assert (tmp_path / "2020.csv").read_text() == (
        "AUROC,AUPRC,Accuracy,F-measure,Fbeta-measure,Gbeta-measure,Challenge metric\n"
        + ",".join(["1.000"] * 7)
    )
    write_class_scores(tmp_path / "classes.csv", scores, table)
    lines = (tmp_path / "classes.csv").read_text().split("\n")
    assert [line.split(",")[0] for line in lines] == ["Classes", "AUROC", "AUPRC", "F-measure"]
    assert lines[0].split(",")[1] == "270492004"
    assert lines[3].split(",")[1:3] == ["1.000", "nan"]
