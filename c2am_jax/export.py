"""A trained detector as one file: a StableHLO program with its weights inside, which runs without this package.

    python -m c2am_jax.export --workdir DIR --out detector.stablehlo [--size H W] [--batch N] [--platforms cpu,cuda,tpu]

Beside it, detector.json says what goes in and out and names the categories. To run it, jax alone is needed:

    program = jax.export.deserialize(open("detector.stablehlo", "rb").read())
    found = program.call(image, hw)     # uint8 [B, C, C, 3], the pixels in the upper left corner; int32 [B, 2]
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from ml_collections import ConfigDict

from c2am_jax.data.masks import MASK_SIZE
from c2am_jax.errors import UserError
from c2am_jax.ops.preprocess import preprocess
from c2am_jax.structures import Batch
from c2am_jax.training.restore import Run, categories_of, restore
from c2am_jax.training.step import data_mesh

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
Arrays = dict[str, jax.Array]


def make_program(run: Run, size: tuple[int, int]) -> Callable[[jax.Array, jax.Array], Arrays]:
    """``(image, hw) -> detections`` with the weights as constants; `size` is the padded shape that the network sees.

    Args of the result:
      image: uint8 RGB [B, C, C, 3], each image in the upper left corner.
      hw: int32 [B, 2], its height and width.

    Returns of the result:
      boxes [B, D, 4] (xyxy, pixels of the image), scores [B, D], labels [B, D] (0-based class), masks [B, D, 28, 28]
      (probabilities in the frame of the box), valid [B, D]; best first.
    """
    data = run.config.data
    state = run.state

    def program(image: jax.Array, hw: jax.Array) -> Arrays:
        count = image.shape[0]
        target = target_size(hw, size, short_side=data.test_short_side, max_side=data.max_side)
        nothing = Batch(
            image=image,
            source_hw=hw,
            target_hw=target,
            flip=jnp.zeros(count, bool),
            boxes=jnp.zeros((count, 1, 4), jnp.float32),
            labels=jnp.zeros((count, 1), jnp.int32),
            masks=jnp.zeros((count, 1, MASK_SIZE, MASK_SIZE // 8), jnp.uint8),
            valid=jnp.zeros((count, 1), bool),
            image_id=jnp.zeros(count, jnp.int32),
        )
        inputs = preprocess(nothing, size, mean=data.mean, std=data.std)
        found = run.functional.merge(state.params, state.rest).predict(inputs.image, inputs.image_hw)
        ratio = jnp.tile((hw / target).astype(jnp.float32)[:, ::-1], 2)[:, None]
        limit = jnp.tile(hw.astype(jnp.float32)[:, ::-1], 2)[:, None]
        return {
            "boxes": jnp.clip(found.boxes * ratio, 0, limit),
            "scores": found.scores,
            "labels": found.labels,
            "masks": found.masks,
            "valid": found.valid,
        }

    return program


def target_size(hw: jax.Array, size: tuple[int, int], *, short_side: int, max_side: int) -> jax.Array:
    """`data.sampler.target_size` on the device, made smaller where `size` has no room for it: int32 [B, 2]."""
    sides = hw.astype(jnp.float32)
    scale = jnp.minimum(max_side / sides.max(-1), short_side / sides.min(-1))
    scale = jnp.minimum(scale, (jnp.asarray(size, jnp.float32) / sides).min(-1))
    return jnp.minimum((sides * scale[:, None] + 0.5).astype(jnp.int32), jnp.asarray(size))


def largest_bucket(config: ConfigDict) -> tuple[int, int]:
    """The padded shape that holds every image: the larger sides of all buckets."""
    return max(h for h, _ in config.data.buckets), max(w for _, w in config.data.buckets)


def export(run: Run, size: tuple[int, int], *, batch: int, platforms: Sequence[str]) -> tuple[bytes, dict[str, Any]]:
    """The serialised program, and what it takes and gives.

    Raises:
      UserError: a size that the network's strides do not divide.
    """
    if size[0] % 32 or size[1] % 32 or min(size) < 32:
        raise UserError(f"--size {size[0]} {size[1]}: both must be multiples of 32")
    canvas = run.config.data.canvas
    image = jax.ShapeDtypeStruct((batch, canvas, canvas, 3), jnp.uint8)
    hw = jax.ShapeDtypeStruct((batch, 2), jnp.int32)
    exported = jax.export.export(jax.jit(make_program(run, size)), platforms=tuple(platforms))(image, hw)
    names = [
        jax.tree_util.keystr(path, simple=True)
        for path, _ in jax.tree_util.tree_flatten_with_path(
            jax.tree_util.tree_unflatten(exported.out_tree, exported.out_avals)
        )[0]
    ]
    describe = lambda aval: {"shape": list(aval.shape), "dtype": str(aval.dtype)}  # noqa: E731
    return exported.serialize(), {
        "config": run.config.name,
        "step": int(run.state.step),
        "platforms": list(platforms),
        "network_input": list(size),
        "inputs": {"image": describe(image), "hw": describe(hw)},
        "outputs": {name: describe(aval) for name, aval in zip(names, exported.out_avals, strict=True)},
        "jax": jax.__version__,
        "calling_convention_version": exported.calling_convention_version,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: exit status 0, or 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="python -m c2am_jax.export", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", required=True, help="of a training run")
    parser.add_argument("--step", type=int, help="checkpoint; default the newest")
    parser.add_argument("--out", required=True, help="the file")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="network input; default holds every bucket"
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--platforms", default="cpu,cuda,tpu", help=f"of {', '.join(PLATFORMS)}")
    options = parser.parse_args(arguments)
    platforms = options.platforms.split(",")
    if options.batch < 1 or not set(platforms) <= set(PLATFORMS):
        parser.error(f"--batch must be at least 1 and --platforms some of {', '.join(PLATFORMS)}")
    try:
        run = restore(options.workdir, options.step, mesh=data_mesh(jax.devices()[:1]))
        categories = categories_of(options.workdir)
        size = tuple(options.size or largest_bucket(run.config))
        content, description = export(run, size, batch=options.batch, platforms=platforms)
        description["categories"] = [
            {"id": int(i), "name": name} for i, name in zip(categories.ids, categories.names, strict=True)
        ]
        out = Path(options.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(content)
        out.with_suffix(".json").write_text(json.dumps(description, indent=1))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{out}: {len(content) / 2**20:.1f} MiB for {', '.join(platforms)}; {out.with_suffix('.json')} describes it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
