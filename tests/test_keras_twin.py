"""The same training as Keras, step by step, and the hand-over of a model to it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from digits.keras_twin import from_keras, to_keras
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
    found = to_keras(model)(images).numpy()
    assert found.dtype == dtype
    assert_allclose(found, model.predict_proba(images), rtol=1e-4, atol=1e-6)


def test_to_keras_takes_a_copy():
    model = HandwrittenNumberClassification("10N")
    twin = to_keras(model)
    images = np.random.default_rng(0).random((5, 28, 28, 1), dtype=np.float32)
    before = twin(images).numpy()
    model.fit(images, np.arange(5), verbose=0)
    assert_allclose(twin(images).numpy(), before, rtol=0)


@pytest.mark.parametrize(
    "architecture",
    [
        "10N",
        "8C4-MP4-10N",
        "4C3s2p1-MP3s2-6C2-MP2s3-16N-12N-10N",
        "MP2-3C5p3-3C3-MP2s1-10N",
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_from_keras_brings_it_back(rng, architecture, dtype):
    shape = (21, 19, 2)
    model = HandwrittenNumberClassification(
        architecture, input_shape=shape, dtype=dtype
    )
    for bias in (*model.biases, model.B_dense):
        bias[...] = rng.normal(size=bias.shape)
    back = from_keras(to_keras(model), lr=0.5, seed=3)
    for name, array in model.parameters.items():
        assert_array_equal(back.parameters[name], array, err_msg=name)
        assert back.parameters[name].dtype == dtype
    assert (back.input_shape, back.lr, back.seed) == (shape, 0.5, 3)
    images = rng.random((5, *shape))
    assert_array_equal(back.predict_proba(images), model.predict_proba(images))


def test_it_trains_on_in_keras_and_comes_back(digits):
    model = HandwrittenNumberClassification("4C5-MP3-10N")
    twin = to_keras(model)
    twin.compile("sgd", "sparse_categorical_crossentropy")
    images = digits.train_images[:200, ..., np.newaxis] / np.float32(255)
    twin.fit(images, digits.train_labels[:200], verbose=0)
    back = from_keras(twin)
    expected = twin.predict(images, verbose=0)
    assert_allclose(back.predict_proba(images), expected, rtol=1e-4, atol=1e-6)
    assert np.abs(back.W_dense - model.W_dense).max() > 0
    back.fit(images, digits.train_labels[:200], verbose=0)


def keras_models():
    """Return models as others build them, which this class can take."""
    layers, first = keras.layers, keras.Input((28, 28, 1))
    flow = layers.Conv2D(3, 5, padding="same", use_bias=False)(first)
    flow = layers.ReLU()(layers.MaxPooling2D()(flow))
    flow = layers.Dropout(0.5)(flow)
    flow = layers.ZeroPadding2D(1)(flow)
    flow = layers.Conv2D(4, 3, strides=2, activation="relu")(flow)
    flow = layers.Dense(6)(layers.Flatten()(flow))
    flow = layers.Dense(7, activation="relu")(layers.Activation("relu")(flow))
    functional = keras.Model(first, layers.Softmax()(layers.Dense(10)(flow)))
    sequential = keras.Sequential(
        [
            keras.Input((9, 7, 2)),
            layers.Conv2D(5, (9, 7), activation="relu"),
            layers.Flatten(),
            layers.Dense(3, "softmax"),
        ]
    )
    return functional, sequential


@pytest.mark.parametrize("number", [0, 1])
def test_from_keras_takes_what_others_build(rng, number):
    twin = keras_models()[number]
    twin.set_weights([rng.normal(size=w.shape) / 3 for w in twin.get_weights()])
    images = rng.random((6, *twin.inputs[0].shape[1:]), dtype=np.float32)
    model = from_keras(twin)
    expected = twin.predict(images, verbose=0)
    assert_allclose(model.predict_proba(images), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda la: [la.BatchNormalization(name="b")], r"'b' \(Batch.*no such layer"),
        (lambda la: [la.Conv2D(2, (3, 2), name="c")], "'c'.*window must be square"),
        (lambda la: [la.Conv2D(2, 3, strides=(1, 2))], "strides must be equal"),
        (lambda la: [la.Conv2D(2, 2, padding="same")], "padding must be the same"),
        (lambda la: [la.Conv2D(2, 3, dilation_rate=2)], "dilation must be 1"),
        (lambda la: [la.Conv2D(2, 3, activation="tanh")], "ReLU must come before"),
        (lambda la: [la.Conv2D(2, 3)], "ReLU must come before"),
        (lambda la: [la.ReLU(max_value=6)], "must be plain ReLU"),
        (lambda la: [la.MaxPooling2D(2, padding="same")], "padding must be 'valid'"),
        (lambda la: [la.MaxPooling2D((2, 3))], "strides must be equal"),
        (lambda la: [la.MaxPooling2D((2, 3), 2)], "window must be square"),
        (lambda la: [la.ZeroPadding2D((1, 2))], "padding must be the same on all"),
        (lambda la: [la.ZeroPadding2D(1)], "padding must be followed by Conv2D"),
        (lambda la: [la.AveragePooling2D(2)], "no such layer"),
        (lambda la: [la.Dense(3, "relu")], "input must be flattened"),
    ],
)
def test_a_layer_that_cannot_be_taken_is_named(build, message):
    layers = keras.layers
    chain = [*build(layers), layers.Flatten(), layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((28, 28, 1)), *chain])
    with pytest.raises(ValueError, match=f"model must be a chain of .*{message}"):
        from_keras(model)


def test_a_model_that_is_no_chain_or_no_classifier_is_refused():
    layers, first = keras.layers, keras.Input((8, 8, 1))
    flow = layers.Flatten()(first)
    flow = layers.Dense(5, "relu")(flow)
    other = layers.Add()([flow, layers.Dense(5, "relu")(flow)])
    for output, message in (
        (layers.Dense(3, "softmax")(other), "no such layer|must follow the one"),
        (layers.Dense(3)(flow), "softmax must come last"),
        ([layers.Dense(3, "softmax")(flow), flow], "it must be the only output"),
        (layers.Softmax()(flow), "one activation must be enough"),
    ):
        with pytest.raises(ValueError, match=message):
            from_keras(keras.Model(first, output))
    model = keras.Sequential([layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match="model must take images"):
        from_keras(model)
