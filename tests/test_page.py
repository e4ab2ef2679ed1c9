"""The page to draw digits on: its server, and the page in a real browser."""

import asyncio
import contextlib
import gzip
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from helpers import bombs
from helpers.page import running, serving
from numpy.testing import assert_allclose
from PIL import Image

import run
from digits.mnist import DIGITS
from digits.page.limits import MOST_HELD, Refusal, Turns
from digits.page.requests import decode_image
from digits.page.server import listen, read_drawing
from digits.pictures import name_digits, prepare_image
from handwritten_classifier import HandwrittenNumberClassification

PAGE = ROOT / "digits" / "page"


@pytest.fixture(scope="module")
def address(model_path):
    """Start the program, and return the host and port that it says."""
    with serving(model_path) as (process, address):
        yield address
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert errors == "\nInterrupted.\n" or errors == ""


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
        seen = decode_image(result["image"], (28, 28, 1), digits.test_images)
        assert np.array_equal(seen, prepare_image(picture))

    def test_grey_levels_are_read_like_the_same_picture_in_a_file(
        self, address, digits
    ):
        picture = 255 - digits.test_images[3].repeat(9, 0).repeat(7, 1)
        height, width = picture.shape
        sent = f"/read?digit=0&width={width}&height={height}"
        status, levels = ask(address, "POST", sent, picture.tobytes())
        assert status == 200
        assert ask(address, "POST", "/read?digit=0", as_png(picture)) == (200, levels)

    def test_where_most_are_in_doubt_it_says_why_that_may_be(self, digits, model_path):
        pictures = [image.repeat(6, 0).repeat(6, 1) for image in digits.test_images[:3]]
        row = 255 - np.hstack(pictures)
        untrained = HandwrittenNumberClassification()
        found = read_drawing(untrained, row)
        assert found["doubts"].startswith("Most are in doubt: the picture may be")
        trained = HandwrittenNumberClassification.load(model_path)
        assert read_drawing(trained, row)["doubts"] == ""
        assert read_drawing(untrained, 255 - pictures[0])["doubts"] == ""
        small = row.copy()
        small[20:56, 2:6] = small[100:136, 2:6] = 0
        line = "2 marks beside the digits were not read: most are much smaller"
        assert read_drawing(trained, small)["doubts"] == line

    @pytest.mark.parametrize(
        ("level", "message"), [(255, "draw a digit"), (None, "no ink found")]
    )
    def test_an_empty_paper_is_no_digit_and_no_ink_something_else(
        self, address, level, message
    ):
        picture = np.full((280, 280), 255, np.uint8)
        if level is None:  # Light that falls off, and nothing written.
            picture -= np.linspace(0, 60, 280).astype(np.uint8)
        status, content = ask(address, "POST", "/read", as_png(picture))
        assert (status, json.loads(content)) == (200, {"message": message})

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
            ("POST", "/read", b"1", {"Content_Length": "-1"}, 400),
            ("POST", "/read", b"1", {"Content_Length": "many"}, 400),
            ("POST", "/read", iter([b"1"]), {"Transfer_Encoding": "chunked"}, 411),
            ("DELETE", "/read", b"1", {}, 404),
            ("GET", "/" + "x" * 20_000, None, {}, 400),
            ("POST", "/read", b"1", {"Content_Length": "20000001"}, 413),
            ("POST", "/read", b"", {}, 400),
            ("POST", "/read", b"no picture", {}, 400),
            ("POST", "/read?digit=0&width=3&height=3", b"1" * 8, {}, 400),
            ("POST", "/read?digit=0&width=0&height=0", b"", {}, 404),
            ("POST", "/read?digit=0&width=9999&height=1", b"1" * 9999, {}, 400),
            ("POST", "/read?digit=0&width=99999&height=1", b"1" * 99999, {}, 404),
            ("POST", "/read?digit=0&width=3", b"1" * 9, {}, 404),
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

    def test_what_is_compressed_is_not_unpacked(self, address):
        packed = gzip.compress(as_png(np.full((9, 9), 255, np.uint8)))
        headers = {"Content_Encoding": "gzip"}
        assert ask(address, "POST", "/read", packed, **headers)[0] == 400

    def test_only_this_machine_is_served(self):
        with listen(0) as listener:
            assert listener.getsockname()[0] == "127.0.0.1"

    @pytest.mark.parametrize("bomb", bombs.BOMBS)
    def test_a_picture_that_is_hard_to_decode_keeps_nobody_waiting(self, address, bomb):
        good, picture = as_png(np.full((280, 280), 255, np.uint8)), bomb()
        assert ask(address, "POST", "/read", good)[0] == 200  # Imports take long.
        with ThreadPoolExecutor(3) as clients:
            bad = [
                clients.submit(ask, address, "POST", "/read", picture) for _ in range(3)
            ]
            time.sleep(0.3)
            began = time.monotonic()
            assert ask(address, "POST", "/read", good)[0] == 200
            assert ask(address, "GET", "/")[0] == 200
            assert time.monotonic() - began < 2
            assert {answer.result()[0] for answer in bad} <= {400, 503}

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            *((path.name, "text/javascript") for path in PAGE.glob("*.js")),
            ("index.html", "text/html"),
            ("style.css", "text/css"),
        ],
    )
    def test_the_page_is_a_document_scripts_and_a_style_sheet(
        self, address, name, kind
    ):
        path = "/" if name == "index.html" else f"/{name}"
        status, headers, content = fetch(address, "GET", path)
        assert status == 200
        assert headers["Content-Type"] == f"{kind}; charset=utf-8"
        token = re.search(b'name="token" content="([^"]*)"', content)
        of_server = token[1] if token else b""
        assert (
            content.replace(of_server, b"{{token}}" if of_server else b"")
            == (PAGE / name).read_bytes()
        )
        assert not re.search(rb"(https?:)?//[a-z]+\.[a-z]+/(?!2000/svg)", content)

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

    def test_the_icon_comes_with_the_document(self, address):
        document = ask(address, "GET", "/")[1].decode()
        icon = re.search('<link rel="icon" href="(.*)">', document)[1]
        status, headers, content = fetch(address, "GET", f"/{icon}")
        assert (status, headers["Content-Type"]) == (200, "image/png")
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (32, 32)

    def test_the_document_has_no_script_or_style_within(self, address):
        document = ask(address, "GET", "/")[1].decode()
        scripts = re.findall("<script[^>]*>[^<]*", document)
        assert scripts == ['<script type="module" src="page.js">']
        assert not re.search(r"<style|<[^>]* (style|on[a-z]+)=", document)


def running_new(digits):
    """Run a server with a network that has learned nothing, and one test image."""
    models = {"new": HandwrittenNumberClassification()}
    return running(models, digits.test_images[:1], digits.test_labels[:1])


def connect(address):
    host, _, port = address.partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def wait_for(condition):
    patience = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.01)


def is_closed(connection):
    """Return whether the server ends a connection, perhaps after an answer."""
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(1000):
            pass
    return True


def head(address, length, path="/read"):
    """Return the start of a request with a picture of so many bytes."""
    lines = (f"POST {path} HTTP/1.1", f"Host: {address}", f"Content-Length: {length}")
    return "".join(f"{line}\r\n" for line in lines).encode()


class TestClients:
    """What clients do that are slow, many or gone; to a server in this process."""

    @pytest.fixture
    def server(self, digits):
        with running_new(digits) as server:
            yield server

    @pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nX: "])
    def test_who_sends_a_byte_now_and_then_is_cut_off(self, sent, server, monkeypatch):
        monkeypatch.setattr("digits.page.limits.PATIENCE", 0.5)
        with connect(server[1]) as connection:
            began = time.monotonic()
            connection.sendall(sent)
            connection.settimeout(0.02)
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < began + 10:
                    if sent:
                        connection.sendall(b"x")
                    with contextlib.suppress(TimeoutError):
                        status, content = connection.recv(1000).split(b"\r\n\r\n")
                        break
        assert status.startswith(b"HTTP/1.1 408 ")
        assert f"Content-Length: {len(content)}" in status.decode()
        assert json.loads(content)["message"]
        assert 0.4 < time.monotonic() - began < 5

    def test_a_picture_of_which_a_part_does_not_come_is_refused(
        self, server, monkeypatch
    ):
        monkeypatch.setattr("digits.page.limits.PATIENCE", 0.5)
        picture = as_png((np.eye(28) * 255).astype(np.uint8))
        assert ask(server[1], "POST", "/read", picture)[0] == 200
        short = {"Content_Length": str(len(picture) + 1)}
        assert ask(server[1], "POST", "/read", picture, **short)[0] == 408

    def test_who_does_not_take_the_answer_is_cut_off(self, server, monkeypatch):
        monkeypatch.setattr("digits.page.limits.PATIENCE", 0.5)
        monkeypatch.setattr(server[0], "read_drawing", lambda *_: b"x" * 50_000_000)
        with connect(server[1]) as connection:
            picture = as_png(np.zeros((9, 9), np.uint8))
            connection.sendall(head(server[1], len(picture)) + b"\r\n" + picture)
            time.sleep(1.5)
            received = 0
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(1 << 20):
                    received += len(part)
        assert received < 50_000_000

    @pytest.mark.parametrize("length", [None, 9, 30_000_000])
    def test_of_too_many_connections_the_oldest_is_closed(
        self, server, monkeypatch, length
    ):
        monkeypatch.setattr("digits.page.limits.MOST_CONNECTIONS", 3)
        server, address = server
        with contextlib.ExitStack() as stack:
            slow = []
            for count in range(1, 6):
                slow.append(stack.enter_context(connect(address)))
                slow[-1].sendall(head(address, length) + b"\r\nx" if length else b"GE")
                wait_for(lambda count=count: len(server.waiting) == min(count, 3))
                time.sleep(0.05)
            assert ask(address, "GET", "/")[0] == 200
            assert [is_closed(connection) for connection in slow[:3]] == [True] * 3
        wait_for(lambda: not server.waiting)

    def test_if_uploads_take_too_much_the_largest_is_refused(self, server, monkeypatch):
        monkeypatch.setattr("digits.page.limits.MOST_HELD", 1000)
        server, address = server
        sizes = server.uploads.sizes
        with connect(address) as small, connect(address) as large:
            small.sendall(head(address, 5000) + b"\r\n" + b"x" * 400)
            wait_for(lambda: list(sizes.values()) == [400])
            large.sendall(head(address, 5000) + b"\r\n" + b"x" * 500)
            wait_for(lambda: sorted(sizes.values()) == [400, 500])
            noise = np.random.default_rng(0).integers(0, 256, (12, 12), np.uint8)
            assert 101 < len(as_png(noise)) < 400
            assert ask(address, "POST", "/read", as_png(noise))[0] == 200
            assert large.recv(100).startswith(b"HTTP/1.1 503")
            small.sendall(b"x" * 50)
            wait_for(lambda: list(sizes.values()) == [450])

    def test_who_asks_to_be_kept_is_not(self, server):
        with connect(server[1]) as connection:
            host = f"Host: {server[1]}"
            request = f"GET / HTTP/1.1\r\n{host}\r\nConnection: keep-alive\r\n\r\n"
            connection.sendall(request.encode())
            began = time.monotonic()
            with connection.makefile("rb") as answer:
                assert answer.read().endswith(server[0].files["/"][0])
            assert time.monotonic() - began < 5

    def test_who_leaves_is_not_spoken_of(self, server, monkeypatch, capsys):
        arrived, gone = threading.Event(), threading.Event()

        def read_slowly(*_):
            arrived.set()
            gone.wait(10)
            return b"x" * 10_000_000  # More than the system keeps for us.

        server, address = server
        monkeypatch.setattr(server, "read_drawing", read_slowly)
        with connect(address) as connection:
            levels = head(address, 1, "/read?digit=0&width=1&height=1")
            connection.sendall(levels + b"\r\n1")
            arrived.wait(10)
        gone.set()
        wait_for(lambda: not server.uploads.sizes)
        assert capsys.readouterr().err == ""

    def test_an_error_of_our_own_is_shown_and_it_goes_on(self, server, caplog):
        server, address = server
        files, server.files = server.files, None
        status, content = ask(address, "GET", "/")
        assert (status, json.loads(content)["message"][:19]) == (
            500,
            "the program failed:",
        )
        assert "TypeError" in caplog.text
        server.files = files
        assert ask(address, "GET", "/")[0] == 200

    def test_at_its_end_what_is_under_way_is_still_answered(self, digits, monkeypatch):
        def read_slowly(*_):
            time.sleep(0.2)
            return b"x" * 1_000_000

        before = threading.active_count()
        with ThreadPoolExecutor(1) as client:
            with running_new(digits) as (server, address):
                monkeypatch.setattr(server, "read_drawing", read_slowly)
                levels = "/read?digit=0&width=1&height=1"
                answer = client.submit(ask, address, "POST", levels, b"1")
                wait_for(lambda: server.uploads.sizes)
                time.sleep(0.1)
            assert answer.result()[0] == 200
        wait_for(lambda: threading.active_count() <= before)

    def test_its_end_waits_for_no_client(self, digits):
        with running_new(digits) as (server, address), contextlib.ExitStack() as stack:
            for sent in (b"", b"GET / HTTP/1.1\r\nX: ", head(address, 9) + b"\r\n12"):
                stack.enter_context(connect(address)).sendall(sent)
            wait_for(lambda: server.uploads.sizes)
            began = time.monotonic()
        assert time.monotonic() - began < 2


class TestCrowds:
    """Many clients at once, to the program in a process of its own."""

    def test_a_good_request_is_answered_beside_100_that_trickle(self, address):
        good = as_png(np.full((280, 280), 255, np.uint8))
        stop = threading.Event()
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(connect(address)) for _ in range(100)]
            for number, connection in enumerate(slow):
                start = (
                    head(address, 20_000_000) + b"\r\n" if number % 2 else b"GET / H"
                )
                connection.sendall(start)

            def trickle():
                while not stop.wait(0.1):
                    for connection in slow:
                        with contextlib.suppress(OSError):
                            connection.sendall(b"x")

            threads = stack.enter_context(ThreadPoolExecutor(1))
            threads.submit(trickle)
            time.sleep(1)
            try:
                for method, path, body in (("GET", "/", None), ("POST", "/read", good)):
                    began = time.monotonic()
                    assert ask(address, method, path, body)[0] == 200
                    assert time.monotonic() - began < 1
            finally:
                stop.set()

    @pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
    def test_pictures_that_never_end_take_a_bounded_memory(self, model_path):
        good = as_png(np.full((280, 280), 255, np.uint8))
        size = 20_000_000
        with serving(model_path) as (process, address):
            assert ask(address, "POST", "/read", good)[0] == 200
            before = memory_of(process.pid)
            with contextlib.ExitStack() as stack:
                for _ in range(32):
                    connection = stack.enter_context(connect(address))
                    with contextlib.suppress(OSError):  # It may be refused.
                        connection.sendall(head(address, size) + b"\r\n")
                        connection.sendall(bytes(size - 1))
                began = time.monotonic()
                assert ask(address, "POST", "/read", good)[0] == 200
                assert time.monotonic() - began < 1
                # Beside the pictures, a connection has buffers.
                assert memory_of(process.pid) < before + MOST_HELD / 1e6 + 25

    @pytest.mark.parametrize("crowd", ["bad pictures", "slow clients", "nobody"])
    def test_ctrl_c_ends_it_soon(self, model_path, crowd):
        with (
            serving(model_path) as (process, address),
            contextlib.ExitStack() as stack,
        ):
            if crowd == "bad pictures":
                bomb = bombs.progressive_jpeg()
                for _ in range(3):
                    connection = stack.enter_context(connect(address))
                    connection.sendall(head(address, len(bomb)) + b"\r\n" + bomb)
            elif crowd == "slow clients":
                for sent in (b"", b"GET / HT", head(address, 9) + b"\r\n12"):
                    stack.enter_context(connect(address)).sendall(sent)
            time.sleep(0.3)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=20)
            assert time.monotonic() - began < 2
            assert (process.returncode, output, errors) == (130, "", "\nInterrupted.\n")


def memory_of(process):
    """Return the memory of a process but for files that it has mapped, in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    sizes = re.findall(r"(?:RssAnon|RssShmem):\s+(\d+)", status)
    return sum(map(int, sizes)) / 1000


def test_the_least_work_is_next_and_those_who_left_are_passed_over():
    done = []

    async def work(turns, size):
        async with turns.take(size):
            done.append(size)
            await asyncio.sleep(0)

    async def crowd():
        turns = Turns()
        async with turns.take(0):
            sizes = (5, 2, 9, 2, 7)
            tasks = [asyncio.ensure_future(work(turns, size)) for size in sizes]
            await asyncio.sleep(0)
            tasks[-1].cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        async with turns.take(1):
            done.append(1)

    asyncio.run(crowd())
    assert done == [2, 2, 5, 9, 1]


def test_if_too_many_wait_the_one_with_the_most_work_is_refused(monkeypatch):
    monkeypatch.setattr("digits.page.limits.MOST_WAITING", 3)
    outcomes = {}

    async def work(turns, size):
        try:
            async with turns.take(size):
                outcomes[size] = "read"
        except Refusal as refusal:
            outcomes[size] = refusal.status

    async def crowd():
        turns = Turns()
        async with turns.take(0):
            sizes = (5, 2, 9, 3, 7)
            tasks = [asyncio.ensure_future(work(turns, size)) for size in sizes]
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)

    asyncio.run(crowd())
    assert outcomes == {9: 503, 7: 503, 2: "read", 3: "read", 5: "read"}


def test_who_waits_at_the_end_is_refused_and_no_turn_is_given():
    outcomes = []

    async def work(turns):
        try:
            async with turns.take(1):
                outcomes.append("read")
        except Refusal as refusal:
            outcomes.append(str(refusal))

    async def crowd():
        turns = Turns()
        async with turns.take(0):
            waiting = asyncio.ensure_future(work(turns))
            await asyncio.sleep(0)
            turns.close()
            await waiting
        await work(turns)

    asyncio.run(crowd())
    assert outcomes == ["the program ends"] * 2


def test_a_port_in_use_is_named(model_path, capsys):
    command = ["draw", "--no-browser", "--model", str(model_path)]
    with listen(0) as listener:
        port = str(listener.getsockname()[1])
        assert run.main([*command, "--data", str(DIGITS), "--port", port]) == 2
    assert f"--port must be free; got {port} (" in capsys.readouterr().err
    for port in ("65536", "-1"):
        assert run.main([*command, "--port", port]) == 2
        assert f"must be in 0..65535; got {port}" in capsys.readouterr().err


def test_without_aiohttp_all_else_works_and_this_says_what_to_install(model_path):
    code = (
        "import sys; sys.modules['aiohttp'] = None; import run\n"
        f"sys.exit(run.main(['draw', '--model', {str(model_path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "aiohttp" in done.stderr
    assert "pip install -r requirements.txt" in done.stderr


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


def test_a_model_that_is_not_there_is_an_error(tmp_path, capsys):
    missing = str(tmp_path / "model.npz")
    assert run.main(["draw", "--model", missing, "--no-browser"]) == 2
    assert f"got {missing}, where there is none" in capsys.readouterr().err


def test_it_draws_offline_without_a_model_data_or_a_download(
    environment, tmp_path, digits
):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('imported')")
    command = [sys.executable, str(ROOT / "run.py"), "draw", "--no-browser"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            said, _, opened = (process.stdout.readline() for _ in range(3))
            assert said.startswith("Model: the ready one, digits/model.npz, ")
            host = re.search(r"http://(127\.0\.0\.1:\d+)/;", opened)[1]
            status, models = ask(host, "GET", "/models")[:2]
        finally:
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=20)[1]
    assert status == 200
    assert len(json.loads(models)["models"]) == 1
    assert errors == "\nInterrupted.\n"
