"""JPEG files: the check at preparation and the decoder of training, which refuse the same files.

The decoder reads PNGs too: what is no JPEG is stored as one (`pictures.stored`).
"""

import io
import itertools
import re
import warnings

from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 50_000_000  # decoded, as floats and with a raster for every instance it must fit in a worker's memory
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
        raise ImageFault("image too large", f"{hw[0]}x{hw[1]} is more than {MAX_PIXELS // 10**6} megapixels")


def check_jpeg(content: bytes) -> None:
    """Read all coefficients: a truncated file must be found at preparation, not in the middle of a run.

    Pillow's decoder in its smallest scale takes half the time and no TensorFlow; files on which the two might differ
    are decoded by both.

    Raises:
      ImageFault: it is no JPEG, too large, or does not decode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `check_size` sets the limit
            with Image.open(io.BytesIO(content)) as picture:
                if picture.format not in ("JPEG", "MPO"):  # MPO: a camera's JPEG with another picture behind it
                    raise ImageFault("image file not a JPEG", f"not a JPEG but {picture.format}")
                check_size((picture.height, picture.width))
                picture.draft("L", (1, 1))
                picture.load()
    except UnidentifiedImageError:
        raise ImageFault("image file not a JPEG", "not an image file") from None
    except Image.DecompressionBombError as error:
        raise ImageFault("image too large", str(error)) from None
    except ImageFault:
        raise
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow says to damaged files
        raise ImageFault("image file truncated or corrupt", f"truncated or corrupt JPEG: {error}") from None
    if not _plain(content) and not _decodes(content):
        raise ImageFault("image file truncated or corrupt", "truncated or corrupt JPEG")
