"""Train a detector: the loop from top to bottom."""

import collections
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from c2am_jax.config import detector_settings, train_settings
from c2am_jax.data.datasets import open_dataset
from c2am_jax.data.pipeline import PipelineSettings, epoch_length, train_batches
from c2am_jax.errors import UserError
from c2am_jax.evaluation.evaluate import evaluate
from c2am_jax.evaluation.weight_norms import classifier_norms, group_quantiles
from c2am_jax.structures import Batch
from c2am_jax.training.checkpoint import Checkpoints, check_config
from c2am_jax.training.initial import load_initial_weights
from c2am_jax.training.metrics import MetricWriter
from c2am_jax.training.optimizer import learning_rate, make_optimizer, total_steps
from c2am_jax.training.state import build_functional, init_state
from c2am_jax.training.step import batch_sharding, data_mesh, make_train_step, replicated

_LOG = logging.getLogger(__name__)


def train(config: ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Train `config` in `workdir`, resuming from its newest checkpoint; returns the last evaluation's metrics.

    Raises:
      UserError: wrong input; the text says what and the mend.
    """
    workdir, schedule = Path(workdir), train_settings(config)
    settings = detector_settings(config)

    # Data
    dataset = open_dataset(config.to_dict()["data"], "train")
    if len(dataset.categories) != settings.num_classes:
        raise UserError(
            f"config.model.num_classes={settings.num_classes}, but {dataset.annotations_path} has "
            f"{len(dataset.categories)} categories"
        )
    check_config(workdir, config)
    pipeline = _pipeline(config)
    try:
        steps_per_epoch = epoch_length(dataset, pipeline, schedule.batch_size)
    except ValueError as error:
        raise UserError(f"config.{error}") from error
    last_step = total_steps(schedule, steps_per_epoch)

    # Model, optimizer, step
    mesh = data_mesh()
    if schedule.batch_size % mesh.size:
        raise UserError(f"config.train.batch_size={schedule.batch_size} does not divide among {mesh.size} devices")
    functional, params, rest, loss_state = build_functional(config)
    rate = learning_rate(schedule, steps_per_epoch)
    optimizer = make_optimizer(schedule, rate)
    step_function = make_train_step(
        functional, optimizer, mesh, mean=config.data.mean, std=config.data.std, seed=schedule.seed
    )

    with Checkpoints(workdir, keep=schedule.keep, config=config) as checkpoints:
        # Start or resume
        if not checkpoints.steps and schedule.init:
            params, rest = load_initial_weights(schedule.init, params, rest)
        state = jax.device_put(init_state(params, rest, loss_state, optimizer), replicated(mesh))
        if checkpoints.steps:
            state = checkpoints.load(state)
            _LOG.info("resumed from step %d of %s", int(state.step), checkpoints.folder)
        start = int(state.step)
        writer = MetricWriter(workdir, start_step=start)
        stream = _on_device(
            train_batches(
                dataset,
                pipeline,
                batch_size=schedule.batch_size,
                seed=schedule.seed,
                start_step=start,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
            ),
            batch_sharding(mesh),
        )

        # Loop
        results, evaluated = {}, -1
        recent, clock = _Recent(), time.perf_counter()
        bar = tqdm(range(start, last_step), initial=start, total=last_step, desc="train", disable=None)
        for step in bar:
            bucket, batch, image_ids = next(stream)
            state, metrics = step_function(state, batch, bucket)
            done = step + 1
            recent.add(done, metrics, image_ids)
            log = done % schedule.log_every == 0 or done == last_step
            save = done % schedule.checkpoint_every == 0 or done == last_step
            if log or save:
                recent.check_finite()  # before a save: a checkpoint never holds what a bad step made
            if log:
                values = {name: float(value) for name, value in metrics.items()}
                values |= _weight_norms(state.params, dataset.categories)
                values["lr"] = float(np.asarray(rate(step)))
                now = time.perf_counter()
                values["images_per_sec"] = len(recent) * schedule.batch_size / (now - clock)
                writer.write(done, values)
                recent, clock = _Recent(), now
                bar.set_postfix(loss=f"{values['loss']:.3f}", lr=f"{values['lr']:.2e}")
            if save:
                checkpoints.save(state, done)
            if schedule.eval_every > 0 and done % schedule.eval_every == 0:
                began = time.perf_counter()
                results, evaluated = evaluate(config, functional, state.params, state.rest, workdir, done), done
                clock += time.perf_counter() - began
        if schedule.eval_every and evaluated != last_step:
            results = evaluate(config, functional, state.params, state.rest, workdir, int(state.step))
        writer.close()
    return results


def _pipeline(config: ConfigDict) -> PipelineSettings:
    try:
        return PipelineSettings.from_dict(config.data.to_dict())
    except (TypeError, ValueError) as error:
        raise UserError(f"config.data: {error}") from None


def _on_device(stream, sharding) -> Iterator[tuple[tuple[int, int], Batch, np.ndarray]]:
    """Batches as global arrays, one ahead of the step that runs."""

    def put(item):
        bucket, batch = item
        move = lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x))  # noqa: E731
        return bucket, jax.tree.map(move, batch), batch.image_id

    waiting = collections.deque()
    for item in stream:
        waiting.append(put(item))
        if len(waiting) > 1:
            yield waiting.popleft()


class _Recent:
    """Losses and gradient norms (still on the device) and image ids since the last log line."""

    def __init__(self):
        self._steps: list[tuple[int, dict[str, Any], np.ndarray]] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: int, metrics: dict[str, Any], image_ids: np.ndarray) -> None:
        self._steps.append((step, {name: metrics[name] for name in ("loss", "grad_norm")}, image_ids))

    def check_finite(self) -> None:
        for step, metrics, image_ids in self._steps:
            for name, value in metrics.items():
                if not np.isfinite(float(value)):
                    raise UserError(
                        f"the {name} is {float(value)} at step {step}, images {image_ids.tolist()}: lower "
                        "config.train.base_lr or lengthen config.train.warmup_steps; checkpoints are unharmed"
                    )


def _weight_norms(params, categories) -> dict[str, float]:
    """C2AM's state: quantiles of each classifier's weight norms per frequency group, and background's norm."""
    values = {}
    for stage, norms in classifier_norms(params).items():
        prefix = f"{stage}/norm" if stage else "norm"
        for group, quantiles in group_quantiles(norms[: len(categories)], categories.frequency).items():
            values |= {f"{prefix}/{group}/p{quantile}": value for quantile, value in quantiles.items()}
        values[f"{prefix}/background"] = float(norms[-1])
    return values
