"""Figures of a model: functions that take the model first and return the figure.

The model computes everything that is shown here. Each function draws into `figure`, an
empty figure of matplotlib, or into a new one, which a notebook or a window shows.
Images are grey on black; numbers of both signs are blue below 0, red above, on a scale
that is symmetric around 0.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from digits.canvas import (
    MOST_MAPS,
    lay_out_maps,
    lay_out_rows,
    lay_out_tiles,
    open_figure,
)
from digits.comparison import plot_comparison as plot_comparison
from digits.comparison import plot_curves as plot_curves
from digits.pictures import find_digits, name_digits
from handwritten_classifier import HandwrittenNumberClassification

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure, SubFigure

# The colour map of numbers of both signs, and of numbers from 0 upward; each with the
# colour between its tiles.
SIGNED, UNSIGNED = ("coolwarm", "white"), ("gray", "#9fc5e8")
MOST_PANELS = 6  # of steps, side by side
MOST_KERNELS = 8  # filters, and channels of each, if there are several
MOST_TILES = 128  # kernels' channels, of a layer behind the first
MOST_READINGS = 40  # digits of a picture that are shown

# ---------------------------------------------------------------------- Training

# Label and style of the points of epochs, and on which side of one its value stands, in
# points.
CURVES = {
    "": ("training (mean over the epoch)", "o-", -8),
    "val_": ("validation (after the epoch)", "s--", 8),
}


def plot_history(
    model: HandwrittenNumberClassification,
    steps: list[tuple[int, float, float]] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw loss and accuracy by epoch or, given the steps, loss and rate by step.

    Parameters
    ----------
    steps : list of (step, loss, learning rate), optional
        Of all steps of the epochs in the model's history, as a callback of `fit`
        collects them: ``steps.append((step, loss, model.rate))``.
    figure : Figure, optional

    Raises
    ------
    ValueError
        If `steps` are no such list.
    """
    by_step = _read_steps(steps)
    figure = open_figure(figure, 12 if len(by_step) else 9, 3.6)
    if len(by_step):
        *panels, last = figure.subplots(1, 3)
        _draw_steps_of_training(panels, model, by_step)
        _draw_curves(last, model, "accuracy")
    else:
        for panel, quantity in zip(
            figure.subplots(1, 2), ("loss", "accuracy"), strict=True
        ):
            _draw_curves(panel, model, quantity)
    return figure


def _read_steps(steps: list[tuple[int, float, float]] | None) -> np.ndarray:
    """Return an array of shape (steps, 3), counted on from one `fit` to the next."""
    steps = [] if steps is None else steps
    try:
        by_step = np.array(steps, float).reshape(len(steps), 3)
    except (TypeError, ValueError):
        required = "steps must be a list of (step, loss, learning rate)"
        raise ValueError(f"{required}; got {str(steps)[:60]}") from None
    if (np.diff(by_step[:, 0]) <= 0).any():
        by_step[:, 0] = np.arange(1, len(by_step) + 1)
    return by_step


def _draw_curves(
    panel: Axes, model: HandwrittenNumberClassification, quantity: str
) -> None:
    """Draw the training and validation curves of the loss or the accuracy by epoch."""
    scale, unit = {"loss": (1, _loss_unit(model)), "accuracy": (100, "%")}[quantity]
    panel.set(
        title=quantity.capitalize(), xlabel="epoch", ylabel=f"{quantity} ({unit})"
    )
    panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    panel.grid(alpha=0.3)
    for prefix, (label, style, aside) in CURVES.items():
        values = scale * np.array(model.history.get(prefix + quantity, []), float)
        if len(values):
            panel.plot(np.arange(1, len(values) + 1), values, style, label=label)
            panel.legend()
        if len(values) == 1:  # A dot alone says little.
            text = f"{values[0]:.4f}" if quantity == "loss" else f"{values[0]:.2f}"
            style = {"ha": "right" if aside < 0 else "left", "va": "center"}
            style |= {"xytext": (aside, 0), "textcoords": "offset points"}
            panel.annotate(text, (1, values[0]), **style)
            panel.set(xticks=[1], xlim=(0.5, 1.5))
            panel.margins(y=0.8)
    low, high = panel.get_ylim()
    panel.set_ylim(max(low, 0), min(high, 101 if quantity == "accuracy" else math.inf))
    if not model.history["loss"]:
        panel.set(xticks=[], yticks=[])
        panel.text(0.5, 0.5, "no epoch is finished yet", ha="center")


def _loss_unit(model: HandwrittenNumberClassification) -> str:
    """Return the unit of the loss in training, and whether labels are smoothed."""
    return "nats, labels smoothed" if model.label_smoothing else "nats"


def _draw_steps_of_training(
    panels: list[Axes], model: HandwrittenNumberClassification, by_step: np.ndarray
) -> None:
    """Draw the loss, as it is and as a running mean, and the learning rate by step."""
    places, losses, rates = by_step.T
    half, style = len(losses) // 40, "o" if len(losses) == 1 else "-"
    if half:
        panels[0].plot(places, losses, alpha=0.4, lw=0.7, label="step")
    label = f"mean of up to {2 * half + 1} steps" if half else "step"
    mean = _running_mean(losses, half)
    panels[0].plot(places, mean, style, color="tab:blue", lw=2, label=label)
    panels[1].plot(places, rates, style)
    panels[1].set_ylim(0, 1.1 * rates.max() or 1)
    ends = _find_epoch_ends(places[-1], len(model.history["loss"]))
    validation = np.array(model.history.get("val_loss", []), float)
    if 0 < len(validation) <= len(ends):
        style = {"color": "tab:orange", "label": "validation", "zorder": 3}
        panels[0].plot(ends[: len(validation)], validation, "s", **style)
    panels[0].set(title="Loss", ylabel=f"loss ({_loss_unit(model)})")
    if losses.max() > 3 * losses.min() > 0:
        _use_logarithms(panels[0], losses.max() / losses.min())
    panels[1].set(title="Learning rate", ylabel="learning rate")
    panels[0].legend()
    for panel in panels:
        panel.set_xlabel("step")
        panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        panel.grid(axis="y", alpha=0.3)
        _mark_epochs(panel, ends)


def _use_logarithms(panel: Axes, ratio: float) -> None:
    """Make the vertical axis logarithmic, with the numbers that suit its range."""
    from matplotlib.ticker import LogLocator

    digits = (1, 2, 3, 5, 7) if ratio < 30 else (1, 2, 5) if ratio < 1000 else (1,)
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=digits))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_formatter("")


def _running_mean(values: np.ndarray, half: int) -> np.ndarray:
    """Return the mean of each value and up to `half` of those on either side.

    At first there are fewer, a quarter of the steps so far: the loss falls fast there.
    """
    sums, places = np.append(0, np.cumsum(values)), np.arange(len(values))
    aside = np.minimum(places // 4, half)
    low, high = places - aside, np.minimum(places + aside + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _find_epoch_ends(steps: float, epochs: int) -> np.ndarray:
    """Return the last step of each epoch; none if the epochs are not of one length."""
    known = epochs and steps % epochs == 0
    return np.arange(1, epochs + 1) * (steps / epochs) if known else np.empty(0)


def _mark_epochs(panel: Axes, ends: np.ndarray) -> None:
    """Mark the ends of epochs by lines, and by their numbers on an axis above."""
    every = math.ceil(len(ends) / 10) or 1
    marked = ends[every - 1 :: every]
    for end in marked:
        panel.axvline(end, color="0.85", lw=0.8, zorder=0)
    if len(ends):
        above = panel.secondary_xaxis("top")
        numbers = range(every, len(ends) + 1, every)
        above.set_xticks(marked, [str(number) for number in numbers])
        above.set_xlabel("epoch")


def plot_distortions(
    model: HandwrittenNumberClassification,
    images: np.ndarray,
    strength: float = 1.0,
    figure: Figure | None = None,
) -> Figure:
    """Draw up to 6 images, each with 9 of its distortions (`distort`)."""
    images = model.check_images(images)[:6]
    figure = open_figure(figure, 8, 0.5 + 0.8 * len(images))
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

    The channels of a kernel form a column of tiles. The first layer is shown whole, of
    a large one behind it the first filters with up to 8 channels each. A network
    without convolution shows the weights of its dense layer, which are kernels as large
    as the map.

    Raises
    ------
    ValueError
        If there is no such layer.
    """
    name, kernels = _choose_kernels(model, layer)
    filters, channels, height, width = kernels.shape
    title = f"{name}: {filters} of {_in_words((height, width, channels))}"
    if layer and filters * channels > MOST_TILES:
        most = min(channels, MOST_KERNELS)
        kernels = kernels[: MOST_TILES // most, :most]
        counts = f"{len(kernels)} of {filters} filters, {most} of {channels} channels"
        title += f"\nshown: the first {counts}"
    mosaic, largest = lay_out_tiles(kernels), np.abs(kernels).max()
    high = 6.4 * mosaic.shape[0] / mosaic.shape[1] * 0.8 + 0.6  # inches
    figure = open_figure(figure, 6.4, min(max(high, 2), 9))
    panel = figure.subplots()
    shown = panel.imshow(mosaic, cmap=SIGNED[0], vmin=-largest, vmax=largest)
    panel.set(xticks=[], yticks=[], facecolor=SIGNED[1])
    panel.set_title(title)
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
    counts = [len(steps) for steps in (forward, back) if steps]
    if sum(counts) <= MOST_PANELS:  # in one row
        titles.append(f"Backward: derivatives\nof the loss; label {label}")
        figure = open_figure(figure, max(2.6 * sum(counts), 10), 3.4)
        parts, rows = figure.subfigures(1, len(counts), width_ratios=counts), [1, 1]
    else:
        titles.append(f"Backward: derivatives of the loss; the label is {label}")
        rows, columns = _choose_rows(counts)
        figure = open_figure(figure, max(2.6 * columns, 10), 2.9 * sum(rows))
        parts = figure.subfigures(len(rows), 1, height_ratios=rows)
    ways = zip(np.ravel(parts), (forward, back), titles, rows, strict=False)
    for part, steps, title, rows_of_part in ways:
        part.suptitle(title)
        _draw_steps(part, steps, rows_of_part, signed=steps is back)
    return figure


def _choose_rows(counts: list[int]) -> tuple[list[int], int]:
    """Return in how many rows each number of panels is laid out, and the columns.

    No row is half empty, if that can be.
    """
    for most in range(MOST_PANELS, 1, -1):
        rows = [math.ceil(count / most) for count in counts]
        lengths = [n / m for n, m in zip(counts, rows, strict=True)]
        columns = math.ceil(max(lengths))
        if 2 * math.floor(min(lengths)) > columns:
            break
    return rows, columns


def _explain_order(model: HandwrittenNumberClassification) -> str:
    """Return why ReLU comes after pooling, if the network has any."""
    if all(layer.kind != "pooling" for layer in model.layers):
        return ""
    return "\nPooling comes before ReLU: the two commute, and this order computes less."


def _draw_steps(part: SubFigure, steps: list[tuple], rows: int, signed: bool) -> None:
    """Draw steps in rows of about one length, each as `trace_steps` returns it."""
    label = steps[-1][2]  # of the probabilities
    panels = part.subplots(rows, math.ceil(len(steps) / rows), squeeze=False)
    for row, numbers in zip(
        panels, np.array_split(np.arange(len(steps)), rows), strict=True
    ):
        for panel in row[len(numbers) :]:
            panel.remove()
        for panel, number in zip(row, numbers, strict=False):
            title, array, mark = steps[number]
            panel.set_title(f"{number}. {title}", size=9)
            if title in ("scores", "probabilities"):
                _draw_bars(panel, array, label)
                panel.set_xlim((0, 1) if title == "probabilities" else None)
            else:
                _draw_arrays(panel, array, winners=mark, signed=signed)


def _draw_bars(panel: Axes, numbers: np.ndarray, label: Any) -> None:
    """Draw one bar per class, that of the label in orange."""
    classes = np.arange(len(numbers))
    colours = ["tab:orange" if label == n else "tab:blue" for n in classes]
    panel.barh(classes, numbers, color=colours)
    panel.axvline(0, color="black", lw=0.8)
    panel.set_ylim(len(classes) - 0.5, -0.5)
    _mark_classes(panel.yaxis, len(classes))
    panel.set_xlabel("the label in orange" if label is not None else "")


def _mark_classes(axis: Axis, classes: int) -> None:
    """Mark each class on an axis or, of many, some."""
    if classes <= 20:
        axis.set_ticks(range(classes))
    else:
        axis.get_major_locator().set_params(integer=True)


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
        return lay_out_rows(array), f"{len(array):,} numbers"
    if array.ndim == 3:
        more = f", the first {MOST_MAPS}" if array.shape[2] > MOST_MAPS else ""
        return lay_out_maps(array), _in_words(array.shape) + more
    filters, channels, *window = array.shape
    most = MOST_KERNELS if channels > 1 else MOST_MAPS
    shown = array[:most, :MOST_KERNELS]
    size = f"{filters} of {_in_words((*window, channels))}"
    if shown.size < array.size:
        size += f", the first {_in_words(shown.shape[:2])}"
    return lay_out_tiles(shown, 1), size


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
    figure = open_figure(figure, 6.4, 5.6)
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
    panel.set(xlabel="seen", ylabel="true")
    for axis in (panel.xaxis, panel.yaxis):
        _mark_classes(axis, classes)
    bar = figure.colorbar(shown, ax=panel, label="errors (images)", shrink=0.8)
    bar.locator.set_params(integer=True, min_n_ticks=1)
    bar.update_ticks()
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
    figure = open_figure(figure, 8, 0.5 + 1.4 * rows)
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
    names = name_digits(probabilities, found.touching)
    rows = math.ceil(min(len(names), MOST_READINGS) / 10)
    height, width = found.stages["picture"].shape
    heights = 0.4 + min(max(3 * height / width, 1), 6), 0.4 + 1.35 * rows  # inches
    figure = open_figure(figure, 12, sum(heights))
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
        _draw_box(panels[0], name, *box, highest=size[0] / 14)


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


# ---------------------------------------------------------------------- Parts


def _in_words(shape: tuple[int, ...]) -> str:
    """Write a size as in 25x25x8."""
    return "x".join(map(str, shape))


def _draw_image(panel: Axes, image: np.ndarray) -> None:
    """Draw an image (H, W, C) in its colours, or in grey if C is not 3 or 4."""
    picture = image if image.shape[2] in (3, 4) else image.mean(axis=2)
    panel.imshow(picture, cmap="gray", vmin=min(0, picture.min()))
    panel.set_axis_off()
