"""Write a trained detector as one file that runs without this package: StableHLO or ONNX, with the weights.

    python -m c2am_jax.export --workdir DIR --out FILE [--format stablehlo|onnx] [--size H W] [--batch N]
                              [--platforms cpu,cuda,tpu] [--threshold T] [--step N|best] [--categories FILE]

FILE is read by `jax.export.deserialize`, or by onnxruntime; FILE.json beside it names the classes, the inputs and the
outputs.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence

from c2am_jax.errors import STEP_HELP, UserError, checkpoint_step, guarded
from c2am_jax.files import write_output
from c2am_jax.storage import check_output

FORMATS = ("stablehlo", "onnx")
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="c2am_jax.export", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", required=True, help="of the run whose checkpoint is taken")
    parser.add_argument("--out", required=True, metavar="FILE")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help=f"default {FORMATS[0]}")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="of the images given, which are resized inside; default: the config's canvas",
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images per call; default 1")
    parser.add_argument("--platforms", help=f"of stablehlo: any of {','.join(PLATFORMS)}; default cpu")
    parser.add_argument("--threshold", type=float, default=0.0, metavar="T", help="lowest score, 0 to 1; default 0")
    parser.add_argument("--step", type=checkpoint_step, metavar="N|best", help=STEP_HELP)
    parser.add_argument("--categories", metavar="FILE", help="json of the categories, if the workdir has none")
    return parser


def _platforms(given: str | None) -> list[str]:
    named = [name for name in ("cpu" if given is None else given).split(",") if name]
    if not named or set(named) - set(PLATFORMS):
        raise UserError(f"--platforms {given}: there are {', '.join(PLATFORMS)}")
    return named


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    options = _parser().parse_args(arguments)
    onnx = options.format == "onnx"
    platforms = [] if onnx else _platforms(options.platforms)
    if onnx and options.platforms is not None:
        raise UserError("--platforms is for --format stablehlo: whoever runs an ONNX file chooses the device")
    if onnx and importlib.util.find_spec("onnx") is None:
        raise UserError(
            '--format onnx needs the extra "onnx": pip install "c2am_jax[onnx]", or in a clone pip install ".[onnx]"'
        )
    if not 0 <= options.threshold <= 1:
        raise UserError(f"--threshold {options.threshold:g} is not between 0 and 1")
    description_file = f"{options.out}.json"
    for file in (options.out, description_file):
        check_output("--out", file)
    from c2am_jax.training.exported import export_detector, export_shape  # JAX and TensorFlow take seconds to import
    from c2am_jax.training.restore import load_detector

    trained = load_detector(options.workdir, options.step, categories=options.categories)
    shape = export_shape(trained.experiment.data, options.size, options.batch)
    if onnx:
        from c2am_jax.training.exported_onnx import export_onnx

        content, description = export_onnx(trained, shape, threshold=options.threshold)
    else:
        content, description = export_detector(trained, shape, platforms=platforms, threshold=options.threshold)
    write_output(options.out, content)
    write_output(description_file, json.dumps(description, indent=1))
    images = "x".join(map(str, description["inputs"]["images"]["shape"]))
    kind = f"ONNX opset {description['opset']}" if onnx else f"for {', '.join(platforms)}"
    print(f"{options.out}: step {trained.step}, images {images}, {kind}, {len(content) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
