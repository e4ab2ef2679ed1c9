"""Figures: what they show, of every kind of network."""

import numpy as np
import pytest
from helpers.networks import SMALL, assert_same_parameters, small_model, snapshot
from helpers.pictures import lay_out
from numpy.testing import assert_allclose, assert_array_equal

from digits.figures import (
    plot_comparison,
    plot_confusion,
    plot_distortions,
    plot_history,
    plot_kernels,
    plot_mistakes,
    plot_reading,
    plot_steps,
)
from digits.pictures import find_digits, name_digits
from handwritten_classifier import HandwrittenNumberClassification


@pytest.mark.parametrize("architecture", ["3N", "1C3-3N", "64C3-MP2-5C2-3N", "5N-3N"])
def test_figures_are_drawn_for_every_architecture(examples, architecture, tmp_path):
    from matplotlib.figure import Figure

    model = HandwrittenNumberClassification(architecture, **SMALL)
    model.fit(*examples, validation_data=examples, verbose=0)
    for number, draw in enumerate(
        (
            lambda **f: plot_history(model, **f),
            lambda **f: plot_kernels(model, **f),
            lambda **f: plot_confusion(model, *examples, **f),
            lambda **f: plot_mistakes(model, *examples, **f),
            lambda **f: plot_steps(model, examples[0][0], **f),
            lambda **f: plot_steps(model, examples[0][0], label=2, **f),
        )
    ):
        figure = Figure()
        assert draw(figure=figure) is figure
        path = tmp_path / f"{number}.png"
        draw().savefig(path)
        assert path.stat().st_size > 1000


def test_an_untrained_model_has_an_empty_history_to_draw():
    for panel in plot_history(small_model()).axes:
        assert [text.get_text() for text in panel.texts] == ["no epoch is finished yet"]
        assert panel.get_legend() is None


def test_epochs_without_validation_are_gaps_in_its_curve(examples):
    model = small_model().fit(*examples, epochs=2, verbose=0)
    model.fit(*examples, epochs=1, validation_data=examples, verbose=0)
    model.fit(*examples, epochs=1, verbose=0)
    line = plot_history(model).axes[0].lines[1]
    assert_array_equal(line.get_xdata()[~np.isnan(line.get_ydata())], [3])


@pytest.mark.parametrize(("architecture", "layer"), [("4C3-3N", 1), ("3N", 1)])
def test_kernels_that_are_not_there_are_not_drawn(architecture, layer):
    model = HandwrittenNumberClassification(architecture, **SMALL)
    with pytest.raises(ValueError, match=r"layer must be below 1, .*; got 1"):
        plot_kernels(model, layer)


def test_the_confusion_counts_every_image(examples):
    model = small_model()
    panel = plot_confusion(model, *examples).axes[0]
    assert sum(int(text.get_text()) for text in panel.texts) == 50


def test_the_mistakes_are_the_most_confident_ones(examples):
    model = small_model()
    probabilities = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.4, 0.6, 0]])
    images, labels = examples[0][:3], np.array([1, 1, 0])
    figure = plot_mistakes(model, images, labels, probabilities)
    titles = [panel.get_title() for panel in figure.axes if panel.get_title()]
    assert titles == ["seen 0 (90.0%)\ntrue 1", "seen 1 (60.0%)\ntrue 0"]


@pytest.mark.parametrize("plot", [plot_confusion, plot_mistakes])
def test_wrong_labels_are_drawn_by_no_figure(examples, plot):
    images, labels = examples
    for wrong in (labels - 1, labels[:, np.newaxis], labels[:-1], labels + 0.5):
        with pytest.raises((ValueError, TypeError), match="labels must"):
            plot(small_model(), images, wrong)


def test_images_of_two_channels_are_drawn_in_grey(rng):
    model = HandwrittenNumberClassification("3N", input_shape=(8, 8, 2))
    images, labels = rng.random((9, 8, 8, 2)), rng.integers(0, 3, size=9)
    figure = plot_mistakes(model, images, labels)
    assert figure.axes[0].images[0].get_array().shape == (8, 8)
    plot_distortions(model, images)


def test_the_steps_are_those_of_the_network(examples):
    model = HandwrittenNumberClassification("3C3-2C2-MP2-4N-3N", **SMALL)
    before, image = snapshot(model), examples[0][:1]
    with_label = plot_steps(model, image, label=2)
    assert_same_parameters(model, before)
    titles = [panel.get_title() for panel in with_label.axes if panel.get_title()]
    assert [title.partition(". ")[2] for title in titles] == [
        "image",
        "3C3: convolution",
        "bias, ReLU",
        "2C2: convolution",
        "MP2: max pooling",
        "bias, ReLU",
        "4N: dense, as convolution",
        "bias, ReLU",
        "flattened",
        "probabilities",
        "by the flattened",
        "by the input of ReLU",
        "by the kernels of 4N",
        "by the input of 4N",
        "by the input of ReLU",
        "by the input of MP2, unpooled",
        "by the kernels of 2C2",
        "by the input of 2C2",
        "by the input of ReLU",
        "by the kernels of 3C3",
    ]
    bars = [bar.get_width() for bar in with_label.axes[9].patches]
    assert_allclose(bars, model.forward(image)[0])
    kernel = model.compute_gradients(image, [2])[1]["kernels.0"]
    drawn = with_label.subfigs[1].axes[9].images[0].get_array()
    assert_array_equal(drawn[1:4, 1:4], kernel[0, 0])
    alone = plot_steps(model, image[0])
    assert len([p for p in alone.axes if p.get_title()]) == 10


def test_the_winners_are_marked_where_they_stood():
    model = HandwrittenNumberClassification("MP2-3N", input_shape=(4, 4, 1))
    image = np.array([[1, 3, 2, 2], [0, 1, 2, 1], [5, 0, 0, 0], [2, 5, 0, 4.0]])
    panel = plot_steps(model, image).axes[0]
    assert "winners dotted" in panel.get_xlabel()
    marked = {(y, x) for x, y in panel.collections[0].get_offsets().data.tolist()}
    assert marked == {(0, 1), (0, 2), (2, 0), (3, 3)}


def test_gradients_are_drawn_as_signed_even_if_none_is_negative(examples):
    images, labels = examples
    figure = plot_steps(small_model(), 0 * images[0], labels[0])
    for panel in figure.subfigs[1].axes:
        for drawn in panel.images:
            assert drawn.get_cmap().name == "coolwarm"
            assert drawn.norm.vmin == -drawn.norm.vmax


def test_steps_are_drawn_of_a_single_image_only(examples):
    model = small_model()
    with pytest.raises(ValueError, match="image must be a single one; got 50"):
        plot_steps(model, examples[0])
    with pytest.raises(ValueError, match=r"label must be in 0\.\.2; got 3"):
        plot_steps(model, examples[0][0], label=3)
    with pytest.raises(ValueError, match=r"image must have shape \(B, 8, 8, 1\)"):
        plot_steps(model, np.zeros((7, 8)))


def test_a_reading_shows_boxes_stages_and_readings(digits):
    model = HandwrittenNumberClassification()
    sheet, _ = lay_out(digits.test_images[:3])
    figure = plot_reading(model, sheet)
    found = find_digits(sheet)
    names = name_digits(model.predict_proba(found.images))
    above, below = figure.subfigs
    titles = [panel.get_title() for panel in above.axes]
    assert titles == list(found.stages)
    assert [text.get_text() for text in above.axes[0].texts] == names
    for patch, (top, left, bottom, right) in zip(
        above.axes[0].patches, found.boxes, strict=True
    ):
        low, high = patch.get_xy().min(axis=0), patch.get_xy().max(axis=0)
        assert_array_equal([*low, *high], [left, top, right, bottom])
    for panel in above.axes:  # In pixels of the picture, whatever is drawn on it.
        assert panel.get_xlim() == (0, sheet.shape[1])
        assert panel.get_ylim() == (sheet.shape[0], 0)
    shown = [panel.get_title().split()[0] for panel in below.axes[:3]]
    assert shown == names
    assert_array_equal(below.axes[1].images[0].get_array(), found.images[1, ..., 0])


def test_of_many_digits_a_reading_says_how_many_are_shown(digits):
    model = HandwrittenNumberClassification()
    sheet, _ = lay_out(digits.test_images[:45], scale=2, columns=9, gap=8)
    count = len(find_digits(sheet).boxes)
    assert count > 40
    title = plot_reading(model, sheet).subfigs[1].get_suptitle()
    assert title.endswith(f", the first 40 of {count}")


def test_the_comparison_shows_training_beside_test_for_each():
    row = {"train_loss": 0.1, "test_loss": 0.2, "train_accuracy": 0.97}
    results = [row | {"architecture": a, "test_accuracy": 0.96} for a in "ABC"]
    figure = plot_comparison(results)
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == ["Accuracy vs. Configuration", "Loss vs. Configuration"]
    ticks = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert ticks == ["A", "B", "C"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["training", "test"]
    for panel, numbers in zip(
        figure.axes, ({"97.00", "96.00"}, {"0.100", "0.200"}), strict=True
    ):
        assert {text.get_text() for text in panel.texts} == numbers
        for points in panel.collections:
            assert points.get_offsets()[:, 1].tolist() == [0, 1, 2]


def test_results_that_lie_close_together_can_be_read_off_the_axis():
    row = {"architecture": "A", "train_accuracy": 0.9834, "test_accuracy": 0.9822}
    figure = plot_comparison([row | {"train_loss": 0.112, "test_loss": 0.113}])
    ticks = [
        [text.get_text() for text in panel.get_xticklabels()] for panel in figure.axes
    ]
    assert ticks == [["98.22", "98.34"], ["0.112", "0.113"]]
