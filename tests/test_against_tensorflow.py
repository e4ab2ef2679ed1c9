"""TensorFlow as an independent oracle: values, and gradients by its tape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from handwritten_classifier import HandwrittenNumberClassification

# Sums of up to a few hundred products of numbers near 1, in either precision.
TOLERANCE = {
    np.float32: {"rtol": 1e-4, "atol": 1e-4},
    np.float64: {"rtol": 1e-11, "atol": 1e-11},
}
DTYPES = st.sampled_from([np.float32, np.float64])
# Shapes change from example to example, so that TensorFlow's first call may be slow.
EXAMPLES = settings(max_examples=60, deadline=None, derandomize=True)
MODEL = HandwrittenNumberClassification()


@pytest.fixture(scope="module", autouse=True)
def _tensorflow():
    """Import TensorFlow where these tests run, not wherever they are collected."""
    global tf
    tf = pytest.importorskip("tensorflow")


@st.composite
def convolutions(draw):
    """Draw a batch of images, kernels that fit them, bias, stride and padding."""
    batch, channels, filters = (draw(st.integers(1, 3)) for _ in range(3))
    window = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    size = [max(1, k - 2 * padding) + draw(st.integers(0, 6)) for k in window]
    rng, dtype = np.random.default_rng(draw(st.integers(0, 2**32))), draw(DTYPES)
    images = rng.normal(size=(batch, *size, channels)).astype(dtype)
    kernel = rng.normal(size=(filters, channels, *window)).astype(dtype)
    return images, kernel, rng.normal(size=filters).astype(dtype), stride, padding


@st.composite
def poolings(draw):
    """Draw feature maps, with and without ties, a window that fits, and its stride."""
    batch, filters = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pool_size, stride = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    size = [pool_size + draw(st.integers(0, 7)) for _ in range(2)]
    rng, dtype = np.random.default_rng(draw(st.integers(0, 2**32))), draw(DTYPES)
    feature_map = rng.normal(size=(batch, *size, filters)).astype(dtype)
    if draw(st.booleans()):
        feature_map = np.round(feature_map)
    return feature_map, pool_size, stride


@given(convolutions())
@EXAMPLES
def test_convolution_and_its_gradients(case):
    images, kernel, bias, stride, padding = case
    tolerance = TOLERANCE[images.dtype.type]
    frame = [[0, 0], [padding, padding], [padding, padding], [0, 0]]
    variables = [tf.Variable(array) for array in (images, kernel, bias)]
    with tf.GradientTape() as tape:
        turned = tf.transpose(variables[1], (2, 3, 1, 0))
        padded = tf.pad(variables[0], frame)
        expected = tf.nn.conv2d(padded, turned, stride, "VALID") + variables[2]
        d_map = np.random.default_rng(1).normal(size=expected.shape)
        d_map = d_map.astype(images.dtype)
        loss = tf.reduce_sum(expected * d_map)
    d_images, d_kernel, _ = tape.gradient(loss, variables)

    feature_map = MODEL.generate_feature_map(images, kernel, bias, stride, padding)
    assert_allclose(feature_map, expected, **tolerance, err_msg="feature_map")
    window = kernel.shape[2:]
    found = MODEL.generate_kernal_loss(images, d_map, window, stride, padding)
    assert_allclose(found, d_kernel, **tolerance, err_msg="d_kernel")
    size = images.shape[1:3]
    found = MODEL.generate_input_loss(d_map, kernel, size, stride, padding)
    assert_allclose(found, d_images, **tolerance, err_msg="d_images")


@given(poolings())
@EXAMPLES
def test_max_pooling_and_unpooling(case):
    feature_map, pool_size, stride = case
    variable = tf.Variable(feature_map)
    with tf.GradientTape() as tape:
        expected = tf.nn.max_pool2d(variable, pool_size, stride, "VALID")
        d_pooled = np.random.default_rng(1).normal(size=expected.shape)
        d_pooled = d_pooled.astype(feature_map.dtype)
        loss = tf.reduce_sum(expected * d_pooled)
    d_map = tape.gradient(loss, variable)

    pooled = MODEL.generate_max_pool(feature_map, pool_size, stride)
    assert_allclose(pooled, expected, rtol=0, err_msg="pooled")
    tolerance = TOLERANCE[feature_map.dtype.type]
    assert_allclose(MODEL.unpool(d_pooled), d_map, **tolerance, err_msg="d_map")
    assert (MODEL.binary_max_pool.sum(axis=(4, 5)) == 1).all()


@given(st.integers(1, 9), st.integers(1, 9), DTYPES, st.integers(0, 2**32))
@EXAMPLES
def test_relu_and_its_gradient(rows, columns, dtype, seed):
    x, d_output = np.random.default_rng(seed).normal(size=(2, rows, columns))
    x, d_output = np.round(x, 1).astype(dtype), d_output.astype(dtype)  # with zeros
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        expected = tf.nn.relu(variable)
        loss = tf.reduce_sum(expected * d_output)
    assert_allclose(MODEL.relu(x), expected, rtol=0)
    d_x = tape.gradient(loss, variable)
    assert_allclose(MODEL.relu_gradient(d_output, x), d_x, rtol=0)


@given(
    st.integers(1, 5),
    st.integers(1, 7),
    st.integers(1, 6),
    DTYPES,
    st.sampled_from((0.0, 0.1, 0.9)),
)
@EXAMPLES
def test_flatten_dense_softmax_loss_and_decision_making(
    batch, side, classes, dtype, label_smoothing
):
    rng = np.random.default_rng(batch + 10 * side + 100 * classes)
    model = HandwrittenNumberClassification(
        f"{classes}N",
        input_shape=(side, 2, 3),
        dtype=dtype,
        label_smoothing=label_smoothing,
    )
    pooled = rng.normal(size=(batch, side, 2, 3)).astype(dtype)
    labels = rng.integers(0, classes, size=batch)
    arrays = (pooled, model.W_dense, model.B_dense)
    variables = [tf.Variable(array) for array in arrays]
    with tf.GradientTape() as tape:
        flat = tf.reshape(variables[0], (batch, -1))
        scores = flat @ variables[1] + variables[2]
        targets = tf.one_hot(labels, classes, dtype=scores.dtype)
        targets = (1 - label_smoothing) * targets + label_smoothing / classes
        losses = tf.nn.softmax_cross_entropy_with_logits(targets, scores)
        loss = tf.reduce_mean(losses)
    d_pooled, d_w, d_b = tape.gradient(loss, variables)

    tolerance = TOLERANCE[dtype]
    flattened = model.generate_flattened_array(pooled)
    assert_allclose(flattened, flat, rtol=0, err_msg="flattened")
    probabilities = model.softmax(flattened @ model.W_dense + model.B_dense)
    assert_allclose(probabilities, tf.nn.softmax(scores), **tolerance)
    found = model.compute_loss(probabilities, labels)
    assert_allclose(found, loss, **tolerance, err_msg="loss")
    found = model.backprop_decision_making(flattened, probabilities, labels)
    for name, one, other in zip(
        ("d_W_dense", "d_B_dense", "d_flattened"),
        found,
        (d_w, d_b, tf.reshape(d_pooled, (batch, -1))),
        strict=True,
    ):
        assert_allclose(one, other, **tolerance, err_msg=name)
