"""Loop carries that start from constants, made acceptable to shard_map's varying-axes check."""

import jax


def vary_like(x: jax.Array, reference: jax.Array) -> jax.Array:
    """`x` marked as varying over the mesh axes that `reference` varies over; outside shard_map just `x`.

    A `while_loop` or `scan` inside shard_map needs carries whose type does not change, and a constant start would
    become varying in the first iteration.
    """
    varying = jax.typeof(reference).manual_axis_type.varying - jax.typeof(x).manual_axis_type.varying
    return jax.lax.pcast(x, tuple(varying), to="varying") if varying else x
