"""What ``import fairseq_ecg`` promises."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import fairseq_ecg
from fairseq_ecg.contracts import STANDARD_LEADS
from tests.data.wfdb_files import samples, write_record
from tests.frozen import CONTRACT, NUM_SAMPLES, RATE, make_model, save_checkpoint


def test_importing_the_package_imports_no_heavy_package():
    heavy = (
        "torch",
        "numpy",
        "scipy",
        "sklearn",
        "pandas",
        "hydra",
        "omegaconf",
        "wfdb",
        "h5py",
        "matplotlib",
    )
    code = f"import sys, fairseq_ecg; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", fairseq_ecg.__all__)
def test_every_public_name_leads_somewhere(name):
    assert getattr(fairseq_ecg, name) is not None
    assert name in dir(fairseq_ecg)


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'load_encodr'"):
        fairseq_ecg.load_encodr  # noqa: B018


def test_a_record_is_read_in_millivolts_with_its_leads(tmp_path):
    path = write_record(tmp_path, "A0001", samples())
    record = fairseq_ecg.read_record(path)
    assert isinstance(record, fairseq_ecg.Record)
    np.testing.assert_array_equal(np.rint(record.signal * 1000), samples())
    assert (record.leads, record.sampling_rate, record.labels) == (STANDARD_LEADS, 500, ("426783006",))
    with pytest.raises(fairseq_ecg.DataError, match="no such file"):
        fairseq_ecg.read_record(tmp_path / "absent.hea")


def test_a_loaded_encoder_embeds_what_a_record_holds(tmp_path):
    encoder = fairseq_ecg.load_encoder(save_checkpoint(tmp_path / "run", make_model()))
    assert (
        encoder.contract == CONTRACT == fairseq_ecg.InputContract(sampling_rate=RATE, num_samples=NUM_SAMPLES)
    )
    record = fairseq_ecg.read_record(write_record(tmp_path, "A0001", samples()))
    embedded = encoder.embed(record.signal, sampling_rate=record.sampling_rate, leads=record.leads, unit="mV")
    assert embedded.shape == (1, encoder.embed_dim)
    frames = encoder.frames(record.signal, sampling_rate=record.sampling_rate, leads=record.leads)
    np.testing.assert_allclose(frames.mean(axis=1), embedded, atol=1e-6)
    with pytest.raises(fairseq_ecg.CheckpointError, match="no checkpoint at"):
        fairseq_ecg.load_encoder(tmp_path / "absent")


def test_a_model_is_created_by_name_and_trained_by_nobody():
    torch.manual_seed(0)
    small = {"encoder_layers": 1, "encoder_embed_dim": 32, "encoder_attention_heads": 2}
    model = fairseq_ecg.create_model("ecg_transformer", **small)
    assert isinstance(model, torch.nn.Module)
    assert model.embed_dim == 32
    with pytest.raises(fairseq_ecg.ConfigError, match="did you mean 'ecg_transformer'"):
        fairseq_ecg.create_model("ecg_transformr")


PLUGIN = '''
from dataclasses import dataclass

import torch
from torch import nn

from fairseq_ecg import register_model
from fairseq_ecg.models.base import EcgModel, EncoderOutput


@dataclass(kw_only=True)
class MeanModelConfig:
    width: int = 4


@register_model("{name}", config=MeanModelConfig)
class MeanModel(EcgModel):
    """Frames that know the mean of every lead."""

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.proj = nn.Linear(12, cfg.width)

    @property
    def embed_dim(self):
        return self.cfg.width

    def encode(self, source, padding_mask=None):
        return EncoderOutput(self.proj(source.mean(dim=-1))[:, None])
'''


@pytest.fixture
def plugin_run(tmp_path):
    """A checkpoint of a model that only a plugin knows, and the plugin."""
    import yaml
    from safetensors.torch import save_file

    run = save_checkpoint(tmp_path / "run", make_model())
    folder = (run / "checkpoints" / "checkpoint_last").resolve()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    name = f"mean_model_{tmp_path.name}".replace("-", "_")
    config["model"] = {"_name": name, "width": 4}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    weight = torch.arange(48.0).reshape(4, 12)
    save_file({"proj.weight": weight, "proj.bias": torch.zeros(4)}, folder / "model.safetensors")
    plugin = tmp_path / f"{name}.py"
    plugin.write_text(PLUGIN.replace("{name}", name))
    return run, plugin, weight.numpy()


def test_a_plugin_model_loads_with_its_user_dir_only(plugin_run):
    run, plugin, weight = plugin_run
    with pytest.raises(fairseq_ecg.ConfigError, match="unknown model 'mean_model_"):
        fairseq_ecg.load_encoder(run)
    encoder = fairseq_ecg.load_encoder(run, user_dir=plugin)
    source = np.random.default_rng(0).normal(size=(1, 12, NUM_SAMPLES)).astype(np.float32)
    embedded = encoder.embed(source, RATE, STANDARD_LEADS)
    np.testing.assert_allclose(embedded[0], weight @ source[0].mean(axis=1), atol=1e-4)


@pytest.mark.parametrize("command", ["embed", "evaluate"])
def test_commands_take_the_user_dir(command, plugin_run, tmp_path, capsys):
    from fairseq_ecg.cli.main import main
    from tests.frozen import make_manifests

    run, plugin, _ = plugin_run
    manifests = make_manifests(tmp_path, num_patients=24)
    argv = {
        "embed": ["embed", str(run), str(manifests / "test.tsv"), str(tmp_path / "out.npz")],
        "evaluate": ["evaluate", str(run), "--data", str(manifests), "--out", str(tmp_path / "scores")],
    }[command]
    if command == "evaluate":
        argv += ["--labels", str(manifests / "label_def.csv"), "--min-positives", "2", "--resamples", "5"]
    assert main(argv) == 2
    assert "unknown model 'mean_model_" in capsys.readouterr().err
    assert main([*argv, "--user-dir", str(plugin), "--device", "cpu"]) == 0
