from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairseq_ecg.cli.manifest import main
from fairseq_ecg.contracts import STANDARD_LEADS, Record
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.store import Store, StoreWriter
from fairseq_ecg.errors import ConfigError, DataError
from tests.data.made_stores import make_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "s", sampling_rate=100, leads=STANDARD_LEADS, choices={}) as writer:
        for i in range(20):
            record = Record(
                record_id=f"r{i}",
                patient_id=f"p{i}",
                source="made",
                signal=rng.normal(size=(12, 210)).astype(np.float32),
                leads=STANDARD_LEADS,
                sampling_rate=100,
                labels=("426783006",),
            )
            writer.add(record, leads_present=STANDARD_LEADS)
    return tmp_path / "s"


def test_split_check_and_stats_say_what_there_is(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "m")
    assert main(["split", str(store), out, "--segment-sec", "1", "--labels", "synthetic"]) == 0
    text = capsys.readouterr().out
    assert f"{out}/train.tsv: 16 records, 16 patients, 32 segments" in text
    assert "20 records end with an incomplete segment that was dropped" in text
    assert "14 classes, 0 records without any code are unlabelled" in text
    assert f"next: fairseq-ecg train --config-name w2v_cmsc_rlm task.data={out}" in text
    assert main(["check", out]) == 0
    assert "valid.tsv: 4 segments of 2 records read" in capsys.readouterr().out
    assert main(["stats", out + "/test.tsv"]) == 0
    text = capsys.readouterr().out
    assert "test.tsv: 2 records, 2 patients, 4 segments" in text
    assert "source made: 4 segments" in text
    assert "label NSR: 2 records" in text


def test_whole_records_are_asked_for_with_all(store: Path, tmp_path: Path) -> None:
    assert main(["split", str(store), str(tmp_path / "m"), "--segment-sec", "all"]) == 0
    assert set(Manifest.read(tmp_path / "m" / "train.tsv").num_samples.tolist()) == {210}


def test_check_finds_changed_samples_and_stats_shared_patients(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["split", str(store), str(tmp_path / "m"), "--segment-sec", "1"])
    train = tmp_path / "m" / "train.tsv"
    (tmp_path / "m" / "other.tsv").write_text(train.read_text())
    capsys.readouterr()
    assert main(["stats", str(tmp_path / "m")]) == 0
    assert "warning: 16 patients are in" in capsys.readouterr().out
    with (store / "shard-00000.npy").open("r+b") as file:
        file.seek(1000)
        file.write(b"\x12\x34")
    assert main(["check", "--fast", str(train)]) == 0
    with pytest.raises(DataError, match="another checksum than when written: record 'r0'"):
        main(["check", str(tmp_path / "m")])


def test_pairs_writes_what_fairseq_signals_reads(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import scipy.io

    main(["split", str(store), str(tmp_path / "m"), "--segment-sec", "1"])
    capsys.readouterr()
    assert main(["pairs", str(tmp_path / "m"), str(tmp_path / "out"), "--kind", "cmsc"]) == 0
    assert "train.tsv: 16 pairs of 16 records, 0 segments without partner, 32 .mat" in capsys.readouterr().out
    lines = (tmp_path / "out" / "valid.tsv").read_text().splitlines()
    assert lines[:2] == [str(tmp_path / "out" / "segments"), "mat"]
    stem, num_samples, lead, members = lines[2].split("\t")
    assert (num_samples, lead, members) == ("100", "0", "0,1")
    content = scipy.io.loadmat(tmp_path / "out" / "segments" / f"{stem}_1.mat")
    row = int(stem.rpartition("r")[2])
    np.testing.assert_array_equal(content["feats"], Store.open(store).read(row)[:, 100:200])
    assert content["curr_sample_rate"].item() == 100
    assert content["idx"].item() == row
    again = Manifest.read(tmp_path / "out" / "valid.tsv")
    assert again.pairs is not None
    assert len(again.pairs) == 2
    assert main(["check", str(tmp_path / "out")]) == 0
    (tmp_path / "out" / "segments" / f"{stem}_0.mat").unlink()
    for fast in ([], ["--fast"]):
        with pytest.raises(DataError, match=r"1 segments cannot be read: line 3: .* is missing"):
            main(["check", *fast, str(tmp_path / "out" / "valid.tsv")])


@pytest.mark.parametrize(
    ("argv", "error", "message"),
    [
        (["splt"], ConfigError, "invalid choice: 'splt'"),
        (["split", "only_one"], ConfigError, "required: MANIFEST_DIR"),
        (["split", "s", "m", "--segment-sec", "x"], ConfigError, "--segment-sec: .x. is neither"),
        (["pairs", "m", "o", "--kind", "cmlsc"], ConfigError, "--kind cmlsc: did you mean 'cmsc'"),
        (["check", "nowhere"], DataError, "manifest nowhere cannot be read"),
        (["stats", "."], DataError, "holds no .tsv file"),
    ],
)
def test_a_mistake_is_one_line(
    argv: list[str],
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message) as caught:
        main(argv)
    assert "\n" not in str(caught.value)


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "fairseq-ecg manifest split stores/cinc2021" in capsys.readouterr().out


def test_check_names_leaks_duplicates_and_sources_of_the_pretraining(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "d/a", [210] * 20, source="ptb-xl")
    make_store(tmp_path / "d/b", [210] * 5, source="georgia", prefix="copy", seed=0)
    stores = [str(tmp_path / "d/a"), str(tmp_path / "d/b")]
    main(["split", *stores, str(tmp_path / "m"), "--segment-sec", "1", "--by", "source", "--test", "georgia"])
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").touch()
    (checkpoint / "config.yaml").write_text("model: {}\ncontract: {}\nsources: [PTBXL, ningbo]\n")
    capsys.readouterr()
    assert main(["check", str(tmp_path / "m"), "--checkpoint", str(checkpoint)]) == 0
    out = capsys.readouterr().out
    assert "warning: 5 records have the samples of another one" in out
    assert "e.g. 'b/copyr0' and 'a/r0'" in out
    assert f"warning: {checkpoint} was pre-trained on 'ptb-xl', which is here too" in out
    with pytest.raises(DataError, match="2 warnings, the first: 5 records"):
        main(["check", str(tmp_path / "m"), "--checkpoint", str(checkpoint), "--strict"])
    (checkpoint / "config.yaml").write_text("model: {}\ncontract: {}\n")
    assert main(["check", str(tmp_path / "m/train.tsv"), "--checkpoint", str(checkpoint)]) == 0
    assert "does not say what it was pre-trained on" in capsys.readouterr().out


def test_pairs_of_every_kind_have_a_folder_each(store: Path, tmp_path: Path) -> None:
    main(["split", str(store), str(tmp_path / "m"), "--segment-sec", "0.7"])
    assert main(["pairs", str(tmp_path / "m/train.tsv"), str(tmp_path / "clocs"), "--kind", "all"]) == 0
    texts = {
        kind: (tmp_path / "clocs" / kind / "train.tsv").read_text() for kind in ("cmsc", "cmlc", "cmsmlc")
    }
    assert texts["cmsc"] == texts["cmsmlc"]
    pairs, singles = texts["cmsc"].splitlines(), texts["cmlc"].splitlines()
    assert pairs[:2] == singles[:2]
    # Three segments per record: the third has no partner, but a row of its own.
    assert {line.rsplit("\t", 1)[1] for line in pairs[2:]} == {"0,1"}
    assert [line.rsplit("\t", 1)[1] for line in singles[2:]] == ["0", "1", "2"] * 16
    assert Manifest.read(tmp_path / "clocs/cmlc/train.tsv").num_rows == 48
    assert main(["check", str(tmp_path / "clocs/cmlc")]) == 0
    root = Path(singles[0])
    assert all(
        (root / f"{line.split(chr(9))[0]}_{line.rsplit(chr(9), 1)[1]}.mat").is_file() for line in singles[2:]
    )
