"""Adam, learning-rate schedules and the fp16 loss scaler against the reference's traces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from fairseq_ecg.registry import LR_SCHEDULERS
from fairseq_ecg.trainer.optim import Adam, AdamConfig, clip_factor, total_norm
from fairseq_ecg.trainer.precision import LossScaler
from fairseq_ecg.trainer.schedule import Schedule
from tools.golden_checks.report import Report

ALIASES = {"lr_deacy_period": "lr_decay_period"}


def check(folder: Path, report: Report) -> None:
    config = json.loads((folder / "config.json").read_text())
    arrays = np.load(folder / "io.npz")
    for name, entry in config.get("lr", {}).items():
        _check_schedule(name, entry, arrays, report)
    initial = load_file(folder / "weights.safetensors")
    for name, entry in config.get("adam", {}).items():
        _check_adam(name, entry, config, initial, arrays, report)
    for name, entry in config.get("loss_scaler", {}).items():
        _check_scaler(name, entry["cfg"], arrays, report)


def _schedule(cfg: dict[str, Any], lr: list[float]) -> Schedule:
    options = {ALIASES.get(key, key): value for key, value in cfg.items()}
    entry = LR_SCHEDULERS.get(options.pop("_name"))
    max_update = int(options.pop("max_update", 0) or 0)
    rates = options.pop("lr", lr)
    schedule: Schedule = LR_SCHEDULERS.build(
        entry.name, entry.config(**options), lr=rates, max_update=max_update
    )
    return schedule


def _check_schedule(name: str, entry: dict[str, Any], arrays: Any, report: Report) -> None:
    schedule = _schedule(entry["cfg"], entry["cfg"].get("lr", []))
    epochs = arrays[f"lr/{name}/epoch"]
    rates = [schedule.rate(update, int(epochs[update])) for update in range(entry["n"])]
    report.close(f"lr/{name}", rates, arrays[f"lr/{name}"], rtol=1e-12)


def _check_adam(
    name: str,
    entry: dict[str, Any],
    config: dict[str, Any],
    initial: dict[str, Any],
    arrays: Any,
    report: Report,
) -> None:
    module = nn.ParameterDict({key: nn.Parameter(value.clone()) for key, value in initial.items()})
    options = AdamConfig(adam_betas=entry["betas"], adam_eps=entry["eps"], weight_decay=entry["weight_decay"])
    adam = Adam(options, model=module)
    schedule = (
        _schedule(config["lr"][entry["schedule"]]["cfg"], [entry["lr"]]) if "schedule" in entry else None
    )
    trace: dict[str, list[Any]] = {"grad_norm": [], "lr": [], **{key: [] for key in initial}}
    for step in range(config["T"]):
        for key in initial:
            module[key].grad = torch.from_numpy(arrays[f"grad_{key}"][step]).float() * (
                1.0 / float(arrays["sample_size"][step])
            )
        gradients = [module[key].grad for key in initial]
        norm = total_norm(gradients)
        torch._foreach_mul_(gradients, clip_factor(norm, entry["clip_norm"]))
        rate = schedule.rate(step, 1) if schedule else entry["lr"]
        adam.step(rate, torch.zeros(()))
        trace["grad_norm"].append(float(norm))
        trace["lr"].append(rate)
        for key in initial:
            trace[key].append(module[key].detach().numpy().copy())
    report.close(f"{name}/grad_norm", trace["grad_norm"], arrays[f"{name}/grad_norm"], rtol=1e-6)
    report.close(f"{name}/lr", trace["lr"], arrays[f"{name}/lr"], rtol=1e-12)
    for key in initial:
        report.close(f"{name}/{key}", np.stack(trace[key]), arrays[f"{name}/{key}"], atol=1e-6)
    state = adam.state_dict()
    for moment in ("exp_avg", "exp_avg_sq"):
        for key in initial:
            golden = f"{name}/{moment}_{key}"
            if golden in arrays:
                # 1e-6 of each element, with a floor for elements that cancel to nothing.
                floor = 1e-7 * float(np.abs(arrays[golden]).max())
                report.close(golden, state[key][moment].numpy(), arrays[golden], atol=floor, rtol=1e-6)


def _check_scaler(name: str, cfg: dict[str, Any], arrays: Any, report: Report) -> None:
    scaler = LossScaler(
        scale=float(cfg["init_scale"]),
        scale_window=cfg["scale_window"],
        tolerance=cfg["tolerance"],
        threshold=cfg["threshold"],
        min_loss_scale=cfg["min_loss_scale"],
    )
    scales, events = [], []
    for norm in arrays[f"scaler/{name}/grad_norm"]:
        try:
            events.append(int(scaler.update(float(norm))))
        except FloatingPointError:
            events.append(2)
        scales.append(scaler.scale)
        if events[-1] == 2:
            break
    report.equal(f"scaler/{name}/event", np.array(events), arrays[f"scaler/{name}/event"])
    report.close(f"scaler/{name}/loss_scale_after", scales, arrays[f"scaler/{name}/loss_scale_after"])
