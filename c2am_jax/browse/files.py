"""Picture files beside what a json says about them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from c2am_jax.data.jpeg import check_size
from c2am_jax.data.pictures import opened, read_picture

_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width


class Look(NamedTuple):
    """Height and width as the file stores them, and its EXIF orientation, 1 for none."""

    stored: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width after turning."""
        return (self.stored[1], self.stored[0]) if self.orientation in _SIDEWAYS else self.stored

    def fits(self, hw: tuple[int, int]) -> str:
        """ "upright" or "stored", the picture of this height and width; "" for neither."""
        return "upright" if hw == self.upright else "stored" if hw == self.stored else ""


def look(path: Path) -> Look:
    """Size and orientation of a picture file, of which all is read but JPEGs are not fully decoded.

    Raises:
      ImageFault: no picture, cut off, damaged or too large.
      OSError: the file can't be read.
    """
    with opened(path.read_bytes()) as picture:
        stored = picture.height, picture.width
        check_size(stored)
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        picture.draft("L", (1, 1))
        picture.load()
    return Look(stored, orientation if orientation in range(1, 9) else 1)


def pixels_for(path: Path, hw: tuple[int, int]) -> np.ndarray:
    """The picture as annotations of this height and width see it, uint8 [h, w, 3]: upright, stored, or else resized.

    Raises:
      ImageFault, OSError: as `look`.
    """
    upright = read_picture(path, exact=False)
    if upright.shape[:2] == hw:
        return upright
    if look(path).fits(hw) == "stored":
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    return np.asarray(Image.fromarray(upright).resize((hw[1], hw[0]), Image.Resampling.BILINEAR))
