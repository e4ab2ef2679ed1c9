"""What all tests share: the digits, MNIST where it is, TensorFlow without its log."""

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = Path(__file__).parents[1]


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture(scope="session")
def digits():
    """Return the embedded digits, as run.py loads them."""
    from run import DIGITS, read_data

    return read_data(DIGITS)


@pytest.fixture(scope="session")
def mnist_path():
    """Return where MNIST lies; the test is skipped where it does not."""
    path = os.environ.get("MNIST_PATH")
    if not path:
        pytest.skip("MNIST_PATH names no MNIST")
    return Path(path).resolve()
