"""JPEG files: one decoder for the check at preparation and for training."""

import io

from PIL import Image, UnidentifiedImageError

from c2am_jax.data.tensorflow_host import tf


def decode_jpeg(content: tf.Tensor | bytes) -> tf.Tensor:
    """JPEG bytes -> uint8 [h, w, 3], RGB, by the exact integer transform (the reference's decoder agrees)."""
    return tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")


def check_jpeg(content: bytes, hw: tuple[int, int]) -> None:
    """Decode fully, as training does: a truncated file must be found at preparation, not in the middle of a run.

    Args:
      content: of the file.
      hw: height and width that it must have.

    Raises:
      ValueError: it is no JPEG, of another size, or does not decode; the text says which.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.format not in ("JPEG", "MPO"):  # MPO: a camera's JPEG with another picture behind it
                raise ValueError(f"not a JPEG but {picture.format}")
            if (picture.height, picture.width) != hw:
                raise ValueError(f"is {picture.height}x{picture.width}, the json says {hw[0]}x{hw[1]}")
        decode_jpeg(content)
    except UnidentifiedImageError:
        raise ValueError("not an image file") from None
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None
    except tf.errors.InvalidArgumentError:
        raise ValueError("truncated or corrupt JPEG, or too large to decode") from None
