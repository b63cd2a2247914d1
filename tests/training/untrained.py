"""A run without training: one checkpoint of random weights, as commands that read workdirs need it."""

import dataclasses

import jax
import jax.numpy as jnp
from tiny import tiny_config

from c2am_jax.data.lvis import category_table
from c2am_jax.mesh import data_mesh
from c2am_jax.training.categories import write_categories
from c2am_jax.training.checkpoint import Checkpoints, write_config
from c2am_jax.training.restore import first_state

CATEGORIES = category_table([{"id": 10 + k, "name": f"thing {k}"} for k in range(100)])
STEP = 7


def untrained_run(folder):
    """Make `folder` the workdir of a run whose data is nowhere."""
    config = tiny_config(data__dir=str(folder / "no data here"))
    state = first_state(config, data_mesh(jax.devices()[:1]))
    state = dataclasses.replace(state, step=jnp.asarray(STEP, jnp.int32))
    write_config(folder, config)
    write_categories(folder, CATEGORIES)
    with Checkpoints(folder, experiment=config) as checkpoints:
        checkpoints.save(jax.block_until_ready(state), STEP)
    return folder
