"""From LVIS annotations and JPEGs to batches; numpy and tf.data only."""
