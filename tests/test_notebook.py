"""A notebook, run by a real kernel: what a model, a training and a figure look like."""

import hashlib
from functools import partial

import pytest
from conftest import ROOT
from test_readme import blocks, draw_seven

from digits.mnist import DIGITS

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

# With the warnings of the client's own libraries.
pytestmark = pytest.mark.filterwarnings("default")

START = """
import matplotlib.pyplot as plt
from digits.figures import plot_confusion, plot_history, plot_kernels, plot_steps
from digits.mnist import load_data
from handwritten_classifier import HandwrittenNumberClassification

data = load_data()
model = HandwrittenNumberClassification("4C5-MP4-10N", lr=0.1)
"""
FIT = "model.fit(data.train_images, data.train_labels, epochs=2);"
WITHOUT_WIDGETS = "import sys\nsys.modules['ipywidgets'] = None\n"
# Cells, each with the titles of the figures that it shows, in this order.
SHOWN = {
    "plot_history(model)": ["Loss"],
    "plot_history(model);": ["Loss"],
    "plot_history(model)\nplt.show()": ["Loss"],
    "figure = plot_history(model)": ["Loss"],
    "figure  # again": ["Loss"],
    "figure = plot_kernels(model)\nplt.show()\nprint('shown')": ["Kernels"],
    "plot_kernels(model)\nplot_history(model)": ["Kernels", "Loss"],
    "plot_kernels(model)\nplot_history(model)\nplt.show()": ["Kernels", "Loss"],
    "for _ in range(2):\n    plot_kernels(model)\nplot_history(model);": [
        "Kernels",
        "Kernels",
        "Loss",
    ],
    "display(plot_kernels(model))\nplot_history(model)": ["Kernels", "Loss"],
    "plot_kernels(model, figure=plt.figure(figsize=(6.4, 6.4)))": ["Kernels"],
    "plot_kernels(model, figure=plt.figure(figsize=(6.4, 5.0)).subfigures())": [
        "Kernels"
    ],
    "plot_history(model).savefig('history.png')": ["Loss"],
    "plt.get_fignums()": [],
    "plt.figure(figsize=(3, 3))\nplt.plot([1, 2])\nplot_kernels(model)": [
        "?",
        "Kernels",
    ],
}
WIDTHS = {900: "Loss", 640: "Kernels"}  # pixels


def run_cells(folder, *sources):
    """Run cells in a kernel of their own, in a folder, and return their outputs."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    resources = {"metadata": {"path": str(folder)}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_PATH", str(DIGITS))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("MPLBACKEND", raising=False)
        nbclient.NotebookClient(notebook, resources=resources, timeout=120).execute()
    return [[*cell.outputs] for cell in notebook.cells]


@pytest.fixture
def run(tmp_path):
    """Return a function that runs cells in a kernel and returns their outputs."""
    return partial(run_cells, tmp_path)


@pytest.fixture(scope="module", params=["", WITHOUT_WIDGETS], ids=["widgets", "none"])
def outputs(request, tmp_path_factory):
    """Return what each cell shows that trains and draws, with widgets and without."""
    folder = tmp_path_factory.mktemp("notebook")
    first = f"{request.param}{START}{FIT}\nplot_history(model)\nplt.show()"
    return run_cells(folder, first, "model", "plot_kernels(model)", *SHOWN)


def printed(outputs, name="stdout"):
    """Return what a cell has printed."""
    streams = [o for o in outputs if o.output_type == "stream" and o["name"] == name]
    return "".join(stream["text"] for stream in streams)


def figures(outputs):
    """Return the figures of a cell: their names and their pictures."""
    shown = [o["data"] for o in outputs if "image/png" in o.get("data", {})]
    sizes = [data["text/plain"].partition("size ")[2] for data in shown]
    names = [WIDTHS.get(int(size.partition("x")[0]), "?") for size in sizes]
    return names, [data["image/png"] for data in shown]


@pytest.mark.parametrize("outputs", [""], indirect=True, ids=["widgets"])
def test_a_notebook_shows_bar_table_and_figure(outputs):
    training, table, figure = outputs[:3]
    lines = printed(training).splitlines()
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    bars = [o["data"] for o in training if o.output_type == "display_data"]
    assert any("application/vnd.jupyter.widget-view+json" in bar for bar in bars)
    assert "<table>" in table[0]["data"]["text/html"]
    assert len(figure) == 1
    assert "image/png" in figure[0]["data"]


def test_each_figure_is_shown_once_and_in_order(outputs):
    assert figures(outputs[0])[0] == ["Loss"]
    for source, cell in zip(SHOWN, outputs[3:], strict=True):
        assert figures(cell)[0] == SHOWN[source], source
        assert printed(cell, "stderr") == "", source
    assert outputs[list(SHOWN).index("plt.get_fignums()") + 3][0]["data"] == {
        "text/plain": "[]"
    }


@pytest.mark.parametrize("outputs", [WITHOUT_WIDGETS], indirect=True, ids=["none"])
def test_a_notebook_without_widgets_has_bars_of_text(outputs):
    training = outputs[0]
    assert printed(training).count("epoch") == 2
    assert "images/s" in printed(training, "stderr")
    assert "Warning" not in printed(training, "stderr")


def test_pyplot_can_be_imported_after_the_first_figure(run):
    start = START.replace("import matplotlib.pyplot as plt\n", "")
    last = "plot_kernels(model)\nimport matplotlib.pyplot as plt\nplt.show()"
    assert figures(run(start + last)[0])[0] == ["Kernels"]


def readme_cells():
    """Return the README's blocks that need no cluster."""
    return [block for block in blocks() if "import dask" not in block]


def test_the_readme_s_walk_through_runs_cell_by_cell(run, tmp_path):
    draw_seven(tmp_path)
    sources = readme_cells()
    outputs = run(*sources)
    assert len(sources) == len(blocks()) - 1 >= 3  # all but that of Dask
    # The first cell ends in the model.
    assert "<table>" in outputs[0][-1]["data"]["text/html"]
    for cell in outputs:
        assert not [o for o in cell if o.get("name") == "stderr"]


def test_the_readme_s_walk_through_as_one_cell_shows_each_figure_once(run, tmp_path):
    draw_seven(tmp_path)
    source = "\n".join(readme_cells())
    (outputs,) = run(source)
    pictures = figures(outputs)[1]
    assert len(pictures) == len(set(map(picture_hash, pictures)))
    assert len(pictures) == source.count("\nplot_") >= 3


def picture_hash(picture):
    """Return a short name of a picture, which an assertion can print."""
    return hashlib.sha256(picture.encode()).hexdigest()[:8]
