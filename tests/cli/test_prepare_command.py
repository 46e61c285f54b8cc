"""The command ``prepare``, as a user types it."""

from pathlib import Path

import pytest

from fairseq_ecg.cli.prepare import main
from fairseq_ecg.data.store import Store
from fairseq_ecg.errors import ConfigError, DataError

SYNTHETIC = ["--num-patients", "2", "--duration-sec", "2", "--seed", "3"]


def test_synthetic_records_are_written_prepared_and_summed_up(tmp_path, capsys):
    arguments = ["synthetic", str(tmp_path / "raw"), str(tmp_path / "store"), *SYNTHETIC]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    store = Store.open(tmp_path / "store")
    assert f"{store.num_records} of {store.num_records} records" in printed.out
    assert f"(synthetic: {store.num_records})" in printed.out
    assert f"next: fairseq-ecg manifest split {tmp_path / 'store'} MANIFEST_DIR" in printed.out
    assert store.json["choices"]["reader"] == "synthetic"
    assert store.json["choices"]["reader_seed"] == 3
    assert {store.patient_id(row) for row in range(store.num_records)} == {"SYN000000", "SYN000001"}

    with pytest.raises(DataError, match="overwrite"):
        main(arguments)
    assert main([*arguments, "--overwrite", "--sampling-rate", "250", "--leads", "II,V5"]) == 0
    replaced = Store.open(tmp_path / "store")
    assert (replaced.sampling_rate, replaced.leads) == (250, ("II", "V5"))
    assert replaced.read(0).shape == (2, 500)


def test_one_overwrite_also_replaces_the_raw_corpus(tmp_path):
    arguments = ["synthetic", str(tmp_path / "raw"), str(tmp_path / "store")]
    main([*arguments, *SYNTHETIC])
    changed = [*arguments, "--num-patients", "1", "--duration-sec", "2"]
    with pytest.raises(DataError, match="overwrite"):
        main(changed)
    main([*changed, "--overwrite"])
    assert Store.open(tmp_path / "store").json["counts"]["patients"] == 1


def test_policies_workers_and_resampling_reach_the_preparation(shared, tmp_path):
    source = shared / "data/real_ecg/cinc2021"
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("JS20004", "E03823", "HR06000"):
        for suffix in (".hea", ".mat"):
            (raw / f"{name}{suffix}").symlink_to(source / f"{name}{suffix}")
    main(
        [
            "physionet2021",
            str(raw),
            str(tmp_path / "store"),
            *(
                "--policy-flat",
                "skip",
                "--num-workers",
                "2",
                "--resample",
                "linear",
                "--sampling-rate",
                "250",
            ),
            *("--databases", "georgia,ningbo"),
        ]
    )
    store = Store.open(tmp_path / "store")
    assert [store.record_id(row) for row in range(store.num_records)] == ["E03823"]
    assert store.json["choices"]["resample"] == "linear"
    assert store.json["choices"]["reader_databases"] == ["georgia", "ningbo"]
    assert "flat lead V2,V4,V6" in (tmp_path / "store" / "rejected.tsv").read_text()


def test_a_reader_of_ones_own_brings_its_options(tmp_path, capsys):
    plugin = tmp_path / "own_reader.py"
    plugin.write_text(
        "from dataclasses import dataclass\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from fairseq_ecg import contracts, registry\n"
        "@dataclass(kw_only=True)\n"
        "class OwnConfig:\n"
        "    count: int = 1\n"
        '    """How many."""\n'
        "    scale: float | None = None\n"
        "    loud: bool = False\n"
        "class Item:\n"
        "    def __init__(self, number, cfg):\n"
        "        self.record_id, self.path, self.cfg = f'r{number}', Path('x'), cfg\n"
        "    def read(self):\n"
        "        signal = np.arange(24, dtype=np.float32).reshape(12, 2) * (self.cfg.scale or 1)\n"
        "        return contracts.Record(record_id=self.record_id, patient_id='p', source='own',\n"
        "            signal=signal, leads=contracts.STANDARD_LEADS, sampling_rate=500)\n"
        "@registry.register_reader('own_reader_of_a_test', config=OwnConfig)\n"
        "class Own:\n"
        "    def __init__(self, cfg):\n"
        "        self.cfg = cfg\n"
        "    def records(self, raw_dir):\n"
        "        return iter([Item(number, self.cfg) for number in range(self.cfg.count)])\n"
    )
    own = ["--user-dir", str(plugin), "own_reader_of_a_test", str(tmp_path), str(tmp_path / "store")]
    assert main([*own, "--count", "3", "--scale", "0.5", "--loud"]) == 0
    store = Store.open(tmp_path / "store")
    assert store.num_records == 3
    assert store.json["choices"]["reader_loud"] is True
    with pytest.raises(SystemExit) as stop:
        main([*own, "--help"])
    assert stop.value.code == 0
    assert "How many. (default 1)" in capsys.readouterr().out


def test_help_teaches_with_examples_and_knows_the_sources(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "fairseq-ecg prepare synthetic raw/synthetic" in text
    assert "physionet2021:" in text
    assert "rejected.tsv" in text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["physionet2020", "raw", "store"], "unknown reader 'physionet2020': did you mean 'physionet2021'"),
        (["synthetic", "raw"], "required: STORE_DIR"),
        (["synthetic", "raw", "store", "--num-patient", "3"], "unrecognized arguments: --num-patient"),
        (["synthetic", "raw", "store", "--policy-nan", "drop"], "invalid choice: 'drop'"),
        (["synthetic", "raw", "store", "--policy-unreadable", "zero"], "invalid choice: 'zero'"),
        (["synthetic", "raw", "store", "--num-patients", "0"], "num_patients=0"),
        (["synthetic", "raw", "store", "--num-workers", "-1"], "num_workers=-1"),
        (["synthetic", "raw", "store", "--sampling-rate", "0"], "sampling_rate=0"),
    ],
)
def test_a_wrong_command_line_is_one_clear_error(tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=reason) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)
    assert list(Path(tmp_path).iterdir()) == []


def test_progress_is_plain_lines_without_a_terminal(tmp_path, capsys, monkeypatch):
    seconds = iter(range(0, 1000, 6))
    monkeypatch.setattr("fairseq_ecg.cli._progress.time.monotonic", lambda: next(seconds))
    main(["synthetic", str(tmp_path / "raw"), str(tmp_path / "store"), *SYNTHETIC])
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("2/") and "records/s" in line and "s left" in line for line in lines)


def test_progress_is_a_bar_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    main(["synthetic", str(tmp_path / "raw"), str(tmp_path / "store"), *SYNTHETIC])
    assert "100%" in capsys.readouterr().err


def test_a_contract_fixes_the_options_and_says_how_to_go_on(tmp_path, capsys):
    raw, store_dir = tmp_path / "raw", tmp_path / "store"
    main(["synthetic", str(raw), str(store_dir), *SYNTHETIC, "--contract", "ecg_fm", "--policy-flat", "zero"])
    printed = capsys.readouterr().out
    assert "MANIFEST_DIR --segment-sec 5\n" in printed
    assert "task.normalisation=record_zscore" in printed
    choices = Store.open(store_dir).json["choices"]
    assert choices["contract"] == "ecg_fm"
    assert (choices["resample"], choices["policy_flat"], choices["policy_missing"]) == (
        "endpoints",
        "zero",
        "skip",
    )

    eight = ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]
    arguments = ["--num-patients", "1", "--duration-sec", "10", "--contract", "ecg_jepa_finetune"]
    main(["synthetic", str(tmp_path / "raw10"), str(tmp_path / "jepa"), *arguments])
    assert "MANIFEST_DIR --segment-sec all\n" in capsys.readouterr().out
    store = Store.open(tmp_path / "jepa")
    assert (store.sampling_rate, list(store.leads), store.read(0).shape) == (250, eight, (8, 2500))
    assert store.json["choices"]["filter"] == "highpass(cutoff=0.67, order=5)|lowpass(cutoff=40.0, order=5)"

    with pytest.raises(ConfigError, match="--sampling-rate 500: the contract fixes it to 250"):
        main(["synthetic", str(raw), str(tmp_path / "x"), "--contract", "ecg_jepa", "--sampling-rate", "500"])
    with pytest.raises(ConfigError, match="--contract jepa"):
        main(["synthetic", str(raw), str(tmp_path / "x"), "--contract", "jepa"])


def test_window_filter_and_number_of_samples_are_options_of_their_own(tmp_path, capsys):
    arguments = ["--num-patients", "1", "--duration-sec", "4", "--window-sec", "3", "--num-samples", "360"]
    arguments += ["--sampling-rate", "120", "--resample", "endpoints", "--filter", "lowpass(cutoff=20)"]
    main(["synthetic", str(tmp_path / "raw"), str(tmp_path / "store"), *arguments])
    store = Store.open(tmp_path / "store")
    assert store.read(0).shape == (12, 360)
    assert store.json["choices"]["filter"] == "lowpass(cutoff=20.0, order=5)"
    assert store.json["choices"]["contract"] is None


def test_help_names_the_contracts_and_filters(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    for name in ("wcr", "ecg_fm", "ecg_jepa", "cpc", "ssl", "pclr"):
        assert f"\n  {name} " in printed
    assert "median_baseline" in printed
