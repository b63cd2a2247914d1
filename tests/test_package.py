"""Wheel and sdist: they build, hold what they should, and the installed commands run outside the repository."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with one wheel and one sdist of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built):
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """(run a command in an empty folder, that folder) with the wheel installed before anything else."""
    site, empty = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("empty")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, timeout=300)

    def run(command, *arguments, status=0):
        given = os.environ | {"PYTHONPATH": str(site)}
        done = subprocess.run(
            [str(site / "bin" / command), *map(str, arguments)],
            cwd=empty,
            env=given,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run, empty


def test_the_wheel_has_the_package_and_the_configs_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    tracked = subprocess.run(["git", "ls-files", "c2am_jax", "configs"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout: no list of files to compare with")
    wanted = {
        file if file.startswith("c2am_jax/") else f"c2am_jax/{file}"
        for file in tracked.stdout.split()
        if (ROOT / file).exists()
    }
    assert {name for name in inside if ".dist-info/" not in name} == wanted


def test_the_sdist_can_be_built_from_and_tested(built):
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in ("train.py", "eval.py", "requirements.txt", "configs/glyphs_c2am.py", "tests/conftest.py", "LICENSE"):
        assert wanted in inside
    assert not any(name.startswith(("data/", "runs/", ".git/")) for name in inside)


def test_twine_finds_nothing_wrong(built):
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout + done.stderr


def test_metadata_has_the_requirements_the_extras_and_absolute_links(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(name).decode()
    header, _, readme = text.partition("\n\n")
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    needed = {re.split(r"[<>=!;]", line)[0].lower() for line in lines if line}
    plain = [line for line in header.splitlines() if line.startswith("Requires-Dist: ") and "extra ==" not in line]
    assert {re.split(r"[<>=!; ]", line.removeprefix("Requires-Dist: "))[0].lower() for line in plain} == needed
    extras = set(re.findall(r"^Provides-Extra: (.+)$", header, re.M))
    assert extras == {"cuda12", "cuda13", "tpu", "torch", "gcs", "onnx", "experiments", "docs", "dev"}
    assert len(re.findall(r"^Project-URL: ", header, re.M)) >= 3 and "Author: " in header
    links = re.findall(r"\]\(([^)]+)\)", readme)
    assert len(links) > 20 and all(link.startswith(("https://", "#")) for link in links)


def test_installed_commands_show_their_flags(installed):
    run, _ = installed
    text = run("c2am-train", "--help")
    for flag in ("--config", "--workdir", "--dry_run", "--profile", "--coordinator", "--distributed", "glyphs_c2am"):
        assert flag in text
    for flag in ("--annotations", "--predictions", "--report", "--gather_logits", "--workdir", "--step"):
        assert flag in run("c2am-eval", "--help")
    for command, flag in (
        ("c2am-predict", "--threshold"),
        ("c2am-export", "--platforms"),
        ("c2am-prepare", "--beam"),
        ("c2am-browse", "--augmented"),
        ("c2am-download", "--keep_archives"),
    ):
        assert flag in run(command, "--help")


def test_an_installed_config_goes_by_name_and_one_of_the_user_by_file(installed):
    run, empty = installed
    (empty / "mine.py").write_text(
        "from c2am_jax.config import glyphs\n\n\ndef get_config():\n    return glyphs('mine', 'c2am')\n"
    )
    for name in ("glyphs_c2am", "configs/glyphs_c2am.py", "methods/eql:glyphs", "mine.py"):
        text = run("c2am-train", "--config", name, "--config.train.stepz=1", status=2)
        assert "no such key" in text and "stepz" in text and "Traceback" not in text
    text = run("c2am-train", "--config=nothing", status=2)
    assert "give a file, the config.json of a run or one of these names: cascade_r101_c2am" in text


def test_installed_scoring_and_tables_need_no_repository(installed, scoring_files):
    run, empty = installed
    scoring_files(empty)
    assert "100.0" in run("c2am-eval", "--annotations=gt.json", "--predictions=dt.json")
    code = "import sys; from c2am_jax.experiments.table import main; sys.exit(main(['4', '--dry_run']))"
    given = os.environ | {"PYTHONPATH": str(next(empty.parent.glob("site*")))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=empty, env=given, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "-m c2am_jax.train --config=glyphs_c2am" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_an_installed_package_trains_evaluates_and_predicts(installed):
    run, empty = installed
    run("c2am-train", "--config=glyphs_c2am", "--config.train.steps=20")
    assert "step 20, 300 images of glyphs_val" in run("c2am-eval", "--config=glyphs_c2am")
    picture = next((empty / "data/glyphs/images/val").glob("*.jpg"))
    assert "in 1 picture:" in run("c2am-predict", picture, "--workdir", "runs/glyphs_c2am", "--threshold", "0")
