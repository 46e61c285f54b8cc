"""PCLR's interpolation of leads of any length to one length, from a dictionary, an array and microvolts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg.data.record import mv_per_unit
from fairseq_ecg.data.signal import Resampling, resize, stack_leads
from tools.golden_checks.report import Report

ATOL = 1e-12


def check(folder: Path, report: Report) -> None:
    """Compare ``out_N``, ``NAME_out_everyK`` with what is made of ``lead_*`` and of the array ``NAME_in``."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    lengths = [int(length) for length in config["ecg_samples"]]
    with np.load(folder / "io.npz", allow_pickle=False) as arrays:
        golden = {name: arrays[name] for name in arrays.files}
    # In the order in which the reference's dictionary was filled: it must not matter.
    leads = {name: golden.pop(f"lead_{name}") for name in config["dict_insertion_order"]}
    report.equal("lengths", {name: len(values) for name, values in leads.items()}, config["lengths"])
    for length in lengths:
        stacked = stack_leads(leads, config["lead_order"], length).T
        report.close(f"out_{length}", stacked, golden.pop(f"out_{length}"), atol=ATOL)
    for name in [key for key in golden if "_out_every" in key]:
        kind, _, step = name.partition("_out_every")
        # array_in is in mV, uv_in in microvolts.
        source = golden.pop(f"{kind}_in")
        factor = mv_per_unit("uV") if kind == "uv" else 1.0
        _check_array(name, source, factor, int(step), lengths, golden.pop(name), report)
    for name in golden:
        report.fail(name, "unknown array")


def _check_array(
    name: str,
    source: NDArray[Any],
    factor: float,
    step: int,
    lengths: list[int],
    expected: NDArray[Any],
    report: Report,
) -> None:
    fitting = [length for length in lengths if len(range(0, length, step)) == len(expected)]
    if not fitting:
        report.fail(name, f"none of the lengths {lengths} has {len(expected)} rows at every {step}th")
        return
    resized = resize(source, fitting[0], Resampling.ENDPOINTS).T * factor
    report.close(name, resized[::step], expected, atol=ATOL)
