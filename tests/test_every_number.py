"""The page in a real browser: each number's arithmetic, compared with plain loops."""

import csv
import io
import json
import math

import numpy as np
import pytest
from helpers.page import read_frame, running
from numpy.testing import assert_allclose

from digits.page.requests import Request
from handwritten_classifier import HandwrittenNumberClassification

ARCHITECTURES = {
    "plain": ("6C5-MP3-8C5-10N", {}),
    "overlapping": ("5C3s2p1-MP3s2-6C3p1-16N-10N", {"label_smoothing": 0.1}),
    "pooled first": ("MP2-5C3-MP2s1-10N", {"dtype": np.float64}),
    "no convolution": ("10N", {}),
}
MINUS = "\N{MINUS SIGN}"
SETTINGS = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}


@pytest.fixture(scope="module")
def models():
    """Return a small model of each kind, with biases that are not zero."""
    rng, models = np.random.default_rng(4), {}
    for name, (architecture, settings) in ARCHITECTURES.items():
        model = HandwrittenNumberClassification(architecture, seed=3, **settings)
        for parameter in model.parameters.values():
            if parameter.ndim == 1:
                parameter[...] = rng.normal(0, 0.2, parameter.shape)
        models[name] = model
    return models


@pytest.fixture(scope="module")
def server(models, digits):
    with running(models, digits.test_images, digits.test_labels) as (server, address):
        yield server, address


@pytest.fixture(scope="module")
def page(browser, server):
    """Return the browser with the page, and with a clipboard that can be read."""
    browser.get(f"http://{server[1]}/")
    browser.execute_script(
        "Object.defineProperty(navigator, 'clipboard', {value: "
        "{writeText: async (text) => { window.copied = text; }}})"
    )
    return browser


def ask(frames, **fields):
    """Return header and arrays of a frame."""
    return read_frame(frames.make(Request.read(fields, len(frames.models))))


def open_link(browser, link):
    """Open what stands behind "#", and wait until it is shown."""
    browser.execute_async_script(
        "const [link, done] = arguments;"
        "addEventListener('opened', () => done(), {once: true}); location.hash = link",
        link + f"&again={np.random.default_rng().integers(10**9)}",
    )


def read_panel(browser):
    """Return the panel's lines as CSV has them: terms (a, b, product), and the rest."""
    browser.execute_script("document.getElementById('copy-csv').click()")
    title, _, *rows = csv.reader(io.StringIO(browser.execute_script("return copied")))
    terms = [tuple(map(float, filter(None, row[1:]))) for row in rows if row[1]]
    lines = [(row[0], float(row[3])) for row in rows if not row[1]]
    return title[0], terms, lines


# ---------------------------------------------------------------------- Plain loops


def find_operands(header, arrays, name, index):
    """Return the numbers that one was made of, as sorted tuples: by the definitions."""
    kind, _, rest = name.partition(".")
    if kind == "step":
        return sorted(
            FORWARD[header["steps"][int(rest)]["kind"]](
                header, arrays, int(rest), index
            )
        )
    if rest.isdigit():
        step = header["steps"][int(rest) + 1]["kind"]
        return sorted(BACK[step](header, arrays, int(rest) + 1, index))
    return sorted(find_gradient_operands(header, arrays, rest, index))


def windows(header, k):
    """Yield places: of the result, in the window, and in what the step takes."""
    step, before = header["steps"][k], header["steps"][k - 1]["shape"]
    for y, x in np.ndindex(*step["shape"][:2]):
        for i, j in np.ndindex(*step["window"]):
            r = step["stride"] * y + i - step["padding"]
            c = step["stride"] * x + j - step["padding"]
            if 0 <= r < before[0] and 0 <= c < before[1]:
                yield (y, x), (i, j), (r, c)


def convolve(header, arrays, k, index):
    step, images = header["steps"][k], arrays[f"step.{k - 1}"]
    kernel = arrays[f"kernels.{step['index']}"]
    y, x, f = np.unravel_index(index, step["shape"])
    return [
        (images[r, c, channel], kernel[f, channel, i, j])
        for at, (i, j), (r, c) in windows(header, k)
        if at == (y, x)
        for channel in range(kernel.shape[1])
    ]


def pool(header, arrays, k, index):
    y, x, f = np.unravel_index(index, header["steps"][k]["shape"])
    maps = arrays[f"step.{k - 1}"]
    return [(maps[r, c, f],) for at, _, (r, c) in windows(header, k) if at == (y, x)]


def add_bias(header, arrays, k, index):
    step = header["steps"][k]
    bias = arrays[f"biases.{step['index']}"][index % step["shape"][2]]
    return [(arrays[f"step.{k - 1}"].flat[index],), (bias,)]


def score(header, arrays, k, index):
    return list(zip(arrays[f"step.{k - 1}"], arrays["W_dense"][:, index], strict=True))


def all_before(header, arrays, k, index):
    return [(number,) for number in arrays[f"step.{k - 1}"]]


def same_place(header, arrays, k, index):
    return [(arrays[f"step.{k - 1}"].flat[index],)]


def convolve_back(header, arrays, k, index):
    step, d = header["steps"][k], arrays[f"d.{k}"]
    kernel = arrays[f"kernels.{step['index']}"]
    r, c, channel = np.unravel_index(index, header["steps"][k - 1]["shape"])
    return [
        (d[y, x, f], kernel[f, channel, i, j])
        for (y, x), (i, j), at in windows(header, k)
        if at == (r, c)
        for f in range(len(kernel))
    ]


def unpool(header, arrays, k, index):
    r, c, f = np.unravel_index(index, header["steps"][k - 1]["shape"])
    d = arrays[f"d.{k}"]
    return [(d[y, x, f],) for (y, x), _, at in windows(header, k) if at == (r, c)]


def from_scores(header, arrays, k, index):
    return list(zip(arrays[f"d.{k}"], arrays["W_dense"][index], strict=True))


def derivative(header, arrays, k, index):
    return [(arrays[f"d.{k}"].flat[index],)]


def probability(header, arrays, k, index):
    return [(arrays[f"step.{k}"][index],)]


def find_gradient_operands(header, arrays, name, index):
    """Return the products of a gradient that are not zero."""
    kinds = [(step["kind"], step["index"]) for step in header["steps"]]
    if name == "W_dense":
        k = kinds.index(("scores", None))
        d, n = np.unravel_index(index, arrays[name].shape)
        terms = [(arrays[f"d.{k}"][n], arrays[f"step.{k - 1}"][d])]
    elif name == "B_dense":
        return [(arrays[f"d.{kinds.index(('scores', None))}"][index],)]
    elif name.startswith("biases."):
        k = kinds.index(("ReLU", int(name[7:])))
        terms = [(number,) for number in arrays[f"d.{k - 1}"][..., index].ravel()]
    else:
        k = kinds.index(("convolution", int(name[8:])))
        f, channel, i, j = np.unravel_index(index, arrays[name].shape)
        terms = [
            (arrays[f"d.{k}"][y, x, f], arrays[f"step.{k - 1}"][r, c, channel])
            for (y, x), at, (r, c) in windows(header, k)
            if at == (i, j)
        ]
    return [term for term in terms if math.prod(map(float, term)) != 0]


FORWARD = {
    "image": lambda *_: [],
    "convolution": convolve,
    "pooling": pool,
    "ReLU": add_bias,
    "flatten": same_place,
    "scores": score,
    "softmax": all_before,
}
BACK = {
    "convolution": convolve_back,
    "pooling": unpool,
    "ReLU": derivative,
    "flatten": derivative,
    "scores": from_scores,
    "softmax": probability,
}


class TestArithmetic:
    @pytest.mark.parametrize("mode", ["forward", "back"])
    @pytest.mark.parametrize("kind", ARCHITECTURES)
    def test_random_numbers_are_made_of_what_loops_find(self, page, server, kind, mode):
        frames, number = server[0].frames, list(ARCHITECTURES).index(kind)
        asked = {"model": number, "image": "t7", "label": 3, "step": SETTINGS}
        header, arrays = ask(frames, back=mode == "back", **asked)
        prefix = "d." if mode == "back" else "step."
        rng = np.random.default_rng(number)
        link = f"net={header['model']['checksum']}&image=t7&label=3&mode={mode}"
        names = [name for name in arrays if name.startswith(prefix)]
        assert len(names) > 3
        for name in names:
            array = arrays[name].ravel()
            lively = np.flatnonzero(array)
            indices = rng.integers(array.size, size=2).tolist()
            indices += rng.choice(lively, 1).tolist() if lively.size else []
            for index in indices:
                open_link(page, f"{link}&at={name}:{index}")
                _, terms, lines = read_panel(page)
                expected = find_operands(header, arrays, name, index)
                operands = sorted(t[:2] if len(t) > 2 else t[:1] for t in terms)
                assert_allclose(operands or 0, expected or 0, err_msg=f"{name}:{index}")
                result = [value for _, value in lines]
                assert array[index] in np.asarray(result, array.dtype)

    @pytest.mark.parametrize("kind", ARCHITECTURES)
    def test_a_sum_and_its_rounding_are_the_networks_number(self, page, server, kind):
        frames, number = server[0].frames, list(ARCHITECTURES).index(kind)
        header, arrays = ask(frames, model=number, image="t7", back=False)
        k = next(k for k, s in enumerate(header["steps"]) if s["kind"] == "scores")
        link = f"net={header['model']['checksum']}&image=t7"
        for index in (0, 9):
            open_link(page, f"{link}&at=step.{k}:{index}")
            _, terms, lines = read_panel(page)
            lines = dict(lines)
            products = math.fsum(a * b for a, b, _ in terms)
            assert all(product == a * b for a, b, product in terms)
            assert_allclose(lines["sum of the products"], products, rtol=1e-12)
            bias = lines["+ bias"]
            assert bias == arrays["B_dense"][index]
            shown = lines.get("the network's number", lines.get("sum"))
            assert shown == arrays[f"step.{k}"][index]
            rounding = lines.get("rounding", 0)
            assert_allclose(products + bias + rounding, shown, rtol=1e-12)

    def test_softmax_and_loss_are_spelled_out(self, page, server):
        frames = server[0].frames
        for number, kind in enumerate(ARCHITECTURES):
            header, arrays = ask(frames, model=number, image="t7", label=2)
            last = len(header["steps"]) - 1
            link = f"net={header['model']['checksum']}&image=t7&label=2"
            open_link(page, f"{link}&at=step.{last}:4")
            _, terms, lines = read_panel(page)
            scores = arrays[f"step.{last - 1}"].astype(float)
            assert_allclose([t[1] for t in terms], np.exp(scores - scores.max()))
            quotient = np.exp(scores[4] - scores.max()) / sum(t[1] for t in terms)
            assert_allclose(dict(lines).get("quotient", lines[-1][1]), quotient)
            assert lines[-1][1] == arrays[f"step.{last}"][4]
            open_link(page, f"{link}&at=loss:0")
            _, terms, lines = read_panel(page)
            p, s = arrays[f"step.{last}"].astype(float), header["model"]["smoothing"]
            loss = -(1 - s) * np.log(p[2]) - s * np.log(p).mean()
            assert_allclose(dict(lines).get("loss", lines[-1][1]), loss, rtol=1e-6)
            assert lines[-1][1] == header["loss"], kind

    def test_the_derivative_of_a_score_is_p_less_its_target(self, page, server):
        for number in range(len(ARCHITECTURES)):
            asked = {"model": number, "image": "t7", "label": 2, "back": True}
            header, arrays = ask(server[0].frames, **asked)
            k, s = len(header["steps"]) - 2, header["model"]["smoothing"]
            link = f"net={header['model']['checksum']}&image=t7&label=2&mode=back"
            for n in (2, 5):
                open_link(page, f"{link}&at=d.{k}:{n}")
                _, terms, lines = read_panel(page)
                target = (1 - s) * (n == 2) + s / 10
                assert_allclose(lines[0][1], target)
                assert_allclose(terms[0][0] - target, arrays[f"d.{k}"][n], rtol=1e-5)

    @pytest.mark.parametrize("name", ["kernels.1", "biases.0", "W_dense", "B_dense"])
    def test_a_step_of_sgd_is_spelled_out_row_by_row(self, page, server, name):
        changes = [["step", "t7", 3, 0.02, 0.5, 0.0]]
        asked = {"model": 0, "image": "t7", "label": 3, "back": True}
        frames = server[0].frames
        header, arrays = ask(frames, changes=changes, step=SETTINGS, **asked)
        index = int(np.abs(arrays[f"d.{name}"]).argmax())
        settings = "&".join(f"{key}={value}" for key, value in SETTINGS.items())
        link = (
            f"net={header['model']['checksum']}&image=t7&label=3&mode=back&{settings}"
        )
        link += f"&changes={json.dumps(changes)}&at=d.{name}:{index}"
        open_link(page, link)
        lines = read_panel(page)[2]
        found = dict(lines)
        old, g = arrays[name].flat[index], arrays[f"d.{name}"].flat[index]
        velocity = arrays[f"velocity.{name}"].flat[index]
        assert velocity != 0
        decay = 0.01 * float(old) if arrays[name].ndim > 1 else 0
        moved = -0.05 * (float(g) + decay)
        assert (found["old"], found["gradient"]) == (old, g)
        assert_allclose(found[f"times {MINUS}rate, {MINUS}0.05"], moved, rtol=1e-6)
        change = moved + 0.9 * (0.9 * float(velocity) + moved)
        assert lines[-1] == ("new", arrays[f"after.{name}"].flat[index])
        assert_allclose(float(old) + change, lines[-1][1], rtol=1e-5)

    def test_what_is_hidden_is_asked_for(self, page, server):
        _, arrays = ask(server[0].frames, model=0, image="t7")
        open_link(page, "image=t7&at=step.1:500&quiz=1")
        foot = "return document.querySelector('#sum tfoot .result td').textContent"
        assert page.execute_script(foot) == "?"
        page.execute_script("document.getElementById('copy-text').click()")
        copied = page.execute_script("return copied")
        shown = float(arrays["step.1"].flat[500])
        assert "= ?" in copied
        assert f"{shown:.6g}"[:6] not in copied
        page.find_element("id", "show-answer").click()
        text = page.execute_script(foot).replace(MINUS, "-")
        assert np.float32(text) == arrays["step.1"].flat[500]
