"""Small components with the option names of fairseq-signals, and recipes that choose them.

They are registered for one test at a time, so that suites which go over every registered component never see
them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pytest

from fairseq_ecg import plugins, registry
from fairseq_ecg.compose import load_config
from fairseq_ecg.config import RunConfig
from fairseq_ecg.errors import ConfigError
from fairseq_ecg.registry import CRITERIA, LR_SCHEDULERS, MODELS, OPTIMIZERS, TASKS


class Selection(StrEnum):
    STATIC = "static"
    UNIFORM = "uniform"
    NONE = "none"


@dataclass(kw_only=True)
class ToyTaskConfig:
    data: str | None = None
    label_file: str | None = None
    leads_to_load: list[str] | None = None
    perturbation_mode: list[str] | None = None
    p: list[float] = field(default_factory=lambda: [1.0])
    normalize: bool = False
    enable_padding: bool = False
    mask_leads_condition: tuple[int, int] = (4, 5)


class ToyTask:
    """A task of the tests."""

    def __init__(self, cfg: ToyTaskConfig) -> None:
        self.cfg = cfg


@dataclass(kw_only=True)
class ToyModelConfig:
    encoder_layers: int = 12
    dropout: float = 0.1
    apply_mask: bool = False
    mask_prob: float = 0.0
    mask_selection: Selection = Selection.STATIC
    optional_selection: Selection | None = None
    conv_feature_layers: list[list[int]] = field(default_factory=lambda: [[256, 2, 2]] * 4)
    latent_temp: list[float] = field(default_factory=lambda: [2.0, 0.5, 0.999995])
    num_labels: int | None = None
    model_path: str | None = None
    extra: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.encoder_layers < 1:
            raise ConfigError(f"encoder_layers={self.encoder_layers}: must be at least 1")


class ToyModel:
    """A model of the tests (Nobody et al. 2001, arXiv 0101.00001)."""

    def __init__(self, cfg: ToyModelConfig) -> None:
        self.cfg = cfg


@dataclass(kw_only=True)
class OtherModelConfig:
    width: int = 3
    required: int


class OtherModel:
    """Another model of the tests."""

    def __init__(self, cfg: OtherModelConfig) -> None:
        self.cfg = cfg


@dataclass(kw_only=True)
class ToyCriterionConfig:
    weights_file: str | None = None
    report_cinc_score: bool = False
    pos_weight: list[float] | None = None
    log_keys: list[str] = field(default_factory=list)


class ToyCriterion:
    """A criterion of the tests that needs a mask when it reports a score."""

    def __init__(self, cfg: ToyCriterionConfig) -> None:
        self.cfg = cfg

    @classmethod
    def check_config(cls, run: RunConfig) -> None:
        if run.criterion.config.report_cinc_score and not run.model.config.apply_mask:
            raise ConfigError("criterion.report_cinc_score=true without model.apply_mask=true trains nothing")


@dataclass(kw_only=True)
class ToyOptimizerConfig:
    adam_betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    adam_eps: float = 1e-8


class ToyOptimizer:
    """An optimizer of the tests."""


@dataclass(kw_only=True)
class ToyScheduleConfig:
    warmup_updates: int = 0
    lr_decay_period: int = 25000


class ToySchedule:
    """A schedule of the tests."""


CHOICE = [
    "task=toy_task",
    "model=toy_model",
    "criterion=toy_criterion",
    "optimizer=toy_optimizer",
    "lr_scheduler=toy_schedule",
]
"""The overrides that choose all of them."""

COMPONENTS = [
    (TASKS, "toy_task", ToyTask, ToyTaskConfig),
    (MODELS, "toy_model", ToyModel, ToyModelConfig),
    (MODELS, "toy_model_with_required_option", OtherModel, OtherModelConfig),
    (CRITERIA, "toy_criterion", ToyCriterion, ToyCriterionConfig),
    (OPTIMIZERS, "toy_optimizer", ToyOptimizer, ToyOptimizerConfig),
    (LR_SCHEDULERS, "toy_schedule", ToySchedule, ToyScheduleConfig),
]

RECIPE = """\
# a recipe of the tests
task:
  _name: toy_task
  data: ???
criterion:
  _name: toy_criterion
  weights_file: ???
optimizer:
  _name: toy_optimizer
  adam_betas: (0.9, 0.98)
  adam_eps: 1e-06
lr_scheduler:
  _name: toy_schedule
optimization:
  lr: [5e-5]
model:
  _name: toy_model
  encoder_layers: 3
"""


@pytest.fixture(autouse=True)
def components(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the small components, and forget them after the test."""
    plugins.load_all()
    for shelf in (TASKS, MODELS, CRITERIA, OPTIMIZERS, LR_SCHEDULERS):
        monkeypatch.setattr(shelf, "_entries", dict(shelf._entries))
    for shelf, name, factory, config in COMPONENTS:
        shelf.register(name, config=config)(factory)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A folder with ``recipe.yaml``."""
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def load(recipe: Path):
    """Load ``recipe.yaml`` with overrides."""

    def load(*overrides: str) -> RunConfig:
        return load_config([*overrides, "--config-dir", str(recipe), "--config-name", "recipe"])

    return load


@pytest.fixture
def choose():
    """Load no file at all: every component chosen by an override."""
    return lambda *overrides: load_config([*CHOICE, *overrides])


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a folder of plugins with one model; what importing it leaves behind goes after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "FAILURES", FAILURES := list(registry.FAILURES))
    monkeypatch.setattr(plugins, "FAILURES", FAILURES)
    monkeypatch.setattr(plugins, "_loaded", set(plugins._loaded))

    def write(folder: str, model: str, *, broken: bool = False) -> Path:
        path = tmp_path / folder
        path.mkdir()
        (path / "__init__.py").write_text("")
        (path / "models.py").write_text(
            "from fairseq_ecg.registry import register_model\n"
            + ("1 / 0\n" if broken else "")
            + f"@register_model('{model}')\nclass Mine:\n    'A model.'\n"
        )
        for name in (folder, f"{folder}.models"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        return path

    return write
