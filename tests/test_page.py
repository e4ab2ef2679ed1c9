"""The page to draw digits on: its server, and the page in a real browser."""

import base64
import contextlib
import http.client
import io
import json
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import ROOT
from helpers.page import BROWSER, DRIVER, browsing, serving
from numpy.testing import assert_allclose
from PIL import Image

import run
from digits.mnist import DIGITS
from digits.page.server import DrawingServer
from digits.pictures import name_digits, prepare_image
from handwritten_classifier import HandwrittenNumberClassification


@pytest.fixture(scope="module")
def model_path(digits, tmp_path_factory):
    """Return the file of a model that reads simple digits."""
    settings = run.RECIPES["fast"] | {"epochs": 12, "augment": 1.0}
    model = HandwrittenNumberClassification(**settings)
    model.fit(digits.train_images, digits.train_labels, verbose=0)
    path = tmp_path_factory.mktemp("draw") / "model.npz"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def address(model_path):
    """Start the program, and return the host and port that it says."""
    with serving(model_path) as (process, address):
        yield address
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert errors == "\nInterrupted.\n" or errors == ""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    pytest.importorskip("selenium")
    with browsing(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


def fetch(address, method, path, body=None, **headers):
    """Return status, headers and content of an answer."""
    connection = http.client.HTTPConnection(address, timeout=20)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, names)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def ask(address, method, path, body=None, **headers):
    """Return status and content of an answer."""
    status, _, content = fetch(address, method, path, body, **headers)
    return status, content


def as_png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


class TestServer:
    def test_it_reads_as_predict_does(self, address, digits, model_path):
        picture = 255 - digits.test_images[3].repeat(10, 0).repeat(10, 1)
        status, content = ask(address, "POST", "/read", as_png(picture))
        assert status == 200
        result = json.loads(content)
        model = HandwrittenNumberClassification.load(model_path)
        expected = model.predict_proba(prepare_image(picture))
        assert_allclose(result["probabilities"], expected[0], rtol=1e-5)
        assert result["names"] == name_digits(expected)
        assert result["message"].startswith(f"{result['names'][0]} (")
        sizes = [step["size"] for step in result["steps"]]
        assert sizes[:3] == ["28x28x1", "25x25x12", "8x8x12"]
        seen = result["steps"][0]["picture"].partition("base64,")[2]
        with Image.open(io.BytesIO(base64.b64decode(seen))) as image:
            shown = np.asarray(image.convert("L")) / 255
        assert_allclose(shown, prepare_image(picture)[0, ..., 0], atol=0.01)

    def test_an_empty_paper_is_no_digit(self, address):
        status, content = ask(
            address, "POST", "/read", as_png(np.full((280, 280), 255, np.uint8))
        )
        assert (status, json.loads(content)) == (200, {"message": "draw a digit"})

    def test_of_several_digits_each_is_found_and_the_chosen_one_is_shown(
        self, address, digits, model_path
    ):
        pictures = [image.repeat(6, 0).repeat(6, 1) for image in digits.test_images[:3]]
        row = as_png(255 - np.hstack(pictures))
        found = [
            json.loads(ask(address, "POST", f"/read?digit={n}", row)[1])
            for n in (0, 1, 2, 9)
        ]
        model = HandwrittenNumberClassification.load(model_path)
        expected = model.predict_proba(digits.test_images[:3])
        for number, result in enumerate(found[:3]):
            assert result["chosen"] == number
            assert_allclose(result["probabilities"], expected[number], atol=0.15)
            assert result["message"].startswith(" ".join(result["names"]))
            lefts = [left for _, left, _, _ in result["boxes"]]
            assert_allclose(lefts, np.array([0.05, 0.38, 0.72]), atol=0.09)
            assert result["stages"] == []
        assert found[3]["chosen"] == 2
        shown = json.loads(ask(address, "POST", "/read?digit=0&stages", row)[1])
        titles = [stage["title"] for stage in shown["stages"]]
        assert titles == ["picture", "light on the paper", "ink", "without ruled lines"]

    def test_examples_are_pictures_that_it_reads(self, address):
        status, content = ask(address, "GET", "/example?7")
        assert status == 200
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (280, 280)
        assert b"probabilities" in ask(address, "POST", "/read", content)[1]

    @pytest.mark.parametrize(
        ("method", "path", "body", "headers", "status"),
        [
            ("GET", "/", None, {"Host": "digits.example"}, 403),
            ("GET", "/", None, {"Host": "127.0.0.1"}, 403),
            ("POST", "/read", b"1", {"Origin": "http://digits.example"}, 403),
            ("POST", "/read", b"1", {"Origin": "null"}, 403),
            ("GET", "/../run.py", None, {}, 404),
            ("GET", "/digits/digits.npz", None, {}, 404),
            ("GET", "/server.py", None, {}, 404),
            ("POST", "/", b"1", {}, 404),
            ("POST", "/read?digit=-1", b"1", {}, 404),
            ("POST", "/read?digit=0&stages=2", b"1", {}, 404),
            ("POST", "/read", b"1", {"Content_Length": "-1"}, 411),
            ("POST", "/read", b"1", {"Content_Length": "many"}, 411),
            ("POST", "/read", b"1", {"Content_Length": "20000001"}, 413),
            ("POST", "/read", b"", {}, 400),
            ("POST", "/read", b"no picture", {}, 400),
            ("POST", "/read", as_png(np.zeros((9, 9), np.uint8))[:40], {}, 400),
        ],
    )
    def test_what_it_cannot_answer_is_refused_and_it_goes_on(
        self, address, method, path, body, headers, status
    ):
        found, content = ask(address, method, path, body, **headers)
        assert found == status
        assert json.loads(content)["message"]
        assert ask(address, "GET", "/")[0] == 200

    def test_only_this_machine_is_served(self, digits):
        server = DrawingServer(
            0, HandwrittenNumberClassification(), digits.test_images[:1]
        )
        assert server.server_address[0] == "127.0.0.1"
        server.server_close()

    @pytest.mark.parametrize(
        ("path", "name", "kind"),
        [
            ("/", "index.html", "text/html"),
            ("/page.js", "page.js", "text/javascript"),
            ("/style.css", "style.css", "text/css"),
        ],
    )
    def test_the_page_is_a_document_a_script_and_a_style_sheet(
        self, address, path, name, kind
    ):
        status, headers, content = fetch(address, "GET", path)
        assert status == 200
        assert headers["Content-Type"] == f"{kind}; charset=utf-8"
        assert content == (ROOT / "digits" / "page" / name).read_bytes()
        assert not re.search(rb"(https?:)?//[a-z]+\.", content)

    @pytest.mark.parametrize("path", ["/", "/page.js", "/style.css", "/nothing"])
    def test_nothing_is_loaded_or_run_but_what_the_server_sends(self, address, path):
        policy = fetch(address, "GET", path)[1]["Content-Security-Policy"]
        rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))
        assert rules["default-src"] == "'none'"
        for source in ("script-src", "style-src", "connect-src"):
            assert rules[source] == "'self'"
        assert rules["img-src"] == "'self' data:"
        assert rules["frame-ancestors"] == "'none'"
        assert "unsafe" not in policy

    def test_the_document_has_no_script_or_style_within(self, address):
        document = ask(address, "GET", "/")[1].decode()
        assert re.findall("<script[^>]*>[^<]*", document) == ['<script src="page.js">']
        assert not re.search(r"<style|<[^>]* (style|on[a-z]+)=", document)


class TestClients:
    """What clients do that are slow, many or gone; to a server in this process."""

    @pytest.fixture
    def server(self, digits):
        model = HandwrittenNumberClassification()
        with DrawingServer(0, model, digits.test_images[:1]) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            yield server
            server.shutdown()
            thread.join()

    def connect(self, server):
        return socket.create_connection(server.server_address, timeout=20)

    def ask(self, server):
        return ask(f"127.0.0.1:{server.server_port}", "GET", "/")[0]

    def wait_for(self, condition):
        patience = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < patience
            time.sleep(0.01)

    def test_who_sends_a_byte_now_and_then_is_cut_off(self, server, monkeypatch):
        monkeypatch.setattr("digits.page.server.PATIENCE", 0.5)
        with self.connect(server) as connection:
            began = time.monotonic()
            connection.settimeout(0.02)
            connection.sendall(b"GET / HTTP/1.1\r\nX: ")
            answer = b""
            while not answer and time.monotonic() < began + 10:
                connection.sendall(b"x")
                with contextlib.suppress(TimeoutError):
                    answer = connection.recv(100)
        assert answer.startswith(b"HTTP/1.0 4")
        assert time.monotonic() - began > 0.4

    def test_a_picture_of_which_a_part_does_not_come_is_refused(
        self, server, monkeypatch
    ):
        monkeypatch.setattr("digits.page.server.PATIENCE", 0.5)
        address, drawing = f"127.0.0.1:{server.server_port}", np.eye(28) * 255
        picture = as_png(drawing.astype(np.uint8))
        assert ask(address, "POST", "/read", picture)[0] == 200
        short = {"Content_Length": str(len(picture) + 1)}
        assert ask(address, "POST", "/read", picture, **short)[0] == 400

    def test_no_more_than_the_most_are_at_work(self, server, monkeypatch):
        monkeypatch.setattr("digits.page.server.MOST_AT_ONCE", 2)
        before = threading.active_count()
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(self.connect(server))
            self.wait_for(lambda: len(server.arrivals) == 2)
            time.sleep(0.1)
            assert threading.active_count() == before + 2
        assert self.ask(server) == 200

    def test_those_who_wait_are_answered_once_the_slow_are_cut_off(
        self, server, monkeypatch
    ):
        monkeypatch.setattr("digits.page.server.MOST_AT_ONCE", 1)
        monkeypatch.setattr("digits.page.server.PATIENCE", 0.5)
        with self.connect(server):
            self.wait_for(lambda: server.arrivals)
            began = time.monotonic()
            assert self.ask(server) == 200
            assert time.monotonic() - began < 5

    def test_who_asks_to_be_kept_is_not(self, server):
        with self.connect(server) as connection:
            host = f"Host: 127.0.0.1:{server.server_port}"
            head = f"GET / HTTP/1.1\r\n{host}\r\nConnection: keep-alive\r\n\r\n"
            connection.sendall(head.encode())
            began = time.monotonic()
            with connection.makefile("rb") as answer:
                assert answer.read().endswith(server.files["/"][0])
            assert time.monotonic() - began < 5

    def test_who_leaves_is_not_spoken_of(self, server, monkeypatch, capsys):
        arrived, gone = threading.Event(), threading.Event()

        def read_slowly(*_):
            arrived.set()
            gone.wait(10)
            return {"steps": "x" * 10_000_000}  # More than the system keeps for us.

        monkeypatch.setattr(server, "read_drawing", read_slowly)
        with self.connect(server) as connection:
            host = f"Host: 127.0.0.1:{server.server_port}"
            head = f"POST /read HTTP/1.1\r\n{host}\r\nContent-Length: 1\r\n\r\n"
            connection.sendall(head.encode() + b"1")
            arrived.wait(10)
        gone.set()
        self.wait_for(lambda: not server.arrivals)
        assert capsys.readouterr().err == ""

    def test_an_error_of_our_own_is_shown_and_it_goes_on(self, server, capsys):
        files, server.files = server.files, None
        with pytest.raises(http.client.RemoteDisconnected):
            self.ask(server)
        self.wait_for(lambda: not server.arrivals)
        assert "TypeError" in capsys.readouterr().err
        server.files = files
        assert self.ask(server) == 200

    def test_at_its_end_what_is_under_way_is_still_answered(self, digits, monkeypatch):
        def read_slowly(*_):
            time.sleep(0.5)
            return {"steps": "x" * 20_000_000}

        before, model = threading.active_count(), HandwrittenNumberClassification()
        server = DrawingServer(0, model, digits.test_images[:1])
        monkeypatch.setattr(server, "read_drawing", read_slowly)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with ThreadPoolExecutor(1) as client:
            address = f"127.0.0.1:{server.server_port}"
            answer = client.submit(ask, address, "POST", "/read", b"1")
            self.wait_for(lambda: server.arrivals)
            time.sleep(0.2)
            server.shutdown()
            thread.join()
            server.server_close()
            assert threading.active_count() <= before + 1  # The client's.
            assert answer.result()[0] == 200

    def test_its_end_waits_for_no_client_and_leaves_no_thread(self, digits):
        before, model = threading.active_count(), HandwrittenNumberClassification()
        server = DrawingServer(0, model, digits.test_images[:1])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with self.connect(server):
            self.wait_for(lambda: server.arrivals)
            server.shutdown()
            began = time.monotonic()
            server.server_close()
            assert time.monotonic() - began < 5
        thread.join()
        assert threading.active_count() == before


def test_ctrl_c_comes_between_no_two_steps_of_an_answer(model_path, monkeypatch):
    process_request = DrawingServer.process_request

    def process_and_interrupt(*arguments):
        signal.raise_signal(signal.SIGINT)
        process_request(*arguments)

    monkeypatch.setattr(DrawingServer, "process_request", process_and_interrupt)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["draw", "--no-browser", "--port", str(port), "--data", str(DIGITS)]

    def ask_once_it_is_there():
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                return ask(f"127.0.0.1:{port}", "GET", "/")
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as client:
        answer = client.submit(ask_once_it_is_there)
        status = run.main([*command, "--model", str(model_path)])
        assert answer.result()[0] == 200
    assert status == run.INTERRUPTED


def test_a_browser_in_the_terminal_is_served_while_it_is_open(model_path, monkeypatch):
    seen = []

    def browse(address):
        host = address.removeprefix("http://").rstrip("/")
        seen.append(ask(host, "GET", "/")[0])
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("webbrowser.open", browse)
    command = ["draw", "--data", str(DIGITS), "--model", str(model_path)]
    assert run.main(command) == run.INTERRUPTED
    assert seen == [200]


def test_without_a_model_it_says_how_to_train_one(tmp_path, capsys):
    missing = str(tmp_path / "model.npz")
    assert run.main(["draw", "--model", missing, "--no-browser"]) == 2
    assert "Train one first: python run.py" in capsys.readouterr().err


@pytest.mark.skipif(not (BROWSER and DRIVER), reason="there is no Chromium to draw in")
class TestPage:
    @pytest.fixture
    def page(self, browser, address):
        browser.get(f"http://{address}/")
        return browser

    def wait_for(self, page, condition, still_busy=0):
        """Wait until so many readings are under way and the answer is right."""
        from selenium.webdriver.support.ui import WebDriverWait

        def is_met(page):
            busy, text = page.execute_script("return [busy, answer.textContent]")
            return busy == still_busy and condition(text)

        WebDriverWait(page, 20).until(is_met)

    def trace(self, page, places):
        """Draw a line with the mouse through places, in pixels from the middle."""
        from selenium.webdriver import ActionChains

        paper = page.find_element("id", "paper")
        actions = ActionChains(page, duration=20)
        actions.move_to_element_with_offset(paper, *places[0]).click_and_hold()
        for place in places[1:]:
            actions.move_to_element_with_offset(paper, *place)
        actions.release().perform()

    def test_a_1_and_a_0_are_read(self, page):
        self.wait_for(page, lambda text: text == "draw a digit")
        assert page.find_elements("css selector", "#steps img") == []
        self.trace(page, [(0, -90), (0, -30), (0, 30), (0, 90)])
        self.wait_for(page, lambda text: text.startswith("1 ("))
        script = "return [...document.images].map((picture) => picture.naturalWidth)"
        self.wait_for(
            page, lambda _: page.execute_script(script) == [28, 105, 37, 37, 49, 49]
        )
        page.find_element("id", "clear").click()
        self.wait_for(page, lambda text: text == "draw a digit")
        around = np.linspace(0, 2 * np.pi, 25)
        places = [(int(55 * np.sin(a)), int(-85 * np.cos(a))) for a in around]
        self.trace(page, places)
        self.wait_for(page, lambda text: text.startswith("0 ("))
        bar = page.find_element("css selector", ".fill")
        assert bar.size["width"] > 0.5 * bar.find_element("xpath", "..").size["width"]
        page.find_element("id", "undo").click()
        self.wait_for(page, lambda text: text == "draw a digit")

    def test_the_end_of_a_stroke_waits_for_no_reading_and_is_shown_last(self, page):
        self.wait_for(page, lambda text: text == "draw a digit")
        page.execute_script(
            """
            const ask = window.fetch, first = asked + 1;
            window.fetch = async (...request) => {
              const late = asked === first;
              const answer = await ask(...request);
              if (late) await new Promise((done) => { window.come = done; });
              return answer;
            };
            """
        )
        self.trace(page, [(0, -90), (0, -30), (0, 30), (0, 90)])
        self.wait_for(page, lambda text: text.startswith("1 ("), still_busy=1)
        page.execute_script("come()")
        self.wait_for(page, lambda text: text.startswith("1 ("))
        assert page.execute_script("return [asked - shown, stale]") == [0, False]

    def test_the_keyboard_draws_too(self, page):
        from selenium.webdriver.common.keys import Keys

        paper = page.find_element("id", "paper")
        paper.send_keys(" " + 16 * Keys.ARROW_DOWN + " ")
        self.wait_for(page, lambda text: text.startswith("1 ("))

    def test_an_example_is_read(self, page):
        page.find_element("id", "example").click()
        self.wait_for(page, lambda text: re.match(r"\d \(", text))

    def test_two_digits_are_told_apart_and_one_is_chosen(self, page):
        self.trace(page, [(-70, -70), (-70, 0), (-70, 70)])
        self.wait_for(page, lambda text: text.startswith("1"))
        self.trace(page, [(70, -70), (70, 0), (70, 70)])
        self.wait_for(page, lambda text: text.startswith("1 1"))
        boxes = page.find_elements("css selector", "#boxes div")
        paper = page.find_element("id", "paper").rect
        middles = [box.rect["x"] + box.rect["width"] / 2 - paper["x"] for box in boxes]
        assert_allclose(middles, [71, 211], atol=4)
        buttons = page.find_elements("css selector", "#digits button")
        assert [b.get_attribute("aria-pressed") for b in buttons] == ["true", "false"]
        buttons[1].click()
        chosen = "#digits button:nth-child(2)[aria-pressed=true]"
        self.wait_for(page, lambda _: page.find_elements("css selector", chosen))

    def test_a_photograph_is_read_and_how_it_was_is_shown(self, page, tmp_path, digits):
        picture = 255 - np.hstack(
            [
                image.repeat(9, 0)
                for image in [digits.test_images[n].repeat(9, 1) for n in (1, 4)]
            ]
        )
        exif = Image.Exif()
        exif[0x0112] = 6  # as a phone says: turn me by 90 degrees
        turned = Image.fromarray(picture).rotate(90, expand=True)
        turned.convert("RGB").save(tmp_path / "photograph.jpg", exif=exif)
        page.find_element("id", "file").send_keys(str(tmp_path / "photograph.jpg"))
        self.wait_for(page, lambda _: page.find_elements("css selector", "#found img"))
        assert len(page.find_elements("css selector", "#found img")) == 4
        boxes = page.find_elements("css selector", "#boxes div")
        paper = page.find_element("id", "paper").rect
        assert len(boxes) == 2
        assert boxes[0].rect["x"] < paper["x"] + 140 < boxes[1].rect["x"]
        assert abs(boxes[0].rect["y"] - paper["y"] - 90) < 30
        page.find_element("id", "clear").click()
        self.wait_for(page, lambda text: text == "draw a digit")
        assert page.find_elements("css selector", "#found img") == []

    def test_the_browser_complains_of_nothing(self, page):
        self.wait_for(page, lambda text: text == "draw a digit")
        page.get_log("browser")  # begins anew
        page.refresh()
        self.trace(page, [(0, -90), (0, -30), (0, 30), (0, 90)])
        self.wait_for(page, lambda text: text.startswith("1 ("))
        icon = "favicon.ico"  # Browsers ask for one by themselves.
        assert not [e for e in page.get_log("browser") if icon not in e["message"]]

    def test_it_fits_a_phone(self, page):
        page.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 360, "height": 700, "deviceScaleFactor": 2, "mobile": True},
        )
        wide = page.execute_script("return document.documentElement.scrollWidth")
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        assert wide <= 360
