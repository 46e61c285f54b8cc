"""ECG-JEPA's data: Shaoxing/Ningbo, CODE-15, PTB-XL and CPSC trees -> 8 leads of 2500 samples, and labels.

What a folder holds tells which of the four it is. Signals are compared as ``prepare`` makes them under the
contract ``ecg_jepa_reference`` (float32, before they are stored as int16), and once more in float64.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.labels import LabelDefinition
from fairseq_ecg.data.prepare import PrepareOptions, prepare_record
from fairseq_ecg.data.presets import preset
from fairseq_ecg.data.readers.code15 import Code15, Code15Config
from fairseq_ecg.data.readers.physionet2021 import PhysioNet2021, PhysioNet2021Config
from fairseq_ecg.data.readers.ptbxl import STATEMENTS, PtbXl, PtbXlConfig
from fairseq_ecg.data.record import RawItem, reference_leads
from fairseq_ecg.data.signal import Resampling, crop, reference_resampled_length, resize
from fairseq_ecg.data.source_table import read_source_table
from fairseq_ecg.data.wfdb_format import read_digital, to_physical_float64
from fairseq_ecg.errors import ConfigError
from tools.golden_checks.report import Report

REFERENCE = preset("ecg_jepa_reference").prepare
Golden = dict[str, NDArray[Any]]


def check(folder: Path, report: Report) -> None:
    """Prepare the tree of a fixture folder and compare what is kept.

    Raises:
        ConfigError: the folder holds none of the four trees.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with np.load(folder / "io.npz", allow_pickle=False) as arrays:
        golden = {name: arrays[name] for name in arrays.files}
    if parts := sorted(folder.rglob("*.hdf5")):
        _check_code15(parts[0].parent, config, golden, report)
    elif tables := sorted(folder.rglob("ptbxl_database.csv")):
        _check_ptbxl(tables[0].parent, config, golden, report)
    elif (folder / "WFDBRecords").is_dir():
        _check_shaoxing(folder / "WFDBRecords", config, golden, report)
    elif groups := [path for path in sorted(folder.rglob("g[0-9]*")) if path.is_dir()]:
        _check_cpsc(groups[0].parent, config, golden, report)
    else:
        raise ConfigError(f"{folder} holds no tree of CODE-15, PTB-XL, Shaoxing or CPSC")
    for name in golden:
        report.fail(name, "unknown array")


def _check_code15(root: Path, config: dict[str, Any], golden: Golden, report: Report) -> None:
    options = replace(
        preset("ecg_jepa_reference_code15").prepare,
        leads=_leads(config),
        num_samples=config["n_out"],
        zero_start_sec=config["zero_check_samples"] / config["fs_in"],
    )
    reader = Code15(Code15Config(table=False, strip_padding=False))
    kept = _prepared(reader.records(root), options)
    names = sorted(path.name for path in root.glob("*.hdf5"))
    # The reference numbers the files in lexicographic order.
    rows = sorted(
        ((names.index(item.path.name), item.row), item, record)  # type: ignore[attr-defined]
        for item, record in kept
    )
    report.equal("kept", [list(row) for row, _, _ in rows], config["kept"])
    report.equal("file_indices", np.array([row for row, _, _ in rows]), golden.pop("file_indices"))
    waves = golden.pop("waves")
    report.equal("n_in", {item.read().num_samples for _, item, _ in rows}, {config["n_in"]})
    report.close("waves", np.stack([record.signal for _, _, record in rows]), waves, atol=5e-6)
    head = golden.pop("raw_first_kept_head")
    report.equal("raw_first_kept_head", rows[0][1].read().signal[:, : head.shape[1]], head)


def _check_ptbxl(root: Path, config: dict[str, Any], golden: Golden, report: Report) -> None:
    rate, num_samples = config["sampling_rate_in"], config["n_out"]
    window_sec = config["n_in"] / rate
    options = replace(
        REFERENCE,
        leads=_leads(config),
        reference_rate=None,
        zero_start_sec=0.0,  # this loader keeps every record
        window_sec=window_sec,
        num_samples=num_samples,
        sampling_rate=round(num_samples / window_sec),
    )
    report.equal("lead_order", list(options.leads), config["lead_order"])
    kept = _prepared(PtbXl(PtbXlConfig(files="records500")).records(root), options)
    definition = _superclasses(root, [record for _, record in kept])
    report.equal("class_order", list(definition.names), config["class_order"])
    # A record without any code is unlabelled to this package, and of no class to the reference.
    target = np.nan_to_num(definition.multi_hot([record.labels for _, record in kept]))
    test_fold = str(config["test_fold"])
    for part, is_test in (("train", False), ("test", True)):
        rows = [
            row
            for row, (_, record) in enumerate(kept)
            if target[row].any() and (record.fold == test_fold) == is_test
        ]
        ids = np.array([int(kept[row][1].record_id.partition("_")[0]) for row in rows])
        waves = np.stack([kept[row][1].signal for row in rows])
        report.close(f"waves_{part}_f32", waves, golden.pop(f"waves_{part}_f32"), atol=1e-6)
        report.equal(f"ecg_id_{part}_multilabel", ids, golden.pop(f"ecg_id_{part}_multilabel"))
        single = _check_labels(part, target[rows], golden, report)
        report.equal(f"ecg_id_{part}_multiclass", ids[single], golden.pop(f"ecg_id_{part}_multiclass"))
        checksum = golden.pop(f"float64_checksum_{part}", None)
        if checksum is not None:
            exact = np.stack([_exact(kept[row][0].path, rate, config["n_in"], config) for row in rows])
            sums = [exact.sum(), np.abs(exact).sum(), (exact**2).sum()]
            report.close(f"float64_checksum_{part}", sums, checksum, rtol=1e-9)


def _check_cpsc(root: Path, config: dict[str, Any], golden: Golden, report: Report) -> None:
    kept = _prepared(PhysioNet2021(PhysioNet2021Config()).records(root), REFERENCE)
    records = [record for _, record in kept if record.labels]
    codes = sorted({code for record in records for code in record.labels})
    report.equal("class_order", codes, config["class_order"])
    definition = LabelDefinition(tuple(codes), tuple(frozenset([code]) for code in codes), tuple(codes))
    target = definition.multi_hot([record.labels for record in records])
    for part, is_test in (("train", False), ("test", True)):
        rows = [row for row, it in enumerate(records) if (it.fold == config["test_group"]) == is_test]
        names = np.array([f"{records[row].fold}/{records[row].record_id}" for row in rows])
        report.equal(f"row_records_{part}", names, golden.pop(f"row_records_{part}"))
        waves = np.stack([records[row].signal for row in rows])
        report.close(f"waves_{part}", waves, golden.pop(f"waves_{part}"), atol=1e-6)
        single = _check_labels(part, target[rows], golden, report)
        report.equal(f"n_{part}_multiclass", int(single.sum()), int(golden.pop(f"n_{part}_multiclass")))


def _check_shaoxing(root: Path, config: dict[str, Any], golden: Golden, report: Report) -> None:
    length, num_samples = config["segment_length"], config["n_out"]
    rate = REFERENCE.reference_rate
    assert rate is not None
    window_sec = length / rate
    options = replace(
        REFERENCE,
        window_sec=window_sec,
        num_samples=num_samples,
        sampling_rate=round(num_samples / window_sec),
        zero_start_sec=config["zero_check_samples"] / rate,
    )
    kept = _prepared(PhysioNet2021(PhysioNet2021Config()).records(root), options)
    names = [item.path.relative_to(root).with_suffix("").as_posix() for item, _ in kept]
    wanted = [f"{record['folder']}/{record['name']}" for record in config["records"] if record["kept"]]
    report.equal("kept", names, wanted)
    report.equal("row_records", np.array(names), golden.pop("row_records"))
    report.close("waves", np.stack([record.signal for _, record in kept]), golden.pop("waves"), atol=1e-6)
    head = golden.pop("waves_500hz_head")
    before = np.stack([_window(item.path, rate, length, options.leads) for item, _ in kept])
    report.close("waves_500hz_head", before[:, :, : head.shape[2]], head, atol=1e-9)
    exact = np.stack([resize(signal, num_samples, Resampling.FOURIER) for signal in before])
    sums = [exact.sum(), np.abs(exact).sum()]
    report.close("float64_checksum", sums, golden.pop("float64_checksum"), rtol=1e-9)


def _leads(config: dict[str, Any]) -> tuple[str, ...]:
    return tuple(STANDARD_LEADS[index] for index in config["lead_indices"])


def _prepared(items: Iterable[RawItem], options: PrepareOptions) -> list[tuple[RawItem, Record]]:
    """The records that are kept, as they would go into a store, with the item each is of."""
    results = [(item, prepare_record(item, options).record) for item in items]
    return [(item, record) for item, record in results if record is not None]


def _superclasses(root: Path, records: Sequence[Record]) -> LabelDefinition:
    """Diagnostic superclasses that occur, by the data set's own table of statements."""
    statements = {
        code: name
        for code, diagnostic, name in read_source_table(
            root / STATEMENTS, ("", "diagnostic", "diagnostic_class"), remedy="it belongs to the fixture"
        )
        if diagnostic and float(diagnostic) == 1
    }
    found = {code for record in records for code in record.labels}
    names = sorted({statements[code] for code in found if code in statements})
    codes = tuple(frozenset(code for code in statements if statements[code] == name) for name in names)
    return LabelDefinition(tuple(names), codes, tuple(names))


def _check_labels(part: str, target: NDArray[Any], golden: Golden, report: Report) -> NDArray[np.bool_]:
    """Multi-hot labels, and the classes of the records that have exactly one; returns which those are."""
    multilabel, multiclass = (golden.pop(f"labels_{part}_multi{kind}") for kind in ("label", "class"))
    report.equal(f"labels_{part}_multilabel", target.astype(np.int64), multilabel)
    single = np.asarray(target.sum(axis=1) == 1)
    report.equal(f"labels_{part}_multiclass", target[single].argmax(axis=1), multiclass)
    return single


def _window(path: Path, rate: int, length: int, leads: Sequence[str]) -> NDArray[np.float64]:
    """The kept leads of the first ``length`` samples at ``rate``, in float64."""
    digital, header = read_digital(path)
    physical = to_physical_float64(digital, header)
    signal = reference_leads(physical, [signal.name for signal in header.signals], leads, np.nan)
    own_rate = int(header.sampling_rate)
    if own_rate != rate:
        num_samples = reference_resampled_length(signal.shape[1], own_rate, rate)
        signal = resize(signal, num_samples, Resampling.FOURIER)
    return crop(signal, 0, length)


def _exact(path: Path, rate: int, length: int, config: dict[str, Any]) -> NDArray[np.float64]:
    return resize(_window(path, rate, length, _leads(config)), config["n_out"], Resampling.FOURIER)
