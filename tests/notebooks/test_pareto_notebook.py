from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "pareto.ipynb"


def test_the_notebook_reviews_a_fresh_study(small_study: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = f"STUDY = {small_study.name!r}\nRESULTS_DIR = {str(small_study.parent)!r}"
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) == 6  # of a study without layer sensitivities
    said = "".join(output.get("text", "") for output in outputs if output.output_type == "stream")
    assert "noise floor (the reference against itself): run twice" in said
    assert "rank correlation of prediction SNR with the images of" in said
    tables = [output for output in outputs if "<table" in output.get("data", {}).get("text/html", "")]
    assert len(tables) == 1  # the front


def test_every_code_cell_is_short() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(len(cell.source.splitlines()) <= 14 for cell in notebook.cells if cell.cell_type == "code")
