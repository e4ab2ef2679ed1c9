"""What the README and docs/ say is run, and what they name is there."""

import re

import numpy as np
import pytest
from conftest import ROOT
from numpy.testing import assert_allclose
from PIL import Image

from digits.mnist import DIGITS

README_PATH = ROOT / "README.md"
README = README_PATH.read_text(encoding="utf-8")


def draw_seven(folder):
    """Write the picture that the README's lines read."""
    seven = np.full((300, 200), 255, np.uint8)
    seven[50:80, 40:160], seven[50:250, 130:160] = 0, 0
    Image.fromarray(seven).save(folder / "seven.png")


def blocks():
    """Return the README's Python blocks, in their order."""
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Run all of the README's Python lines, in their order; return what they define."""
    folder = tmp_path_factory.mktemp("readme")
    draw_seven(folder)
    defined = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MNIST_PATH", str(DIGITS))
        for block in blocks():
            if "import dask" in block:  # tests/test_dask.py
                continue
            exec(compile(block, "README.md", "exec"), defined)
            if "d_kernel" in defined and "expected" not in defined:
                model, images = defined["model"], defined["images"]
                defined["expected"] = model.compute_gradients(images, defined["labels"])
    return defined


def test_the_python_lines_run(names):
    assert names["model"].history["loss"]


def test_the_steps_shown_are_those_of_the_network(names):
    if "expected" not in names:
        pytest.skip("the README leaves the steps to docs/walkthrough.ipynb")
    loss, gradients = names["expected"]
    assert names["loss"] == pytest.approx(loss, rel=1e-5)
    for name, found in (
        ("kernels.0", names["d_kernel"]),
        ("W_dense", names["d_W_dense"]),
        ("B_dense", names["d_B_dense"]),
    ):
        assert_allclose(found, gradients[name], rtol=1e-3, atol=1e-6, err_msg=name)


def test_the_shapes_in_the_comments_are_those_of_the_arrays(names):
    shown = re.findall(r"^(\w+)(?:, \w+)* = .*# (\([\d, ]+\))$", README, re.MULTILINE)
    if not shown:
        pytest.skip("the README leaves the shapes to docs/walkthrough.ipynb")
    for name, shape in shown:
        assert str(names[name].shape) == shape, name


@pytest.mark.parametrize(
    "text", [README_PATH, *ROOT.glob("docs/*.md")], ids=lambda path: path.name
)
def test_what_it_links_and_names_is_there(text):
    content = text.read_text(encoding="utf-8")
    linked = [text.parent / name for name in re.findall(r"\]\(([^)#:]+)\)", content)]
    paths = r"[` ]((?:digits|docs|tests)/[\w/]*(?:\.\w+)?|handwritten_classifier\.py)"
    named = [ROOT / name for name in re.findall(paths, content)]
    assert linked
    assert named
    for path in linked + named:
        assert path.exists(), path


def test_the_recipes_it_shows_are_those_of_the_program():
    from run import CONFIGURATIONS, RECIPES

    for recipe in RECIPES.values():
        assert f"`{recipe['architecture']}`" in README
    for configuration in CONFIGURATIONS:
        assert f"`{configuration}`" in README


def test_the_pipeline_it_shows_is_that_of_the_default_network():
    from handwritten_classifier import HandwrittenNumberClassification

    for layer in HandwrittenNumberClassification().layers[:-1]:
        assert f"(B, {', '.join(map(str, layer.output_shape))})" in README
    parameters = HandwrittenNumberClassification().parameters
    assert f"| {parameters['kernels.0'].size + parameters['biases.0'].size} |" in README
