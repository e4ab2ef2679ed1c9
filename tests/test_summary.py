"""Looking inside: the table of the layers, and what each step makes of an image."""

import re

import numpy as np
import pytest
from helpers.networks import SMALL, assert_same_parameters, small_model, snapshot
from numpy.testing import assert_allclose, assert_array_equal

from digits.figures import plot_steps
from handwritten_classifier import HandwrittenNumberClassification


def test_a_model_as_text_is_a_table_of_its_layers():
    lines = str(HandwrittenNumberClassification("8C4-MP3s2-16N-10N")).splitlines()
    cells = [line.split() for line in lines]
    assert cells[3] == [
        "8C4",
        "convolution",
        "4x4,",
        "ReLU",
        "25x25x8",
        "136",
        "80,000",
    ]
    assert cells[4][0] == "MP3s2"
    assert cells[4][-3:] == ["12x12x8", "0", "0"]
    assert cells[5][-2:] == [f"{16 * (12 * 12 * 8 + 1):,}", f"{16 * 12 * 12 * 8:,}"]
    assert cells[-1] == ["total", "18,754", "98,592"]


def test_the_summary_is_printed_and_begins_with_that_table(capsys):
    model = HandwrittenNumberClassification("12C4-MP3-64C4-10N")
    assert model.summary() is None
    printed = capsys.readouterr().out
    assert printed.startswith(f"{model}\n")
    # 28 - 4 + 1 = 25 rows are 8 windows of 3 and one row more, which needs no pixel.
    assert "27x27 of 28x28" in printed


@pytest.mark.parametrize("architecture", ["8C5-10N", "10N"])
def test_where_nothing_differs_the_table_is_all(architecture, capsys):
    model = HandwrittenNumberClassification(architecture)
    model.summary()
    assert capsys.readouterr().out == f"{model}\n"


def test_a_notebook_shows_the_same_table():
    model = HandwrittenNumberClassification()
    html = model._repr_html_()
    assert html.startswith("<table>")
    for cell in ("8C4", "25x25x8", "82,880"):
        assert f">{cell}<" in html
        assert cell in str(model)


def test_the_parameters_of_the_summary_are_those_of_the_arrays():
    model = HandwrittenNumberClassification("8C3s2p1-MP2-6C3-20N-10N")
    size = sum(array.size for array in model.parameters.values())
    assert sum(layer.parameters for layer in model.layers) == size


def test_repr_shows_what_differs_from_the_defaults():
    model = HandwrittenNumberClassification("10N", lr=0.5)
    assert repr(model) == "HandwrittenNumberClassification('10N', lr=0.5)"


def as_size(shape):
    return "x".join(map(str, shape))


@pytest.mark.parametrize(
    "architecture",
    [
        "10N",
        "8C4-MP4-10N",
        "12C4-MP3-64C4-10N",
        "8C3s2p1-MP3s2-6C2-10N",
        "MP2-5C4-MP2s3-16N-10N",
        "8C5-8C5-MP2-10N",
    ],
)
def test_sizes_agree_in_the_table_the_trace_and_the_figure(architecture, rng):
    model, image = HandwrittenNumberClassification(architecture), rng.random((28, 28))
    table = [
        (line.split()[0], re.search(r" (\d+x\d+x\d+)", line)[1])
        for line in str(model).splitlines()[3:-1]
    ]
    forward, back = model.trace_steps(image, 3)
    traced = [
        (title.partition(":")[0], as_size(array.shape))
        for title, array, _ in forward
        if ":" in title
    ]
    assert traced == table[:-1]
    gradients = [
        (found[1], as_size(array.shape))
        for title, array, _ in back
        if (found := re.match(r"by the input of (\w*\d\w*)", title))
    ]
    kernels = [n for n, (token, _) in enumerate(table[:-1]) if "MP" not in token]
    first = kernels[0] if kernels else len(table)
    # Down to the first convolution: each is as large as what its layer reads.
    below = reversed(range(first + 1, len(table) - 1))
    assert gradients == [(table[n][0], table[n - 1][1]) for n in below]
    above, below = plot_steps(model, image, 3).subfigs
    for part, steps in ((above, forward), (below, back)):
        for panel, (_, array, _) in zip(part.axes, steps, strict=False):
            if array.ndim == 3:
                assert panel.get_xlabel().split(",")[0] == as_size(array.shape)


def test_the_trace_is_of_the_steps_that_the_network_takes(examples):
    model = HandwrittenNumberClassification("4C2-MP2-5C2-6N-3N", dtype=float, **SMALL)
    before, (images, labels) = snapshot(model), examples
    forward, back = model.trace_steps(images[0], labels[0])
    assert_same_parameters(model, before)
    assert_array_equal(forward[0][1][..., 0], images[0])
    assert forward[1][1].shape == (7, 7, 4)  # of which training reads 6 by 6
    assert_allclose(forward[-1][1], model.forward(images[:1])[0], rtol=1e-12)
    assert [title for title, _, _ in forward] == [
        "image",
        "4C2: convolution",
        "MP2: max pooling",
        "bias, ReLU",
        "5C2: convolution",
        "bias, ReLU",
        "6N: dense, as convolution",
        "bias, ReLU",
        "flattened",
        "scores",
        "probabilities",
    ]
    *_, rectified, flattened, scores, probabilities = (a for _, a, _ in forward)
    assert_array_equal(flattened, rectified.ravel())
    assert_array_equal(model.softmax(scores[np.newaxis])[0], probabilities)
    assert [title for title, _, _ in back] == [
        "by the flattened",
        "by the input of ReLU",
        "by the kernels of 6N",
        "by the input of 6N",
        "by the input of ReLU",
        "by the kernels of 5C2",
        "by the input of 5C2",
        "by the input of ReLU",
        "by the input of MP2, unpooled",
        "by the kernels of 4C2",
    ]
    gradients = model.compute_gradients(images[:1], labels[:1])[1]
    for token, name in (("4C2", "kernels.0"), ("5C2", "kernels.1")):
        (found,) = (a for title, a, _ in back if title == f"by the kernels of {token}")
        assert_allclose(found, gradients[name], rtol=1e-9, atol=1e-15)


def test_without_a_label_there_is_no_way_back(examples):
    forward, back = small_model().trace_steps(examples[0][0])
    assert back == []
    assert forward[-1][2] is None
