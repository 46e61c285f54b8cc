"""The tables in ``manifests/`` are what the program uses."""

from pathlib import Path

import pytest

from fairseq_ecg.data.labels import BUILT_IN, label_definition
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.store_index import INDEX_COLUMNS

FOLDER = Path(__file__).resolve().parent.parent / "manifests"


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_copied_label_definitions_equal_the_built_in_ones(name):
    assert label_definition(FOLDER / "labels" / f"{name}.csv") == label_definition(name)


def test_the_example_manifest_is_read():
    manifest = Manifest.read(FOLDER / "example" / "train.tsv")
    assert manifest.num_rows == 8
    assert len(set(manifest.patient.tolist())) == 2


def test_the_page_names_every_column_of_the_index_and_every_definition():
    text = " ".join((FOLDER / "README.md").read_text(encoding="utf-8").split())
    assert ", ".join(INDEX_COLUMNS) in text
    for name in BUILT_IN:
        assert f"`{name}` | {len(label_definition(name))}" in text
