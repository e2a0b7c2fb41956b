"""The tutorial, executed cell by cell, as Jupyter would."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.drills import segments

pytestmark = pytest.mark.process

TUTORIAL = Path(__file__).parents[2] / "examples" / "tutorial.ipynb"


@pytest.fixture
def notebook() -> Any:
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(TUTORIAL, as_version=4)


def test_the_tutorial_is_kept_without_outputs(notebook: Any) -> None:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells), "strip them: they are for readers"


@pytest.mark.slow
def test_every_cell_of_the_tutorial_runs_and_the_runs_show_themselves(
    notebook: Any, tmp_path: Path, monkeypatch
) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    # Not those of the user: a kernel of the same Python, and nothing of an own profile.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output["data"].get("text/html", "") for output in outputs if "data" in output]
    assert sum("data:image/png;base64," in text for text in shown) == 3, "two runtimes and a folder draw their stagger"
    said = "".join(output.get("text", "") for output in outputs)
    assert "updates while it played" in said
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert segments(os.getpid()) == []
