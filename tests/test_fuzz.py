"""A short part of `fuzz.py`, of a fixed seed: some files for each of the doors."""

import io
import re
import sys
import time
import warnings

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

if sys.platform != "linux":
    pytest.skip("fuzz.py reads Linux's account of memory", allow_module_level=True)

import fuzz

from digits.pictures import read_image

FILES = 300


@pytest.fixture(scope="module")
def watch():
    return fuzz.Watch()


@pytest.mark.parametrize("name", fuzz.DOORS)
def test_files_of_strangers_are_read_or_refused_in_little_time_and_memory(name, watch):
    door = fuzz.DOORS[name]()
    door.giants = 0  # They take a while to draw.
    fuzz.warm_up(door)
    results = [fuzz.try_file(door, name, n, seed=1, watch=watch) for n in range(FILES)]
    assert [result for result in results if "broken" in result.outcome] == []
    assert {result.outcome for result in results} == {"loaded", "refused"}


class Careless:
    """A door that does with a file what no door may."""

    def __init__(self, act):
        self.act = act

    def write(self, rng, folder):
        (folder / "file").write_bytes(b"")
        return "nothing", folder / "file"

    def read(self, path):
        self.act(path)
        return True


def work_for(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda path: path.with_name("more").write_text("x"), "it did .*open"),
        (lambda path: path.rename(path.with_name("other")), "it did .*os.rename"),
        (lambda path: exec("1"), "it did .*exec"),
        (lambda path: bytearray(300_000_000), "30[0-9] MB|2[89][0-9] MB"),
        (lambda path: work_for(1.1), r"\d\.\d\d s, "),
        (lambda path: 1 / 0, "ZeroDivisionError"),
        (lambda path: int("x"), "ValueError"),
        (lambda path: warnings.warn("x", stacklevel=1), "UserWarning"),
    ],
)
def test_the_fuzzer_sees_what_breaks(act, said, watch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fuzz.try_file(Careless(act), "load", 0, 0, watch)
    assert result.outcome.startswith("broken")
    assert re.search(said, result.outcome)


def test_a_phones_photograph_of_50_megapixels_is_read_and_reduced():
    photograph = io.BytesIO(fuzz.draw_giant("JPEG", "RGB", 8160, 6144))
    assert read_image(photograph).shape == (768, 1020, 3)  # by 4, then by 2


def test_pictures_of_more_than_256_levels_keep_white_white():
    stroke = np.array([[0, 0.5, 1]])
    for levels in (
        (65535 * stroke).astype(np.uint16),
        (65535 * stroke).astype(np.int32),
        stroke.astype(np.float32),
        (255 * stroke).astype(np.float32),
    ):
        stream = io.BytesIO()
        Image.fromarray(levels).save(stream, "TIFF")
        assert read_image(stream)[0].tolist() in ([0, 127, 255], [0, 128, 255])


def test_no_certificate_goes_unchecked():
    weakened = "CERT_NONE|_create_unverified_context|check_hostname|verify *= *False"
    for path in (*ROOT.glob("*.py"), *ROOT.glob("digits/**/*.py")):
        assert not re.search(weakened, path.read_text(encoding="utf-8")), path
