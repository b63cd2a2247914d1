"""The golden comparison of training itself: every step of a recorded SGD run on one fixed batch."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from c2am_jax.evaluation.classifier_norms import classifier_norms
from c2am_jax.experiment import TrainSettings
from c2am_jax.interop.comparison import Check, CompiledDetector
from c2am_jax.interop.golden_training import recorded_names
from c2am_jax.interop.recording import Recording
from c2am_jax.structures import Inputs, Proposals
from c2am_jax.training.optimizer import make_optimizer
from c2am_jax.weights.names import torch_name

DRIFT = 5.0  # times the reference's own difference between float32 and float64
LIVE_STEPS = 4  # until which live proposals are held tightly: later a discrete choice flips, in the reference too
# Measured on the recorded run: the reference differs by 2.2e-2 between one and two threads. Ours is 1.5e-2 from the
# recording with jax 0.10.1, and 3.16e-2, above the bound, with jax 0.12.0, where four starts whose weights differ by at
# most 1e-6 gave 1.5e-2 to 3.2e-2 (on another processor 8.1e-3): from step 4 on a discrete choice decides.
LIVE_LATER = 3e-2
TRUTH = "f64"  # the recorded run to compare with
METRICS = ("roi/positive", "roi/sampled")


def compare_trajectory(recording: Recording, detector: CompiledDetector) -> list[Check]:
    """Rows of one recorded run, ours in float32 against the recorded float64.

    With fixed proposals no sample can flip, and all numbers are held tightly. The sign of an L1 loss still can: on one
    processor of two, with jax 0.12.0, the C2AM run's box loss was 1e-2 from the recording in a late step (6e-5 with jax
    0.10.1 there). With live proposals the reference itself differs between one and two threads, and only the first
    steps are held tightly.
    """
    inputs = recording.inputs()
    fixed = None
    if recording.meta["fixed_proposals"]:
        most = max(len(recording[f"fixed_proposals_{i}"]) for i in range(recording.images))
        fixed = recording.proposals(prefix="fixed_", size=most)
    history, momenta, norms = _train(recording, detector, inputs, fixed)
    rows = _losses(recording, detector, history, fixed is not None)
    rows += _norms(recording, norms, fixed is not None)
    if fixed is not None:
        rows += _gradients(recording, history)
        rows += _momenta(recording, momenta)
        rows.append(_samples(recording, history, "s0/" if detector.stages > 1 else ""))
    return rows


def _train(recording: Recording, detector: CompiledDetector, inputs: Inputs, proposals: Proposals | None):
    """The run: losses, metrics and gradient norms of each step, momentum norms, classifier norms.

    Momentum norms are those after the first and the last step, classifier norms those before each step and at the end.
    """
    meta, start = recording.meta, detector.value
    settings = TrainSettings(momentum=meta["momentum"], weight_decay=meta["weight_decay"])
    optimizer = make_optimizer(settings, optax.constant_schedule(meta["lr"]))

    @jax.jit
    def step(params, opt_state, loss_state, inputs, proposals):
        def total(params):
            model = dataclasses.replace(start, params=params).module()
            losses, metrics, state = model.loss(inputs, None, loss_state, proposals=proposals)
            return sum(losses.values()), (losses, metrics, state)

        gradient, (losses, metrics, state) = jax.grad(total, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        grad_norms = {name: jnp.linalg.norm(g) for name, g in gradient.items()}
        return optax.apply_updates(params, updates), opt_state, state, (losses, metrics, grad_norms)

    params, opt_state, loss_state = start.params, optimizer.init(start.params), detector.loss_state
    history: list[Any] = []
    momenta: dict[str, dict[str, float]] = {}
    norms = [classifier_norms(params)]
    for number in range(recording.steps):
        params, opt_state, loss_state, found = step(params, opt_state, loss_state, inputs, proposals)
        history.append(jax.tree.map(float, found))
        norms.append(classifier_norms(params))
        if number in (0, recording.steps - 1):
            trace = next(s for s in jax.tree.leaves(opt_state, is_leaf=_is_trace) if _is_trace(s)).trace
            values = {torch_name(n): float(np.linalg.norm(np.asarray(m, np.float64))) for n, m in trace.items()}
            momenta["step1" if number == 0 else "end"] = values
    return history, momenta, norms


def _is_trace(state: Any) -> bool:
    return isinstance(state, optax.TraceState)


def _relative(own: Any, expected: np.ndarray) -> np.ndarray:
    return np.abs(np.asarray(own, np.float64) - expected) / np.maximum(np.abs(expected), 1e-12)


def _losses(recording, detector, history, fixed):
    error = _relative([sum(losses.values()) for losses, _, _ in history], recording[f"{TRUTH}.loss.total"])
    if not fixed:
        return [
            Check(f"loss total, steps 0-{LIVE_STEPS - 1}", "relative, worst", float(error[:LIVE_STEPS].max()), 1e-4),
            Check("loss total, later steps", "relative, worst", float(error[LIVE_STEPS:].max(initial=0)), LIVE_LATER),
        ]
    rows = [
        Check("loss total, steps 0-1", "relative, worst", float(error[:2].max()), 1e-5),
        Check("loss total, last step", "relative", float(error[-1]), 1e-3),
    ]
    for name, recorded in recorded_names(detector.stages).items():
        parts = [recording[f"{TRUTH}.loss.{r}"] for r in recorded if f"{TRUTH}.loss.{r}" in recording]
        errors = _relative([losses[name] for losses, _, _ in history], sum(parts))
        rows.append(Check(f"loss {name}, all steps", "relative, worst", float(errors.max()), 2e-3))
    return rows


def _norms(recording, norms, fixed):
    rows = []
    for stage in norms[0]:
        errors = _relative([before[stage] for before in norms], recording[f"{TRUTH}.class_norms_{stage or 's0'}"])
        name = "classifier weight norms" + (f", stage {stage[1:]}" if stage else "")
        held = len(errors) if fixed else LIVE_STEPS
        steps = "all steps" if fixed else f"steps 0-{LIVE_STEPS - 1}"
        rows.append(Check(f"{name}, {steps}", "relative, worst", float(errors[:held].max()), 3e-5))
        if not fixed:
            rows.append(Check(f"{name}, later steps", "relative, worst", float(errors[held:].max()), LIVE_LATER))
    return rows


def _gradients(recording, history):
    own = np.array([np.linalg.norm(list(norms.values())) for _, _, norms in history])
    error, bound = _relative(own, recording[f"{TRUTH}.grad_l2"]), DRIFT * float(recording["drift.grad_l2"].max())
    return [Check("gradient norm, all steps", "relative, worst", float(error.max()), bound)]


def _momenta(recording, momenta):
    rows = []
    names = [str(name) for name in recording["param_names"]]
    for moment, values in momenta.items():
        if set(names) != set(values):
            return [Check("momentum", "names differ", float("inf"), 0)]
        errors = _relative([values[name] for name in names], recording[f"{TRUTH}.{moment}.mom_l2"])
        drift = recording[f"drift.{moment}.mom_l2"]
        at = "momentum norms, " + ("step 1" if moment == "step1" else "end")
        rows.append(Check(at, "relative, median", float(np.median(errors)), DRIFT * float(np.median(drift))))
        rows.append(Check(at, "relative, worst", float(errors.max()), DRIFT * float(drift.max())))
    return rows


def _samples(recording, history, prefix):
    """Positive and all sampled RoIs of the first stage in each step."""
    recorded = recording[f"{TRUTH}.samples"][:, recording.images : 2 * recording.images]
    expected = np.stack([recorded[..., 0].sum(1), recorded.sum((1, 2))], -1)
    own = np.array([[metrics[prefix + name] for name in METRICS] for _, metrics, _ in history])
    return Check("sampled RoIs, all steps", "share of steps different", float((own != expected).any(1).mean()), 0)
