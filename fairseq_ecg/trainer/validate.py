"""Run a criterion and its metrics over subsets, without changing anything; ``fairseq-ecg validate``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from fairseq_ecg.config import RunConfig
from fairseq_ecg.contracts import Batch, Metric, StepOutput
from fairseq_ecg.models.base import EcgModel
from fairseq_ecg.registry import CRITERIA, METRICS, MODELS, TASKS
from fairseq_ecg.trainer.build import Pretrained, check_contract, check_label_names, read_pretrained
from fairseq_ecg.trainer.checkpoint import load_weights
from fairseq_ecg.trainer.distributed import World, joined
from fairseq_ecg.trainer.extract import Extraction
from fairseq_ecg.trainer.meters import Meters, in_bits
from fairseq_ecg.trainer.precision import Precision
from fairseq_ecg.trainer.seeds import seed_batch


def build_metrics(criterion: Any, task: Any) -> list[Metric]:
    """The metrics a criterion asks for, which know the labels of the task.

    Raises:
        DataError: a metric cannot measure these labels.
    """
    wanted: Mapping[str, Mapping[str, Any]] = criterion.metrics()
    metrics = [METRICS.build(name, METRICS.get(name).config(**options)) for name, options in wanted.items()]
    for metric in metrics:
        metric.check_labels(task.label_codes)
    return metrics


@torch.no_grad()
def evaluate_subset(
    task: Any,
    model: EcgModel,
    criterion: Any,
    subset: str,
    *,
    world: World,
    precision: Precision,
    seed: int,
    max_batches: int | None = None,
    sink: Callable[[Batch, StepOutput], None] | None = None,
) -> dict[str, float]:
    """Means of the criterion's logs (losses in nats) and values of its metrics, over all ranks.

    ``sink`` is given every batch of this rank with its output. Stand-ins (weight 0) are among them, so that
    every rank makes equally many calls; it must keep no row of those.

    ``max_batches`` counts the batches of all ranks: the result does not depend on how many there are.

    Masks and negatives of a pretraining criterion are drawn from (seed, batch index), so that two validations
    of one model give the same number.
    """
    was_training = model.training
    model.eval()
    meters, metrics = Meters(world.device), build_metrics(criterion, task)
    loader = task.loader(
        subset,
        epoch=1,
        is_train=False,
        rank=world.rank,
        world_size=world.size,
        pin_memory=world.device.type == "cuda",
    )
    with loader:
        for number, batch in enumerate(loader):
            if max_batches is not None and number * world.size >= max_batches:
                break
            if max_batches is not None and batch.batch_index >= max_batches:
                # This rank's share of the last round is over, and other ranks still wait for its answers.
                batch = replace(batch, weight=0.0)
            batch = task.prepare(batch.to(world.device), is_train=False)
            seed_batch(seed, 0, batch.batch_index)
            with precision.autocast():
                output = task.valid_step(model, criterion, batch)
            meters.add(output.logs, batch.weight)
            # A rank that only sees stand-ins must know the shape of what the others have seen.
            rows = slice(None) if batch.weight else slice(0)
            for metric in metrics:
                metric.update({name: value[rows] for name, value in output.outputs.items()})
            if sink is not None:
                sink(batch, output)
    model.train(was_training)
    values = meters.reduce(world)
    for metric in metrics:
        if world.size > 1:
            metric.load_state({name: world.gather_rows(rows) for name, rows in metric.state().items()})
        values.update(metric.compute())
    return values


def run(cfg: RunConfig) -> dict[str, dict[str, float]]:
    """Validate ``common_eval.path`` on each subset of ``dataset.valid_subset``; extract what is asked for.

    ``cfg`` is complete: the checkpoint's groups with the user's on top. Runs in one process, or in
    torchrun's.

    Raises:
        ConfigError, DataError, CheckpointError: config, data and checkpoint do not fit together.
    """
    wanted = cfg.common_eval.extract or []
    model_config = cfg.model.config
    if "saliency" in wanted:
        model_config = replace(model_config, saliency=True)
    cfg = replace(cfg, dataset=replace(cfg.dataset, train_subset=""))
    results = {}
    fixed = cfg.dataset.fixed_validation_seed
    with joined(cfg.distributed_training, cpu=cfg.common.cpu) as world:
        criterion = CRITERIA.build(cfg.criterion.name, cfg.criterion.config)
        task = TASKS.build(
            cfg.task.name, cfg.task.config, dataset=cfg.dataset, seed=cfg.common.seed, layout=criterion.layout
        )
        sinks: dict[str, Extraction] = {}
        for subset in cfg.dataset.valid_subsets:
            task.load(subset)
            if wanted:
                sinks[subset] = Extraction(cfg.common_eval, subset, task.datasets[subset].manifest, world)
        build_metrics(criterion, task)
        pretrained = read_pretrained(str(cfg.common_eval.path))
        model: EcgModel = MODELS.build(cfg.model.name, model_config)
        _check_fit(cfg, task, model, pretrained)
        criterion.validate_model(model)
        task.validate_model(model)
        report = load_weights(model, pretrained.tensors, source=str(cfg.common_eval.path))
        if world.is_main and not cfg.common_eval.quiet:
            print(f"{cfg.common_eval.path}: {report}", file=sys.stderr)
        model.before_update(pretrained.num_updates)
        model.to(world.device)
        precision = Precision(cfg.common, device=world.device, world_size=world.size, update_freq=[1])
        for subset in cfg.dataset.valid_subsets:
            values = evaluate_subset(
                task,
                model,
                criterion,
                subset,
                world=world,
                precision=precision,
                seed=cfg.common.seed if fixed is None else fixed,
                max_batches=cfg.dataset.max_valid_steps,
                sink=sinks.get(subset),
            )
            results[subset] = in_bits(values)
            if subset in sinks:
                sinks[subset].close()
    return results


def _check_fit(cfg: RunConfig, task: Any, model: EcgModel, pretrained: Pretrained) -> None:
    """Refuse data that are not what the checkpoint was trained on."""
    what = f"common_eval.path={cfg.common_eval.path}"
    for subset in cfg.dataset.valid_subsets:
        contract = task.contract_of(subset)
        if pretrained.contract is not None:
            check_contract(pretrained.contract, contract, what)
        model.validate_contract(contract)
    check_label_names(pretrained.label_names, task.label_names, what)
