"""Where the data come from, what is refused, and how they are split."""

import gzip
import importlib
import io
import shutil
import time
import zipfile

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


IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def write_idx(folder, arrays, name=str, pack=bytes):
    """Write the four IDX files into a folder, each under its name and packed."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, array in zip(IDX, arrays.values(), strict=True):
        path = folder / name(part)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pack(as_idx(array)))


def as_csv(images, labels, header=(), quote=""):
    """Return images and labels as the bytes of a CSV file."""
    rows = np.column_stack([labels, images.reshape(-1, 784)]).tolist()
    rows = [header, *rows] if header else rows
    lines = (",".join(f"{quote}{value}{quote}" for value in row) for row in rows)
    return "".join(f"{line}\r\n" for line in lines).encode()


def write_csv(folder, arrays, train="mnist_train.csv", test="mnist_test.csv", **form):
    x_train, y_train, x_test, y_test = arrays.values()
    (folder / train).write_bytes(as_csv(x_train, y_train, **form))
    (folder / test).write_bytes(as_csv(x_test, y_test, **form))


@pytest.mark.parametrize("ending", ["-idx3-ubyte", ".idx3-ubyte", "-idx3-ubyte.gz"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_files_are_known_by_their_content(tmp_path, arrays, ending, pack):
    def name(part):
        return part.replace("-idx", ending[:4]) + ending[11:]

    write_idx(tmp_path, arrays, name, pack)
    (tmp_path / "train-images-idx3-ubyte-folder").mkdir()  # Some archives have one.
    check(load_data(tmp_path), arrays)
    check(load_data(tmp_path / name(IDX[2])), arrays)  # Or any file of the set.


WEB_PAGE = (
    b"\n<!DOCTYPE html>\n<html><head><title>Not Found, 404</title></head></html>"
    + bytes(20_000)
)
LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9912422\n"
)


def as_zip(name, content=b"0,1,2"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


NO_DATA = [
    (WEB_PAGE, "a web page"),
    (LFS_POINTER, "a Git LFS pointer: .*git lfs pull"),
    (as_zip("t10k-images-idx3-ubyte"), "a zip archive: unpack it"),
    (b"", "an empty file"),
    (gzip.compress(gzip.compress(b"", mtime=0), mtime=0), "a gzipped file: unpack it"),
]


@pytest.mark.parametrize(("content", "named"), NO_DATA, ids=range(len(NO_DATA)))
@pytest.mark.parametrize("name", ["x.npz", IDX[2], f"{IDX[2]}.gz", "mnist_test.csv"])
def test_what_is_no_data_is_named_as_what_it_is(tmp_path, arrays, name, content, named):
    (write_csv if name.endswith("csv") else write_idx)(tmp_path, arrays)
    (tmp_path / IDX[2]).unlink(missing_ok=True)
    (tmp_path / name).write_bytes(content)
    path = tmp_path / name if name.endswith("npz") else tmp_path
    with pytest.raises(ValueError, match=rf"{name} must be a.*; got: {named}"):
        load_data(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_damaged_idx_file_is_named(tmp_path, arrays, pack):
    write_idx(tmp_path, arrays, pack=pack)
    whole = (tmp_path / IDX[2]).read_bytes()
    overwritten = whole[:40] + b"\xff" * 40 + whole[80:] + b"more"
    for damaged in (whole[:-9], whole[:12], whole[:7], overwritten):
        (tmp_path / IDX[2]).write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{IDX[2]} must be an IDX file") as found:
            load_data(tmp_path)
        assert ("truncated download" in str(found.value)) == (damaged != overwritten)
    labels = (tmp_path / IDX[3]).read_bytes()
    (tmp_path / IDX[2]).write_bytes(labels)
    with pytest.raises(ValueError, match="an IDX file with other axes"):
        load_data(tmp_path)
    (tmp_path / IDX[2]).unlink()
    with pytest.raises(ValueError, match="mnist's IDX files; got no t10k-images"):
        load_data(tmp_path)


def test_a_truncated_archive_is_named(tmp_path, arrays):
    np.savez(tmp_path / "mnist.npz", **arrays)
    whole = (tmp_path / "mnist.npz").read_bytes()
    (tmp_path / "mnist.npz").write_bytes(whole[:-500])
    with pytest.raises(ValueError, match=r"\.npz file .*; got: .*truncated download"):
        load_data(tmp_path / "mnist.npz")


def test_folders_in_folders(tmp_path, arrays):
    write_idx(tmp_path / "torchvision" / "MNIST" / "raw", arrays)
    other = arrays | {"y_train": 9 - arrays["y_train"]}
    write_idx(tmp_path / "torchvision" / "FashionMNIST" / "raw", other)
    write_idx(tmp_path / "kaggle", arrays, lambda part: f"{part}/{part}")
    (tmp_path / "keras" / "datasets").mkdir(parents=True)
    np.savez(tmp_path / "keras" / "datasets" / "mnist.npz", **arrays)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "MNIST").symlink_to(tmp_path / "torchvision" / "MNIST")
    (tmp_path / "linked" / "again").symlink_to(tmp_path / "linked")
    for name in ("torchvision", "kaggle", "keras", "linked"):
        check(load_data(tmp_path / name), arrays)
    check(load_data(tmp_path / "torchvision" / "FashionMNIST" / "raw"), other)
    shutil.rmtree(tmp_path / "torchvision" / "MNIST")
    with pytest.raises(ValueError, match=r"must hold digits .*; got .*FashionMNIST"):
        load_data(tmp_path / "torchvision")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"mnist's IDX files, mnist\.npz, or mnist_train"
    ):
        load_data(tmp_path / "empty")


def as_emnist(part, collection):
    return f"emnist-{collection}-{part.replace('t10k', 'test')}"


def test_emnists_digits_are_stored_by_column(tmp_path, arrays):
    stored = {
        name: array.swapaxes(1, 2) if array.ndim == 3 else array
        for name, array in arrays.items()
    }
    for number, collection in enumerate(("mnist", "digits")):  # The larger one is read.
        labels = {"y_train": (stored["y_train"] + number - 1) % 10}
        write_idx(
            tmp_path, stored | labels, lambda part, c=collection: as_emnist(part, c)
        )
    data = load_data(tmp_path)
    check(data, arrays)
    assert data.source.startswith("EMNIST from")


@pytest.mark.parametrize("collection", ["letters", "balanced", "byclass", "bymerge"])
def test_emnists_letters_are_refused_by_name(tmp_path, arrays, collection):
    write_idx(tmp_path, arrays, lambda part: as_emnist(part, collection))
    with pytest.raises(
        ValueError, match=f"got emnist-{collection}.*: take emnist-digits"
    ):
        load_data(tmp_path)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"header": ["label", *(f"pixel{n}" for n in range(784))]},
        {"header": range(785)},
        {"header": ["", *(f"{n}x{n}" for n in range(784))], "quote": '"'},
        {"train": "train.csv", "test": "test.csv"},
        {"train": "mnist_train.csv.gz"},
    ],
)
def test_two_csv_files_in_a_folder(tmp_path, arrays, form):
    write_csv(tmp_path, arrays, **form)
    if "train" in form:
        path = tmp_path / form["train"]
        path.write_bytes(gzip.compress(path.read_bytes()))  # Its content tells.
    check(load_data(tmp_path), arrays)


def test_a_wrong_csv_file_is_named(tmp_path, arrays):
    write_csv(tmp_path, arrays)
    rows = np.column_stack([arrays["y_test"], arrays["x_test"].reshape(-1, 784)])
    for table, message in (
        (rows[:, 1:], "784 columns: no labels.*digit-recognizer"),
        (np.column_stack([range(5), rows]), "786 columns: leave out the index"),
        (rows[:, :10], "got: 10 columns"),
        (rows.astype(int) + 1, "256"),
        (rows / 255, "uint8"),
    ):
        np.savetxt(tmp_path / "mnist_test.csv", table, "%g", ",")
        with pytest.raises(
            ValueError, match=f"mnist_test.csv must be a CSV .*{message}"
        ):
            load_data(tmp_path)
    last = as_csv(arrays["x_test"], arrays["y_test"], [*range(784), "Class"])
    (tmp_path / "mnist_test.csv").write_bytes(last)
    with pytest.raises(ValueError, match="the label in the last column"):
        load_data(tmp_path)
    (tmp_path / "mnist_test.csv").unlink()
    for path in (tmp_path, tmp_path / "mnist_train.csv"):
        with pytest.raises(ValueError, match=r"two CSV files; got no mnist_test\.csv"):
            load_data(path)


def test_what_would_take_long_or_much_memory_is_refused_before(tmp_path, arrays):
    bomb = gzip.compress(b"0," * 200_000_000, 1)
    rows = gzip.compress((b"0," * 784 + b"0\n") * 100_000, 1)
    huge = np.zeros((400_000, 28, 28), np.uint8)
    sparse = tmp_path / "npz" / "mnist.npz"
    sparse.parent.mkdir()
    write_csv(tmp_path, arrays)
    with zipfile.ZipFile(sparse, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("x_train.npy", "w") as file:
            np.save(file, huge)
        for name in ("y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", b"")
    start = time.perf_counter()
    for content in (bomb, rows):
        (tmp_path / "mnist_train.csv").write_bytes(content)
        with pytest.raises(ValueError, match="more than 10,000 bytes in a line"):
            load_data(tmp_path)
    with pytest.raises(ValueError, match=r"313,600,128 bytes, where 250,000,000"):
        load_data(sparse)
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize("many", ["x_train", "x_test"])
def test_no_more_than_5000_small_images_are_enlarged(tmp_path, arrays, many):
    small = {"x_train": np.ones((5, 8, 8)), "x_test": np.ones((5, 8, 8))}
    changed = arrays | small | {many: np.ones((5001, 8, 8))}
    changed = {name: array.astype(np.uint8) for name, array in changed.items()}
    np.savez(tmp_path / "mnist.npz", **changed)
    with pytest.raises(ValueError, match=r"at most 5,000 images of 8x8.*5001, 8, 8"):
        load_data(tmp_path / "mnist.npz")


def test_the_order_of_the_places(tmp_path, arrays, monkeypatch):
    monkeypatch.delenv("MNIST_PATH", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    np.savez(tmp_path / "datasets" / "mnist.npz", **arrays)
    check(load_data(), arrays)
    monkeypatch.setenv("MNIST_PATH", str(DIGITS))
    assert load_data().embedded
    check(load_data(tmp_path / "datasets" / "mnist.npz"), arrays)


def test_where_any_digits_will_do_nothing_is_downloaded_and_nothing_said(
    tmp_path, arrays, monkeypatch, capsys
):
    def download(cached):
        raise AssertionError("it downloads")

    monkeypatch.setattr("digits.mnist.download_mnist", download)
    monkeypatch.delenv("MNIST_PATH", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert load_data(download=False).embedded
    assert capsys.readouterr() == ("", "")
    (tmp_path / "datasets").mkdir()
    np.savez(tmp_path / "datasets" / "mnist.npz", **arrays)
    check(load_data(download=False), arrays)
    monkeypatch.setenv("MNIST_PATH", "gone.npz")
    with pytest.raises(FileNotFoundError, match="MNIST_PATH must be a file"):
        load_data(download=False)


@pytest.mark.parametrize("writable", [True, False])
def test_a_download_is_kept_where_that_is_possible(
    tmp_path, arrays, monkeypatch, writable
):
    importlib.import_module("tensorflow")
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
