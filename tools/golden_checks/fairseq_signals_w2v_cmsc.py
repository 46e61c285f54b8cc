"""W2V + CMSC: features, padding, one pre-training step with injected draws, and its gradients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from fairseq_ecg.contracts import Batch, Keys
from fairseq_ecg.interop.fairseq_signals import CONFIGS, FairseqSignalsImporter
from fairseq_ecg.methods.wcr import (
    Wav2Vec2,
    Wav2Vec2Criterion,
    Wav2Vec2CriterionConfig,
    Wav2Vec2Output,
    Wav2Vec2WithCmsc,
    Wav2Vec2WithCmscConfig,
)
from fairseq_ecg.models.base import load_tensors
from fairseq_ecg.models.ecg_transformer import EcgTransformer
from tools.golden_checks.report import Report

FORWARD = 2e-5
LOSS = 1e-5
GRADIENT = 2e-4
GRADIENT_FLOOR = 1e-3


def check(folder: Path, report: Report) -> None:
    """Compare every array of the folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    golden = dict(np.load(folder / "io.npz"))
    cfg = config["cfg"]
    state = load_file(folder / "weights.safetensors")
    imported = FairseqSignalsImporter().translate({"cfg": cfg, "model": state})
    model = Wav2Vec2(CONFIGS[imported.name](**imported.config))  # type: ignore[arg-type]
    loaded = load_tensors(model, imported.state, source=str(folder))
    report.equal("weights: missing and unexpected", [*loaded.missing, *loaded.unexpected], [])
    model.before_update(config["num_updates_for_temperature"])

    seen = {"source", "pad__source", "pad__lengths", "mask_indices", "neg_idxs", "gumbel_noise"}
    seen |= {"patient_id", "segment"}
    seen |= check_features(model, golden, report)
    criterion = _criterion(cfg["criterion"])
    criterion.validate_model(model)
    for prefix in ("eval__", "train__"):
        if any(name.startswith(prefix) for name in golden):
            seen |= _check_step(model, criterion, golden, prefix, report)
    for name in sorted(set(golden) - seen):
        report.fail(name, "the checker does not know this array")


def check_features(model: EcgTransformer, golden: Mapping[str, NDArray[Any]], report: Report) -> set[str]:
    """Evaluation without masking, with and without padding; returns the names compared."""
    model.eval()
    results: dict[str, Tensor] = {}
    with torch.no_grad():
        source = torch.from_numpy(golden["source"])
        encoded = model.encode(source)
        results["feat__x"], results["feat__pooled"] = encoded.frames, encoded.pooled()
        results["feat__features"] = model.front_end(source, None).features
        if "pad__source" in golden:
            source, padding = padded_input(golden)
            encoded = model.encode(source, padding)
            assert encoded.padding_mask is not None
            results["pad__x"], results["pad__pooled_zeroed"] = encoded.frames, encoded.pooled()
            report.equal("pad__padding_mask", encoded.padding_mask.numpy(), golden["pad__padding_mask"])
    present = [name for name in results if name in golden]
    for name in present:
        report.close(name, results[name].numpy(), golden[name], atol=FORWARD)
    return {*present, "pad__padding_mask"}


def padded_input(golden: Mapping[str, NDArray[Any]]) -> tuple[Tensor, Tensor]:
    """The padded source, and (B, T) bool with True from each row's length on."""
    source = torch.from_numpy(golden["pad__source"])
    lengths = torch.from_numpy(golden["pad__lengths"])
    return source, torch.arange(source.shape[-1]) >= lengths[:, None]


def _criterion(group: Mapping[str, Any]) -> Wav2Vec2Criterion:
    options = {key: value for key, value in group.items() if key not in ("_name", "all_gather")}
    if group["_name"] == "wav2vec2":
        options = {key: options[key] for key in ("infonce", "loss_weights", "log_keys")}
        return Wav2Vec2Criterion(Wav2Vec2CriterionConfig(**options))
    return Wav2Vec2WithCmsc(Wav2Vec2WithCmscConfig(**options))


def _check_step(
    model: Wav2Vec2,
    criterion: Wav2Vec2Criterion,
    golden: Mapping[str, NDArray[Any]],
    prefix: str,
    report: Report,
) -> set[str]:
    model.train(prefix == "train__")
    batch = _batch(golden)
    mask = torch.from_numpy(golden["mask_indices"])
    num_masked = int(mask[0].sum())
    noise = torch.from_numpy(golden["gumbel_noise"]) if "gumbel_noise" in golden else None
    inner: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name in ("feature_extractor", "layer_norm", "conv_pos", "final_proj", "project_q"):
            handle = getattr(model, name).register_forward_hook(_keeper(inner, name))
            stack.callback(handle.remove)
        output = model(
            batch.source,
            mask_indices=mask,
            negatives=torch.from_numpy(golden["neg_idxs"]).long().reshape(len(mask), num_masked, -1),
            gumbel_noise=noise,
        )
    step = criterion.score(output, batch)
    model.zero_grad()
    step.loss.backward()  # type: ignore[no-untyped-call]

    want = {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}
    arrays = _arrays(output, inner)
    for name in arrays.keys() & want.keys():
        report.close(prefix + name, arrays[name].detach().numpy(), want[name], atol=FORWARD)
    scalars = _scalars(output, step.loss, {key: (float(a), float(b)) for key, (a, b) in step.logs.items()})
    for name in scalars.keys() & want.keys():
        report.close(prefix + name, scalars[name], want[name], atol=1e-6, rtol=LOSS)
    gradients = check_gradients(model, want, prefix, report, rtol=GRADIENT, atol=GRADIENT_FLOOR)
    return {prefix + name for name in {*arrays, *scalars, *gradients}}


def _batch(golden: Mapping[str, NDArray[Any]]) -> Batch:
    source = torch.from_numpy(golden["source"])
    rows = np.arange(len(source))
    zeros = np.zeros(len(source))
    return Batch(
        keys=Keys(0, rows, np.zeros_like(rows)),
        source=source,
        scale=torch.ones(len(source)),
        patient=torch.from_numpy(golden.get("patient_id", rows).astype(np.int64)),
        segment=torch.from_numpy(golden.get("segment", zeros).astype(np.int64)),
    )


def _keeper(store: dict[str, Tensor], name: str) -> Any:
    def keep(_module: nn.Module, _inputs: Any, result: Tensor) -> None:
        store.setdefault(name, result)

    return keep


def _arrays(output: Wav2Vec2Output, inner: Mapping[str, Tensor]) -> dict[str, Tensor]:
    arrays = {
        "conv_features": inner["feature_extractor"],
        "features_layernorm": inner["layer_norm"],
        "conv_pos_out": inner["conv_pos"],
        "encoder_out": output.encoder.frames,
        "features_aggregated": output.encoder.pooled(),
        "x_final_proj": inner["final_proj"],
        "targets_projected": inner["project_q"],
        "logits": output.logits.permute(2, 0, 1),
        "features_pen": output.features_pen,
    }
    if output.quantizer is not None:
        arrays["quantized"] = output.quantizer.quantized
        arrays["code_perplexity"] = output.quantizer.code_perplexity
        arrays["prob_perplexity"] = output.quantizer.prob_perplexity
        arrays["temp"] = output.quantizer.temperature
    return arrays


def _scalars(
    output: Wav2Vec2Output, loss: Tensor, logs: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    size = float(output.valid.sum())
    scalars = {
        "loss_total": float(loss.detach()),
        "log_loss": logs["loss"][0],
        "sample_size": size,
        "log_correct": logs["accuracy"][0],
        "log_count": logs["accuracy"][1],
        "log_nsignals": logs["nsignals"][0],
    }
    if output.quantizer is not None:
        scalars["num_vars"] = float(output.quantizer.num_vars)
    terms = [name for name in logs if name.startswith("loss_")]
    scalars |= {f"log_{name}": logs[name][0] for name in terms}
    scalars["cmsc_loss"] = logs[terms[-1]][0] / size
    return scalars


def check_gradients(
    model: nn.Module,
    want: Mapping[str, NDArray[Any]],
    prefix: str,
    report: Report,
    *,
    rtol: float,
    atol: float,
) -> set[str]:
    """Compare gradient norms, sums and the full gradients the folder gives; returns the names compared."""
    parameters = dict(model.named_parameters())
    names = [str(name) for name in want["grad_names"]]
    report.equal(f"{prefix}grad_names", sorted(parameters), sorted(names))
    gradients = {name: parameters[name].grad for name in names if name in parameters}

    def each(reduce: Any) -> NDArray[np.float64]:
        found = (gradients.get(name) for name in names)
        return np.array([np.nan if grad is None else float(reduce(grad.double())) for grad in found])

    report.close(
        f"{prefix}grad_norm", each(torch.linalg.vector_norm), want["grad_norm"], rtol=rtol, atol=atol
    )
    done = {"grad_names", "grad_norm"}
    if "grad_sum" in want:
        # A sum of many terms is compared on the scale of the gradient's norm.
        scale = np.nan_to_num(want["grad_norm"]) * rtol + atol
        name = f"{prefix}grad_sum / ({rtol:g} norm + {atol:g})"
        report.close(name, each(torch.sum) / scale, want["grad_sum"] / scale, atol=1.0)
        done.add("grad_sum")
    for key in want:
        if key.startswith("grad__"):
            gradient = gradients.get(key.removeprefix("grad__"))
            largest = float(np.abs(want[key]).max())
            if gradient is None:
                report.fail(prefix + key, "no gradient")
            else:
                report.close(prefix + key, gradient.numpy(), want[key], atol=rtol * largest + atol)
            done.add(key)
    return done
