"""Compare the detector with recorded outputs of the PyTorch reference, stage by stage.

    python -m c2am_jax.interop.golden FILE.npz [FILE.npz ...] [--json OUT]

Weights come from numpy alone (`fill`). Every stage runs on the recorded input of that stage where there is one, then
the whole chain; a table shows each stage's error beside its tolerance. Exit status 1 if a row fails.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.errors import UserError
from c2am_jax.interop.fill import fill
from c2am_jax.interop.golden_inference import compare_inference
from c2am_jax.interop.golden_training import compare_training
from c2am_jax.interop.names import from_torch, torch_name, torch_shape
from c2am_jax.interop.recording import Recording
from c2am_jax.interop.rows import Detector, Row, table
from c2am_jax.models.detector import build_model
from c2am_jax.models.functional import Arrays, Functional
from c2am_jax.models.settings import BackboneSettings, MaskRCNNSettings, TestSettings

DEPTHS = {"mask_rcnn_r50": 50, "mask_rcnn_r101": 101}


def build(recording: Recording) -> tuple[Functional, Arrays, Arrays]:
    """The detector that the file names, with random weights.

    Raises:
      UserError: a kind of recording that this version does not build.
    """
    kind = recording.kind
    base = kind.removesuffix("_c2am")
    if base not in DEPTHS:
        known = ", ".join(f"{name}, {name}_c2am" for name in DEPTHS)
        raise UserError(f"{recording.path}: kind {kind!r} is not supported yet; supported are {known}")
    if "steps" in recording.meta:
        raise UserError(f"{recording.path}: training trajectories of {kind!r} are not supported yet")
    meta = recording.meta
    settings = MaskRCNNSettings(
        num_classes=meta["num_classes"],
        backbone=BackboneSettings(depth=DEPTHS[base]),
        test=TestSettings(score_threshold=meta["score_thr"], max_detections=meta["max_per_img"]),
    )
    return Functional.of(build_model(settings, {"name": "softmax" if base == kind else "c2am"}))


def filled(recording: Recording, arrays: Arrays) -> tuple[Arrays, Row]:
    """The arrays with the values of the recording's weight rule, and how well their sums fit the recorded ones."""
    shapes = {name: tuple(value.shape) for name, value in arrays.items()}
    sums = dict(zip(recording["param_names"], recording["param_abs_sum"], strict=True))
    graded = recording.kind.endswith("_c2am")
    values, worst = {}, 0.0
    for name in arrays:
        own = torch_name(name)
        value = fill(own, torch_shape(name, shapes), recording.meta["seed"], graded=graded)
        total = np.abs(value.astype(np.float64)).sum()
        worst = max(worst, abs(total - sums.pop(own, np.inf)) / max(total, 1e-12))
        values[name] = jnp.asarray(from_torch(name, value, shapes))
    left = [name for name in sums if not name.endswith("num_batches_tracked")]
    return values, Row("weights", "sum of magnitudes, relative", float("inf") if left else worst, 1e-6)


def compare(path: str | Path) -> list[Row]:
    """All rows of one recording."""
    recording = Recording(path)
    functional, params, rest = build(recording)
    values, weights_row = filled(recording, params | rest)
    detector = Detector(functional, {n: values[n] for n in params}, {n: values[n] for n in rest})
    with jax.default_matmul_precision("highest"):
        rows, features, proposals = compare_inference(recording, detector)
        return [weights_row, *rows, *compare_training(recording, detector, features, proposals)]


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="c2am_jax.interop.golden", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE.npz")
    parser.add_argument("--json", metavar="OUT", help="write the rows of all files there")
    options = parser.parse_args(arguments)
    results = {}
    for file in options.files:
        start = time.time()
        try:
            rows = compare(file)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        results[file] = rows
        failed = sum(not row.ok for row in rows)
        verdict = f"{failed} of {len(rows)} rows FAIL" if failed else f"all {len(rows)} rows hold"
        print(f"{file}\n{table(rows)}\n{verdict} ({time.time() - start:.0f} s)\n", flush=True)
    if options.json:
        content = {f: [{**dataclasses.asdict(r), "ok": r.ok} for r in rows] for f, rows in results.items()}
        Path(options.json).write_text(json.dumps(content, indent=1))
    return int(any(not row.ok for rows in results.values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
