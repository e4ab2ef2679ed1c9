"""Fixtures of all tests: digits, MNIST where it is, the program in an empty folder."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests side by side share the processor. NumPy looks at this when it is imported.
os.environ.update(
    {"OPENBLAS_NUM_THREADS": "1"} if "PYTEST_XDIST_WORKER" in os.environ else {}
)

import numpy as np
import pytest
from helpers.program import STRICT

from digits import mnist

ROOT = Path(__file__).parents[1]


# Files that take long come first: begun last, one would keep a single core busy.
LONG = "run keras_twin page_in_use training_page walkthrough notebook experiments page"
LONG += " every_number figures pictures pages load checkpoint"
WITH_TENSORFLOW = "keras_twin against_tensorflow mnist benchmark"


def pytest_configure(config):
    """Let the tests begin in the order below, not the files of many tests first."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Begin with the files that take long."""
    places = {f"test_{name}": place for place, name in enumerate(LONG.split())}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Send the files with TensorFlow to one process, for its import takes long."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            name = Path(file).stem.removeprefix("test_")
            return "TensorFlow" if name in WITH_TENSORFLOW.split() else file

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def _digits_enlarged_once():
    """Let the embedded digits be enlarged once, not whenever a test reads them."""
    enlarge = mnist.enlarge_digits
    with np.load(mnist.DIGITS) as archive:
        known = {archive[name].tobytes(): None for name in ("x_train", "x_test")}

    def enlarge_once(images):
        name = images.tobytes()
        if name not in known:
            return enlarge(images)
        if known[name] is None:
            known[name] = enlarge(images)
        return known[name].copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist, "enlarge_digits", enlarge_once)
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture
def examples(rng):
    """Return 50 images of 8x8 with labels 0..2."""
    return rng.random((50, 8, 8)), rng.integers(0, 3, size=50)


@pytest.fixture(scope="session")
def digits():
    """Return the embedded digits, as `load_data` returns them."""
    from digits.mnist import DIGITS, read_data

    return read_data(DIGITS)


@pytest.fixture(scope="session")
def model_path(digits, tmp_path_factory):
    """Return the file of a model that reads simple digits of many hands."""
    import run
    from handwritten_classifier import HandwrittenNumberClassification

    settings = run.RECIPES["fast"] | {"epochs": 12, "augment": 1.0}
    model = HandwrittenNumberClassification(**settings)
    model.fit(digits.train_images, digits.train_labels, verbose=0)
    path = tmp_path_factory.mktemp("reader") / "model.npz"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def mnist_path():
    """Return where MNIST lies; the test is skipped where it does not."""
    path = os.environ.get("MNIST_PATH")
    if not path:
        pytest.skip("MNIST_PATH names no MNIST")
    return Path(path).resolve()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Return Chromium; the test is skipped where it or its driver is not."""
    pytest.importorskip("selenium")
    from helpers.page import BROWSER, DRIVER, browsing

    if not (BROWSER and DRIVER):
        pytest.skip("there is no Chromium to draw in")
    with browsing(tmp_path_factory.mktemp("browser")) as driver:
        driver.set_script_timeout(20)
        yield driver


@pytest.fixture
def environment(tmp_path):
    """Return an environment with no MNIST, no Keras cache and no network."""
    nowhere = "http://127.0.0.1:9"  # the discard port: refuses at once
    kept = {k: v for k, v in os.environ.items() if k != "MNIST_PATH"}
    return kept | {
        "KERAS_HOME": str(tmp_path / "keras"),
        "HTTPS_PROXY": nowhere,
        "https_proxy": nowhere,
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


@pytest.fixture
def process(environment, tmp_path):
    """Return a function that runs run.py in an empty folder, in a process of its own.

    It takes a second to start: for what only a process shows.
    """

    def start(*arguments, **variables):
        command = [sys.executable, *STRICT, str(ROOT / "run.py"), *arguments]
        return subprocess.run(
            [str(part) for part in command],
            env=environment | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    return start


@pytest.fixture
def program(environment, tmp_path):
    """Return a function that runs run.py in an empty folder, within this process."""
    import run

    def start(*arguments, **variables):
        printed, errors = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(errors),
        ):
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", ["run.py"])
            # Tests of notebooks import it, and the class would show a notebook's bars.
            patch.delitem(sys.modules, "ipykernel", raising=False)
            for name in os.environ.keys() - environment.keys():
                patch.delenv(name)
            for name, value in (environment | variables).items():
                patch.setenv(name, value)
            try:
                status = run.main([str(part) for part in arguments])
            except SystemExit as end:  # of argparse
                status = end.code
        said = printed.getvalue(), errors.getvalue()
        return subprocess.CompletedProcess(arguments, status, *said)

    return start


@pytest.fixture
def undrawn(monkeypatch):
    """Write figures as empty files, where a test looks at none: drawing takes long."""
    import run

    monkeypatch.setattr(run, "write_figure", lambda path, figure: path.write_bytes(b""))


@pytest.fixture(scope="session")
def few_digits(digits, tmp_path_factory):
    """Return the file of few digits, to train on where the numbers do not matter."""
    path = tmp_path_factory.mktemp("few") / "few.npz"
    images, labels = digits.train_images[:120], digits.train_labels[:120]
    test = {"x_test": digits.test_images[:60], "y_test": digits.test_labels[:60]}
    np.savez(path, x_train=images, y_train=labels, **test)
    return path
