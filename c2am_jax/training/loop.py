"""Train a detector: the loop from top to bottom."""

import collections
import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from c2am_jax.data.pipeline import epoch_length, train_batches
from c2am_jax.errors import Stopped, UserError
from c2am_jax.evaluation.classifier_norms import background_norm, classifier_norms, group_quantiles
from c2am_jax.evaluation.evaluate import evaluate
from c2am_jax.evaluation.picture_grid import pictures_of
from c2am_jax.experiment import Experiment, TrainSettings
from c2am_jax.files import as_path, is_remote
from c2am_jax.mesh import data_mesh, on_devices, replicated
from c2am_jax.storage import remote_errors
from c2am_jax.structures import Batch
from c2am_jax.training import preconditions
from c2am_jax.training.categories import write_categories
from c2am_jax.training.checkpoint import BestCheckpoint, Checkpoints, compare_config, write_config
from c2am_jax.training.held_out import epoch_end
from c2am_jax.training.initial import check_start, fetch, initial_weights, settings_of
from c2am_jax.training.metrics import MetricWriter, means
from c2am_jax.training.nonfinite import write_batch
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.training.ownership import Ownership
from c2am_jax.training.profiling import StepTrace
from c2am_jax.training.schedule import Schedule
from c2am_jax.training.state import build_detector, class_statistics, init_state
from c2am_jax.training.step import configured_step
from c2am_jax.training.step_progress import Progress
from c2am_jax.training.stopping import StopRequest, Watchdog
from c2am_jax.wording import noun

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
CHECKED = ("loss", "grad_norm")  # what has to be finite
AGAIN = "run the same command again to resume"
AHEAD = 2  # steps that wait for the devices: they never idle, and a request to stop or a hanging step is soon noticed


def train(
    experiment: Experiment, workdir: str | Path, *, profile: int = 0, show: Callable[[str], None] | None = None
) -> dict[str, float]:
    """Train `experiment` in `workdir`, resuming from its newest checkpoint; returns the last evaluation's metrics.

    Every process of a run over several hosts calls this with the same arguments; `workdir` is a folder that all see.
    `profile` steps are traced into `workdir`/profile; `show` gets the tables of each evaluation as texts.

    Raises:
      UserError: wrong input, another training in `workdir`, or a step that is not finite; the text says what and the
        fix. What can be known at the start is said before the first step.
      Stopped: the machine (SIGTERM) or the user (Ctrl-C) asked to stop; the state is saved, the same call resumes.
    """
    workdir, settings, mesh = as_path(workdir), settings_of(experiment), data_mesh()
    preconditions.check_places(experiment, workdir)
    refuse_calibration(experiment)
    check_batch_size(settings, mesh)
    check_start(experiment, workdir)
    is_first = jax.process_index() == 0

    with contextlib.ExitStack() as stack:
        stack.enter_context(remote_errors(workdir))
        owner = stack.enter_context(Ownership(workdir))

        # Data
        preconditions.check_files(experiment)
        fetch(settings, workdir)
        local = not is_remote(experiment.data.dir)  # of a bucket, each machine has a copy of its own
        opened = functools.partial(preconditions.open_splits, experiment)
        dataset, notes = _first_then_others(opened) if local else opened()
        changes = compare_config(workdir, experiment)
        schedule = Schedule(settings, epoch_length(dataset, experiment.data, settings.batch_size))

        # Detector, and its state: first or resumed
        detector, loss_state = build_detector(experiment, class_statistics(dataset))
        finish_epoch = epoch_end(experiment, detector, dataset, mesh)
        checkpoints = stack.enter_context(Checkpoints(workdir, keep=settings.keep, experiment=experiment))
        best = stack.enter_context(BestCheckpoint(workdir, experiment))
        if not checkpoints.steps:
            preconditions.check_first_start(workdir)
            detector = initial_weights(settings, detector, dataset.categories.names)
        first = init_state(detector, loss_state, make_optimizer(settings, schedule.rate))
        state, weights = jax.device_put(first, replicated(mesh)), f"weights from {settings.init}"
        if checkpoints.steps:
            state = checkpoints.load(state)
            weights = f"resumed from step {int(state.step)}"
            schedule = preconditions.resumed(schedule, checkpoints, int(state.step), dataset, experiment)
        preconditions.check_space(workdir, state, schedule)
        if is_first:  # all that can be refused is behind us: a refused start leaves the run's files as they were
            write_config(workdir, experiment, changes)
            write_categories(workdir, dataset.categories)
        start, last_step, rate = int(state.step), schedule.last_step, schedule.rate
        step_function = configured_step(experiment, make_optimizer(settings, rate), mesh)
        if is_first:
            classes, images = len(dataset.categories), len(dataset)
            sizes = f"{classes} {noun(classes, 'class')}, {images} {noun(images, 'image')}"
            length = f"{sizes}, {schedule.text()}"
            for line in (f"{length}, {weights}, workdir {workdir}", *notes):
                (show or _LOG.info)(line)

        writer = stack.enter_context(MetricWriter(workdir, start_step=start)) if is_first else None
        if writer is not None and writer.folder != workdir:
            _LOG.info("metrics grow in %s and go to %s at each save", writer.folder, workdir)
        trace = stack.enter_context(StepTrace(workdir / "profile", profile, start))
        progress = stack.enter_context(Progress(start, last_step, settings.batch_size, shown=is_first))
        stop, watchdog = stack.enter_context(StopRequest()), stack.enter_context(Watchdog())

        def batches(from_step: int) -> Iterator[tuple[tuple[int, int], Batch]]:
            return train_batches(
                dataset,
                experiment.data,
                batch_size=settings.batch_size,
                seed=settings.seed,
                start_step=from_step + schedule.offset,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
            )

        def score(done: int) -> dict[str, float]:
            asked = f"asked to stop: step {done} is saved in {checkpoints.folder}; {AGAIN}"
            watchdog.pause()
            with stop.nothing_to_save(asked), progress.evaluation(done, state) as found:
                results = evaluate(experiment, state.detector, workdir, done, classes=dataset.categories, show=show)
                found(results)
            if writer is not None:
                writer.write_evaluation(done, results, pictures_of(workdir, done))
                writer.publish()
            best.offer(state, done, results)
            return results

        # Loop
        stream = _ahead(batches(start), mesh)
        results, evaluated = {}, -1
        recent = _Recent()
        for step in range(start, last_step):
            bucket, batch, image_ids = next(stream)
            if progress.compiles(bucket):
                watchdog.pause()
            with trace.step(step):
                state, metrics = progress.call(step_function, state, batch, bucket)
            trace.taken(step, metrics)
            done = step + 1
            if finish_epoch is not None and schedule.ends_epoch(done):
                watchdog.pause()
                with progress.pause(state):
                    state = finish_epoch(state)
            recent.add(done, metrics, image_ids)
            progress.step()
            stopping = stop.reached(done)
            last = done == last_step
            evaluating = settings.eval_every > 0 and done % settings.eval_every == 0
            log = done % settings.log_every == 0 or last
            save = done % settings.checkpoint_every == 0 or last or stopping or evaluating
            if log or save:
                owner.check()
                bad = recent.not_finite()  # before a save: a checkpoint never holds what a bad step made
                if bad is not None:
                    raise UserError(f"{bad.text}; {write_batch(workdir, bad.step, batches(bad.step - 1))}")
            if log:
                values = means(recent.fetched())
                values |= _weight_norms(state.detector.arrays, dataset.categories)
                values["lr"] = float(np.asarray(rate(step)))
                rate_now = progress.images_per_sec(done)
                values |= {} if rate_now is None else {"images_per_sec": rate_now}
                if writer is not None:
                    writer.write(done, values)
                recent = _Recent()
                progress.logged(done, values)
            if save:
                place = {"position": done + schedule.offset, "steps_per_epoch": schedule.steps_per_epoch}
                if writer is not None:
                    writer.publish()  # first: no checkpoint is ahead of the metrics
                checkpoints.save(state, done, place)
            if stopping and not last:
                raise Stopped(f"asked to stop: step {done} is saved in {checkpoints.folder}; {AGAIN}")
            if evaluating:
                results, evaluated = score(done), done
            watchdog.beat()
        if settings.eval_every and evaluated != last_step:
            results = score(int(state.step))
    return results


def _first_then_others(work: Callable[[], T]) -> T:
    """What `work` returns on every process; the first does it before all others, who find its files ready."""
    others = jax.process_index() > 0
    if others:
        multihost_utils.sync_global_devices("the first process is ready")
    result = work()
    if not others and jax.process_count() > 1:
        multihost_utils.sync_global_devices("the first process is ready")
    return result


def refuse_calibration(experiment: Experiment) -> None:
    """Raises UserError for a calibration: training scores the detector as it is."""
    if experiment.calibration.name != "none":
        raise UserError("config.calibration is for eval.py: train without it, then evaluate the checkpoint with it")


def check_batch_size(schedule: TrainSettings, mesh: Mesh) -> None:
    """Raises UserError if the batch does not divide among the devices and their parts; the text names sizes that do."""
    size, unit = schedule.batch_size, mesh.size * schedule.accumulate
    if size % unit:
        parts = f" in {schedule.accumulate} parts each" if schedule.accumulate > 1 else ""
        below, above = size // unit * unit, (size // unit + 1) * unit
        raise UserError(
            f"config.train.batch_size={size} does not divide among {mesh.size} {noun(mesh.size, 'device')}{parts}: "
            f"take --config.train.batch_size={f'{below} or {above}' if below else above}"
        )


def _ahead(stream, mesh: Mesh) -> Iterator[tuple[tuple[int, int], Batch, np.ndarray]]:
    """Batches on the devices, one ahead of the step that runs, and the ids of this process's images."""
    waiting = collections.deque()
    for bucket, batch in stream:
        waiting.append((bucket, on_devices(batch, mesh), batch.image_id))
        if len(waiting) > 1:
            yield waiting.popleft()


class _BadStep(NamedTuple):
    step: int
    text: str


@jax.jit
def _one_array(metrics: dict[str, jax.Array]) -> jax.Array:
    """The scalars in the order of their names: to fetch one array a step takes a tenth of what each alone takes."""
    return jnp.stack([metrics[name].astype(jnp.float32) for name in sorted(metrics)])


class _Recent:
    """Metrics and image ids of the steps since the last log line; they stay on the device until they are asked for."""

    def __init__(self):
        self._steps: list[tuple[int, np.ndarray]] = []
        self._rows: list[tuple[list[str], jax.Array]] = []
        self._fetched: list[dict[str, float]] = []

    def add(self, step: int, metrics: dict[str, Any], image_ids: np.ndarray) -> None:
        self._steps.append((step, image_ids))
        self._rows.append((sorted(metrics), _one_array(metrics)))
        if len(self._rows) > AHEAD:  # else all steps up to the next log line are given to the devices within a second
            self._rows[-1 - AHEAD][1].block_until_ready()

    def fetched(self) -> list[dict[str, float]]:
        """The metrics of each step, waiting for all of them to be done."""
        rows = jax.device_get([row for _, row in self._rows])
        named = zip(self._rows, rows, strict=True)
        self._fetched += [dict(zip(names, row.tolist(), strict=True)) for (names, _), row in named]
        self._rows = []
        return self._fetched

    def not_finite(self) -> "_BadStep | None":
        """The first step whose loss or gradient is no number."""
        for (step, image_ids), metrics in zip(self._steps, self.fetched(), strict=True):
            wrong = [name for name in CHECKED if not np.isfinite(metrics[name])]
            if wrong:
                parts = {n.removeprefix("loss/"): v for n, v in metrics.items() if n.startswith("loss/")}
                listed = ", ".join(f"{name} {value:.4g}" for name, value in parts.items())
                return _BadStep(
                    step,
                    f"the {wrong[0]} is {metrics[wrong[0]]} at step {step}, images {image_ids.tolist()}, losses "
                    f"{listed}: lower config.train.base_lr or lengthen config.train.warmup_steps; checkpoints are "
                    "unharmed",
                )
        return None


def _weight_norms(arrays, categories) -> dict[str, float]:
    """C2AM's state: quantiles of each classifier's weight norms per frequency group, and background's norm."""
    values = {}
    for stage, norms in classifier_norms(arrays).items():
        prefix = f"{stage}/norm" if stage else "norm"
        for group, quantiles in group_quantiles(norms[: len(categories)], categories.frequency).items():
            values |= {f"{prefix}/{group}/p{quantile}": value for quantile, value in quantiles.items()}
        background = background_norm(norms, len(categories))
        if background is not None:
            values[f"{prefix}/background"] = background
    return values
