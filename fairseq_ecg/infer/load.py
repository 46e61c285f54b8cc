"""Encoders from checkpoints, ours or foreign, and un-trained models by name.

An ``Encoder`` takes signals of any rate, lead order and voltage unit, converts them to the input contract of
its checkpoint, and says what it converted.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fairseq_ecg.contracts import InputContract
from fairseq_ecg.errors import CheckpointError, ConfigError, DataError
from fairseq_ecg.infer.conform import Segments, check_contract, conform, cut
from fairseq_ecg.models.base import Classifier, EcgModel, EncoderOutput, LoadReport, load_tensors
from fairseq_ecg.models.base import Encoder as EncoderModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A model that makes frames of signals, with all it needs to be given any signal.

    Attributes:
        model: in eval mode, on ``device``.
        contract: the input it was made for.
        name: what tables call it.
        config: the run's config as the checkpoint holds it; empty for an encoder without a checkpoint.
        sources: data sources its weights have seen; empty when the file does not say.
        label_names: of the outputs of its classifier; empty without one or when the file does not say.
        report: which tensors were loaded; None for an un-trained encoder.
        batch_size: segments encoded at once.
    """

    model: EcgModel
    contract: InputContract
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    report: LoadReport | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        if not isinstance(self.model, EncoderModel):
            raise CheckpointError(
                f"{self.name}: {type(self.model).__name__} is no encoder (it has no encode and embed_dim); "
                "give the checkpoint of an encoder or of a classifier around one"
            )
        check_contract(self.contract)

    @property
    def embed_dim(self) -> int:
        assert isinstance(self.model, EncoderModel)
        return self.model.embed_dim

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> Encoder:
        """Move the model; returns the encoder."""
        self.model.to(device)
        return self

    def embed(
        self, signal: ArrayLike, sampling_rate: int, leads: Sequence[str], unit: str = "mV"
    ) -> NDArray[np.float32]:
        """One vector per record: the mean over its frames and segments.

        Args:
            signal: (records, leads, time), or (leads, time) for one record.
            sampling_rate: Hz.
            leads: names of the leads, in the order of ``signal``.
            unit: of the values, for example ``mV`` or ``uV``.

        Returns:
            (records, dim).

        Raises:
            DataError: the input cannot be converted to the contract.
        """
        pieces = self._conformed(signal, sampling_rate, leads, unit)
        means = self.embed_segments(Segments(*map(np.concatenate, zip(*_parts(pieces), strict=True))))
        counts = [len(piece.source) for piece in pieces]
        starts = np.cumsum([0, *counts[:-1]])
        sums: NDArray[np.float32] = np.add.reduceat(means, starts, axis=0)
        return sums / np.array(counts, dtype=np.float32)[:, None]

    def frames(
        self, signal: ArrayLike, sampling_rate: int, leads: Sequence[str], unit: str = "mV"
    ) -> NDArray[np.float32]:
        """All frames of every record, those of its segments one after the other; arguments as in ``embed``.

        Frames that only see padding of a record shorter than a segment are NaN.

        Returns:
            (records, frames, dim).
        """
        pieces = self._conformed(signal, sampling_rate, leads, unit)
        whole = Segments(*map(np.concatenate, zip(*_parts(pieces), strict=True)))
        outputs = []
        for output in self.encode_segments(whole):
            frames = output.frames.float()
            if output.padding_mask is not None:
                frames = frames.masked_fill(output.padding_mask[..., None], torch.nan)
            outputs.append(frames.cpu().numpy())
        frames_of_segments: NDArray[np.float32] = np.concatenate(outputs)
        return frames_of_segments.reshape(len(pieces), -1, frames_of_segments.shape[-1])

    def embed_segments(self, segments: Segments) -> NDArray[np.float32]:
        """(S, L, T) segments as the contract wants them -> (S, dim), the mean over valid frames."""
        means = [output.pooled().float().cpu().numpy() for output in self.encode_segments(segments)]
        return np.concatenate(means)

    @property
    def num_labels(self) -> int:
        """Outputs of its own classifier.

        Raises:
            CheckpointError: it has none.
        """
        return self._classifier.num_labels

    @torch.inference_mode()
    def classify_segments(self, segments: Segments) -> NDArray[np.float64]:
        """(S, L, T) segments as the contract wants them -> (S, K) probabilities of its own classifier.

        Raises:
            CheckpointError: it has none.
        """
        logits = [
            self._classifier.classify(source, mask).double().sigmoid().cpu().numpy()
            for source, mask in self._batches(segments)
        ]
        probabilities: NDArray[np.float64] = np.concatenate(logits)
        return probabilities

    @torch.inference_mode()
    def encode_segments(self, segments: Segments) -> Iterator[EncoderOutput]:
        """Encoder outputs of consecutive batches of segments."""
        assert isinstance(self.model, EncoderModel)
        for source, padding_mask in self._batches(segments):
            yield self.model.encode(source, padding_mask)

    @property
    def _classifier(self) -> Classifier:
        if not isinstance(self.model, Classifier):
            raise CheckpointError(
                f"{self.name}: {type(self.model).__name__} has no classifier head; give a fine-tuned "
                "checkpoint, or evaluate its embeddings with --protocol linear"
            )
        return self.model

    def _batches(self, segments: Segments) -> Iterator[tuple[Tensor, Tensor | None]]:
        """(B, L, T) sources and their padding masks, on the device."""
        length = segments.source.shape[-1]
        for start in range(0, len(segments.source), self.batch_size):
            part = slice(start, start + self.batch_size)
            source = torch.from_numpy(segments.source[part]).to(self.device)
            valid = torch.from_numpy(segments.num_samples[part])
            padding_mask: Tensor | None = None
            if int(valid.min()) < length:
                padding_mask = (torch.arange(length) >= valid[:, None]).to(self.device)
            yield source, padding_mask

    def random_twin(self, seed: int) -> Encoder:
        """The same architecture with initial weights drawn from the seed, to compare with."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = type(self.model)(copy.deepcopy(self.model.cfg))
        return replace(
            self,
            model=model.to(self.device).eval(),
            name=f"random init (seed {seed})",
            config={},
            sources=(),
            label_names=(),
            report=None,
        )

    def _conformed(
        self, signal: ArrayLike, sampling_rate: int, leads: Sequence[str], unit: str
    ) -> list[Segments]:
        records = np.asarray(signal)
        if records.ndim == 2:
            records = records[None]
        if records.ndim != 3 or len(records) == 0:
            raise DataError(f"signal of shape {records.shape} is not (records, leads, time) with records")
        pieces = []
        for index, record in enumerate(records):
            conformed = conform(
                record,
                sampling_rate=sampling_rate,
                leads=leads,
                unit=unit,
                contract=self.contract,
                name=f"record {index}",
            )
            if index == 0:
                log_notes(conformed.notes, self.name)
            pieces.append(cut(conformed.signal, self.contract.num_samples))
        return pieces


def _parts(pieces: Sequence[Segments]) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    return [(piece.source, piece.num_samples) for piece in pieces]


def log_notes(notes: Sequence[str], name: str) -> None:
    """Say how input was converted for an encoder."""
    if notes:
        logger.info("%s: input %s", name, "; ".join(notes))


def load_encoder(
    path: str | Path, format: str | None = None, *, user_dir: str | Path | None = None
) -> Encoder:
    """The encoder of a checkpoint: one of our folders, or a foreign file that an importer recognises.

    Args:
        path: a checkpoint folder, a run folder (its last checkpoint), or a file.
        format: name of the importer to use; None: recognise the file by its content.
        user_dir: folder or file with components of your own, to import first. A checkpoint never names
            code to run by itself.

    Raises:
        CheckpointError: nothing is there, it is damaged, or nobody recognises it.
        ConfigError: it is of a model that nobody has registered, or ``user_dir`` cannot be imported.
    """
    from fairseq_ecg.plugins import load_all
    from fairseq_ecg.trainer.checkpoint import load_model, resolve

    load_all(user_dir)
    found = resolve(path)
    if found.is_file():
        return _load_foreign(found, format)
    if format is not None:
        raise CheckpointError(f"{found} is a checkpoint folder of this package; leave format={format!r} out")
    loaded = load_model(found)
    return Encoder(
        model=loaded.model,
        contract=loaded.contract,
        name=str(path),
        config=loaded.config,
        sources=tuple(loaded.sources),
        label_names=tuple(loaded.label_names),
        report=loaded.report,
    )


def create_model(name: str, **overrides: Any) -> EcgModel:
    """An un-trained model by its registered name; initial weights come from PyTorch's global generator.

    Args:
        name: see ``fairseq-ecg list model``.
        overrides: options of the model's config, as in a YAML file.

    Raises:
        ConfigError: an unknown name, option or value.
    """
    from fairseq_ecg.compose import component_from_dict
    from fairseq_ecg.registry import MODELS

    choice = component_from_dict("model", {"_name": name, **overrides}, source=f"create_model({name!r})")
    model: EcgModel = MODELS.build(choice.name, choice.config)
    return model


def pick_device(name: str | None = None) -> torch.device:
    """The named device, or a GPU if there is one.

    Raises:
        ConfigError: no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def _load_foreign(path: Path, format: str | None) -> Encoder:
    from fairseq_ecg.compose import component_from_dict
    from fairseq_ecg.interop.foreign import read_foreign
    from fairseq_ecg.registry import MODELS

    imported = read_foreign(path, format)
    choice = component_from_dict("model", {"_name": imported.name, **imported.config}, source=str(path))
    model: EcgModel = MODELS.build(choice.name, choice.config)
    report = load_tensors(model, imported.state, source=str(path))
    if report.missing:
        raise CheckpointError(f"{path} does not hold the whole model: {report}")
    return Encoder(
        model=model.eval(),
        contract=imported.contract,
        name=str(path),
        config={"model": choice.to_dict()},
        report=report,
    )
