"""Two results files against one annotation file; needs no JAX."""

from collections.abc import Callable, Collection
from pathlib import Path

from c2am_jax.errors import UserError
from c2am_jax.report.comparison.page import checked, write_comparison
from c2am_jax.report.comparison.results import Results
from c2am_jax.report.gallery import folder_images


def compare_files(
    path: Path,
    annotations: str,
    predictions: str,
    against: str,
    iou_type: str,
    *,
    folder: str | None = None,
    images: Collection[int] | None = None,
    classes: str | None = None,
    show: Callable[[str], None] = print,
) -> None:
    """Score `predictions` (A) and `against` (B) and write the page about both.

    Args:
      path: of the page.
      annotations: json that both are scored against.
      predictions, against: LVIS results files.
      iou_type: "bbox", "segm" or "boundary".
      folder: of the images, for pictures.
      images: ids of those that count; None: all.
      classes: what the category ids of `predictions` mean, if not ``classes.json`` beside it.
      show: gets texts.

    Raises:
      UserError: a file is missing or wrong, or the two have other classes.
    """
    if Path(against).is_dir():
        raise UserError(f"--against {against}: a folder; beside --predictions give a results file, or give --workdir")
    one, other = (
        Results(Path(file).stem, file, Path(annotations), {iou_type: Path(file)}, known)
        for file, known in ((predictions, classes), (against, None))
    )
    checked(one, other)
    pictures = folder_images(annotations, folder) if folder else None
    write_comparison(path, one, other, Path(annotations), images=images, pictures=pictures, show=show)
