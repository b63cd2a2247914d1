"""Which images of a LVIS json lie in which of COCO's 2017 archives, by their `coco_url`.

LVIS v1.0's validation set has 19,809 images: 4,809 of COCO's val2017, known as minival, and 15,000 of train2017, which
a detector trained on COCO has seen.
"""

import os
from typing import Any

from c2am_jax.data.json_stream import open_json, read_lists
from c2am_jax.errors import UserError

SUBSETS = ("all", "minival")


def images_in(path: str | os.PathLike, archive: str) -> set[int]:
    """Ids of the images of a json that are in an archive, "train2017" or "val2017"; AnnotationError for no json."""
    found = set()

    def take(image: Any, *_: int) -> None:
        if isinstance(image, dict) and f"/{archive}/" in str(image.get("coco_url", "")):
            found.add(image.get("id"))

    with open_json(os.fspath(path)) as file:
        read_lists(file, os.fspath(path), {"images": take})
    return found


def chosen_images(path: str | os.PathLike, subset: str) -> set[int] | None:
    """Ids of the images of a subset, one of `SUBSETS`; None: all.

    Raises:
      AnnotationError: no json.
      UserError: a json none of whose images is of the subset.
    """
    if subset == "all":
        return None
    found = images_in(path, "val2017")
    if not found:
        raise UserError(f"{path}: no image is of {subset}: none has a coco_url with /val2017/ in it")
    return found
