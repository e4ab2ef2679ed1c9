"""The graphs of a comparison of configurations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from digits.canvas import open_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Where the axes of the comparison are marked: accuracy 0..1, loss in nats.
MARKS = {
    "accuracy": (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 1),
    "loss": (1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
}
SMALLEST_LOSS = 1e-6  # nats, that has a place of its own on the logarithmic axis
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

    Below, where the configurations' work is known, stands accuracy against that. Bars
    are standard deviations over seeds, where these are known.

    Parameters
    ----------
    results : list of dict
        One per configuration: ``architecture``, ``train_accuracy``, ``train_loss``,
        ``test_accuracy``, ``test_loss``, each of these with ``..._deviation`` if there
        are several seeds, and ``multiply_adds`` for an image.
    figure : Figure, optional
    """
    weighed = all("multiply_adds" in row for row in results)
    heights = [1.0 + 0.55 * len(results), 4.4][: 1 + weighed]
    figure = open_figure(figure, 10, 0.6 + sum(heights))
    places = [["accuracy", "loss"], ["work", "work"]][: 1 + weighed]
    panels = figure.subplot_mosaic(places, height_ratios=heights)
    for quantity in ("accuracy", "loss"):
        for part in PARTS:
            _draw_part(panels[quantity], results, part, quantity)
        _mark_axis(panels[quantity], results, quantity)
        panels[quantity].set_ylim(len(results) - 0.4, -0.6)
    names = [row["architecture"] for row in results]
    panels["accuracy"].set_yticks(range(len(results)), names)
    panels["loss"].set_yticks(range(len(results)), [])
    legend = panels["accuracy"].get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=2)
    if weighed:
        _draw_work(panels["work"], results)
    return figure


def _draw_part(
    panel: Axes, results: list[dict[str, Any]], part: str, quantity: str
) -> None:
    """Draw the training or the test values of one quantity."""
    label, colour, marker, size, above = PARTS[part]
    values, bars = _values_and_bars(results, part, quantity)
    places, rows = _log_places(values, quantity), range(len(results))
    if bars.any():
        panel.errorbar(places, rows, xerr=bars, fmt="none", ecolor=colour)
    face = "none" if part == "train" else colour
    style = {"marker": marker, "s": size, "edgecolors": colour, "label": label}
    panel.scatter(places, rows, facecolors=face, **style)
    for row, (place, value) in enumerate(zip(places, values, strict=True)):
        text = f"{100 * value:.2f}" if quantity == "accuracy" else f"{value:.3f}"
        style = {"ha": "center", "va": "center", "size": 9, "color": "0.25"}
        offset = {"xytext": (0, above), "textcoords": "offset points"}
        panel.annotate(text, (place, row), **offset, **style)


def _values_and_bars(
    results: list[dict[str, Any]], part: str, quantity: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return means, and how far bars of a standard deviation reach, down and up."""
    name = f"{part}_{quantity}"
    values = np.array([row[name] for row in results])
    spread = np.array([row.get(f"{name}_deviation", 0.0) for row in results])
    most = 1.0 if quantity == "accuracy" else math.inf
    ends = (values - spread, values, np.minimum(values + spread, most))
    low, middle, high = (_log_places(end, quantity) for end in ends)
    return values, np.array([middle - low, high - middle])


def _draw_work(panel: Axes, results: list[dict[str, Any]]) -> None:
    """Draw test accuracy against an image's work, each point beside its name."""
    from matplotlib.transforms import Bbox

    _, colour, marker, _, _ = PARTS["test"]
    values, bars = _values_and_bars(results, "test", "accuracy")
    places = _log_places(values, "accuracy")
    work = [max(1, row["multiply_adds"]) for row in results]
    panel.errorbar(work, places, yerr=bars, fmt=marker, color=colour, capsize=3)
    panel.set_xscale("log")
    panel.margins(x=0.15, y=0.15)
    marks = _choose_marks(*panel.get_ylim(), "accuracy")
    panel.set_yticks(
        _log_places(marks, "accuracy"), [f"{100 * mark:.6g}" for mark in marks]
    )
    panel.set_title("Accuracy vs. Work")
    panel.set_xlabel("multiply-adds for an image, logarithmic")
    panel.set_ylabel("test accuracy (%), logarithmic")
    panel.grid(alpha=0.3)
    panel.figure.draw_without_rendering()  # From here on, places are settled.
    points = list(zip(work, places, strict=True))
    boxes = [
        Bbox.from_extents(x - 6, y - 6, x + 6, y + 6)
        for x, y in panel.transData.transform(points)
    ]
    sides = [((9, 0), "left", "center"), ((-9, 0), "right", "center")]
    for across in ("center", "right", "left"):
        sides += [((0, 13), across, "bottom"), ((0, -13), across, "top")]
    for row, point in zip(results, points, strict=True):
        for side in sides:
            offset, across, down = side
            style = {"xytext": offset, "textcoords": "offset points", "size": 9}
            style |= {"ha": across, "va": down}
            text = panel.annotate(row["architecture"], point, **style)
            box = text.get_window_extent()
            inside = panel.bbox.x0 < box.x0 and box.x1 < panel.bbox.x1
            if side == sides[-1] or (inside and box.count_overlaps(boxes) == 0):
                break
            text.remove()
        boxes.append(box)


def plot_curves(results: list[dict[str, Any]], figure: Figure | None = None) -> Figure:
    """Draw accuracy and loss of several configurations by epoch.

    They are those of the held-out images or, where there are none, of the training. A
    line is the mean of the seeds, the band about it their standard deviation.

    Parameters
    ----------
    results : list of dict
        One per configuration: ``architecture`` and ``seeds``, a list of dicts, each
        with the ``history`` of a model.
    figure : Figure, optional
    """
    figure = open_figure(figure, 10, 4.8)
    histories = [[one["history"] for one in row["seeds"]] for row in results]
    held_out = all("val_loss" in one for seeds in histories for one in seeds)
    kind, images = ("val_", "held-out") if held_out else ("", "training")
    for panel, quantity in zip(
        figure.subplots(1, 2), ("accuracy", "loss"), strict=True
    ):
        scale = 100 if quantity == "accuracy" else 1
        for row, seeds in zip(results, histories, strict=True):
            epochs = min(len(history["loss"]) for history in seeds)
            values = [history[f"{kind}{quantity}"][:epochs] for history in seeds]
            values, steps = scale * np.array(values), range(1, epochs + 1)
            mean, spread = values.mean(axis=0), values.std(axis=0, ddof=len(seeds) > 1)
            (line,) = panel.plot(steps, mean, ".-", label=row["architecture"])
            panel.fill_between(
                steps, mean - spread, mean + spread, alpha=0.2, color=line.get_color()
            )
        panel.set_title(f"{quantity.capitalize()} vs. Epoch")
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        unit = "%" if quantity == "accuracy" else "nats"
        panel.set_ylabel(f"{images} {quantity} ({unit})")
        panel.grid(alpha=0.3)
    legend = panel.get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=3)
    return figure


def _mark_axis(panel: Axes, results: list[dict[str, Any]], quantity: str) -> None:
    """Give a panel its title and its logarithmic axis.

    Equal steps stand for halved errors or losses. Good configurations differ by little,
    and a linear axis with a bad one would draw them on top of each other.
    """
    scale, unit = {"accuracy": (100, "%"), "loss": (1, "nats")}[quantity]
    panel.margins(x=0.12)
    marks = _choose_marks(*panel.get_xlim(), quantity)
    labels = [f"{scale * mark:.6g}" for mark in marks]
    panel.set_xticks(_log_places(marks, quantity), labels)
    panel.set_title(f"{quantity.capitalize()} vs. Configuration")
    panel.set_xlabel(f"{quantity} ({unit}), logarithmic")
    panel.grid(axis="x", alpha=0.3)


def _choose_marks(low: float, high: float, quantity: str) -> np.ndarray:
    """Return some four to nine round numbers between two places of the axis."""
    from matplotlib.ticker import MaxNLocator

    ends = [
        1.0005 - math.exp(-place) if quantity == "accuracy" else math.exp(place)
        for place in (low, high)
    ]
    between = MaxNLocator(6, steps=[1, 2, 5, 10], min_n_ticks=4).tick_values(*ends)
    lowest, highest = (0, 1) if quantity == "accuracy" else (SMALLEST_LOSS, math.inf)
    for marks in (np.array(MARKS[quantity]), between):
        marks = marks[(lowest <= marks) & (marks <= highest)]
        places = _log_places(marks, quantity)
        marks = marks[(low <= places) & (places <= high)]
        if len(marks) >= 4:
            break
    return marks[:: len(marks) // 10 + 1]


def _log_places(values: np.ndarray, quantity: str) -> np.ndarray:
    """Return places on the logarithmic axis: of a loss, or of an accuracy's error."""
    if quantity == "accuracy":
        return -np.log(1.0005 - values)  # 100 % must have a place, too.
    return np.log(np.maximum(values, SMALLEST_LOSS))
