"""Write a trained detector as one file that runs without this package: StableHLO with the weights, by `jax.export`.

    python -m c2am_jax.export --workdir DIR --out FILE [--size H W] [--batch N] [--platforms cpu,cuda,tpu]
                              [--threshold T] [--step N|best] [--categories FILE]

FILE is read by `jax.export.deserialize`; FILE.json beside it names the classes, the inputs and the outputs.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from c2am_jax.errors import UserError, guarded
from c2am_jax.files import replace_text, replacing

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="c2am_jax.export", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", required=True, help="of the run whose checkpoint is taken")
    parser.add_argument("--out", required=True, metavar="FILE")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="of the images given; default: the config's canvas"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images per call; default 1")
    parser.add_argument("--platforms", default="cpu", help=f"default cpu; any of {','.join(PLATFORMS)}")
    parser.add_argument("--threshold", type=float, default=0.0, metavar="T", help="lowest score, 0 to 1; default 0")
    parser.add_argument(
        "--step", type=lambda text: text if text == "best" else int(text), metavar="N|best", help="default the newest"
    )
    parser.add_argument("--categories", metavar="FILE", help="json of the categories, if the workdir has none")
    return parser


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    options = _parser().parse_args(arguments)
    out, platforms = Path(options.out), [name for name in options.platforms.split(",") if name]
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown or not platforms:
        raise UserError(f"--platforms {options.platforms}: there are {', '.join(PLATFORMS)}")
    if not 0 <= options.threshold <= 1:
        raise UserError(f"--threshold {options.threshold:g} is not between 0 and 1")
    from c2am_jax.training.exported import export_detector, export_shape  # JAX and TensorFlow take seconds to import
    from c2am_jax.training.restore import load_detector

    trained = load_detector(options.workdir, options.step, categories=options.categories)
    shape = export_shape(trained.experiment.data, options.size, options.batch)
    content, description = export_detector(trained, shape, platforms=platforms, threshold=options.threshold)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as partial:
        partial.write_bytes(content)
    replace_text(out.with_name(f"{out.name}.json"), json.dumps(description, indent=1))
    images = "x".join(map(str, description["inputs"]["images"]["shape"]))
    print(f"{out}: step {trained.step}, images {images}, for {', '.join(platforms)}, {len(content) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
