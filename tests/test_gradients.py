"""Whole networks against central differences, for every single parameter."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from handwritten_classifier import HandwrittenNumberClassification

ARCHITECTURES = [
    "3N",
    "5N-4N-3N",
    "2C3-3N",
    "2C3-MP2-3N",
    "2C3-MP3s2-3N",  # overlapping windows
    "2C2-MP2s3-3N",  # gaps between windows
    "2C3s2p1-3N",
    "MP2-2C2-3N",  # pooling first
    "2C2-MP2-MP2-3N",  # pooling twice
    "2C2-3C2-MP2-3N",  # stacked before pooling
    "2C3p1-MP2-3C2-MP2s1-4N-3N",
    "2C2-2C2-MP3s2-3C3p2-2C1-5N-3N",  # deep
    "2C4s2p3-3N",  # windows that lie in the padding
]


def network(architecture, seed=0, **settings):
    """Return a small network for images that are not square, with random biases."""
    model = HandwrittenNumberClassification(
        architecture, input_shape=(9, 7, 2), dtype=np.float64, seed=seed, **settings
    )
    rng = np.random.default_rng(seed)
    for bias in (*model.biases, model.B_dense):
        bias[...] = rng.normal(scale=0.3, size=bias.shape)
    return model, rng.normal(size=(3, 9, 7, 2)), rng.integers(0, 3, size=3)


def central_difference(model, images, labels, array, place, step=1e-6):
    """Return the slope of the loss between two steps aside along one parameter."""
    kept, losses = array[place], []
    for moved in (kept + step, kept - step):
        array[place] = moved
        losses.append(model.compute_loss(model.forward(images), labels))
    array[place] = kept
    return (losses[0] - losses[1]) / (2 * step)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("label_smoothing", [0, 0.3])
def test_every_parameter_against_central_differences(architecture, label_smoothing):
    model, images, labels = network(architecture, label_smoothing=label_smoothing)
    loss, gradients = model.compute_gradients(images, labels)
    assert loss == model.compute_loss(model.forward(images), labels)
    assert list(gradients) == list(model.parameters)
    for name, array in model.parameters.items():
        slopes = np.empty_like(array)
        for place in np.ndindex(array.shape):
            slopes[place] = central_difference(model, images, labels, array, place)
        assert gradients[name].shape == array.shape, name
        # Of the whole array: a single slope near 0 is lost in the losses' rounding.
        error = np.linalg.norm(gradients[name] - slopes)
        size = np.linalg.norm(gradients[name]) + np.linalg.norm(slopes)
        assert error < 1e-6 * max(size, 1e-4), f"{name}: relative error {error / size}"


def test_the_default_network_in_single_precision_agrees_with_double():
    rng = np.random.default_rng(0)
    images, labels = rng.random((8, 28, 28)), rng.integers(0, 10, size=8)
    single = HandwrittenNumberClassification(dtype=np.float32)
    double = HandwrittenNumberClassification(dtype=np.float64)
    found = single.compute_gradients(images, labels)[1]
    for name, expected in double.compute_gradients(images, labels)[1].items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=1e-6)


def test_computing_gradients_changes_no_parameter_and_no_history():
    model, images, labels = network("2C3-MP2-3N")
    before = {name: array.copy() for name, array in model.parameters.items()}
    model.compute_gradients(images, labels)
    for name, array in model.parameters.items():
        assert_array_equal(array, before[name], err_msg=name)
    assert model.history["loss"] == []


def test_gradients_of_a_batch_are_the_mean_of_those_of_its_images():
    model, images, labels = network("2C3-MP2-3N")
    whole = model.compute_gradients(images, labels)[1]
    single = [
        model.compute_gradients(images[i : i + 1], labels[i : i + 1])[1]
        for i in range(3)
    ]
    for name, gradient in whole.items():
        mean = sum(gradients[name] for gradients in single) / 3
        np.testing.assert_allclose(gradient, mean, rtol=1e-12, atol=1e-15)
