"""Make a config of a config of MMDetection (2.x or 3.x): Mask R-CNN and Cascade Mask R-CNN on LVIS, COCO or own data.

    python -m c2am_jax.interop.import_mmdet_config CONFIG.py [--out my_config.py] [--gpus 8]

The file and its base files are read, never run. Every translated value is printed with the key that it comes from, then
what was left out. A value that would change numbers and has no counterpart is an error, and nothing is written. Then:

    python train.py --config my_config.py
"""

import argparse
import functools
import operator
import re
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from c2am_jax.checks import WrongSetting
from c2am_jax.config import Tree, lvis, own_data
from c2am_jax.errors import UserError, guarded
from c2am_jax.experiment import Experiment, flat
from c2am_jax.files import write_output
from c2am_jax.interop.mmdetection.config import read_config
from c2am_jax.interop.mmdetection.rules import Notes, translate
from c2am_jax.storage import check_output
from c2am_jax.wording import counted

MOST_NAMED = 4  # refusals in the error's line
GPUS = 8  # what MMDetection's configs are written for


def base_of(notes: Notes, name: str) -> tuple[Tree, str]:
    """The config here that is nearest, and the call that makes it."""
    method = notes.values["loss.name"][0]
    if not notes.data:
        return own_data(name, method), f'own_data("{name}", "{method}")'
    depth, version = notes.values["model.backbone.depth"][0], "v05" if notes.data == "lvis_v05" else ""
    options = {"depth": depth, "version": version, "cascade": notes.cascade}
    written = "".join(f", {key}={literal(key, value)}" for key, value in options.items() if value)
    return lvis(name, method, **options), f'lvis("{name}", "{method}"{written})'


def differing(notes: Notes, base: Tree) -> dict[str, Any]:
    """Values that the base does not have.

    Raises:
      UserError: values that do not go together here.
    """
    given = flat(base.to_dict())
    values = {key: value for key, (value, _) in notes.values.items() if given.get(key) != value}
    tree = base.to_dict()
    for key, value in values.items():
        *groups, last = key.split(".")
        functools.reduce(operator.getitem, groups, tree)[last] = value
    try:
        Experiment.from_dict(_closed(tree))
    except WrongSetting as error:
        source = notes.values.get(error.key, (None, ""))[1]
        raise UserError(f"{source or error.key}: {error}") from None
    return values


def _closed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A tree without what it leaves to the data."""
    left = {key: _closed(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    return {key: value for key, value in left.items() if value is not None and key != "folder"}


def literal(key: str, value: Any) -> str:
    """A value as Python writes it, shares of a run as fractions and long rows of numbers as a range."""
    if key == "train.lr_drops" and value:
        shares = [Fraction(share).limit_denominator(1000) for share in value]
        texts = [str(s) if float(s) == v else repr(v) for s, v in zip(shares, value, strict=True)]
        return f"({', '.join(text.replace('/', ' / ') for text in texts)}{',' * (len(texts) == 1)})"
    if isinstance(value, tuple) and len(value) > 16 and value == tuple(range(value[0], value[-1] + 1)):
        return f"tuple(range({value[0]}, {value[-1] + 1}))"
    return f'"{value}"' if isinstance(value, str) and '"' not in value and "\\" not in value else repr(value)


def config_text(values: Mapping[str, Any], notes: Notes, call: str, source: str, out: str, gpus: int) -> str:
    """The config file: the base, and what differs from it."""
    lines = [f'            "{key}": {literal(key, value)},  # {notes.values[key][1]}' for key, value in values.items()]
    changes = ["    config.update_from_flattened_dict(", "        {", *lines, "        }", "    )"] if lines else []
    function = call.partition("(")[0]
    parts = [
        f'"""What {source} of MMDetection says, for {counted(gpus, "GPU")}.',
        "",
        f"python train.py --config {out}",
        '"""',
        "",
        f"from c2am_jax.config import {function}",
        "",
        "",
        "def get_config():",
        f'    """`{function}`, and what differs from it."""',
        f"    config = {call}",
        *changes,
        "    return config",
        "",
    ]
    return "\n".join(parts)


def _report(notes: Notes) -> None:
    width = max((len(f"{key} = {literal(key, value)}") for key, (value, _) in notes.values.items()), default=0)
    print("translated:")
    for key, (value, source) in sorted(notes.values.items()):
        print(f"  {f'{key} = {literal(key, value)}':{min(width, 60)}}  from {source}")
    print("left out:")
    for text in notes.left_out or ["nothing"]:
        print(f"  {text}")
    if notes.refused:
        print("no counterpart:")
        print("".join(f"  {text}\n" for text in notes.refused), end="")


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="c2am_jax.interop.import_mmdet_config", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("file", metavar="CONFIG.py", help="of MMDetection, with its base files where it names them")
    parser.add_argument("--out", default="my_config.py", metavar="FILE.py", help="the config to write (my_config.py)")
    parser.add_argument("--gpus", type=int, default=GPUS, help="that train in MMDetection: batch size / per GPU (8)")
    options = parser.parse_args(arguments)
    file, out = Path(options.file), Path(options.out)
    if options.gpus < 1:
        raise UserError(f"--gpus {options.gpus}: at least 1")
    if out.exists():
        raise UserError(f"--out {out}: is there already; name another file")
    check_output("--out", out)
    notes = translate(read_config(file), options.gpus)
    refused = f"{file} cannot be translated: "
    _report(notes)
    if notes.refused:
        more = len(notes.refused) - MOST_NAMED
        raise UserError(refused + "; ".join(notes.refused[:MOST_NAMED]) + (f"; {more} more, above" if more > 0 else ""))
    name = re.sub(r"[^\w-]+", "_", file.stem)
    base, call = base_of(notes, name)
    try:
        values = differing(notes, base)
    except UserError as error:
        raise UserError(f"{refused}{error}") from None
    write_output(out, config_text(values, notes, call, f"{name}.py", out.name, options.gpus))
    gpus = counted(options.gpus, "GPU") + (" (--gpus N for another number)" if options.gpus == GPUS else "")
    print(f"{out}: {counted(len(values), 'value differs', 'values differ')} from {call}; made for {gpus}")
    print(f"python train.py --config {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
