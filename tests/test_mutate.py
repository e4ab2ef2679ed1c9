"""What `mutate.py` says of mutants that tests notice, and of those that they do not."""

import subprocess
import sys

import pytest
from conftest import ROOT

if sys.platform != "linux":
    pytest.skip("mutate.py forks", allow_module_level=True)

import mutate


def try_mutants_of_relu(tests):
    command = [sys.executable, "tests/programs/mutate.py", "relu", "--tests", tests]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_mutants_that_make_a_test_fall_are_killed():
    ended = try_mutants_of_relu("test_steps.py")
    count = str(len(mutate.find_mutants("relu")))
    assert ended.stdout.splitlines()[-1].split() == ["all", count, count, "0", "0"]
    assert ended.returncode == 0


def test_mutants_that_no_test_notices_survive():
    ended = try_mutants_of_relu("test_steps.py::TestFlatten")
    count = str(len(mutate.find_mutants("relu")))
    assert ended.stdout.splitlines()[-1].split() == ["all", count, "0", "0", count]
    assert (
        "    return np.maximum(x, 0, out=out)\n    return np.minimum(" in ended.stdout
    )
    assert ended.returncode == 1


def test_each_mutant_is_another_function():
    for name in mutate.find_methods():
        mutants = mutate.find_mutants(name)
        assert len({mutant.text for mutant in mutants}) == len(mutants) > 0
        assert all(mutant.before != mutant.after for mutant in mutants)


def test_functions_are_taken_from_the_sections_of_the_source(monkeypatch):
    methods = mutate.find_methods()
    steps = {
        "generate_patches",
        "unpool",
        "softmax",
        "_backward",
        "_sample",
        "_windows",
    }
    assert steps | set(mutate.OTHERS) <= set(methods)
    assert not {"fit", "save", "summary", "_check_labels"} & set(methods)
    monkeypatch.setattr(mutate, "OTHERS", ["_train_badge"])
    with pytest.raises(LookupError, match=r"must have \['_train_badge'\]; got none"):
        mutate.find_methods()


def test_equivalent_mutants_are_those_of_the_source():
    for name, before, after in mutate.EQUIVALENT:
        known = {(mutant.before, mutant.after) for mutant in mutate.find_mutants(name)}
        assert (before, after) in known, f"{name}: {before}"


def test_what_an_error_says_is_left_alone():
    lines = {mutant.before for mutant in mutate.find_mutants("_recall_pooling")}
    assert "mask = np.asarray(mask)" in lines
    assert not [line for line in lines if "raise" in line]
