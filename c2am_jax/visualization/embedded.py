"""Pictures inside a page."""

import base64
import io

import numpy as np
from PIL import Image

QUALITY = 82


def data_uri(pixels: np.ndarray) -> str:
    """A JPEG of uint8 [h, w, 3] as an address that holds the picture itself."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")
