"""What the golden comparison is made of: rows of a table, and runs of a detector's stages."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from c2am_jax.evaluation.tables import aligned
from c2am_jax.models.detector import MaskRCNN
from c2am_jax.models.functional import Detector
from c2am_jax.ops.boxes import pairwise_iou

RELATIVE = 1e-5  # of a stage's largest value, float32


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the table; `error` should not exceed `tolerance`."""

    stage: str
    metric: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Within the tolerance (never for a number that is not finite)."""
        return bool(self.error <= self.tolerance)


def relative(stage: str, error: float) -> Check:
    """A row for the largest difference relative to the largest value."""
    return Check(stage, "largest difference, relative", error, RELATIVE)


def table(rows: list[Check]) -> str:
    """Aligned columns: stage, metric, error, tolerance, ok."""
    header = ("stage", "metric", "error", "tolerance", "ok")
    cells = [(r.stage, r.metric, f"{r.error:.2e}", f"{r.tolerance:.0e}", "yes" if r.ok else "NO") for r in rows]
    return aligned(header, cells, left=len(header))


class CompiledDetector:
    """A detector whose stages run compiled."""

    def __init__(self, value: Detector, loss_state: list[Any]):
        """`loss_state` as the RoI head keeps it."""
        self.value, self.loss_state = value, loss_state
        self._compiled: dict[Any, Callable] = {}

    @property
    def model(self) -> MaskRCNN:
        """The detector as a module that holds its arrays."""
        return self.value.module()

    @property
    def stages(self) -> int:
        """How many stages the RoI head has: 1, or more in a cascade."""
        return len(self.loss_state)

    def run(self, function: Callable, *args: Any, **static: Any) -> Any:
        """``function(model, *args, **static)``, compiled once per function, static arguments and shapes."""
        key = function, *sorted(static.items())
        if key not in self._compiled:
            self._compiled[key] = jax.jit(lambda value, *args: function(value.module(), *args, **static))
        return self._compiled[key](self.value, *args)


def match_boxes(
    boxes: Any, scores: Any, other: Any, other_scores: Any, *, iou: float, labels: Any = None, other_labels: Any = None
) -> np.ndarray:
    """Which pairs [n, m] are the same box: IoU at least `iou`, scores within 1e-4, equal labels if given."""
    same = np.asarray(pairwise_iou(jnp.asarray(boxes), jnp.asarray(other))) >= iou
    same &= np.abs(np.asarray(scores)[:, None] - np.asarray(other_scores)[None]) < 1e-4
    return same if labels is None else same & (np.asarray(labels)[:, None] == np.asarray(other_labels)[None])


def unmatched(pairs: np.ndarray) -> float:
    """Share of boxes without a partner, of the side where it is larger."""
    if 0 in pairs.shape:
        return float(pairs.shape[0] != pairs.shape[1])
    return float(max(1 - pairs.any(1).mean(), 1 - pairs.any(0).mean()))
