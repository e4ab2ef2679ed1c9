"""What all tests share: the digits, MNIST where it is, TensorFlow without its log."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests side by side share the processor. NumPy looks at this when it is imported.
os.environ.update(
    {"OPENBLAS_NUM_THREADS": "1"} if "PYTEST_XDIST_WORKER" in os.environ else {}
)

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture(scope="session")
def digits():
    """Return the embedded digits, as `load_data` returns them."""
    from digits.mnist import DIGITS, read_data

    return read_data(DIGITS)


@pytest.fixture(scope="session")
def mnist_path():
    """Return where MNIST lies; the test is skipped where it does not."""
    path = os.environ.get("MNIST_PATH")
    if not path:
        pytest.skip("MNIST_PATH names no MNIST")
    return Path(path).resolve()
