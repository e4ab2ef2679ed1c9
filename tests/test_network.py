"""The whole network: it runs through the steps, on what is read, in arrays reused."""

import numpy as np
import pytest
from helpers.networks import (
    SMALL,
    assert_same_parameters,
    call_in_each_step,
    small_model,
)
from numpy.testing import assert_allclose

from handwritten_classifier import HandwrittenNumberClassification


class TestOneMathematics:
    @pytest.mark.parametrize(
        "step",
        [
            "generate_feature_map",
            "generate_max_pool",
            "relu",
            "generate_flattened_array",
            "softmax",
        ],
    )
    def test_forward_predict_and_fit_run_through_the_steps(self, examples, step):
        for use in (
            lambda m: m.forward(examples[0]),
            lambda m: m.predict(examples[0]),
            lambda m: m.evaluate(*examples),
            lambda m: m.fit(*examples, verbose=0),
        ):
            assert_runs_through(step, use)

    @pytest.mark.parametrize(
        "step",
        [
            "compute_loss",
            "backprop_decision_making",
            "relu_gradient",
            "unpool",
            "generate_kernal_loss",
            "generate_input_loss",
        ],
    )
    def test_fit_and_compute_gradients_run_through_the_reverse_steps(
        self, examples, step
    ):
        for use in (
            lambda m: m.compute_gradients(*examples),
            lambda m: m.fit(*examples, verbose=0),
        ):
            assert_runs_through(step, use)

    def test_step_by_step_gives_what_the_network_gives(self, digits):
        model = HandwrittenNumberClassification(
            "4C3-MP2-6C3p1-MP3s2-10N", dtype=np.float64
        )
        images = digits.train_images[:5, :, :, np.newaxis] / 255
        x = images
        for kernel, bias, padding, pool, stride in zip(
            model.kernels, model.biases, (0, 1), (2, 3), (2, 2), strict=True
        ):
            x = model.relu(model.generate_feature_map(x, kernel, bias, padding=padding))
            x = model.generate_max_pool(x, pool, stride)
        flattened = model.generate_flattened_array(x)
        probabilities = model.softmax(flattened @ model.W_dense + model.B_dense)
        assert_allclose(model.forward(images), probabilities, rtol=1e-12)
        assert_allclose(model.predict_proba(images), probabilities, rtol=1e-12)


class Reached(Exception):
    """Raised by a step that was replaced."""


def assert_runs_through(step, use):
    def reach(*args, **kwargs):
        raise Reached

    model = HandwrittenNumberClassification("2C3-MP2-2C2-3N", **SMALL)
    setattr(model, step, reach)
    with pytest.raises(Reached):
        use(model)


class TestUnreadEdges:
    @pytest.mark.parametrize(
        ("architecture", "read"),
        [
            ("4C3-MP2-5C2-MP2-3N", (12, 12)),
            ("4C3-MP2-3N", (12, 14)),
            ("4C4-MP4-3N", (11, 11)),
            ("4C3s2-5C2s2-3N", (9, 13)),
            ("4C3s2-5C2s2p1-3N", (11, 13)),  # the padding is around the whole map
            ("4C3-MP3s2-3N", (11, 13)),
            ("3N", (12, 14)),
        ],
    )
    def test_what_no_window_reads_stays_behind_and_changes_nothing(
        self, rng, monkeypatch, architecture, read
    ):
        settings = {"input_shape": (12, 14, 1), "dtype": np.float64}
        model = HandwrittenNumberClassification(architecture, **settings)
        images = rng.random((5, 12, 14, 1))
        sizes = []
        for step in ("generate_patches", "generate_flattened_array"):
            call_in_each_step(
                monkeypatch, step, lambda model, number, x, *_: sizes.append(x.shape)
            )
        found = model.forward(images)
        assert sizes[0] == (5, *read, 1)
        x, parameters = images, zip(model.kernels, model.biases, strict=True)
        for layer in model.layers[:-1]:
            if layer.kind == "pooling":
                x = model.generate_max_pool(x, layer.window[0], layer.stride)
            else:
                options = (layer.stride, layer.padding)
                x = model.generate_feature_map(x, *next(parameters), *options)
                x = model.relu(x)
        scores = model.generate_flattened_array(x) @ model.W_dense + model.B_dense
        assert_allclose(found, model.softmax(scores), rtol=1e-12)


class TestWorkArrays:
    def test_each_batch_uses_the_arrays_of_the_one_before(self, examples, monkeypatch):
        counts = []

        def count(model, *_):
            counts.append(len(model._work.arrays))

        call_in_each_step(monkeypatch, "relu_gradient", count)
        small_model(batch_size=10).partial_fit(*examples)
        assert len(counts) == 5
        assert len(set(counts[1:])) == 1  # The first batch has yet to make some.

    def test_an_interrupted_use_leaves_none_behind(self, examples, monkeypatch):
        def interrupt(*args):
            raise KeyboardInterrupt

        model = small_model()
        monkeypatch.setattr(model, "compute_loss", interrupt)
        for use in (model.fit, model.evaluate):
            with pytest.raises(KeyboardInterrupt):
                use(*examples)
            assert model._work.arrays is None

    @pytest.mark.parametrize("name", ["forward", "predict_proba", "compute_gradients"])
    def test_what_a_signal_asks_in_the_midst_of_a_step_changes_nothing(
        self, examples, monkeypatch, name
    ):
        """As a handler does that shows how far the training is."""
        expected = small_model().partial_fit(*examples)
        pool, asked = HandwrittenNumberClassification.generate_max_pool, []

        def ask_and_pool(self, *arguments):
            if self._work.arrays is not None and not asked:
                asked.append(name)
                questions = examples if name == "compute_gradients" else examples[:1]
                getattr(self, name)(*questions)
            return pool(self, *arguments)

        monkeypatch.setattr(
            HandwrittenNumberClassification, "generate_max_pool", ask_and_pool
        )
        found = small_model().partial_fit(*examples)
        assert asked
        assert_same_parameters(found, expected.parameters)

    def test_numpy_buffers_are_what_they_were(self, examples):
        images, labels = examples
        before = np.getbufsize()
        model = small_model(batch_size=10).fit(images, labels, verbose=0)
        model.predict(np.repeat(images, 3, axis=0))
        model.evaluate(images, labels)
        assert np.getbufsize() == before
        model.W_dense[:] = np.nan
        with pytest.raises(FloatingPointError):
            model.fit(images, labels, verbose=0)
        assert np.getbufsize() == before

    def test_work_arrays_begin_on_cache_lines(self):
        model = small_model()
        with model._at_work():
            model._batch(np.zeros((3, 8, 8, 1), np.uint8))
            for shape in ((3, 5), (1,), (1000, 7)):
                for dtype in (np.float32, np.float64, bool):
                    array = model._array(shape, dtype)
                    assert array.ctypes.data % 64 == 0
                    assert (array.shape, array.dtype) == (shape, dtype)

    def test_a_batch_has_a_bound(self, monkeypatch):
        model, images = small_model(), np.zeros((21, 8, 8, 1), np.uint8)
        of_one = sum(layer.numbers for layer in model.layers)
        monkeypatch.setattr(HandwrittenNumberClassification, "MOST", of_one)
        assert len(model.forward(images[:20])) == 20
        required = f"need at most {20 * of_one:,} numbers; got {21 * of_one:,}"
        with pytest.raises(ValueError, match=f"a batch of images must {required}"):
            model.forward(images)
