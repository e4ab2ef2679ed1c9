"""The same seed gives the same bits, whatever goes on beside; so does prediction."""

import copy
import hashlib
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import ROOT
from numpy.testing import assert_allclose, assert_array_equal

from digits.figures import (
    plot_confusion,
    plot_distortions,
    plot_history,
    plot_kernels,
    plot_mistakes,
    plot_steps,
)
from digits.mnist import DIGITS, read_data
from handwritten_classifier import HandwrittenNumberClassification

# All that draws random numbers or is carried on from step to step takes part.
SETTINGS = {
    "architecture": "4C5-MP3-6C3p1-MP2-16N-10N",
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "label_smoothing": 0.1,
    "averaging": 0.5,
    "schedule": "one-cycle",
    "augment": 0.5,
}

# What may come between two trainings.
LOOKS = {
    "evaluate": lambda model, images, labels: model.evaluate(images, labels),
    "predict": lambda model, images, labels: model.predict(images),
    "forward": lambda model, images, labels: model.forward(images),
    "gradients": lambda model, images, labels: model.compute_gradients(images, labels),
    "distort": lambda model, images, labels: model.distort(images),
    "draw": lambda model, images, labels: plot_distortions(model, images[:1]),
    "settings": lambda model, images, labels: model.set_params(epochs=7),
    "a copy": lambda model, images, labels: copy.deepcopy(model).fit(images, labels),
}
FIGURES = {
    "history": lambda model, images, labels: plot_history(model),
    "kernels": lambda model, images, labels: plot_kernels(model),
    "distortions": lambda model, images, labels: plot_distortions(model, images[:2]),
    "steps": lambda model, images, labels: plot_steps(model, images[0], labels[0]),
    "confusion": lambda model, images, labels: plot_confusion(model, images, labels),
    "mistakes": lambda model, images, labels: plot_mistakes(model, images, labels),
}


@pytest.fixture(scope="module")
def examples(digits):
    """Return 120 digits and their labels, to learn from."""
    return digits.train_images[:120], digits.train_labels[:120]


@pytest.fixture(scope="module")
def images(digits):
    """Return 250 images to read: more than prediction takes at once."""
    return digits.test_images[:250]


@pytest.fixture(scope="module")
def trained(examples):
    """Return a model trained twice, the second time on, that no test may change."""
    return learn(examples).fit(*examples, verbose=0)


@pytest.fixture
def switching():
    """Let threads take turns so often that each is interrupted in its midst."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def learn(examples, *, settings=None, verbose=0, **fit):
    """Return a new model that has learned the examples."""
    model = HandwrittenNumberClassification(**(settings or SETTINGS))
    return model.fit(*examples, verbose=verbose, **fit)


def bits(model):
    """Return the bytes of each parameter, and the losses and accuracies so far."""
    learned = {name: array.tobytes() for name, array in model.parameters.items()}
    return learned | {name: model.history[name] for name in ("loss", "accuracy")}


def digest_of_a_training():
    """Return the hash of what a training has learned, for another process to print."""
    digits = read_data(DIGITS)
    model = learn((digits.train_images[:100], digits.train_labels[:100]))
    return hashlib.sha256(repr(bits(model)).encode()).hexdigest()


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def drawn(figure):
    """Return all numbers that a figure shows."""
    images = [image.get_array() for axes in figure.axes for image in axes.images]
    lines = [line.get_xydata() for axes in figure.axes for line in axes.lines]
    return [np.ma.getdata(array) for array in images + lines]


class TestTraining:
    def test_the_same_seed_learns_the_same_bits(self, examples):
        assert bits(learn(examples)) == bits(learn(examples))

    def test_another_seed_learns_others(self, examples):
        other = learn(examples, settings=SETTINGS | {"seed": 1})
        assert bits(other) != bits(learn(examples))

    def test_verbosity_changes_no_bit(self, examples):
        assert bits(learn(examples, verbose=1)) == bits(learn(examples))

    def test_validation_data_change_no_bit(self, examples):
        watched = learn(examples, epochs=2, validation_data=examples)
        assert bits(watched) == bits(learn(examples, epochs=2))

    @pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
    def test_a_look_between_two_trainings_changes_no_bit(self, examples, trained, look):
        model = learn(examples)
        look(model, *examples)
        assert bits(model.fit(*examples, epochs=1, verbose=0)) == bits(trained)

    @pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle])
    def test_a_copy_trains_on_as_the_model_does(self, examples, trained, copied):
        twin = copied(learn(examples))
        assert bits(twin.partial_fit(*examples)) == bits(trained)

    def test_passes_one_by_one_are_those_of_one_fit(self, examples):
        settings = SETTINGS | {"averaging": 0.0, "schedule": "constant"}
        model = HandwrittenNumberClassification(**settings)
        model.partial_fit(*examples).partial_fit(*examples)
        assert bits(model) == bits(learn(examples, settings=settings, epochs=2))

    def test_another_process_learns_the_same_bits(self):
        command = (
            "import test_same_answer as t; print(t.digest_of_a_training(), end='')"
        )
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
        environment = os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": "7"}
        answer = subprocess.run(
            [sys.executable, "-c", command],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout == digest_of_a_training()


class TestDistortionsAndFigures:
    def test_the_same_generator_distorts_alike(self, trained, examples):
        distorted = (
            trained.distort(examples[0], generator=np.random.default_rng(5))
            for _ in range(2)
        )
        assert_array_equal(*distorted)

    @pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
    def test_models_that_learned_alike_draw_the_same_figures(
        self, trained, examples, draw
    ):
        twin = learn(examples).fit(*examples, verbose=0)
        pairs = zip(
            drawn(draw(trained, *examples)), drawn(draw(twin, *examples)), strict=True
        )
        for found, expected in pairs:
            assert_array_equal(found, expected)


class TestPrediction:
    # Sizes around the number of images that prediction takes at once.
    @pytest.mark.parametrize("size", [1, 2, 99, 100, 101, 250])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_batch_is_read_as_its_parts_are(self, trained, images, size, dtype):
        model = HandwrittenNumberClassification(**SETTINGS | {"dtype": dtype})
        for name, array in model.parameters.items():
            array[:] = trained.parameters[name]
        parts = [
            model.predict_proba(images[start : start + size])
            for start in range(0, len(images), size)
        ]
        parts, whole = np.concatenate(parts), model.predict_proba(images)
        # BLAS may add up in another order; a few hundred times its rounding.
        rounding = 300 * np.finfo(dtype).eps
        assert_allclose(parts, whole, rtol=rounding, atol=rounding)
        assert_array_equal(parts.argmax(axis=1), whole.argmax(axis=1))

    def test_it_leaves_the_mask_of_the_last_pooling_alone(self, trained, images):
        model = copy.deepcopy(trained)
        model.generate_max_pool(np.arange(16.0).reshape(1, 4, 4, 1))
        mask = model.binary_max_pool
        model.predict(images)
        assert model.binary_max_pool is mask


class TestThreads:
    def test_one_model_predicts_in_several(self, trained, images, switching):
        parts = [images, images[:1], images[::-1], images[:101]] * 8
        expected = [trained.predict_proba(part) for part in parts]
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(trained.predict_proba, parts))
        for number, (ours, alone) in enumerate(zip(found, expected, strict=True)):
            assert_array_equal(ours, alone, err_msg=f"prediction {number}")

    def test_two_models_train_in_two(self, examples, switching):
        settings = [SETTINGS | {"seed": seed} for seed in (0, 1)]
        with ThreadPoolExecutor(2) as threads:
            found = list(threads.map(lambda s: learn(examples, settings=s), settings))
        for ours, alone in zip(found, settings, strict=True):
            assert bits(ours) == bits(learn(examples, settings=alone))

    def test_a_model_predicts_while_another_trains(self, trained, examples, switching):
        expected = trained.predict_proba(examples[0])
        with ThreadPoolExecutor(1) as threads:
            training = threads.submit(learn, examples, epochs=3)
            while not training.done():
                assert_array_equal(trained.predict_proba(examples[0]), expected)
        assert bits(training.result()) == bits(learn(examples, epochs=3))
