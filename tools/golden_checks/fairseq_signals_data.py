"""fairseq-signals' preparation of challenge records: segments, labels, manifests, pairs and batches.

Segments are compared in float64, and once more as a store made under the contract ``wcr`` holds them. Which
record goes to which split depends, in the reference, on the order in which a file system lists files; here
it does not, so that the splits are compared in what they must keep: all segments, no record divided.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.contracts import STANDARD_LEADS, Keys
from fairseq_ecg.data.augment.pipeline import Pipeline
from fairseq_ecg.data.dataset import ManifestDataset
from fairseq_ecg.data.identify import IdentifyOptions, identify
from fairseq_ecg.data.labels import label_definition
from fairseq_ecg.data.legacy_export import write_pairs
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.prepare import prepare
from fairseq_ecg.data.presets import preset
from fairseq_ecg.data.readers.physionet2021 import PhysioNet2021, PhysioNet2021Config
from fairseq_ecg.data.record import known_leads, reference_leads
from fairseq_ecg.data.signal import Resampling, nan_rows, resample, segments
from fairseq_ecg.data.split import SPLITS, SplitOptions, split_stores
from fairseq_ecg.data.store import Store
from fairseq_ecg.data.wfdb_format import read_digital, to_physical_float64
from fairseq_ecg.errors import DataError
from tools.golden_checks.report import Report

ATOL = 1e-9
Golden = dict[str, NDArray[Any]]


def check(folder: Path, report: Report) -> None:
    """Prepare ``raw`` of a fixture folder in every way its arrays and manifests tell of."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with np.load(folder / "io.npz", allow_pickle=False) as arrays:
        golden = {name: arrays[name] for name in arrays.files}
    reader = PhysioNet2021(PhysioNet2021Config(databases=_list(config["subset"])))
    made = _check_segments(folder / "raw", reader, config, golden, report)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        plain = _write_reference_folder(work / "reference", folder, made, golden, config)
        _check_labels(made, golden, report)
        _check_pairs(plain, folder, work / "reference", golden, report)
        _check_plain_batch(plain, golden, report)
        _check_store(folder, reader, config, made, work, report)
    for name in golden:
        report.fail(name, "unknown array")


class _Segment:
    """A segment as the reference writes it, and the record it is of."""

    def __init__(self, stem: str, number: int, signal: NDArray[np.float64], codes: Sequence[str]) -> None:
        self.stem, self.number, self.signal, self.codes = stem, number, signal, tuple(codes)

    @property
    def file(self) -> str:
        return f"{self.stem}_{self.number}.mat"

    @property
    def key(self) -> str:
        return f"{self.stem}_{self.number}".replace("/", "__")


def _check_segments(
    raw: Path, reader: PhysioNet2021, config: dict[str, Any], golden: Golden, report: Report
) -> dict[str, _Segment]:
    """Segments of records at the wanted rate, by file; those of the others are compared and forgotten."""
    rate, num_samples = config["sample_rate"], int(config["sec"] * config["sample_rate"])
    leads = [STANDARD_LEADS[int(index)] for index in _list(config["leads"])]
    chosen = _list(config["subset"])
    listed = {
        f"{record['subset']}/{record['name']}": record
        for record in config["records"]
        if record["subset"] in chosen
    }
    made: dict[str, _Segment] = {}
    found: dict[str, list[str]] = {"feats": [], "resampled_feats": []}
    for item in reader.records(raw):
        record, (digital, header) = item.read(), read_digital(item.path)
        stem = f"{item.source}/{item.record_id}"
        _check_listed(stem, record, listed.pop(stem, None), report)
        # The reference takes the ADC's values by the gain alone.
        physical = to_physical_float64(digital, header, reference_baseline=True)
        signal = reference_leads(physical, [signal.name for signal in header.signals], leads, np.nan)
        if nan_rows(signal).any():
            continue
        is_kept = record.sampling_rate == rate
        kind = "feats" if is_kept else "resampled_feats"
        cut = segments(resample(signal, record.sampling_rate, rate, Resampling.LINEAR), num_samples)
        for number, part in enumerate(cut):
            segment = _Segment(stem, number, part, record.labels)
            name = f"{kind}__{segment.key}"
            found[kind].append(name)
            if name in golden:
                report.close(name, part, golden.pop(name), atol=ATOL)
            if is_kept:
                made[segment.file] = segment
    report.equal("records without a file", sorted(listed), [])
    facts = {segment["file"]: segment for segment in config["segments"]}
    report.equal("segment files", sorted(made), sorted(facts))
    for file, segment in made.items():
        fact = facts.get(file, {})
        report.equal(
            f"{file}: record, rate and shape",
            [segment.stem.rpartition("/")[2], rate, list(segment.signal.shape)],
            [fact.get("record"), fact.get("curr_sample_rate"), fact.get("shape")],
        )
    lacking = sorted(name for name in golden if re.match(r"(resampled_)?feats__", name))
    report.equal("segments that were not made", lacking, [])
    return made


def _check_listed(name: str, record: Any, fact: dict[str, Any] | None, report: Report) -> None:
    """A record is what config.json lists: rate, length, age, sex and codes of the header, not as written."""
    if fact is None:
        report.fail(f"{name}: listed", "config.json does not name this record")
        return
    codes = list(dict.fromkeys(_list(fact["dx"])))
    age = float(fact["age"])
    sex = {"male": "male", "female": "female"}.get(str(fact["sex"]).lower(), "")
    report.close(f"{name}: age", record.age, age)
    report.equal(
        f"{name}: rate, length, sex and codes",
        [record.sampling_rate, record.num_samples, record.sex, list(record.labels)],
        [fact["fs"], fact["n_samples"], sex, codes],
    )


def _check_labels(made: dict[str, _Segment], golden: Golden, report: Report) -> None:
    definition = label_definition("cinc2021")
    for segment in made.values():
        # A record without any code is unlabelled to this package, and of no class to the reference.
        target = np.nan_to_num(definition.multi_hot([segment.codes])[0])
        report.equal(f"label__{segment.key}", target.astype(np.uint8), golden.pop(f"label__{segment.key}"))


def _write_reference_folder(
    root: Path, folder: Path, made: dict[str, _Segment], golden: Golden, config: dict[str, Any]
) -> dict[str, Path]:
    """The .mat files of the reference and its plain manifests, which name them."""
    from scipy.io import savemat

    stems = list(dict.fromkeys(segment.stem for segment in made.values()))
    for segment in made.values():
        path = root / segment.file
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "feats": segment.signal,
            "curr_sample_rate": config["sample_rate"],
            "label": golden[f"label__{segment.key}"],
            "patient_id": stems.index(segment.stem),
        }
        savemat(path, content)
    plain = {}
    for path in sorted((folder / "expected_manifests").glob("*.tsv")):
        plain[path.stem] = root / path.name
        plain[path.stem].write_text(_with_root(path, root), encoding="utf-8")
    return plain


def _check_pairs(plain: dict[str, Path], folder: Path, root: Path, golden: Golden, report: Report) -> None:
    """Pair manifests made of the plain ones, and a batch of pairs read through one."""
    expected = folder / "expected_manifests" / "cmsc"
    for path in sorted(expected.glob("*.tsv")):
        wanted = _rows(path)
        try:
            lines = _rows(write_pairs(Manifest.read(plain[path.stem]), root / "cmsc", segment_dir=root).path)
        except DataError:
            lines = wanted[:1]  # refused where the reference writes a manifest without rows
        report.equal(f"cmsc/{path.name}", lines, wanted)
    manifest = Manifest.read(root / "cmsc" / "train.tsv")
    assert manifest.pairs is not None
    stems, places = golden.pop("cmsc_batch__rows").tolist(), []
    for number, stem in enumerate(stems):
        of_record = [pair for pair in manifest.pairs.tolist() if manifest.record_ids[pair[0]] == stem]
        places.append(of_record[stems[:number].count(stem)])
    index = np.array(places).reshape(-1)
    batch = _dataset(manifest).gather(Keys(1, index, np.tile([0, 1], len(stems))))
    report.close("cmsc_batch__source", batch.source, golden.pop("cmsc_batch__source"), atol=ATOL)
    report.equal("cmsc_batch__segment", batch.segment.numpy(), golden.pop("cmsc_batch__segment"))
    patient = batch.patient.numpy()
    same = golden.pop("cmsc_batch__same_patient")
    report.equal("cmsc_batch__same_patient", patient[:, None] == patient[None, :], same)


def _check_plain_batch(plain: dict[str, Path], golden: Golden, report: Report) -> None:
    """Rows of a plain manifest with some leads, the others zeros, and their labels."""
    name = next(name for name in golden if name.startswith("cls_batch__source_leads_"))
    chosen = known_leads(name.removeprefix("cls_batch__source_leads_").removesuffix("_padded").split("_"))
    wanted = golden.pop("cls_batch__rows").tolist()
    for path in plain.values():
        manifest = Manifest.read(path)
        assert manifest.files is not None
        files = [manifest.files[row] for row in range(manifest.num_rows)]
        if set(wanted) <= set(files):
            break
    else:
        report.fail(name, f"no manifest names all of {wanted}")
        return
    index = np.array([files.index(file) for file in wanted])
    batch = _dataset(manifest).gather(Keys(1, index, np.zeros_like(index)))
    keep = np.array([lead in chosen for lead in STANDARD_LEADS])[:, None]
    report.close(name, batch.source.numpy() * keep, golden.pop(name), atol=ATOL)
    assert batch.target is not None
    report.equal("cls_batch__label", batch.target.numpy(), golden.pop("cls_batch__label"))


def _check_store(
    folder: Path,
    reader: PhysioNet2021,
    config: dict[str, Any],
    made: dict[str, _Segment],
    work: Path,
    report: Report,
) -> None:
    """The same by the commands' own way: store, split, identification."""
    leads = tuple(STANDARD_LEADS[int(index)] for index in _list(config["leads"]))
    options = replace(preset("wcr_reference").prepare, sampling_rate=config["sample_rate"], leads=leads)
    prepare(reader, folder / "raw", work / "store", options)
    store = Store.open(work / "store")
    place = {f"{store.source(row)}/{store.record_id(row)}": row for row in range(store.num_records)}
    size = int(config["sec"] * config["sample_rate"])
    worst = 0.0
    for segment in made.values():
        row = place[segment.stem]
        stored = store.read(row)[:, segment.number * size : (segment.number + 1) * size]
        scale = float(store.index.scale[row])
        worst = max(worst, float(np.abs(stored - segment.signal).max()) / scale)
    report.close("stored segments, in units of the store", worst, 0.0, atol=0.501)

    share = str(config["manifest"]["valid_percent"])
    how = SplitOptions(segment_sec=config["sec"], by="record", valid=share, test=share)
    split_stores([work / "store"], work / "split", how)
    paths = [work / "split" / f"{name}.tsv" for name in SPLITS]
    split = [_files(path) for path in paths if path.is_file()]  # a split without segments has no file
    report.equal("split: all segments", sorted(file for files in split for file in files), sorted(made))
    parts = [{file.rpartition("_")[0] for file in files} for files in split]
    report.equal("split: no record divided", sum(map(len, parts)), len(set().union(*parts)))
    expected = [
        {line.split("\t")[0] for line in _rows(path)}
        for path in (folder / "expected_manifests").glob("*.tsv")
    ]
    report.equal("split: the same segments overall", set().union(*map(set, split)), set().union(*expected))

    identify([work / "store"], work / "identify", IdentifyOptions(segment_sec=config["sec"], valid=0.0))
    manifest = Manifest.read(work / "identify" / "train.tsv")
    labels = [int(manifest.extra["label"][row]) for row in range(manifest.num_rows)]
    report.equal("identify: labels without gap", sorted(set(labels)), list(range(max(labels) + 1)))
    mine = _classes(zip(_files(manifest.path), labels, strict=True))
    rows = [line.split("\t") for line in _rows(folder / "expected_manifests" / "identify" / "train.tsv")]
    report.equal("identify: segments of every class", mine, _classes((row[0], int(row[2])) for row in rows))


def _classes(rows: Any) -> list[list[str]]:
    """Files by class, without regard to the numbers of the classes."""
    classes: dict[int, list[str]] = {}
    for file, label in rows:
        classes.setdefault(label, []).append(file)
    return sorted(sorted(files) for files in classes.values())


def _files(path: Path) -> list[str]:
    """The rows of a manifest of this package by the reference's names."""
    manifest = Manifest.read(path)
    return [
        f"{manifest.sources[row]}/{manifest.record_ids[row]}_{manifest.segment[row]}.mat"
        for row in range(manifest.num_rows)
    ]


def _rows(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()[1:]


def _with_root(path: Path, root: Path) -> str:
    return path.read_text(encoding="utf-8").replace("@ROOT@", str(root), 1)


def _dataset(manifest: Manifest) -> ManifestDataset:
    return ManifestDataset(
        manifest, leads=STANDARD_LEADS, num_samples=None, pipeline=Pipeline(), seed=0, target=None
    )


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]
