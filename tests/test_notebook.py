"""A notebook, run by a real kernel: what a model, a training and a figure look like."""

import pytest
from conftest import ROOT
from test_readme import blocks, draw_seven

from digits.mnist import DIGITS

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

CELLS = (
    "from handwritten_classifier import HandwrittenNumberClassification\n"
    "from digits.figures import plot_kernels\n"
    "from digits.mnist import load_data\n"
    "data = load_data()\n"
    "model = HandwrittenNumberClassification('4C5-MP4-10N', lr=0.1)",
    "model.fit(data.train_images, data.train_labels, epochs=2);",
    "model",
    "plot_kernels(model)",
)


@pytest.mark.filterwarnings("default")  # of the client's own libraries
def test_a_notebook_shows_bar_table_and_figure(monkeypatch):
    monkeypatch.setenv("MNIST_PATH", str(DIGITS))
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    resources = {"metadata": {"path": str(ROOT)}}
    nbclient.NotebookClient(notebook, resources=resources, timeout=120).execute()
    _, training, table, figure = ([*cell.outputs] for cell in notebook.cells)

    printed = "".join(o["text"] for o in training if o.output_type == "stream")
    assert [line.split()[1] for line in printed.splitlines()] == ["1/2", "2/2"]
    bars = [o["data"] for o in training if o.output_type == "display_data"]
    assert any("application/vnd.jupyter.widget-view+json" in bar for bar in bars)
    assert "<table>" in table[0]["data"]["text/html"]
    assert len(figure) == 1
    assert "image/png" in figure[0]["data"]


@pytest.mark.filterwarnings("default")
def test_the_readme_s_walk_through_runs_cell_by_cell(monkeypatch, tmp_path):
    monkeypatch.setenv("MNIST_PATH", str(DIGITS))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    draw_seven(tmp_path)
    notebook = nbformat.v4.new_notebook()
    sources = [block for block in blocks() if "import dask" not in block]
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, resources=resources, timeout=120).execute()
    assert len(sources) >= 4
    shown = [*notebook.cells[0].outputs]  # The first cell ends in the model.
    assert "<table>" in shown[-1]["data"]["text/html"]
    for cell in notebook.cells:
        assert not [o for o in cell.outputs if o.get("name") == "stderr"]
