"""What a record holds."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds

from c2am_jax.data.pictures import Stored
from c2am_jax.data.scanned import ImageEntry
from c2am_jax.data.shards import encoded, features


@pytest.mark.parametrize("count", [0, 1, 3])
def test_records_are_those_that_the_features_encode(count):
    rng = np.random.default_rng(0)
    instances = [
        {"box": rng.random(4, np.float32), "label": np.int32(i), "mask": rng.integers(0, 256, (112, 14), np.uint8)}
        for i in range(count)
    ]
    image, picture = ImageEntry(2**40, 5, 7, "a.jpg", ""), Stored(b"\xff\xd8", 6, [])
    record = {"image": io.BytesIO(picture.content), "image_id": image.id, "orientation": 6, "height": 5, "width": 7}
    write = tfds.core.example_serializer.ExampleSerializer(features().get_serialized_info()).serialize_example
    assert write(encoded(image, picture, instances)) == write(
        features().encode_example(record | {"instances": instances})
    )
