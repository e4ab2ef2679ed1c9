"""Distortions: what they may change, and what they must not."""

import numpy as np
import pytest
from helpers import loops
from numpy.testing import assert_allclose, assert_array_equal

from digits.figures import plot_distortions
from handwritten_classifier import HandwrittenNumberClassification


@pytest.fixture
def model():
    return HandwrittenNumberClassification(seed=3)


@pytest.fixture
def images(digits):
    return digits.train_images[:200]


def moments(images):
    """Return mass, centre and covariance of each image's ink."""
    ink = np.asarray(images, np.float64).reshape(len(images), 28, 28)
    mass = ink.sum(axis=(1, 2))
    y, x = np.mgrid[:28, :28]
    places = np.stack([y, x], axis=-1)
    centre = np.einsum("bij,ijk->bk", ink, places) / mass[:, np.newaxis]
    offset = places - centre[:, np.newaxis, np.newaxis]
    spread = np.einsum("bij,bijk,bijl->bkl", ink, offset, offset)
    return mass, centre, spread / mass[:, np.newaxis, np.newaxis]


def test_at_strength_0_nothing_changes(model, images):
    assert_array_equal(
        model.distort(images, 0)[..., 0], images / np.float32(255), strict=False
    )
    floats = images[..., np.newaxis] / np.float32(255)
    assert_array_equal(model.distort(floats, 0), floats)


@pytest.mark.parametrize("strength", [1, 3])
def test_agrees_with_the_loops(strength):
    settings = {"input_shape": (7, 9, 2), "dtype": np.float64}
    model = HandwrittenNumberClassification("3N", **settings)
    images = np.random.default_rng(1).random((4, 7, 9, 2))
    distorted = model.distort(images, strength, np.random.default_rng(2))
    expected = loops.distort(images, strength, np.random.default_rng(2))
    # The random numbers are scaled in single precision.
    assert_allclose(distorted, expected, atol=1e-5)


def test_the_strength_is_1_where_it_is_left_out(model, images):
    assert_array_equal(model.distort(images), model.distort(images, 1))


def test_the_same_seed_gives_the_same_pictures(model, images):
    first = model.distort(images)
    assert_array_equal(model.distort(images), first)
    other = HandwrittenNumberClassification("8C3-10N", seed=3)
    assert_array_equal(other.distort(images), first)
    assert np.abs(HandwrittenNumberClassification(seed=4).distort(images) - first).max()


def test_each_picture_is_distorted_in_its_own_way(model, images):
    same = np.repeat(images[:1], 20, axis=0)
    distorted = model.distort(same).reshape(20, -1)
    assert len(np.unique(distorted, axis=0)) == 20
    generator = np.random.default_rng(0)
    first = model.distort(images, generator=generator)
    assert not np.array_equal(model.distort(images, generator=generator), first)


def test_shape_type_and_range_are_those_of_the_network_s_input(model, images):
    distorted = model.distort(images, 2)
    assert distorted.shape == (200, 28, 28, 1)
    assert distorted.dtype == np.float32
    assert distorted.min() >= 0
    assert distorted.max() <= 1
    blank = np.zeros((3, 28, 28), np.uint8)
    assert_array_equal(model.distort(blank, 5), np.zeros((3, 28, 28, 1)))
    double = HandwrittenNumberClassification(dtype=np.float64)
    assert double.distort(images).dtype == np.float64
    colour = HandwrittenNumberClassification(input_shape=(9, 12, 3))
    pictures = np.random.default_rng(0).random((4, 9, 12, 3), np.float32)
    assert colour.distort(pictures).shape == (4, 9, 12, 3)
    assert_array_equal(colour.distort(pictures, 0), pictures)


def test_the_caller_s_images_stay_as_they_are(model, images):
    kept = images.copy()
    model.distort(images)
    assert_array_equal(images, kept)


def test_mass_place_and_shape_stay_within_bounds(model, images):
    mass, centre, spread = moments(images)
    new_mass, new_centre, new_spread = moments(model.distort(images))
    # Scaling by up to a tenth on each axis, and what the field stretches besides.
    assert np.abs(np.log(new_mass / (mass / 255))).max() < 0.45
    assert abs(np.log(new_mass / (mass / 255)).mean()) < 0.05
    assert np.abs(new_centre - centre).max() < 4
    assert np.abs(new_centre - centre).mean() > 0.3
    assert np.abs((new_centre - centre).mean(axis=0)).max() < 0.3
    sizes = np.linalg.eigvalsh(new_spread) / np.linalg.eigvalsh(spread)
    assert sizes.min() > 0.35
    assert sizes.max() < 2.5


def test_a_stronger_distortion_changes_more(model, images):
    original = images[..., np.newaxis] / np.float32(255)
    change = [
        np.abs(model.distort(images, s) - original).mean() for s in (0.1, 0.3, 1, 2)
    ]
    assert change == sorted(change)
    assert change[0] > 0


def test_places_between_pixels_are_averaged():
    model = HandwrittenNumberClassification("3N", input_shape=(2, 3, 1))
    image = np.array([[[0, 4, 8], [2, 6, 0]]], np.float32)[..., np.newaxis]
    y, x = np.mgrid[:2, :3].astype(np.float32)[..., np.newaxis]
    assert_allclose(model._sample(image, y, x + 0.5)[0, ..., 0], [[2, 6, 4], [4, 3, 0]])
    assert_allclose(
        model._sample(image, y + 0.25, x)[0, ..., 0], [[0.5, 4.5, 6], [1.5, 4.5, 0]]
    )
    assert_allclose(
        model._sample(image, y - 0.5, x - 0.5)[0, ..., 0], [[0, 1, 3], [0.5, 3, 4.5]]
    )
    for away in (-3, 3, -1e6, 1e6):
        for down, across in ((y + away, x), (y, x + away), (y + away, x + away)):
            assert_array_equal(model._sample(image, down, across), 0 * image)
    assert_array_equal(
        model._sample(image, y, x - 1)[0, ..., 0], [[0, 0, 4], [0, 2, 6]]
    )


class TestTraining:
    def fit(self, images, labels, validation=None, **settings):
        model = HandwrittenNumberClassification(
            "4C5-MP4-10N", batch_size=50, seed=5, **settings
        )
        return model.fit(images, labels, 2, validation, verbose=0)

    def test_it_is_reproducible_and_changes_what_is_learned(self, digits):
        images, labels = digits.train_images[:300], digits.train_labels[:300]
        first = self.fit(images, labels, augment=True)
        again = self.fit(images, labels, augment=1.0)
        plain = self.fit(images, labels)
        none = self.fit(images, labels, augment=0)
        for name, array in first.parameters.items():
            assert_array_equal(array, again.parameters[name])
            assert_array_equal(plain.parameters[name], none.parameters[name])
            assert not np.array_equal(array, plain.parameters[name])

    def test_neither_training_data_nor_validation_are_touched(self, digits):
        images, labels = digits.train_images[:300], digits.train_labels[:300]
        held_out = digits.train_images[300:400], digits.train_labels[300:400]
        kept = images.copy(), held_out[0].copy()
        model = self.fit(images, labels, held_out, augment=2)
        assert_array_equal(images, kept[0])
        assert_array_equal(held_out[0], kept[1])
        loss, accuracy = model.evaluate(*held_out)
        assert model.history["val_loss"][-1] == loss
        assert model.history["val_accuracy"][-1] == accuracy
        without = self.fit(images, labels, augment=2)
        for name, array in model.parameters.items():
            assert_array_equal(array, without.parameters[name])

    def test_drawing_them_leaves_training_as_it_is(self, digits):
        images, labels = digits.train_images[:100], digits.train_labels[:100]
        first = self.fit(images, labels, augment=True)
        second = self.fit(images, labels, augment=True)
        figure = plot_distortions(second, images)
        assert len(figure.axes) == 60
        second.distort(images)
        first.partial_fit(images, labels)
        second.partial_fit(images, labels)
        for name, array in first.parameters.items():
            assert_array_equal(array, second.parameters[name])


@pytest.mark.parametrize("strength", [-1, float("nan"), float("inf")])
def test_a_wrong_strength_is_refused(model, images, strength):
    with pytest.raises(ValueError, match="strength must be a finite number"):
        model.distort(images, strength)
    with pytest.raises(ValueError, match="augment must be a finite number"):
        HandwrittenNumberClassification(augment=strength)
    with pytest.raises(TypeError, match="augment must be a number"):
        HandwrittenNumberClassification(augment="strong")
