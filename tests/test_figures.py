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
        draw().savefig(path, dpi=30)
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


def collect_steps(examples, **settings):
    """Return a model that has learned, and its steps as `plot_history` takes them."""
    model, steps = small_model(**settings), []

    def collect(model, step, loss):
        steps.append((step, loss, model.rate))

    model.fit(*examples, validation_data=examples, callback=collect, verbose=0)
    return model, steps


def marked_epochs(panel):
    """Return the marks on the axis above a panel: places, and numbers of epochs."""
    (above,) = panel.child_axes
    numbers = [text.get_text() for text in above.get_xticklabels()]
    return above.get_xticks().tolist(), numbers


def test_one_epoch_is_drawn_by_step(examples):
    model, steps = collect_steps(examples, batch_size=10)
    loss, rate, accuracy = plot_history(model, steps).axes
    titles = [panel.get_title() for panel in (loss, rate, accuracy)]
    assert titles == ["Loss", "Learning rate", "Accuracy"]
    assert_array_equal(loss.lines[0].get_xdata(), [1, 2, 3, 4, 5])
    assert_array_equal(loss.lines[0].get_ydata(), [row[1] for row in steps])
    assert_array_equal(rate.lines[0].get_ydata(), [row[2] for row in steps])
    assert marked_epochs(loss) == marked_epochs(rate) == ([5], ["1"])
    assert loss.lines[1].get_xydata().tolist() == [[5, *model.history["val_loss"]]]


def test_the_epochs_of_a_long_training_are_marked_legibly(examples):
    model, steps = collect_steps(examples, batch_size=25, epochs=30)
    places, numbers = marked_epochs(plot_history(model, steps).axes[0])
    assert numbers == [str(n) for n in range(3, 31, 3)]
    assert places == [2 * n for n in range(3, 31, 3)]


def test_a_noisy_loss_is_drawn_faintly_below_its_running_mean(rng):
    losses = rng.random(300)
    panel = plot_history(small_model(), [(n, x, 1) for n, x in enumerate(losses)])
    raw, mean = panel.axes[0].lines
    assert_array_equal(raw.get_ydata(), losses)
    assert raw.get_alpha() < 0.5 < 1 < mean.get_linewidth()
    assert mean.get_label() == "mean of up to 15 steps"
    aside = [min(n // 4, 7) for n in range(300)]
    means = [losses[n - m : n + m + 1].mean() for n, m in enumerate(aside)]
    assert_allclose(mean.get_ydata(), means)


def test_steps_of_a_second_fit_are_counted_on():
    line = plot_history(small_model(), 2 * [(1, 2.0, 0.1), (2, 1.0, 0.1)]).axes[0]
    assert_array_equal(line.lines[0].get_xdata(), [1, 2, 3, 4])


def test_epochs_of_unequal_length_are_not_marked(examples):
    model, steps = collect_steps(examples, epochs=2, batch_size=10)
    assert plot_history(model, steps[:-1]).axes[0].child_axes == []


@pytest.mark.parametrize("losses", [[2.0], [0.0, 0.0], [3.0, 1e-9]])
def test_a_training_of_few_steps_is_drawn(losses, tmp_path):
    figure = plot_history(small_model(), [(n, x, 0.1) for n, x in enumerate(losses)])
    figure.savefig(tmp_path / "few.png")
    assert_allclose(figure.axes[0].lines[0].get_ydata(), losses, rtol=1e-6)


@pytest.mark.parametrize("steps", [[1, 2], [(1, 2.0)], [(1, "x", 3)], 5, "abc"])
def test_steps_of_another_form_are_refused(steps):
    with pytest.raises(
        ValueError, match=r"steps must be a list of \(step, loss, learn"
    ):
        plot_history(small_model(), steps)


def test_without_steps_one_epoch_is_two_labelled_points(examples):
    model = small_model().fit(*examples, validation_data=examples, verbose=0)
    loss, accuracy = plot_history(model).axes
    history = {name: values[0] for name, values in model.history.items()}
    shown = [text.get_text() for text in loss.texts]
    assert shown == [f"{history['loss']:.4f}", f"{history['val_loss']:.4f}"]
    shown = [text.get_text() for text in accuracy.texts]
    assert shown == [f"{100 * history[k]:.2f}" for k in ("accuracy", "val_accuracy")]
    assert accuracy.get_xticks().tolist() == [1]
    assert 0 <= accuracy.get_ylim()[0] < accuracy.get_ylim()[1] <= 101


@pytest.mark.parametrize(("architecture", "layer"), [("4C3-3N", 1), ("3N", 1)])
def test_kernels_that_are_not_there_are_not_drawn(architecture, layer):
    model = HandwrittenNumberClassification(architecture, **SMALL)
    with pytest.raises(ValueError, match=r"layer must be below 1, .*; got 1"):
        plot_kernels(model, layer)


def shown_tiles(figure):
    """Return how many tiles of numbers a picture of kernels has, down and across."""
    picture = figure.axes[0].images[0].get_array()
    drawn = ~np.ma.getmaskarray(np.ma.masked_invalid(picture))
    return [
        np.count_nonzero(np.diff(drawn.any(axis=axis).astype(int)) == 1)
        for axis in (1, 0)
    ]


def test_of_a_large_layer_a_part_is_drawn_and_named():
    model = HandwrittenNumberClassification("12C3-64C3-3N", **SMALL)
    figure = plot_kernels(model, 1)
    title = "Kernels of 64C3: 64 of 3x3x12\nshown: the first 16 of 64 filters, "
    assert figure.axes[0].get_title() == title + "8 of 12 channels"
    assert shown_tiles(figure) == [8, 16]
    picture = figure.axes[0].images[0].get_array()
    assert_array_equal(picture[1:4, 5:8], model.kernels[1][1, 0])
    assert_array_equal(picture[5:8, 1:4], model.kernels[1][0, 1])


@pytest.mark.parametrize(("channels", "tiles"), [(1, [6, 11]), (3, [12, 16])])
def test_the_first_layer_is_drawn_whole(channels, tiles):
    model = HandwrittenNumberClassification("64C3-3N", input_shape=(8, 8, channels))
    figure = plot_kernels(model)
    assert figure.axes[0].get_title() == f"Kernels of 64C3: 64 of 3x3x{channels}"
    assert shown_tiles(figure) == tiles


def test_a_small_layer_behind_the_first_is_drawn_whole():
    figure = plot_kernels(HandwrittenNumberClassification("8C3-16C3-3N", **SMALL), 1)
    assert figure.axes[0].get_title() == "Kernels of 16C3: 16 of 3x3x8"
    assert shown_tiles(figure) == [8, 16]


def test_the_confusion_counts_every_image(examples):
    model = small_model()
    panel = plot_confusion(model, *examples).axes[0]
    assert sum(int(text.get_text()) for text in panel.texts) == 50


@pytest.mark.parametrize("errors", [0, 1, 2, 3, 7])
def test_errors_are_counted_in_whole_images(errors):
    model = HandwrittenNumberClassification("2N", **SMALL)
    labels = np.array([0] * 10)
    probabilities = np.eye(2)[[1] * errors + [0] * (10 - errors)]
    figure = plot_confusion(model, np.zeros((10, 8, 8)), labels, probabilities)
    figure.draw_without_rendering()
    panel, bar = figure.axes
    low, high = bar.get_ylim()
    ticks = [tick for tick in bar.get_yticks() if low <= tick <= high]
    assert ticks == [round(tick) for tick in ticks]
    assert len(ticks) >= 2
    assert panel.get_xticks().tolist() == panel.get_yticks().tolist() == [0, 1]


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
    forward, back = model.trace_steps(image, 2)
    assert [title.partition(". ")[2] for title in titles] == [
        title for title, _, _ in forward + back
    ]
    scores, probabilities = (
        np.array([bar.get_width() for bar in with_label.axes[place].patches])
        for place in (9, 10)
    )
    assert_allclose(probabilities, model.forward(image)[0])
    again = model.softmax(scores[np.newaxis])[0]
    assert_allclose(again, probabilities, rtol=1e-6)  # in float32
    for place in (9, 10):
        colours = {bar.get_facecolor() for bar in with_label.axes[place].patches[:2]}
        assert with_label.axes[place].patches[2].get_facecolor() not in colours
    kernel = model.compute_gradients(image, [2])[1]["kernels.0"]
    drawn = with_label.subfigs[1].axes[9].images[0].get_array()
    assert_array_equal(drawn[1:4, 1:4], kernel[0, 0])
    alone = plot_steps(model, image[0])
    assert len(alone.axes) == 11


@pytest.mark.parametrize(
    "architecture",
    ["3N", "MP2-3N", "3C3-3N", "3C3-MP2-3N", "3C3-2C2-MP2-4N-3N", "2C2-2C2-2C2-2C2-3N"],
)
@pytest.mark.parametrize("label", [None, 2])
def test_no_row_of_steps_is_nearly_empty(examples, architecture, label):
    model = HandwrittenNumberClassification(architecture, **SMALL)
    figure = plot_steps(model, examples[0][0], label)
    figure.draw_without_rendering()
    rows = {}
    for panel in figure.axes:
        row = panel.get_subplotspec().rowspan.start
        rows.setdefault((panel.figure.bbox.y0, row), []).append(panel)
    lengths = [len(row) for row in rows.values()]
    assert sum(lengths) == sum(map(len, model.trace_steps(examples[0][0], label)))
    assert min(lengths) > max(lengths) / 2


def test_of_many_classes_some_are_marked(rng):
    model = HandwrittenNumberClassification("47N", **SMALL)
    images, labels = rng.random((9, 8, 8)), rng.integers(0, 47, size=9)
    for panel in (
        plot_confusion(model, images, labels).axes[0],
        plot_steps(model, images[0]).axes[-1],
    ):
        ticks = panel.get_yticks()
        assert 4 < len(ticks) < 20
        assert_array_equal(ticks, np.round(ticks))


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


def result(architecture, train, test, train_loss, test_loss):
    """Return a row of the comparison."""
    row = {"architecture": architecture, "train_accuracy": train, "test_accuracy": test}
    return row | {"train_loss": train_loss, "test_loss": test_loss}


@pytest.mark.parametrize(
    "results",
    [
        [result("A", 0.9834, 0.9822, 0.112, 0.113)],
        [result("A", 0.9834, 0.9834, 0.112, 0.112)],
        [result("A", 1.0, 1.0, 0.0, 0.0)],
        [result("A", 0.1, 0.1, 2.303, 2.303)],
        [result("A", 0.92, 0.91, 0.327, 0.327), result("B", 0.99, 0.98, 0.08, 0.1)],
        [result("A", 0.1, 0.1, 2.303, 2.303), result("B", 0.9999, 0.9971, 1e-4, 0.01)],
    ],
)
def test_few_results_can_be_read_off_the_axes(results):
    for panel, most in zip(plot_comparison(results).axes, (100, np.inf), strict=True):
        low, high = panel.get_xlim()
        ticks = panel.get_xticks()
        labels = [text.get_text() for text in panel.get_xticklabels()]
        assert 3 <= len(set(labels)) == len(labels) <= 11
        assert all(low <= tick <= high for tick in ticks)
        assert max(float(label) for label in labels) <= most
