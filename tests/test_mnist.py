"""Where the data come from, what is refused, and how they are split."""

import gzip

import numpy as np
import pytest
from helpers.program import names
from numpy.testing import assert_array_equal

from digits.mnist import DIGITS, load_data, split_training


def as_idx(array):
    """Return an array as the bytes of an IDX file."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


@pytest.fixture
def arrays(rng):
    return {
        "x_train": rng.integers(0, 256, size=(20, 28, 28), dtype=np.uint8),
        "y_train": rng.integers(0, 10, size=20, dtype=np.uint8),
        "x_test": rng.integers(0, 256, size=(5, 28, 28), dtype=np.uint8),
        "y_test": rng.integers(0, 10, size=5, dtype=np.uint8),
    }


def check(data, arrays):
    for found, expected in zip(data[2:], arrays.values(), strict=True):
        assert_array_equal(found, expected)


def test_a_keras_file(tmp_path, arrays):
    np.savez(tmp_path / "mnist.npz", **arrays)
    data = load_data(tmp_path / "mnist.npz")
    check(data, arrays)
    assert not data.embedded


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_folder_of_idx_files(tmp_path, arrays, dot, zipped):
    for (part, kind), array in zip(
        (
            ("train-images", "idx3"),
            ("train-labels", "idx1"),
            ("t10k-images", "idx3"),
            ("t10k-labels", "idx1"),
        ),
        arrays.values(),
        strict=True,
    ):
        content = as_idx(array)
        path = tmp_path / f"{part}{dot}{kind}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(content) if zipped else content)
    (tmp_path / "train-images-idx3-ubyte-folder").mkdir()  # Some archives have one.
    check(load_data(tmp_path), arrays)

    path = next(tmp_path.glob("t10k-images*"))
    whole = path.read_bytes()
    overwritten = whole[:40] + b"\xff" * 40 + whole[80:] + b"more"
    page = b"<html>Not Found</html>"
    for damaged in (whole[:-9], whole[:7], b"", page, overwritten):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"t10k-images.* must be an IDX file"):
            load_data(tmp_path)


def test_the_order_of_the_places(tmp_path, arrays, monkeypatch):
    monkeypatch.delenv("MNIST_PATH", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    np.savez(tmp_path / "datasets" / "mnist.npz", **arrays)
    check(load_data(), arrays)
    monkeypatch.setenv("MNIST_PATH", str(DIGITS))
    assert load_data().embedded
    check(load_data(tmp_path / "datasets" / "mnist.npz"), arrays)


@pytest.mark.parametrize("writable", [True, False])
def test_a_download_is_kept_where_that_is_possible(
    tmp_path, arrays, monkeypatch, writable
):
    from tensorflow.keras.datasets import mnist

    home = tmp_path / "keras" if writable else tmp_path / "nowhere" / "keras"
    kept = []

    def load(path="mnist.npz"):
        kept.append(path)
        if writable:
            (home / "datasets").mkdir()
            with open(home / "datasets" / path, "wb") as file:
                np.savez(file, **arrays)
        x_train, y_train, x_test, y_test = arrays.values()
        return (x_train, y_train), (x_test, y_test)

    monkeypatch.delenv("MNIST_PATH", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(home))
    monkeypatch.setattr(mnist, "load_data", load)
    if writable:
        home.mkdir()
    for _ in range(2):
        check(load_data(), arrays)
    if writable:
        assert len(kept) == 1  # Then it is there.
        assert names(home / "datasets") == {"mnist.npz"}
    else:
        assert kept == ["mnist.npz"] * 2


def test_a_broken_cache_is_said_and_then_passed_over(
    tmp_path, arrays, monkeypatch, capsys
):
    monkeypatch.delenv("MNIST_PATH", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "mnist.npz").write_text("broken")

    def no_network(cached):
        raise OSError("no network")

    monkeypatch.setattr("digits.mnist.download_mnist", no_network)
    assert load_data().embedded
    said = capsys.readouterr().err
    assert "must be a .npz file" in said
    assert "no network" in said


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("x_train", np.zeros((20, 28, 28)), "uint8 images"),
        ("x_test", np.zeros((5, 27, 28), np.uint8), r"\(5, 27, 28\)"),
        ("y_test", np.zeros(4, int), "a label|integer label"),
        ("y_test", np.full(5, 10), r"labels 0\.\.9; got 10\.\.10"),
        ("y_train", np.zeros(20), "integer label"),
        ("y_train", None, "y_train"),
        ("x_test", np.zeros((5, 8, 8), np.uint8), r"\(n, 28, 28\); got .*8, 8"),
        ("x_train", np.zeros((20, 8, 8), np.uint8), r"\(n, 8, 8\); got .*28, 28"),
        ("x_train", np.zeros((5001, 8, 8), np.uint8), r"28\); got .*5001, 8, 8"),
        ("x_train", np.array([object()]), "must hold numbers or text.*object"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, arrays, name, array, message):
    changed = {k: v for k, v in (arrays | {name: array}).items() if v is not None}
    np.savez(tmp_path / "mnist.npz", **changed)
    with pytest.raises(ValueError, match=message):
        load_data(tmp_path / "mnist.npz")


def test_the_held_out_images_are_the_last_sixth_and_never_learned_from(digits):
    split = split_training(digits)
    assert len(split.images) == 1250
    assert_array_equal(split.held_out[0], digits.train_images[1250:])
    limited = split_training(digits, 100)
    assert_array_equal(limited.images, digits.train_images[:100])
    assert_array_equal(limited.held_out[1], split.held_out[1])
    assert len(split_training(digits, 10**6).images) == 1250


def test_as_many_are_held_out_as_is_asked_for(digits):
    split = split_training(digits, held_out=7)
    assert_array_equal(split.held_out[1], digits.train_labels[-7:])
    assert_array_equal(split.images, digits.train_images[:-7])
    everything = split_training(digits, held_out=0)
    assert everything.held_out is None
    assert len(everything.images) == 1500
    for wrong in (-1, 1500):
        with pytest.raises(ValueError, match=f"--held-out must be .*; got {wrong}"):
            split_training(digits, held_out=wrong)


def test_the_embedded_digits_are_those_of_uci():
    from make_digits import make_digits

    with np.load(DIGITS) as archive:
        for name, expected in make_digits().items():
            assert archive[name].dtype == np.uint8
            assert_array_equal(archive[name], expected, err_msg=name)


def test_the_embedded_digits_have_mnists_layout(digits):
    images = np.concatenate([digits.train_images, digits.test_images])
    assert images.shape == (1797, 28, 28)
    high = (images > 0).any(axis=2).sum(axis=1)
    wide = (images > 0).any(axis=1).sum(axis=1)
    assert (np.maximum(high, wide) == 20).mean() > 0.99
    mass = images.sum(axis=(1, 2))
    centre = (images.sum(axis=2) * np.arange(28)).sum(axis=1) / mass
    assert abs(centre.mean() - 14) < 0.1


def test_mnist_is_mnist(mnist_path):
    data = load_data(mnist_path)
    assert len(data.train_labels) == 60_000
    assert len(data.test_labels) == 10_000


def test_a_sixth_of_mnist_is_10_000_images(mnist_path):
    split = split_training(load_data(mnist_path))
    assert len(split.held_out[1]) == 10_000
