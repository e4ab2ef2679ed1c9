"""Figures of a model: functions that take the model first and return the figure.

The model computes everything that is shown here. Each function draws into `figure`, an
empty figure of matplotlib, or into a new one. Images are grey on black; numbers of both
signs are blue below 0, red above, on a scale that is symmetric around 0.
"""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from digits.pictures import find_digits, name_digits
from handwritten_classifier import HandwrittenNumberClassification

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# The colour map of numbers of both signs, and of numbers from 0 upward; each with the
# colour between its tiles.
SIGNED, UNSIGNED = ("coolwarm", "white"), ("gray", "#9fc5e8")
MOST_MAPS = 64  # of a layer that are shown
MOST_KERNELS = 8  # filters, and channels of each, if there are several
MOST_READINGS = 40  # digits of a picture that are shown

# ---------------------------------------------------------------------- Training


def plot_history(
    model: HandwrittenNumberClassification, figure: Figure | None = None
) -> Figure:
    """Draw training loss and accuracy by epoch, and those of validation if known."""
    figure = figure or _new_figure(9, 3.6)
    for panel, quantity in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), strict=True
    ):
        _draw_curves(panel, model, quantity)
        panel.set_title(quantity.capitalize())
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        panel.grid(alpha=0.3)
        if not model.history["loss"]:
            panel.set(xticks=[], yticks=[])
            panel.text(0.5, 0.5, "no epoch is finished yet", ha="center")
    return figure


def _draw_curves(
    panel: Axes, model: HandwrittenNumberClassification, quantity: str
) -> None:
    """Draw the training and validation curves of the loss or the accuracy."""
    smoothed = ", labels smoothed" if model.label_smoothing else ""
    scale, unit = {"loss": (1, f"nats{smoothed}"), "accuracy": (100, "%")}[quantity]
    panel.set_ylabel(f"{quantity} ({unit})")
    for prefix, label, style in (
        ("", "training (mean over the epoch)", "o-"),
        ("val_", "validation (after the epoch)", "s--"),
    ):
        values = np.array(model.history.get(prefix + quantity, []), float)
        if len(values):
            epochs = np.arange(1, len(values) + 1)
            panel.plot(epochs, scale * values, style, label=label)
            panel.legend()


def plot_distortions(
    model: HandwrittenNumberClassification,
    images: np.ndarray,
    strength: float = 1.0,
    figure: Figure | None = None,
) -> Figure:
    """Draw up to 6 images, each with 9 of its distortions (`distort`)."""
    images = model.check_images(images)[:6]
    figure = figure or _new_figure(8, 0.5 + 0.8 * len(images))
    figure.suptitle(f"Original (left) and distorted at strength {strength:g}")
    generator = np.random.default_rng(model.seed)
    distorted = (model.distort(images, strength, generator) for _ in range(9))
    columns = [images, *distorted]
    panels = figure.subplots(len(images), len(columns), squeeze=False)
    for column, versions in enumerate(columns):
        for panel, image in zip(panels[:, column], versions, strict=True):
            _draw_image(panel, image)
    return figure


def plot_kernels(
    model: HandwrittenNumberClassification, layer: int = 0, figure: Figure | None = None
) -> Figure:
    """Draw the kernels of convolution `layer`, counted from 0, one tile per channel.

    The channels of a kernel form a column of tiles. A network without convolution shows
    the weights of its dense layer, which are kernels as large as the map.

    Raises
    ------
    ValueError
        If there is no such layer.
    """
    name, kernels = _choose_kernels(model, layer)
    filters, channels, height, width = kernels.shape
    mosaic, largest = _lay_out_tiles(kernels), np.abs(kernels).max()
    high = 6.4 * mosaic.shape[0] / mosaic.shape[1] * 0.8 + 0.6  # inches
    figure = figure or _new_figure(6.4, min(max(high, 2), 9))
    panel = figure.subplots()
    shown = panel.imshow(mosaic, cmap=SIGNED[0], vmin=-largest, vmax=largest)
    panel.set(xticks=[], yticks=[], facecolor=SIGNED[1])
    panel.set_title(f"{name}: {filters} of {_in_words((height, width, channels))}")
    figure.colorbar(shown, ax=panel, label="weight")
    return figure


def _choose_kernels(
    model: HandwrittenNumberClassification, layer: int
) -> tuple[str, np.ndarray]:
    """Return a layer's kernels (F, C, K_h, K_w) and what to call them."""
    layers = max(len(model.kernels), 1)
    if layer not in range(layers):
        required = f"layer must be below {layers}, the number of those with kernels"
        raise ValueError(f"{required}; got {layer!r}")
    if model.kernels:
        tokens = [la.token for la in model.layers if la.kind == "convolution"]
        return f"Kernels of {tokens[layer]}", model.kernels[layer]
    maps = model.W_dense.reshape(*model.layers[-1].input_shape, -1)
    return f"Weights of {model.layers[-1].token}", maps.transpose(3, 2, 0, 1)


# ---------------------------------------------------------------------- Steps


def plot_steps(
    model: HandwrittenNumberClassification,
    image: np.ndarray,
    label: int | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw what each step makes of one image and, given its label, the gradients.

    Parameters
    ----------
    image, label
        As in `trace_steps`, which returns the arrays that are drawn here.
    figure : Figure, optional
    """
    forward, back = model.trace_steps(image, label)
    probabilities = forward[-1][1]
    seen = f"seen as {probabilities.argmax()} ({probabilities.max():.1%})"
    scales = "Each panel has its own scale: black is 0, or blue below 0 and red above."
    titles = [f"Forward: an image, {seen}. {scales}{_explain_order(model)}"]
    titles.append(f"Backward: derivatives of the loss; the label is {label}")
    counts = [len(steps) for steps in (forward, back) if steps]
    rows = [math.ceil(count / 6) for count in counts]
    columns = max(math.ceil(n / m) for n, m in zip(counts, rows, strict=True))
    figure = figure or _new_figure(max(2.6 * columns, 10), 2.9 * sum(rows))
    parts = figure.subfigures(len(rows), 1, height_ratios=rows, squeeze=False).ravel()
    for part, steps, title in zip(parts, (forward, back), titles, strict=False):
        part.suptitle(title)
        _draw_steps(part, steps, columns, signed=steps is back)
    return figure


def _explain_order(model: HandwrittenNumberClassification) -> str:
    """Return why ReLU comes after pooling, if the network has any."""
    if all(layer.kind != "pooling" for layer in model.layers):
        return ""
    return "\nPooling comes before ReLU: the two commute, and this order computes less."


def _draw_steps(
    part: SubFigure, steps: list[tuple], columns: int, signed: bool
) -> None:
    """Draw steps in rows, each step as `trace_steps` returns it."""
    rows = math.ceil(len(steps) / columns)
    panels = part.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(steps) :]:
        panel.set_axis_off()
    for number, (panel, step) in enumerate(zip(panels, steps, strict=False)):
        title, array, mark = step
        panel.set_title(f"{number}. {title}", size=9)
        if title == "probabilities":
            _draw_probabilities(panel, array, label=mark)
        else:
            _draw_arrays(panel, array, winners=mark, signed=signed)


def _draw_probabilities(panel: Axes, probabilities: np.ndarray, label: Any) -> None:
    """Draw one bar per class, that of the label in orange."""
    classes = np.arange(len(probabilities))
    colours = ["tab:orange" if label == n else "tab:blue" for n in classes]
    panel.barh(classes, probabilities, color=colours)
    panel.set(yticks=classes, xlim=(0, 1), ylim=(len(classes) - 0.5, -0.5))
    panel.set_xlabel("the label in orange" if label is not None else "")


def _draw_arrays(
    panel: Axes, array: np.ndarray, winners: np.ndarray | None, signed: bool
) -> None:
    """Draw maps or kernels as tiles, with a dot at each winner of a pooling.

    Gradients are `signed` even if none of them is negative.
    """
    mosaic, size = _lay_out_step(array)
    largest = np.nanmax(np.abs(mosaic)) or 1
    signed = signed or np.nanmin(mosaic) < 0
    colours, between = SIGNED if signed else UNSIGNED
    style = {"cmap": colours, "interpolation": "nearest"}
    panel.imshow(mosaic, vmin=-largest if signed else 0, vmax=largest, **style)
    if winners is not None:
        down, across = np.nonzero(lay_out_maps(winners.astype(float)) == 1)
        side = 140 / max(mosaic.shape)  # of a pixel, in points
        colour = "black" if signed else "tab:orange"
        panel.scatter(across, down, s=(side / 3) ** 2, color=colour, linewidths=0)
        size += ", winners dotted"
    panel.set(xticks=[], yticks=[], facecolor=between)
    panel.set_xlabel(size, size=8)


def _lay_out_step(array: np.ndarray) -> tuple[np.ndarray, str]:
    """Return maps, kernels or flattened numbers as one picture, and their size."""
    if array.ndim == 1:
        return _lay_out_rows(array), f"{len(array):,} numbers"
    if array.ndim == 3:
        more = f", the first {MOST_MAPS}" if array.shape[2] > MOST_MAPS else ""
        return lay_out_maps(array), _in_words(array.shape) + more
    filters, channels, *window = array.shape
    most = MOST_KERNELS if channels > 1 else MOST_MAPS
    shown = array[:most, :MOST_KERNELS]
    size = f"{filters} of {_in_words((*window, channels))}"
    if shown.size < array.size:
        size += f", the first {_in_words(shown.shape[:2])}"
    return _lay_out_tiles(shown, 1), size


# ---------------------------------------------------------------------- Errors


def plot_confusion(
    model: HandwrittenNumberClassification,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw the confusion matrix; the colour shows the errors.

    `probabilities` is what `predict_proba` returns for the images, if already known.
    """
    _, labels, probabilities = _read_examples(model, images, labels, probabilities)
    figure = figure or _new_figure(6.4, 5.6)
    classes = probabilities.shape[1]
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    errors = np.ma.array(counts, mask=np.eye(classes, dtype=bool))
    panel = figure.subplots()
    panel.set_facecolor("0.88")  # of the diagonal, which holds no errors
    shown = panel.imshow(errors, cmap="Blues", vmin=0, vmax=max(1, errors.max()))
    _write_counts(panel, counts, dark=0.6 * errors.max())
    accuracy = counts.trace() / counts.sum()
    panel.set_title(f"{counts.sum():,} images, {accuracy:.2%} read right (diagonal)")
    panel.set(xticks=range(classes), yticks=range(classes))
    panel.set(xlabel="seen", ylabel="true")
    figure.colorbar(shown, ax=panel, label="errors (images)", shrink=0.8)
    return figure


def _write_counts(panel: Axes, counts: np.ndarray, dark: float) -> None:
    """Write each count that is not 0; in white if it is an error above `dark`."""
    for true, seen in zip(*np.nonzero(counts), strict=True):
        on_dark = true != seen and counts[true, seen] > dark
        style = {"color": "white" if on_dark else "black", "size": 8}
        style |= {"ha": "center", "va": "center"}
        panel.text(seen, true, counts[true, seen], **style)


def plot_mistakes(
    model: HandwrittenNumberClassification,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw up to 24 misread images with seen and true class, the most confident first.

    `probabilities` is what `predict_proba` returns for the images, if already known.
    """
    images, labels, probabilities = _read_examples(model, images, labels, probabilities)
    seen, confidences = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(seen != labels)
    wrong = wrong[np.argsort(-confidences[wrong], kind="stable")]
    rows = min(max(math.ceil(len(wrong) / 6), 1), 4)
    figure = figure or _new_figure(8, 0.5 + 1.4 * rows)
    order = ", the most confident errors first" if len(wrong) else ""
    figure.suptitle(f"{len(wrong):,} of {len(labels):,} images misread{order}")
    panels = figure.subplots(rows, 6).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, index in zip(panels, wrong, strict=False):
        _draw_image(panel, images[index])
        title = f"seen {seen[index]} ({confidences[index]:.1%})\ntrue {labels[index]}"
        panel.set_title(title, size=9)
    return figure


def _read_examples(
    model: HandwrittenNumberClassification,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return checked images (B, H, W, C) and labels, and the model's probabilities."""
    images, labels = model.check_examples(images, labels)
    if probabilities is None:
        probabilities = model.predict_proba(images)
    return images, labels, probabilities


# ---------------------------------------------------------------------- Own digits


def plot_reading(
    model: HandwrittenNumberClassification,
    image: np.ndarray,
    found: SimpleNamespace | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw each stage of `find_digits` on a picture, and how its digits are read.

    If a digit is misread, this shows which stage failed. Readings in doubt, below the
    probability `UNSURE`, have a "?" and an orange box.

    Parameters
    ----------
    image : uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)
    found : SimpleNamespace, optional
        What `find_digits` returns for the image, if already known.
    figure : Figure, optional
    """
    found = find_digits(image) if found is None else found
    probabilities = model.predict_proba(found.images)
    names = name_digits(probabilities)
    rows = math.ceil(min(len(names), MOST_READINGS) / 10)
    height, width = found.stages["picture"].shape
    heights = 0.4 + min(max(3 * height / width, 1), 6), 0.4 + 1.35 * rows  # inches
    figure = figure or _new_figure(12, sum(heights))
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    _draw_stages(above, found, names, np.shape(image)[:2])
    many = f", the first {MOST_READINGS} of {len(names)}"
    more = many if len(names) > MOST_READINGS else ""
    below.suptitle(f"Input of the network, in reading order{more}", size=10)
    panels = below.subplots(rows, 10, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    readings = zip(panels, names, found.images, probabilities, strict=False)
    for panel, name, digit, shares in readings:
        panel.imshow(digit[..., 0], cmap="gray", vmin=0)
        panel.set_title(f"{name} ({shares.max():.1%})", size=9)
    return figure


def _draw_stages(
    part: SubFigure, found: SimpleNamespace, names: list[str], size: tuple[int, int]
) -> None:
    """Draw the stages, in pixels of the picture, and its digits' bounding boxes."""
    panels = part.subplots(1, len(found.stages))
    frame = (0, size[1], size[0], 0)
    for panel, (title, stage) in zip(panels, found.stages.items(), strict=True):
        panel.imshow(stage, cmap="gray", vmin=0, extent=frame)
        panel.set_title(title, size=9)
        panel.set(xticks=[], yticks=[], autoscale_on=False)
    for name, box in zip(names, found.boxes, strict=True):
        _draw_box(panels[0], name, *box, highest=size[0] / 8)


def _draw_box(
    panel: Axes, name: str, top: int, left: int, bottom: int, right: int, highest: float
) -> None:
    """Draw a bounding box with its digit above it, or below it if that is too high."""
    colour = "tab:orange" if "?" in name else "tab:blue"
    across, down = [left, right, right, left], [top, top, bottom, bottom]
    panel.fill(across, down, fill=False, edgecolor=colour, linewidth=1.5)
    place, side = (top, "bottom") if top > highest else (bottom, "top")
    style = {"va": side, "color": colour, "size": 12, "weight": "bold"}
    panel.text(left, place, name, **style)


# ---------------------------------------------------------------------- Comparison

# Where the axes of the comparison are marked: accuracy 0..1, loss in nats.
MARKS = {
    "accuracy": (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 1),
    "loss": (1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
}
# Label, colour, marker, its size, and how far above it the value stands, in points.
# Rings around diamonds: both are visible where they meet.
PARTS = {
    "train": ("training", "tab:blue", "o", 90, 13),
    "test": ("test", "tab:orange", "D", 30, -13),
}


def plot_comparison(
    results: list[dict[str, Any]], figure: Figure | None = None
) -> Figure:
    """Draw accuracy and loss of several configurations, training beside test.

    Parameters
    ----------
    results : list of dict
        One per configuration: ``architecture``, ``train_accuracy``, ``train_loss``,
        ``test_accuracy``, ``test_loss``.
    figure : Figure, optional
    """
    figure = figure or _new_figure(10, 1.6 + 0.55 * len(results))
    panels = figure.subplots(1, 2, sharey=True)
    for panel, quantity in zip(panels, ("accuracy", "loss"), strict=True):
        for part in PARTS:
            _draw_part(panel, results, part, quantity)
        _mark_axis(panel, results, quantity)
    panels[0].set_yticks(range(len(results)), [row["architecture"] for row in results])
    panels[0].set_ylim(len(results) - 0.4, -0.6)
    legend = panels[0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=2)
    return figure


def _draw_part(
    panel: Axes, results: list[dict[str, Any]], part: str, quantity: str
) -> None:
    """Draw the training or the test values of one quantity."""
    label, colour, marker, size, above = PARTS[part]
    values = np.array([row[f"{part}_{quantity}"] for row in results])
    places = _log_places(values, quantity)
    face = "none" if part == "train" else colour
    style = {"marker": marker, "s": size, "edgecolors": colour, "label": label}
    panel.scatter(places, range(len(results)), facecolors=face, **style)
    for row, (place, value) in enumerate(zip(places, values, strict=True)):
        text = f"{100 * value:.2f}" if quantity == "accuracy" else f"{value:.3f}"
        style = {"ha": "center", "va": "center", "size": 9, "color": "0.25"}
        offset = {"xytext": (0, above), "textcoords": "offset points"}
        panel.annotate(text, (place, row), **offset, **style)


def _mark_axis(panel: Axes, results: list[dict[str, Any]], quantity: str) -> None:
    """Give a panel its title and its logarithmic axis.

    Equal steps stand for halved errors or losses. Good configurations differ by little,
    and a linear axis with a bad one would draw them on top of each other.
    """
    scale, unit = {"accuracy": (100, "%"), "loss": (1, "nats")}[quantity]
    panel.margins(x=0.12)
    low, high = panel.get_xlim()
    marks = np.array(MARKS[quantity])
    places = _log_places(marks, quantity)
    marks = marks[(low <= places) & (places <= high)]
    if (
        len(marks) < 2
    ):  # Too few to read the axis by: mark the smallest and the largest.
        values = [row[f"{part}_{quantity}"] for row in results for part in PARTS]
        marks = np.array([min(values), max(values)])
    labels = [f"{scale * mark:.4g}" for mark in marks]
    panel.set_xticks(_log_places(marks, quantity), labels)
    panel.set_title(f"{quantity.capitalize()} vs. Configuration")
    panel.set_xlabel(f"{quantity} ({unit}), logarithmic")
    panel.grid(axis="x", alpha=0.3)


def _log_places(values: np.ndarray, quantity: str) -> np.ndarray:
    """Return places on the logarithmic axis: of a loss, or of an accuracy's error."""
    if quantity == "accuracy":
        return -np.log(1.0005 - values)  # 100 % must have a place, too.
    return np.log(np.maximum(values, 1e-6))


# ---------------------------------------------------------------------- Layouts


def lay_out_maps(maps: np.ndarray) -> np.ndarray:
    """Return up to 64 maps, (H, W, C), as one picture, with nan between them.

    This is the layout of `plot_steps`. A single map is its own picture.
    """
    tiles = maps.transpose(2, 0, 1)[:MOST_MAPS, np.newaxis]
    return _lay_out_tiles(tiles, 1) if len(tiles) > 1 else tiles[0, 0]


def _lay_out_tiles(kernels: np.ndarray, aspect: float = 1.6) -> np.ndarray:
    """Return kernels (F, C, K_h, K_w) as one picture, with nan around each tile.

    Kernels of one channel fill rows, with `aspect` times as many columns as rows.
    Kernels of several channels are one column each.
    """
    filters, channels, height, width = kernels.shape
    square = min(filters, math.ceil((aspect * filters) ** 0.5))
    columns = filters if channels > 1 else square
    rows = math.ceil(filters * channels / columns)
    tiles = np.full((rows * columns, height + 1, width + 1), np.nan)
    in_order = kernels.swapaxes(0, 1).reshape(filters * channels, height, width)
    tiles[: filters * channels, 1:, 1:] = in_order
    mosaic = tiles.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2)
    mosaic = mosaic.reshape(rows * (height + 1), columns * (width + 1))
    return np.pad(mosaic, ((0, 1), (0, 1)), constant_values=np.nan)


def _lay_out_rows(array: np.ndarray) -> np.ndarray:
    """Return numbers (D,) as a picture that is about square, row after row."""
    width = math.ceil(len(array) ** 0.5)
    mosaic = np.full((math.ceil(len(array) / width), width), np.nan)
    mosaic.ravel()[: len(array)] = array
    return mosaic


def _in_words(shape: tuple[int, ...]) -> str:
    """Write a size as in 25x25x8."""
    return "x".join(map(str, shape))


def _draw_image(panel: Axes, image: np.ndarray) -> None:
    """Draw an image (H, W, C) in its colours, or in grey if C is not 3 or 4."""
    picture = image if image.shape[2] in (3, 4) else image.mean(axis=2)
    panel.imshow(picture, cmap="gray", vmin=min(0, picture.min()))
    panel.set_axis_off()


def _new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches; only this imports matplotlib."""
    from matplotlib.figure import Figure

    if "IPython" in sys.modules:  # A notebook shows figures once it has a backend.
        from matplotlib import pyplot

        pyplot.switch_backend(pyplot.get_backend())
    return Figure(figsize=(width, height), layout="constrained")
