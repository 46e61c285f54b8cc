"""What is damaged, and what reads it: a sound set of files per kind, the file to damage, and its reader."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.tracings import FINDINGS
from fairseq_ecg.errors import DataError, FairseqEcgError
from tests.data.made_stores import make_manifest, make_store
from tests.data.waveform_files import counts, write_dicom, write_edf, write_muse
from tests.data.wfdb_files import write_record


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Args:
        make: writes a sound set of files into an empty folder.
        files: relative paths of those that are damaged, one per case.
        read: reads the set; returns when all is well, raises DataError when it is not.
    """

    make: Callable[[Path], object]
    files: tuple[str, ...]
    read: Callable[[Path], object]


def check_record(record: Record) -> None:
    """What every record promises."""
    assert record.signal.dtype == np.float32
    assert record.signal.ndim == 2
    assert record.signal.shape[0] == len(record.leads) > 0
    assert record.num_samples > 0
    assert record.sampling_rate >= 1
    assert not np.isinf(record.signal).any()


def _record(name: str, **given: Any) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from fairseq_ecg.data.readers.any_file import read_record

        check_record(read_record(folder / name, **given))

    return read


def _header(folder: Path) -> None:
    write_record(folder, "a", comments=("#Age: 74", "# Sex: F", "#Dx: 426783006,164889003", "# Patient: p"))


def _packed(folder: Path) -> None:
    """A record of two segments in format 212, and one in FLAC."""
    import wfdb

    values = np.random.default_rng(0).normal(0, 0.4, (600, 2))
    for name in ("s1", "s2"):
        wfdb.wrsamp(name, 250, ["mV"] * 2, ["II", "V1"], values, fmt=["212"] * 2, write_dir=str(folder))
    (folder / "m.hea").write_text("m/2 2 250 1200\ns1 600\ns2 600\n")


def _flac_record(folder: Path) -> None:
    import wfdb

    values = np.random.default_rng(0).normal(0, 0.4, (600, 2))
    wfdb.wrsamp("f", 250, ["mV"] * 2, ["II", "V1"], values, fmt=["516"] * 2, write_dir=str(folder))


def _mat_segment(folder: Path) -> None:
    from scipy.io import savemat

    feats = np.random.default_rng(0).normal(size=(12, 300))
    content = {"feats": feats, "curr_sample_rate": 500, "idx": 3, "label": np.arange(26) % 2, "patient_id": 4}
    for name, compress in (("a.mat", False), ("b.mat", True)):
        savemat(folder / name, content, do_compression=compress)


def _read_mat_segments(folder: Path) -> None:
    from fairseq_ecg.data.legacy import read_mat_segment

    failures = []
    for name in ("a.mat", "b.mat"):
        for read in (_record(name), lambda folder, name=name: read_mat_segment(folder / name)):
            try:
                read(folder)
            except DataError as error:
                failures.append(error)
    if failures:
        raise failures[0]


def _tracings(folder: Path) -> None:
    import h5py

    signal = np.random.default_rng(0).normal(size=(4, 256, 12)).astype("f4")
    with h5py.File(folder / "exams_part0.hdf5", "w") as file:
        file["exam_id"] = np.array([11, 12, 13, 0])
        file.create_dataset("tracings", data=signal, chunks=(1, 256, 12), compression="gzip")
    names = ("exam_id", "age", "is_male", *FINDINGS, "patient_id", "normal_ecg", "trace_file")
    cells = ("50", "True", "False", "True", *["False"] * 4, "7", "False", "exams_part0.hdf5")
    rows = [",".join(names), *(",".join((str(exam), *cells)) for exam in (11, 12, 13))]
    (folder / "exams.csv").write_text("\n".join(rows) + "\n")


def _read_code15(folder: Path) -> None:
    from fairseq_ecg.data.readers.code15 import Code15, Code15Config

    _read_items(Code15(Code15Config()).records(folder))


def _ribeiro(folder: Path) -> None:
    import h5py

    signal = np.random.default_rng(0).normal(size=(3, 128, 12)).astype("f4")
    with h5py.File(folder / "ecg_tracings.hdf5", "w") as file:
        file["tracings"] = signal
    (folder / "attributes.csv").write_text("age,sex\n50,M\n61,F\n7,M\n")
    (folder / "annotations").mkdir()
    rows = "0,0,0,0,0,1\n" * 3
    (folder / "annotations/gold_standard.csv").write_text("1dAVb,RBBB,LBBB,SB,AF,ST\n" + rows)


def _read_ribeiro(folder: Path) -> None:
    from fairseq_ecg.data.readers.ribeiro import Ribeiro, RibeiroConfig

    _read_items(Ribeiro(RibeiroConfig()).records(folder))


def _read_items(items: Iterable[Any]) -> None:
    """Every item gives a record or a DataError of its own."""

    for item in items:
        try:
            check_record(item.read())
        except DataError:
            continue


def _muse(folder: Path) -> None:
    statements = (
        "<Diagnosis><DiagnosisStatement><StmtFlag>ENDSLINE</StmtFlag><StmtText>Sinus rhythm</StmtText>"
        "</DiagnosisStatement></Diagnosis>"
    )
    write_muse(folder / "a.xml", counts(8, 100), statements=statements)


def _edf(folder: Path) -> None:
    rng = np.random.default_rng(0)
    write_edf(
        folder / "a.edf",
        {
            "ECG II": (rng.uniform(-3, 3, 500), 250, "mV"),
            "EKG V1": (rng.uniform(-3000, 3000, 500), 250, "uV"),
        },
    )


def _dicom(folder: Path) -> None:
    codes = [("2:1", "MDC", "Lead I"), ("5.6.3-9-2", "SCPECG", "Lead II"), ("x", "own", "V1")]
    write_dicom(folder / "a.dcm", counts(3, 200), codes=codes)


def _arrays(folder: Path) -> None:
    values = np.random.default_rng(0).normal(size=(2, 100))
    np.save(folder / "a.npy", values)
    np.savez_compressed(folder / "a.npz", I=values[0], II=values[1, :50])
    lines = "\n".join(f"{a},{b}" for a, b in values.T)
    (folder / "a.csv").write_text("I,II\n" + lines + "\n")


def _read_arrays(folder: Path) -> None:

    failures = []
    given = {"sampling_rate": 500, "unit": "mV"}
    for name, more in (("a.npy", {"leads": ("I", "II")}), ("a.npz", {}), ("a.csv", {})):
        try:
            _record(name, **given, **more)(folder)
        except DataError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _sound(folder: Path) -> None:
    import soundfile

    for name in ("a.wav", "a.flac"):
        soundfile.write(folder / name, counts(2, 3000).T, 500, subtype="PCM_16")


def _read_sound(folder: Path) -> None:

    failures = []
    for name in ("a.wav", "a.flac"):
        try:
            _record(name, leads=("I", "II"), unit="uV")(folder)
        except DataError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _store(folder: Path) -> None:
    store = make_store(folder / "store", [100] * 6)
    make_manifest(folder / "train.tsv", store, 50)
    text = (folder / "train.tsv").read_text().replace(str(folder / "store"), "store")
    (folder / "train.tsv").write_text(text)
    # The cache would hide a damaged table; without it the table itself is read.
    shutil.rmtree(folder / "store/index.cache")


def _read_store(folder: Path) -> None:
    from fairseq_ecg.data.store import Store
    from fairseq_ecg.data.store_records import StoreRecords

    store = Store.open(folder / "store")
    assert store.num_records == 6, "a partial store looks whole"
    for row in range(store.num_records):
        store.read(row)
        store.is_intact(row)
        store.flags(row)
        store.labels(row)
        store.likelihoods(row)
    store.index.lead_statistics()
    StoreRecords([store]).codes()


def _read_manifest(folder: Path) -> None:
    from fairseq_ecg.data.manifest import Manifest
    from fairseq_ecg.data.manifest_report import describe
    from fairseq_ecg.data.segments import open_segments

    manifest = Manifest.read(folder / "train.tsv")
    segments = open_segments(manifest, STANDARD_LEADS, None)
    for row in range(min(manifest.num_rows, 20)):
        segments.witness(row)
    rows = np.arange(min(manifest.num_rows, 20))
    segments.gather(rows, np.zeros_like(rows), 10)
    describe(manifest)


def _legacy(folder: Path) -> None:
    _mat_segment(folder)
    for name in ("r_0.mat", "r_1.mat"):
        shutil.copyfile(folder / "a.mat", folder / name)
    (folder / "plain.tsv").write_text(".\nr_0.mat\t300\nr_1.mat\t300\n")
    (folder / "identify.tsv").write_text(".\nr_0.mat\t300\t0\nr_1.mat\t300\t1\n")
    (folder / "cmsc.tsv").write_text(".\nmat\nr\t300\t0\t0,1\n")


def _read_legacy(folder: Path) -> None:
    from fairseq_ecg.data.manifest import Manifest
    from fairseq_ecg.data.segments import open_segments

    failures = []
    for name in ("plain", "identify", "cmsc"):
        try:
            manifest = Manifest.read(folder / f"{name}.tsv")
            segments = open_segments(manifest, STANDARD_LEADS, None)
            for row in range(min(manifest.num_rows, 20)):
                segments.witness(row)
        except DataError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _tables(folder: Path) -> None:
    _store(folder)
    rows = "".join(f"{i},made_r{i}.mat,{'train' if i else 'test'}\n" for i in range(6))
    (folder / "meta_split.csv").write_text("idx,save_file,split\n" + rows)
    rows = "".join(f"{i},made_r{i}_0.mat,mats/made_r{i}_0.mat,50,train\n" for i in range(6))
    (folder / "segmented_split.csv").write_text("idx,save_file,path,sample_size,split\n" + rows)
    (folder / "labels.csv").write_text(
        "index,name,codes,description,labelled_if\n0,a,426783006,,snomed\n1,b,x|y,z,\n"
    )
    (folder / "folds.csv").write_text("record_id,fold\n" + "".join(f"r{i},{i}\n" for i in range(6)))


def _read_tables(folder: Path) -> None:
    from fairseq_ecg.data.labels import label_definition
    from fairseq_ecg.data.manifest_convert import convert
    from fairseq_ecg.data.split import SplitOptions, split_stores

    failures: list[FairseqEcgError] = []
    stores = [folder / "store"]
    steps: tuple[Callable[[], object], ...] = (
        lambda: label_definition(folder / "labels.csv").target([("426783006",), (), ("x",)]),
        lambda: split_stores(
            stores,
            folder / "m",
            SplitOptions(segment_sec=0.5, by="fold", valid="1", folds=folder / "folds.csv"),
            overwrite=True,
        ),
        lambda: convert(
            folder / "meta_split.csv", folder / "c", "fairseq_ecg", stores=stores, segment_sec=0.5
        ),
        lambda: convert(folder / "segmented_split.csv", folder / "d", "fairseq_ecg"),
    )
    for step in steps:
        try:
            step()
        except FairseqEcgError as error:
            failures.append(error)
    if failures:
        raise DataError(str(failures[0]))


def _raw(folder: Path) -> None:
    for seed in range(3):
        write_record(folder / "raw", f"r{seed}", counts(12, 400, seed))


def _prepare(folder: Path) -> None:
    """A preparation of damaged records leaves a whole store or none."""
    from fairseq_ecg.data.prepare import PrepareOptions, prepare
    from fairseq_ecg.data.readers.physionet2021 import PhysioNet2021, PhysioNet2021Config
    from fairseq_ecg.data.store import Store

    try:
        report = prepare(
            PhysioNet2021(PhysioNet2021Config()), folder / "raw", folder / "store", PrepareOptions()
        )
    except DataError:
        assert not (folder / "store").exists(), "a failed preparation left a store"
        raise
    store = Store.open(folder / "store")
    assert store.num_records == report.num_records
    assert all(store.is_intact(row) for row in range(store.num_records))


TARGETS = {
    "wfdb_header": Target(_header, ("a.hea",), _record("a.hea")),
    "wfdb_signal": Target(_header, ("a.mat",), _record("a.hea")),
    "wfdb_segments": Target(_packed, ("m.hea", "s1.hea", "s2.dat"), _record("m.hea")),
    "wfdb_flac": Target(_flac_record, ("f.hea", "f.dat"), _record("f.hea")),
    "mat": Target(_mat_segment, ("a.mat", "b.mat"), _read_mat_segments),
    "hdf5_code15": Target(_tracings, ("exams_part0.hdf5", "exams_part0.hdf5", "exams.csv"), _read_code15),
    "hdf5_ribeiro": Target(_ribeiro, ("ecg_tracings.hdf5",), _read_ribeiro),
    "muse_xml": Target(_muse, ("a.xml",), _record("a.xml")),
    "edf": Target(_edf, ("a.edf",), _record("a.edf")),
    "dicom": Target(_dicom, ("a.dcm",), _record("a.dcm")),
    "arrays": Target(_arrays, ("a.npy", "a.npz", "a.csv"), _read_arrays),
    "sound": Target(_sound, ("a.wav", "a.flac"), _read_sound),
    "store": Target(
        _store,
        ("store/index.tsv", "store/index.tsv", "store/store.json", "store/shard-00000.npy"),
        _read_store,
    ),
    "manifest": Target(_store, ("train.tsv",), _read_manifest),
    "legacy_manifest": Target(_legacy, ("plain.tsv", "identify.tsv", "cmsc.tsv"), _read_legacy),
    "tables": Target(
        _tables, ("meta_split.csv", "segmented_split.csv", "labels.csv", "folds.csv"), _read_tables
    ),
    "prepare": Target(_raw, ("raw/r1.hea", "raw/r1.mat"), _prepare),
}
