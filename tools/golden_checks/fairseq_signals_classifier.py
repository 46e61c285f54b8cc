"""The fine-tuned classifier: import of its files, outputs, padding, saliency, loss and gradients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from fairseq_ecg.contracts import Batch, Keys
from fairseq_ecg.criteria.binary_cross_entropy import (
    BinaryCrossEntropyWithLogits,
    BinaryCrossEntropyWithLogitsConfig,
    masked_binary_cross_entropy,
)
from fairseq_ecg.interop.base import ImportedModel
from fairseq_ecg.interop.fairseq_signals import import_checkpoint
from fairseq_ecg.models.base import load_tensors
from fairseq_ecg.models.classifier import EcgTransformerClassifier, EcgTransformerClassifierConfig
from tools.golden_checks.fairseq_signals_w2v_cmsc import check_gradients, padded_input
from tools.golden_checks.report import Report

FORWARD = 2e-5
GRADIENT = 1e-4
GRADIENT_FLOOR = 1e-6


def check(folder: Path, report: Report) -> None:
    """Compare every array of the folder, and every checkpoint file's tensors."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    golden = dict(np.load(folder / "io.npz"))
    weights = load_file(folder / "weights.safetensors")
    files = sorted(folder.glob("*.pt"))
    imports = {path.name: import_checkpoint(path) for path in files}
    for name, imported in imports.items():
        same = imported.state.keys() == weights.keys() and all(
            torch.equal(imported.state[key], value) for key, value in weights.items()
        )
        report.equal(f"{name}: tensors equal weights.safetensors", same, True)
    if not imports:
        report.fail("checkpoint", "the folder has no .pt file")
        return
    imported = imports.get("checkpoint_best.pt", next(iter(imports.values())))
    if "state_keys" in golden:
        report.equal("state_keys", list(imported.state), [str(key) for key in golden["state_keys"]])
        shapes = [",".join(map(str, value.shape)) for value in imported.state.values()]
        told = [
            "".join(ch if ch.isdigit() or ch == "," else "" for ch in str(s)) for s in golden["state_shapes"]
        ]
        report.equal("state_shapes", shapes, [text.strip(",") for text in told])

    model = _model(imported, folder)
    _check_outputs(model, imported, golden, report)
    _check_loss(model, config["cfg"]["criterion"], golden, report)
    known = {"source", "label", "logits", "encoder_out", "probs", "loss_sum", "sample_size", "pos_weight"}
    known |= {"log_correct", "log_count", "log_em_correct", "log_em_count", "log_tp", "log_fp", "log_fn"}
    known |= {"loss_sum_no_pos_weight", "loss_sum_pos_weight", "grad_names", "grad_norm", "saliency"}
    known |= {"pad__source", "pad__lengths", "pad__logits", "state_keys", "state_shapes"}
    for name in sorted(golden):
        if name not in known and not name.startswith("grad__"):
            report.fail(name, "the checker does not know this array")


def _model(imported: ImportedModel, folder: Path, **options: Any) -> EcgTransformerClassifier:
    cfg = EcgTransformerClassifierConfig(**{**imported.config, **options})
    model = EcgTransformerClassifier(cfg)
    load_tensors(model, imported.state, source=str(folder))
    return model.eval()


def _check_outputs(
    model: EcgTransformerClassifier,
    imported: ImportedModel,
    golden: Mapping[str, NDArray[Any]],
    report: Report,
) -> None:
    with torch.no_grad():
        output = model(torch.from_numpy(golden["source"]))
        report.close("encoder_out", output.encoder.frames.numpy(), golden["encoder_out"], atol=FORWARD)
        report.close("logits", output.logits.numpy(), golden["logits"], atol=FORWARD)
        report.close("probs", output.logits.sigmoid().numpy(), golden["probs"], atol=FORWARD)
        if "pad__source" in golden:
            padded = model(*padded_input(golden))
            report.close("pad__logits", padded.logits.numpy(), golden["pad__logits"], atol=FORWARD)
        if "saliency" in golden:
            explained = _model(imported, Path("checkpoint"), saliency=True)(
                torch.from_numpy(golden["source"])
            )
            report.close("saliency", explained.encoder.saliency.numpy(), golden["saliency"], atol=FORWARD)
            report.close("logits with saliency", explained.logits.numpy(), golden["logits"], atol=FORWARD)
    counts = _counts(torch.sigmoid(output.logits), torch.from_numpy(golden["label"]).bool())
    for name, value in counts.items():
        if name in golden:
            report.equal(name, float(value), float(golden[name]))


def _counts(probs: torch.Tensor, label: torch.Tensor, threshold: float = 0.5) -> dict[str, int]:
    """Counts at a threshold, from the model's own outputs."""
    predicted = probs > threshold
    return {
        "log_correct": int((predicted == label).sum()),
        "log_count": label.numel(),
        "log_em_correct": int((predicted == label).all(dim=1).sum()),
        "log_em_count": len(label),
        "log_tp": int((predicted & label).sum()),
        "log_fp": int((predicted & ~label).sum()),
        "log_fn": int((~predicted & label).sum()),
    }


def _check_loss(
    model: EcgTransformerClassifier,
    group: Mapping[str, Any],
    golden: Mapping[str, NDArray[Any]],
    report: Report,
) -> None:
    rows = np.arange(len(golden["source"]))
    zeros = torch.zeros(len(rows), dtype=torch.int64)
    batch = Batch(
        keys=Keys(0, rows, np.zeros_like(rows)),
        source=torch.from_numpy(golden["source"]),
        scale=torch.ones(len(rows)),
        patient=zeros,
        segment=zeros,
        target=torch.from_numpy(golden["label"]).float(),
    )
    cfg = BinaryCrossEntropyWithLogitsConfig()
    cfg = replace(cfg, **{key: group[key] for key in ("weight", "pos_weight", "threshold") if key in group})
    criterion = BinaryCrossEntropyWithLogits(cfg)
    criterion.validate_model(model)
    step = criterion(model, batch)
    report.close("loss_sum", float(step.loss.detach()), golden["loss_sum"], atol=FORWARD, rtol=1e-6)
    report.close("sample_size", float(step.sample_size), golden["sample_size"])
    model.zero_grad()
    step.loss.backward()
    want = {name: value for name, value in golden.items() if name.startswith("grad")}
    check_gradients(model, want, "", report, rtol=GRADIENT, atol=GRADIENT_FLOOR)

    assert batch.target is not None
    logits = step.outputs["logits"]
    for name, pos_weight in (("no_pos_weight", None), ("pos_weight", golden.get("pos_weight"))):
        if f"loss_sum_{name}" in golden:
            weight = None if pos_weight is None else torch.from_numpy(pos_weight)
            loss, _ = masked_binary_cross_entropy(logits, batch.target, pos_weight=weight)
            report.close(f"loss_sum_{name}", float(loss), golden[f"loss_sum_{name}"], atol=FORWARD, rtol=1e-6)
