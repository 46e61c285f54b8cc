"""Checkpoints of fairseq-signals and of ECG-FM: the wav2vec2 models, their encoder, its classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairseq_ecg.contracts import InputContract
from fairseq_ecg.errors import CheckpointError
from fairseq_ecg.interop.base import ImportedModel, KeyTable
from fairseq_ecg.interop.safe_pickle import Inert, read_pickled
from fairseq_ecg.methods.wcr import Wav2Vec2Config
from fairseq_ecg.models.classifier import EcgTransformerClassifierConfig
from fairseq_ecg.models.ecg_transformer import EcgTransformerConfig, sizes_from_tensors
from fairseq_ecg.registry import register_importer

KEYS = KeyTable(
    (
        ("conv_pos.pos_conv.0.weight_g", "conv_pos.pos_conv.0.parametrizations.weight.original0"),
        ("conv_pos.pos_conv.0.weight_v", "conv_pos.pos_conv.0.parametrizations.weight.original1"),
    )
)
"""Weight norm before 2025; everything else has the reference's names already."""

MODEL_NAMES = {
    "wav2vec2_clocs": "wav2vec2_cmsc",
    "clocs": "ecg_transformer",
    "simclr": "ecg_transformer",
    "_3kg": "ecg_transformer",
    "conv_transformer": "ecg_transformer",
    "linear_projection": "ecg_transformer_classifier",
}
"""Registered names of earlier years."""

CONFIGS: dict[str, type[EcgTransformerConfig]] = {
    "ecg_transformer": EcgTransformerConfig,
    "ecg_transformer_classifier": EcgTransformerClassifierConfig,
    "wav2vec2": Wav2Vec2Config,
    "wav2vec2_cmsc": Wav2Vec2Config,
}

_POSITIONS = "conv_pos.pos_conv.0.bias"


def import_checkpoint(path: str | Path) -> ImportedModel:
    """Read, recognise and translate one file.

    Raises:
        CheckpointError: the file cannot be read or is not of this family.
    """
    importer, tree = FairseqSignalsImporter(), read_pickled(path)
    if not importer.recognise(tree):
        raise CheckpointError(
            f"{path} is not a fairseq-signals checkpoint: it has no 'model' with {_POSITIONS}; "
            "check the file, or name its format"
        )
    try:
        return importer.translate(tree)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


@register_importer("fairseq_signals")
class FairseqSignalsImporter:
    """Translate a fairseq-signals checkpoint: a dict with ``cfg`` and ``model``."""

    def __init__(self, cfg: object = None) -> None:
        pass

    def recognise(self, tree: Any) -> bool:
        """Whether the tree has this family's tensors."""
        state = tree.get("model") if isinstance(tree, Mapping) else None
        if not isinstance(state, Mapping):
            return False
        return any(isinstance(key, str) and key.endswith("pos_conv.0.bias") for key in state)

    def translate(self, tree: Any) -> ImportedModel:
        """Our names, and a config whose sizes are those of the tensors.

        Raises:
            CheckpointError: a checkpoint from before November 2022, whose attention mixed the samples of a
            batch
                and whose results no correct transformer can repeat; or a model of another kind.
        """
        found = {key: value for key, value in tree["model"].items() if isinstance(value, torch.Tensor)}
        if any(".self_attn.W_Q." in key or key.startswith("encoder.pos_conv.") for key in found):
            raise CheckpointError(
                "was written by fairseq-signals before November 2022, when attention ran over the batch "
                "instead "
                "of over time: its weights do not work in a correct transformer; train again"
            )
        state = KEYS.translate(found)
        cfg = tree.get("cfg")
        group = (
            dict(cfg["model"]) if isinstance(cfg, Mapping) and isinstance(cfg.get("model"), Mapping) else {}
        )
        name = _model_name(group, state)
        config, dropped = _config(name, group, state)
        criterion = cfg.get("criterion") if isinstance(cfg, Mapping) else None
        history = tree.get("optimizer_history") or [{}]
        return ImportedModel(
            name=name,
            config=config,
            state={key: value for key, value in state.items() if key not in dropped},
            contract=_contract(config, cfg),
            criterion=dict(criterion) if isinstance(criterion, Mapping) else None,
            num_updates=int(history[-1].get("num_updates", 0)),
            dropped=dropped,
        )


def _model_name(group: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """The registered name: as the config says, or by the tensors when there is no config."""
    told = str(group.get("_name") or "")
    name = MODEL_NAMES.get(told, told)
    if not name:
        if "proj.weight" in state:
            return "ecg_transformer_classifier"
        return "wav2vec2_cmsc" if "final_proj.weight" in state else "ecg_transformer"
    if name not in CONFIGS:
        raise CheckpointError(f"holds a model {told!r}; readable are {', '.join(sorted(CONFIGS))}")
    return name


def _config(
    name: str, group: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Options of the model, and the tensors it does not take."""
    kind = CONFIGS[name]
    known = {item.name for item in fields(kind)}
    known.discard("model_path")
    config = {key: value for key, value in group.items() if key in known and not isinstance(value, Inert)}
    encoder = state
    if name == "ecg_transformer_classifier":
        encoder = {
            key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")
        }
    config |= sizes_from_tensors(encoder, group)
    dropped: tuple[str, ...] = ()
    if kind is Wav2Vec2Config:
        config |= _wav2vec2_sizes(state, group)
    else:
        # Only the wav2vec2 models mask; an embedding for masked frames may have been carried along.
        config["apply_mask"] = False
        dropped = tuple(key for key in state if key.rpartition(".")[2] == "mask_emb")
    if name == "ecg_transformer_classifier":
        config["num_labels"] = state["proj.weight"].shape[0]
    return config, dropped


def _wav2vec2_sizes(state: Mapping[str, Tensor], group: Mapping[str, Any]) -> dict[str, Any]:
    """What the tensors of the pre-training heads fix."""
    final = state["final_proj.weight"].shape[0]
    sizes: dict[str, Any] = {
        "final_dim": final,
        "apply_mask": "mask_emb" in state,
        "target_glu": "target_glu.0.weight" in state,
        "quantize_targets": "quantizer.vars" in state,
    }
    if "quantizer.vars" in state:
        entries, width = state["quantizer.vars"].shape[1:]
        quantized = state["project_q.weight"].shape[1]
        groups = quantized // width
        sizes |= {"latent_groups": groups, "latent_vars": entries // groups}
        sizes["latent_dim"] = 0 if quantized == final and not group.get("latent_dim") else quantized
    return sizes


def _contract(config: Mapping[str, Any], cfg: Any) -> InputContract:
    """fairseq-signals records no rate and no unit; its preparation gives 500 Hz, 5 s, mV, standard leads."""
    task = cfg.get("task") if isinstance(cfg, Mapping) else None
    rate = int((task or {}).get("sample_rate") or 500)
    contract = InputContract(sampling_rate=rate, num_samples=5 * rate)
    if config["in_d"] == len(contract.leads):
        return contract
    leads = tuple(f"lead{i}" for i in range(config["in_d"])) if config["in_d"] > 1 else contract.leads[:1]
    return InputContract(sampling_rate=rate, num_samples=5 * rate, leads=leads)
