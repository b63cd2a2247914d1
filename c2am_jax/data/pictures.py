"""Image files of any kind that Pillow reads: as RGB pixels, upright, and as training stores them."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from c2am_jax.data.jpeg import ImageFault, check_jpeg, check_size, decode_jpeg

PNG_LEVEL = 3  # of compression: twice as fast as Pillow's usual 6, some per cent larger
DAMAGED = "image file truncated or corrupt"


def read_picture(path: Path, *, exact: bool = True) -> np.ndarray:
    """Pixels of an image file, uint8 [h, w, 3], RGB, turned as its EXIF orientation says.

    JPEGs are decoded as in training and refused by the same check. Of other files: grey becomes RGB, 16 bits become 8,
    transparency is laid on white, and of several frames the first counts.

    Args:
      path: of the file.
      exact: for a detector. Without, Pillow decodes JPEGs too, some grey levels off: for eyes, and without TensorFlow.

    Raises:
      ImageFault: no image, truncated, or too large; the text goes behind the file's name.
      OSError: the file can't be read.
    """
    content = path.read_bytes()
    with opened(content) as picture:
        check_size((picture.height, picture.width))
        if not exact or picture.format not in ("JPEG", "MPO"):
            picture.load()
            return np.asarray(_rgb(ImageOps.exif_transpose(picture)))
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        check_jpeg(content)
    return upright(decode_jpeg(content).numpy(), orientation)


@contextlib.contextmanager
def opened(content: bytes) -> Iterator[Image.Image]:
    """A picture file's content, opened by Pillow, whose complaints become ImageFault."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of corrupt EXIF data, which then tell nothing
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `check_size` sets the limit
            with Image.open(io.BytesIO(content)) as picture:
                yield picture
    except UnidentifiedImageError:
        raise ImageFault("image file not a picture", "not an image file") from None
    except Image.DecompressionBombError as error:
        raise ImageFault("image too large", str(error)) from None
    except ImageFault:
        raise
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow says to damaged files
        raise ImageFault(DAMAGED, f"truncated or corrupt image: {error}") from None


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
    if orientation in (5, 6, 7, 8):
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

    Pictures are turned as their EXIF orientation says, as OpenCV's reader, and so the reference, does; one that has
    the json's size only as it is stored, stays so.

    Args:
      content: of the file.
      hw: height and width that the json says.

    Raises:
      ImageFault: no picture, truncated, too large, or of another size.
    """
    with opened(content) as picture:
        check_size((picture.height, picture.width))
        jpeg = picture.format in ("JPEG", "MPO")  # MPO: a camera's JPEG with another picture behind it
        if not jpeg:
            picture.load()  # which already turns TIFFs
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        orientation = orientation if orientation in range(1, 9) else 1
        size, notes = (picture.height, picture.width), []
        if orientation != 1:
            if (size[::-1] if orientation >= 5 else size) == hw:
                notes.append("picture turned as its EXIF orientation says")
            elif size == hw:
                orientation = 1
                notes.append("picture not turned as its EXIF orientation says: only as stored it has the json's size")
        if (size[::-1] if orientation >= 5 else size) != hw:
            raise ImageFault("image of another size", f"is {size[0]}x{size[1]}, the json says {hw[0]}x{hw[1]}")
        if jpeg:
            check_jpeg(content)
            return Stored(content, orientation, notes)
        pixels = upright(np.asarray(_rgb(picture)), orientation)
        notes.append(f"picture of the format {picture.format}, stored as PNG")
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=PNG_LEVEL)
    return Stored(stream.getvalue(), 1, notes)
