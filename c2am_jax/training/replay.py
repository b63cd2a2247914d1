"""Look at a step that was not finite: the losses of its batch, image by image.

    python -m c2am_jax.training.replay WORKDIR/nonfinite/step_N.npz [--step STEP]

The weights are those of the newest checkpoint before the step (or of `--step`), or what the run started from if there
is none; anchors and RoIs are drawn as the step drew them. One line per image says each loss; parts that are no number
are marked. The output says how many steps lie between these weights and the step: what they changed can't be known.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from c2am_jax.data.datasets import open_dataset
from c2am_jax.errors import UserError, guarded
from c2am_jax.files import as_path
from c2am_jax.mesh import ImageProgram, LocalImages, data_mesh, on_devices
from c2am_jax.training.checkpoint import Checkpoints
from c2am_jax.training.initial import initial_weights, settings_of
from c2am_jax.training.nonfinite import read_batch
from c2am_jax.training.restore import experiment_of, first_state
from c2am_jax.training.state import TrainState, class_statistics
from c2am_jax.wording import counted


def replay(path: str | Path, step: int | None = None) -> tuple[int, dict[str, np.ndarray]]:
    """Step of the weights, and losses by name, [B] each.

    Raises:
      UserError: no such file or workdir, no such step, or the training data or the first weights are gone.
    """
    path = as_path(path)
    at, bucket, first, batch = read_batch(path)
    workdir = path.parent.parent
    if not (workdir / "config.json").is_file():
        raise UserError(f"{path}: must be in the folder nonfinite of its workdir, but {workdir} has no config.json")
    experiment = experiment_of(workdir)
    schedule = settings_of(experiment)
    dataset = open_dataset(experiment.data, "train")
    mesh = data_mesh(jax.devices()[:1])
    state = first_state(experiment, mesh, class_statistics(dataset))
    with Checkpoints(workdir) as checkpoints:
        earlier = [s for s in checkpoints.steps if s < at]
        if step is not None or earlier:
            state = checkpoints.load(state, step if step is not None else earlier[-1])
        else:
            start = initial_weights(schedule, state.detector, dataset.categories.names)
            state = dataclasses.replace(state, params=start.params, rest=start.rest)

    def losses(state: TrainState, images: LocalImages) -> dict[str, jax.Array]:
        def alone(one):
            part, key = one
            return state.detector.module().loss(images.prepare(part), key, state.loss_state)[0]

        one_by_one = jax.tree.map(lambda a: a[:, None], (images.batch, images.keys(at - 1, first)))
        return jax.lax.map(alone, one_by_one)

    program = ImageProgram(
        losses, mesh, **experiment.data.pixels, seed=schedule.seed, compute_dtype=schedule.compute_dtype, per_image=True
    )
    return int(state.step), jax.tree.map(np.asarray, program(state, on_devices(batch, mesh), bucket))


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status is 0 if every loss is finite, else 1."""
    parser = argparse.ArgumentParser(prog="c2am_jax.training.replay", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", metavar="FILE.npz")
    parser.add_argument("--step", type=int, help="checkpoint whose weights count; default the newest before")
    options = parser.parse_args(arguments)
    step, losses = replay(options.file, options.step)
    at, _, _, batch = read_batch(as_path(options.file))
    print(f"weights of {f'step {step}' if step else 'the start: no checkpoint came before'}{_unknown(at, step)}")
    for i, image_id in enumerate(batch.image_id.tolist()):
        parts = ", ".join(f"{n} {v[i]:.4g}{'' if np.isfinite(v[i]) else ' <--'}" for n, v in losses.items())
        print(f"image {image_id}, {counted(int(batch.valid[i].sum()), 'instance')}: {parts}")
    finite = all(np.isfinite(v).all() for v in losses.values())
    print(_verdict(at, step, finite))
    return 0 if finite else 1


def _unknown(at: int, step: int) -> str:
    """What losses with the weights of `step` can't tell about step `at`, to print behind them."""
    between = at - 1 - step
    return f"; the run took {between} more step{'s' * (between > 1)} before this one" if between else ""


def _verdict(at: int, step: int, finite: bool) -> str:
    if not finite:
        return "not finite: see the marks"
    if at - 1 == step:
        return "every loss is finite, with the weights that the step had: the batch alone is not the cause"
    return (
        f"every loss is finite with these weights; whether it was with those of step {at - 1} can't be known, they "
        "were not saved: lower config.train.base_lr, or train again with a smaller config.train.checkpoint_every"
    )


if __name__ == "__main__":
    sys.exit(main())
