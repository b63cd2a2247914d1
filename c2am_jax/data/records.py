"""The fields of a record, in TensorFlow's graph code."""

from c2am_jax.data.box_masks import MASK_SIZE
from c2am_jax.data.jpeg import decode_jpeg
from c2am_jax.data.tensorflow_host import tf

# What TFDS writes for `shards.features`; its own parser takes one mask after the other, twice as long.
_RECORD = {
    "image": tf.io.FixedLenFeature((), tf.string),
    "image_id": tf.io.FixedLenFeature((), tf.int64),
    "orientation": tf.io.FixedLenFeature((), tf.int64, 1),  # older versions did not write it
    "instances/box": tf.io.VarLenFeature(tf.float32),
    "instances/label": tf.io.VarLenFeature(tf.int64),
    "instances/mask": tf.io.VarLenFeature(tf.string),
}
InstanceTensors = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def parse_record(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, InstanceTensors]:
    """A record of `PreparedDataset.read` as upright pixels [h, w, 3], image id and fields of `augment.Instances`."""
    fields = tf.io.parse_single_example(record, _RECORD)
    masks = tf.io.decode_raw(fields["instances/mask"].values, tf.uint8)
    instances = (
        tf.reshape(fields["instances/box"].values, (-1, 4)),
        tf.cast(fields["instances/label"].values, tf.int32),
        tf.reshape(masks, (-1, MASK_SIZE, MASK_SIZE // 8)),
    )
    return upright(decode_jpeg(fields["image"]), fields["orientation"]), fields["image_id"], instances


def upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """`pictures.upright` in graph code: uint8 [h, w, 3] turned as an EXIF orientation, 1 to 8, says."""

    def one_of(*values: int) -> tf.Tensor:
        return tf.reduce_any(tf.equal(orientation, tf.constant(values, tf.int64)))

    def turned() -> tf.Tensor:
        made = tf.cond(one_of(5, 6, 7, 8), lambda: tf.transpose(pixels, (1, 0, 2)), lambda: pixels)
        made = tf.cond(one_of(3, 4, 7, 8), lambda: made[::-1], lambda: made)
        return tf.cond(one_of(2, 3, 6, 7), lambda: made[:, ::-1], lambda: made)

    return tf.cond(one_of(1), lambda: pixels, turned)
