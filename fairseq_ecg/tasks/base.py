"""What every task does: open manifests, describe the input, make loaders, prepare batches on the device.

A task knows data and wiring only. It learns the batch layout from the criterion it is given and never looks
at the name of a model or criterion.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fairseq_ecg.config import DatasetConfig
from fairseq_ecg.contracts import STANDARD_LEADS, Batch, InputContract, StepOutput
from fairseq_ecg.data.augment.pipeline import Pipeline
from fairseq_ecg.data.dataset import ManifestDataset
from fairseq_ecg.data.device import prepare_source
from fairseq_ecg.data.loader import Loader
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.data.normalise import Normalisation
from fairseq_ecg.data.pairing import PAIRINGS
from fairseq_ecg.data.record import lead_name
from fairseq_ecg.data.sampler import BatchSampler
from fairseq_ecg.errors import ConfigError, DataError, nearest


class Criterion(Protocol):
    """What a task and the trainer ask of a criterion; it holds no parameters."""

    layout: str
    """Rows of a batch it needs: ``single`` segments, or ``segment_pairs``, interleaved."""

    def __call__(self, model: nn.Module, batch: Batch) -> StepOutput: ...

    def validate_model(self, model: nn.Module) -> None:
        """Refuse, at start-up, a model it cannot train."""

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Registered metrics to compute in validation, with their options."""


@dataclass(kw_only=True)
class EcgTaskConfig:
    """Options that the ECG tasks share."""

    data: str | None = None
    """Folder of the manifests: ``<subset>.tsv``."""
    leads_to_load: list[str] | None = None
    """Lead names (any case) or numbers in the standard order; None: the twelve standard leads."""
    enable_padding_leads: bool = False
    """Keep twelve leads, with zeros in those that ``leads_to_load`` leaves out."""
    sample_rate: int | None = None
    """Hz; None: whatever the data have."""
    normalisation: Normalisation = Normalisation.NONE
    """record_zscore: each lead by its mean and std over its whole record, as ECG-FM expects; ptbxl_zscore: by
    constants, as CPC expects."""
    enable_padding: bool = False
    """Pad shorter segments of a batch with zeros; otherwise longer ones are cropped to the shortest."""
    max_sample_size: int | None = None
    """Longer segments are cropped to this many samples."""
    min_sample_size: int | None = None
    """Shorter segments are left out."""
    on_bad_record: str = "skip"
    """What a single file that cannot be read does to a run: error ends it, skip leaves it out of its batch,
    zero gives zeros without label. Left out files are listed in rejected.tsv of the run folder. Prepared
    stores were checked when they were made."""
    allow_outside_root: bool = False
    """Accept manifest rows that lead outside the manifest's root."""
    augment: str = ""
    """Augmentations of the training split, e.g. ``random_lead_mask(p=0.5)|other_step(size=3)``."""
    perturbation_mode: list[str] | None = None
    """fairseq-signals' names of augmentations; ``augment`` is the general form."""
    p: list[float] = field(default_factory=lambda: [1.0])
    """Probability of each entry of ``perturbation_mode``."""
    mask_leads_selection: str = "random"
    mask_leads_prob: float = 0.5
    """Probability of masking each lead, for ``random_leads_masking``."""
    normalize: bool = False
    """fairseq-signals' normalisation by constants from files; see ``normalisation``."""
    filter: bool = False
    """Filtering belongs to ``fairseq-ecg prepare``."""

    def __post_init__(self) -> None:
        if self.normalize:
            raise ConfigError("task.normalize=true is not available; use task.normalisation=record_zscore")
        if self.filter:
            raise ConfigError("task.filter=true is not available; filter the signals when preparing the data")
        for name in ("sample_rate", "max_sample_size", "min_sample_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"task.{name}={value}: must be at least 1, or null")
        if not self.p:
            raise ConfigError("task.p=[]: give a probability per entry of task.perturbation_mode, e.g. [1.0]")
        self.pipeline()

    def pipeline(self) -> Pipeline:
        """The augmentations, from whichever form names them."""
        if not self.perturbation_mode:
            return Pipeline.parse(self.augment)
        if self.augment:
            raise ConfigError("task.augment and task.perturbation_mode both name augmentations; keep one")
        if self.perturbation_mode != ["random_leads_masking"]:
            raise ConfigError(
                f"task.perturbation_mode={self.perturbation_mode}: only [random_leads_masking] is available; "
                "other augmentations are written as task.augment (fairseq-ecg list augmentation)"
            )
        if self.mask_leads_selection != "random":
            raise ConfigError(
                f"task.mask_leads_selection={self.mask_leads_selection}: only random is available"
            )
        return Pipeline.parse(f"random_lead_mask(p={self.mask_leads_prob!r}, prob={self.p[0]!r})")


class EcgTask:
    """Segments of prepared records, as micro-batches."""

    cfg: EcgTaskConfig

    def __init__(self, cfg: EcgTaskConfig, *, dataset: DatasetConfig, seed: int, layout: str) -> None:
        if cfg.data is None:
            raise ConfigError("task.data is not set")
        if layout not in PAIRINGS:
            raise ConfigError(f"the criterion needs batches of {layout!r}; {nearest(layout, PAIRINGS)}")
        self.cfg, self.dataset_cfg, self.seed, self.layout = cfg, dataset, seed, layout
        self.data_dir = Path(cfg.data)
        self.augmentations, self.no_augmentations = cfg.pipeline(), Pipeline()
        self.chosen_leads = self._chosen_leads()
        self.leads = STANDARD_LEADS if cfg.enable_padding_leads else self.chosen_leads
        self.datasets: dict[str, ManifestDataset] = {}

    def _chosen_leads(self) -> tuple[str, ...]:
        if self.cfg.leads_to_load is None:
            return STANDARD_LEADS
        chosen = []
        for name in self.cfg.leads_to_load:
            text = str(name).strip()
            if text.isdigit() and int(text) < len(STANDARD_LEADS):
                chosen.append(STANDARD_LEADS[int(text)])
            else:
                chosen.append(lead_name(text))
        return tuple(chosen)

    # Data ------------------------------------------------------------------------------------------------

    def load(self, split: str) -> None:
        """Open a manifest and its stores.

        Raises:
            DataError: the manifest is absent or damaged, or its rate differs from the other splits'.
        """
        if split in self.datasets:
            return
        path = self.data_dir / f"{split}.tsv"
        if not path.is_file():
            there = sorted(item.stem for item in self.data_dir.glob("*.tsv"))
            make = f"make manifests with: fairseq-ecg manifest split STORE_DIR {self.data_dir}"
            hint = nearest(split, there) if there else make
            raise DataError(f"task.data={self.data_dir} has no {split}.tsv; {hint}")
        self.datasets[split] = ManifestDataset(
            Manifest.read(path, allow_outside=self.cfg.allow_outside_root),
            leads=self.leads,
            num_samples=self.cfg.max_sample_size,
            pipeline=self.augmentations if self.augments(split) else self.no_augmentations,
            seed=self.seed,
            target=self.labels(),
            enable_padding=self.cfg.enable_padding,
            sampling_rate=self.cfg.sample_rate,
            on_bad_record=self.cfg.on_bad_record,
        )
        rates = {name: dataset.sampling_rate for name, dataset in self.datasets.items()}
        if len(set(rates.values())) > 1:
            raise DataError(f"task.data={self.data_dir}: splits of different sampling rates: {rates}")
        filters = {name: dataset.filter for name, dataset in self.datasets.items()}
        if len(set(filters.values())) > 1:
            raise DataError(f"task.data={self.data_dir}: splits filtered differently: {filters}")

    def labels(self) -> NDArray[np.float32] | None:
        """One row per idx; None: the task has no labels."""
        return None

    def augments(self, split: str) -> bool:
        return split == self.dataset_cfg.train_subset

    def loader(
        self,
        split: str,
        *,
        epoch: int,
        is_train: bool,
        rank: int = 0,
        world_size: int = 1,
        first_batch: int = 0,
        pin_memory: bool = False,
    ) -> Loader:
        """Micro-batches of one rank; validation keeps the manifest's order."""
        self.load(split)
        data, options = self.datasets[split], self.dataset_cfg
        sampler = BatchSampler(
            lambda epoch: self.units(data.manifest, epoch),
            data.manifest.num_samples,
            batch_size=options.batch_size if is_train else options.batch_size_valid or options.batch_size,
            max_tokens=options.max_tokens if is_train else options.max_tokens_valid or options.max_tokens,
            seed=self.seed,
            shuffle=is_train,
            required_batch_size_multiple=options.required_batch_size_multiple,
            reference_order=options.reference_order,
            curriculum=options.curriculum,
            max_sample_size=self.cfg.max_sample_size,
            enable_padding=self.cfg.enable_padding,
        )
        return Loader(
            data,
            sampler,
            epoch=epoch,
            rank=rank,
            world_size=world_size,
            first_batch=first_batch,
            num_workers=options.num_workers,
            buffer_size=options.data_buffer_size,
            pin_memory=pin_memory,
        )

    def units(self, manifest: Manifest, epoch: int) -> NDArray[np.int64]:
        """(units, views) rows of the manifest, without segments that are too short."""
        units = PAIRINGS[self.layout](manifest, epoch, self.seed)
        shortest = self.cfg.min_sample_size
        if shortest is None:
            return units
        units = units[(manifest.num_samples[units] >= shortest).all(axis=1)]
        if not len(units):
            raise DataError(f"{manifest.path}: no segment has task.min_sample_size={shortest} samples")
        return units

    def describe_batch(self, world_size: int, update_freq: int) -> str:
        """How many segments one update sees, as a product."""
        size, views = self.dataset_cfg.batch_size, 2 if self.layout == "segment_pairs" else 1
        if size is None:
            limit = f"at most {self.dataset_cfg.max_tokens} samples"
            return f"{limit} x {world_size} devices x {update_freq} micro-batches"
        what = f"{size} pairs x 2 segments" if views == 2 else f"{size} segments"
        total = size * views * world_size * update_freq
        return f"{what} x {world_size} devices x {update_freq} micro-batches = {total:,} segments"

    # What a checkpoint says of the data ------------------------------------------------------------------

    @property
    def contract(self) -> InputContract:
        """What a model trained here gets to see."""
        return self.contract_of(self.dataset_cfg.train_subset)

    def contract_of(self, split: str) -> InputContract:
        """What a model gets to see of one split."""
        data = self.datasets[split]
        return InputContract(
            sampling_rate=data.sampling_rate,
            num_samples=self._longest(data),
            leads=self.leads,
            normalisation=self.cfg.normalisation.value,
            filter=data.filter,
        )

    @property
    def label_names(self) -> list[str]:
        return []

    @property
    def label_codes(self) -> list[frozenset[str]]:
        """Codes of every label, an empty set where the data do not tell them; empty without labels."""
        return []

    @property
    def rejected(self) -> dict[tuple[str, str], str]:
        """(split, record_id) -> reason, of records that could not be read so far (``on_bad_record``)."""
        return {
            (split, record_id): reason
            for split, data in self.datasets.items()
            for record_id, reason in data.rejected.items()
        }

    def sources(self, split: str) -> list[str]:
        """Names of the data sets a split's segments come from."""
        return sorted(set(self.datasets[split].manifest.sources.values()))

    def _longest(self, data: ManifestDataset) -> int:
        longest = int(data.manifest.num_samples.max())
        return longest if self.cfg.max_sample_size is None else min(longest, self.cfg.max_sample_size)

    # Steps -----------------------------------------------------------------------------------------------

    def prepare(self, batch: Batch, *, is_train: bool) -> Batch:
        """Stored units to float32 mV, normalised and augmented, where the batch lies."""
        batch = prepare_source(
            batch, self.augmentations, self.cfg.normalisation.value, train=is_train, leads=self.leads
        )
        if self.leads == self.chosen_leads:
            return batch
        keep = torch.tensor([lead in self.chosen_leads for lead in self.leads], device=batch.source.device)
        return replace(batch, source=batch.source * keep[:, None])

    def train_step(self, model: nn.Module, criterion: Criterion, batch: Batch) -> StepOutput:
        return criterion(model, batch)

    def valid_step(self, model: nn.Module, criterion: Criterion, batch: Batch) -> StepOutput:
        return criterion(model, batch)

    def validate_model(self, model: nn.Module) -> None:
        """Refuse, at start-up, a model that does not fit the labels."""
