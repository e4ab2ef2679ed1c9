"""The notation of architectures, and the settings: what they make of a network."""

import tracemalloc

import numpy as np
import pytest
from helpers.networks import SMALL, assert_same_parameters, small_model, snapshot
from numpy.testing import assert_array_equal
from sklearn.base import clone

from handwritten_classifier import HandwrittenNumberClassification


class TestArchitecture:
    @pytest.mark.parametrize(
        ("architecture", "maps"),
        [
            ("10N", [(1, 1, 10)]),
            ("8C4-MP4-10N", [(25, 25, 8), (6, 6, 8), (1, 1, 10)]),
            ("8C3s2p1-10N", [(14, 14, 8), (1, 1, 10)]),
            ("MP3s2-5C1-10N", [(13, 13, 1), (13, 13, 5), (1, 1, 10)]),
            ("MP2s9-10N", [(3, 3, 1), (1, 1, 10)]),
            ("6C5-MP2-16N-10N", [(24, 24, 6), (12, 12, 6), (1, 1, 16), (1, 1, 10)]),
        ],
    )
    def test_maps_follow_from_the_notation(self, architecture, maps):
        model = HandwrittenNumberClassification(architecture)
        assert [layer.output_shape for layer in model.layers] == maps
        assert model.predict_proba(np.zeros((2, 28, 28))).shape == (2, 10)

    def test_parameters_have_names_shapes_and_order(self):
        model = HandwrittenNumberClassification("6C5-MP2-16C3-12N-10N")
        shapes = {name: array.shape for name, array in model.parameters.items()}
        assert list(shapes.items()) == [
            ("kernels.0", (6, 1, 5, 5)),
            ("biases.0", (6,)),
            ("kernels.1", (16, 6, 3, 3)),
            ("biases.1", (16,)),
            ("kernels.2", (12, 16, 10, 10)),
            ("biases.2", (12,)),
            ("W_dense", (12, 10)),
            ("B_dense", (10,)),
        ]
        assert model.parameters["kernels.1"] is model.kernels[1]
        assert model.parameters["W_dense"] is model.W_dense

    def test_weights_are_drawn_layer_by_layer_with_variance_2_by_inputs(self):
        settings = {"input_shape": (8, 8, 2), "seed": 7, "dtype": np.float64}
        model = HandwrittenNumberClassification("4C3-MP2-5C2-3N", **settings)
        rng = np.random.default_rng(7)
        for name, inputs in {"kernels.0": 18, "kernels.1": 16, "W_dense": 20}.items():
            array = model.parameters[name]
            expected = rng.normal(0, np.sqrt(2 / inputs), array.shape)
            assert_array_equal(array, expected, err_msg=name)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_every_parameter_and_gradient_has_the_precision_of_the_setting(
        self, examples, dtype
    ):
        model = small_model(dtype=dtype)
        gradients = model.compute_gradients(*examples)[1]
        for name, array in model.parameters.items():
            assert array.dtype == gradients[name].dtype == dtype, name

    def test_images_need_not_be_square_nor_grey(self):
        model = HandwrittenNumberClassification("4C3-MP2-5N-3N", input_shape=(9, 6, 3))
        assert model.kernels[0].shape == (4, 3, 3, 3)
        assert model.kernels[1].shape == (5, 4, 3, 2)
        assert model.predict(np.zeros((2, 9, 6, 3))).shape == (2,)

    @pytest.mark.parametrize(
        ("architecture", "token", "position", "size"),
        [
            ("8C4-XX-10N", "'XX'", 2, "25x25x8"),
            ("8C4--10N", "''", 2, "25x25x8"),
            ("", "''", 1, "28x28x1"),
            ("8C4-MP4", "'MP4'", 2, "25x25x8"),
            ("8C4-MP4-MP9-10N", "'MP9'", 3, "6x6x8"),
            ("8C29-10N", "'8C29'", 1, "28x28x1"),
            ("0C3-10N", "'0C3'", 1, "28x28x1"),
            ("8C3s0-10N", "'8C3s0'", 1, "28x28x1"),
            ("8c3-10N", "'8c3'", 1, "28x28x1"),
            ("MP0-10N", "'MP0'", 1, "28x28x1"),
            ("8C3p1s2-10N", "'8C3p1s2'", 1, "28x28x1"),
            (" 10N", "' 10N'", 1, "28x28x1"),
            ("\u0661\u0660N", "'\u0661\u0660N'", 1, "28x28x1"),
        ],
    )
    def test_what_cannot_be_is_named(self, architecture, token, position, size):
        message = f"architecture must .*; got {token} at position {position}.*{size}"
        with pytest.raises(ValueError, match=message):
            HandwrittenNumberClassification(architecture)


class TestSettings:
    def test_the_defaults_are_those_of_the_source_project(self):
        assert HandwrittenNumberClassification().get_params() == {
            "architecture": "8C4-MP4-10N",
            "input_shape": (28, 28, 1),
            "epochs": 1,
            "batch_size": 32,
            "lr": 0.01,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "schedule": "constant",
            "augment": False,
            "seed": 0,
            "dtype": np.float32,
            "label_smoothing": 0.0,
            "averaging": 0.0,
            "verbose": 1,
        }

    @pytest.mark.parametrize(
        ("setting", "value", "error"),
        [
            ("architecture", 8, TypeError),
            ("input_shape", (28, 28), ValueError),
            ("input_shape", (28, 28, 0), ValueError),
            ("input_shape", 28, ValueError),
            ("epochs", 0, ValueError),
            ("epochs", 1.5, TypeError),
            ("batch_size", 0, ValueError),
            ("batch_size", True, TypeError),
            ("lr", 0, ValueError),
            ("lr", float("nan"), ValueError),
            ("lr", "fast", TypeError),
            ("momentum", 1.0, ValueError),
            ("momentum", -0.1, ValueError),
            ("weight_decay", -1e-9, ValueError),
            ("weight_decay", float("inf"), ValueError),
            ("label_smoothing", 1, ValueError),
            ("label_smoothing", -0.1, ValueError),
            ("label_smoothing", "some", TypeError),
            ("averaging", 1, ValueError),
            ("averaging", float("nan"), ValueError),
            ("schedule", "cosine", ValueError),
            ("augment", -1, ValueError),
            ("augment", float("nan"), ValueError),
            ("augment", "strong", TypeError),
            ("seed", -1, ValueError),
            ("seed", None, TypeError),
            ("dtype", np.float16, ValueError),
            ("dtype", "number", ValueError),
            ("dtype", None, ValueError),
            ("dtype", int, ValueError),
        ],
    )
    def test_a_wrong_setting_is_named_and_changes_nothing(self, setting, value, error):
        with pytest.raises(error, match=rf"{setting} must .*; got"):
            HandwrittenNumberClassification(**{setting: value})
        model = HandwrittenNumberClassification()
        before, settings = snapshot(model), model.get_params()
        with pytest.raises(error, match=rf"{setting} must .*; got"):
            model.set_params(**{"weight_decay": 0.5, setting: value})
        assert model.get_params() == settings
        assert_same_parameters(model, before)

    def test_a_setting_of_training_keeps_what_was_learned(self, examples):
        model = small_model().fit(*examples, verbose=0)
        before = snapshot(model)
        assert model.set_params(lr=0.5, epochs=3) is model
        assert (model.lr, model.epochs) == (0.5, 3)
        assert_same_parameters(model, before)
        assert len(model.history["loss"]) == 1

    def test_a_setting_of_the_network_makes_a_new_one(self, examples):
        model = small_model().fit(*examples, verbose=0)
        model.set_params(architecture="5C3-3N", seed=4)
        assert model.kernels[0].shape == (5, 1, 3, 3)
        assert model.history["loss"] == []
        fresh = HandwrittenNumberClassification("5C3-3N", seed=4, **SMALL)
        assert_same_parameters(model, fresh.parameters)

    def test_a_wrong_setting_that_was_assigned_is_found_by_fit(self, examples):
        model = small_model()
        model.lr = -1
        with pytest.raises(
            ValueError, match="lr must be a finite number above 0; got -1"
        ):
            model.fit(*examples)

    @pytest.mark.parametrize("dtype", ["float64", np.dtype(np.float64)])
    def test_a_precision_may_be_named(self, dtype):
        assert small_model(dtype=dtype).W_dense.dtype == np.float64

    def test_the_same_network_said_otherwise_keeps_what_was_learned(self, examples):
        model = small_model().fit(*examples, verbose=0)
        before = snapshot(model)
        model.set_params(dtype="float32", input_shape=[8, 8, 1], seed=np.int64(0))
        assert_same_parameters(model, before)
        assert len(model.history["loss"]) == 1

    def test_a_number_of_numpy_changes_no_bit(self, examples):
        plain = small_model(lr=0.01, momentum=0.5, weight_decay=0.1)
        of_numpy = small_model(
            lr=np.float64(0.01), momentum=np.float64(0.5), weight_decay=np.float64(0.1)
        )
        for model in (plain, of_numpy):
            model.fit(*examples, verbose=0)
        assert_same_parameters(of_numpy, plain.parameters)

    def test_an_unknown_setting_is_named(self):
        with pytest.raises(ValueError, match=r"settings must be among .*; got 'rate'"):
            HandwrittenNumberClassification().set_params(rate=1)

    def test_scikit_learn_can_clone_a_model(self):
        sklearn = pytest.importorskip("sklearn.base")
        model = small_model(lr=0.5, dtype=np.float64)
        twin = sklearn.clone(model)
        assert twin.get_params() == model.get_params()


class TestBounds:
    """What a notation asks for is counted before it is allocated."""

    @pytest.mark.parametrize(
        ("architecture", "what"),
        [
            ("1C1p1-10N", "pad by less than a window.*got '1C1p1' at position 1"),
            ("1C1p999999-MP999999-10N", "pad by less than a window"),
            ("8C3p3-MP2-10N", "pad by less than a window"),
            ("1C4000p3999-MP4000-10N", "need at most 100,000,000 .*'1C4000p3999'"),
            ("999999C1-MP2-10N", "need at most 100,000,000 .*'999999C1' at position 1"),
            ("999999N-999999N-10N", "need at most 100,000,000"),
            ("64C3-999999N-10N", "need at most 100,000,000 .*'999999N' at position 2"),
            ("MP1-" * 200 + "10N", "have at most 200 layers; got 201"),
        ],
    )
    def test_more_is_refused_before_any_of_it_is_made(self, architecture, what):
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=rf"architecture must {what}"):
                HandwrittenNumberClassification(architecture)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    def test_the_work_of_all_layers_counts(self):
        shape = (1000, 1000, 1)  # at least 30 million numbers a layer
        HandwrittenNumberClassification("30C1-MP1000-1N", input_shape=shape)
        with pytest.raises(ValueError, match="'MP1000' at position 3"):
            HandwrittenNumberClassification("30C1-30C1-MP1000-1N", input_shape=shape)

    def test_the_weights_of_all_layers_count(self):
        with pytest.raises(ValueError, match=r"need at most 100,000,000 .*'9000N'"):
            HandwrittenNumberClassification("9000N-9000N-9000N-10N")

    def test_a_batch_has_a_bound_too(self):
        model = HandwrittenNumberClassification(
            "30C1-MP1000-1N", input_shape=(1000, 1000, 1)
        )
        images = np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), (40, 1000, 1000, 1))
        with pytest.raises(ValueError, match="a batch of images must need at most"):
            model.forward(images)

    def test_a_refusal_is_no_longer_than_one_can_read(self):
        with pytest.raises(ValueError, match="architecture must") as raised:
            HandwrittenNumberClassification("8C4x" * 100_000)
        assert len(str(raised.value)) < 3000

    def test_padding_below_the_window_is_taken(self):
        layers = HandwrittenNumberClassification("2C3p2-2C5p4-10N").layers
        assert [layer.output_shape for layer in layers[:2]] == [
            (30, 30, 2),
            (34, 34, 2),
        ]

    @pytest.mark.parametrize("name", ["epochs", "batch_size", "seed", "input_shape"])
    @pytest.mark.parametrize("digits", [20, 400, 4000])
    def test_whole_numbers_have_an_upper_bound(self, name, digits):
        value = 10**digits
        value = (value, 28, 1) if name == "input_shape" else value
        with pytest.raises(ValueError, match=f"{name} must be at most"):
            HandwrittenNumberClassification(**{name: value})

    @pytest.mark.parametrize("name", ["lr", "weight_decay", "augment", "momentum"])
    def test_numbers_beyond_floats_are_not_finite(self, name):
        with pytest.raises(ValueError, match=f"{name} must be a finite number"):
            HandwrittenNumberClassification(**{name: 10**400})


class TestAssignedAttributes:
    """What is assigned counts from the next door on, as with `set_params`."""

    def test_another_architecture_makes_another_network(self, examples):
        model = small_model().fit(*examples, verbose=0)
        model.architecture = "3N"
        model.fit(*examples, epochs=2, verbose=0)
        assert not model.kernels
        assert len(model.history["loss"]) == 2
        expected = HandwrittenNumberClassification("3N", **SMALL)
        expected.fit(*examples, epochs=2, verbose=0)
        assert_array_equal(model.W_dense, expected.W_dense)

    @pytest.mark.parametrize("door", ["forward", "predict_proba", "distort"])
    def test_every_door_takes_it_up(self, examples, door):
        model = small_model()
        model.seed = 3
        getattr(model, door)(examples[0])
        assert_array_equal(model.W_dense, small_model(seed=3).W_dense)

    def test_another_rate_keeps_what_was_learned(self, examples):
        model = small_model().fit(*examples, verbose=0)
        learned = model.W_dense.copy()
        model.lr = 0.5
        model.predict(examples[0])
        assert_array_equal(model.W_dense, learned)

    def test_a_wrong_one_is_refused_at_the_door(self, examples):
        model = small_model()
        model.lr = -1
        with pytest.raises(ValueError, match=r"lr must be .* above 0; got -1"):
            model.fit(*examples, verbose=0)

    def test_an_interrupted_training_does_not_go_on_in_mid_cycle(self, examples):
        def interrupt(model, step, loss):
            if step == 4:
                raise KeyboardInterrupt

        model = small_model(batch_size=10, schedule="one-cycle")
        with pytest.raises(KeyboardInterrupt):
            model.fit(*examples, epochs=2, verbose=0, callback=interrupt)
        model.lr, rates = 0.5, []
        model.fit(
            *examples,
            epochs=2,
            verbose=0,
            callback=lambda model, *_: rates.append(model.rate),
        )
        assert len(rates) == 10
        assert rates[0] == pytest.approx(0.5 / 11 / 0.3)


class Tuned(HandwrittenNumberClassification):
    """A subclass with a setting of its own, which passes the others on."""

    def __init__(self, flavour="plain", **settings):
        super().__init__(**settings)
        self.flavour = flavour


class Fixed(HandwrittenNumberClassification):
    """A subclass with one setting alone."""

    def __init__(self, lr=0.5):
        super().__init__("3N", lr=lr, **SMALL)


class Mixed:
    """A mixin without settings."""


class Blended(Mixed, HandwrittenNumberClassification):
    """A subclass with a mixin."""

    def __init__(self, extra=1, **settings):
        super().__init__(**settings)
        self.extra = extra


class TestSubclasses:
    def test_a_mixin_does_not_matter(self):
        own = HandwrittenNumberClassification().get_params()
        assert Blended(lr=0.5).get_params() == own | {"lr": 0.5, "extra": 1}

    def test_settings_are_its_own_and_those_it_passes_on(self):
        settings = Tuned("sweet", lr=0.2).get_params()
        assert settings["flavour"] == "sweet"
        assert settings["lr"] == 0.2
        own = HandwrittenNumberClassification().get_params()
        assert settings.keys() == {"flavour", *own}
        assert Fixed().get_params() == {"lr": 0.5}

    @pytest.mark.parametrize("kind", [Tuned, Fixed])
    def test_it_is_changed_cloned_shown_saved_and_loaded(
        self, kind, examples, tmp_path
    ):
        model = kind(**{} if kind is Fixed else SMALL | {"architecture": "3N"})
        assert model.set_params(lr=0.25).lr == 0.25
        assert "lr=0.25" in repr(model)
        assert type(clone(model)) is kind
        model.fit(*examples, verbose=0).save(tmp_path / "model.npz")
        twin = kind.load(tmp_path / "model.npz")
        assert twin.get_params() == model.get_params()
        assert_array_equal(twin.W_dense, model.W_dense)
