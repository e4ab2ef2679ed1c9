"""Each step alone: answers worked by hand, loop versions, and the known traps."""

import numpy as np
import pytest
from helpers import loops
from numpy.testing import assert_allclose, assert_array_equal

from handwritten_classifier import HandwrittenNumberClassification

# Sums of a few hundred products of numbers near 1, in double precision.
EXACT = {"rtol": 1e-12, "atol": 1e-12}
KERNEL = np.ones((1, 1, 2, 2))
MASK = np.ones((1, 4, 5, 1, 2, 2), bool)


@pytest.fixture
def model():
    return HandwrittenNumberClassification()


def tensor(rows):
    """Return a picture, written as rows, as a tensor (1, H, W, 1)."""
    return np.array(rows, float)[np.newaxis, :, :, np.newaxis]


class TestConvolution:
    def test_by_hand(self, model):
        images = tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
        kernel = np.array([[[[1.0, 0.0], [0.0, -1.0]]]])
        feature_map = model.generate_feature_map(images, kernel, np.array([10.0]))
        assert_array_equal(feature_map, tensor([[6, 6], [6, 6]]))

    def test_is_cross_correlation_and_does_not_flip_the_kernel(self, model):
        images = tensor([[1, 2], [3, 4]])
        kernel = np.array([[[[1.0, 10.0], [100.0, 1000.0]]]])
        assert model.generate_feature_map(images, kernel).item() == 4321

    def test_padding_by_hand(self, model):
        images, kernel = tensor([[1, 2], [3, 4]]), KERNEL
        feature_map = model.generate_feature_map(images, kernel, padding=1)
        assert_array_equal(feature_map, tensor([[1, 3, 2], [4, 10, 6], [3, 7, 4]]))

    def test_kernel_gradient_by_hand(self, model):
        images = tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
        d_feature_map = tensor([[1, 0], [0, 2]])
        d_kernel = model.generate_kernal_loss(images, d_feature_map, 2)
        assert_array_equal(
            d_kernel, [[[[1 + 2 * 5, 2 + 2 * 6], [4 + 2 * 8, 5 + 2 * 9]]]]
        )

    def test_input_gradient_by_hand(self, model):
        d_feature_map = tensor([[1, 0], [0, 2]])
        kernel = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
        d_images = model.generate_input_loss(d_feature_map, kernel, (3, 3))
        assert_array_equal(d_images, tensor([[1, 2, 0], [3, 4 + 2, 4], [0, 6, 8]]))

    @pytest.mark.parametrize("stride", [1, 2, 3])
    @pytest.mark.parametrize("padding", [0, 1, 2])
    def test_agrees_with_the_loops(self, model, rng, stride, padding):
        images = rng.normal(size=(3, 9, 7, 2))
        kernel, bias = rng.normal(size=(4, 2, 3, 2)), rng.normal(size=4)
        feature_map = model.generate_feature_map(images, kernel, bias, stride, padding)
        expected = loops.convolve(images, kernel, bias, stride, padding)
        assert_allclose(feature_map, expected, **EXACT)

        d_map = rng.normal(size=feature_map.shape)
        expected = loops.convolve_gradients(images, kernel, d_map, stride, padding)
        d_kernel = model.generate_kernal_loss(images, d_map, (3, 2), stride, padding)
        d_images = model.generate_input_loss(d_map, kernel, (9, 7), stride, padding)
        assert_allclose(d_kernel, expected[0], **EXACT, err_msg="d_kernel")
        assert_allclose(d_images, expected[1], **EXACT, err_msg="d_images")

    @pytest.mark.parametrize("window", [(3, 1), (1, 3)])
    def test_windows_may_overlap_along_one_axis_only(self, model, rng, window):
        kernel, size = rng.normal(size=(2, 2, *window)), 2 * np.array(window) - 1
        images, d_map = rng.normal(size=(3, *size, 2)), rng.normal(size=(3, *window, 2))
        expected = loops.convolve_gradients(images, kernel, d_map, 1, 0)[1]
        d_images = model.generate_input_loss(d_map, kernel, tuple(size.tolist()))
        assert_allclose(d_images, expected, **EXACT)

    def test_patches_that_are_passed_along_change_nothing(self, model, rng):
        images, kernel = rng.normal(size=(2, 6, 5, 3)), rng.normal(size=(4, 3, 2, 2))
        patches = model.generate_patches(images, 2, stride=2, padding=1)
        feature_map = model.generate_feature_map(images, kernel, None, 2, 1)
        again = model.generate_feature_map(images, kernel, None, 2, 1, patches)
        assert_array_equal(again, feature_map)
        d_kernel = model.generate_kernal_loss(images, feature_map, 2, 2, 1)
        again = model.generate_kernal_loss(images, feature_map, 2, 2, 1, patches)
        assert_array_equal(again, d_kernel)

    def test_patches_that_are_passed_along_are_not_made_again(self, model, rng):
        images, kernel = rng.normal(size=(2, 6, 5, 3)), rng.normal(size=(4, 3, 2, 2))
        patches = 2 * model.generate_patches(images, 2)
        feature_map = model.generate_feature_map(images, kernel)
        doubled = model.generate_feature_map(images, kernel, patches=patches)
        assert_array_equal(doubled, 2 * feature_map)
        d_kernel = model.generate_kernal_loss(images, feature_map, 2)
        doubled = model.generate_kernal_loss(images, feature_map, 2, patches=patches)
        assert_array_equal(doubled, 2 * d_kernel)

    def test_a_column_of_patches_is_one_window(self, model, rng):
        images = rng.normal(size=(2, 4, 5, 3))
        patches = model.generate_patches(images, 2).reshape(3, 2, 2, 3, 4, 2)
        window = images[1, 2:4, 3:5, :].transpose(2, 0, 1)
        assert_array_equal(patches[:, :, :, 2, 3, 1], window)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_keeps_the_precision(self, model, rng, dtype):
        images = rng.normal(size=(2, 5, 5, 1)).astype(dtype)
        kernel = rng.normal(size=(3, 1, 2, 2)).astype(dtype)
        feature_map = model.generate_feature_map(images, kernel, kernel[:, 0, 0, 0])
        assert feature_map.dtype == dtype
        assert model.generate_kernal_loss(images, feature_map, 2).dtype == dtype
        assert model.generate_input_loss(feature_map, kernel, (5, 5)).dtype == dtype
        assert model.generate_patches(images, 2, padding=1).dtype == dtype

    @pytest.mark.parametrize("wide", ["images", "kernel"])
    def test_of_two_precisions_the_wider_is_kept(self, model, rng, wide):
        images, kernel = rng.normal(size=(2, 5, 5, 1)), rng.normal(size=(3, 1, 2, 2))
        expected = model.generate_feature_map(images, kernel)
        d_images = model.generate_input_loss(expected, kernel, (5, 5))
        if wide == "images":
            kernel = kernel.astype(np.float32)
        else:
            images = images.astype(np.float32)
        feature_map = model.generate_feature_map(images, kernel)
        assert feature_map.dtype == np.float64
        assert_allclose(feature_map, expected, rtol=1e-5, atol=1e-5)
        narrow = feature_map.astype(images.dtype)
        found = model.generate_input_loss(narrow, kernel, (5, 5))
        assert found.dtype == np.float64
        assert_allclose(found, d_images, rtol=1e-4, atol=1e-4)

    def test_takes_whole_numbers(self, model):
        images = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1) + 240
        kernel = np.full((1, 1, 2, 2), 100)
        feature_map = model.generate_feature_map(images, kernel)
        assert feature_map[0, 0, 0, 0] == 100 * (240 + 241 + 244 + 245)


class TestReLU:
    def test_by_hand(self, model):
        x = np.array([-2.0, -0.0, 0.0, 3.0])
        assert_array_equal(model.relu(x), [0, 0, 0, 3])

    def test_gradient_at_zero_is_zero(self, model):
        x = np.array([-1.0, 0.0, 1e-30])
        assert_array_equal(model.relu_gradient(np.array([5.0, 5.0, 5.0]), x), [0, 0, 5])

    def test_gradient_of_lists(self, model):
        assert_array_equal(model.relu_gradient([5, 6], [-1, 1]), [0, 6])

    def test_gradient_keeps_the_precision(self, model):
        x = np.ones(3, np.float32)
        assert model.relu_gradient(x, x).dtype == np.float32


class TestMaxPooling:
    feature_map = tensor([[1, 3, 2, 2], [0, 1, 2, 1], [5, 0, 0, 0], [2, 5, 0, 4]])

    def test_the_drawing_in_the_docstring(self, model):
        pooled = model.generate_max_pool(self.feature_map, 2)
        assert_array_equal(pooled, tensor([[3, 2], [5, 4]]))
        winners = [
            np.argwhere(m)[0].tolist() for m in model.binary_max_pool.reshape(4, 2, 2)
        ]
        assert winners == [[0, 1], [0, 0], [0, 0], [1, 1]]
        unpooled = model.unpool(tensor([[1, 2], [3, 4]]))
        expected = [[0, 1, 2, 0], [0, 0, 0, 0], [3, 0, 0, 0], [0, 0, 0, 4]]
        assert_array_equal(unpooled, tensor(expected))

    def test_of_tied_maxima_the_first_wins_alone(self, model):
        model.generate_max_pool(np.zeros((2, 6, 6, 3)), 3)
        first = np.zeros((3, 3), bool)
        first[0, 0] = True
        assert_array_equal(
            model.binary_max_pool, np.broadcast_to(first, (2, 2, 2, 3, 3, 3))
        )

    def test_negative_numbers_are_pooled_as_they_are(self, model):
        feature_map = np.full((1, 4, 4, 1), -1e6)
        assert_array_equal(
            model.generate_max_pool(feature_map, 2), np.full((1, 2, 2, 1), -1e6)
        )

    def test_rows_and_columns_of_no_whole_window_get_no_gradient(self, model, rng):
        pooled = model.generate_max_pool(rng.normal(size=(2, 7, 8, 3)), 3)
        assert pooled.shape == (2, 2, 2, 3)
        d_map = model.unpool(np.ones_like(pooled))
        assert d_map.shape == (2, 7, 8, 3)
        assert not d_map[:, 6:].any()
        assert not d_map[:, :, 6:].any()

    def test_overlapping_windows_add_up(self, model):
        feature_map = tensor([[0, 0, 0], [0, 9, 0], [0, 0, 0]])
        model.generate_max_pool(feature_map, 2, stride=1)
        d_map = model.unpool(tensor([[1, 2], [4, 8]]))
        assert_array_equal(d_map, tensor([[0, 0, 0], [0, 15, 0], [0, 0, 0]]))

    def test_a_batch_of_two_with_one_channel_is_not_mistaken_for_anything_else(
        self, model
    ):
        feature_map = np.stack([np.arange(16.0), -np.arange(16.0)]).reshape(2, 4, 4, 1)
        pooled = model.generate_max_pool(feature_map, 2)
        assert_array_equal(pooled[..., 0], [[[5, 7], [13, 15]], [[0, -2], [-8, -10]]])

    @pytest.mark.parametrize(
        ("pool_size", "stride"), [(1, 1), (2, 2), (3, 2), (2, 3), (3, 1)]
    )
    def test_agrees_with_the_loops(self, model, rng, pool_size, stride):
        feature_map = rng.integers(-3, 3, size=(3, 9, 7, 2)).astype(float)  # many ties
        pooled = model.generate_max_pool(feature_map, pool_size, stride)
        expected, mask = loops.max_pool(feature_map, pool_size, stride)
        assert_array_equal(pooled, expected)
        assert model.binary_max_pool.dtype == bool
        assert_array_equal(model.binary_max_pool, mask)
        d_pooled = rng.normal(size=pooled.shape)
        expected = loops.unpool(d_pooled, mask, stride, (9, 7))
        assert_allclose(model.unpool(d_pooled), expected, **EXACT)
        explicit = model.unpool(d_pooled, mask, stride, (9, 7))
        assert_allclose(explicit, expected, **EXACT)

    def test_unpool_takes_the_whole_shape_of_the_map(self, model):
        feature_map = np.stack([self.feature_map] * 3, axis=-1)[..., 0, :]
        pooled = model.generate_max_pool(feature_map, 2)
        whole = model.unpool(pooled, output_shape=feature_map.shape)
        assert_array_equal(whole, model.unpool(pooled))

    def test_what_is_left_out_is_taken_from_the_last_pooling(self, model):
        pooled = model.generate_max_pool(self.feature_map, 2)
        mask = model.binary_max_pool.copy()
        expected = model.unpool(pooled)
        assert_array_equal(model.unpool(pooled, mask), expected)
        assert_array_equal(model.unpool(pooled, mask, 2), expected)
        assert_array_equal(model.unpool(pooled, mask.tolist()), expected)
        other = HandwrittenNumberClassification()
        with pytest.raises(ValueError, match="must be given before any"):
            other.unpool(pooled, mask, 2)
        other.binary_max_pool = mask
        with pytest.raises(ValueError, match="must be given before any"):
            other.unpool(pooled)

    def test_pooling_and_relu_commute(self, model, rng):
        feature_map = rng.normal(size=(2, 6, 6, 3))
        one = model.relu(model.generate_max_pool(feature_map, 2))
        other = model.generate_max_pool(model.relu(feature_map), 2)
        assert_array_equal(one, other)


class TestFlatten:
    def test_the_order_is_height_width_filter(self, model):
        pooled = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
        assert_array_equal(
            model.generate_flattened_array(pooled), pooled.reshape(2, 60)
        )


class TestDense:
    def test_softmax_by_hand(self, model):
        probabilities = model.softmax(np.log([[1.0, 2.0, 5.0]]))
        assert_allclose(probabilities, [[1 / 8, 2 / 8, 5 / 8]], **EXACT)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_softmax_is_finite_for_scores_of_any_finite_size(self, model, dtype):
        largest = np.finfo(dtype).max
        scores = np.array(
            [[800, 0, -800], [largest, -largest, 0], [-largest] * 3], dtype
        )
        probabilities = model.softmax(scores)
        assert_allclose(probabilities, [[1, 0, 0], [1, 0, 0], [1 / 3] * 3], rtol=1e-6)
        assert probabilities.dtype == dtype

    def test_loss_by_hand(self, model):
        probabilities = np.array([[0.5, 0.5], [0.25, 0.75]])
        loss = model.compute_loss(probabilities, np.array([0, 1]))
        assert isinstance(loss, float)
        assert loss == pytest.approx(-(np.log(0.5) + np.log(0.75)) / 2, rel=1e-15)

    def test_smoothed_loss_by_hand(self):
        model = HandwrittenNumberClassification("2N", label_smoothing=0.2)
        probabilities = np.array([[0.5, 0.5], [0.25, 0.75], [0.5, 0.5]])
        # Targets (0.9, 0.1), (0.1, 0.9) and (0.9, 0.1).
        first, second = np.log(0.5), 0.1 * np.log(0.25) + 0.9 * np.log(0.75)
        loss = model.compute_loss(probabilities, np.array([0, 1, 0]))
        assert loss == pytest.approx(-(2 * first + second) / 3, rel=1e-15)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_loss_is_finite_where_a_probability_is_zero(self, model, dtype):
        loss = model.compute_loss(np.array([[0, 1]], dtype), np.array([0]))
        assert loss == pytest.approx(-np.log(np.finfo(dtype).tiny))

    def test_decision_making_by_hand(self):
        model = HandwrittenNumberClassification("2N", input_shape=(1, 2, 1))
        model.W_dense[...] = [[1, 2], [3, 4]]
        flattened = np.array([[1.0, 2.0], [3.0, 4.0]])
        probabilities = np.array([[0.5, 0.5], [0.25, 0.75]])
        labels = np.array([0, 1])
        d_w, d_b, d_flattened = model.backprop_decision_making(
            flattened, probabilities, labels
        )
        d_scores = np.array([[-0.25, 0.25], [0.125, -0.125]])  # by hand, over B = 2
        assert_allclose(d_w, [[-0.25 + 0.375, 0.25 - 0.375], [-0.5 + 0.5, 0.5 - 0.5]])
        assert_allclose(d_b, [-0.125, 0.125])
        assert_allclose(d_flattened, d_scores @ [[1, 3], [2, 4]])


def test_no_step_changes_its_arguments(model, rng):
    images = rng.normal(size=(2, 8, 8, 3))
    kernel, bias = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)
    d_map = rng.normal(size=(2, 6, 6, 4))
    flattened = rng.normal(size=(2, 288))
    scores, labels = rng.normal(size=(2, 10)), np.array([3, 4])
    probabilities = model.softmax(scores)
    pooled = rng.normal(size=(2, 3, 3, 4))
    arrays = (
        images,
        kernel,
        bias,
        d_map,
        flattened,
        scores,
        labels,
        probabilities,
        pooled,
    )
    for array in arrays:
        array.flags.writeable = False
    model.generate_feature_map(images, kernel, bias, padding=1)
    model.generate_kernal_loss(images, d_map, 3)
    model.generate_input_loss(d_map, kernel, (8, 8))
    model.relu_gradient(d_map, model.relu(d_map))
    model.generate_max_pool(d_map)
    model.unpool(pooled)
    model.generate_flattened_array(pooled)
    model.compute_loss(probabilities, labels)
    model.backprop_decision_making(flattened, probabilities, labels)


def test_no_result_shares_memory_with_its_argument(model, rng):
    x = rng.normal(size=(2, 4, 4, 3))
    kernel = rng.normal(size=(2, 3, 4, 4))
    for result in (
        model.generate_max_pool(x, 1),
        model.relu(x),
        model.generate_patches(x, 4),
        model.generate_patches(x, 1),
        model.generate_input_loss(x[:, :1, :1, :2], kernel, (4, 4)),
    ):
        assert not np.shares_memory(result, x)


def test_a_result_is_not_overwritten_by_the_next_call(model, rng):
    x = rng.normal(size=(2, 4, 4, 1))
    kernel = rng.normal(size=(3, 1, 2, 2))
    first = model.generate_feature_map(x, kernel)
    kept = first.copy()
    model.generate_feature_map(x + 1, kernel)
    model.predict_proba(rng.random((3, 28, 28)))
    assert_array_equal(first, kept)


def test_what_is_left_in_an_array_that_is_used_again_is_cleared(model, rng):
    feature_map, kernel = rng.normal(size=(2, 9, 6, 1)), np.ones((1, 1, 2, 2))
    pooled = model.generate_max_pool(feature_map, 2, stride=3)  # gaps to the edge
    mask = model.binary_max_pool
    for step in (
        lambda: model.unpool(pooled, mask, 3, (9, 6)),
        lambda: model.generate_input_loss(pooled, kernel, (9, 6), stride=3),
        lambda: model.generate_patches(feature_map, 2, padding=1),
    ):
        expected = step()
        with model._at_work():
            model._work.taken = 0
            step()
            for array in model._work.arrays:
                array.fill(np.nan)
            model._work.taken = 0
            assert_array_equal(step(), expected)


def test_relu_and_its_gradient_write_where_they_are_told(model, rng):
    x, d = rng.normal(size=(2, 3, 3, 4)), rng.normal(size=(2, 3, 3, 4))
    rectified, gradient = model.relu(x), model.relu_gradient(d, x)
    assert_array_equal(model.relu_gradient(d, rectified), gradient)
    assert model.relu_gradient(d, x, out=d) is d
    assert model.relu(x, out=x) is x
    assert_array_equal(d, gradient)
    assert_array_equal(x, rectified)


def test_integers_of_any_width_are_integers(model, rng):
    images, kernel = rng.random((2, 40, 40, 1)), rng.random((3, 1, 2, 2))
    narrow, frame = np.int8(30), np.int8(70)  # 5 * 30 and 2 * 70 wrap
    d_map, size = rng.random((2, 6, 6, 3)), (np.uint8(40),) * 2
    assert_array_equal(
        model.generate_feature_map(images, kernel, None, narrow, frame),
        model.generate_feature_map(images, kernel, None, 30, 70),
    )
    assert_array_equal(
        model.generate_input_loss(d_map, kernel, size, narrow, frame),
        model.generate_input_loss(d_map, kernel, (40, 40), 30, 70),
    )
    pooled = model.generate_max_pool(images.repeat(5, 1), 2, narrow)
    assert_array_equal(pooled, model.generate_max_pool(images.repeat(5, 1), 2, 30))
    assert_array_equal(
        model.unpool(pooled, stride=narrow), model.unpool(pooled, stride=30)
    )


def test_an_empty_batch_is_pooled_to_an_empty_one(model):
    assert model.generate_max_pool(np.zeros((0, 4, 4, 3))).shape == (0, 2, 2, 3)
    assert model.binary_max_pool.shape == (0, 2, 2, 3, 2, 2)


def test_a_mask_of_windows_that_are_no_squares_is_refused(model):
    mask = np.ones((1, 2, 2, 1, 2, 1), bool)
    with pytest.raises(ValueError, match=r"axes \(B H' W' F P P\); got"):
        model.unpool(np.ones((1, 2, 2, 1)), mask, 2, (4, 4))


def test_pooling_without_a_mask_keeps_the_last_one(model, rng):
    x = rng.normal(size=(2, 6, 6, 3))
    expected = model.generate_max_pool(x, 2)
    mask = model.binary_max_pool
    kept = mask.copy()
    assert_array_equal(model.generate_max_pool(x, 2, with_mask=False), expected)
    model.generate_max_pool(-x, 3, with_mask=False)
    assert model.binary_max_pool is mask
    assert_array_equal(mask, kept)
    assert model.unpool(expected).shape == x.shape


def test_memory_order_changes_no_number(model, rng):
    x = rng.normal(size=(3, 6, 5, 2))
    kernel = rng.normal(size=(4, 2, 2, 2))
    expected = model.generate_feature_map(x, kernel)
    for other in (np.asfortranarray(x), x[::-1][::-1], np.repeat(x, 2, axis=0)[::2]):
        assert_allclose(model.generate_feature_map(other, kernel), expected, **EXACT)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m.generate_patches(x[0], 2), "images must have axes"),
        (lambda m, x: m.generate_patches(x, 5), "window 5x5; got 4x5$"),
        (
            lambda m, x: m.generate_patches(x, 9, padding=1),
            "window 9x9 with padding 1; got 4x5$",
        ),
        (lambda m, x: m.generate_feature_map(x[0], KERNEL), "images must have axes"),
        (lambda m, x: m.generate_feature_map(x, KERNEL[0]), "kernel must have axes"),
        (lambda m, x: m.generate_feature_map(x, KERNEL, KERNEL), "bias must have axes"),
        (lambda m, x: m.generate_kernal_loss(x[0], x, 2), "images must have axes"),
        (lambda m, x: m.generate_kernal_loss(x, x[0], 2), "d_feature_map must have ax"),
        (
            lambda m, x: m.generate_input_loss(x[0], KERNEL, (5, 6)),
            "d_feature_map must have axes",
        ),
        (lambda m, x: m.generate_input_loss(x, KERNEL[0], (5, 6)), "kernel must have"),
        (
            lambda m, x: m.generate_feature_map(x, np.ones((1, 2, 2, 2))),
            "kernel must have shape",
        ),
        (
            lambda m, x: m.generate_feature_map(x, np.ones((1, 1, 9, 2))),
            "window 9x2; got 4x5",
        ),
        (
            lambda m, x: m.generate_feature_map(x, np.ones((2, 1, 2, 2)), np.ones(3)),
            "bias must",
        ),
        (lambda m, x: m.generate_feature_map(x, KERNEL, stride=0), "stride must"),
        (lambda m, x: m.generate_feature_map(x, KERNEL, padding=-1), "padding must"),
        (lambda m, x: m.generate_kernal_loss(x, x, 2), "d_feature_map must have shape"),
        (lambda m, x: m.generate_kernal_loss(x, x, (1, 2, 3)), "an int or a pair"),
        (lambda m, x: m.generate_input_loss(x, KERNEL, (9, 9)), "d_feature_map must"),
        (
            lambda m, x: m.generate_max_pool(x, 5),
            "feature_map must hold a window 5x5; got 4x5",
        ),
        (lambda m, x: m.generate_max_pool(x[0], 2), "feature_map must have axes"),
        (lambda m, x: m.generate_max_pool(x, 0), "pool_size must be at least 1; got 0"),
        (lambda m, x: m.relu_gradient(x, x[0]), "d_output must have shape"),
        (lambda m, x: m.generate_kernal_loss(x, x, 2.0), "an int or a pair; got 2.0"),
        (lambda m, x: m.compute_loss(np.ones((0, 3)), []), "labels must hold at least"),
        (
            lambda m, x: m.unpool(x, MASK, 2, (1, 8, 10)),
            r"output_shape must be an int or a pair; got \(1, 8, 10\)",
        ),
        (lambda m, x: m.unpool(x, MASK, 2, (2, 8, 10, 1)), "output_shape must be"),
        (
            lambda m, x: m.backprop_decision_making(
                np.ones((2, 288)), x[0, :2, :3, 0], [0, 1]
            ),
            r"probabilities must have shape \(2, 10\)",
        ),
        (lambda m, x: m.unpool(x), "must be given"),
        (
            lambda m, x: m.unpool(x, MASK.astype(np.int8), 2, (8, 10)),
            "mask must be bool .*; got int8 of shape",
        ),
        (lambda m, x: m.unpool(x[0], MASK, 2, (8, 10)), "d_pooled must have axes"),
        (lambda m, x: m.unpool(x, MASK[:, :, 1:], 2, (8, 8)), "d_pooled must"),
        (lambda m, x: m.unpool(x, MASK, 2, (4, 4)), "output_shape must"),
        (lambda m, x: m.softmax(x), "scores must have axes"),
        (lambda m, x: m.generate_flattened_array(x[0]), "pooled must have axes"),
        (lambda m, x: m.compute_loss(x[0], [0]), "probabilities must have axes"),
        (
            lambda m, x: m.backprop_decision_making(x, np.ones((1, 10)), [0]),
            "flattened must have axes",
        ),
        (
            lambda m, x: m.backprop_decision_making(np.ones((1, 288)), x, [0]),
            "probabilities must have axes",
        ),
        (
            lambda m, x: m.backprop_decision_making(
                np.ones((1, 287)), np.ones((1, 10)), [0]
            ),
            r"flattened must have shape \(1, 288\)",
        ),
        (
            lambda m, x: m.backprop_decision_making(
                np.ones((1, 288)), np.ones((1, 10)), [-1]
            ),
            r"labels must be in 0\.\.9; got -1",
        ),
        (
            lambda m, x: m.compute_loss(np.ones((2, 3)), [0, 3]),
            r"labels must be in 0\.\.2; got 3",
        ),
        (
            lambda m, x: m.compute_loss(np.ones((2, 3)), [0, -1]),
            r"labels must be in 0\.\.2; got -1",
        ),
        (
            lambda m, x: m.compute_loss(np.ones((2, 3)), [0]),
            r"labels must have shape \(2,\)",
        ),
        (lambda m, x: m.compute_loss(np.ones((2, 3)), np.eye(3)[:2]), "one-hot"),
    ],
)
def test_a_wrong_argument_is_named(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, np.ones((1, 4, 5, 1)))


def test_a_wrong_type_is_named(model):
    with pytest.raises(TypeError, match="images must be numbers; got dtype <U1"):
        model.generate_feature_map(np.full((1, 2, 2, 1), "a"), KERNEL)
    with pytest.raises(TypeError, match="labels must be integers; got dtype float64"):
        model.compute_loss(np.ones((1, 2)), np.array([0.0]))
