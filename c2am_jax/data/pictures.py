"""Image files of any kind that Pillow reads: as RGB pixels, upright, and as training stores them."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from c2am_jax.data.jpeg import ImageFault, check_bits, check_jpeg, check_size, decode_jpeg, is_jpeg, opened
from c2am_jax.wording import sides

PNG_LEVEL = 3  # of compression: twice as fast as Pillow's usual 6, some per cent larger
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width
_TURNED = "picture turned as its EXIF orientation says"
_NOT_TURNED = "picture not turned as its EXIF orientation says: only as stored it has the json's size"


class Head(NamedTuple):
    """Height and width of a picture as its file stores it, and its EXIF orientation: 1 to 8, 1 for none."""

    stored: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width once it is turned."""
        return self.stored[::-1] if self.orientation in _SIDEWAYS else self.stored

    def turn_for(self, hw: tuple[int, int]) -> int | None:
        """The orientation to undo so that it has the size that a json says; None if it never has.

        Turned as its EXIF orientation says, as OpenCV's reader, and so the reference, does it; as stored (1) if only
        that has the size.
        """
        if hw == self.upright:
            return self.orientation
        return 1 if hw == self.stored else None


def head_of(picture: Image.Image) -> Head:
    """Size and orientation; of all but JPEGs the pixels are read for that, as Pillow turns TIFFs then.

    Raises:
      ImageFault: too many pixels, or bits whose range nobody knows; before the pixels are read.
    """
    check_size((picture.height, picture.width))
    check_bits(picture)
    if not is_jpeg(picture):
        picture.load()
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return Head((picture.height, picture.width), orientation if orientation in range(1, 9) else 1)


def _turn(head: Head, hw: tuple[int, int]) -> int:
    """`Head.turn_for`; ImageFault for another size."""
    turn = head.turn_for(hw)
    if turn is None:
        raise ImageFault("image of another size", f"has {sides(head.upright)}, the json says {sides(hw)}")
    return turn


def read_picture(path: Path, *, exact: bool = True, hw: tuple[int, int] | None = None) -> np.ndarray:
    """Pixels of an image file, uint8 [h, w, 3], RGB, turned as its EXIF orientation says.

    JPEGs are decoded as in training and refused by the same check. Of other files: grey becomes RGB, 16 bits become 8,
    transparency is laid on white, and of several frames the first counts. 32 bits are refused.

    Args:
      path: of the file.
      exact: for a detector. Without, Pillow decodes JPEGs too, some grey levels off: for eyes, and without TensorFlow.
      hw: height and width that a json says, by which it is turned as in training; None: as EXIF says.

    Raises:
      ImageFault: no image, truncated, too large, of 32 bits, or of another size than `hw`; the text goes behind the
        file's name.
      OSError: the file can't be read.
    """
    content = path.read_bytes()
    with opened(content) as picture:
        head = head_of(picture)
        turn = head.orientation if hw is None else _turn(head, hw)
        if not exact or not is_jpeg(picture):
            return upright(np.asarray(_rgb(picture)), turn)
        check_jpeg(content, picture)
    return upright(decode_jpeg(content).numpy(), turn)


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of grey, which convert() would clip at 255
        grey = np.asarray(picture).astype(np.float64)
        return Image.fromarray(np.rint(np.clip(grey, 0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation, 1 to 8 (others mean nothing), of pixels [h, w, 3]."""
    if orientation in _SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


class Stored(NamedTuple):
    """A picture as a record holds it: bytes for `jpeg.decode_jpeg`, EXIF orientation to undo, what to tell of it."""

    content: bytes
    orientation: int
    notes: list[str]


def stored(content: bytes, hw: tuple[int, int]) -> Stored:
    """A picture file of any kind as training stores it: JPEGs as they are, others as PNG, which loses nothing.

    Args:
      content: of the file.
      hw: height and width that the json says, see `Head.turn_for`.

    Raises:
      ImageFault: no picture, truncated, too large, of 32 bits, or of another size.
    """
    with opened(content) as picture:
        head = head_of(picture)
        turn, notes = _turn(head, hw), []
        if head.orientation != 1:
            notes.append(_TURNED if turn == head.orientation else _NOT_TURNED)
        if is_jpeg(picture):
            check_jpeg(content, picture)
            return Stored(content, turn, notes)
        pixels = upright(np.asarray(_rgb(picture)), turn)
        notes.append(f"picture of the format {picture.format}, stored as PNG")
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=PNG_LEVEL)
    return Stored(stream.getvalue(), 1, notes)
