"""Figures: functions that take the model first and return what matplotlib draws.

Nothing is computed here that the class does not compute.
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
    from matplotlib.figure import Figure

# Where the axes of the comparison's figure are marked: accuracy 0..1, loss in nats.
MARKS = {
    "accuracy": (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 1),
    "loss": (1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
}


def plot_history(
    model: HandwrittenNumberClassification, figure: Figure | None = None
) -> Figure:
    """Draw loss and accuracy by epoch, of training and, where known, validation."""
    figure = _new_figure(9, 3.6) if figure is None else figure
    panels = figure.subplots(1, 2)
    for panel, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        scale = 100 if quantity == "accuracy" else 1
        for prefix, label, style in (
            ("", "training (mean over the epoch)", "o-"),
            ("val_", "validation (after the epoch)", "s--"),
        ):
            values = np.array(model.history.get(prefix + quantity, []), float)
            if len(values):
                epochs = np.arange(1, len(values) + 1)
                panel.plot(epochs, scale * values, style, label=label)
                panel.legend()
        panel.set_title(quantity.capitalize())
        panel.set_xlabel("epoch")
        smoothed = ", labels smoothed" if model.label_smoothing else ""
        loss = f"loss (nats{smoothed})"
        panel.set_ylabel("accuracy (%)" if scale == 100 else loss)
        panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        panel.grid(alpha=0.3)
        if not model.history["loss"]:
            panel.set(xticks=[], yticks=[])
            panel.text(0.5, 0.5, "no epoch is finished yet", ha="center")
    return figure


def plot_distortions(
    model: HandwrittenNumberClassification,
    images: np.ndarray,
    strength: float = 1.0,
    figure: Figure | None = None,
) -> Figure:
    """Draw up to 6 images, each beside 9 of what `distort` makes of it."""
    images = model.check_images(images)[:6]
    figure = _new_figure(8, 0.5 + 0.8 * len(images)) if figure is None else figure
    figure.suptitle(f"As they are, and distorted at strength {strength:g}")
    generator = np.random.default_rng(model.seed)
    distorted = (model.distort(images, strength, generator) for _ in range(9))
    columns = [images, *distorted]
    panels = figure.subplots(len(images), len(columns), squeeze=False)
    for column, versions in enumerate(columns):
        for panel, image in zip(panels[:, column], versions, strict=True):
            panel.imshow(_as_picture(image), cmap="gray", vmin=0)
            panel.set_axis_off()
    return figure


def plot_steps(
    model: HandwrittenNumberClassification,
    image: np.ndarray,
    label: int | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw one image on its way through the network, and its gradients' way back.

    Parameters
    ----------
    image, label
        As in `trace_steps`, which returns what is drawn here.
    figure : Figure, optional
    """
    forward, back = model.trace_steps(image, label)
    probabilities = forward[-1][1]
    rows = [math.ceil(len(steps) / 5) for steps in (forward, back) if steps]
    figure = _new_figure(13, 2.9 * sum(rows)) if figure is None else figure
    parts = figure.subfigures(len(rows), 1, height_ratios=rows, squeeze=False)
    seen = f"seen as {probabilities.argmax()} ({probabilities.max():.1%})"
    scale = "each panel has its own scale: black is 0, or blue below 0 and red above"
    titles = [f"The way of an image, {seen}; {scale}"]
    titles.append(f"The way back: derivatives of the loss, the label being {label}")
    for part, steps, count, title in zip(
        parts.ravel(), (forward, back), rows, titles, strict=False
    ):
        part.suptitle(title)
        panels = part.subplots(count, 5, squeeze=False).ravel()
        for panel in panels[len(steps) :]:
            panel.set_axis_off()
        for number, (panel, step) in enumerate(zip(panels, steps, strict=False)):
            _draw_step(panel, number, *step, signed=steps is back)
    return figure


def plot_reading(
    model: HandwrittenNumberClassification,
    image: np.ndarray,
    found: SimpleNamespace | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw what `find_digits` makes of a picture, and how its digits are read.

    Where a digit is misread, this shows whether light, lines or pen are to blame.
    Doubtful ones are marked, of which no class has the probability `UNSURE`.

    Parameters
    ----------
    image : uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)
    found : SimpleNamespace, optional
        What `find_digits` made of it, where it is there already.
    figure : Figure, optional
    """
    found = find_digits(image) if found is None else found
    probabilities = model.predict_proba(found.images)
    names = name_digits(probabilities)
    rows = min(math.ceil(len(names) / 10), 4)
    height, width = found.stages["picture"].shape
    heights = [
        0.4 + min(max(3 * height / width, 1), 6),
        0.4 + 1.35 * rows,
    ]  # inches
    figure = _new_figure(12, sum(heights)) if figure is None else figure
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    panels = above.subplots(1, len(found.stages))
    frame = (0, np.shape(image)[1], np.shape(image)[0], 0)
    for panel, (title, stage) in zip(panels, found.stages.items(), strict=True):
        panel.imshow(stage, cmap="gray", vmin=0, extent=frame)
        panel.set_title(title, size=9)
        panel.set(xticks=[], yticks=[], autoscale_on=False)
    for name, box in zip(names, found.boxes, strict=True):
        _draw_box(panels[0], name, *box, highest=frame[2] / 8)
    shown = f", the first 40 of {len(names)}" if len(names) > 40 else ""
    title = f"As the network sees them, in reading order{shown}"
    below.suptitle(title, size=10)
    panels = below.subplots(rows, 10, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, name, digit, shares in zip(
        panels, names, found.images, probabilities, strict=False
    ):
        panel.imshow(digit[..., 0], cmap="gray", vmin=0)
        panel.set_title(f"{name} ({shares.max():.1%})", size=9)
    return figure


def lay_out_maps(maps: np.ndarray) -> np.ndarray:
    """Return up to 64 maps, (H, W, C), as one picture, with nan between them.

    As `plot_steps` shows them; a single map is its own picture.
    """
    tiles = maps.transpose(2, 0, 1)[:64, np.newaxis]
    return _lay_out_tiles(tiles, 1) if len(tiles) > 1 else tiles[0, 0]


def plot_kernels(
    model: HandwrittenNumberClassification, layer: int = 0, figure: Figure | None = None
) -> Figure:
    """Draw the kernels of convolution `layer`, counted from 0, one tile each.

    A kernel of several channels is a column of tiles. Without any convolution the
    weights of the dense layer are drawn, which are kernels as large as the map.
    """
    layers = max(len(model.kernels), 1)
    if layer not in range(layers):
        required = f"layer must be below {layers}, the number of those with kernels"
        raise ValueError(f"{required}; got {layer!r}")
    if model.kernels:
        tokens = [la.token for la in model.layers if la.kind == "convolution"]
        kernels, name = model.kernels[layer], f"Kernels of {tokens[layer]}"
    else:
        maps = model.W_dense.reshape(*model.layers[-1].input_shape, -1)
        kernels = maps.transpose(3, 2, 0, 1)
        name = f"Weights of {model.layers[-1].token}"
    filters, channels, height, width = kernels.shape
    mosaic, largest = _lay_out_tiles(kernels), np.abs(kernels).max()
    if figure is None:
        high = 6.4 * mosaic.shape[0] / mosaic.shape[1] * 0.8 + 0.6
        figure = _new_figure(6.4, min(max(high, 2), 9))
    panel = figure.subplots()
    shown = panel.imshow(mosaic, cmap="coolwarm", vmin=-largest, vmax=largest)
    panel.set(xticks=[], yticks=[], facecolor="white")
    panel.set_title(f"{name}: {filters} of {_in_words((height, width, channels))}")
    figure.colorbar(shown, ax=panel, label="weight")
    return figure


def plot_confusion(
    model: HandwrittenNumberClassification,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw how often each class was read as which; the colour shows the errors.

    `probabilities` is what `predict_proba` made of the images, where it is there
    already.
    """
    images, labels, probabilities = _read_examples(model, images, labels, probabilities)
    figure = _new_figure(6.4, 5.6) if figure is None else figure
    classes = probabilities.shape[1]
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    errors = np.ma.array(counts, mask=np.eye(classes, dtype=bool))
    panel = figure.subplots()
    panel.set_facecolor("0.88")  # of the diagonal, where nothing is wrong
    shown = panel.imshow(errors, cmap="Blues", vmin=0, vmax=max(1, errors.max()))
    for true, seen in zip(*np.nonzero(counts), strict=True):
        dark = true != seen and counts[true, seen] > 0.6 * errors.max()
        style = {"color": "white" if dark else "black", "size": 8}
        style |= {"ha": "center", "va": "center"}
        panel.text(seen, true, counts[true, seen], **style)
    accuracy = counts.trace() / counts.sum()
    title = f"{counts.sum():,} images, {accuracy:.2%} read right (diagonal)"
    panel.set_title(title)
    panel.set(
        xticks=range(classes), yticks=range(classes), xlabel="seen", ylabel="true"
    )
    figure.colorbar(shown, ax=panel, label="errors (images)", shrink=0.8)
    return figure


def plot_mistakes(
    model: HandwrittenNumberClassification,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw up to 24 misread images, the most confident first: seen and true class.

    `probabilities` is what `predict_proba` made of the images, where it is there
    already.
    """
    images, labels, probabilities = _read_examples(model, images, labels, probabilities)
    seen = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(seen != labels)
    wrong = wrong[np.argsort(-probabilities[wrong, seen[wrong]], kind="stable")]
    rows = min(max(math.ceil(len(wrong) / 6), 1), 4)
    figure = _new_figure(8, 0.5 + 1.4 * rows) if figure is None else figure
    figure.suptitle(
        f"{len(wrong):,} of {len(labels):,} images misread"
        + (", the most confident errors first" if len(wrong) else "")
    )
    panels = figure.subplots(rows, 6).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, index in zip(panels, wrong, strict=False):
        panel.imshow(_as_picture(images[index]), cmap="gray")
        confidence = probabilities[index, seen[index]]
        panel.set_title(
            f"seen {seen[index]} ({confidence:.1%})\ntrue {labels[index]}", size=9
        )
    return figure


def plot_comparison(results: list[dict[str, Any]]) -> Figure:
    """Draw accuracy and loss against the configurations, training beside test."""
    figure = _new_figure(10, 1.6 + 0.55 * len(results))
    panels = figure.subplots(1, 2, sharey=True)
    for panel, quantity in zip(panels, ("accuracy", "loss"), strict=True):
        _draw_quantity(panel, results, quantity)
    panels[0].set_yticks(range(len(results)), [row["architecture"] for row in results])
    panels[0].set_ylim(len(results) - 0.4, -0.6)
    legend = panels[0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=2)
    return figure


def _draw_quantity(panel: Axes, results: list[dict[str, Any]], quantity: str) -> None:
    """Draw one quantity of all configurations on a logarithmic axis.

    Equal steps stand for halved errors or losses: good configurations differ by little,
    and would else fall onto one another beside a bad one.
    """
    for part, label, colour, marker, size, above in (
        ("train", "training", "tab:blue", "o", 90, 13),
        ("test", "test", "tab:orange", "D", 30, -13),
    ):
        values = np.array([row[f"{part}_{quantity}"] for row in results])
        at = _log_places(values, quantity)
        # Rings round diamonds: both are seen where they meet.
        face = "none" if part == "train" else colour
        style = {"marker": marker, "s": size, "edgecolors": colour, "label": label}
        panel.scatter(at, range(len(results)), facecolors=face, **style)
        for row, (place, value) in enumerate(zip(at, values, strict=True)):
            text = f"{100 * value:.2f}" if quantity == "accuracy" else f"{value:.3f}"
            style = {"ha": "center", "va": "center", "size": 9, "color": "0.25"}
            offset = {"xytext": (0, above), "textcoords": "offset points"}
            panel.annotate(text, (place, row), **offset, **style)
    panel.margins(x=0.12)
    low, high = panel.get_xlim()
    marks = np.array(MARKS[quantity])
    places = _log_places(marks, quantity)
    marks = marks[(low <= places) & (places <= high)]
    if len(marks) < 2:  # Too little to read the axis by: the ends, then.
        parts = ("train", "test")
        values = [row[f"{part}_{quantity}"] for row in results for part in parts]
        marks = np.array([min(values), max(values)])
    scale = 100 if quantity == "accuracy" else 1
    labels = [f"{scale * mark:.4g}" for mark in marks]
    panel.set_xticks(_log_places(marks, quantity), labels)
    panel.set_title(f"{quantity.capitalize()} vs. Configuration")
    unit = "%" if quantity == "accuracy" else "nats"
    panel.set_xlabel(f"{quantity} ({unit}), logarithmic")
    panel.grid(axis="x", alpha=0.3)


def _log_places(values: np.ndarray, quantity: str) -> np.ndarray:
    """Return places on the axis: of an accuracy, that of its error."""
    if quantity == "accuracy":
        return -np.log(1.0005 - values)  # A whole 100 % has a place, too.
    return np.log(np.maximum(values, 1e-6))


# -------------------------------------------------------------------- Drawing


def _lay_out_tiles(kernels: np.ndarray, aspect: float = 1.6) -> np.ndarray:
    """Return kernels (F, C, K_h, K_w) as one picture, with nan around each tile.

    Those of one channel fill rows, `aspect` times as many beside as below each other;
    else each filter is a column.
    """
    filters, channels, height, width = kernels.shape
    columns = (
        filters if channels > 1 else min(filters, math.ceil((aspect * filters) ** 0.5))
    )
    rows = math.ceil(filters * channels / columns)
    tiles = np.full((rows * columns, height + 1, width + 1), np.nan)
    in_order = kernels.swapaxes(0, 1).reshape(filters * channels, height, width)
    tiles[: filters * channels, 1:, 1:] = in_order
    mosaic = tiles.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2)
    mosaic = mosaic.reshape(rows * (height + 1), columns * (width + 1))
    return np.pad(mosaic, ((0, 1), (0, 1)), constant_values=np.nan)


def _read_examples(
    model: HandwrittenNumberClassification,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images (B, H, W, C) and labels, checked, and what the model reads."""
    images, labels = model.check_examples(images, labels)
    if probabilities is None:
        probabilities = model.predict_proba(images)
    return images, labels, probabilities


def _in_words(shape: tuple[int, ...]) -> str:
    """Write a size as in 25x25x8."""
    return "x".join(map(str, shape))


def _as_picture(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, C) as it is drawn: in its colours, or else in grey."""
    return image if image.shape[2] in (3, 4) else image.mean(axis=2)


# The colours for numbers of both signs and of one, and those between their tiles.
SIGNED, UNSIGNED = ("coolwarm", "white"), ("gray", "#9fc5e8")


def _draw_box(
    panel: Axes, name: str, top: int, left: int, bottom: int, right: int, highest: float
) -> None:
    """Draw a digit's box, and its name above it or, if that is too high, below it."""
    colour = "tab:orange" if "?" in name else "tab:blue"
    across, down = [left, right, right, left], [top, top, bottom, bottom]
    panel.fill(across, down, fill=False, edgecolor=colour, linewidth=1.5)
    place, side = (top, "bottom") if top > highest else (bottom, "top")
    style = {"va": side, "color": colour, "size": 12, "weight": "bold"}
    panel.text(left, place, name, **style)


def _lay_out_step(array: np.ndarray) -> tuple[np.ndarray, str]:
    """Return maps, kernels or a flattened row as one picture, and its size in words."""
    size = _in_words(array.shape)
    if array.ndim == 1:  # In rows, as a text is.
        width = math.ceil(len(array) ** 0.5)
        mosaic = np.full((math.ceil(len(array) / width), width), np.nan)
        mosaic.ravel()[: len(array)] = array
        size = f"{len(array):,} numbers"
    elif array.ndim == 4:
        filters, channels, *window = array.shape
        size = f"{filters} of {_in_words((*window, channels))}"
        shown = array[:8, :8] if channels > 1 else array[:64]
        mosaic = _lay_out_tiles(shown, 1)
        if shown.size < array.size:
            size += f", the first {_in_words(shown.shape[:2])}"
    else:
        mosaic = lay_out_maps(array)
        if array.shape[2] > 64:
            size += ", the first 64"
    return mosaic, size


def _draw_step(
    panel: Axes, number: int, title: str, array: np.ndarray, mark: Any, signed: bool
) -> None:
    """Draw what one step has made: maps or kernels as tiles, probabilities as bars.

    `mark` is the label beside probabilities; else where the winners of pooling stand.
    Numbers that could be negative, as gradients can, are `signed` even if none is.
    """
    panel.set_title(f"{number}. {title}", size=9)
    if title == "probabilities":
        classes = np.arange(len(array))
        colours = ["tab:orange" if mark == n else "tab:blue" for n in classes]
        panel.barh(classes, array, color=colours)
        panel.set(yticks=classes, xlim=(0, 1), ylim=(len(array) - 0.5, -0.5))
        panel.set_xlabel("the label in orange" if mark is not None else "")
        return
    mosaic, size = _lay_out_step(array)
    largest = np.nanmax(np.abs(mosaic)) or 1
    signed = signed or np.nanmin(mosaic) < 0
    colours, between = SIGNED if signed else UNSIGNED
    style = {"cmap": colours, "interpolation": "nearest"}
    panel.imshow(mosaic, vmin=-largest if signed else 0, vmax=largest, **style)
    if mark is not None:
        down, across = np.nonzero(lay_out_maps(mark.astype(float)) == 1)
        side = 140 / max(mosaic.shape)  # of a pixel, in points
        colour = "black" if signed else "tab:orange"
        panel.scatter(across, down, s=(side / 3) ** 2, color=colour, linewidths=0)
        size += ", winners dotted"
    panel.set(xticks=[], yticks=[], facecolor=between)
    panel.set_xlabel(size, size=8)


def _new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches; only this imports matplotlib."""
    from matplotlib.figure import Figure

    if "IPython" in sys.modules:  # A notebook shows figures once it has a backend.
        from matplotlib import pyplot

        pyplot.switch_backend(pyplot.get_backend())
    return Figure(figsize=(width, height), layout="constrained")
