"""One process of a run over several: five steps of a tiny detector, saved by the first process.

python process.py PORT PROCESS PROCESSES DEVICES_EACH OUT METHOD [METHOD ...]
"""

import sys

import jax
import numpy as np

port, process, processes, devices = (int(a) for a in sys.argv[1:5])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", devices)
jax.config.update("jax_disable_most_optimizations", True)
if processes > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", processes, process)

from tiny import random_batch, tiny_config  # noqa: E402  jax.distributed comes first

from c2am_jax.mesh import batch_sharding, data_mesh, replicated  # noqa: E402
from c2am_jax.training.optimizer import make_optimizer  # noqa: E402
from c2am_jax.training.schedule import Schedule  # noqa: E402
from c2am_jax.training.state import build_detector, init_state  # noqa: E402
from c2am_jax.training.step import make_train_step  # noqa: E402

IMAGES, STEPS = 8, 5
SHARE = IMAGES // processes

assert jax.process_count() == processes and jax.device_count() == processes * devices
mesh = data_mesh()
found = {}
for method in sys.argv[6:]:
    config = tiny_config(method=method, model__backbone__norm="group_norm", train__base_lr=0.002)
    schedule = config.train
    detector, loss_state = build_detector(config)
    optimizer = make_optimizer(schedule, Schedule(schedule, 100).rate)
    step = make_train_step(optimizer, mesh, mean=(120.0,) * 3, std=(60.0,) * 3, seed=0)
    state = jax.device_put(init_state(detector, loss_state, optimizer), replicated(mesh))
    for number in range(STEPS):
        whole = jax.tree.map(np.asarray, random_batch(IMAGES, seed=number))
        own = jax.tree.map(lambda a: a[process * SHARE : (process + 1) * SHARE], whole)
        batch = jax.tree.map(lambda a: jax.make_array_from_process_local_data(batch_sharding(mesh), a), own)
        state, metrics = step(state, batch, (64, 64))
        found[f"{method}/loss/{number}"] = np.asarray(metrics["loss"])
    found |= {f"{method}/params/{name}": np.asarray(value) for name, value in state.params.items()}
    for i, value in enumerate(jax.tree.leaves(state.loss_state)):
        found[f"{method}/state/{i}"] = np.asarray(value)
if process == 0:
    np.savez(sys.argv[5], **found)
