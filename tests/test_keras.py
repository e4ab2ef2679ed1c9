"""The same training as Keras, step by step, and the hand-over of a model to it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from handwritten_classifier import HandwrittenNumberClassification

keras = pytest.importorskip("tensorflow").keras


def source_twin():
    """Return 8C4-MP4-10N, written in Keras."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(8, 4, activation="relu"),
            keras.layers.MaxPooling2D(4),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def deep_twin():
    """Return 6C5-MP2-12C3s2p1-MP3s2-10N, written in Keras."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(6, 5, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.ZeroPadding2D(1),
            keras.layers.Conv2D(12, 3, strides=2, activation="relu"),
            keras.layers.MaxPooling2D(3, strides=2),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("architecture", "twin", "lr"),
    [
        ("8C4-MP4-10N", source_twin, 0.01),
        ("6C5-MP2-12C3s2p1-MP3s2-10N", deep_twin, 0.01),
    ],
)
def test_100_steps_give_the_losses_of_keras(digits, architecture, twin, lr, momentum):
    model = HandwrittenNumberClassification(architecture, lr=lr, momentum=momentum)
    twin = twin()
    for layer, (kernel, bias) in zip(
        [layer for layer in twin.layers if layer.weights],
        [
            *zip(model.kernels, model.biases, strict=True),
            (model.W_dense, model.B_dense),
        ],
        strict=True,
    ):
        turned = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel
        layer.set_weights([turned, bias])
    optimizer = keras.optimizers.SGD(lr, momentum=momentum, nesterov=momentum > 0)
    twin.compile(optimizer, loss="sparse_categorical_crossentropy")
    losses, expected = [], []
    for step in range(100):
        batch = np.arange(32 * step, 32 * step + 32) % len(digits.train_images)
        images = digits.train_images[batch, :, :, np.newaxis] / np.float32(255)
        labels = digits.train_labels[batch]
        twin.reset_metrics()
        expected.append(twin.train_on_batch(images, labels))
        model.partial_fit(images, labels)
        losses.append(model.history["loss"][-1])
    assert_allclose(losses, expected, rtol=0, atol=1e-4)
    assert losses[-1] < 0.8 * losses[0]  # it did learn


@pytest.mark.parametrize(
    "architecture", ["10N", "8C4-MP4-10N", "4C3s2p1-MP3s2-6C2-MP2s3-16N-12N-10N"]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_to_keras_gives_an_equal_model(digits, architecture, dtype):
    model = HandwrittenNumberClassification(architecture, dtype=dtype)
    model.fit(digits.train_images[:200], digits.train_labels[:200], verbose=0)
    images = digits.test_images[:50, :, :, np.newaxis] / dtype(255)
    found = model.to_keras()(images).numpy()
    assert found.dtype == dtype
    assert_allclose(found, model.predict_proba(images), rtol=1e-4, atol=1e-6)


def test_to_keras_takes_a_copy():
    model = HandwrittenNumberClassification("10N")
    twin = model.to_keras()
    images = np.random.default_rng(0).random((5, 28, 28, 1), dtype=np.float32)
    before = twin(images).numpy()
    model.fit(images, np.arange(5), verbose=0)
    assert_allclose(twin(images).numpy(), before, rtol=0)
