"""The notebooks of the tutorials: they run as they are, and keep the output that they printed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from shapes import REPO

NOTEBOOKS = sorted((REPO / "docs" / "tutorials").glob("*.ipynb"))
nbformat = pytest.importorskip("nbformat", reason="needs the extra docs")


def texts(notebook: Any) -> list[str]:
    """What each code cell printed or returned, as text; how it is cut into pieces is a matter of time."""
    cells = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return [
        "".join(one.get("text") or one.get("data", {}).get("text/plain", "") for one in outputs) for outputs in cells
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_keeps_its_output(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert sum(map(bool, texts(notebook))) >= 2
    assert path.stem in (path.parent / "index.md").read_text(encoding="utf-8")
    assert "%pip install" in cells[0].source, "it opens in Colab as it is"


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) >= 7


@pytest.mark.slow
@pytest.mark.pretrained
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("nbclient", reason="needs the extra docs")
    folders = {"PATH": Path(sys.executable).parent, "PYTHONPATH": REPO}
    for name, folder in folders.items():  # cells call `mlfix`
        monkeypatch.setenv(name, os.pathsep.join(filter(None, [str(folder), os.environ.get(name)])))
    notebook = nbformat.read(path, 4)
    expected = [len(text) > 0 for text in texts(notebook)]
    client.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [len(text) > 0 for text in texts(notebook)] == expected
