"""Ctrl-C, signals and the end of Python while several cores predict or learn."""

import os
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import ROOT
from numpy.testing import assert_array_equal
from threadpoolctl import ThreadpoolController, threadpool_limits

from handwritten_classifier import (
    HandwrittenNumberClassification,
    holding_back_interrupts,
)

posix = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
BLAS = ThreadpoolController().select(user_api="blas")


@pytest.fixture
def model():
    model = HandwrittenNumberClassification("2C5-MP8-10N", seed=1)
    with threadpool_limits(2, user_api="blas"):
        yield model


@pytest.fixture
def images(rng):
    return rng.random((250, 28, 28), np.float32)


@pytest.fixture
def alarm():
    """Return a function that lets a handler be called soon, once."""
    before = signal.getsignal(signal.SIGALRM)

    def call(handler, seconds):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield call
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def press(*_):
    signal.raise_signal(signal.SIGINT)


def state(model):
    """Return all that a run changes and has to put back."""
    threads = [library.num_threads for library in BLAS.lib_controllers]
    return model._work.arrays, np.getbufsize(), threads, signal.getsignal(signal.SIGINT)


@posix
# A callback of Python's own, which cannot raise, may be where Ctrl-C comes.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("count", [5, 250], ids=["one batch", "three batches"])
def test_ctrl_c_at_any_moment_of_a_prediction_leaves_all_as_it_was(
    model, images, alarm, count
):
    images, chance = images[:count], random.Random(20)
    expected, before = model.predict_proba(images), state(model)
    pressed, ended = [], 0

    def press_once(*_):
        pressed.append(True)
        press()

    for _ in range(150):
        pressed.clear()
        try:
            alarm(press_once, chance.uniform(1e-5, 2e-3 if count == 5 else 8e-3))
            while not pressed:
                model.predict_proba(images)
        except KeyboardInterrupt:
            ended += 1
        assert state(model) == before
    assert ended > 100
    assert_array_equal(model.predict_proba(images), expected)


AT_THE_END = """
import atexit, sys, threading, time
import numpy as np
from threadpoolctl import threadpool_limits
from handwritten_classifier import HandwrittenNumberClassification

limits = threadpool_limits(2, user_api="blas")
model = HandwrittenNumberClassification("2C5-MP8-10N", batch_size=600, verbose=0)
images, labels = np.random.default_rng(1).random((1200, 28, 28)), np.arange(1200) % 10
assert len(model._cut(0, 600)) > 1

def use():
    time.sleep(0.3)
    model.fit(images, labels, epochs=3)
    print(len(model.history["loss"]), model.predict_proba(images).shape)

if sys.argv[1] == "thread":
    threading.Thread(target=use).start()
else:
    atexit.register(use)
"""


@pytest.mark.filterwarnings("ignore:accuracy should be above chance")
@pytest.mark.parametrize("way", ["thread", "atexit"])
def test_when_the_program_has_ended_a_thread_of_it_still_learns(way, environment):
    command = [sys.executable, "-W", "ignore", "-c", AT_THE_END, way]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "3 (1200, 10)\n"


class TestHoldingBack:
    def test_it_comes_at_the_end_or_in_a_block_that_hears_it(self):
        done = []
        with pytest.raises(KeyboardInterrupt), holding_back_interrupts():  # noqa: PT012
            press()
            done.append("held")
        with (  # noqa: PT012
            pytest.raises(KeyboardInterrupt),
            holding_back_interrupts() as hearing_them,
        ):
            press()
            done.append("held")
            with hearing_them():
                done.append("not reached")
        with (  # noqa: PT012
            pytest.raises(KeyboardInterrupt),
            holding_back_interrupts() as hearing_them,
            hearing_them(),
        ):
            press()
            done.append("not reached")
        assert done == ["held", "held"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_an_error_does_not_lose_it(self):
        with pytest.raises(KeyboardInterrupt) as error, holding_back_interrupts():  # noqa: PT012
            press()
            raise ValueError
        assert isinstance(error.value.__context__, ValueError)

    def test_another_thread_changes_nothing(self):
        seen = []

        def look():
            with holding_back_interrupts() as hearing_them, hearing_them():
                seen.append(signal.getsignal(signal.SIGINT))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert seen == [signal.default_int_handler]
