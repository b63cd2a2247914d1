"""JPEG files: the check at preparation and the decoder of training, which refuse the same files.

The decoder reads PNGs too: what is no JPEG is stored as one (`pictures.stored`).
"""

import contextlib
import io
import itertools
import re
import warnings
from collections.abc import Iterator

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from c2am_jax.wording import sides

MAX_PIXELS = 50_000_000  # decoded, as floats and with a raster for every instance it must fit in a worker's memory
DAMAGED = "image file truncated or corrupt"
TOO_LARGE = "image too large"
_MARKER = re.compile(rb"\xff[^\x00]", re.DOTALL)


class ImageFault(ValueError):
    """An image file that can't be used; `reason` is the kind of fault, the text says more."""

    def __init__(self, reason: str, text: str):
        """`reason` is a line of the report, `text` goes beside the image's name."""
        super().__init__(text)
        self.reason = reason


def decode_jpeg(content):
    """JPEG or PNG bytes (a string tensor) -> uint8 [h, w, 3], RGB; JPEGs by the exact transform, as the reference."""
    from c2am_jax.data.tensorflow_host import tf  # preparation does without: it takes 600 MB and 7 s in every process

    return tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")


def _plain(content: bytes) -> bool:
    """Whether the file is one scan whose only marker is the end: both decoders agree about such files.

    Others (progressive, restart markers, a marker that damage made) Pillow may finish where TensorFlow gives up.
    """
    at = 2
    while content[at : at + 1] == b"\xff":
        start_of_scan = content[at + 1 : at + 2] == b"\xda"
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if start_of_scan:
            markers = [match[0] for match in itertools.islice(_MARKER.finditer(content, at), 2)]
            return markers == [b"\xff\xd9"]
    return False


def _decodes(content: bytes) -> bool:
    from c2am_jax.data.tensorflow_host import tf

    try:
        decode_jpeg(content)
    except tf.errors.InvalidArgumentError:
        return False
    return True


def check_size(hw: tuple[int, int]) -> None:
    """Raise ImageFault for a height and width of more than 50 megapixels."""
    if hw[0] * hw[1] > MAX_PIXELS:
        raise ImageFault(TOO_LARGE, f"{sides(hw)} are more than {MAX_PIXELS // 10**6} megapixels")


def check_bits(picture: Image.Image) -> None:
    """Raise ImageFault for 32 bits of grey, whole numbers or fractions: which of them is white, no file says.

    With 16 bits it is 65535. Pillow calls those "I" too where they come as PNG, PPM, or as a TIFF of signed numbers.
    """
    if picture.mode == "F" or (picture.mode == "I" and _bits(picture) > 16):
        raise ImageFault(
            "image of 32 bits", "has grey values of 32 bits, whose white is not known: save it with 8 or 16 bits"
        )


def _bits(picture: Image.Image) -> int:
    """Bits of a grey value of the mode "I", by the file's format."""
    if picture.format in ("PNG", "PPM"):  # their most
        return 16
    return max(getattr(picture, "tag_v2", {}).get(TiffImagePlugin.BITSPERSAMPLE, (32,)))


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
        raise ImageFault(TOO_LARGE, str(error)) from None
    except ImageFault:
        raise
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow says to damaged files
        raise ImageFault(DAMAGED, f"truncated or corrupt image: {error}") from None


def is_jpeg(picture: Image.Image) -> bool:
    """Whether training decodes the file as it is."""
    return picture.format in ("JPEG", "MPO")  # MPO: a camera's JPEG with another picture behind it


def check_jpeg(content: bytes, picture: Image.Image) -> None:
    """Read all coefficients: a truncated file must be found at preparation, not in the middle of a run.

    Pillow's decoder in its smallest scale takes half the time and no TensorFlow; files on which the two might differ
    are decoded by both.

    Args:
      content: of the file.
      picture: the same, `opened`; it is of no use afterwards.

    Raises:
      ImageFault: it does not decode (`opened` says so of what Pillow finds).
    """
    picture.draft("L", (1, 1))
    picture.load()
    if not _plain(content) and not _decodes(content):
        raise ImageFault(DAMAGED, "truncated or corrupt image")
