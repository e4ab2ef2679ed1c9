"""Prediction and evaluation, of any number of images."""

import numpy as np
import pytest
from helpers.networks import assert_same_parameters, small_model
from numpy.testing import assert_array_equal


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
