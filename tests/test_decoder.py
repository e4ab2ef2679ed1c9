"""The process that decodes pictures: its limits, and that it leaves nothing behind."""

import os
import signal
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
from helpers.program import STRICT
from numpy.testing import assert_array_equal
from PIL import Image

import digits.decoder
from digits.decoder import decode_picture
from digits.pictures import read_image

SLACK = 1.0  # seconds: to replace the process, and for tests that run beside this one
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")


@pytest.fixture
def picture(tmp_path, rng):
    """Return the file of a picture, and its levels."""
    levels = rng.integers(0, 256, size=(20, 30), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png", levels


def find_decoders(parent):
    """Return the processes that decode for a process, or for any with None."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            owner = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # It has ended by now.
            continue
        if digits.decoder.__file__.encode() in command and parent in (None, owner):
            found.append(int(folder.name))
    return found


def wait_for(condition, seconds=10):
    patience = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.02)


def is_gone(process):
    """Return whether a process has ended, collected by its parent or not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


class TestLimits:
    @pytest.mark.parametrize("bomb", bombs.BOMBS)
    def test_what_takes_too_long_or_too_much_is_refused_in_time(
        self, bomb, picture, tmp_path
    ):
        path, levels = picture
        read_image(path)
        file = tmp_path / "bomb"
        file.write_bytes(bomb())
        began = time.monotonic()
        required = "image must be a whole picture .* decodes in 1 s and 200 MB; got one"
        with pytest.raises(ValueError, match=required):
            read_image(file)
        assert time.monotonic() - began < 1 + SLACK
        assert_array_equal(read_image(path), levels)
        assert time.monotonic() - began < 1 + 2 * SLACK

    @linux
    def test_memory_stays_within_the_limit(self, picture):
        read_image(picture[0])
        (process,) = find_decoders(os.getpid())
        status = Path(f"/proc/{process}/status")

        def peak():
            line = next(x for x in status.read_text().splitlines() if "VmHWM" in x)
            return int(line.split()[1]) / 1000

        before, peaks, done = peak(), [], threading.Event()

        def watch():
            while not done.is_set():
                try:
                    peaks.append(peak())
                except (OSError, StopIteration):  # It was replaced.
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        with pytest.raises(ValueError, match="takes more than 200 MB"):
            decode_picture(bombs.deflated_tile())
        done.set()
        watcher.join()
        assert max(peaks) < before + 200

    def test_the_limit_of_time_holds_where_memory_has_none(self, monkeypatch, picture):
        monkeypatch.setattr(digits.decoder, "SECONDS", 0.2)
        with pytest.raises(ValueError, match=r"decodes in 0.2 s .* more than 0.2 s"):
            decode_picture(bombs.runs_of_one_pixel())
        monkeypatch.undo()
        assert_array_equal(read_image(picture[0]), picture[1])

    def test_a_large_picture_is_read_over_and_over(self, tmp_path):
        Image.new("RGBA", (2500, 2500), "gray").save(tmp_path / "large.png")
        content = (tmp_path / "large.png").read_bytes()
        shapes = {decode_picture(content).shape for _ in range(10)}
        assert shapes == {(1250, 1250, 4)}

    def test_a_file_that_is_too_large_is_not_read_to_its_end(self, tmp_path):
        with open(tmp_path / "large.png", "wb") as file:
            file.truncate(10**12)  # Sparse: it takes no room.
        required = "image must be a whole picture .* got: a file of more than 100,000,"
        with pytest.raises(ValueError, match=required):
            read_image(tmp_path / "large.png")

    def test_the_second_process_ends_itself_if_nobody_ends_it(self, monkeypatch):
        monkeypatch.setattr(digits.decoder, "SECONDS", 20)
        began = time.monotonic()
        with pytest.raises(ValueError, match="got one that ends the decoder"):
            decode_picture(bombs.progressive_jpeg(scans=5000))
        assert time.monotonic() - began < 2 + 2 * SLACK


class TestMessages:
    @pytest.mark.parametrize(
        "content", [b"", b"no picture", bombs.small_picture("PNG")[:45]]
    )
    def test_what_is_no_picture_is_refused(self, tmp_path, content):
        (tmp_path / "file").write_bytes(content)
        formats = "BMP, GIF, JPEG, PNG, TIFF, WEBP"
        required = rf"^image must be a whole picture \({formats}\); got: \w"
        with pytest.raises(ValueError, match=required):
            read_image(tmp_path / "file")

    def test_what_is_no_file_is_refused_or_the_systems_error(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            read_image(tmp_path / "missing.png")
        for path in (None, 3.5, np.zeros((9, 9)), "with\0null"):
            with pytest.raises(ValueError, match="image must be a whole picture"):
                read_image(path)
        with (
            open(__file__, encoding="utf-8") as text,
            pytest.raises(ValueError, match="got: a file of str"),
        ):
            read_image(text)

    def test_a_process_that_cannot_start_is_an_error(self, monkeypatch, picture):
        digits.decoder._DECODER.close()
        monkeypatch.setattr(digits.decoder, "__file__", str(picture[0]))
        with pytest.raises(ChildProcessError, match="must start; got exit status 1"):
            read_image(picture[0])
        monkeypatch.undo()
        assert_array_equal(read_image(picture[0]), picture[1])


class TestProcess:
    def test_threads_get_each_their_own_picture(self, tmp_path):
        for shade in range(20):
            image = np.full((10 + shade, 10), shade, np.uint8)
            Image.fromarray(image).save(tmp_path / f"{shade}.png")
        with ThreadPoolExecutor(8) as threads:
            paths = [tmp_path / f"{shade}.png" for shade in range(20)] * 10
            for number, image in enumerate(threads.map(read_image, paths)):
                shade = number % 20
                assert_array_equal(image, np.full((10 + shade, 10), shade))

    @linux
    @linux
    def test_stopped_by_another_thread_it_is_not_started_again(self, picture):
        path, levels = picture
        decode_picture(path.read_bytes())
        with ThreadPoolExecutor(1) as threads:
            pending = threads.submit(decode_picture, bombs.progressive_jpeg())
            time.sleep(0.2)
            digits.decoder.stop_decoding()
            assert "ends the decoder" in str(pending.exception())
        assert find_decoders(os.getpid()) == []
        assert_array_equal(decode_picture(path.read_bytes()), levels)

    def test_it_is_kept_and_replaced_when_it_was_ended(self, picture):
        path, levels = picture
        read_image(path)
        before = find_decoders(os.getpid())
        assert len(before) == 1
        read_image(path)
        assert find_decoders(os.getpid()) == before
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: is_gone(before[0]))
        assert_array_equal(read_image(path), levels)
        assert len(set(find_decoders(os.getpid())) - set(before)) == 1

    @linux
    def test_a_fork_has_a_process_of_its_own(self, picture, tmp_path):
        script = tmp_path / "script.py"  # A fork of pytest's own threads may hang.
        script.write_text(
            "import multiprocessing, sys\n"
            f"sys.path.insert(0, {str(ROOT)!r})\n"
            "from digits.pictures import read_image\n"
            "from digits.decoder import _DECODER\n"
            f"paths = [{str(picture[0])!r}] * 6\n"
            "image = read_image(paths[0])\n"
            "process = _DECODER._process\n"
            "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
            "    images = pool.map(read_image, paths)\n"
            "assert all((other == image).all() for other in images)\n"
            "assert (read_image(paths[0]) == image).all()\n"
            "assert _DECODER._process is process\n"
        )
        done = subprocess.run(
            [sys.executable, *STRICT, "script.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_script_needs_no_guard_and_leaves_no_process(self, picture, tmp_path):
        script = tmp_path / "script.py"
        script.write_text(
            "import sys\n"
            f"sys.path.insert(0, {str(ROOT)!r})\n"
            "from digits.pictures import read_image\n"
            f"print(read_image({str(picture[0])!r}).shape)\n"
            "from digits.decoder import _DECODER\n"
            "print(_DECODER._process.pid)\n"
        )
        done = subprocess.run(
            [sys.executable, *STRICT, "script.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        shape, process = done.stdout.splitlines()
        assert shape == "(20, 30)"
        if sys.platform == "linux":
            wait_for(lambda: is_gone(process))

    @linux
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_it_ends_with_the_first_process_while_it_works(self, tmp_path, number):
        (tmp_path / "bomb").write_bytes(bombs.progressive_jpeg())
        script = tmp_path / "script.py"
        script.write_text(
            "import sys\n"
            f"sys.path.insert(0, {str(ROOT)!r})\n"
            "from digits.pictures import read_image\n"
            "from digits import decoder\n"
            "decoder.SECONDS = 60\n"
            "read_image('bomb')\n"
        )
        with subprocess.Popen(
            [sys.executable, "script.py"], cwd=tmp_path, stderr=subprocess.DEVNULL
        ) as parent:
            wait_for(lambda: find_decoders(parent.pid))
            (process,) = find_decoders(parent.pid)
            time.sleep(0.5)
            began = time.monotonic()
            parent.send_signal(number)
            parent.wait(10)
            wait_for(lambda: is_gone(process))
            assert time.monotonic() - began < 2 + SLACK

    @linux
    def test_ctrl_c_in_a_terminal_does_not_end_it(self, picture):
        read_image(picture[0])
        (process,) = find_decoders(os.getpid())
        os.kill(process, signal.SIGINT)
        read_image(picture[0])
        assert find_decoders(os.getpid()) == [process]
