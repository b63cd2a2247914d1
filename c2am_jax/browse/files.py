"""Picture files beside what a json says about them."""

from pathlib import Path

import numpy as np
from PIL import Image

from c2am_jax.data.jpeg import opened
from c2am_jax.data.pictures import Head, head_of, read_picture


def look(path: Path) -> Head:
    """Size and orientation of a picture file, of which all is read but JPEGs are not fully decoded.

    Raises:
      ImageFault: no picture, cut off, damaged, too large or of 32 bits.
      OSError: the file can't be read.
    """
    with opened(path.read_bytes()) as picture:
        head = head_of(picture)
        picture.draft("L", (1, 1))
        picture.load()
    return head


def pixels_for(path: Path, hw: tuple[int, int]) -> np.ndarray:
    """The picture as annotations of this height and width see it, uint8 [h, w, 3]: as in training, or else resized.

    Raises:
      ImageFault, OSError: as `look`.
    """
    if look(path).turn_for(hw) is not None:
        return read_picture(path, exact=False, hw=hw)
    upright = read_picture(path, exact=False)
    return np.asarray(Image.fromarray(upright).resize((hw[1], hw[0]), Image.Resampling.BILINEAR))
