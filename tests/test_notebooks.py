"""The notebooks: they run to their end in a fresh kernel, show no warning, and what they claim holds.

``python tests/test_notebooks.py`` writes their outputs anew, in the environment that ``make test`` makes.
"""

import copy
import os
import tempfile
from pathlib import Path

import nbformat
import pytest
from conftest import BACKEND
from nbclient import NotebookClient

STORY = Path(__file__).parents[1] / "notebooks" / "story.ipynb"
TABLE_OF_CLAIMS = "claims-code"  # the id of the last cell, which checks and prints them

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="the notebooks are executed once, on TensorFlow")


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    """What a cell printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def claims(notebook):
    """What the last cell says of each claim."""
    return printed(next(cell for cell in notebook.cells if cell.id == TABLE_OF_CLAIMS)).splitlines()


def pictures(notebook):
    """How many pictures each cell shows."""
    return [sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in code_cells(notebook)]


def executed(notebook, folder):
    """A copy of the notebook, run in a fresh kernel of this environment in an empty folder."""
    notebook = copy.deepcopy(notebook)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return notebook


def check_outputs(notebook):
    """Every cell ran, in order, and shows neither an error nor a warning; the claims hold."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", (cell.id, output)
            assert output.get("name") != "stderr", (cell.id, output.text)
        assert "WARNING" not in printed(cell), (cell.id, printed(cell))
    assert len(claims(notebook)) > 20
    assert all(line.startswith("holds") for line in claims(notebook)), claims(notebook)


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(STORY, as_version=4)


def test_the_stored_outputs_are_complete_and_small(stored):
    nbformat.validate(stored)
    check_outputs(stored)
    assert STORY.stat().st_size < 600_000
    for cell in stored.cells:
        assert "/tmp/" not in str(cell) and "/home/" not in str(cell), f"{cell.id} names a place on one machine"


# What the machinery that runs notebooks warns of is not ours; what a reader would see is looked for in the outputs.
@pytest.mark.filterwarnings("default")
def test_the_story_runs_in_a_fresh_kernel(stored, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    # The kernel of this environment, whatever else the machine has; no start-up files and no history of the user.
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the notebook has its own, which puts pictures into it
    working = tmp_path / "working"
    working.mkdir()
    again = executed(stored, working)
    check_outputs(again)
    assert claims(again) == claims(stored)
    assert pictures(again) == pictures(stored)
    assert sum(pictures(again)) > 10
    assert not list(working.iterdir()), "the notebook leaves files behind"


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(executed(nbformat.read(STORY, as_version=4), folder), STORY)
