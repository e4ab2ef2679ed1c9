"""Learning: steps of gradient descent, schedule, mean, epochs, divergence, output."""

import contextlib
import copy
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from helpers.networks import (
    SMALL,
    assert_same_parameters,
    call_in_each_step,
    saved,
    small_model,
    snapshot,
    trained_arrays,
)
from numpy.testing import assert_allclose, assert_array_equal

from handwritten_classifier import HandwrittenNumberClassification

# A few hundred steps in double precision.
EXACT = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture
def batch(examples):
    """Return the images and labels of one batch of the default size."""
    return examples[0][:32], examples[1][:32]


def test_ten_images_are_memorised(digits):
    model = HandwrittenNumberClassification(lr=0.1, batch_size=10, epochs=150)
    images, labels = digits.train_images[:10], digits.train_labels[:10]
    model.fit(images, labels, verbose=0)
    assert_array_equal(model.predict(images), labels)
    assert model.history["loss"][-1] < 0.05


def test_digits_are_learned(digits):
    model = HandwrittenNumberClassification("8C5-MP2-10N", lr=0.1, momentum=0.9)
    model.fit(digits.train_images, digits.train_labels, epochs=10, verbose=0)
    assert model.score(digits.test_images, digits.test_labels) > 0.88


class TestSteps:
    def test_momentum_lives_on_from_batch_to_batch(self, batch):
        model = small_model(momentum=0.5, lr=0.1, dtype=np.float64)
        start = snapshot(model)
        first = model.compute_gradients(*batch)[1]
        model.partial_fit(*batch)
        # By hand: v = -lr g, w += m v - lr g.
        for name, array in model.parameters.items():
            expected = start[name] - 0.1 * 1.5 * first[name]
            assert_allclose(array, expected, **EXACT)
        between = snapshot(model)
        second = model.compute_gradients(*batch)[1]
        model.partial_fit(*batch)
        for name, array in model.parameters.items():
            velocity = 0.5 * -0.1 * first[name] - 0.1 * second[name]
            expected = between[name] + 0.5 * velocity - 0.1 * second[name]
            assert_allclose(array, expected, **EXACT)

    def test_without_momentum_the_velocity_is_the_last_step(self, examples):
        model = small_model(momentum=0.9, batch_size=50, dtype=float)
        model.partial_fit(*examples)
        model.set_params(momentum=0.0)
        before = snapshot(model)
        model.partial_fit(*examples)
        content = saved(model)
        for name, array in model.parameters.items():
            velocity, taken = content[f"velocity.{name}"], array - before[name]
            assert_allclose(velocity, taken, atol=1e-12, err_msg=name)

    def test_weight_decay_pulls_at_weights_and_not_at_biases(self, batch):
        plain, decayed = (
            small_model(weight_decay=decay, lr=0.1, dtype=np.float64)
            for decay in (0, 0.3)
        )
        for model in (plain, decayed):
            model.biases[0][...], model.B_dense[...] = 0.5, 0.5
            start = snapshot(model)
            model.partial_fit(*batch)
        for name, array in decayed.parameters.items():
            pull = 0.0 if name in ("biases.0", "B_dense") else 0.1 * 0.3 * start[name]
            expected = plain.parameters[name] - pull
            assert_allclose(array, expected, **EXACT)

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


class TestSchedule:
    def rates(self, monkeypatch, model, examples, epochs):
        """Return the learning rate of each step, by what it did to the last biases."""
        biases, gradients = [], []

        def note(model, number, flattened, probabilities, labels):
            biases.append(model.B_dense.copy())
            gradients.append((probabilities - np.eye(3)[labels]).mean(axis=0))

        call_in_each_step(monkeypatch, "backprop_decision_making", note)
        model.fit(*examples, epochs, verbose=0)
        steps = -np.diff([*biases, model.B_dense], axis=0)
        return np.sum(steps * gradients, axis=1) / np.square(gradients).sum(axis=1)

    @pytest.mark.parametrize("steps", [1, 2, 10, 100])
    def test_one_cycle_goes_up_for_three_tenths_then_down(
        self, examples, monkeypatch, steps
    ):
        model = small_model(schedule="one-cycle", lr=0.2, batch_size=50, dtype=float)
        rates = self.rates(monkeypatch, model, examples, steps)
        assert (rates > 0).all()
        assert (rates <= 0.2 + 1e-9).all()
        done = np.arange(1, steps + 1) / (steps + 1)
        assert_allclose(rates, np.interp(done, [0, 0.3, 1], [0, 0.2, 0]), rtol=1e-9)

    def test_one_cycle_is_what_training_follows(self, batch):
        model = small_model(schedule="one-cycle", lr=0.1, dtype=np.float64)
        start, (_, gradients) = snapshot(model), model.compute_gradients(*batch)
        model.fit(*batch, verbose=0)  # One step, half way: 0.5 / 0.7 of the peak.
        for name, array in model.parameters.items():
            expected = start[name] - 0.1 * 0.5 / 0.7 * gradients[name]
            assert_allclose(array, expected, **EXACT)

    def test_the_cycle_is_one_over_the_steps_of_all_epochs(self, examples, monkeypatch):
        settings = {"schedule": "one-cycle", "lr": 0.1, "dtype": float}
        model = small_model(batch_size=16, **settings)
        rates = self.rates(monkeypatch, model, examples, epochs=2)
        done = np.arange(1, 9) / 9  # 50 = 3 * 16 + 2: 4 steps an epoch
        assert_allclose(rates, np.interp(done, [0, 0.3, 1], [0, 0.1, 0]), rtol=1e-9)


class TestAveraging:
    def passed(self, monkeypatch, examples, epochs, **settings):
        """Return the parameters after each step of a training without averaging."""
        before, model = [], small_model(**settings)
        with monkeypatch.context() as patch:
            call_in_each_step(
                patch, "softmax", lambda model, *_: before.append(snapshot(model))
            )
            model.fit(*examples, epochs, verbose=0)
        return [*before[1:], snapshot(model)]

    @pytest.mark.parametrize(
        ("averaging", "steps", "count"),
        [
            (0.25, 10, 3),  # the last 2.5 steps
            (0.07, 100, 7),
            (0.14, 100, 14),
            (0.29, 100, 29),
            (0.55, 100, 55),
            (0.58, 100, 58),
            (0.9, 100, 90),
        ],
    )
    def test_what_remains_is_the_mean_over_a_share_of_the_steps(
        self, examples, monkeypatch, averaging, steps, count
    ):
        settings = {"lr": 0.1, "batch_size": 50, "dtype": float}
        passed = self.passed(monkeypatch, examples, steps, **settings)
        assert len(passed) == steps
        model = small_model(averaging=averaging, **settings)
        model.fit(*examples, steps, verbose=0)
        for name, array in model.parameters.items():
            expected = np.mean([step[name] for step in passed[-count:]], axis=0)
            assert_allclose(array, expected, **EXACT, err_msg=name)

    def test_by_hand(self, examples, monkeypatch):
        settings = {"batch_size": 10, "lr": 0.1, "dtype": np.float64}
        passed = self.passed(monkeypatch, examples, 2, **settings)
        model = small_model(averaging=0.3, **settings)
        model.fit(*examples, epochs=2, validation_data=examples, verbose=0)
        # The last 3 of 10 steps, of which the first two are no mean of anything.
        assert len(passed) == 10
        for name, array in model.parameters.items():
            expected = (passed[7][name] + passed[8][name] + passed[9][name]) / 3
            assert_allclose(array, expected, rtol=1e-12, atol=1e-15)
            assert np.abs(array - passed[9][name]).max() > 0
        # The last validation is of what is left, not of the last step.
        assert model.history["val_loss"][-1] == model.evaluate(*examples)[0]

    def test_it_changes_no_step(self, examples):
        plain = small_model(lr=0.1).fit(*examples, epochs=3, verbose=0)
        averaged = small_model(lr=0.1, averaging=0.5)
        averaged.fit(*examples, epochs=3, verbose=0)
        assert averaged.history["loss"] == plain.history["loss"]

    def test_one_step_is_its_own_mean(self, examples):
        plain = small_model().partial_fit(*examples)
        averaged = small_model(averaging=0.01, batch_size=50).partial_fit(*examples)
        expected = small_model(batch_size=50).partial_fit(*examples)
        assert_same_parameters(averaged, expected.parameters)
        assert np.abs(plain.W_dense - averaged.W_dense).max() > 0  # two steps


class TestEpochs:
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

    def test_every_image_counts_once_the_last_short_batch_too(self, examples):
        # 50 = 3 * 16 + 2
        model = small_model(batch_size=16, lr=1e-12, dtype=np.float64)
        loss, accuracy = model.evaluate(*examples)
        model.fit(*examples, verbose=0)
        assert model.history["loss"][0] == pytest.approx(loss, rel=1e-9)
        assert model.history["accuracy"][0] == accuracy

    def test_images_are_shuffled_every_epoch(self, examples, monkeypatch):
        seen = []
        call_in_each_step(
            monkeypatch,
            "generate_flattened_array",  # of "3N", the first step
            lambda model, number, images: seen.append(images[:, 0, 0, 0].copy()),
        )
        model = HandwrittenNumberClassification("3N", dtype=np.float64, **SMALL)
        model.fit(*examples, epochs=2, verbose=0)
        first, second = np.concatenate(seen[:2]), np.concatenate(seen[2:])
        corner = examples[0][:, 0, 0]
        assert_array_equal(np.sort(first), np.sort(corner))
        assert_array_equal(np.sort(second), np.sort(corner))
        assert not np.array_equal(first, corner)
        assert not np.array_equal(first, second)

    def test_what_is_not_distorted_draws_no_random_numbers(self, examples):
        rng = np.random.default_rng(0)
        for array in small_model().parameters.values():
            if array.ndim > 1:
                rng.normal(size=array.shape)
        rng.permutation(50)
        trained = small_model().fit(*examples, verbose=0)
        assert saved(trained)["training"]["generator"] == rng.bit_generator.state

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

    def test_two_models_share_no_state(self, examples):
        one, other = small_model(momentum=0.9), small_model(momentum=0.9)
        untouched = trained_arrays(other)
        one.fit(*examples, verbose=0)
        for name, array in trained_arrays(other).items():
            assert_array_equal(array, untouched[name], err_msg=name)
        assert other.history["loss"] == []
        arrays = [*one.parameters.values(), *other.parameters.values()]
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

    def test_an_interrupted_training_keeps_what_was_learned(
        self, examples, monkeypatch
    ):
        def interrupt(model, number, *_):
            if number == 6:
                raise KeyboardInterrupt

        call_in_each_step(monkeypatch, "backprop_decision_making", interrupt)
        model = small_model(batch_size=10)
        before = snapshot(model)
        with pytest.raises(KeyboardInterrupt):
            model.fit(*examples, epochs=2, verbose=0)
        assert len(model.history["loss"]) == 1
        assert not np.array_equal(model.W_dense, before["W_dense"])
        assert model.predict(examples[0]).shape == (50,)


class TestDivergence:
    def test_it_is_told_and_the_epoch_is_taken_back(self, examples):
        model = HandwrittenNumberClassification("3N", momentum=0.9, **SMALL)
        model.fit(*examples, verbose=0)
        before, history = trained_arrays(model), copy.deepcopy(model.history)
        model.set_params(lr=1e39)
        with pytest.raises(FloatingPointError, match=r"lr must be small enough .* 1e"):
            model.fit(*examples, verbose=0)
        for name, array in trained_arrays(model).items():
            assert_array_equal(array, before[name], err_msg=name)
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
    def test_it_names_step_and_rate_and_keeps_the_last_good_epoch(
        self, examples, monkeypatch, name, value, got
    ):
        good = {}

        def diverge(model, number, *_):
            if number == 6:  # the first step of the second epoch
                good.update(trained_arrays(model))
            elif number == 8:
                model.parameters[name][...] = value

        call_in_each_step(monkeypatch, "generate_patches", diverge)
        settings = {"momentum": 0.5, "schedule": "one-cycle", "averaging": 0.9}
        model = small_model(batch_size=10, **settings)
        # Half way through 15 steps, the rate is 0.5 / 0.7 of its peak.
        rate = f"{0.01 * 0.5 / 0.7:g}"
        where = f"got {got} in step 3 of epoch 2, at a learning rate of {rate}: try"
        with pytest.raises(FloatingPointError, match=where):
            model.fit(*examples, epochs=3, verbose=0)
        assert len(model.history["loss"]) == 1
        for name, array in trained_arrays(model).items():
            assert_array_equal(array, good[name], err_msg=name)
        model.fit(*examples, epochs=3, verbose=0)
        assert len(model.history["loss"]) == 4


class TestDivergenceInTheLastStep:
    def test_it_is_seen_where_there_are_validation_data(self, examples, tmp_path):
        model = HandwrittenNumberClassification(
            "4C5-4N-3N", lr=1e25, batch_size=50, **SMALL
        )
        before, path = snapshot(model), tmp_path / "checkpoint.npz"
        options = {"validation_data": examples, "checkpoint": path, "verbose": 0}
        with pytest.raises(FloatingPointError, match="lr must be small enough"):
            model.fit(*examples, **options)
        assert_same_parameters(model, before)
        HandwrittenNumberClassification.load(path)


class TestStuck:
    def test_a_layer_of_dead_relus_draws_one_warning_that_names_it(self, examples):
        model = HandwrittenNumberClassification("4C3-5C3-MP2-3N", **SMALL)
        model.biases[1][...] = -100
        with pytest.warns(UserWarning, match="5C3 should have living ReLUs") as drawn:
            model.fit(*examples, epochs=3, verbose=0)
        assert len(drawn) == 1
        assert drawn[0].filename == __file__

    def test_a_layer_that_lives_in_one_batch_draws_none(self, examples, monkeypatch):
        def darken(model, number, images, *options):
            first_of_epoch = number % 5 == 1
            return (images - 100 * (not first_of_epoch), *options)

        call_in_each_step(monkeypatch, "generate_patches", darken)
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
        model = small_model(lr=1e-9, batch_size=100)
        model.fit(images, labels, epochs=9, verbose=0)
        message = r"accuracy should be above chance; got 3\d\.\d%.* has 33\.4%: try"
        with pytest.warns(UserWarning, match=message) as drawn:
            model.fit(images, labels, epochs=12, verbose=0)
        assert len(drawn) == 1

    def test_a_single_label_needs_no_guessing(self):
        images, labels = np.ones((1000, 8, 8)), np.zeros(1000, int)
        model = small_model(batch_size=100).fit(images, labels, epochs=10, verbose=0)
        assert model.history["accuracy"][-1] == 1


class TestOutput:
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


class TestCallback:
    def test_it_is_called_after_every_step_with_its_loss(self, examples):
        seen = []
        model = small_model(batch_size=20)
        model.fit(
            *examples, epochs=2, verbose=0, callback=lambda *seen_: seen.append(seen_)
        )
        assert [step for _, step, _ in seen] == [1, 2, 3, 4, 5, 6]  # 20, 20, 10 images
        assert all(given is model for given, _, _ in seen)
        losses = [loss for *_, loss in seen]
        mean = np.average(losses[3:], weights=[20, 20, 10])
        assert model.history["loss"][1] == pytest.approx(mean)

    def test_the_model_it_sees_has_taken_the_step(self, examples):
        passed = []
        model = small_model(batch_size=25)
        model.fit(
            *examples, verbose=0, callback=lambda m, *_: passed.append(snapshot(m))
        )
        assert np.abs(passed[0]["W_dense"] - passed[1]["W_dense"]).max() > 0
        assert_same_parameters(model, passed[1])

    def test_it_changes_no_bit_even_if_it_evaluates(self, examples):
        expected = small_model(batch_size=16, augment=1.0).fit(*examples, verbose=0)
        model = small_model(batch_size=16, augment=1.0)
        model.fit(*examples, verbose=0, callback=lambda m, *_: m.score(*examples) > 9)
        assert_same_parameters(model, expected.parameters)

    def test_true_ends_the_training_with_a_short_epoch(self, examples, tmp_path):
        path = tmp_path / "checkpoint.npz"
        model = small_model(batch_size=10)
        options = {"validation_data": examples, "checkpoint": path, "verbose": 0}
        model.fit(*examples, epochs=4, callback=lambda m, step, _: step == 7, **options)
        assert len(model.history["loss"]) == len(model.history["val_loss"]) == 2
        expected = small_model(batch_size=10)
        seen = []

        def note(model, step, loss):
            seen.append(snapshot(model))

        expected.fit(*examples, epochs=4, verbose=0, callback=note)
        assert_same_parameters(model, seen[6])
        assert_same_parameters(
            HandwrittenNumberClassification.load(path), model.parameters
        )

    def test_after_that_another_fit_trains_anew(self, examples):
        model = small_model(batch_size=10)
        model.fit(*examples, epochs=3, verbose=0, callback=lambda *_: True)
        steps = []
        model.fit(*examples, verbose=0, callback=lambda m, step, _: steps.append(step))
        assert steps == [1, 2, 3, 4, 5]

    def test_an_early_end_leaves_the_mean_of_what_was_averaged(self, examples):
        model, seen = small_model(batch_size=10, averaging=0.9), []

        def stop(model, step, loss):
            seen.append(snapshot(model)["W_dense"])
            return step == 3

        model.fit(*examples, verbose=0, callback=stop)
        assert_allclose(model.W_dense, np.mean(seen, axis=0), rtol=1e-5, atol=1e-7)

    def test_its_error_leaves_a_training_that_goes_on(self, examples):
        def fail(model, step, loss):
            if step == 3:
                raise RuntimeError("my plot")

        model = small_model(batch_size=10)
        with pytest.raises(RuntimeError, match="my plot"):
            model.fit(*examples, epochs=2, verbose=0, callback=fail)
        model.fit(*examples, epochs=2, verbose=0)
        expected = small_model(batch_size=10).fit(*examples, epochs=2, verbose=0)
        assert_same_parameters(model, expected.parameters)

    def test_the_rate_is_that_of_the_step(self, examples):
        rates = []
        model = small_model(batch_size=10, schedule="one-cycle", lr=0.2)
        model.fit(*examples, verbose=0, callback=lambda m, *_: rates.append(m.rate))
        done = np.arange(1, 6) / 6
        expected = 0.2 * np.minimum(done / 0.3, (1 - done) / 0.7)
        assert_allclose(rates, expected)


class TestCallbackThatChangesThings:
    def test_what_a_step_returns_to_it_is_its_own(self, examples):
        images, maps, expected = examples[0][:5, ..., np.newaxis], [], []

        def look(model, *_):
            maps.append(model.generate_feature_map(images, model.kernels[0]))
            expected.append(maps[-1].copy())
            with pytest.raises(ValueError, match="images must have axes"):
                model.generate_feature_map(images[0], model.kernels[0])

        small_model(batch_size=10).fit(*examples, verbose=0, callback=look)
        assert len(maps) > 2
        assert_array_equal(maps, expected)

    def test_a_rate_counts_from_the_next_step_on(self, examples):
        rates = []

        def halve(model, step, loss):
            rates.append(model.rate)
            model.lr /= 2
            model.evaluate(*examples)

        model = small_model(batch_size=10, lr=0.1)
        model.fit(
            *examples, epochs=2, verbose=0, validation_data=examples, callback=halve
        )
        assert_allclose(rates, 0.1 / 2.0 ** np.arange(10))
        assert len(model.history["loss"]) == 2

    def test_a_rate_alone_keeps_the_run(self, examples, tmp_path):
        path = tmp_path / "model.npz"

        def decay(model, step, loss):
            model.lr *= 0.9

        model = small_model(batch_size=10, lr=0.1)
        model.fit(
            *examples,
            epochs=2,
            verbose=0,
            validation_data=examples,
            checkpoint=path,
            callback=decay,
        )
        assert len(model.history["val_loss"]) == 2
        loaded = HandwrittenNumberClassification.load(path)
        assert loaded.lr == model.lr == pytest.approx(0.1 * 0.9**10)

    def test_an_assigned_network_is_refused_too(self, examples):
        model = small_model(batch_size=10)

        def change(model, step, loss):
            model.architecture = "3N"

        with pytest.raises(
            ValueError, match="callback must leave the network as it is"
        ):
            model.fit(*examples, verbose=0, callback=change)

    @pytest.mark.parametrize("setting", [{"architecture": "3N"}, {"seed": 5}])
    def test_another_network_is_refused(self, examples, setting):
        model = small_model(batch_size=10)

        def change(model, step, loss):
            model.set_params(**setting)

        with pytest.raises(
            ValueError, match="callback must leave the network as it is"
        ):
            model.fit(*examples, verbose=0, callback=change)
        assert model.fit(*examples, verbose=0).history["loss"]

    @pytest.mark.parametrize("answer", ["no", 1, np.ones(2), object()])
    def test_only_true_ends_the_training(self, examples, answer):
        steps = []

        def answer_so(model, step, loss):
            steps.append(step)
            return answer

        small_model(batch_size=10).fit(*examples, verbose=0, callback=answer_so)
        assert steps == [1, 2, 3, 4, 5]

    def test_numpys_true_is_true(self, examples):
        steps = []

        def stop(model, step, loss):
            steps.append(step)
            return np.float64(loss) > 0

        small_model(batch_size=10).fit(*examples, verbose=0, callback=stop)
        assert steps == [1]

    def test_what_cannot_be_called_is_refused_before_the_first_step(self, examples):
        model = small_model()
        before = snapshot(model)
        with pytest.raises(TypeError, match="callback must be callable; got 5"):
            model.fit(*examples, epochs=2, verbose=0, callback=5)
        assert_same_parameters(model, before)
        model.fit(*examples, verbose=0)
        untouched = small_model().fit(*examples, verbose=0)
        assert_same_parameters(model, snapshot(untouched))


class TestWhatBegins:
    """The first line says whether a training goes on, and from where."""

    def first_line(self, capsys):
        return capsys.readouterr().out.splitlines()[0]

    def test_a_first_training_needs_no_words(self, examples, capsys):
        small_model().fit(*examples)
        assert self.first_line(capsys).startswith("epoch 1/1")

    def test_a_second_one_trains_on(self, examples, capsys, tmp_path):
        path = tmp_path / "model.npz"
        small_model().fit(*examples, epochs=3, verbose=0, checkpoint=path)
        model = HandwrittenNumberClassification.load(path).fit(*examples, epochs=2)
        assert self.first_line(capsys) == (
            "training 2 more epochs, on from 3 that are finished"
        )
        assert len(model.history["loss"]) == 5

    @pytest.mark.parametrize(
        ("epochs", "line"),
        [
            (4, "going on in epoch 3 of 4"),
            (6, "training 6 more epochs, on from 2 that are finished"),
        ],
    )
    def test_an_interrupted_one_goes_on_or_not(self, examples, capsys, epochs, line):
        def interrupt(model, step, loss):
            if step == 13:
                raise KeyboardInterrupt

        model = small_model(batch_size=10)
        with pytest.raises(KeyboardInterrupt):
            model.fit(*examples, epochs=4, verbose=0, callback=interrupt)
        model.fit(*examples, epochs=epochs)
        assert self.first_line(capsys) == line
        assert len(model.history["loss"]) == (4 if epochs == 4 else 8)


class TestVerbose:
    @pytest.mark.parametrize("given", [None, 0, 1])
    @pytest.mark.parametrize("setting", [0, 1, True, False])
    def test_it_is_a_setting_that_an_argument_overrules(
        self, examples, capsys, setting, given
    ):
        small_model(verbose=setting).fit(*examples, verbose=given)
        shown = setting if given is None else given
        assert bool(capsys.readouterr().out) == bool(shown)

    def test_to_change_it_interrupts_no_training(self, examples):
        def interrupt(model, step, loss):
            if step == 3:
                raise KeyboardInterrupt

        model = small_model(batch_size=10)
        with pytest.raises(KeyboardInterrupt):
            model.fit(*examples, verbose=0, callback=interrupt)
        model.verbose, steps = 0, []
        model.fit(*examples, callback=lambda m, step, _: steps.append(step))
        assert steps == [4, 5]
