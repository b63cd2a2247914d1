"""The notebooks of the docs run from their first cell to their last, with few steps."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # what the notebook packages warn about is theirs
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Drawn by the first notebook that needs it."""
    return tmp_path_factory.mktemp("data")


def execute(name, monkeypatch, **environment):
    """Outputs of all cells, and what they printed."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # the eight devices of the tests
    for key, value in environment.items():
        monkeypatch.setenv(key, str(value))
    notebook = nbformat.read(ROOT / "docs" / name, as_version=4)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return outputs, "".join(output.get("text", "") for output in outputs)


def pictures(outputs):
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_the_first_steps_train_and_show_detections(data, tmp_path, monkeypatch):
    run = tmp_path / "run"
    settings = {"QUICKSTART_STEPS": 20, "QUICKSTART_WORKDIR": run, "QUICKSTART_DATA": data}
    outputs, printed = execute("quickstart.ipynb", monkeypatch, **settings)
    assert "step 20, 300 images of glyphs_val" in printed and "in 8 pictures" in printed
    assert pictures(outputs) == 2 and len(list((run / "pictures").glob("*.jpg"))) == 8


def test_a_borrowed_machine_keeps_its_run_in_a_bucket_and_resumes_it(data, emulator, tmp_path, monkeypatch):
    """The first session ends after a minute, on most machines in the first steps; the next cell is the next session."""
    settings = {"NOTEBOOK_WORKDIR": "gs://pods/glyphs", "NOTEBOOK_DATA": data, "NOTEBOOK_STEPS": 8}
    settings |= {"NOTEBOOK_MINUTES": 1, "NOTEBOOK_INSTALLED": 1, "C2AM_CACHE": tmp_path}
    outputs, printed = execute("tpu.ipynb", monkeypatch, **settings)
    assert "step 8, 300 images of glyphs_val" in printed and "cpu [" in printed
    stopped = "run the same command again to resume" in printed
    assert stopped == ("resumed from step" in printed)
    assert pictures(outputs) == 1
    assert any("glyphs/checkpoints/8/" in name for name in emulator.names())
