"""The numbers that the page shows: as the class computes them, and what is refused."""

import base64
import http.client
import json
import math
import re
import struct

import numpy as np
import pytest
from helpers.page import read_frame, running
from numpy.testing import assert_allclose

from digits.page.frames import Frames
from digits.page.requests import Request, decode_image, encode_image
from handwritten_classifier import HandwrittenNumberClassification

ARCHITECTURES = [
    "6C5-MP3-8C5-10N",
    "5C3s2p1-MP3s2-6C3p1-16N-10N",
    "MP2-5C3-MP2s1-10N",
    "MP2-MP2-10N",
    "10N",
]
STEP = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}


@pytest.fixture(scope="module")
def frames(digits):
    """Return frames of one network of each kind; one in float64, one with smoothing."""
    rng, models = np.random.default_rng(1), {}
    for number, architecture in enumerate(ARCHITECTURES):
        kinds = {"dtype": (np.float32, np.float64)[number == 1]}
        kinds["label_smoothing"] = 0.1 if number == 2 else 0.0
        model = HandwrittenNumberClassification(architecture, seed=number, **kinds)
        for parameter in model.parameters.values():
            if parameter.ndim == 1:
                parameter[...] = rng.normal(0, 0.2, parameter.shape)
        models[architecture] = model
    return Frames(models, digits.test_images, digits.test_labels)


def ask(frames, **fields):
    """Return header and arrays of a frame."""
    return read_frame(frames.make(Request.read(fields, len(frames.models))))


@pytest.mark.parametrize("number", range(len(ARCHITECTURES)))
class TestNumbers:
    def test_forward_they_are_those_of_the_class(self, frames, number):
        header, arrays = ask(frames, model=number, image="t3")
        model, image = frames.models[number], frames.images[3]
        forward, _ = model.trace_steps(image.astype(model.dtype) / 255)
        for k, (title, array, _) in enumerate(forward):
            assert header["steps"][k]["title"] == title
            assert np.array_equal(arrays[f"step.{k}"], array)
        assert len(forward) == len(header["steps"])
        for name, parameter in model.parameters.items():
            assert np.array_equal(arrays[name], parameter)
        expected = model.predict_proba(frames.images[3:4])[0]
        assert_allclose(arrays[f"step.{len(forward) - 1}"], expected, rtol=1e-5)
        assert header["true_label"] == header["label"] == frames.labels[3]
        loss = model.evaluate(frames.images[3:4], frames.labels[3:4])[0]
        assert_allclose(header["loss"], loss, rtol=1e-5)

    def test_derivatives_are_the_slopes_of_the_loss(self, frames, number):
        asked = {"model": number, "image": "t3", "label": 7, "back": True}
        header, arrays = ask(frames, **asked)
        model = frames.models[number]
        image = frames.images[3:4].astype(model.dtype) / 255
        loss, gradients = model.compute_gradients(image, np.array([7]))
        assert_allclose(header["loss"], loss, rtol=1e-6)
        for name, gradient in gradients.items():
            assert np.array_equal(arrays[f"d.{name}"], gradient)
        for k in range(len(header["steps"]) - 1):
            assert arrays[f"d.{k}"].shape == arrays[f"step.{k}"].shape
        # In lively places, where a nudge switches no maximum.
        lively = np.flatnonzero(np.abs(arrays["d.0"]) > 1e-4)[::29]
        checked = 0
        for name, index in [*(("image", n) for n in lively), ("W_dense", 7)]:
            found = frames.check(Request.read(asked, 9), [name, int(index)])
            if not found["switched"]:
                assert_allclose(found["computed"], found["measured"], rtol=2e-3)
                assert found["agree"]
                checked += 1
        assert checked > 1

    def test_the_winner_of_a_window_is_its_first_maximum(self, frames, number):
        header, arrays = ask(frames, model=number, image="t3")
        pools = [k for k, s in enumerate(header["steps"]) if s["kind"] == "pooling"]
        for k in pools:
            step, maps = header["steps"][k], arrays[f"step.{k - 1}"]
            side, stride = step["window"][0], step["stride"]
            for y, x, f in np.ndindex(*step["shape"]):
                top, left = y * stride, x * stride
                window = maps[top : top + side, left : left + side, f]
                assert arrays[f"winners.{k}"][y, x, f] == window.argmax()
        assert len(pools) == frames.models[number].architecture.count("MP")

    def test_a_step_is_that_of_sgd(self, frames, number):
        asked = {"model": number, "image": "t3", "label": 7, "back": True}
        header, arrays = ask(frames, step=STEP, **asked)
        for name in frames.models[number].parameters:
            gradient = arrays[f"d.{name}"].astype(float)
            gradient = gradient + 0.01 * arrays[name] * (arrays[name].ndim > 1)
            change = -0.05 * gradient * (1 + 0.9)  # The velocity begins at zero.
            after = arrays[name] + change
            assert_allclose(arrays[f"after.{name}"], after, rtol=1e-4, atol=1e-7)
            assert not arrays[f"velocity.{name}"].any()
        step = header["step"]
        stepped = ["step", "t3", 7, *STEP.values()]
        later = ask(frames, changes=[stepped], **asked)
        assert_allclose(later[0]["loss"], step["loss_after"], rtol=1e-5, atol=1e-7)
        drop = header["loss"] - step["loss_after"]
        assert_allclose(step["measured_drop"], drop, rtol=1e-6)
        for name in frames.models[number].parameters:
            assert np.array_equal(later[1][name], arrays[f"after.{name}"])

    def test_parameters_that_the_page_has_are_not_sent_again(self, frames, number):
        header, arrays = ask(frames, model=number, image="t3")
        again, fewer = ask(frames, model=number, image="t3", have=header["version"])
        assert again["version"] == header["version"]
        parameters = frames.models[number].parameters.keys()
        assert arrays.keys() - fewer.keys() == parameters


CHANGES = [["edit", "W_dense", 5, 0.25], ["step", "t1", 4, 0.1, 0.5, 0.0]]


class TestChanges:
    def test_the_same_changes_lead_to_the_same_bits_anywhere(self, frames, digits):
        again = Frames(
            {name: HandwrittenNumberClassification(name) for name in ARCHITECTURES[:1]},
            digits.test_images,
            digits.test_labels,
        )
        again.models[0].parameters["biases.0"][...] = frames.models[0].biases[0]
        for name, parameter in frames.models[0].parameters.items():
            again.models[0].parameters[name][...] = parameter
        # What momentum has from training counts in no lesson.
        again.models[0].velocity["W_dense"][...] = 3
        for changes in (CHANGES, CHANGES[:1], []):
            asked = {"image": "t3", "back": True, "changes": changes, "step": STEP}
            (one, first), (other, second) = ask(frames, **asked), ask(again, **asked)
            assert one["version"] == other["version"]
            assert all(np.array_equal(first[name], second[name]) for name in first)

    def test_a_model_is_never_changed(self, frames):
        before = [p.copy() for p in frames.models[0].parameters.values()]
        ask(frames, image="t3", back=True, changes=CHANGES, step=STEP)
        after = frames.models[0].parameters.values()
        assert all(map(np.array_equal, before, after))

    def test_copies_are_bounded(self, frames):
        for value in range(9):
            ask(frames, image="t3", changes=[["edit", "B_dense", 0, value]])
        assert len(frames.copies) <= 4

    def test_a_step_that_diverges_is_told(self, frames):
        step = {"lr": 1000, "momentum": 0.9, "weight_decay": 1}
        steps = [["step", "t1", 4, *step.values()]] * 20
        with pytest.raises((FloatingPointError, ValueError), match="must"):
            ask(frames, image="t3", back=True, changes=steps, step=step)


class TestCodes:
    def test_an_image_comes_back_with_the_same_bits(self, rng):
        image = rng.random((28, 28, 1), np.float32) * (rng.random((28, 28, 1)) < 0.3)
        again = decode_image(encode_image(image), (28, 28, 1), None)
        assert np.array_equal(again[0], image)

    @pytest.mark.parametrize(
        "code",
        [
            *("", "t", "t-1", "t99999", "tt", "t1e1", "x", "p!", "pAAA", "pAAAA"),
            *(None, 7, ["t1"], "t" + "9" * 30, "t\N{SUPERSCRIPT TWO}"),
            "p" + base64.urlsafe_b64encode(struct.pack("<Hf", 784, 1)).decode(),
            "p" + base64.urlsafe_b64encode(struct.pack("<Hf", 0, math.nan)).decode(),
            "p" + base64.urlsafe_b64encode(struct.pack("<Hf", 0, 1e9)).decode(),
            "p" + base64.urlsafe_b64encode(struct.pack("<HfHf", 3, 1, 3, 1)).decode(),
        ],
    )
    def test_what_is_no_image_is_refused(self, frames, code):
        with pytest.raises(ValueError, match="image must"):
            ask(frames, image=code)


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"model": 5}, r"model must be in 0\.\.4; got 5"),
            ({"model": True}, "model must be"),
            ({"label": 10}, r"label must be in 0\.\.9; got 10"),
            ({"label": "7"}, "label must be"),
            ({"label": -1}, "label must be"),
            ({"changes": {}}, "changes must be a list"),
            ({"changes": {"a": 1}}, "changes must be a list"),
            ({"changes": [["edit", "B_dense", 0, 1]] * 101}, "at most 100"),
            ({"changes": [["edit", "B", 0, 1]]}, "a parameter must be among"),
            ({"changes": [["edit", "B_dense", 10, 1]]}, r"index must be in 0\.\.9"),
            ({"changes": [["edit", "B_dense", 0, 1e9]]}, "a weight must be in"),
            ({"changes": [["edit", "B_dense", 0, math.nan]]}, "a weight must be in"),
            ({"changes": [["edit", "B_dense", 0, "1"]]}, "a weight must be in"),
            ({"changes": [["step", "t0", 1, 0, 0, 0]]}, "lr must be above 0"),
            ({"changes": [["step", "t0", 11, 1, 0, 0]]}, r"label must be in 0\.\.9"),
            ({"changes": [["step", 3, 1, 1, 0, 0]]}, "changes must be edits and steps"),
            ({"changes": [[]]}, "changes must be edits and steps"),
            ({"step": {"lr": 0.1}}, "momentum must be"),
            ({"step": STEP | {"momentum": 1}}, "momentum must be at least 0 and below"),
            ({"step": STEP | {"weight_decay": 2}}, r"weight_decay must be in 0\.\.1"),
            ({"step": 3}, "lr must be"),
        ],
    )
    def test_what_cannot_be_asked_is_named(self, frames, fields, told):
        asked = {"image": "t3", "back": True} | fields
        with pytest.raises(ValueError, match=told):
            ask(frames, **asked)

    @pytest.mark.parametrize("cell", [None, [], ["image"], ["x", 0], ["image", 784]])
    def test_only_pixels_and_parameters_are_checked(self, frames, cell):
        asked = Request.read({"image": "t3"}, 1)
        with pytest.raises(ValueError, match=r"cell must|index must"):
            frames.check(asked, cell)

    def test_a_network_too_large_to_be_shown_is_refused(self, digits):
        model = HandwrittenNumberClassification("9000N-10N")
        frames = Frames({"wide": model}, digits.test_images, digits.test_labels)
        with pytest.raises(ValueError, match="at most 100 MB to be shown; got 1"):
            ask(frames, image="t3")


@pytest.fixture(scope="module")
def server(frames, digits):
    models = dict(zip(ARCHITECTURES[:2], frames.models, strict=False))
    with running(models, digits.test_images, digits.test_labels) as server:
        yield server


class TestServer:
    def ask(self, server, method, path, body=None, **headers):
        connection = http.client.HTTPConnection(server[1], timeout=20)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def test_a_page_has_the_token_and_gets_what_it_asks_for(self, server, frames):
        document = self.ask(server, "GET", "/")[1].decode()
        token = re.search('name="token" content="(.*?)"', document)[1]
        body = json.dumps({"image": "t3", "model": 1})
        status, content = self.ask(server, "POST", "/trace", body, X_Token=token)
        asked = Request.read({"image": "t3", "model": 1}, 2)
        assert (status, len(content)) == (200, len(frames.make(asked)))
        body = json.dumps({"image": "t3", "cell": ["B_dense", 1]})
        status, content = self.ask(server, "POST", "/check", body, X_Token=token)
        assert status == 200
        assert json.loads(content)["agree"]

    @pytest.mark.parametrize(
        ("path", "body", "token", "status"),
        [
            ("/read?model=2", "x", None, 404),
            ("/trace", "{}", None, 403),
            ("/trace", "{}", "guessed", 403),
            ("/check", "{}", None, 403),
            ("/trace", "{}", True, 400),
            ("/trace", "[]", True, 400),
            ("/trace", "[" * 100_000, True, 400),
            ("/trace", "{", True, 400),
            ("/trace", b"\xff", True, 400),
            ("/trace", "", True, 413),
            ("/trace", " " * 1_000_001, True, 413),
            ("/check", '{"image": "t3"}', True, 400),
            ("/trace?x", '{"image": "t3", "label": 99}', True, 400),
        ],
    )
    def test_what_it_cannot_answer_is_refused(self, server, path, body, token, status):
        token = server[0].token if token is True else token
        headers = {"X_Token": token} if token else {}
        found, content = self.ask(server, "POST", path, body, **headers)
        assert found == status
        assert json.loads(content)["message"]

    def test_mistakes_are_those_of_predict(self, server):
        frames = server[0].frames
        status, content = self.ask(server, "GET", "/mistakes?model=1")
        assert status == 200
        found = json.loads(content)
        probabilities = frames.models[1].predict_proba(frames.images)
        wrong = probabilities.argmax(axis=1) != frames.labels
        assert (found["count"], found["of"]) == (wrong.sum(), len(wrong))
        listed = found["mistakes"]
        assert len(listed) == min(200, wrong.sum())
        shares = [mistake["probability"] for mistake in listed]
        assert shares == sorted(shares, reverse=True)
        pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8)
        first = listed[0]["index"]
        assert np.array_equal(pixels[:784], frames.images[first].ravel())
        assert wrong[first]
        for path in ("/mistakes?model=2", "/mistakes", "/mistakes?model=x"):
            assert self.ask(server, "GET", path)[0] == 404
