"""The check of image files at preparation."""

import io

import numpy as np
import pytest
from pictures import jpeg_of
from PIL import Image

from c2am_jax.data.jpeg import ImageFault, decode_jpeg
from c2am_jax.data.pictures import stored


def variants(rng):
    """Small JPEGs of the kinds that decoders treat differently, with their (height, width)."""
    picture = Image.fromarray(rng.integers(0, 256, (8, 9, 3), np.uint8)).resize((45, 40))
    kinds = [
        (picture, {}),
        (picture.convert("L"), {}),
        (picture.convert("CMYK"), {}),
        (picture, {"progressive": True}),
        (picture, {"restart_marker_blocks": 4}),
        (picture, {"subsampling": 0}),
    ]
    for image, options in kinds:
        stream = io.BytesIO()
        image.save(stream, "JPEG", **options)
        yield stream.getvalue()


def refuses(content):
    try:
        stored(content, (40, 45))
    except ImageFault:
        return True
    return False


def cannot_decode(content):
    from c2am_jax.data.tensorflow_host import tf

    try:
        return tuple(decode_jpeg(content).shape) != (40, 45, 3)
    except tf.errors.InvalidArgumentError:
        return True


def test_the_check_refuses_what_training_cannot_decode_and_nothing_else():
    rng = np.random.default_rng(0)
    agreed = set()
    for content in variants(rng):
        assert not refuses(content) and not cannot_decode(content)
        for n in range(150):
            data = bytearray(content)
            if n % 3:
                for _ in range(n % 3):
                    data[rng.integers(2, len(data))] = rng.choice([rng.integers(256), 255])
            else:
                del data[rng.integers(2, len(data)) :]
            assert refuses(bytes(data)) == cannot_decode(bytes(data)), (n, bytes(data).hex())
            agreed.add((n % 3, refuses(bytes(data))))
    assert {(0, True), (1, True), (1, False), (2, True), (2, False)} <= agreed


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (jpeg_of((8, 9)), "image of another size"),
        (b"text", "image file not a picture"),
        (b"", "image file not a picture"),
        (jpeg_of((8, 8))[:-100], "image file truncated or corrupt"),
    ],
)
def test_faults_have_their_reason(content, reason):
    with pytest.raises(ImageFault) as error:
        stored(content, (8, 8))
    assert error.value.reason == reason
