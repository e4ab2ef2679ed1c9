"""The network as a whole: notation, settings, training, prediction, doors, files."""

import contextlib
import copy
import json
import os
import pickle
import re
import shlex
import subprocess
import sys
import warnings

import numpy as np
import pytest
from conftest import ROOT
from numpy.testing import assert_allclose, assert_array_equal

from digits.figures import (
    plot_confusion,
    plot_distortions,
    plot_history,
    plot_kernels,
    plot_mistakes,
    plot_steps,
)
from handwritten_classifier import HandwrittenNumberClassification

SMALL = {"input_shape": (8, 8, 1)}


@pytest.fixture
def examples(rng):
    """Return 50 images of 8x8 with labels 0..2."""
    return rng.random((50, 8, 8)), rng.integers(0, 3, size=50)


def small_model(**settings):
    return HandwrittenNumberClassification("4C3-MP2-3N", **SMALL | settings)


def snapshot(model):
    return {name: array.copy() for name, array in model.parameters.items()}


def assert_same_parameters(model, expected):
    for name, array in model.parameters.items():
        assert_array_equal(array, expected[name], err_msg=name)


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


class TestTraining:
    def test_ten_images_are_memorised(self, digits):
        model = HandwrittenNumberClassification(lr=0.1, batch_size=10, epochs=150)
        images, labels = digits.train_images[:10], digits.train_labels[:10]
        model.fit(images, labels, verbose=0)
        assert_array_equal(model.predict(images), labels)
        assert model.history["loss"][-1] < 0.05

    def test_digits_are_learned(self, digits):
        model = HandwrittenNumberClassification("8C5-MP2-10N", lr=0.1, momentum=0.9)
        model.fit(digits.train_images, digits.train_labels, epochs=10, verbose=0)
        assert model.score(digits.test_images, digits.test_labels) > 0.88

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_same_seed_same_bits(self, examples, momentum):
        one, other = (
            small_model(seed=3, momentum=momentum).fit(*examples, epochs=3, verbose=0)
            for _ in range(2)
        )
        assert_same_parameters(one, other.parameters)
        for name in ("loss", "accuracy"):
            assert one.history[name] == other.history[name]
        third = small_model(seed=4).fit(*examples, epochs=3, verbose=0)
        assert not np.array_equal(third.W_dense, one.W_dense)

    def test_training_goes_on_where_it_stood(self, examples):
        at_once = small_model(momentum=0.9).fit(*examples, epochs=3, verbose=0)
        in_parts = small_model(momentum=0.9).fit(*examples, verbose=0)
        in_parts.partial_fit(*examples).fit(*examples, epochs=1, verbose=0)
        assert_same_parameters(in_parts, at_once.parameters)
        assert in_parts.history["loss"] == at_once.history["loss"]

    def test_momentum_lives_on_from_batch_to_batch(self, examples):
        images, labels = examples[0][:32], examples[1][:32]
        model = small_model(momentum=0.5, lr=0.1, dtype=np.float64)
        start = snapshot(model)
        first = model.compute_gradients(images, labels)[1]
        model.partial_fit(images, labels)
        # By hand: v = -lr g, w += m v - lr g.
        for name, array in model.parameters.items():
            expected = start[name] - 0.1 * 1.5 * first[name]
            np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-12)
        between = snapshot(model)
        second = model.compute_gradients(images, labels)[1]
        model.partial_fit(images, labels)
        for name, array in model.parameters.items():
            velocity = 0.5 * -0.1 * first[name] - 0.1 * second[name]
            expected = between[name] + 0.5 * velocity - 0.1 * second[name]
            np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-12)

    def test_without_momentum_the_velocity_is_the_last_step(self, examples):
        model = small_model(momentum=0.9, batch_size=50, dtype=float)
        model.partial_fit(*examples)
        model.set_params(momentum=0.0)
        before = snapshot(model)
        model.partial_fit(*examples)
        for name, array in model.parameters.items():
            taken = array - before[name]
            assert_allclose(model._velocity[name], taken, atol=1e-12, err_msg=name)

    def test_weight_decay_pulls_at_weights_and_not_at_biases(self, examples):
        images, labels = examples[0][:32], examples[1][:32]
        plain, decayed = (
            small_model(weight_decay=decay, lr=0.1, dtype=np.float64)
            for decay in (0, 0.3)
        )
        for model in (plain, decayed):
            model.biases[0][...], model.B_dense[...] = 0.5, 0.5
            start = snapshot(model)
            model.partial_fit(images, labels)
        for name, array in decayed.parameters.items():
            pull = 0.0 if name in ("biases.0", "B_dense") else 0.1 * 0.3 * start[name]
            expected = plain.parameters[name] - pull
            np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("steps", [1, 2, 10, 100])
    def test_one_cycle_goes_up_for_three_tenths_then_down(self, steps):
        model = small_model(schedule="one-cycle", lr=2.0)
        rates = [model._plan_step(step, steps)[0] for step in range(1, steps + 1)]
        rates = np.array(rates)
        assert (rates > 0).all()
        assert (rates <= 2.0).all()
        done = np.arange(1, steps + 1) / (steps + 1)
        expected = np.interp(done, [0, 0.3, 1], [0, 2.0, 0])
        np.testing.assert_allclose(rates, expected)

    def test_one_cycle_is_what_training_follows(self, examples):
        images, labels = examples[0][:32], examples[1][:32]
        model = small_model(schedule="one-cycle", lr=0.1, dtype=np.float64)
        start, (_, gradients) = snapshot(model), model.compute_gradients(images, labels)
        model.fit(
            images, labels, verbose=0
        )  # One step, half way: 0.5 / 0.7 of the peak.
        for name, array in model.parameters.items():
            expected = start[name] - 0.1 * 0.5 / 0.7 * gradients[name]
            np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-12)

    def test_the_plan_counts_the_steps_of_all_epochs(self, examples, monkeypatch):
        counted, original = [], HandwrittenNumberClassification._plan_step

        def spy(self, *step_of_steps):
            counted.append(step_of_steps)
            return original(self, *step_of_steps)

        monkeypatch.setattr(HandwrittenNumberClassification, "_plan_step", spy)
        small_model(batch_size=16).fit(*examples, epochs=2, verbose=0)
        assert counted == [(step, 8) for step in range(1, 9)]  # 50 = 3 * 16 + 2

    def test_each_step_has_its_share_in_the_mean_of_those_so_far(self):
        model = small_model(averaging=0.25)
        shares = [model._plan_step(step, 10)[1] for step in range(1, 11)]
        assert shares == [0] * 7 + [1, 1 / 2, 1 / 3]  # the last 2.5 steps of 10

    @pytest.mark.parametrize("averaging", [0.07, 0.14, 0.29, 0.55, 0.58, 0.9])
    def test_a_share_of_whole_steps_is_as_many(self, averaging):
        model = small_model(averaging=averaging)
        averaged = sum(model._plan_step(step, 100)[1] > 0 for step in range(1, 101))
        assert averaged == round(100 * averaging)

    def test_averaging_by_hand(self, examples, monkeypatch):
        passed = []
        original = HandwrittenNumberClassification._train_batch

        def spy(self, images, labels, rate):
            result = original(self, images, labels, rate)
            passed.append(snapshot(self))
            return result

        monkeypatch.setattr(HandwrittenNumberClassification, "_train_batch", spy)
        model = small_model(averaging=0.3, batch_size=10, lr=0.1, dtype=np.float64)
        model.fit(*examples, epochs=2, validation_data=examples, verbose=0)
        # The last 3 of 10 steps, of which the first two are no mean of anything.
        assert len(passed) == 10
        for name, array in model.parameters.items():
            expected = (passed[7][name] + passed[8][name] + passed[9][name]) / 3
            assert_allclose(array, expected, rtol=1e-12, atol=1e-15)
            assert np.abs(array - passed[9][name]).max() > 0
        # The last validation is of what is left, not of the last step.
        assert model.history["val_loss"][-1] == model.evaluate(*examples)[0]

    def test_settings_of_any_width_are_numbers(self, examples):
        plain = {"epochs": 20, "batch_size": 16, "lr": 0.1, "averaging": 0.5}
        narrow = {"epochs": np.int8(20), "batch_size": np.int8(16)}
        narrow |= {"lr": np.float32(0.1), "averaging": np.float16(0.5)}
        narrow |= {"input_shape": tuple(np.array([8, 8, 1], np.uint8))}
        plain["lr"] = float(np.float32(0.1))
        cycle = {"schedule": "one-cycle"}
        expected = small_model(**plain, **cycle).fit(*examples, verbose=0)
        found = small_model(**narrow, **cycle).fit(*examples, verbose=0)
        assert_same_parameters(found, expected.parameters)
        wide = {"input_shape": tuple(np.array([28, 28, 1], np.uint8))}
        assert HandwrittenNumberClassification("10N", **wide).W_dense.shape == (784, 10)

    def test_averaging_changes_no_step(self, examples):
        plain = small_model(lr=0.1).fit(*examples, epochs=3, verbose=0)
        averaged = small_model(lr=0.1, averaging=0.5).fit(
            *examples, epochs=3, verbose=0
        )
        assert averaged.history["loss"] == plain.history["loss"]

    def test_one_step_is_its_own_mean(self, examples):
        plain = small_model().partial_fit(*examples)
        averaged = small_model(averaging=0.01, batch_size=50).partial_fit(*examples)
        expected = small_model(batch_size=50).partial_fit(*examples)
        assert_same_parameters(averaged, expected.parameters)
        assert np.abs(plain.W_dense - averaged.W_dense).max() > 0  # two steps

    def test_every_image_counts_once_an_epoch_the_last_short_batch_too(self, examples):
        model = small_model(
            batch_size=16, lr=1e-12, dtype=np.float64
        )  # 50 = 3 * 16 + 2
        loss, accuracy = model.evaluate(*examples)
        model.fit(*examples, verbose=0)
        assert model.history["loss"][0] == pytest.approx(loss, rel=1e-9)
        assert model.history["accuracy"][0] == accuracy

    def test_images_are_shuffled_every_epoch(self, examples, monkeypatch):
        seen = []
        original = HandwrittenNumberClassification._train_batch

        def spy(self, images, labels, rate):
            seen.append(np.asarray(images)[:, 0, 0, 0].copy())
            return original(self, images, labels, rate)

        monkeypatch.setattr(HandwrittenNumberClassification, "_train_batch", spy)
        small_model(dtype=np.float64).fit(*examples, epochs=2, verbose=0)
        first, second = np.concatenate(seen[:2]), np.concatenate(seen[2:])
        corner = examples[0][:, 0, 0]
        assert_array_equal(np.sort(first), np.sort(corner))
        assert_array_equal(np.sort(second), np.sort(corner))
        assert not np.array_equal(first, corner)
        assert not np.array_equal(first, second)

    def test_what_is_not_distorted_draws_no_random_numbers(self, examples):
        trained, other = small_model().fit(*examples, verbose=0), small_model()
        other._generator.permutation(50)
        assert trained._generator.random() == other._generator.random()

    def test_validation_is_recorded_and_teaches_nothing(self, examples):
        held_out = (examples[0][:9], examples[1][:9])
        plain = small_model().fit(*examples, epochs=2, verbose=0)
        watched = small_model().fit(
            *examples, epochs=2, validation_data=held_out, verbose=0
        )
        assert_same_parameters(watched, plain.parameters)
        names = {"loss", "accuracy", "seconds", "val_loss", "val_accuracy"}
        assert watched.history.keys() == names
        assert {len(values) for values in watched.history.values()} == {2}
        last = (watched.history["val_loss"][-1], watched.history["val_accuracy"][-1])
        assert last == watched.evaluate(*held_out)

    def test_the_lists_of_the_history_stay_equally_long(self, examples):
        model = small_model().fit(*examples, epochs=2, verbose=0)
        model.fit(*examples, epochs=1, validation_data=examples, verbose=0)
        model.fit(*examples, epochs=1, verbose=0)
        assert {len(values) for values in model.history.values()} == {4}
        given = [loss is not None for loss in model.history["val_loss"]]
        assert given == [False, False, True, False]
        line = plot_history(model).axes[0].lines[1]
        assert_array_equal(line.get_xdata()[~np.isnan(line.get_ydata())], [3])

    def test_two_models_share_no_state(self, examples):
        one, other = small_model(), small_model()
        untouched = snapshot(other)
        one.fit(*examples, verbose=0)
        assert_same_parameters(other, untouched)
        assert other.history["loss"] == []
        arrays = list(one.parameters.values())
        arrays += list(one._velocity.values())
        for i, array in enumerate(arrays):
            assert not any(np.shares_memory(array, b) for b in arrays[:i])

    def test_the_callers_arrays_are_never_changed(self, examples):
        images, labels = examples
        before = images.copy(), labels.copy()
        images.flags.writeable = labels.flags.writeable = False
        model = small_model().fit(images, labels, validation_data=examples, verbose=0)
        model.evaluate(images, labels)
        model.compute_gradients(images, labels)
        assert_array_equal(images, before[0])
        assert_array_equal(labels, before[1])

    def test_diverging_is_told_and_takes_the_epoch_back(self, examples):
        model = HandwrittenNumberClassification("3N", momentum=0.9, **SMALL)
        model.fit(*examples, verbose=0)
        before, history = snapshot(model), copy.deepcopy(model.history)
        velocity = copy.deepcopy(model._velocity)
        model.set_params(lr=1e39)
        with pytest.raises(FloatingPointError, match=r"lr must be small enough .* 1e"):
            model.fit(*examples, verbose=0)
        assert_same_parameters(model, before)
        for name, array in model._velocity.items():
            assert_array_equal(array, velocity[name])
        assert model.history == history
        model.set_params(lr=0.1).fit(*examples, verbose=0)
        assert np.isfinite(model.history["loss"]).all()

    @pytest.mark.parametrize(
        ("name", "value", "got"),
        [
            ("W_dense", np.inf, "a loss of nan"),
            ("biases.0", -np.inf, "infinite parameters"),  # which ReLU hides
        ],
    )
    def test_diverging_names_step_and_rate_and_keeps_the_last_good_epoch(
        self, examples, monkeypatch, name, value, got
    ):
        rates, original = [], HandwrittenNumberClassification._train_batch

        def spy(self, images, labels, rate):
            if len(rates) == 5:
                spy.good = copy.deepcopy(self._trained_arrays())
            if len(rates) == 7:
                self.parameters[name][...] = value
            rates.append(rate)
            return original(self, images, labels, rate)

        monkeypatch.setattr(HandwrittenNumberClassification, "_train_batch", spy)
        settings = {"momentum": 0.5, "schedule": "one-cycle", "averaging": 0.9}
        model = small_model(batch_size=10, **settings)
        where = f"got {got} in step 3 of epoch 2, at a learning rate of 0.00"
        with pytest.raises(FloatingPointError, match=f"{where}.*: try") as raised:
            model.fit(*examples, epochs=3, verbose=0)
        assert f"rate of {rates[7]:g}: try" in str(raised.value)
        assert len(set(rates)) == len(rates) == 8
        assert len(model.history["loss"]) == 1
        for array, good in zip(
            model._trained_arrays().values(), spy.good.values(), strict=True
        ):
            assert_array_equal(array, good)
        model.fit(*examples, epochs=3, verbose=0)
        assert len(model.history["loss"]) == 4

    def test_a_layer_of_dead_relus_draws_one_warning_that_names_it(self, examples):
        model = HandwrittenNumberClassification("4C3-5C3-MP2-3N", **SMALL)
        model.biases[1][...] = -100
        with pytest.warns(UserWarning, match="5C3 should have living ReLUs") as drawn:
            model.fit(*examples, epochs=3, verbose=0)
        assert len(drawn) == 1
        assert drawn[0].filename == __file__

    def test_a_layer_that_lives_in_one_batch_draws_none(self, examples, monkeypatch):
        original = HandwrittenNumberClassification._train_batch

        def spy(self, images, labels, rate):
            later = self._run.position > 0
            return original(self, images - 100 * later, labels, rate)

        monkeypatch.setattr(HandwrittenNumberClassification, "_train_batch", spy)
        model = small_model(batch_size=10)
        np.abs(model.kernels[0], out=model.kernels[0])
        model.fit(*examples, epochs=2, verbose=0)

    def test_a_network_that_knows_all_by_heart_draws_no_warning(self, examples):
        images, labels = examples[0], np.zeros(50, int)
        model = small_model()
        model.B_dense[0] = 1000
        loss = model.fit(images, labels, epochs=2, verbose=0).history["loss"][-1]
        assert loss == 0

    def test_guessing_draws_one_warning_once_a_start_should_be_made(self):
        images, labels = np.ones((1000, 8, 8)), np.arange(1000) % 3
        model = small_model(lr=1e-9, batch_size=100).fit(
            images, labels, epochs=9, verbose=0
        )
        message = r"accuracy should be above chance; got 3\d\.\d%.* has 33\.4%: try"
        with pytest.warns(UserWarning, match=message) as drawn:
            model.fit(images, labels, epochs=12, verbose=0)
        assert len(drawn) == 1

    def test_a_single_label_needs_no_guessing(self):
        images, labels = np.ones((1000, 8, 8)), np.zeros(1000, int)
        model = small_model(batch_size=100).fit(images, labels, epochs=10, verbose=0)
        assert model.history["accuracy"][-1] == 1

    def test_an_interrupted_training_keeps_what_was_learned(
        self, examples, monkeypatch
    ):
        original, calls = HandwrittenNumberClassification._train_batch, []

        def interrupt(self, *args):
            calls.append(1)
            if len(calls) == 6:
                raise KeyboardInterrupt
            return original(self, *args)

        monkeypatch.setattr(HandwrittenNumberClassification, "_train_batch", interrupt)
        model = small_model(batch_size=10)
        before = snapshot(model)
        with pytest.raises(KeyboardInterrupt):
            model.fit(*examples, epochs=2, verbose=0)
        assert len(model.history["loss"]) == 1
        assert not np.array_equal(model.W_dense, before["W_dense"])
        assert model.predict(examples[0]).shape == (50,)

    def test_an_interrupted_use_leaves_no_arrays_behind(self, examples, monkeypatch):
        def interrupt(*args):
            raise KeyboardInterrupt

        model = small_model()
        monkeypatch.setattr(model, "compute_loss", interrupt)
        for use in (model.fit, model.evaluate):
            with pytest.raises(KeyboardInterrupt):
                use(*examples)
            assert model._work.arrays is None

    def test_one_line_an_epoch_aligned(self, examples, capsys):
        small_model().fit(*examples, epochs=10, validation_data=examples)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 10
        assert len({len(line) for line in lines}) == 1
        assert lines[0].startswith("epoch  1/10  loss")
        assert "accuracy" in lines[0]
        assert "validation" in lines[0]
        assert len(lines[0]) <= 80
        assert lines[0].endswith(" s")

    def test_silence(self, examples, capsys):
        small_model().fit(*examples, epochs=2, verbose=0)
        small_model().partial_fit(*examples)
        assert capsys.readouterr() == ("", "")

    @pytest.mark.skipif(os.name == "nt", reason="needs a POSIX terminal")
    def test_the_bar_fits_a_terminal_of_80_columns_with_all_it_shows(self):
        code = (
            "import numpy as np; "
            "from handwritten_classifier import HandwrittenNumberClassification as H; "
            "H('32C5-MP2-10N', batch_size=10)"
            ".fit(np.ones((3000, 28, 28)), np.arange(3000) % 10, epochs=2)"
        )
        command = f"stty cols 80 rows 24; {sys.executable} -c {shlex.quote(code)}"
        import pty

        terminal, end = pty.openpty()
        options = dict.fromkeys(("stdin", "stdout", "stderr"), end)
        with subprocess.Popen(["sh", "-c", command], cwd=ROOT, **options):
            os.close(end)
            shown = b""
            with contextlib.suppress(OSError):  # as Linux ends what a terminal gives
                while part := os.read(terminal, 4096):
                    shown += part
        os.close(terminal)
        text = shown.decode()
        bars = [line for line in re.split(r"[\r\n]+", text) if "images/s, loss" in line]
        assert bars
        for bar in bars:
            assert re.search(
                r"^epoch [12]/2 +\d+%\|.*\| [\d:]+ left, +[\d.]+k? images/s, "
                r"loss \d+\.\d{3}, accuracy +\d+\.\d%$",
                bar.rstrip(),
            )


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
        np.testing.assert_allclose(model.forward(images), probabilities, rtol=1e-12)
        np.testing.assert_allclose(
            model.predict_proba(images), probabilities, rtol=1e-12
        )


class Reached(Exception):
    """Raised by a step that was replaced."""


def assert_runs_through(step, use):
    def reach(*args, **kwargs):
        raise Reached

    model = HandwrittenNumberClassification("2C3-MP2-2C2-3N", **SMALL)
    setattr(model, step, reach)
    with pytest.raises(Reached):
        use(model)


class TestPrediction:
    def test_shapes_and_types(self, examples):
        model = small_model()
        probabilities, classes = (
            model.predict_proba(examples[0]),
            model.predict(examples[0]),
        )
        assert probabilities.shape == (50, 3)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
        assert classes.shape == (50,)
        assert classes.dtype.kind == "i"
        assert_array_equal(classes, probabilities.argmax(axis=1))

    @pytest.mark.parametrize("count", [50, 130])  # at once, and in two batches
    def test_evaluate_by_hand(self, rng, count):
        images, labels = rng.random((count, 8, 8)), rng.integers(0, 3, size=count)
        model = small_model(dtype=np.float64)
        probabilities = model.forward(images)
        of_label = probabilities[np.arange(count), labels]
        loss, accuracy = model.evaluate(images, labels)
        assert loss == pytest.approx(-np.log(of_label).mean(), rel=1e-12)
        assert accuracy == (probabilities.argmax(axis=1) == labels).mean()
        assert model.score(images, labels) == accuracy

    def test_many_images_go_batch_by_batch(self, rng):
        model = small_model(dtype=np.float64)
        images = rng.random((357, 8, 8))
        whole = model.forward(images)
        np.testing.assert_allclose(model.predict_proba(images), whole, rtol=1e-12)

    def test_uint8_images_are_divided_by_255(self, rng):
        images = rng.integers(0, 256, size=(5, 8, 8), dtype=np.uint8)
        model = small_model()
        expected = model.predict_proba(images.astype(np.float32) / 255)
        assert_array_equal(model.predict_proba(images), expected)

    def test_memory_mapped_images_give_the_same(self, tmp_path, examples):
        np.save(tmp_path / "images.npy", examples[0])
        mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
        one = small_model().fit(mapped, examples[1], verbose=0)
        other = small_model().fit(*examples, verbose=0)
        assert_same_parameters(one, other.parameters)
        assert_array_equal(one.predict(mapped), other.predict(examples[0]))


class TestDoors:
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
    def test_wrong_images_are_named(self, images, error, message):
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
    def test_wrong_labels_are_named(self, labels, error, message):
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
    def test_images_of_another_shape_are_told_what_to_do(self, shape, hint):
        message = rf"images must have shape \(B, 28, 28, 1\); got .*: {hint}"
        with pytest.raises(ValueError, match=message):
            HandwrittenNumberClassification().predict(np.zeros(shape))

    def test_what_is_said_of_images_of_another_shape_helps(self, rng):
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

    def test_integers_that_are_not_uint8_are_told_how_to_become_it(self):
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
    def test_labels_beyond_the_classes_are_told_what_to_do(self, labels, hint):
        with pytest.raises(
            ValueError, match=rf"labels must be in 0\.\.2; got .*{hint}"
        ):
            small_model().fit(np.zeros((3, 8, 8)), labels)

    def test_labels_that_are_texts_are_told_what_to_do(self):
        with pytest.raises(TypeError, match=r"pass labels.astype\(int\)"):
            small_model().fit(np.zeros((3, 8, 8)), np.array(["0", "1", "2"]))

    def test_images_and_labels_that_are_exchanged_are_recognised(self, examples):
        images, labels = examples
        for use in (
            lambda model: model.fit(labels, images),
            lambda model: model.evaluate(labels, images),
            lambda model: model.fit(*examples, validation_data=(labels, images)),
        ):
            with pytest.raises(ValueError, match=r"images must come before .*exchange"):
                use(small_model())

    @pytest.mark.parametrize("wrong", [np.zeros((3, 8, 8)), (1, 2, 3), 5])
    def test_wrong_validation_data_are_named(self, examples, wrong):
        with pytest.raises(
            ValueError, match=r"validation_data must be \(images, labels\)"
        ):
            small_model().fit(*examples, validation_data=wrong)

    def test_wrong_validation_images_are_said_to_be_those(self, examples):
        with pytest.raises(ValueError, match="validation images must have shape"):
            small_model().fit(
                *examples, validation_data=(np.zeros((3, 9, 9)), [0, 1, 2])
            )

    def test_wrong_epochs_are_named(self, examples):
        with pytest.raises(ValueError, match="epochs must be at least 1; got 0"):
            small_model().fit(*examples, epochs=0)

    def test_a_value_deep_in_the_set_is_found(self):
        images = np.zeros((3000, 8, 8), np.float32)
        images[2500, 3, 3] = np.nan
        with pytest.raises(ValueError, match=r"got nan, inf .* in images 2048:3000"):
            small_model().predict(images)

    def test_unscaled_images_draw_a_warning(self, examples):
        with pytest.warns(UserWarning, match="divide by 255"):
            small_model().predict(examples[0] * 255)

    def test_standardised_images_draw_none(self, rng):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            small_model().predict(rng.normal(size=(50, 8, 8)))


class TestFiles:
    @pytest.fixture
    def path(self, tmp_path, examples):
        model = small_model(lr=0.2, momentum=0.5, schedule="one-cycle")
        model.fit(*examples, validation_data=examples, verbose=0)
        model.save(tmp_path / "model.npz")
        self.model = model
        return tmp_path / "model.npz"

    def test_what_load_would_refuse_is_not_saved(self, examples, tmp_path):
        model = small_model()
        model.save(tmp_path / "model.npz")
        model.W_dense = model.W_dense.astype(float)
        with pytest.raises(ValueError, match=r"W_dense must be float32 .* got float64"):
            model.save(tmp_path / "model.npz")
        HandwrittenNumberClassification.load(tmp_path / "model.npz")

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_loaded_model_gives_the_same_bits(self, tmp_path, examples, dtype):
        model = small_model(dtype=dtype).fit(*examples, verbose=0)
        model.save(tmp_path / "any name")
        loaded = HandwrittenNumberClassification.load(str(tmp_path / "any name"))
        assert_array_equal(
            loaded.predict_proba(examples[0]), model.predict_proba(examples[0])
        )
        assert loaded.get_params() == model.get_params()
        assert loaded.history == model.history
        assert_same_parameters(loaded, model.parameters)
        loaded.fit(*examples, verbose=0)
        assert [p.name for p in tmp_path.iterdir()] == ["any name"]

    def test_settings_that_are_numpy_numbers_are_saved(self, tmp_path):
        model = small_model(lr=np.float64(0.5), epochs=np.int64(3))
        model.save(tmp_path / "model.npz")
        loaded = HandwrittenNumberClassification.load(tmp_path / "model.npz")
        assert (loaded.lr, loaded.epochs) == (0.5, 3)

    def test_the_file_needs_no_pickle_and_holds_settings_as_json(self, path):
        with np.load(path, allow_pickle=False) as archive:
            assert set(archive.files) == {
                "format_version",
                "settings",
                "history",
                "training",
                *self.model.parameters,
                *(f"velocity.{name}" for name in self.model.parameters),
            }
            assert json.loads(str(archive["settings"]))["architecture"] == "4C3-MP2-3N"
            assert json.loads(str(archive["format_version"])) == 1

    def test_a_failed_save_leaves_the_old_file_and_nothing_else(
        self, path, monkeypatch
    ):
        before = path.read_bytes()

        def fail(file, **arrays):
            file.write(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(np, "savez", fail)
        with pytest.raises(OSError, match="disk full"):
            self.model.save(path)
        assert path.read_bytes() == before
        assert [p.name for p in path.parent.iterdir()] == ["model.npz"]

    def test_a_missing_folder_is_said_to_be_missing(self, tmp_path):
        path = tmp_path / "none" / "model.npz"
        with pytest.raises(
            FileNotFoundError, match=r"path must lie in a folder .*none"
        ):
            small_model().save(path)

    def test_a_missing_file_is_said_to_be_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            HandwrittenNumberClassification.load(tmp_path / "nothing.npz")

    @pytest.mark.parametrize("content", [b"", b"no model", b"PK\x03\x04", b"\x80\x04."])
    def test_another_file_is_refused(self, tmp_path, content):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"path must be a model file, .*; got .*other"
        ):
            HandwrittenNumberClassification.load(tmp_path / "other")

    def test_a_plain_array_is_refused(self, tmp_path):
        np.save(tmp_path / "array.npy", np.zeros(3))
        with pytest.raises(ValueError, match="path must be a model file"):
            HandwrittenNumberClassification.load(tmp_path / "array.npy")

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
    def test_a_cut_file_is_refused(self, path, share):
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match="path must be a model file"):
            HandwrittenNumberClassification.load(path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format_version": "2"}, "format version 2"),
            ({"settings": "{"}, "path must be"),
            ({"settings": "[]"}, "path must be"),
            ({"settings": None}, "settings"),
            ({"history": None}, "history"),
            ({"history": "3"}, "path must be"),
            ({"history": '{"loss": [1]}'}, "history must have names"),
            (
                {"history": '{"loss": [1], "accuracy": [], "seconds": [1]}'},
                "history must have a number an epoch; not in accuracy",
            ),
            (
                {"history": '{"loss": ["x"], "accuracy": [1], "seconds": [1]}'},
                "history must have a number an epoch; not in loss",
            ),
            (
                {
                    "settings": '{"architecture": "90000N-10N", "dtype": "float32", '
                    '"input_shape": [28, 28, 1]}'
                },
                "at least 71,550,010 numbers",
            ),
            ({"W_dense": None}, "arrays must be .* for 4C3-MP2-3N; got"),
            ({"W_more": np.zeros(3)}, "arrays must be .* for 4C3-MP2-3N; got"),
            (
                {"W_dense": np.zeros((36, 4), np.float32)},
                r"W_dense must be .*\(36, 3\)",
            ),
            ({"B_dense": np.zeros(3)}, "B_dense must be float32.*got float64"),
            ({"B_dense": np.full(3, np.nan, np.float32)}, "B_dense must be finite"),
        ],
    )
    def test_a_changed_file_is_refused_with_the_reason(self, path, change, message):
        with np.load(path) as archive:
            content = dict(archive) | change
        np.savez(path, **{k: v for k, v in content.items() if v is not None})
        with pytest.raises(ValueError, match=message):
            HandwrittenNumberClassification.load(path)

    def test_a_file_from_before_a_setting_was_there_is_read(self, path):
        with np.load(path) as archive:
            content = dict(archive)
        settings = json.loads(str(content["settings"]))
        del settings["label_smoothing"], settings["averaging"]
        np.savez(path, **content | {"settings": json.dumps(settings)})
        model = HandwrittenNumberClassification.load(path)
        assert (model.label_smoothing, model.averaging) == (0, 0)
        assert_array_equal(model.W_dense, content["W_dense"])

    @pytest.mark.parametrize(
        ("setting", "value"),
        [("architecture", "4C3-MP9-3N"), ("lr", -1), ("unknown", 3), ("dtype", "int8")],
    )
    def test_wrong_settings_in_a_file_are_refused(self, path, setting, value):
        with np.load(path) as archive:
            content = dict(archive)
        settings = json.loads(str(content["settings"])) | {setting: value}
        np.savez(path, **content | {"settings": json.dumps(settings)})
        with pytest.raises(ValueError, match=f"path must be a model file.*{setting}"):
            HandwrittenNumberClassification.load(path)

    def test_a_pickled_object_in_a_file_is_never_loaded(self, path):
        with np.load(path) as archive:
            content = dict(archive)
        content["history"] = np.array([{"a": 1}], dtype=object)
        np.savez(path, **content)
        with pytest.raises(ValueError, match=r"numbers or text.*; got object"):
            HandwrittenNumberClassification.load(path)

    def test_pickle_and_copy_carry_no_mask(self, examples):
        model = small_model(momentum=0.9).fit(*examples, verbose=0)
        for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert twin.binary_max_pool is None
            assert_array_equal(twin.predict(examples[0]), model.predict(examples[0]))
        twin = copy.deepcopy(model)
        twin.fit(*examples, verbose=0)
        model.fit(*examples, verbose=0)
        assert_same_parameters(twin, model.parameters)


class TestLookingInside:
    @pytest.mark.parametrize(("architecture", "layer"), [("4C3-3N", 1), ("3N", 1)])
    def test_kernels_that_are_not_there_are_not_drawn(self, architecture, layer):
        model = HandwrittenNumberClassification(architecture, **SMALL)
        with pytest.raises(ValueError, match=r"layer must be below 1, .*; got 1"):
            plot_kernels(model, layer)

    def test_gradients_are_drawn_as_signed_even_if_none_is_negative(self, examples):
        images, labels = examples
        figure = plot_steps(small_model(), 0 * images[0], labels[0])
        for panel in figure.subfigs[1].axes:
            for drawn in panel.images:
                assert drawn.get_cmap().name == "coolwarm"
                assert drawn.norm.vmin == -drawn.norm.vmax

    @pytest.mark.parametrize("plot", [plot_confusion, plot_mistakes])
    def test_wrong_labels_are_drawn_by_no_figure(self, examples, plot):
        images, labels = examples
        for wrong in (labels - 1, labels[:, np.newaxis], labels[:-1], labels + 0.5):
            with pytest.raises((ValueError, TypeError), match="labels must"):
                plot(small_model(), images, wrong)

    def test_images_of_two_channels_are_drawn_in_grey(self, rng):
        model = HandwrittenNumberClassification("3N", input_shape=(8, 8, 2))
        images, labels = rng.random((9, 8, 8, 2)), rng.integers(0, 3, size=9)
        figure = plot_mistakes(model, images, labels)
        assert figure.axes[0].images[0].get_array().shape == (8, 8)
        plot_distortions(model, images)

    def test_the_summary_is_a_table_of_the_layers(self):
        lines = (
            HandwrittenNumberClassification("8C4-MP3s2-16N-10N").summary().splitlines()
        )
        cells = [line.split() for line in lines]
        assert cells[3] == [
            "8C4",
            "convolution",
            "4x4,",
            "ReLU",
            "25x25x8",
            "136",
            "80,000",
        ]
        assert cells[4][0] == "MP3s2"
        assert cells[4][-3:] == ["12x12x8", "0", "0"]
        assert cells[5][-2:] == [f"{16 * (12 * 12 * 8 + 1):,}", f"{16 * 12 * 12 * 8:,}"]
        assert cells[-1] == ["total", "18,754", "98,592"]

    def test_a_notebook_shows_the_same_table(self):
        model = HandwrittenNumberClassification()
        html = model._repr_html_()
        assert html.startswith("<table>")
        for cell in ("8C4", "25x25x8", "82,880"):
            assert f">{cell}<" in html
            assert cell in model.summary()

    def test_the_parameters_of_the_summary_are_those_of_the_arrays(self):
        model = HandwrittenNumberClassification("8C3s2p1-MP2-6C3-20N-10N")
        size = sum(array.size for array in model.parameters.values())
        assert sum(layer.parameters for layer in model.layers) == size

    def test_repr_shows_what_differs_from_the_defaults(self):
        model = HandwrittenNumberClassification("10N", lr=0.5)
        assert repr(model) == "HandwrittenNumberClassification('10N', lr=0.5)"

    @pytest.mark.parametrize(
        "architecture", ["3N", "1C3-3N", "64C3-MP2-5C2-3N", "5N-3N"]
    )
    def test_figures_are_drawn_for_every_architecture(
        self, examples, architecture, tmp_path
    ):
        from matplotlib.figure import Figure

        model = HandwrittenNumberClassification(architecture, **SMALL)
        model.fit(*examples, validation_data=examples, verbose=0)
        for number, draw in enumerate(
            (
                lambda **f: plot_history(model, **f),
                lambda **f: plot_kernels(model, **f),
                lambda **f: plot_confusion(model, *examples, **f),
                lambda **f: plot_mistakes(model, *examples, **f),
                lambda **f: plot_steps(model, examples[0][0], **f),
                lambda **f: plot_steps(model, examples[0][0], label=2, **f),
            )
        ):
            figure = Figure()
            assert draw(figure=figure) is figure
            path = tmp_path / f"{number}.png"
            draw().savefig(path)
            assert path.stat().st_size > 1000

    def test_the_confusion_counts_every_image(self, examples):
        model = small_model()
        panel = plot_confusion(model, *examples).axes[0]
        assert sum(int(text.get_text()) for text in panel.texts) == 50

    def test_the_mistakes_are_the_most_confident_ones(self, examples):
        model = small_model()
        probabilities = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.4, 0.6, 0]])
        images, labels = examples[0][:3], np.array([1, 1, 0])
        figure = plot_mistakes(model, images, labels, probabilities)
        titles = [panel.get_title() for panel in figure.axes if panel.get_title()]
        assert titles == ["seen 0 (90.0%)\ntrue 1", "seen 1 (60.0%)\ntrue 0"]

    def test_the_steps_are_those_of_the_network(self, examples):
        model = HandwrittenNumberClassification("3C3-2C2-MP2-4N-3N", **SMALL)
        before, image = snapshot(model), examples[0][:1]
        with_label = plot_steps(model, image, label=2)
        assert_same_parameters(model, before)
        titles = [panel.get_title() for panel in with_label.axes if panel.get_title()]
        assert [title.partition(". ")[2] for title in titles] == [
            "image",
            "3C3: convolution",
            "bias, ReLU",
            "2C2: convolution",
            "MP2: max pooling",
            "bias, ReLU",
            "4N: dense, as convolution",
            "bias, ReLU",
            "flattened",
            "probabilities",
            "by the flattened",
            "by the input of ReLU",
            "by the kernels of 4N",
            "by the input of 4N",
            "by the input of ReLU",
            "by the input of MP2, unpooled",
            "by the kernels of 2C2",
            "by the input of 2C2",
            "by the input of ReLU",
            "by the kernels of 3C3",
        ]
        bars = [bar.get_width() for bar in with_label.axes[9].patches]
        assert_allclose(bars, model.forward(image)[0])
        kernel = model.compute_gradients(image, [2])[1]["kernels.0"]
        drawn = with_label.subfigs[1].axes[9].images[0].get_array()
        assert_array_equal(drawn[1:4, 1:4], kernel[0, 0])
        alone = plot_steps(model, image[0])
        assert len([p for p in alone.axes if p.get_title()]) == 10

    def test_the_winners_are_marked_where_they_stood(self):
        model = HandwrittenNumberClassification("MP2-3N", input_shape=(4, 4, 1))
        image = np.array([[1, 3, 2, 2], [0, 1, 2, 1], [5, 0, 0, 0], [2, 5, 0, 4.0]])
        panel = plot_steps(model, image).axes[0]
        assert "winners dotted" in panel.get_xlabel()
        marked = {(y, x) for x, y in panel.collections[0].get_offsets().data.tolist()}
        assert marked == {(0, 1), (0, 2), (2, 0), (3, 3)}

    def test_steps_are_drawn_of_a_single_image_only(self, examples):
        model = small_model()
        with pytest.raises(ValueError, match="image must be a single one; got 50"):
            plot_steps(model, examples[0])
        with pytest.raises(ValueError, match=r"label must be in 0\.\.2; got 3"):
            plot_steps(model, examples[0][0], label=3)
        with pytest.raises(ValueError, match=r"image must have shape \(B, 8, 8, 1\)"):
            plot_steps(model, np.zeros((7, 8)))

    def test_an_untrained_model_has_an_empty_history_to_draw(self):
        for panel in plot_history(small_model()).axes:
            assert [text.get_text() for text in panel.texts] == [
                "no epoch is finished yet"
            ]
            assert panel.get_legend() is None


def test_importing_the_module_imports_nothing_but_numpy_and_the_standard_library():
    code = (
        "import sys, numpy; before = set(sys.modules); import handwritten_classifier; "
        "new = {m.split('.')[0] for m in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names) - {'numpy'}))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "['handwritten_classifier']"


class TestWorkSpace:
    def test_each_batch_uses_the_arrays_of_the_one_before(self, examples, monkeypatch):
        take_step, counts = HandwrittenNumberClassification._take_step, []

        def count(self, *arguments):
            take_step(self, *arguments)
            counts.append(len(self._work.arrays))

        monkeypatch.setattr(HandwrittenNumberClassification, "_take_step", count)
        small_model(batch_size=10).partial_fit(*examples)
        assert len(counts) == 5
        assert set(counts) == {counts[0]}

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
        self, rng, architecture, read
    ):
        settings = {"input_shape": (12, 14, 1), "dtype": np.float64}
        model = HandwrittenNumberClassification(architecture, **settings)
        images = rng.random((5, 12, 14, 1))
        assert model._batch(images).shape == (5, *read, 1)
        x, parameters = images, zip(model.kernels, model.biases, strict=True)
        for layer in model.layers[:-1]:
            if layer.kind == "pooling":
                x = model.generate_max_pool(x, layer.window[0], layer.stride)
            else:
                options = (layer.stride, layer.padding)
                x = model.generate_feature_map(x, *next(parameters), *options)
                x = model.relu(x)
        scores = model.generate_flattened_array(x) @ model.W_dense + model.B_dense
        assert_allclose(model.forward(images), model.softmax(scores), rtol=1e-12)

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
        with model._reusing_arrays():
            model._batch(np.zeros((3, 8, 8, 1), np.uint8))
            for shape in ((3, 5), (1,), (1000, 7)):
                for dtype in (np.float32, np.float64, bool):
                    array = model._array(shape, dtype)
                    assert array.ctypes.data % 64 == 0
                    assert (array.shape, array.dtype) == (shape, dtype)
