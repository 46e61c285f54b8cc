"""The worked plugin of examples/custom_plugin, as a user meets it: installed, or named as user_dir."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "examples" / "custom_plugin"
RECIPE = ["--config-dir", str(PLUGIN / "recipes"), "--config-name", "lead_reconstruction"]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the plugin, without network and beside the environment."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PLUGIN, folder / "source")  # setuptools writes into the folder it builds
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    options = ["--no-build-isolation", "--disable-pip-version-check", "--target", str(folder / "site")]
    subprocess.run([*command, *options, str(source)], check=True, timeout=300)
    return folder / "site"


def fairseq_ecg(site: Path | None, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with the installed plugin on its path."""
    paths = [str(ROOT), *([str(site)] if site else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fairseq_ecg", *arguments]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)


def test_an_installed_plugin_is_listed(site, tmp_path):
    result = fairseq_ecg(site, "list", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for name in ("lead_reconstruction", "source_pretraining", "random_lead_gain"):
        assert f"  {name} " in result.stdout
    assert "ecg_lead_reconstruction/model.py:" in result.stdout
    assert "broken" not in result.stdout


def test_its_recipe_composes(site, tmp_path):
    result = fairseq_ecg(site, "train", "--cfg", "job", "model.depth=2", *RECIPE, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    shown = yaml.safe_load(result.stdout)
    assert shown["model"] == {
        "_name": "lead_reconstruction",
        "in_d": 12,
        "embed_dim": 128,
        "depth": 2,
        "num_hidden_leads": 3,
    }
    assert shown["task"]["augment"] == "random_lead_gain(low=0.8, high=1.25)"


def test_the_folder_serves_as_user_dir_without_being_installed(tmp_path):
    user_dir = f"common.user_dir={PLUGIN / 'ecg_lead_reconstruction'}"
    result = fairseq_ecg(None, "train", "--cfg", "job", user_dir, *RECIPE, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert yaml.safe_load(result.stdout)["criterion"]["_name"] == "lead_reconstruction"


def test_without_the_plugin_its_recipe_is_refused_in_one_line(tmp_path):
    result = fairseq_ecg(None, "train", "--cfg", "job", *RECIPE, cwd=tmp_path)
    assert result.returncode == 2
    assert "task._name='source_pretraining'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def plugin(monkeypatch):
    """The plugin's modules, imported from the examples and forgotten after the test."""
    from fairseq_ecg import plugins
    from fairseq_ecg.registry import REGISTRIES

    plugins.load_all()
    monkeypatch.syspath_prepend(str(PLUGIN))
    for kind in REGISTRIES.values():
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))
    import ecg_lead_reconstruction

    yield ecg_lead_reconstruction
    for name in [name for name in sys.modules if name.startswith("ecg_lead_reconstruction")]:
        del sys.modules[name]


def test_the_loss_counts_hidden_leads_outside_padding_only(plugin):
    generator = torch.Generator().manual_seed(0)
    prediction, source = torch.randn(2, 3, 4, 10, generator=generator)
    hidden = torch.rand(3, 4, generator=generator) < 0.5
    padding_mask = torch.arange(10) >= torch.tensor([10, 7, 4])[:, None]
    expected, terms = 0.0, 0
    for row in range(3):
        for lead in range(4):
            for time in range(10):
                if hidden[row, lead] and not padding_mask[row, time]:
                    expected += float(prediction[row, lead, time] - source[row, lead, time]) ** 2
                    terms += 1
    error, count = plugin.criterion.hidden_lead_error(prediction, source, hidden, padding_mask)
    assert count.item() == terms
    # Float32 sums of about a hundred terms in another order.
    torch.testing.assert_close(error.item(), expected, rtol=1e-5, atol=0.0)


def test_the_prediction_does_not_see_hidden_leads(plugin):
    model = plugin.model.LeadReconstruction(plugin.model.LeadReconstructionConfig.tiny())
    source = torch.randn(2, 12, 30, generator=torch.Generator().manual_seed(1))
    hidden = torch.zeros(2, 12, dtype=torch.bool)
    hidden[:, 4:6] = True
    other = source.clone()
    other[:, 4:6] += 1.0
    first, second = (model(signal, hidden=hidden).prediction for signal in (source, other))
    assert first.shape == source.shape
    assert torch.equal(first, second)
    assert not torch.equal(first, model(other, hidden=~hidden).prediction)


def test_as_many_leads_are_hidden_as_the_config_says(plugin):
    model = plugin.model.LeadReconstruction(plugin.model.LeadReconstructionConfig.tiny())
    hidden = model(torch.zeros(64, 12, 16)).hidden
    assert hidden.sum(dim=1).tolist() == [3] * 64
    assert hidden.any(dim=0).all(), "every lead is hidden somewhere"


def test_padding_does_not_reach_the_frames_of_the_signal(plugin):
    model = plugin.model.LeadReconstruction(plugin.model.LeadReconstructionConfig.tiny())
    source = torch.randn(1, 12, 40, generator=torch.Generator().manual_seed(2))
    padding_mask = (torch.arange(40) >= 24)[None]
    garbage = torch.where(padding_mask[:, None], 1e3, source)
    encoded, other = model.encode(source, padding_mask), model.encode(garbage, padding_mask)
    assert encoded.padding_mask.tolist() == [[False] * 6 + [True] * 4]
    assert torch.equal(encoded.frames, other.frames)


def test_lead_gains_lie_in_their_range_and_scale_whole_leads(plugin):
    import numpy as np

    from fairseq_ecg.contracts import Keys
    from fairseq_ecg.data.uniform import Uniform

    step = plugin.augmentation.RandomLeadGain(plugin.augmentation.RandomLeadGainConfig(low=0.5, high=2.0))
    index = np.arange(500)
    gains = step.draw(Uniform(0, "test"), Keys(1, index, np.zeros_like(index)), 12, 100)
    assert gains.shape == (500, 12)
    assert 0.5 <= gains.min() < 0.51
    assert 1.99 < gains.max() <= 2.0
    source = torch.ones(500, 12, 4)
    assert torch.equal(step.apply(source, gains), gains[..., None].expand(500, 12, 4))
    assert torch.equal(source, torch.ones(500, 12, 4))


def test_the_installed_plugin_trains_and_its_checkpoint_is_validated(site, manifest_dir, tmp_path):
    small = ["model.depth=2", "model.embed_dim=8", "dataset.batch_size=4", "dataset.num_workers=0"]
    data = [f"task.data={manifest_dir}", "task.only_sources=[tiny]", "checkpoint.save_dir=run"]
    result = fairseq_ecg(
        site,
        "train",
        *data,
        *small,
        "optimization.max_epoch=2",
        "common.cpu=true",
        *RECIPE,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "checkpoints" / "checkpoint_best" / "model.safetensors").is_file()
    trained = dict(line.split() for line in result.stdout.splitlines())
    result = fairseq_ecg(site, "validate", "common_eval.path=run", "common.cpu=true", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("valid squared_error ")]
    # Printed with six digits by both; one process, one seed, the same batches.
    assert line.split()[2] == next(value for name, value in trained.items() if "squared_error" in name)


def test_sources_that_the_manifest_lacks_are_refused(site, manifest_dir, tmp_path):
    data = [f"task.data={manifest_dir}", "task.only_sources=[elsewhere]", "checkpoint.save_dir=run"]
    result = fairseq_ecg(site, "train", *data, "common.cpu=true", *RECIPE, cwd=tmp_path)
    assert result.returncode == 2
    assert "task.only_sources=['elsewhere']; the manifest has tiny" in result.stderr
