"""Contract presets: the input each published system was trained on, and the preparation that makes it.

A preset has two halves. What belongs to a store is its ``prepare`` options: rate and resampling method, leads
and their order, window, filters, and which records are left out. What happens after reading is in its
``contract``: normalisation and the number of samples of a segment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fairseq_ecg.contracts import STANDARD_LEADS, InputContract
from fairseq_ecg.data.filters import FilterChain
from fairseq_ecg.data.normalise import Normalisation
from fairseq_ecg.data.prepare import Policy, PrepareOptions
from fairseq_ecg.data.record import known_leads
from fairseq_ecg.data.signal import Resampling
from fairseq_ecg.errors import ConfigError, nearest

EIGHT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""Leads of ECG-JEPA: the other four are sums of I and II."""

SSL_LEADS = (*EIGHT_LEADS, "III", "aVR", "aVL", "aVF")
"""Order of ecg-selfsupervised."""

# What a user may still choose beside a preset: which records are left out never changes those that are kept.
_FREE = ("policy_nan", "policy_flat", "policy_missing", "policy_unreadable")

_SPELLING: dict[str, Callable[[Any], Any]] = {
    "leads": known_leads,
    "filter": lambda text: str(FilterChain.parse(text)),
}
"""How a value that can be written in several ways is compared."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One system's input."""

    summary: str
    """One line: the system, and what is particular to its input."""
    prepare: PrepareOptions
    num_samples: int
    """Of a segment, at the store's rate."""
    normalisation: Normalisation = Normalisation.NONE
    whole_records: bool = False
    """A segment is the whole stored record, not a cut of some seconds."""

    @property
    def contract(self) -> InputContract:
        """What a model trained on such data expects."""
        return InputContract(
            sampling_rate=self.prepare.sampling_rate,
            num_samples=self.num_samples,
            leads=self.prepare.leads,
            normalisation=self.normalisation.value,
            filter=self.prepare.filter,
        )

    @property
    def segment_sec(self) -> str:
        """What ``manifest split --segment-sec`` is to be given."""
        return "all" if self.whole_records else f"{self.num_samples / self.prepare.sampling_rate:g}"

    @property
    def task_overrides(self) -> list[str]:
        """Options that a training on such stores must be given, because they are not the defaults."""
        overrides = []
        if self.prepare.leads != STANDARD_LEADS:
            overrides.append(f"task.leads_to_load=[{','.join(self.prepare.leads)}]")
        if self.normalisation is not Normalisation.NONE:
            overrides.append(f"task.normalisation={self.normalisation}")
        return overrides

    def options(self, given: Mapping[str, Any]) -> PrepareOptions:
        """Its preparation with the policies a user has chosen.

        Args:
            given: fields of ``PrepareOptions`` that the user has set.

        Raises:
            ConfigError: one of them contradicts the preset.
        """
        for name, typed in given.items():
            if name in _FREE:
                continue
            fixed = getattr(self.prepare, name)
            if _SPELLING.get(name, lambda value: value)(typed) != fixed:
                shown, wanted = (",".join(it) if isinstance(it, tuple) else it for it in (typed, fixed))
                raise ConfigError(
                    f"--{name.replace('_', '-')} {shown}: the contract fixes it to {wanted}; leave it out, "
                    "or name the options one by one without --contract"
                )
        return replace(self.prepare, **{name: given[name] for name in _FREE if name in given})


def preset(name: str) -> Preset:
    """A preset by its name.

    Raises:
        ConfigError: there is none, with the nearest ones.
    """
    if name not in PRESETS:
        raise ConfigError(f"--contract {name}: {nearest(name, PRESETS)}")
    return PRESETS[name]


_ECG_JEPA = PrepareOptions(
    sampling_rate=250,
    leads=EIGHT_LEADS,
    resample=Resampling.FOURIER,
    window_sec=10.0,
    zero_start_sec=0.03,  # 15 samples at 500 Hz
    policy_missing=Policy.SKIP,  # tokens know their lead by its place, so none may be made up
)
_SSL = PrepareOptions(sampling_rate=100, leads=SSL_LEADS, resample=Resampling.SPLINE)
_PCLR = PrepareOptions(
    sampling_rate=410,  # 4096 samples in 10 s, rounded
    num_samples=4096,
    window_sec=10.0,
    resample=Resampling.ENDPOINTS,
    policy_missing=Policy.SKIP,
)
_PCLR_2500 = replace(_PCLR, sampling_rate=250, num_samples=2500)

PRESETS: dict[str, Preset] = {
    "wcr": Preset(
        summary="W2V-CMSC-RLM of fairseq-signals: 5 s at 500 Hz, 12 leads, mV",
        prepare=PrepareOptions(sampling_rate=500, resample=Resampling.LINEAR),
        num_samples=2500,
    ),
    "wcr_reference": Preset(
        summary="the same, as released: records of another rate than 500 Hz are left out",
        prepare=PrepareOptions(sampling_rate=500, resample=Resampling.LINEAR, same_rate_only=True),
        num_samples=2500,
    ),
    "ecg_fm": Preset(
        summary="ECG-FM: 5 s at 500 Hz, 12 leads, each lead standardised over its record",
        # Its splits leave out records with a missing sample, a missing lead or a constant one.
        prepare=PrepareOptions(
            sampling_rate=500,
            resample=Resampling.ENDPOINTS,
            policy_flat=Policy.SKIP,
            policy_missing=Policy.SKIP,
        ),
        num_samples=2500,
        normalisation=Normalisation.RECORD_ZSCORE,
    ),
    "ecg_jepa": Preset(
        summary="ECG-JEPA: the first 10 s at 250 Hz, 8 leads, mV",
        prepare=_ECG_JEPA,
        num_samples=2500,
        whole_records=True,
    ),
    "ecg_jepa_reference": Preset(
        summary="ECG-JEPA as released: by way of 500 Hz, whatever the rate of the record",
        prepare=replace(_ECG_JEPA, reference_rate=500),
        num_samples=2500,
        whole_records=True,
    ),
    "ecg_jepa_reference_code15": Preset(
        summary="ECG-JEPA as released, of CODE-15: rows of 4096 samples squeezed into 2500 (244 Hz)",
        prepare=replace(
            _ECG_JEPA,
            window_sec=None,
            num_samples=2500,
            zero_start_sec=0.025,  # 10 samples at 400 Hz
            reference_zero_start=True,
            reference_stretch=True,
        ),
        num_samples=2500,
        whole_records=True,
    ),
    "ecg_jepa_finetune": Preset(
        summary="ECG-JEPA for fine-tuning: also filtered, 0.67 to 40 Hz",
        prepare=replace(_ECG_JEPA, filter="highpass(cutoff=0.67, order=5)|lowpass(cutoff=40, order=5)"),
        num_samples=2500,
        whole_records=True,
    ),
    "cpc": Preset(
        summary="CPC of ecg-selfsupervised: 10 s at 100 Hz, 12 leads in its order, scaled by PTB-XL",
        prepare=_SSL,
        num_samples=1000,
        normalisation=Normalisation.PTBXL_ZSCORE,
    ),
    "cpc_finetune": Preset(
        summary="the same for fine-tuning and linear evaluation: 2.5 s",
        prepare=_SSL,
        num_samples=250,
        normalisation=Normalisation.PTBXL_ZSCORE,
    ),
    "ssl": Preset(
        summary="SimCLR, BYOL, SwAV of ecg-selfsupervised: 2.5 s at 100 Hz, 12 leads in its order, mV",
        prepare=_SSL,
        num_samples=250,
    ),
    "pclr": Preset(
        summary="PCLR: 10 s in 4096 samples, 12 leads, mV",
        prepare=_PCLR,
        num_samples=4096,
        whole_records=True,
    ),
    "pclr_lead_i": Preset(
        summary="PCLR of lead I: 10 s in 4096 samples, mV",
        prepare=replace(_PCLR, leads=("I",)),
        num_samples=4096,
        whole_records=True,
    ),
    "pclr_lead_ii": Preset(
        summary="PCLR of lead II: 10 s in 2500 samples, mV",
        prepare=replace(_PCLR_2500, leads=("II",)),
        num_samples=2500,
        whole_records=True,
    ),
    "pclr_c3po": Preset(
        summary="PCLR of the C3PO cohort: 10 s in 2500 samples, 12 leads, mV",
        prepare=_PCLR_2500,
        num_samples=2500,
        whole_records=True,
    ),
}
"""By the name ``prepare --contract`` takes."""
