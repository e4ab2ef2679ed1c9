"""A short part of `fuzz.py`, of a fixed seed: some files for each of the doors."""

import re
import sys
import time
import warnings

import pytest

if sys.platform != "linux":
    pytest.skip("fuzz.py reads Linux's account of memory", allow_module_level=True)

import fuzz

FILES = 300


@pytest.fixture(scope="module")
def watch():
    return fuzz.Watch()


@pytest.mark.parametrize("name", fuzz.DOORS)
def test_files_of_strangers_are_read_or_refused_in_little_time_and_memory(name, watch):
    door = fuzz.DOORS[name]()
    door.giants = door.hard = 0  # They take a while.
    fuzz.warm_up(door)
    results = [fuzz.try_file(door, name, n, seed=1, watch=watch) for n in range(FILES)]
    assert [result for result in results if "broken" in result.outcome] == []
    assert {result.outcome for result in results} == {"loaded", "refused"}


def test_pictures_that_are_hard_to_decode_are_refused_in_time(watch):
    door = fuzz.Predict()
    fuzz.warm_up(door)
    door.hard = 1.0
    results = [
        fuzz.try_file(door, "predict", n, seed=2, watch=watch) for n in range(12)
    ]
    assert [result for result in results if "broken" in result.outcome] == []
    assert "refused" in {result.outcome for result in results}
    assert len({result.done.split()[0] for result in results}) > 3


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
        (lambda path: time.sleep(4.1), "4.[1-9][0-9] s by the clock"),
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
