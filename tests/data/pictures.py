"""Images made in memory."""

import io

import numpy as np
from PIL import Image


def jpeg_of(hw, kind="JPEG"):
    """Bytes of a grey picture in the given format."""
    stream = io.BytesIO()
    Image.fromarray(np.full((*hw, 3), 128, np.uint8)).save(stream, kind)
    return stream.getvalue()
