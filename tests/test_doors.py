"""What comes in by the public methods: refused, or told what to do, in words."""

import warnings

import numpy as np
import pytest
from helpers.networks import assert_same_parameters, small_model, snapshot
from numpy.testing import assert_array_equal

from handwritten_classifier import HandwrittenNumberClassification


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((8, 8)), ValueError, r"shape \(B, 8, 8, 1\); got \(8, 8\)"),
        (np.zeros((2, 8, 9)), ValueError, r"shape \(B, 8, 8, 1\); got"),
        (np.zeros((2, 8, 8, 3)), ValueError, r"shape \(B, 8, 8, 1\); got"),
        (np.zeros((0, 8, 8)), ValueError, "at least one; got"),
        (np.zeros((2, 8, 8), int), TypeError, "uint8 or floats; got dtype int64"),
        (np.zeros((2, 8, 8), bool), TypeError, "uint8 or floats; got dtype bool"),
        (np.full((2, 8, 8), "1"), TypeError, "uint8 or floats; got dtype"),
        (np.full((2, 8, 8), np.nan), ValueError, "finite float32 numbers; got nan"),
        (np.full((2, 8, 8), np.inf), ValueError, "finite float32 numbers; got"),
        (np.full((2, 8, 8), -np.inf), ValueError, "finite float32 numbers; got"),
        (np.full((2, 8, 8), 1e300), ValueError, "finite float32 numbers; got"),
    ],
)
def test_wrong_images_are_named(images, error, message):
    model, labels = small_model(), np.zeros(len(images), int)
    for use in (
        lambda: model.predict(images),
        lambda: model.predict_proba(images),
        lambda: model.forward(images),
        lambda: model.evaluate(images, labels),
        lambda: model.compute_gradients(images, labels),
        lambda: model.fit(images, labels, verbose=0),
        lambda: model.partial_fit(images, labels),
    ):
        with pytest.raises(error, match=f"images must .*{message}"):
            use()


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 1], ValueError, r"shape \(3,\); got \(2,\)"),
        ([[0], [1], [2]], ValueError, r"shape \(3,\), as labels.ravel\(\); got"),
        (np.eye(3, dtype=int), ValueError, "one-hot"),
        ([0, 1, 3], ValueError, r"in 0\.\.2; got 3"),
        ([0, -1, 2], ValueError, r"in 0\.\.2; got -1"),
        ([0.0, 1.0, 2.0], TypeError, "integers; got dtype float64"),
        (["0", "1", "2"], TypeError, "integers; got dtype"),
    ],
)
def test_wrong_labels_are_named(labels, error, message):
    model, images = small_model(), np.zeros((3, 8, 8))
    before = snapshot(model)
    for use in (
        lambda: model.evaluate(images, labels),
        lambda: model.compute_gradients(images, labels),
        lambda: model.fit(images, labels, verbose=0),
        lambda: model.fit(images, [0, 1, 2], validation_data=(images, labels)),
    ):
        with pytest.raises(error, match=f"labels must .*{message}"):
            use()
    assert_same_parameters(model, before)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((5, 28, 28, 3), r"make RGB images grey .*shape=\(28, 28, 3\)"),
        ((5, 784), r"pass images.reshape\(-1, 28, 28, 1\)"),
        ((5, 1, 28, 28), r"pass images.transpose\(0, 2, 3, 1\)"),
        ((28, 28), r"pass one image as image\[np.newaxis\]"),
        ((5, 32, 30), r"set input_shape=\(32, 30, 1\) .* with prepare_image"),
        ((5, 32, 30, 3), r"set input_shape=\(32, 30, 3\) .* with prepare_image"),
    ],
)
def test_images_of_another_shape_are_told_what_to_do(shape, hint):
    message = rf"images must have shape \(B, 28, 28, 1\); got .*: {hint}"
    with pytest.raises(ValueError, match=message):
        HandwrittenNumberClassification().predict(np.zeros(shape))


def test_what_is_said_of_images_of_another_shape_helps(rng):
    small, colours = small_model(), rng.random((5, 8, 8, 3))
    images = colours.mean(axis=3)
    first = images.reshape(-1, 1, 8, 8)
    for same in (
        images.reshape(5, 64).reshape(-1, 8, 8, 1),
        first.transpose(0, 2, 3, 1),
    ):
        assert_array_equal(small.predict_proba(same), small.predict_proba(images))
    assert small.predict(images[0][np.newaxis]).shape == (1,)
    assert small.set_params(input_shape=(8, 8, 3)).predict(colours).shape == (5,)


def test_integers_that_are_not_uint8_are_told_how_to_become_it():
    with pytest.raises(TypeError, match=r"pass images.astype\(np.uint8\)"):
        small_model().predict(np.zeros((2, 8, 8), int))


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        ([1, 2, 3], r"1\.\.3 need 1 subtracted, as in labels - 1"),
        ([0, 1, 3], "an architecture for them ends in 4N"),
        ([1, 2, 25], "an architecture for them ends in 26N"),
    ],
)
def test_labels_beyond_the_classes_are_told_what_to_do(labels, hint):
    with pytest.raises(ValueError, match=rf"labels must be in 0\.\.2; got .*{hint}"):
        small_model().fit(np.zeros((3, 8, 8)), labels)


def test_labels_that_are_texts_are_told_what_to_do():
    with pytest.raises(TypeError, match=r"pass labels.astype\(int\)"):
        small_model().fit(np.zeros((3, 8, 8)), np.array(["0", "1", "2"]))


def test_images_and_labels_that_are_exchanged_are_recognised(examples):
    images, labels = examples
    for use in (
        lambda model: model.fit(labels, images),
        lambda model: model.evaluate(labels, images),
        lambda model: model.fit(*examples, validation_data=(labels, images)),
    ):
        with pytest.raises(ValueError, match=r"images must come before .*exchange"):
            use(small_model())


@pytest.mark.parametrize("wrong", [np.zeros((3, 8, 8)), (1, 2, 3), 5])
def test_wrong_validation_data_are_named(examples, wrong):
    with pytest.raises(ValueError, match=r"validation_data must be \(images, labels\)"):
        small_model().fit(*examples, validation_data=wrong)


def test_wrong_validation_images_are_said_to_be_those(examples):
    with pytest.raises(ValueError, match="validation images must have shape"):
        small_model().fit(*examples, validation_data=(np.zeros((3, 9, 9)), [0, 1, 2]))


def test_wrong_epochs_are_named(examples):
    with pytest.raises(ValueError, match="epochs must be at least 1; got 0"):
        small_model().fit(*examples, epochs=0)


def test_a_value_deep_in_the_set_is_found():
    images = np.zeros((3000, 8, 8), np.float32)
    images[2500, 3, 3] = np.nan
    with pytest.raises(ValueError, match=r"got nan, inf .* in images 2048:3000"):
        small_model().predict(images)


def test_unscaled_images_draw_a_warning(examples):
    with pytest.warns(UserWarning, match="divide by 255"):
        small_model().predict(examples[0] * 255)


def test_standardised_images_draw_none(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small_model().predict(rng.normal(size=(50, 8, 8)))
