"""Where figures are shown: in files, in windows, in programs of a notebook."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from conftest import ROOT
from helpers.program import STRICT

from digits.canvas import lay_out_maps, lay_out_tiles, open_figure

INLINE = "module://matplotlib_inline.backend_inline"
# A backend as one that opens windows: it says how many `pyplot.show` has to show.
WINDOWS = """
from matplotlib._pylab_helpers import Gcf
from matplotlib.backends.backend_agg import FigureCanvas

def show(*arguments, **options):
    print(len(Gcf.get_all_fig_managers()), "shown")
"""
DRAW = """
from digits.figures import plot_history
from handwritten_classifier import HandwrittenNumberClassification
figure = plot_history(HandwrittenNumberClassification())
figure.savefig("history.png")
from matplotlib import pyplot
print(pyplot.get_backend().lower(), len(pyplot.get_fignums()))
"""


@pytest.fixture
def draw(tmp_path):
    """Return a function that runs code with a backend of the environment's."""

    def run(code, backend):
        kept = {name: os.environ[name] for name in os.environ if name != "DISPLAY"}
        variables = {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
        done = subprocess.run(
            [sys.executable, *STRICT, "-c", code],
            env=kept | variables | {"MPLBACKEND": backend},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_thousand_figures_leave_none_open(monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(1000):
            open_figure(None, 2, 2)
    assert pyplot.get_fignums() == []


def test_windows_show_figures(draw, tmp_path):
    (tmp_path / "windows.py").write_text(WINDOWS)
    shown = draw(f"{DRAW}pyplot.show()", "module://windows")
    assert shown == "module://windows 1\n1 shown\n"


@pytest.mark.parametrize("backend", ["agg", "pdf", "svg"])
def test_a_backend_that_shows_nothing_keeps_no_figure(draw, backend):
    assert draw(DRAW, backend) == f"{backend} 0\n"


@pytest.mark.parametrize("backend", ["module://not_there", "gtk4cairo"])
def test_a_backend_that_cannot_start_is_not_needed(draw, backend, tmp_path):
    draw(DRAW.partition("from matplotlib")[0], backend)
    assert (tmp_path / "history.png").stat().st_size > 1000


def test_a_program_of_a_notebook_keeps_no_figure(draw):
    pytest.importorskip("matplotlib_inline")
    assert draw(DRAW, INLINE).endswith(" 0\n")


@pytest.mark.parametrize("backend", [INLINE, "no-such-backend", "module://not_there"])
def test_a_program_can_draw_to_files_whatever_its_environment(draw, backend):
    without = "import sys\nsys.modules['matplotlib_inline'] = None\n"
    start = "from digits.canvas import draw_to_files\ndraw_to_files()\n"
    assert draw(without + start + DRAW, backend) == "agg 0\n"


def test_a_program_can_draw_to_files_once_pyplot_is_there(draw, tmp_path):
    (tmp_path / "windows.py").write_text(WINDOWS)
    start = "from matplotlib import pyplot\npyplot.switch_backend('module://windows')\n"
    start += "from digits.canvas import draw_to_files\ndraw_to_files()\n"
    assert draw(start + DRAW, "module://windows") == "agg 0\n"


def test_a_figure_of_the_caller_s_is_used():
    figure = open_figure(None, 2, 2)
    assert open_figure(figure, 9, 9) is figure
    assert figure.get_size_inches().tolist() == [2, 2]


def test_channels_stand_below_each_other_in_bands():
    kernels = np.arange(20 * 2 * 1 * 1.0).reshape(20, 2, 1, 1)
    picture = lay_out_tiles(kernels)
    rows = [row[~np.isnan(row)] for row in picture if not np.isnan(row).all()]
    assert [len(row) for row in rows] == [10, 10, 10, 10]
    assert [row[0] for row in rows] == [0, 1, 20, 21]
    assert np.isnan(picture[4:6]).all()


def test_maps_stand_in_rows():
    maps = np.arange(5.0).reshape(1, 1, 5)
    picture = lay_out_maps(maps)
    assert picture[1::2, 1::2].tolist()[0] == [0, 1, 2]
    assert picture.shape == (5, 7)
