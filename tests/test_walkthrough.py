"""The notebook: it runs, its saved outputs are those of the code, its solutions work.

``MNIST_PATH=... python tests/test_walkthrough.py`` runs the notebook and saves what it
shows, where code or text have changed.
"""

import base64
import copy
import io
import os
import re

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOK = ROOT / "docs" / "walkthrough.ipynb"
SOLUTION = re.compile(
    r"<details>\n<summary>Solution</summary>\n\n.*?"
    r"```python\n(?P<code>.*?)```\n\nOutput:\n\n```text\n(?P<output>.*?)```",
    re.DOTALL,
)
NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]\d+)?%?")
# Assignments with a shape beside them, at the margin of a code cell.
SHAPE = re.compile(r"^(\w+) = .*# (\([\d, ]+\))$", re.MULTILINE)


def read():
    """Return the notebook as it is saved."""
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    """Return the code cells, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def solutions(notebook):
    """Return each solution's match: its code, and the output it promises."""
    found = (SOLUTION.search(cell.source) for cell in notebook.cells)
    return [match for match in found if match]


def execute(notebook):
    """Run a copy of the notebook, then its solutions; return both cells' lists.

    Between them a cell prints the shape of each array that has one beside it.
    """
    notebook = copy.deepcopy(notebook)
    own = code_cells(notebook)
    shaped = SHAPE.findall("\n".join(cell.source for cell in own))
    sources = ["\n".join(f"print({name!r}, {name}.shape)" for name, _ in shaped)]
    sources += [match["code"] for match in solutions(notebook)]
    added = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook.cells += added
    nbclient.NotebookClient(
        notebook,
        timeout=300,
        record_timing=False,
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    ).execute()
    for cell in own + added:
        cell.outputs = merge_streams(cell.outputs)
    return own, added


def merge_streams(outputs):
    """Join what was printed in several parts: where it is cut is a matter of time."""
    merged = []
    for output in outputs:
        last = merged[-1] if merged else {}
        if output.output_type == "stream" and output["name"] == last.get("name"):
            last["text"] += output["text"]
        else:
            merged.append(output)
    return merged


def kinds(cell):
    """Return what a cell shows, without its content."""
    return [
        (output.output_type, output.get("name") or sorted(output.data))
        for output in cell.outputs
    ]


def text_of(cell):
    """Return all that a cell shows as text."""
    return "\n".join(
        output["text"] if output.output_type == "stream" else output.data["text/plain"]
        for output in cell.outputs
    )


def figures_of(cell):
    """Return the figures of a cell."""
    return [
        Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def same_text(saved, fresh, varies=False):
    """Return whether two texts have the same words, and numbers that are close.

    Sums differ by rounding between builds of BLAS: a printed number by its last digits,
    the measured error of a gradient by some 1e-9. Cells that vary show the training in
    float32, where rounding errors grow from step to step, up to the difference between
    two seeds. Four seeds differed by 1.5 points of accuracy and 15 % of the loss.
    """
    words = [" ".join(NUMBER.sub("#", text).split()) for text in (saved, fresh)]
    if words[0] != words[1]:
        return False
    for one, other in zip(NUMBER.findall(saved), NUMBER.findall(fresh), strict=True):
        a, b = (float(n.replace(",", "").rstrip("%")) for n in (one, other))
        loose = 2 if one.endswith("%") else 0.02 + 0.3 * abs(a)
        if abs(a - b) > (loose if varies else 1e-6 + 1e-4 * abs(a)):
            return False
    return True


def same_figure(saved, fresh):
    """Return whether two figures show the same.

    Each names the version of matplotlib that drew it. Another version may shift all of
    it by a pixel, so that only sizes are compared then. The same version draws the same
    but for rounding: compared are means over areas, where the two most similar figures
    of the notebook differ by 1.6 of 255 levels.
    """
    if saved.info["Software"] != fresh.info["Software"]:
        return np.allclose(saved.size, fresh.size, rtol=0.1)
    small = [
        np.asarray(image.convert("RGB").resize((48, 48), Image.Resampling.BOX), float)
        for image in (saved, fresh)
    ]
    return saved.size == fresh.size and abs(small[0] - small[1]).mean() < 0.5


def varies(cell):
    """Return whether a cell is marked as one whose numbers depend on rounding."""
    return "varies" in cell.metadata.get("tags", ())


@pytest.fixture(scope="module")
def ran():
    """Run all once, on MNIST if it is there, else on the embedded digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MPLBACKEND", raising=False)
        # Two threads that wait for each other on a busy machine take ten times as long.
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        if not os.environ.get("MNIST_PATH"):
            patch.setenv("MNIST_PATH", str(ROOT / "digits" / "digits.npz"))
        return execute(read())


@pytest.fixture
def on_mnist():
    """Skip a test of numbers that only MNIST has."""
    if not os.environ.get("MNIST_PATH"):
        pytest.skip("the saved outputs are from MNIST, and MNIST_PATH names none")


def test_the_file_is_clean():
    notebook = read()
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < 1_500_000
    assert notebook.metadata == {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        assert cell.metadata in ({}, {"tags": ["varies"]}), cell.id
    for number, cell in enumerate(code_cells(notebook), start=1):
        assert cell.execution_count == number, cell.id
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data", "execute_result")
            assert output.get("name") != "stderr", cell.id
            assert output.get("metadata", {}) == {}, cell.id
        assert not re.search(r"(^|[\s'\"])(/|[A-Z]:\\)\w", text_of(cell)), cell.id


def test_every_relative_link_leads_somewhere():
    text = "\n".join(cell.source for cell in read().cells)
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert links
    for link in links:
        assert (NOTEBOOK.parent / link).exists(), link


@pytest.mark.parametrize("folder", ["docs", "."])
def test_it_finds_the_project_from(folder, monkeypatch):
    monkeypatch.chdir(ROOT / folder)
    monkeypatch.setattr("sys.path", [])
    names = {}
    exec(code_cells(read())[0].source, names)
    assert names["sys"].path == [str(ROOT)]


def test_the_pipeline_it_begins_with_is_that_of_the_default_network():
    from handwritten_classifier import HandwrittenNumberClassification

    model, first = HandwrittenNumberClassification(), read().cells[0].source
    assert f"`{model.architecture}`" in first
    for layer in model.layers[:-1]:
        assert f"(B, {', '.join(map(str, layer.output_shape))})" in first
    for layer in model.layers:
        assert not layer.parameters or f"| {layer.parameters:,} |" in first


@pytest.mark.filterwarnings("default")  # of the client's own libraries
def test_what_each_cell_shows_is_saved(ran):
    for saved, fresh in zip(code_cells(read()), ran[0], strict=True):
        assert kinds(saved) == kinds(fresh), saved.id


@pytest.mark.filterwarnings("default")
def test_the_saved_outputs_are_those_of_the_code(ran, on_mnist):
    for saved, fresh in zip(code_cells(read()), ran[0], strict=True):
        texts = text_of(saved), text_of(fresh)
        assert same_text(*texts, varies(saved)), (saved.id, *texts)
        for figures in zip(figures_of(saved), figures_of(fresh), strict=True):
            assert varies(saved) or same_figure(*figures), f"figure of {saved.id}"


@pytest.mark.filterwarnings("default")
def test_the_shapes_beside_arrays_are_theirs(ran):
    shaped = SHAPE.findall("\n".join(cell.source for cell in code_cells(read())))
    assert len(shaped) >= 15
    promised = "".join(f"{name} {shape}\n" for name, shape in shaped)
    assert text_of(ran[1][0]) == promised


@pytest.mark.filterwarnings("default")
def test_the_six_solutions_print_what_they_promise(ran):
    promised = [match["output"] for match in solutions(read())]
    assert len(promised) == 6
    for number, (saved, cell) in enumerate(zip(promised, ran[1][1:], strict=True), 1):
        fresh = text_of(cell)
        assert kinds(cell) == [("stream", "stdout")], number
        if os.environ.get("MNIST_PATH"):
            assert same_text(saved, fresh), (number, saved, fresh)
        else:
            assert len(saved.splitlines()) == len(fresh.splitlines()), number
        assert "False" not in fresh, number


def renew():
    """Run the notebook and save what it and its solutions show."""
    notebook = read()
    own, added = execute(notebook)
    for cell, fresh in zip(code_cells(notebook), own, strict=True):
        cell.outputs, cell.execution_count = fresh.outputs, fresh.execution_count
    printed = iter(text_of(cell) for cell in added[1:])
    for cell in notebook.cells:
        if match := SOLUTION.search(cell.source):
            start, end = match.span("output")
            cell.source = cell.source[:start] + next(printed) + cell.source[end:]
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    if not os.environ.get("MNIST_PATH"):
        raise SystemExit("The saved outputs are from MNIST: MNIST_PATH must name it.")
    renew()
