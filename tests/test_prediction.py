"""Prediction and evaluation, of any number of images."""

import warnings

import numpy as np
import pytest
from helpers.networks import assert_same_parameters, small_model
from numpy.testing import assert_array_equal

from handwritten_classifier import HandwrittenNumberClassification


def test_shapes_and_types(examples):
    model = small_model()
    probabilities, classes = (
        model.predict_proba(examples[0]),
        model.predict(examples[0]),
    )
    assert probabilities.shape == (50, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert classes.shape == (50,)
    assert classes.dtype.kind == "i"
    assert_array_equal(classes, probabilities.argmax(axis=1))


@pytest.mark.parametrize("count", [50, 130])  # at once, and in two batches
def test_evaluate_by_hand(rng, count):
    images, labels = rng.random((count, 8, 8)), rng.integers(0, 3, size=count)
    model = small_model(dtype=np.float64)
    probabilities = model.forward(images)
    of_label = probabilities[np.arange(count), labels]
    loss, accuracy = model.evaluate(images, labels)
    assert loss == pytest.approx(-np.log(of_label).mean(), rel=1e-12)
    assert accuracy == (probabilities.argmax(axis=1) == labels).mean()
    assert model.score(images, labels) == accuracy


def test_many_images_go_batch_by_batch(rng):
    model = small_model(dtype=np.float64)
    images = rng.random((357, 8, 8))
    whole = model.forward(images)
    np.testing.assert_allclose(model.predict_proba(images), whole, rtol=1e-12)


def test_uint8_images_are_divided_by_255(rng):
    images = rng.integers(0, 256, size=(5, 8, 8), dtype=np.uint8)
    model = small_model()
    expected = model.predict_proba(images.astype(np.float32) / 255)
    assert_array_equal(model.predict_proba(images), expected)


def test_memory_mapped_images_give_the_same(tmp_path, examples):
    np.save(tmp_path / "images.npy", examples[0])
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    one = small_model().fit(mapped, examples[1], verbose=0)
    other = small_model().fit(*examples, verbose=0)
    assert_same_parameters(one, other.parameters)
    assert_array_equal(one.predict(mapped), other.predict(examples[0]))


def test_a_network_that_never_learned_says_so_once(examples):
    model = small_model()
    with pytest.warns(UserWarning, match="should be trained .* got initial weights"):
        model.predict(examples[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(examples[0])


@pytest.mark.parametrize("learn", ["fit", "load", "parameters"])
def test_one_that_learned_says_nothing(examples, tmp_path, learn):
    model = small_model()
    if learn == "parameters":
        model.W_dense *= 2  # as a network without biases has learned
    else:
        model.fit(*examples, verbose=0)
    if learn == "load":
        model.save(tmp_path / "model.npz")
        model = model.load(tmp_path / "model.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(examples[0])


def test_a_large_network_predicts_few_images_at_once():
    """In all, numbers are bounded: 1 image here makes 20 million."""
    model = HandwrittenNumberClassification(
        "9C1-MP1000-1N", input_shape=(1000, 1000, 1)
    )
    counts = []

    def forward(batch, **_):  # The sizes matter; to compute so much takes long.
        counts.append(len(batch))
        return np.ones((len(batch), 1)), None

    model._forward = forward
    assert len(model.predict_proba(np.zeros((7, 1000, 1000), np.uint8))) == 7
    assert sorted(counts) == [2, 5]  # in threads
