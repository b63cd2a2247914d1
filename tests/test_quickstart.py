"""The notebook of the docs runs from its first cell to its last."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # what the notebook packages warn about is theirs
def test_the_notebook_runs_and_shows_detections(tmp_path, monkeypatch):
    """With few steps: what counts is that every cell works. QUICKSTART_DATA may name glyphs that are drawn already."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("QUICKSTART_STEPS", "20")
    monkeypatch.setenv("QUICKSTART_WORKDIR", str(tmp_path / "run"))
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # the eight devices of the tests
    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["kernelspec"] = spec
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "step 20, 300 images of glyphs_val" in printed and "in 8 pictures" in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert len(list((tmp_path / "run" / "pictures").glob("*.jpg"))) == 8
