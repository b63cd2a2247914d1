"""What the values of an MMDetection config mean here: the rules of `interop.import_mmdet_config`.

Each module beside this one reads one part of their config, names each value that it finds here, and refuses what this
package does not do. What no rule reads is refused as well where it could change numbers (detector, optimiser,
schedule, training pictures); elsewhere it is listed as left out. Defaults are those of MMDetection 3.3.0.
"""

from collections.abc import Callable, Mapping
from typing import Any

from c2am_jax.interop.mmdetection.detector import model_rules
from c2am_jax.interop.mmdetection.groups import Group, Notes, attempt, shortened
from c2am_jax.interop.mmdetection.pictures import data_rules, rest_of_data
from c2am_jax.interop.mmdetection.schedule import optimiser_rules, schedule_rules

# Keys of the runner that change no number; other names at the top are variables of the file.
_RUNTIME = (
    "default_hooks checkpoint_config log_config evaluation val_evaluator env_cfg visualizer log_processor resume "
    "resume_from custom_imports model_wrapper_cfg tta_model"
).split()
_HARMLESS_HOOKS = {"NumClassCheckHook", "CheckInvalidLossHook", "MemoryProfilerHook"}


def translate(config: Mapping[str, Any], gpus: int) -> Notes:
    """All parts of a config that `config.read_config` read, for so many GPUs."""
    notes, top = Notes(), Group(config, "")
    parts: list[Callable[[Group, Notes], None]] = [model_rules, data_rules, optimiser_rules, _runtime]
    for part in parts:
        attempt(notes, part, top, notes)
    attempt(notes, schedule_rules, top, notes, gpus)
    if not notes.refused:  # else keys that no rule came to would be named too
        attempt(notes, rest_of_data, top, notes)
    return notes


def _runtime(top: Group, notes: Notes) -> None:
    for hook in top.groups("custom_hooks"):
        kind = hook.take("type", "")
        if kind not in _HARMLESS_HOOKS:
            notes.refused.append(f"{hook.path}: {kind} is code of MMDetection or yours; it is not run here")
    seed = top.values.get("seed") if top.has("seed") else top.group("randomness").values.get("seed")
    if isinstance(seed, int):
        notes.found("train.seed", seed, "seed" if top.has("seed") else "randomness.seed")
    for name in _RUNTIME:
        value = top.values.get(name)
        if value:
            inside = ", ".join(map(str, value)) if isinstance(value, Mapping) else shortened(value)
            notes.leave(f"{name}: {inside}")
