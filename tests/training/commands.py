"""train.py and eval.py as a user calls them, with a detector of toy size on the small glyph set."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tiny import TINY

ROOT = Path(__file__).resolve().parents[2]


def start(script, workdir, data, *flags, cache=None, **settings):
    """A process of a script at the top of the project; its output is read by `output`. Keys as in `tiny_config`."""
    values = TINY | {"data.name": "small", "data.dir": data, "train.eval_every": 0}
    values |= {key.replace("__", "."): value for key, value in settings.items()}
    overrides = [f"--config.{key}={value}" for key, value in values.items()]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {}
    command = [sys.executable, script, "--config=configs/glyphs_c2am.py", f"--workdir={workdir}", *flags, *overrides]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def output(process, seconds=300):
    """(exit status, stdout, stderr) when it has ended."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def run(script, workdir, data, *flags, **settings):
    """`start` and `output`."""
    return output(start(script, workdir, data, *flags, **settings))


def wait_for(condition, process, seconds=300):
    """Until a condition holds, while the process runs."""
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, output(process)
        assert time.monotonic() < until, "took too long"
        time.sleep(0.05)
