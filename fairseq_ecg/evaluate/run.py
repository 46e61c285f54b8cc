"""Evaluate encoders on labelled records: probes beside a random-initialised twin, and own classifiers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_ecg import __version__
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.errors import CheckpointError, ConfigError, DataError, FairseqEcgError, nearest
from fairseq_ecg.evaluate.data import SPLITS, EvaluationData
from fairseq_ecg.evaluate.protocols import THRESHOLDS, learnable, linear_probe
from fairseq_ecg.evaluate.tables import AdjustedDifference, Results, Row
from fairseq_ecg.infer.embed import classify, embed, write_npz
from fairseq_ecg.infer.load import Encoder
from fairseq_ecg.metrics.auroc import areas, micro_areas, nanmean
from fairseq_ecg.metrics.bootstrap import (
    holm,
    paired_difference,
    percentile_interval,
    resample_patients,
    resampled_areas,
    resampled_challenge_score,
    resampled_micro_areas,
)
from fairseq_ecg.metrics.cinc import ScoreTable, builtin_table, challenge_score, record_sums
from fairseq_ecg.trainer.build import check_label_names
from fairseq_ecg.trainer.checkpoint import read_config, resolve

logger = logging.getLogger(__name__)

PROTOCOLS = ("linear", "head")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user may choose."""

    protocols: tuple[str, ...] = ("linear",)
    """In the order of the rows."""
    seed: int = 0
    """Of the random twin and of the bootstrap."""
    num_resamples: int = 1000
    min_positives: int = 10
    """Labels with fewer positive test records are named and left out of the averages."""

    def __post_init__(self) -> None:
        for protocol in self.protocols:
            if protocol not in PROTOCOLS:
                raise ConfigError(f"--protocol {protocol}: {nearest(protocol, PROTOCOLS)}")
        if not self.protocols or len(set(self.protocols)) < len(self.protocols):
            raise ConfigError(
                f"--protocol {','.join(self.protocols)}: name every protocol once, at least one"
            )
        if self.num_resamples < 1:
            raise ConfigError(f"--resamples {self.num_resamples}: must be at least 1")
        if self.min_positives < 1:
            raise ConfigError(f"--min-positives {self.min_positives}: must be at least 1")


@dataclass(frozen=True, eq=False)
class _Scored:
    """What one encoder answers under one protocol, and its values on the test records and in every resample.

    Shape:
        test: (N, K) probabilities.
        resampled: metric -> (R,).
    """

    row: Row
    test: NDArray[np.float64]
    resampled: dict[str, NDArray[np.float64]]


def evaluate(
    encoders: Sequence[Encoder], data: EvaluationData, settings: Settings, out_dir: Path | None = None
) -> Results:
    """Judge every encoder by the protocols, under ``linear`` beside its random twin.

    Args:
        encoders: what to evaluate; names must differ. Encoders of one architecture share a twin.
        data: records and targets.
        settings: protocol, seed, resamples.
        out_dir: existing folder for ``predictions.npz``, the test probabilities behind the numbers; None: not
            written.

    Raises:
        ConfigError: two encoders have one name, or a head's labels are not those of the data.
        CheckpointError: ``head`` is asked of an encoder without a classifier.
        DataError: no label has enough positive test records, or a record cannot be used.
    """
    names = [encoder.name for encoder in encoders]
    if len(set(names)) != len(names):
        raise ConfigError(f"checkpoints are given twice: {', '.join(names)}")
    if "head" in settings.protocols:
        for encoder in encoders:
            _check_head(encoder, data)
    bench = _Bench(data, settings)
    judged: list[_Scored] = []
    twins: dict[str, _Scored] = {}
    for encoder in encoders:
        for protocol in settings.protocols:
            if protocol == "head":
                judged.append(bench.score_head(encoder))
                continue
            architecture = f"{type(encoder.model).__qualname__} {encoder.model.cfg!r} {encoder.contract!r}"
            if architecture not in twins:
                twin = encoder.random_twin(settings.seed)
                if twins:
                    twin = replace(twin, name=f"{twin.name}, as {encoder.name}")
                twins[architecture] = bench.score_probe(twin, None)
            judged.append(bench.score_probe(encoder, twins[architecture].row.encoder))
    rows = _with_differences(judged, {item.row.encoder: item for item in twins.values()})
    rows += [item.row for item in twins.values()]
    if out_dir is not None:
        _write_predictions(out_dir / "predictions.npz", data, [*judged, *twins.values()])
    test = data.splits["test"]
    return Results(
        data=str(data.manifest_dir),
        labels=[data.labels.names[k] for k in bench.kept],
        left_out={
            name: int(np.nansum(test.target[:, k]))
            for k, name in enumerate(data.labels.names)
            if k not in bench.kept
        },
        min_positives=settings.min_positives,
        num_records={name: len(split) for name, split in data.splits.items()},
        num_patients={name: split.num_patients for name, split in data.splits.items()},
        sources=data.sources,
        is_synthetic=data.is_synthetic,
        num_resamples=settings.num_resamples,
        seed=settings.seed,
        version=__version__,
        cinc=bench.cinc_remark,
        warnings=_warnings(encoders, data, settings),
        rows=rows,
    )


class _Bench:
    """The parts of an evaluation that all encoders share."""

    def __init__(self, data: EvaluationData, settings: Settings) -> None:
        self.data = data
        self.settings = settings
        test, train = data.splits["test"].target, data.splits["train"].target
        counts = np.nansum(test, axis=0)
        enough = (counts >= settings.min_positives) & (np.nansum(test == 0, axis=0) > 0)
        self.kept = np.flatnonzero(enough & learnable(train)).tolist()
        if not self.kept:
            most = int(counts.argmax())
            raise DataError(
                f"{data.manifest_dir}: no label has {settings.min_positives} positive test records and "
                f"training records with and without it (the most frequent, {data.labels.names[most]}, has "
                f"{int(counts[most])}); use more records, other --labels, or a smaller --min-positives"
            )
        self.weights = resample_patients(data.splits["test"].patients, settings.num_resamples, settings.seed)
        self.table, self.columns, self.cinc_remark = _challenge_table(data)

    def score_probe(self, encoder: Encoder, twin: str | None) -> _Scored:
        """Embed the records and judge a probe of the embeddings; ``twin`` is None for a twin itself."""
        splits = self.data.splits
        features = {name: embed(encoder, splits[name].inputs).embedding for name in SPLITS}
        probe = linear_probe(
            features["train"],
            splits["train"].target,
            features["valid"],
            splits["valid"].target,
            features["test"],
        )
        row = _row(encoder, "linear", is_random=twin is None, twin=twin, strength=probe.strength)
        return self._measured(row, probe.valid, probe.test)

    def score_head(self, encoder: Encoder) -> _Scored:
        """Judge the encoder's own classifier."""
        valid, test = (classify(encoder, self.data.splits[name].inputs) for name in ("valid", "test"))
        return self._measured(_row(encoder, "head"), valid, test)

    def _measured(self, row: Row, valid: NDArray[np.float64], test: NDArray[np.float64]) -> _Scored:
        """A row with its numbers and their intervals.

        Shape:
            valid, test: (N, K) probabilities.
        """
        target, answers = self.data.splits["test"].target[:, self.kept], test[:, self.kept]
        point = areas(answers, target)
        micro = micro_areas(answers, target)
        by_class = resampled_areas(answers, target, self.weights)
        pooled = resampled_micro_areas(answers, target, self.weights)
        values = {
            "auroc_macro": nanmean(point.auroc),
            "auroc_micro": micro[0],
            "auprc_macro": nanmean(point.auprc),
            "auprc_micro": micro[1],
        }
        resampled = {
            "auroc_macro": _row_means(by_class.auroc),
            "auroc_micro": pooled.auroc[:, 0],
            "auprc_macro": _row_means(by_class.auprc),
            "auprc_micro": pooled.auprc[:, 0],
        }
        threshold = None
        if self.table is not None:
            threshold = self._best_threshold(valid)
            sums = self._challenge_sums("test", test, threshold)
            values["cinc_score"] = float(challenge_score(sums.sum(axis=0)))
            resampled["cinc_score"] = resampled_challenge_score(sums, self.weights)
        row = replace(
            row,
            threshold=threshold,
            metrics={name: percentile_interval(value, resampled[name]) for name, value in values.items()},
            per_label={
                self.data.labels.names[k]: percentile_interval(float(point.auroc[i]), by_class.auroc[:, i])
                for i, k in enumerate(self.kept)
            },
        )
        logger.info("%s, %s: macro AUROC %.3f", row.encoder, row.protocol, values["auroc_macro"])
        return _Scored(row, test, resampled)

    def _best_threshold(self, valid: NDArray[np.float64]) -> float:
        """The threshold with the best Challenge score on the validation split, the lowest of equals."""
        return max(
            THRESHOLDS,
            key=lambda threshold: float(
                challenge_score(self._challenge_sums("valid", valid, threshold).sum(axis=0))
            ),
        )

    def _challenge_sums(
        self, split: str, probabilities: NDArray[np.float64], threshold: float
    ) -> NDArray[np.float64]:
        assert self.table is not None
        labels = self.data.splits[split].target[:, self.columns] > 0.5
        said = probabilities[:, self.columns] > threshold
        return record_sums(self.table.weights, labels, said, self.table.normal_index)


def _row(
    encoder: Encoder,
    protocol: str,
    *,
    is_random: bool = False,
    twin: str | None = None,
    strength: float | None = None,
) -> Row:
    """A row without its numbers."""
    return Row(
        encoder=encoder.name,
        is_random=is_random,
        protocol=protocol,
        twin=twin,
        strength=strength,
        threshold=None,
        metrics={},
        per_label={},
    )


def _check_head(encoder: Encoder, data: EvaluationData) -> None:
    """Refuse a checkpoint without a classifier, or with one of other labels.

    Raises:
        CheckpointError: there is no classifier.
        ConfigError: its labels are not those of the data.
    """
    if encoder.num_labels != len(data.labels) and not encoder.label_names:
        raise ConfigError(
            f"{encoder.name} answers {encoder.num_labels} labels, the data have {len(data.labels)}; give "
            "--labels with the label definition it was trained with"
        )
    check_label_names(encoder.label_names, data.labels.names, encoder.name)


def _challenge_table(data: EvaluationData) -> tuple[ScoreTable | None, list[int], str]:
    """The official table whose classes are all among the labels, the newer year first."""
    if any(np.isnan(split.target).any() for split in data.splits.values()):
        return None, [], "none, some labels are unknown for some records"
    for year in (2021, 2020):
        table = builtin_table(year)
        try:
            columns = table.columns(data.labels.codes)
        except DataError:
            continue
        remark = f"{year} weights, all {len(table)} classes, one threshold chosen on the validation split"
        return table, columns, remark
    return None, [], "none, the labels are not those of the 2020 or 2021 Challenge"


def _row_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, K) -> (R,) mean over the defined classes of each resample."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1)
    means: NDArray[np.float64] = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    return means


def _with_differences(scored: Sequence[_Scored], twins: dict[str, _Scored]) -> list[Row]:
    """Rows with their differences to the twin, if they have one; one Holm family over all of them."""
    found = []
    for index, item in enumerate(scored):
        if item.row.twin is None:
            continue
        twin = twins[item.row.twin]
        for name, interval in item.row.metrics.items():
            value = interval.value - twin.row.metrics[name].value
            found.append((index, name, paired_difference(value, item.resampled[name], twin.resampled[name])))
    corrected = holm([difference.p_value for _, _, difference in found])
    by_row: list[dict[str, AdjustedDifference]] = [{} for _ in scored]
    for (index, name, difference), p_holm in zip(found, corrected, strict=True):
        between = difference.interval
        by_row[index][name] = AdjustedDifference(
            between.value, between.low, between.high, difference.p_value, p_holm
        )
    return [replace(item.row, differences=by_row[index]) for index, item in enumerate(scored)]


def _write_predictions(path: Path, data: EvaluationData, scored: Sequence[_Scored]) -> None:
    test = data.splits["test"]
    write_npz(
        path,
        {
            "record_id": np.array([item.record_id for item in test.inputs], dtype=np.str_),
            "patient_id": np.array([item.patient_id for item in test.inputs], dtype=np.str_),
            "label_names": np.array(data.labels.names, dtype=np.str_),
            "target": test.target,
            "encoder": np.array([item.row.encoder for item in scored], dtype=np.str_),
            "protocol": np.array([item.row.protocol for item in scored], dtype=np.str_),
            "probability": np.stack([item.test for item in scored]),
        },
    )


def _warnings(encoders: Sequence[Encoder], data: EvaluationData, settings: Settings) -> list[str]:
    """What could make the numbers too good."""
    found = []
    if shared := data.shared_patients():
        found.append(
            f"{shared} of {data.splits['test'].num_patients} test patients are also in the train or valid "
            "split; split by patient"
        )
    for encoder in encoders:
        if "head" in settings.protocols and not encoder.label_names:
            found.append(
                f"{encoder.name} does not name its labels; they are taken to be those of the data in order"
            )
        if not encoder.sources:
            found.append(
                f"{encoder.name} does not say which data it was trained on; they may be the test data"
            )
        elif common := sorted(set(encoder.sources) & set(data.sources)):
            found.append(
                f"{encoder.name} was trained on {', '.join(common)}, which these records are from; "
                + _seen_patients(encoder, data)
            )
    return found


def _seen_patients(encoder: Encoder, data: EvaluationData) -> str:
    """How many test patients the training manifests of a checkpoint name, pre-training included."""
    configs, unchecked = _lineage(encoder.config)
    seen: set[str] = set()
    read: list[str] = []
    for config in configs:
        folder = (config.get("task") or {}).get("data")
        subset = (config.get("dataset") or {}).get("train_subset", "train")
        path = Path(str(folder)) / f"{subset}.tsv"
        try:
            manifest = Manifest.read(path) if folder else None
        except FairseqEcgError:
            manifest = None
        if manifest is None:
            unchecked.append(str(path) if folder else "a manifest without a name")
            continue
        read.append(str(path))
        seen |= {
            f"{manifest.sources[row]}\t{manifest.patient_ids[row] or manifest.record_ids[row]}"
            for row in range(manifest.num_rows)
        }
    if not read:
        return "whether it has seen the test patients cannot be checked here"
    count = len(seen & set(data.splits["test"].patients.tolist()))
    said = f"{count} of {data.splits['test'].num_patients} test patients are in its training manifest "
    said += " or ".join(dict.fromkeys(read))
    if unchecked:
        said += f"; {', '.join(unchecked)}, which it was trained on or started from, could not be checked"
    return said


def _lineage(config: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Configs of a checkpoint and of those its weights come from, and paths of the ones that have none."""
    configs, lost = [config], []
    known: set[Path] = set()
    for config in configs:  # grows while there are earlier ones
        model, checkpoint = config.get("model") or {}, config.get("checkpoint") or {}
        starts = [None if model.get("no_pretrained_weights") else model.get("model_path")]
        for start in filter(None, [*starts, checkpoint.get("finetune_from_model")]):
            try:
                folder = resolve(start).resolve()
                earlier = read_config(folder)
            except (OSError, CheckpointError):  # moved away, or a foreign file
                lost.append(str(start))
                continue
            if folder not in known:
                known.add(folder)
                configs.append(earlier)
    return configs, lost
