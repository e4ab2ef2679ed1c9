"""What all figures share: where they are shown, and numbers laid out as pictures.

A notebook shows each figure once, at the end of its cell or at ``pyplot.show()``, and a
window at ``pyplot.show()``. Elsewhere a figure belongs to its caller alone and needs no
closing.
"""

from __future__ import annotations

import math
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_MAPS = 64  # of a layer that are shown
MOST_COLUMNS = 16  # of kernels of several channels
# IPython calls a method of this name before it displays an object.
BEFORE_DISPLAY = "_repr_mimebundle_"

# ---------------------------------------------------------------------- Figures


def draw_to_files() -> None:
    """Let this process draw with Agg, which opens no window, whatever its environment.

    A notebook hands its own backend to each program that it starts, as ``MPLBACKEND``.
    Where that backend is not installed, matplotlib could not even be imported.
    """
    os.environ["MPLBACKEND"] = "agg"
    if "matplotlib" in sys.modules:
        import matplotlib

        matplotlib.use("agg")


def open_figure(figure: Figure | None, width: float, height: float) -> Figure:
    """Return `figure` or a new one, in inches: of pyplot if that will show it.

    Pyplot keeps its figures until they are shown or closed, other figures nobody does.
    """
    from matplotlib.figure import Figure

    shape = {"figsize": (width, height), "layout": "constrained"}
    backend = _find_backend()
    if backend and figure is None:
        from matplotlib import pyplot

        try:
            figure = pyplot.figure(**shape)
        except ImportError:  # of a backend that has no display, or is not installed
            backend = ""
    if figure is None:
        figure = Figure(**shape)
    if "inline" in backend and isinstance(figure, Figure):
        setattr(figure, BEFORE_DISPLAY, partial(_show_once, figure))
    return figure


def _find_backend() -> str:
    """Return the name of matplotlib's backend; "" if it shows no figures."""
    import matplotlib
    from matplotlib.backends import BackendFilter, backend_registry

    backend = matplotlib.get_backend().lower()
    if "inline" in backend:  # A program that a notebook has started shows nothing.
        ipython = sys.modules.get("IPython")
        return backend if ipython and ipython.get_ipython() else ""
    silent = backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE)
    return "" if backend in silent else backend


def _show_once(figure: Figure, **_: Any) -> dict:
    """Take a figure that is about to be displayed away from pyplot; return nothing.

    Pyplot would display it again at the end of the cell. Its older figures come first.
    """
    from IPython.display import display
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    pyplot.close(figure)
    left = pyplot.get_fignums()
    for number in sorted(set(before) - set(left)):
        for older in [n for n in left if n < number]:
            display(pyplot.figure(older))
            pyplot.close(older)
    return {}


# ---------------------------------------------------------------------- Layouts


def lay_out_maps(maps: np.ndarray) -> np.ndarray:
    """Return up to 64 maps, (H, W, C), as one picture, with nan between them.

    This is the layout of `plot_steps`. A single map is its own picture.
    """
    tiles = maps.transpose(2, 0, 1)[:MOST_MAPS, np.newaxis]
    return lay_out_tiles(tiles, 1) if len(tiles) > 1 else tiles[0, 0]


def lay_out_tiles(kernels: np.ndarray, aspect: float = 1.6) -> np.ndarray:
    """Return kernels (F, C, K_h, K_w) as one picture, with nan around each tile.

    Kernels of one channel fill rows, with `aspect` times as many columns as rows.
    Kernels of several channels are one column each, in bands of up to 16 columns.
    """
    filters, channels, height, width = kernels.shape
    columns = min(filters, math.ceil((aspect * filters) ** 0.5))
    if channels > 1:
        columns = math.ceil(filters / math.ceil(filters / MOST_COLUMNS))
    bands = math.ceil(filters / columns)
    tiles = np.full((bands * columns, channels, height + 1, width + 1), np.nan)
    tiles[:filters, :, 1:, 1:] = kernels
    tiles = tiles.reshape(bands, columns, channels, height + 1, width + 1)
    mosaic = tiles.transpose(0, 2, 3, 1, 4)
    mosaic = mosaic.reshape(bands, channels * (height + 1), columns * (width + 1))
    gap = int(channels > 1)  # rows, between bands
    mosaic = np.pad(mosaic, ((0, 0), (gap, 0), (0, 0)), constant_values=np.nan)
    mosaic = mosaic.reshape(-1, columns * (width + 1))[gap:]
    return np.pad(mosaic, ((0, 1), (0, 1)), constant_values=np.nan)


def lay_out_rows(array: np.ndarray) -> np.ndarray:
    """Return numbers (D,) as a picture that is about square, row after row."""
    width = math.ceil(len(array) ** 0.5)
    mosaic = np.full((math.ceil(len(array) / width), width), np.nan)
    mosaic.ravel()[: len(array)] = array
    return mosaic
