"""Compare the detector with recorded outputs of the PyTorch reference, stage by stage.

    python -m c2am_jax.interop.golden FILE.npz [FILE.npz ...] [--json OUT] [--forms tpu]

Weights come from numpy alone (`fill`). Every stage runs on the recorded input of that stage where there is one, then
the whole chain; a recorded training trajectory runs step by step, in float64 too. A table shows each error beside its
tolerance. Exit status 1 if a row fails.
"""

import argparse
import contextlib
import dataclasses
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.errors import UserError, guarded
from c2am_jax.files import write_output
from c2am_jax.interop.comparison import Check, CompiledDetector, table
from c2am_jax.interop.fill import fill
from c2am_jax.interop.golden_inference import compare_inference
from c2am_jax.interop.golden_training import compare_training
from c2am_jax.interop.golden_trajectory import compare_trajectory
from c2am_jax.interop.recording import Recording
from c2am_jax.models.architecture import BackboneSettings, MaskRCNNSettings, TestSettings, cascade_mask_rcnn
from c2am_jax.models.detector import build_model
from c2am_jax.models.functional import Detector
from c2am_jax.ops.platforms import traced_for
from c2am_jax.storage import check_output
from c2am_jax.weights.foreign import fit, read_weights, to_reference_names
from c2am_jax.weights.names import from_torch, torch_name, torch_shape

_KIND = re.compile(r"(cascade_)?mask_rcnn_r(50|101)(?:_(c2am|seesaw))?")
_DEFAULT_CLASSES = 1203


def build(recording: Recording) -> tuple[Detector, list[Any]]:
    """The detector that the file names, with random weights, and the state of its loss.

    Raises:
      UserError: a kind of recording that this version does not build.
    """
    kind = _KIND.fullmatch(recording.kind)
    if kind is None:
        raise UserError(
            f"{recording.path}: unknown kind {recording.kind!r}; known are mask_rcnn_r50, mask_rcnn_r101, "
            "cascade_mask_rcnn_r50, cascade_mask_rcnn_r101, each also with _c2am or _seesaw behind"
        )
    cascade, depth, method = kind.groups()
    test, meta = TestSettings(), recording.meta
    settings = (cascade_mask_rcnn if cascade else MaskRCNNSettings)(
        num_classes=meta.get("num_classes", _DEFAULT_CLASSES),
        backbone=BackboneSettings(depth=int(depth)),
        test=TestSettings(
            score_threshold=meta.get("score_thr", test.score_threshold),
            max_detections=meta.get("max_per_img", test.max_detections),
        ),
    )
    loss = {"name": "c2am", "background": "all"} if method == "c2am" else {"name": method or "softmax"}  # to the letter
    model = build_model(settings, loss)
    return Detector.of(model), model.roi_head.init_loss_state()


def filled(recording: Recording, weights: str | Path | None = None) -> tuple[CompiledDetector, list[Check]]:
    """The detector with the values of the recording's weight rule, and how well their sums fit the recorded ones.

    With `weights`, values come from that file, which has to hold all of them under MMDetection's names.
    """
    detector, loss_state = build(recording)
    shapes = {name: tuple(value.shape) for name, value in detector.arrays.items()}
    given = to_reference_names(read_weights(weights).arrays, source=str(weights)) if weights else {}
    if given:
        fit(given, shapes, source=str(weights))
    worst, sums = 0.0, {}
    if "param_abs_sum" in recording:
        sums = dict(zip(recording["param_names"], recording["param_abs_sum"], strict=True))

    def value_of(name: str, shape: tuple[int, ...]) -> np.ndarray:
        nonlocal worst
        graded = recording.kind.endswith("_c2am")
        value = given.get(name)
        if value is None:
            value = fill(name, shape, recording.meta["seed"], gains=recording.meta.get("gains", ()), graded=graded)
        if "param_abs_sum" in recording:
            total = np.abs(value.astype(np.float64)).sum()
            worst = max(worst, abs(total - sums.pop(name, np.inf)) / max(total, 1e-12))
        return value

    values = {n: from_torch(n, value_of(torch_name(n), torch_shape(n, shapes)), shapes) for n in shapes}
    for stage, state in enumerate(loss_state):
        if "counts" in state:
            head = f"roi_head.bbox_head.{stage}" if len(loss_state) > 1 else "roi_head.bbox_head"
            state["counts"] = jnp.asarray(value_of(f"{head}.loss_cls.cum_samples", state["counts"].shape))
    if any(not name.endswith("num_batches_tracked") for name in sums):
        worst = float("inf")
    rows = [Check("weights", "sum of magnitudes, relative", worst, 1e-6)] if "param_abs_sum" in recording else []
    return CompiledDetector(detector.with_arrays(values), loss_state), rows


def compare(path: str | Path, weights: str | Path | None = None, forms: str = "") -> list[Check]:
    """All rows of one recording, with the weights of its rule or of a file.

    `forms` names a platform whose forms of operations compute (`ops.platforms`), on the devices at hand; "" is theirs.
    """
    recording = Recording(path)
    detector, rows = filled(recording, weights)
    with jax.default_matmul_precision("highest"), traced_for(forms) if forms else contextlib.nullcontext():
        if recording.steps:
            return rows + compare_trajectory(recording, detector)
        inference, features, proposals = compare_inference(recording, detector)
        return [*rows, *inference, *compare_training(recording, detector, features, proposals)]


@guarded
def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="c2am_jax.interop.golden", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE.npz")
    parser.add_argument("--json", metavar="OUT", help="write the rows of all files there")
    parser.add_argument("--weights", metavar="FILE", help="weights instead of the recordings' rule: an exported file")
    parser.add_argument(
        "--forms", default="", choices=("cpu", "tpu", "cuda"), help="compute as programs for that platform do, but here"
    )
    options = parser.parse_args(arguments)
    if options.json:
        check_output("--json", options.json)
    results = {}
    for file in options.files:
        start = time.time()
        rows = compare(file, options.weights, options.forms)
        results[file] = rows
        failed = sum(not row.ok for row in rows)
        verdict = f"{failed} of {len(rows)} rows FAIL" if failed else f"all {len(rows)} rows hold"
        print(f"{file}\n{table(rows)}\n{verdict} ({time.time() - start:.0f} s)\n", flush=True)
    if options.json:
        content = {f: [{**dataclasses.asdict(r), "ok": r.ok} for r in rows] for f, rows in results.items()}
        write_output(options.json, json.dumps(content, indent=1))
    return int(any(not row.ok for rows in results.values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
