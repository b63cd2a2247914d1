"""Image files of any kind that Pillow reads -> RGB pixels, upright."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from c2am_jax.data.jpeg import ImageFault, check_jpeg, check_size, decode_jpeg

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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `check_size` sets the limit
            with Image.open(io.BytesIO(content)) as picture:
                check_size((picture.height, picture.width))
                if not exact or picture.format not in ("JPEG", "MPO"):
                    picture.load()
                    return np.asarray(_rgb(ImageOps.exif_transpose(picture)))
                orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
                check_jpeg(content, (picture.height, picture.width))
    except UnidentifiedImageError:
        raise ImageFault("no image", "not an image file") from None
    except Image.DecompressionBombError as error:
        raise ImageFault("image too large", str(error)) from None
    except ImageFault:
        raise
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow says to damaged files
        raise ImageFault(DAMAGED, f"truncated or corrupt image: {error}") from None
    return _upright(decode_jpeg(content).numpy(), orientation)


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of grey, which convert() would clip at 255
        grey = np.asarray(picture).astype(np.float64)
        return Image.fromarray(np.rint(np.clip(grey, 0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation, 1 to 8 (others mean nothing)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
