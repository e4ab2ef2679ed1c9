"""The same training as Keras, step by step, and the hand-over of a model to it."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from digits.keras_twin import from_keras, to_keras
from handwritten_classifier import HandwrittenNumberClassification


@pytest.fixture(scope="module", autouse=True)
def _tensorflow():
    """Import TensorFlow where these tests run, not wherever they are collected."""
    global tf, keras, la
    tf = pytest.importorskip("tensorflow")
    keras, la = tf.keras, tf.keras.layers


@pytest.fixture(autouse=True)
def seed():
    """Let Keras draw the same weights in every run."""
    keras.utils.set_random_seed(0)


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


def others_models():
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


def draw_weights(twin, rng):
    """Draw weights, and means and variances as training leaves them."""
    for weight in twin.weights:
        inputs = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 100
        drawn = rng.normal(size=weight.shape) * np.sqrt(2 / inputs)
        if weight.name in ("gamma", "moving_variance"):
            drawn = 0.5 + np.abs(drawn)
        weight.assign(drawn)


def compare(twin, images, rng, model=None, **settings):
    """Compare predictions with Keras's; on uint8 images ours are scaled by itself."""
    model = model or from_keras(twin, **settings)
    expected = twin.predict(images.astype(np.float32), verbose=0)
    if settings.get("logits"):
        expected = np.asarray(keras.activations.softmax(keras.ops.array(expected)))
    assert_allclose(model.predict_proba(images), expected, rtol=0, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3  # It depends on the image.
    return model


@pytest.mark.parametrize("number", [0, 1])
def test_from_keras_takes_what_others_build(rng, number):
    twin = others_models()[number]
    draw_weights(twin, rng)
    compare(twin, rng.random((6, *twin.inputs[0].shape[1:]), dtype=np.float32), rng)


def chain(*layers, shape=(28, 28, 1), last=("softmax",)):
    """Return a Keras model that ends in Flatten and a dense layer of 10."""
    end = keras.layers.Flatten(), keras.layers.Dense(10, *last)
    return keras.Sequential([keras.Input(shape), *layers, *end])


@pytest.mark.parametrize(
    ("build", "architecture"),
    [
        (lambda: [la.Conv2D(3, 4, activation=tf.nn.relu)], "3C4s1-10N"),
        (lambda: [la.Conv2D(3, 4, activation=keras.activations.relu)], "3C4s1-10N"),
        (lambda: [la.Conv2D(3, 4, activation=la.ReLU())], "3C4s1-10N"),
        (lambda: [la.Conv2D(3, 4), la.Activation(tf.nn.relu), la.ReLU()], "3C4s1-10N"),
        (lambda: [la.Conv2D(3, 1, padding="same", activation="relu")], "3C1s1-10N"),
        (
            lambda: [la.Conv2D(3, 4, 4, padding="same", activation="relu")],
            "3C4s4-10N",  # It pads nothing.
        ),
        (
            lambda: [la.Conv2D(3, 6, 4, padding="same", activation="relu")],
            "3C6s4p1-10N",  # (7 - 1) * 4 + 6 - 28 = 2 rows, one above and one below.
        ),
        (lambda: [la.MaxPooling2D(2, padding="same")], "MP2s2-10N"),
        (lambda: [la.Conv2D(3, 4, activation="relu"), la.GlobalMaxPooling2D()], "MP25"),
        (lambda: [la.Reshape((28, 28, 1)), la.Reshape((784,))], "^10N"),
    ],
)
def test_forms_of_a_layer_that_mean_the_same(rng, build, architecture):
    twin = chain(*build())
    draw_weights(twin, rng)
    model = compare(twin, rng.random((6, 28, 28, 1), dtype=np.float32), rng)
    assert re.search(architecture, model.architecture)


@pytest.mark.parametrize(
    "function", [lambda: tf.nn.softmax, lambda: keras.activations.softmax]
)
def test_softmax_given_as_a_function(rng, function):
    twin = chain(last=(function(),))
    compare(twin, rng.random((6, 28, 28, 1), dtype=np.float32), rng)


@pytest.mark.parametrize(
    ("shape", "build"),
    [
        ((28, 28), lambda: []),
        ((784,), lambda: []),
        ((784,), lambda: [la.Reshape((28, 28, 1)), la.Conv2D(2, 5, activation="relu")]),
        ((28, 28), lambda: [la.Reshape((28, 28, 1)), la.MaxPooling2D()]),
        ((28, 28), lambda: [la.Flatten(), la.Reshape((28, 28, 1)), la.MaxPooling2D()]),
        ((784,), lambda: [la.Rescaling(1 / 255), la.Reshape((28, 28))]),
    ],
)
def test_images_without_an_axis_of_channels(rng, shape, build):
    twin = chain(*build(), shape=shape)
    images = rng.random((6, 28, 28), dtype=np.float32)
    model = from_keras(twin)
    assert model.input_shape == (28, 28, 1)
    levels = 255 if twin.layers[0].name.startswith("rescaling") else 1
    expected = twin.predict(levels * images.reshape(6, *shape), verbose=0)
    assert_allclose(model.predict_proba(images), expected, rtol=0, atol=1e-5)


def test_logits_are_taken_where_that_is_asked_for(rng):
    twin = chain(la.MaxPooling2D(4), last=())
    with pytest.raises(ValueError, match=r"softmax must come last; logits=True"):
        from_keras(twin)
    compare(twin, rng.random((6, 28, 28, 1), dtype=np.float32), rng, logits=True)
    with pytest.raises(ValueError, match=r"softmax must come last.*got sigmoid"):
        from_keras(chain(last=("sigmoid",)), logits=True)


def adapted(scale):
    """Return a Normalization layer that has seen images of 0..scale."""
    layer = la.Normalization()
    layer.adapt(scale * np.random.default_rng(1).random((50, 28, 28, 1)))
    return layer


def conv(**options):
    return la.Conv2D(8, 5, activation="relu", **options)


@pytest.mark.parametrize(
    ("build", "levels"),
    [
        (lambda: [la.Rescaling(1 / 255), conv(padding="same")], True),
        (lambda: [la.RandomFlip(), la.Rescaling(1 / 255), conv()], True),
        (lambda: [la.Rescaling(1 / 127.5, offset=-1), conv()], True),
        (lambda: [la.Rescaling(2.0, offset=-1), conv()], False),
        (lambda: [la.Rescaling(1 / 255), la.Flatten(), la.Dense(5, "relu")], True),
        (lambda: [la.Rescaling(1 / 255), adapted(1), la.MaxPooling2D(), conv()], True),
        (lambda: [adapted(255), conv()], True),
        (lambda: [adapted(1), la.MaxPooling2D(), conv()], False),
        (lambda: [la.BatchNormalization(), conv()], False),
    ],
)
def test_scaling_in_front_is_folded_into_the_first_weights(rng, build, levels):
    twin = chain(*build())
    images = rng.integers(0, 256, (6, 28, 28, 1), dtype=np.uint8)
    model = from_keras(twin)
    if levels:  # uint8 images are divided by 255 here.
        compare(twin, images, rng, model)
        assert_array_equal(
            model.predict_proba(images / np.float32(255)), model.predict_proba(images)
        )
    else:
        compare(twin, images / np.float32(255), rng, model)


def bn(**options):
    return la.BatchNormalization(**options)


@pytest.mark.parametrize(
    "build",
    [
        lambda: [la.Conv2D(8, 5, use_bias=False), bn(), la.ReLU(), conv()],
        lambda: [
            la.Conv2D(3, 5, padding="same"),
            bn(),
            la.ReLU(),
            conv(padding="same"),
        ],
        lambda: [la.Conv2D(3, 5), la.MaxPooling2D(), bn(), la.ReLU()],
        lambda: [conv(), bn(), conv()],
        lambda: [conv(), bn(center=False), la.MaxPooling2D(3), bn(scale=False), conv()],
        lambda: [conv(), bn(), la.Flatten(), bn(), la.Dense(9), bn(), la.ReLU()],
        lambda: [la.Flatten(), la.Dense(9, "relu"), bn(), la.Dropout(0.5)],
        lambda: [conv(), bn(), la.GlobalMaxPooling2D(), bn()],
    ],
)
def test_batch_normalization_is_folded_into_the_weights_beside_it(rng, build):
    twin = chain(*build())
    draw_weights(twin, rng)
    images = rng.random((6, 28, 28, 1), dtype=np.float32)
    compare(twin, images, rng)
    end = la.Flatten(), la.Dense(10), bn(), la.Softmax()
    twin = keras.Sequential([keras.Input((28, 28, 1)), *build(), *end])
    draw_weights(twin, rng)
    compare(twin, images, rng)


def test_layers_of_training_alone_are_skipped(rng):
    twin = chain(
        la.RandomFlip("horizontal"),
        la.RandomRotation(0.3),
        la.Pipeline([la.RandomZoom(0.5), la.RandomContrast(0.5)]),
        la.GaussianNoise(1.0),
        conv(),
        la.SpatialDropout2D(0.5),
        la.GaussianDropout(0.5),
        la.AlphaDropout(0.5),
        la.ActivityRegularization(1.0),
        la.Activation("linear"),
    )
    compare(twin, rng.random((6, 28, 28, 1), dtype=np.float32), rng)


def test_chains_within_chains_and_layers_used_elsewhere(rng):
    augment = keras.Sequential([la.RandomFlip(), la.Rescaling(1 / 255)])
    block = keras.Sequential([keras.Input((28, 28, 1)), la.Conv2D(3, 5), la.ReLU()])
    inner = keras.Input((24, 24, 3))
    head = keras.Model(inner, la.Dense(10, "softmax")(la.Flatten()(inner)))
    first = keras.Input((28, 28, 1))
    block(keras.Input((28, 28, 1)))  # It is called in another model, too.
    functional = keras.Model(first, head(block(augment(first))))
    sequential = keras.Sequential([keras.Input((28, 28, 1)), augment, block, head])
    images = rng.integers(0, 256, (6, 28, 28, 1), dtype=np.uint8)
    for twin in (functional, sequential):
        compare(twin, images, rng)
    relu, flow = la.ReLU(), keras.Input((28, 28, 1))
    flow = start = flow
    for _ in range(2):  # One layer, called twice.
        flow = relu(la.Conv2D(2, 5)(flow))
    flow = la.Dense(10, "softmax")(la.Flatten()(flow))
    compare(keras.Model(start, flow), images / np.float32(255), rng)


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda: "model.keras", "str: load it with keras.models.load_model"),
        (lambda: Path("model.keras"), r"\w+Path: load it with keras.models.load_model"),
        (lambda: None, "NoneType"),
        (lambda: la.Dense(3), "keras.*Dense"),
        (HandwrittenNumberClassification, "handwritten_classifier.Handwritten"),
        (type("Net", (), {"__module__": "torch.nn"}), "torch.nn.Net"),
        (
            lambda: type("Net", (keras.Model,), {})(),
            r".*\.Net, a subclass: build it with keras.Seq",
        ),
    ],
)
def test_what_is_no_keras_model_is_named(make, got):
    with pytest.raises(TypeError, match=f"model must be a Keras model; got {got}"):
        from_keras(make())


def minus(shape, dtype=None):
    return -np.ones(shape)


def conv_bn(scale=1.0):
    """Return a convolution with ReLU, and BatchNormalization with an offset."""
    constant = keras.initializers.Constant
    return conv(), bn(gamma_initializer=constant(scale), beta_initializer=constant(0.1))


def spread_bn():
    """Return BatchNormalization that differs from feature to feature."""
    return bn(beta_initializer=keras.initializers.RandomNormal(seed=0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda la: [la.LayerNormalization(name="b")], r"'b' \(Layer.*no such layer"),
        (lambda la: [la.BatchNormalization(axis=1)], "axis must be the last one"),
        (lambda la: [*conv_bn(), conv(padding="same")], "must not follow an offset"),
        (lambda la: [adapted(1), conv(padding="same")], "must not follow an offset"),
        (lambda la: [*conv_bn(-1.0), la.MaxPooling2D()], "negative scale comes before"),
        (
            lambda la: [
                la.Conv2D(2, 3),
                la.MaxPooling2D(),
                bn(gamma_initializer=minus),
            ],
            "negative scale must not follow pooling",
        ),
        (lambda la: [la.Conv2D(2, 3), la.Flatten(), spread_bn()], "the same all over"),
        (lambda la: [la.GlobalAveragePooling2D()], "no such layer; .* by maximum"),
        (
            lambda la: [la.Conv2D(2, 3, activation=lambda x: -x)],
            "ReLU must come before",
        ),
        (lambda la: [la.Conv2D(2, 3, activation=tf.nn.relu6)], "ReLU must come before"),
        (lambda la: [la.ReLU()], "weights must come before it"),
        (lambda la: [la.Reshape((14, 56, 1))], "must keep their shape"),
        (lambda la: [la.RandomCrop(20, 20)], "it changes the size of images"),
        (lambda la: [keras.Sequential([la.PReLU(name="p")])], r"'p' \(PReLU\)"),
        (lambda la: [la.Conv2D(2, (3, 2), name="c")], "'c'.*window must be square"),
        (lambda la: [la.Conv2D(2, 3, strides=(1, 2))], "strides must be equal"),
        (lambda la: [la.Conv2D(2, 2, padding="same")], "padding must be the same"),
        (lambda la: [la.Conv2D(2, 3, dilation_rate=2)], "dilation must be 1"),
        (lambda la: [la.Conv2D(2, 3, activation="tanh")], "ReLU must come before"),
        (lambda la: [la.Conv2D(2, 3)], "ReLU must come before"),
        (lambda la: [la.ReLU(max_value=6)], "must be plain ReLU"),
        (lambda la: [la.MaxPooling2D(3, padding="same")], "padding must be 'valid'"),
        (lambda la: [la.MaxPooling2D((2, 3))], "strides must be equal"),
        (lambda la: [la.MaxPooling2D((2, 3), 2)], "window must be square"),
        (lambda la: [la.ZeroPadding2D((1, 2))], "padding must be the same on all"),
        (lambda la: [la.ZeroPadding2D(1)], "padding must be followed by Conv2D"),
        (lambda la: [la.AveragePooling2D(2)], "no such layer"),
        (lambda la: [la.Dense(3, "relu")], "input must be flattened"),
    ],
)
def test_a_layer_that_cannot_be_taken_is_named(build, message):
    model = chain(*build(la))
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
    for model, got in (
        (
            keras.Sequential([layers.Conv2D(2, 3)]),
            "no input yet: begin with keras.Input",
        ),
        (chain(shape=(20,)), r"shape \(None, 20\)"),
        (chain(shape=(8, 8, 8, 1)), r"shape \(None, 8, 8, 8, 1\)"),
        (chain(la.GlobalMaxPooling2D(), shape=(None, None, 1)), r"shape \(None, None"),
    ):
        with pytest.raises(ValueError, match=f"model must take images .*; got {got}"):
            from_keras(model)
    with pytest.raises(ValueError, match="model must end in a Dense layer"):
        from_keras(keras.Sequential([keras.Input((8, 8, 1)), la.Flatten()]))
