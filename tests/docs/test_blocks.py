"""Every bash and python block of the docs runs as written, in a folder like a fresh clone, or says what it needs.

Slow: about half an hour on two CPU cores. The `python` on the path cuts what is long: tables print their plan only, the
trainings of `SHORT` stop after a few steps. What other tests run is left to them.
"""

import os
import subprocess
import sys

import pytest
from pages import BLOCKS, ROOT

# Pages in the order in which a reader needs them: later ones use the runs of earlier ones.
ORDER = (
    "README.md",
    "index.md",
    "watching_a_run.md",
    "browse.md",
    "predict.md",
    "export.md",
    "evaluation.md",
    "report.md",
    "methods.md",
    "two_stage.md",
    "adding_a_loss.md",
    "input_pipeline.md",
    "experiments.md",
    "figures.md",
    "glyphs_lvis.md",
    "method_results.md",
    "your_own_data.md",
    "parity.md",
    "from_mmdetection.md",
    "CONTRIBUTING.md",
)
SHORT = ("configs/methods/", "configs/glyphs_ce.py", "configs/glyphs_lvis", "my_package/")
# Commands that run elsewhere, by what they begin with.
ELSEWHERE = {
    "python -m c2am_jax.interop.golden": "tests/interop/test_golden.py",
    "python -m pytest": ".ci/run",
    "ruff check": ".ci/run",
}
PYTHON = f"""#!{sys.executable}
import os, sys
arguments = sys.argv[1:]
text = " ".join(arguments)
if "train.py" in arguments and any(f"--config {{name}}" in text for name in {SHORT!r}):
    arguments += ["--config.train.steps=20", "--config.train.checkpoint_every=20"]
if "c2am_jax.experiments.table" in arguments and "--dry_run" not in arguments:
    arguments.append("--dry_run")
os.execv({sys.executable!r}, [{sys.executable!r}, *arguments])
"""

runnable = [block for block in BLOCKS if block.language in ("bash", "python") and not block.needs]


def left_to_others(block):
    return any(block.text.startswith(command) for command in ELSEWHERE)


def test_every_page_with_blocks_that_run_has_its_place_and_what_runs_elsewhere_does():
    assert {block.page for block in runnable} <= set(ORDER)
    for place in ELSEWHERE.values():
        assert (ROOT / place).exists()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """(folder with what a clone has, environment in which `python` is this interpreter, long runs cut short)."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("c2am_jax", "configs", "benchmarks", "tools", "tests", "docs", "train.py", "eval.py"):
        (folder / name).symlink_to(ROOT / name)
    programs = tmp_path_factory.mktemp("programs")
    (programs / "python").write_text(PYTHON)
    (programs / "python").chmod(0o755)
    given = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "XLA_FLAGS": "", "PYTHONPATH": str(folder)}
    return folder, given


@pytest.mark.slow
def test_the_blocks_run_one_after_the_other(clone):
    folder, given = clone
    for block in sorted(runnable, key=lambda block: ORDER.index(block.page)):
        if left_to_others(block):
            continue
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
            continue
        command = ["bash", "-ec", block.text] if block.language == "bash" else [sys.executable, "-c", block.text]
        done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, timeout=7200)
        print(f"{block.page}: {block.text.strip()[:100]}: {done.returncode}", flush=True)
        assert done.returncode == 0, f"{block.page}:\n{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
