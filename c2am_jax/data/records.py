"""The fields of a record, in TensorFlow's graph code."""

from c2am_jax.data.box_masks import MASK_SIZE
from c2am_jax.data.tensorflow_host import tf

# What TFDS writes for `shards.features`; its own parser takes one mask after the other, twice as long.
_RECORD = {
    "image": tf.io.FixedLenFeature((), tf.string),
    "image_id": tf.io.FixedLenFeature((), tf.int64),
    "instances/box": tf.io.VarLenFeature(tf.float32),
    "instances/label": tf.io.VarLenFeature(tf.int64),
    "instances/mask": tf.io.VarLenFeature(tf.string),
}
InstanceTensors = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def parse_record(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, InstanceTensors]:
    """A record of `PreparedDataset.read` as the bytes of its JPEG, image id and the fields of `augment.Instances`."""
    fields = tf.io.parse_single_example(record, _RECORD)
    masks = tf.io.decode_raw(fields["instances/mask"].values, tf.uint8)
    instances = (
        tf.reshape(fields["instances/box"].values, (-1, 4)),
        tf.cast(fields["instances/label"].values, tf.int32),
        tf.reshape(masks, (-1, MASK_SIZE, MASK_SIZE // 8)),
    )
    return fields["image"], fields["image_id"], instances
