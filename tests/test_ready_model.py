"""The model that is ready to use: digits/model.npz, and the program that makes it."""

import json
import re
import shutil
import zipfile

import numpy as np
import pytest
from conftest import ROOT
from make_model import make_model

import run
from digits.mnist import DIGITS, read_data
from handwritten_classifier import HandwrittenNumberClassification


@pytest.fixture(scope="module")
def ready():
    return HandwrittenNumberClassification.load(ROOT / "digits" / "model.npz")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return the folder of a short run on the embedded digits."""
    folder = tmp_path_factory.mktemp("results")
    flags = ["--data", str(DIGITS), "--output", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "write_figure", lambda *_: None)  # They are not looked at.
        assert run.main([*flags, "--recipe", "source", "--epochs", "1"]) == 0
    return folder


@pytest.fixture
def copy(results, tmp_path):
    return shutil.copytree(results, tmp_path / "results")


def test_it_is_small():
    assert (ROOT / "digits" / "model.npz").stat().st_size <= 1_500_000


def test_the_readme_has_the_command_that_makes_it(ready):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    made = "python tests/programs/make_model.py results/model.npz"
    flags = re.search(rf"`python run.py( --recipe[^&`]+) &&\s+{made}`", readme)[1]
    args = run.build_parser().parse_args(flags.split())
    assert args.recipe == ready.metadata["recipe"]
    assert ready.metadata["held_out"] == int(args.held_out)
    settings = run.chosen_settings(args, run.RECIPES[args.recipe])
    model = HandwrittenNumberClassification(**settings)
    assert model.get_params() == ready.get_params()
    assert len(ready.history["loss"]) == ready.epochs


def test_it_reads_other_hands_than_mnists(ready, digits):
    images = np.concatenate([digits.train_images, digits.test_images])
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    assert ready.score(images, labels) >= 0.93


def test_it_was_trained_on_mnist_and_is_as_accurate_as_it_says(ready, mnist_path):
    data = read_data(mnist_path)
    assert ready.metadata["data"] == "MNIST"
    assert ready.metadata["checksum"] == run.checksum(data[2:])
    accuracy = ready.score(data.test_images, data.test_labels)
    assert accuracy == pytest.approx(ready.metadata["test_accuracy"], abs=1e-4)


def test_it_names_no_file_of_the_machine_that_trained_it(ready):
    assert not re.search(r"[/\\]", json.dumps(ready.metadata))


class TestMakeModel:
    def test_it_keeps_the_model_and_says_how_accurate_it_is(self, results, tmp_path):
        make_model(results / "model.npz", tmp_path / "ready.npz")
        trained = HandwrittenNumberClassification.load(results / "model.npz")
        ready = HandwrittenNumberClassification.load(tmp_path / "ready.npz")
        np.testing.assert_equal(ready.parameters, trained.parameters)
        assert ready.get_params() == trained.get_params()
        assert ready.history == trained.history
        metrics = json.loads((results / "metrics.json").read_text())
        kept = {name: metrics[name] for name in ("recipe", "checksum", "test_accuracy")}
        expected = kept | {"images": 1250, "held_out": 250, "data": "embedded digits"}
        assert ready.metadata == expected

    def test_what_only_training_needs_is_left_out(self, results, tmp_path):
        make_model(results / "model.npz", tmp_path / "ready.npz")
        with zipfile.ZipFile(tmp_path / "ready.npz") as archive:
            kinds = {entry.compress_type for entry in archive.infolist()}
        assert kinds == {zipfile.ZIP_DEFLATED}
        with np.load(tmp_path / "ready.npz") as arrays:
            velocity = [arrays[n] for n in arrays if n.startswith("velocity.")]
            assert velocity
            assert not any(array.any() for array in velocity)

    def test_the_same_model_makes_the_same_file(self, results, tmp_path):
        for name in ("one.npz", "two.npz"):
            make_model(results / "model.npz", tmp_path / name)
        one, two = ((tmp_path / f"{n}.npz").read_bytes() for n in ("one", "two"))
        assert one == two

    def test_without_numbers_beside_it_no_accuracy_is_said(self, copy, tmp_path):
        (copy / "metrics.json").unlink()
        make_model(copy / "model.npz", tmp_path / "ready.npz")
        ready = HandwrittenNumberClassification.load(tmp_path / "ready.npz")
        assert "test_accuracy" not in ready.metadata

    @pytest.mark.parametrize("change", [{"complete": False}, {"history": {}}])
    def test_the_numbers_of_another_run_are_refused(self, copy, tmp_path, change):
        metrics = json.loads((copy / "metrics.json").read_text())
        (copy / "metrics.json").write_text(json.dumps(metrics | change))
        with pytest.raises(ValueError, match="must be of the whole run that trained"):
            make_model(copy / "model.npz", tmp_path / "ready.npz")
        assert not (tmp_path / "ready.npz").exists()
