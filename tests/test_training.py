"""Training for the page: the bits of `fit`, whatever is asked of it on the way."""

import http.client
import io
import json
import math
import re
import signal
import sys
import time

import numpy as np
import pytest
from helpers.memory import anonymous_memory
from helpers.page import read_frame, running, serving
from numpy.testing import assert_array_equal
from PIL import Image

from digits.mnist import Split, split_training
from digits.own import OwnDigits
from digits.page.frames import Frames
from digits.page.requests import Request, encode_image
from digits.page.training import MOST_WORK, Network, Trainer
from digits.page.watching import Curve, Thinned, find_trouble
from handwritten_classifier import HandwrittenNumberClassification

SETUP = {"architecture": "4C5-MP4-10N", "lr": 0.1, "momentum": 0.9, "epochs": 2}
LIVELY = {"augment": 0.5, "averaging": 0.4, "schedule": "one-cycle"}
BLOWN_UP = {"lr": 10.0, "weight_decay": 0.5, "epochs": 30}  # weights grow fivefold


@pytest.fixture(scope="module")
def split(digits):
    """Return 320 images to learn from, and 100 held out."""
    images, labels, held_out = split_training(digits)
    return Split(images[:320], labels[:320], tuple(a[:100] for a in held_out))


@pytest.fixture
def trainer(split, digits, tmp_path):
    tests = digits.test_images, digits.test_labels
    trainer = Trainer(split, tests, [], OwnDigits(tmp_path / "own.npz"))
    yield trainer
    trainer.close()


def start(trainer, *setups, **changes):
    return trainer.obey({"do": "start", "setups": list(setups) or [SETUP | changes]})


def finish(trainer, order="run", **fields):
    """Give an order, wait until nothing goes on, and return the runs."""
    trainer.obey({"do": order, **fields})
    return settle(trainer)


def settle(trainer):
    patience = time.monotonic() + 30
    while trainer.is_running or not all(map(is_looked_at, trainer.runs)):
        assert time.monotonic() < patience
        time.sleep(0.01)
    return trainer.describe()["runs"]


def is_looked_at(run):
    last, whole = run.progress.last, run.progress.whole
    seen = [look and look["step"] == run.progress.step for look in (last, whole)]
    return run.state == "failed" or (seen[0] and (seen[1] or not run.progress.step))


def parameters(trainer, run=0):
    return trainer.runs[run].network.parameters


def assert_same(found, expected):
    for name, array in expected.items():
        assert_array_equal(found[name], array, name)


class TestBits:
    @pytest.mark.parametrize("settings", [{}, LIVELY])
    def test_they_are_those_of_fit_whatever_was_watched(self, trainer, split, settings):
        start(trainer, **settings)
        for order in ({"order": "steps", "count": 3}, {"order": "epoch"}):
            finish(trainer, **order)
        (run,) = finish(trainer)
        model = HandwrittenNumberClassification(**SETUP | settings, verbose=0)
        model.fit(split.images, split.labels)
        assert run["state"] == "finished"
        assert run["step"] == 20
        assert_same(parameters(trainer), model.parameters)
        assert_same(trainer.find(0, None)[0].parameters, model.parameters)
        loss, accuracy = model.evaluate(*split.held_out)
        assert run["last"]["held_out"] == [loss, accuracy]

    def test_a_rate_that_is_changed_counts_from_the_next_step(self, trainer, split):
        start(trainer)
        finish(trainer, "steps", count=4)
        order = {"do": "set", "settings": {"lr": 0.01, "weight_decay": 0.1}}
        trainer.obey(order)
        (run,) = finish(trainer)
        rates = [rate for _, _, rate in run["points"]]
        assert rates == [0.1] * 4 + [0.01] * 16

        def change(model, step, _):
            if step == 4:
                model.set_params(lr=0.01, weight_decay=0.1)

        model = HandwrittenNumberClassification(**SETUP, verbose=0)
        model.fit(split.images, split.labels, callback=change)
        assert_same(parameters(trainer), model.parameters)

    def test_it_can_begin_with_a_model(self, trainer, split):
        model = HandwrittenNumberClassification(**SETUP, verbose=0)
        model.fit(split.images, split.labels)
        trainer.models.append(model)
        setup = {"lr": 0.01, "start": 0, "limit": 64}
        start(trainer, setup)
        assert trainer.runs[0].network.architecture == "4C5-MP4-10N"
        assert_same(trainer.find(0, 0)[0].parameters, model.parameters)
        before = {name: array.copy() for name, array in model.parameters.items()}
        finish(trainer)
        assert_same(model.parameters, before)  # It is another network.
        assert not np.array_equal(parameters(trainer)["B_dense"], before["B_dense"])


class TestSteps:
    def test_it_halts_where_it_is_told(self, trainer):
        (run,) = start(trainer)["runs"]
        assert (run["step"], run["snapshots"], run["points"]) == (0, [0], [])
        assert finish(trainer, "steps", count=1)[0]["step"] == 1
        assert finish(trainer, "steps", count=5)[0]["step"] == 6
        assert finish(trainer, "epoch")[0]["step"] == 10
        (run,) = finish(trainer, "epoch")
        assert (run["step"], run["state"]) == (20, "finished")
        assert [point[0] for point in run["points"]] == list(range(1, 21))
        assert run["snapshots"] == list(range(21))

    def test_steps_that_are_asked_for_at_once_are_all_taken(self, trainer):
        start(trainer)
        for _ in range(3):
            trainer.obey({"do": "steps", "count": 2})
        (run,) = settle(trainer)
        assert run["step"] == 6

    def test_pause_halts_it_and_evaluates_all_that_is_held_out(self, trainer, split):
        start(trainer, epochs=100)
        trainer.obey({"do": "run"})
        while trainer.step < 3:
            time.sleep(0.005)
        (run,) = finish(trainer, "pause")
        step = run["step"]
        time.sleep(0.1)
        (run,) = trainer.describe()["runs"]
        assert run["step"] == step < 1000
        loss, accuracy = trainer.runs[0].network.evaluate(*split.held_out)
        whole = {"step": step, "images": 100, "loss": pytest.approx(loss)}
        assert run["whole"] == whole | {"accuracy": pytest.approx(accuracy)}

    def test_the_next_run_goes_on_for_as_many_epochs(self, trainer):
        start(trainer)
        finish(trainer)
        (run,) = finish(trainer)
        assert (run["step"], run["state"]) == (40, "finished")

    def test_it_halts_by_a_rule(self, trainer):
        start(trainer, epochs=50, stop_at=0.5)
        (run,) = finish(trainer)
        assert run["last"]["held_out"][1] >= 0.5
        assert run["step"] < 500
        assert "halted at" in run["message"]

    def test_one_training_at_a_time(self, trainer):
        start(trainer, epochs=100)
        trainer.obey({"do": "run"})
        with pytest.raises(ValueError, match="one training is possible at a time"):
            start(trainer)
        finish(trainer, "pause")
        (run,) = start(trainer)["runs"]
        assert run["step"] == 0

    def test_what_is_newer_is_told(self, trainer):
        start(trainer)
        (before,) = finish(trainer, "steps", count=6)
        finish(trainer, "steps", count=3)
        told = trainer.describe((before["generation"],), (6,))["runs"][0]
        assert [point[0] for point in told["points"]] == [6, 7, 8, 9]
        assert "looks_at" not in told
        told = trainer.describe((before["generation"] + 1,), (6,))["runs"][0]
        assert [point[0] for point in told["points"]] == list(range(1, 10))

    def test_it_stands_still_while_somebody_draws(self, trainer, monkeypatch):
        monkeypatch.setattr("digits.page.training.GIVEN_WAY", 2)
        start(trainer, epochs=200)
        trainer.obey({"do": "run"})
        while trainer.step < 3:
            time.sleep(0.005)
        trainer.give_way()
        time.sleep(0.5)
        step = trainer.step
        time.sleep(0.5)
        assert trainer.step == step
        while trainer.step == step:  # It goes on by itself.
            time.sleep(0.01)


class TestBack:
    def test_a_network_is_what_it_was_and_goes_on(self, trainer):
        start(trainer)
        finish(trainer, "steps", count=4)
        four = {name: array.copy() for name, array in parameters(trainer).items()}
        finish(trainer, "steps", count=5)
        trainer.obey({"do": "back", "step": 4})
        (run,) = trainer.describe()["runs"]
        assert (run["step"], run["snapshots"]) == (4, [0, 1, 2, 3, 4])
        assert [point[0] for point in run["points"]] == [1, 2, 3, 4]
        assert_same(parameters(trainer), four)
        (run,) = finish(trainer, "steps", count=1)
        assert run["step"] == 5
        with pytest.raises(ValueError, match=r"in 0\.\.5, if it is still kept; got 9"):
            trainer.obey({"do": "back", "step": 9})

    def test_with_another_rate_it_goes_another_way(self, trainer):
        start(trainer)
        finish(trainer, "steps", count=9)
        nine = parameters(trainer)["W_dense"].copy()
        trainer.obey({"do": "back", "step": 8})
        trainer.obey({"do": "set", "settings": {"lr": 0.001}})
        finish(trainer, "steps", count=1)
        assert not np.array_equal(parameters(trainer)["W_dense"], nine)

    def test_after_its_end_it_goes_on_from_there(self, trainer):
        start(trainer)
        finish(trainer)
        trainer.obey({"do": "back", "step": 10})
        (run,) = finish(trainer)
        assert (run["step"], run["state"]) == (20, "finished")

    def test_a_running_training_halts_for_it(self, trainer):
        start(trainer, epochs=100)
        trainer.obey({"do": "run"})
        while trainer.step < 5:
            time.sleep(0.005)
        (run,) = trainer.obey({"do": "back", "step": 3})["runs"]
        assert run["step"] == 3
        assert settle(trainer)[0]["step"] == 3


class TestRace:
    def test_both_keep_step_and_see_the_same_batches(self, trainer):
        trainer.obey({"do": "start", "setups": [SETUP, SETUP | {"epochs": 3}]})
        for count in (1, 6):
            runs = finish(trainer, "steps", count=count)
            assert runs[0]["step"] == runs[1]["step"]
        assert_same(parameters(trainer, 0), parameters(trainer, 1))
        runs = finish(trainer)
        assert [run["step"] for run in runs] == [20, 30]

    def test_they_differ_by_their_rates(self, trainer):
        trainer.obey({"do": "start", "setups": [SETUP, SETUP | {"lr": 0.01}]})
        first, second = finish(trainer, "steps", count=5)
        assert first["points"][0][1] == second["points"][0][1]
        assert first["points"][4][1] != second["points"][4][1]

    def test_one_that_fails_does_not_hold_up_the_other(self, trainer):
        trainer.obey({"do": "start", "setups": [SETUP | BLOWN_UP, SETUP]})
        first, second = finish(trainer)
        assert (first["state"], second["state"]) == ("failed", "finished")


class TestTrouble:
    def test_it_is_named_and_left_by_going_back(self, trainer):
        start(trainer, **BLOWN_UP)
        (run,) = finish(trainer)
        assert run["state"] == "failed"
        assert "lr must be small enough for training to converge" in run["message"]
        assert_same(parameters(trainer), trainer.find(0, run["step"])[0].parameters)
        trainer.obey({"do": "back", "step": run["best"]})
        changed = {"lr": 0.05, "weight_decay": 0.0}
        trainer.obey({"do": "set", "settings": changed})
        (run,) = finish(trainer, "steps", count=20)
        assert run["state"] == "training"
        assert run["last"]["training"][0] < math.log(10)

    def test_the_step_that_overflows_is_named(self, trainer):
        setup = {"architecture": "8C3-8C3-MP2-10N", "lr": 1e18, "epochs": 5}
        start(trainer, setup)
        (run,) = finish(trainer)
        assert run["state"] == "failed"
        assert re.search("; the first result that overflows: scores$", run["message"])

    @pytest.mark.parametrize(
        ("setup", "words"),
        [
            ({"architecture": "8C5-MP3-16C5-10N", "lr": 3.0}, "all ReLUs of .* dead"),
            (
                {"architecture": "MP7-10N", "lr": 50.0, "momentum": 0.9},
                "the loss is .*; guessing has 2.30: the rate is too high",
            ),
            (
                {"architecture": "16C5-MP3-64C5-10N", "lr": 0.05, "momentum": 0.9}
                | {"limit": 60, "batch_size": 20},
                "it memorises: 100.0% of the training images",
            ),
        ],
    )
    def test_what_goes_wrong_is_said(self, trainer, setup, words):
        start(trainer, setup | {"epochs": 40})
        (run,) = finish(trainer, "steps", count=25)
        assert re.search(words, run["trouble"]), run["trouble"]
        # What is known by heart is so at any step.
        assert (run["best"] is None) == ("memorises" in words)

    @pytest.mark.parametrize(
        ("loss", "accuracy", "words"),
        [(2.3, 0.1, "still guesses"), (None, 0.1, "the loss is infinite")],
    )
    def test_guessing_and_infinity_are_said(self, trainer, loss, accuracy, words):
        start(trainer)
        last = {"step": 300, "dead": {"0:4C5": []}, "held_out": None}
        progress = trainer.runs[0].progress
        settle(trainer)
        progress.last = last | {"training": [loss, accuracy]}
        assert words in find_trouble(progress)[0]

    def test_of_a_good_training_nothing_is_said(self, trainer):
        start(trainer, epochs=20)
        (run,) = finish(trainer)
        assert run["trouble"] is None
        assert run["best"] == 200


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"architecture": "8C5"}, "end in a dense layer"),
            ({"architecture": "8X5-10N"}, "join layers like"),
            ({"architecture": 5}, "architecture must be a str"),
            ({"architecture": "64C5-500N-10N"}, "at most 2,000,000 weights"),
            ({"architecture": "800C3-10N"}, "at most 2,000,000 weights or numbers"),
            (
                {"architecture": "120C5-120C5-MP2-10N"},
                f"at most {MOST_WORK:,} multiply-adds",
            ),
            ({"lr": 0}, "lr must be a finite number above 0"),
            ({"lr": "fast"}, "lr must be"),
            ({"lr": math.nan}, "lr must be"),
            ({"batch_size": 0}, "batch_size must be in 1..1000; got 0"),
            ({"batch_size": 10**6}, "batch_size must be in 1..1000; got 1000000"),
            ({"batch_size": 2.5}, "batch_size must be in 1..1000; got 2.5"),
            ({"epochs": 201}, "epochs must be in 1..200; got 201"),
            ({"epochs": True}, "epochs must be in 1..200; got True"),
            ({"limit": 0}, "limit must be in 1..1000000; got 0"),
            ({"stop_at": 2}, "stop_at must be above 0 and at most 1; got 2"),
            ({"start": 0}, "start must be in 0..-1; got 0"),
            ({"speed": 3}, "a set-up must be of .*; got 'speed'"),
            ({"schedule": "none"}, "schedule must be 'constant' or 'one-cycle'"),
        ],
    )
    def test_a_set_up_is_refused_in_words(self, trainer, change, words):
        for ask in (
            lambda setup: trainer.plan({"setup": setup}),
            lambda setup: trainer.obey({"do": "start", "setups": [setup]}),
        ):
            with pytest.raises(ValueError, match=words):
                ask(SETUP | change)
        assert trainer.runs == []

    @pytest.mark.parametrize(
        ("order", "words"),
        [
            ({}, "do must be among .*; got None"),
            ({"do": ["run"]}, "do must be among"),
            ({"do": "start"}, "setups must be a list"),
            ({"do": "start", "setups": [SETUP] * 3}, "setups must be a list"),
            ({"do": "start", "setups": [7]}, "a set-up must be an object; got 7"),
            ({"do": "steps", "count": -1}, r"count must be in 0\.\.1000; got -1"),
            ({"do": "back"}, "step must be in"),
            (
                {"do": "set", "settings": {"lr": 0}},
                "lr must be a finite number above 0",
            ),
            ({"do": "set", "settings": {"lr": "x"}}, "lr must be"),
            ({"do": "set", "settings": {"seed": 1}}, "settings must be of"),
            ({"do": "set", "run": 1, "settings": {}}, r"run must be in 0\.\.0; got 1"),
        ],
    )
    def test_an_order_is_refused_in_words(self, trainer, order, words):
        start(trainer)
        number = trainer.number
        with pytest.raises(ValueError, match=words):
            trainer.obey(order)
        assert trainer.number == number

    @pytest.mark.parametrize("order", ["run", "pause", "steps", "epoch", "back"])
    def test_without_a_training_there_is_none_to_steer(self, trainer, order):
        with pytest.raises(ValueError, match=f"{order} must follow a start"):
            trainer.obey({"do": order})
        with pytest.raises(ValueError, match="there must be a training"):
            trainer.find(0, None)
        with pytest.raises(ValueError, match="there must be a training"):
            trainer.film()


class TestKept:
    def test_a_curve_has_means_and_a_bound(self, monkeypatch):
        monkeypatch.setattr("digits.page.watching.MOST_POINTS", 8)
        curve, losses = Curve(), np.random.default_rng(0).random(100)
        changed = [curve.add(n, loss, 0.1) for n, loss in enumerate(losses, 1)]
        assert len(curve.points) < 8
        assert any(changed)
        size = curve.every
        for k, (step, mean, _) in enumerate(curve.points):
            assert step == size * (k + 1)
            assert mean == pytest.approx(losses[size * k : step].mean())

    def test_what_is_thinned_is_spread_over_all(self):
        thinned = Thinned(10)
        for number in range(1000):
            thinned.add(number)
        assert 5 <= len(thinned.kept) <= 10
        gaps = np.diff(thinned.kept)
        assert thinned.kept[0] == 0
        assert (gaps == gaps[0]).all()

    def test_snapshots_have_a_bound(self, trainer, monkeypatch):
        monkeypatch.setattr("digits.page.watching.RECENT", 10)
        monkeypatch.setattr("digits.page.watching.OLDER", 5)
        start(trainer, epochs=6)
        (run,) = finish(trainer)
        assert run["snapshots"][-10:] == list(range(51, 61))
        assert run["snapshots"][0] == 0
        assert len(run["snapshots"]) <= 15

    def test_a_plan_has_the_numbers_of_the_network(self, trainer):
        found = trainer.plan({"setup": SETUP})
        network = Network("4C5-MP4-10N")
        size = sum(array.size for array in network.parameters.values())
        assert (found["parameters"], found["steps"], found["images"]) == (size, 10, 320)
        assert found["multiply_adds"] == 24 * 24 * 25 * 4 + 6 * 6 * 4 * 10
        assert found["seconds"] > 0

    def test_a_film_has_a_picture_a_step(self, trainer):
        start(trainer)
        finish(trainer, "steps", count=7)
        film = Image.open(io.BytesIO(trainer.film()))
        assert (film.format, film.n_frames) == ("GIF", 7)
        start(trainer, {"architecture": "10N"})
        finish(trainer, "steps", count=2)
        with pytest.raises(ValueError, match="a film must show trained kernels"):
            trainer.film()

    def test_a_look_says_which_images_it_is_of(self, trainer, digits):
        start(trainer)
        (run,) = finish(trainer, "steps", count=9)
        shown, network = run["looks_at"], trainer.runs[0].network
        assert shown["labels"] == [n for n in range(10) for _ in range(10)]
        assert (shown["training"], shown["held_out"]) == (300, 100)
        read = network.predict_proba(digits.test_images[shown["tests"]]).argmax(axis=1)
        assert run["last"]["read"] == read.tolist()
        before, after = trainer.find(0, 8)[0], trainer.find(0, 9)[0]
        for name, share in run["last"]["sizes"].items():
            old, new = before.parameters[name], after.parameters[name]
            expected = np.linalg.norm(new - old) / np.linalg.norm(old)
            assert share == pytest.approx(expected, rel=1e-4), name

    def test_dead_maps_are_those_without_a_positive_number(self, trainer):
        start(trainer)
        network = trainer.runs[0].network
        network.biases[0][2] = -1000
        dead = trainer.runs[0].progress.looks.find_dead(network)
        assert dead == {"0:4C5": [2]}


class TestOwn:
    def test_own_digits_are_a_fifth_of_what_is_learned(self, trainer, digits, split):
        for number in range(4):
            trainer.own.add(digits.test_images[number], number)
        setup = SETUP | {"own": True, "limit": 160}
        start(trainer, setup)
        run = trainer.runs[0]
        assert len(run.images) == 160 + 40
        assert_array_equal(run.images[:160], split.images[:160])
        own = digits.test_images[:4].repeat(10, axis=0)
        assert_array_equal(run.images[160:], own)
        assert_array_equal(run.labels[160:], np.arange(4).repeat(10))

    def test_scores_before_and_after_tell_what_it_does(self, trainer, digits):
        image = digits.test_images[5]
        wrong = (int(digits.test_labels[5]) + 1) % 10
        trainer.own.add(image, wrong)  # A writer with habits of his own.
        model = HandwrittenNumberClassification(**SETUP | {"epochs": 20}, verbose=0)
        model.fit(trainer.split.images, trainer.split.labels)
        trainer.models.append(model)
        setup = {"start": 0, "own": True, "limit": 320, "lr": 0.05, "epochs": 2}
        start(trainer, setup)
        assert finish(trainer)[0]["state"] == "finished"
        while "after" not in trainer.runs[0].scores:
            time.sleep(0.01)
        scores = trainer.describe()["runs"][0]["scores"]
        tests = digits.test_images, digits.test_labels
        before = {"accuracy": model.score(*tests), "images": len(tests[1])}
        assert scores["before"]["tests"] == before
        assert scores["before"]["own"] == {"accuracy": 0.0, "images": 1}
        network = trainer.runs[0].network
        assert scores["after"]["tests"]["accuracy"] == network.score(*tests)
        assert scores["after"]["own"] == {"accuracy": 1.0, "images": 1}

    def test_without_any_there_is_nothing_to_learn(self, trainer):
        with pytest.raises(ValueError, match="own digits must be kept before"):
            start(trainer, SETUP | {"own": True})
        with pytest.raises(ValueError, match="own must be true or false; got 1"):
            start(trainer, SETUP | {"own": 1})

    def test_the_server_keeps_changes_and_removes_them(self, server, digits):
        image = digits.test_images[7, :, :, np.newaxis] / 255
        code = encode_image(image)
        assert get(server, "/own")[1]["labels"] == []
        for label in (7, 3):
            asked = {"do": "keep", "image": code, "label": label}
            status, own = post(server, "/own", asked)
            assert status == 200
        assert own["labels"] == [7, 3]
        assert_array_equal(server[0].own.read()[0][0], digits.test_images[7])
        change = {"do": "relabel", "index": 1, "label": 8}
        status, answer = post(server, "/own", change | {"checksum": 1})
        assert (status, "look at them again" in answer["message"]) == (400, True)
        seen = {"checksum": own["checksum"]}
        own = post(server, "/own", change | seen)[1]
        assert own["labels"] == [7, 8]
        seen = {"checksum": own["checksum"]}
        assert post(server, "/own", {"do": "remove", "index": 0} | seen)[1][
            "labels"
        ] == [8]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"do": "burn"}, "do must be among"),
            ({"label": 10}, "label must be"),
            ({"label": None}, "label must be"),
            ({"image": "t3"}, "must be drawn or photographed; got a test image"),
            ({"image": "p"}, "with some ink"),
            ({"image": None}, "image must be an image code"),
        ],
    )
    def test_what_is_no_own_digit_is_refused(self, server, digits, change, words):
        code = encode_image(digits.test_images[7, :, :, np.newaxis] / 255)
        asked = {"do": "keep", "image": code, "label": 7} | change
        status, answer = post(server, "/own", asked)
        assert (status, words in answer["message"]) == (400, True), answer
        assert get(server, "/own")[1]["labels"] == []

    def test_a_damaged_file_is_named_and_stays(self, server, digits):
        path = server[0].own.path
        path.parent.mkdir()
        path.write_bytes(b"PK damaged")
        code = encode_image(digits.test_images[7, :, :, np.newaxis] / 255)
        for status, answer in (
            get(server, "/own"),
            post(server, "/own", {"do": "keep", "image": code, "label": 7}),
        ):
            assert (status, path.name in answer["message"]) == (400, True)
        assert path.read_bytes() == b"PK damaged"


class TestFrames:
    def test_every_number_of_a_kept_step_can_be_shown(self, trainer, digits):
        tests = digits.test_images, digits.test_labels
        models = {"first": HandwrittenNumberClassification()}
        frames = Frames(models, *tests, trainer)
        start(trainer)
        finish(trainer, "steps", count=6)
        for step in (0, 3, None):
            asked = {"image": "t5", "back": True, "snapshot": [0, step]}
            header, arrays = read_frame(frames.make(Request.read(asked, 1)))
            snapshot = trainer.find(0, step)[0]
            at = 6 if step is None else step
            assert header["model"]["step"] == snapshot.step == at
            model = HandwrittenNumberClassification(**SETUP)
            snapshot.lay_into(model)
            image, label = digits.test_images[5:6], digits.test_labels[5:6]
            loss, gradients = model.compute_gradients(image, label)
            assert header["loss"] == pytest.approx(loss, rel=1e-5)
            for name, parameter in model.parameters.items():
                assert_array_equal(arrays[name], parameter)
                assert_array_equal(arrays[f"d.{name}"], gradients[name])

    def test_a_snapshot_that_is_none_is_refused(self, trainer, digits):
        tests = digits.test_images, digits.test_labels
        models = {"first": HandwrittenNumberClassification()}
        alone, frames = Frames(models, *tests), Frames(models, *tests, trainer)
        asked = Request.read({"image": "t5", "snapshot": [0, None]}, 1)
        with pytest.raises(ValueError, match="snapshot must be of a training"):
            alone.make(asked)
        with pytest.raises(ValueError, match="there must be a training"):
            frames.make(asked)
        for wrong in (3, [0], [2, None], [0, -1], ["a", 1]):
            with pytest.raises(ValueError, match="must be"):
                Request.read({"image": "t5", "snapshot": wrong}, 1)


@pytest.fixture
def server(split, digits, tmp_path):
    """Serve a small network, and what trains another."""
    models = {"first": HandwrittenNumberClassification()}
    tests = digits.test_images, digits.test_labels
    own = tmp_path / "results" / "model.npz"
    with running(models, *tests, split, own) as (server, address):
        yield server, address


def post(server, path, fields, token=True):
    """Return status and JSON of an answer."""
    connection = http.client.HTTPConnection(server[1], timeout=30)
    headers = {"X-Token": server[0].token} if token else {}
    connection.request("POST", path, json.dumps(fields), headers)
    return receive(connection)


def get(server, path):
    connection = http.client.HTTPConnection(server[1], timeout=30)
    connection.request("GET", path)
    return receive(connection)


def receive(connection):
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.getheader("Content-Type") == "application/json":
        content = json.loads(content)
    return answer.status, content


class TestServer:
    def test_it_trains_tells_and_keeps(self, server, tmp_path):
        assert get(server, "/training")[1]["runs"] == []
        assert post(server, "/plan", {"setup": SETUP})[1]["parameters"] == 1554
        status, state = post(server, "/train", {"do": "start", "setups": [SETUP]})
        assert (status, state["running"]) == (200, False)
        assert post(server, "/train", {"do": "steps", "count": 7})[0] == 200
        settle(server[0].trainer)
        state = get(server, "/training?generations=0&since=3")[1]
        assert [point[0] for point in state["runs"][0]["points"]] == [3, 4, 5, 6, 7]
        status, film = get(server, "/film")
        assert (status, film[:4]) == (200, b"GIF8")
        assert post(server, "/use", {"step": 5}) == (200, {"model": 1})
        model = HandwrittenNumberClassification.load(tmp_path / "results/model.npz")
        assert_same(model.parameters, server[0].trainer.find(0, 5)[0].parameters)
        names = [model["name"] for model in get(server, "/models")[1]["models"]]
        assert names == ["first", "results/model.npz"]
        written = (tmp_path / "results/model.npz").read_bytes()
        assert post(server, "/use", {}) == (200, {"model": 1})
        before = (tmp_path / "results/model-before.npz").read_bytes()
        assert before == written
        image = {"image": "t1", "model": 1}
        asked = post(server, "/trace", image)
        assert asked[0] == 200
        header, _ = read_frame(asked[1])
        assert header["model"]["name"] == "results/model.npz"

    def test_the_network_of_another_training_is_not_used(self, server, tmp_path):
        state = post(server, "/train", {"do": "start", "setups": [SETUP]})[1]
        post(server, "/train", {"do": "start", "setups": [SETUP]})
        asked = {"number": state["number"], "step": 0}
        status, answer = post(server, "/use", asked)
        assert (status, "train it again" in answer["message"]) == (400, True)
        assert not (tmp_path / "results" / "model.npz").exists()

    def test_a_drawing_is_read_by_what_is_in_training(self, server):
        setup = SETUP | {"epochs": 20}
        post(server, "/train", {"do": "start", "setups": [setup]})
        finish(server[0].trainer)
        image = 255 - server[0].frames.images[3]
        connection = http.client.HTTPConnection(server[1], timeout=30)
        path = "/read?digit=0&model=0&snapshot=0-&width=28&height=28"
        connection.request("POST", path, image.tobytes())
        status, found = receive(connection)
        assert status == 200
        assert found["names"] == [str(server[0].frames.labels[3])]

    @pytest.mark.parametrize("path", ["/train", "/plan", "/use", "/own"])
    def test_only_its_own_page_may_ask(self, server, path):
        assert post(server, path, {"do": "pause"}, token=False)[0] == 403
        assert post(server, path, ["pause"])[0] == 400
        status, answer = post(server, path, {"do": "run"})
        assert status == 400
        assert "must" in answer["message"]

    @pytest.mark.parametrize(
        "query", ["?since=3", "?generations=a&since=1", "?x", "?-1"]
    )
    def test_a_query_that_is_none_is_refused(self, server, query):
        assert get(server, f"/training{query}")[0] == 404

    def test_a_model_that_cannot_be_written_leaves_the_one_before(
        self, server, tmp_path, monkeypatch
    ):
        post(server, "/train", {"do": "start", "setups": [SETUP]})
        assert post(server, "/use", {})[0] == 200
        before = (tmp_path / "results" / "model.npz").read_bytes()
        post(server, "/train", {"do": "steps", "count": 1})
        settle(server[0].trainer)

        def refuse(*_):
            raise OSError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr("os.replace", refuse)
            status, answer = post(server, "/use", {})
        assert (status, "the disk is full" in answer["message"]) == (500, True)
        assert (tmp_path / "results" / "model.npz").read_bytes() == before
        kept = sorted(path.name for path in (tmp_path / "results").iterdir())
        assert kept in (["model.npz"], ["model-before.npz", "model.npz"])

    @pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
    def test_requests_beside_a_training_leave_memory_flat(self, server):
        post(server, "/train", {"do": "start", "setups": [SETUP | {"epochs": 200}]})
        post(server, "/train", {"do": "run"})
        sizes = []
        for number in range(300):
            asked = {"image": f"t{number % 50}", "back": True, "snapshot": [0, None]}
            assert post(server, "/trace", asked)[0] == 200
            assert get(server, f"/training?generations=0&since={number}")[0] == 200
            if number in (100, 299):
                sizes.append(anonymous_memory())
        assert sizes[1] < sizes[0] + 20


def test_ctrl_c_ends_a_training_soon_and_in_silence(digits, tmp_path):
    path = tmp_path / "model.npz"
    HandwrittenNumberClassification().save(path)
    with serving(path) as (process, address):
        page = get((None, address), "/")[1].decode()
        token = re.search('name="token" content="(.*?)"', page)[1]
        page = type("Page", (), {"token": token}), address
        setup = {"architecture": "32C5-MP2-64C5-MP2-256N-10N", "epochs": 30}
        assert post(page, "/train", {"do": "start", "setups": [setup]})[0] == 200
        assert post(page, "/train", {"do": "run"})[0] == 200
        while not get(page, "/training")[1]["runs"][0]["step"]:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, output, errors) == (130, "", "\nInterrupted.\n")
