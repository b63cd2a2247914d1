"""Write a checkpoint as a state dict with MMDetection's names.

    python -m c2am_jax.interop.export_torch --workdir DIR --out FILE.safetensors|FILE.pth|FILE.npz [--step N|best]

Arrays come in PyTorch's layout, beside the class names (a `.npz` has no place for them). Writing a `.pth` needs torch;
it holds {"state_dict": ..., "meta": ...} with the names in meta["CLASSES"], as MMDetection's do. Box regression with a
class-agnostic branch is written as weights of each class that give the same boxes: MMDetection has no such branch.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from c2am_jax.errors import STEP_HELP, UserError, checkpoint_step, guarded
from c2am_jax.files import as_path, replacing
from c2am_jax.storage import check_output
from c2am_jax.training.checkpoint import place_of
from c2am_jax.training.initial import classes_of, weights_of_workdir
from c2am_jax.training.restore import experiment_of
from c2am_jax.weights import regression
from c2am_jax.weights.foreign import Arrays
from c2am_jax.weights.names import state_dict

FORMATS = (".safetensors", ".pth", ".npz")


def write_weights(
    path: str | Path,
    arrays: Mapping[str, np.ndarray],
    meta: Mapping[str, str] | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Write arrays under our names as a state dict of the reference; the file appears whole or not at all.

    Texts of `meta` and the names of `classes` go into the file as well, but for a ``.npz``.

    Raises:
      UserError: another kind of file, or torch is missing for a ``.pth``.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: state dicts are written as {', '.join(FORMATS)}")
    plain = regression.plain(state_dict(arrays))
    content: Arrays = {name: np.ascontiguousarray(value) for name, value in plain.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        if path.suffix == ".safetensors":
            from safetensors.numpy import save_file

            names = {"classes": json.dumps(list(classes))} if classes else {}
            save_file(content, partial, metadata={**(meta or {}), **names})
        elif path.suffix == ".npz":
            np.savez(partial, **content)  # pyright: ignore[reportArgumentType]
        else:
            try:
                import torch
            except ImportError:
                raise UserError(f"{path}: writing .pth needs PyTorch: pip install torch==2.13.0") from None
            tensors = {name: torch.from_numpy(value.copy()) for name, value in content.items()}
            names = {"CLASSES": tuple(classes)} if classes else {}
            torch.save({"state_dict": tensors, "meta": {**(meta or {}), **names}}, partial)


def export_weights(workdir: str | Path, out: str | Path, step: int | str | None = None) -> int:
    """Write the checkpoint of `step` (a number or "best"; default: the newest) of a workdir; returns the step.

    Raises:
      UserError: no run there, no such step, another kind of file.
    """
    experiment = experiment_of(workdir)
    folder, number = place_of(step)
    arrays, at = weights_of_workdir(as_path(workdir), number, folder=folder)
    meta = {"experiment": experiment.name, "step": str(at), "format": "pt"}
    write_weights(out, arrays, meta, classes_of(as_path(workdir)))
    return at


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="c2am_jax.interop.export_torch", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--out", required=True, metavar="FILE")
    parser.add_argument("--step", type=checkpoint_step, metavar="N|best", help=STEP_HELP)
    options = parser.parse_args(arguments)
    check_output("--out", options.out)
    step = export_weights(options.workdir, options.out, options.step)
    print(f"{options.out}: weights of step {step} under MMDetection's names")
    if experiment_of(options.workdir).model.box_head.class_agnostic_branch:
        print(
            "box regression: the class-agnostic branch is merged into the weights of each class, which give the same "
            "boxes; if you train on from the file in PyTorch, the branch is missing"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
