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
        small_model().predict_proba(rng.normal(size=(50, 8, 8)))


class TestScale:
    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (np.ones((5, 8, 8), np.uint8), "scaled to 0..255; got values up to 1: "),
            (np.full((5, 8, 8), 0.003), "about 0..1; got values up to 0.003: they are"),
            (np.full((5, 8, 8), 200.0), "about 0..1; got values up to 200: divide"),
        ],
    )
    @pytest.mark.parametrize("door", ["predict_proba", "fit"])
    def test_a_wrong_one_draws_a_warning(self, images, message, door):
        call = getattr(small_model(verbose=0), door)
        arguments = (images,) if door == "predict_proba" else (images, np.arange(5) % 3)
        with pytest.warns(UserWarning, match=message):
            call(*arguments)

    @pytest.mark.parametrize(
        "images",
        [
            np.zeros((5, 8, 8), np.uint8),  # blank
            np.zeros((5, 8, 8)),
            np.full((5, 8, 8), 2, np.uint8),
            np.full((5, 8, 8), 0.06),
            -np.ones((5, 8, 8)),
        ],
    )
    def test_a_right_one_draws_none(self, images):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            small_model().predict_proba(images)

    def test_all_images_are_looked_at(self):
        images = np.zeros((3000, 8, 8), np.uint8)
        images[2900] = 255
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            small_model().predict_proba(images)


class Frame:
    """A table of pixels, which is no array, as pandas has them."""

    def __init__(self, pixels):
        self.pixels = pixels

    def __array__(self, dtype=None, copy=None):
        return self.pixels


class TestOtherPeoplesTypes:
    def test_a_table_is_told_what_it_can_do(self):
        table = Frame(np.zeros((5, 64), np.uint8))
        hint = r"pass np\.asarray\(images\)\.reshape\(-1, 8, 8, 1\)"
        with pytest.raises(ValueError, match=hint):
            small_model().predict(table)

    def test_a_list_of_images_is_an_array(self, examples):
        model = small_model().fit(*examples, verbose=0)
        assert_array_equal(model.predict([*examples[0]]), model.predict(examples[0]))

    @pytest.mark.parametrize(
        "make",
        [
            lambda images, labels: ((image, 0) for image in images),
            lambda images, labels: iter(images),
            lambda images, labels: object(),
            lambda images, labels: None,
        ],
    )
    def test_what_is_no_array_is_named(self, examples, make):
        given = make(*examples)
        name = type(given).__name__
        message = f"images must be an array of numbers; got a {name}: collect"
        with pytest.raises(TypeError, match=message):
            small_model().predict(given)

    def test_one_image_is_told_to_be_a_batch_of_one(self, examples):
        for image in (examples[0][0], examples[0][0][..., np.newaxis]):
            with pytest.raises(
                ValueError, match=r"pass one image as image\[np.newaxis\]"
            ):
                small_model().predict(image)

    def test_bools_are_told_how_to_be_numbers(self):
        hint = r"pass images\.astype\(np\.uint8\) \* 255"
        with pytest.raises(TypeError, match=hint):
            small_model().predict(np.ones((2, 8, 8), bool))
