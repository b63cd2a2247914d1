"""What C2AM's margins are between the frequency groups."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from c2am_jax.frequency import GROUPS
from c2am_jax.losses import c2am_margins
from c2am_jax.report.collect import rounded


def margin_summary(kernel: np.ndarray, frequency: Sequence[str], **margin: Any) -> dict[str, Any]:
    """C2AM's m_ij in radians, of the weights as they are: mean and share above 0 from each group to each other.

    Args:
      kernel: [D, C], background last.
      frequency: "r", "c" or "f" of the K classes.
      **margin: alpha, background and max_margin of `c2am_margins`.

    Returns:
      "groups": names; "mean" and "active": [from group of i][to group of j], a class's margin to itself left out (None
      for a group of one); "max": the largest of all.
    """
    names = [*(g for letter, g in GROUPS.items() if letter in frequency), "background"]
    of = np.array([*(GROUPS[letter] for letter in frequency), "background"])
    found = np.array(c2am_margins(jnp.asarray(kernel), jnp.arange(kernel.shape[1]), **margin), np.float64)
    np.fill_diagonal(found, np.nan)

    def table(values: np.ndarray) -> list[list[float | None]]:
        parts = [[values[np.ix_(of == i, of == j)] for j in names] for i in names]
        return [[rounded(float(np.nanmean(p))) if np.isfinite(p).any() else None for p in row] for row in parts]

    active = np.where(np.isnan(found), np.nan, found > 0)
    return {"groups": names, "mean": table(found), "active": table(active), "max": rounded(float(np.nanmax(found)))}
