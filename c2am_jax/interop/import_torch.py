"""Make a workdir from weights of PyTorch, which train.py starts from and eval.py evaluates.

    python -m c2am_jax.interop.import_torch SRC --config configs/NAME.py --out DIR [--override KEY=VALUE ...]

SRC is a `.pth`, `.safetensors` or `.npz` of MMDetection, torchvision, timm or Detectron2 (see `weights.foreign`), or a
name or URL of `config.train.init`. DIR gets a checkpoint of step 0, `config.json` and `import.json`, the list of
matched, missing and unexpected names, and the class names if SRC says them. Then:

    python eval.py --config configs/NAME.py --workdir DIR
    python train.py --config configs/NAME.py --config.train.init=DIR
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from c2am_jax.config import load_experiment, parse_overrides, with_overrides
from c2am_jax.errors import UserError, guarded
from c2am_jax.experiment import Experiment
from c2am_jax.files import as_path
from c2am_jax.mesh import data_mesh
from c2am_jax.storage import check_output, check_reachable
from c2am_jax.training.checkpoint import Checkpoints, write_config
from c2am_jax.training.initial import IMPORTED
from c2am_jax.training.restore import first_state
from c2am_jax.weights.download import local_copy
from c2am_jax.weights.foreign import PIXELS, Fitted, fit, read_weights, to_reference_names


def import_weights(
    source: str | Path, experiment: Experiment, out: str | Path, *, pixels: str = "", reset_classifier: bool = False
) -> Fitted:
    """Write a checkpoint of step 0 with the weights of `source` into the workdir `out`.

    Raises:
      UserError: wrong file, names, shapes, or a workdir that holds a run; nothing is written then.
    """
    check_reachable(out, run=True)
    out = as_path(out)
    if (out / "checkpoints").exists():
        raise UserError(f"{out} holds a run already: take another --out")
    read = read_weights(local_copy(source))
    arrays = to_reference_names(read.arrays, source=str(source), pixels=pixels)
    first = first_state(experiment, data_mesh(jax.devices()[:1]))
    shapes = {name: tuple(value.shape) for name, value in first.detector.arrays.items()}
    fitted = fit(arrays, shapes, source=str(source), reset_classifier=reset_classifier)
    detector = first.detector.with_arrays(fitted.arrays)
    state = dataclasses.replace(first, params=detector.params, rest=detector.rest)
    write_config(out, experiment)
    report = {"source": str(source), "matched": sorted(fitted.arrays), "missing": fitted.missing}
    report |= {"reset": fitted.reset, "unexpected": fitted.unexpected}
    if len(read.classes) == experiment.model.num_classes and not fitted.reset:
        report |= {"classes": read.classes}
    (out / IMPORTED).write_text(json.dumps(report, indent=1))
    with Checkpoints(out, experiment=experiment) as checkpoints:
        checkpoints.save(jax.block_until_ready(state), 0)
    return fitted


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="c2am_jax.interop.import_torch", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("--config", required=True, help="experiment, a file of configs/ (FILE.py or FILE.py:ARGUMENT)")
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="of the config")
    parser.add_argument("--out", required=True, help="workdir to make")
    parser.add_argument(
        "--pixels", default="", choices=("", *PIXELS), help="of Detectron2's names: what the network was made for"
    )
    parser.add_argument("--reset_classifier", action="store_true", help="classifiers of other classes start random")
    options = parser.parse_args(arguments)
    check_output("--out", options.out, folder=True)
    fitted = import_weights(
        options.source,
        with_overrides(load_experiment(options.config), parse_overrides(options.override)),
        options.out,
        pixels=options.pixels,
        reset_classifier=options.reset_classifier,
    )
    print(fitted.summary())
    for title, names in (("missing", fitted.missing), ("reset", fitted.reset), ("unexpected", fitted.unexpected)):
        if names:
            print(f"{title}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}")
    print(f"{options.out}: checkpoint of step 0; all names are in import.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
