"""What must hold before the first step, so that no run ends for a reason that was known at its start."""

import shutil
from pathlib import Path
from typing import Any

import jax

from c2am_jax.data.class_names import match
from c2am_jax.data.datasets import check_place, check_there, open_dataset, source_of
from c2am_jax.data.pipeline import epoch_length
from c2am_jax.data.prepared import PreparedDataset
from c2am_jax.data.sampler import evaluation_steps, reduced, trainable
from c2am_jax.data.settings import DataSettings
from c2am_jax.errors import UserError
from c2am_jax.experiment import Experiment
from c2am_jax.files import is_remote
from c2am_jax.storage import check_reachable
from c2am_jax.training.checkpoint import Checkpoints, saved_steps, was_cut_off
from c2am_jax.training.schedule import Schedule
from c2am_jax.wording import counted, noun


def _splits(experiment: Experiment) -> tuple[str, ...]:
    return ("train", "val") if experiment.train.eval_every else ("train",)


def check_places(experiment: Experiment, workdir: Path) -> None:
    """Raises StorageError, first of all, if a bucket that the run reads or writes cannot be reached or refuses."""
    check_reachable(workdir, run=True)
    check_reachable(experiment.data.dir)


def check_files(experiment: Experiment) -> None:
    """Raises MissingDataset, before any preparation, for a split that the run needs and whose files are not there.

    StorageError if one has to be drawn or prepared in a folder that can't be written.
    A test set that is named has to be there too, though training does not touch it.
    """
    test = ("test",) if experiment.data.test_annotations else ()
    for split in (*_splits(experiment), *test):
        check_there(experiment.data, split)
    if not is_remote(experiment.data.dir):
        for split in _splits(experiment):
            check_place(experiment.data, split)


def open_splits(experiment: Experiment) -> tuple[PreparedDataset, list[str]]:
    """The training set, and what a user should know: of its pictures, and of what the run evaluates on.

    Both are prepared on first use, the smaller one first.

    Raises:
      UserError: files that are missing, broken or of other classes than the detector; the text names the user's own.
    """
    data, validation = experiment.data, None
    if "val" in _splits(experiment):
        validation = open_dataset(data, "val")
        _check_evaluation(experiment, validation)
    training = open_dataset(data, "train")
    classes = len(training.categories)
    if classes != experiment.model.num_classes:
        raise UserError(
            f"config.model.num_classes={experiment.model.num_classes}, but {source_of(data, 'train')} has "
            f"{classes} {noun(classes, 'category')}: set --config.model.num_classes={classes}"
        )
    notes = _canvas_note(data, training)
    if validation is None:
        return training, notes
    ours, theirs = f"the training set ({source_of(data, 'train')})", str(source_of(data, "val"))
    matched = match(training.categories, validation.categories, ours, theirs)
    return training, [*notes, *validation.warnings, *matched.lines()]


def _canvas_note(data: DataSettings, training: PreparedDataset) -> list[str]:
    """That the canvas costs pictures resolution that the network would see, as a line; none if it does not."""
    hw = training.image_hw[trainable(training.image_hw, training.label_offset)]
    count, side = reduced(hw, data.canvas, max(data.short_sides), data.max_side)
    if not count:
        return []
    lose = noun(count, "loses", "lose")
    return [
        f"warning: {count:,} of {counted(len(hw), 'training picture')} {lose} resolution: made smaller to data.canvas="
        f"{data.canvas}, then resized to more; --config.data.canvas={side} keeps it, and takes memory"
    ]


def _check_evaluation(experiment: Experiment, validation: PreparedDataset) -> None:
    """Raises UserError unless every image can be evaluated."""
    data = experiment.data
    if not len(validation):
        raise UserError(f"{source_of(data, 'val')} has no image to evaluate")
    evaluation_steps(validation, **data.evaluation_sizes, batch_size=experiment.eval.batch_size)


def check_space(workdir: Path, state: Any, schedule: Schedule) -> None:
    """Raises UserError if the disk of `workdir` can't hold the checkpoints of the run, the best one and one in work.

    Buckets do not fill up.
    """
    if is_remote(workdir):
        return
    train = schedule.train
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    saves = schedule.last_step // train.checkpoint_every + 1
    needed = size * (min(saves, train.keep + 1) + (2 if train.eval_every else 0))
    files = [file for folder in ("checkpoints", "best") for file in (workdir / folder).rglob("*") if file.is_file()]
    there = sum(file.stat().st_size for file in files)
    free = shutil.disk_usage(workdir).free
    if free + there < needed:
        raise UserError(
            f"{workdir}: {free / 1e9:.2f} GB are free, but the checkpoints of this run need "
            f"{(needed - there) / 1e9:.2f} GB more ({size / 1e9:.2f} GB each): free space there, lower "
            f"--config.train.keep={train.keep}, or take another --workdir"
        )


def check_first_start(workdir: Path) -> None:
    """Raises UserError for a workdir without a whole checkpoint that has had some: its run must not start over."""
    lost = sorted(
        path.relative_to(workdir).as_posix()
        for folder in ("checkpoints", "checkpoints_damaged")
        for path in (workdir / folder).glob("*")
        if path.is_dir() and path.name.partition("_")[0].isdigit() and not was_cut_off(path)
    )
    if not lost:
        return
    best = saved_steps(workdir / "best")
    start = f"from its best one with --config.train.init={workdir}/best" if best else "again"
    raise UserError(
        f"{workdir}: no checkpoint there is whole; damaged: {', '.join(lost)}. Put back whole files if you "
        f"have a copy, or start {start} in another --workdir; delete {workdir} if nothing in it is needed"
    )


def resumed(
    schedule: Schedule, checkpoints: Checkpoints, step: int, training: PreparedDataset, experiment: Experiment
) -> Schedule:
    """The schedule of a run that resumes from the checkpoint of `step`, perhaps with another batch size.

    Progress is counted in images: the run resumes at the same place of its schedule and ends after the same epochs.

    Raises:
      UserError: another batch size in a run whose length is given in steps, or a length that the run has passed.
    """
    saved = checkpoints.metadata(step)
    before = saved["config"]["train"]["batch_size"]
    progress = saved.get("progress") or {
        "position": step,
        "steps_per_epoch": epoch_length(training, experiment.data, before),
    }
    now, train = schedule.train.batch_size, schedule.train
    if train.steps > 0 and before != now:
        raise UserError(
            f"config.train.batch_size={now}, but this run trained with {before} up to step {step} and its length is "
            f"config.train.steps={train.steps}: keep {before}, or give the length in epochs (--config.train.steps=0 "
            "--config.train.epochs=N), which are the same for each batch size"
        )
    if train.steps > 0:
        progress["steps_per_epoch"] = schedule.steps_per_epoch
    resumed = schedule.resumed(step, progress["position"], progress["steps_per_epoch"])
    if step > resumed.last_step:
        raise UserError(
            f"the run in {checkpoints.folder.parent} is at step {step} already, past the end at step "
            f"{resumed.last_step} that is asked for: give a longer run (config.train.steps, config.train.epochs) or "
            "another --workdir; eval.py --workdir scores it as it is"
        )
    return resumed
