"""What the figures share: matplotlib without a screen, colours that colour-blind readers can tell apart, saving."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito


@contextmanager
def figure(path: Path, rows: int, columns: int, size: tuple[float, float], **options: Any) -> Iterator[Any]:
    """A grid of axes [rows, columns] that is saved as `path` (its folder is made) on leaving the block."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(rows, columns, figsize=size, constrained_layout=True, squeeze=False, **options)
    try:
        yield axes
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.savefig(path, dpi=100)
    finally:
        pyplot.close(drawing)
