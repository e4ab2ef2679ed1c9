"""Digits of the user's own: what the file keeps and refuses, and training with them."""

import json
import os
import threading
import zipfile

import numpy as np
import pytest
from helpers.program import names
from numpy.testing import assert_array_equal

import digits.own
from digits.mnist import read_data, split_training
from digits.own import MOST_OWN, OwnDigits
from handwritten_classifier import HandwrittenNumberClassification
from run import RECIPES

IMAGES = np.zeros((3, 28, 28), np.uint8)
IMAGES[np.arange(3), 5:20, 10:13] = np.array([[[50]], [[100]], [[255]]], np.uint8)
LABELS = np.array([1, 7, 9], np.uint8)


@pytest.fixture
def own(tmp_path):
    """Return a file of own digits that holds three, in a folder that add() made."""
    own = OwnDigits(tmp_path / "a" / "b" / "own-digits.npz")
    for image, label in zip(IMAGES, LABELS, strict=True):
        own.add(image, int(label))
    return own


def check(own, images, labels):
    """Check what a file holds, and that nothing lies beside it."""
    found = own.read()
    assert [array.dtype for array in found] == [np.uint8, np.uint8]
    assert_array_equal(found[0], images, strict=True)
    assert_array_equal(found[1], labels, strict=True)
    assert names(own.path.parent) == ({"own-digits.npz"} if len(labels) else set())


class TestChanges:
    def test_without_a_file_there_are_none(self, tmp_path):
        images, labels = OwnDigits(tmp_path / "own-digits.npz").read()
        assert (images.shape, labels.shape) == ((0, 28, 28), (0,))
        assert (images.dtype, labels.dtype) == (np.uint8, np.uint8)
        assert names(tmp_path) == set()

    def test_what_is_added_is_read(self, own):
        check(own, IMAGES, LABELS)
        check(OwnDigits(str(own.path)), IMAGES, LABELS)

    def test_a_label_is_changed(self, own):
        own.relabel(1, 0)
        check(own, IMAGES, np.array([1, 0, 9], np.uint8))

    def test_a_digit_is_removed(self, own):
        own.remove(1)
        check(own, IMAGES[[0, 2]], LABELS[[0, 2]])

    def test_the_last_is_removed_and_another_added(self, own):
        for _ in range(3):
            own.remove(0)
        check(own, IMAGES[:0], LABELS[:0])
        own.add(IMAGES[2], 4)
        check(own, IMAGES[2:], np.array([4], np.uint8))

    def test_each_change_reads_the_file_anew(self, own):
        OwnDigits(own.path).add(IMAGES[0], 3)
        own.relabel(0, 2)
        expected = np.array([2, 7, 9, 3], np.uint8)
        check(own, IMAGES[[0, 1, 2, 0]], expected)

    def test_the_same_digits_make_the_same_file(self, own, tmp_path):
        other = OwnDigits(tmp_path / "other.npz")
        for image, label in zip(IMAGES, LABELS, strict=True):
            other.add(image, np.uint8(label))
        assert other.path.read_bytes() == own.path.read_bytes()

    def test_the_file_is_one_for_numpy(self, own):
        with np.load(own.path, allow_pickle=False) as arrays:
            assert sorted(arrays) == ["images", "labels"]
            assert_array_equal(arrays["images"], IMAGES)

    def test_threads_lose_none(self, own):
        def add(label):
            for _ in range(5):
                OwnDigits(own.path).add(IMAGES[0], label)

        threads = [threading.Thread(target=add, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = np.bincount(own.read()[1][3:], minlength=6)
        assert counts.tolist() == [5] * 6

    def test_the_most_fit_and_no_more(self, tmp_path):
        own = OwnDigits(tmp_path / "own-digits.npz")
        images = np.repeat(IMAGES[:1], MOST_OWN - 1, axis=0)
        np.savez(own.path, images=images, labels=images[:, 0, 0])
        own.add(IMAGES[2], 5)
        before = own.path.read_bytes()
        assert len(own.read()[1]) == MOST_OWN
        with pytest.raises(ValueError, match=r"at most 2,000 digits; got one more: "):
            own.add(IMAGES[2], 5)
        assert own.path.read_bytes() == before


class TestRefused:
    @pytest.mark.parametrize(
        ("image", "got"),
        [
            (np.zeros((28, 28), np.uint8), r"uint8 of shape \(28, 28\), up to 0"),
            (IMAGES[0].astype(int), "int64"),
            (IMAGES[0] > 0, "bool"),
            (IMAGES[:1], r"uint8 of shape \(1, 28, 28\)"),
            (IMAGES[0][:27], r"uint8 of shape \(27, 28\)"),
            (np.zeros((0, 28), np.uint8), r"uint8 of shape \(0, 28\)"),
        ],
    )
    def test_images_of_another_kind(self, own, image, got):
        required = r"image must be uint8 of shape \(28, 28\) with some ink"
        with pytest.raises(ValueError, match=f"{required}; got {got}"):
            own.add(image, 1)
        check(own, IMAGES, LABELS)

    @pytest.mark.parametrize("label", [-1, 10, 256, 1.0, "1", None, True])
    def test_labels_that_are_no_digits(self, own, label):
        for change in (
            lambda: own.add(IMAGES[0], label),
            lambda: own.relabel(0, label),
        ):
            with pytest.raises(ValueError, match=r"label must be an .* below 10; got "):
                change()
        check(own, IMAGES, LABELS)

    @pytest.mark.parametrize("index", [-1, 3, 1.0, "0", None, False])
    def test_places_where_there_is_none(self, own, index):
        for change in (lambda: own.remove(index), lambda: own.relabel(index, 1)):
            with pytest.raises(ValueError, match=r"index must be an .* below 3; got "):
                change()
        check(own, IMAGES, LABELS)

    def test_places_in_no_file(self, tmp_path):
        own = OwnDigits(tmp_path / "own-digits.npz")
        for change in (lambda: own.remove(0), lambda: own.relabel(0, 1)):
            with pytest.raises(ValueError, match=r"index must be an .* below 0; got 0"):
                change()


def many(count):
    """Return arrays of so many digits."""
    return {"images": np.ones((count, 28, 28), np.uint8), "labels": np.ones(count, "B")}


SOUND = {"images": IMAGES, "labels": LABELS}
OTHERS = {
    "images of another type": (SOUND | {"images": IMAGES / 255}, "float64 of shape"),
    "signed images": (SOUND | {"images": IMAGES.view("b")}, "int8 of shape"),
    "labels of another type": (
        SOUND | {"labels": LABELS.astype(int)},
        "int64 of shape",
    ),
    "images of another shape": (SOUND | {"images": IMAGES[:, 1:]}, r"\(3, 27, 28\)"),
    "flat images": (SOUND | {"images": IMAGES.reshape(3, -1)}, r"shape \(3, 784\)"),
    "labels of another shape": (SOUND | {"labels": LABELS[:, None]}, r"shape \(3, 1\)"),
    "a single label": (SOUND | {"labels": np.uint8(3)}, r"shape \(3, 28, 28\)"),
    "fewer labels": (SOUND | {"labels": LABELS[1:]}, r"shape \(3, 28, 28\)"),
    "label 10": (SOUND | {"labels": np.array([1, 10, 2], np.uint8)}, "label 10"),
    "no digits": (many(0), "0 bytes"),
    "a missing array": ({"images": IMAGES}, "arrays images"),
    "one array more": (SOUND | {"names": LABELS}, "arrays images, labels, names"),
    "objects": (SOUND | {"labels": np.array([1, 7, None])}, "object of shape"),
    "one too many": (many(MOST_OWN + 1), "2,001 digits"),
    "far too many": (many(100_000), r"78,500,\d+ bytes, where 1,572,000"),
}


class TestDamage:
    @pytest.fixture
    def own(self, tmp_path):
        """Return a file that is not there."""
        return OwnDigits(tmp_path / "own-digits.npz")

    def refuse(self, own, got):
        """Check that a damaged file is refused, and never overwritten."""
        before = own.path.read_bytes() if own.path.is_file() else None
        required = r"own-digits\.npz must hold images .* at most 2,000 digits"
        for use in (
            own.read,
            lambda: own.add(IMAGES[0], 1),
            lambda: own.relabel(0, 1),
            lambda: own.remove(0),
        ):
            with pytest.raises(
                ValueError, match=f"{required}; got: .*{got}.*: bring a"
            ):
                use()
        if before is not None:
            assert own.path.read_bytes() == before
        assert names(own.path.parent) == {"own-digits.npz"}

    @pytest.mark.parametrize("kind", OTHERS)
    def test_other_arrays(self, own, kind):
        arrays, got = OTHERS[kind]
        np.savez(own.path, **arrays)
        self.refuse(own, got)

    @pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
    def test_only_the_beginning(self, own, left):
        np.savez(own.path, **SOUND)
        content = own.path.read_bytes()
        own.path.write_bytes(content[: int(len(content) * left)])
        self.refuse(own, "only the beginning of a file")

    def test_a_changed_byte(self, own):
        np.savez(own.path, **SOUND)
        content = bytearray(own.path.read_bytes())
        content[content.index(255, 300)] = 254
        own.path.write_bytes(content)
        self.refuse(own, "Bad CRC-32")

    @pytest.mark.parametrize(
        ("content", "got"), [(b"", "an empty file"), (b"\x93NUMPY\1", "a .npy file")]
    )
    def test_no_npz_file(self, own, content, got):
        own.path.write_bytes(content)
        self.refuse(own, got)

    def test_a_folder_in_its_place(self, own):
        own.path.mkdir()
        self.refuse(own, "no file")

    def test_no_code_in_it_runs(self, own):
        class Trap:
            def __reduce__(self):
                return (os.mkdir, (str(own.path.parent / "sprung"),))

        trap = np.empty(1, object)
        trap[0] = Trap()
        np.savez(own.path, images=IMAGES[:1], labels=trap)
        self.refuse(own, "object of shape")

    def test_a_bomb_is_not_unpacked(self, own, monkeypatch):
        def unpack(file):
            raise AssertionError("it unpacks")

        with zipfile.ZipFile(own.path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in many(200_000).items():
                with archive.open(f"{name}.npy", "w") as file:
                    np.save(file, array)
        assert own.path.stat().st_size < 1_000_000
        monkeypatch.setattr(digits.own, "read_arrays", unpack)
        self.refuse(own, r"157,000,\d+ bytes, where 1,572,000 can be read")


class TestWriting:
    @pytest.mark.parametrize(
        "change",
        [
            lambda own: own.add(IMAGES[0], 3),
            lambda own: own.relabel(0, 3),
            lambda own: own.remove(0),
        ],
    )
    def test_nothing_is_lost_where_it_fails(self, own, monkeypatch, change):
        def fail(*paths):
            raise OSError(28, "No space left on device")

        before = own.path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(OSError, match=r"must be .*: No space left on device"):
                change(own)
        assert own.path.read_bytes() == before
        check(own, IMAGES, LABELS)
        change(own)  # The lock is free again.
        assert own.path.read_bytes() != before

    def test_a_file_in_place_of_the_folder_is_named(self, tmp_path):
        (tmp_path / "results").write_bytes(b"precious")
        with pytest.raises((OSError, ValueError), match="results"):
            OwnDigits(tmp_path / "results" / "own-digits.npz").add(IMAGES[0], 1)
        assert (tmp_path / "results").read_bytes() == b"precious"
        assert names(tmp_path) == {"results"}


@pytest.mark.usefixtures("undrawn")
class TestTraining:
    FLAGS = ("--recipe", "fast", "--epochs", "2", "--output", "out", "--data")

    @pytest.fixture
    def kept(self, tmp_path, digits):
        """Return the file of the program's folder, with twelve own digits."""
        own = OwnDigits(tmp_path / digits_of_results())
        for place in range(400, 412):
            own.add(digits.train_images[place], digits.train_labels[place])
        return own

    @pytest.fixture
    def interrupted(self, program, kept, few_digits, monkeypatch):
        """Leave a run with own digits that Ctrl-C has ended within its second epoch."""
        step = HandwrittenNumberClassification.backprop_decision_making
        steps = []

        def press_ctrl_c(model, *arguments):
            steps.append(0)
            if len(steps) == 6:  # of 4 in an epoch
                raise KeyboardInterrupt
            return step(model, *arguments)

        with monkeypatch.context() as patch:
            name = "backprop_decision_making"
            patch.setattr(HandwrittenNumberClassification, name, press_ctrl_c)
            done = program("--own", *self.FLAGS, few_digits)
        assert done.returncode == 130, done.stderr
        return kept

    def fit(self, few_digits, own=None, **changes):
        """Return a network that is trained on own digits behind the others."""
        data = read_data(few_digits)
        images, labels, held_out = split_training(data, changes.pop("limit", None))
        if own:
            images = np.concatenate([images, own[0]])
            labels = np.concatenate([labels, own[1]])
        settings = RECIPES["fast"] | {"epochs": 2} | changes
        model = HandwrittenNumberClassification(**settings)
        return model.fit(images, labels, validation_data=held_out, verbose=0)

    def check(self, folder, expected):
        """Check that a run has left the parameters and losses of a model."""
        model = HandwrittenNumberClassification.load(folder / "out" / "model.npz")
        for name, array in expected.parameters.items():
            assert_array_equal(model.parameters[name], array, err_msg=name)
        assert model.history["val_loss"] == expected.history["val_loss"]
        return model

    def test_own_digits_stand_behind_the_others(
        self, program, tmp_path, kept, few_digits
    ):
        done = program("--own", *self.FLAGS, few_digits)
        assert done.returncode == 0, done.stderr
        line = "112 images to train on, 12 of them your own, 20 held out, 60 to test\n"
        assert line in done.stdout
        model = self.check(tmp_path, self.fit(few_digits, kept.read()))
        assert model.metadata["images"] == 112
        assert model.metadata["own"]["images"] == 12
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert metrics["own"] == model.metadata["own"]
        assert (metrics["training_images"], metrics["validation_images"]) == (112, 20)
        assert metrics["test_images"] == 60

    def test_a_limit_is_one_of_the_others(self, program, tmp_path, kept, few_digits):
        done = program("--own", "--limit", "50", *self.FLAGS, few_digits)
        assert "62 images to train on, 12 of them your own, 20 held" in done.stdout
        self.check(tmp_path, self.fit(few_digits, kept.read(), limit=50))

    def test_without_the_flag_they_play_no_part(
        self, program, tmp_path, kept, few_digits
    ):
        done = program(*self.FLAGS, few_digits)
        assert "; 100 images to train on, 20 held out, 60 to test\n" in done.stdout
        model = self.check(tmp_path, self.fit(few_digits))
        assert model.metadata["own"] is None
        others = self.fit(few_digits, kept.read()).parameters
        assert any((model.parameters[n] != others[n]).any() for n in others)

    def test_without_digits_it_says_where_they_come_from(
        self, program, tmp_path, few_digits
    ):
        done = program("--own", *self.FLAGS, few_digits)
        assert done.returncode == 2
        required = f"--own must find digits in {digits_of_results()}"
        remedy = "keep some on the page, python run.py draw"
        assert done.stderr == f"run.py: error: {required}; got none: {remedy}\n"
        assert names(tmp_path) == set()

    def test_a_damaged_file_is_refused(self, program, kept, few_digits):
        kept.path.write_bytes(kept.path.read_bytes()[:-50])
        done = program("--own", *self.FLAGS, few_digits)
        assert done.returncode == 2
        error = f"run.py: error: {digits_of_results()} must hold images (n, 28, 28)"
        assert done.stderr.startswith(error)

    @pytest.mark.parametrize(
        "command", ["compare", "reproduce fast", "predict x", "draw"]
    )
    def test_it_is_a_flag_of_training_alone(self, program, kept, command):
        done = program("--own", *command.split())
        assert done.returncode == 2
        got = f"got it with {command.partition(' ')[0]}\n"
        assert f"--own must stand beside flags of training alone; {got}" in done.stderr

    def test_a_run_goes_on_with_them(self, program, tmp_path, interrupted, few_digits):
        done = program("--resume", "--output", "out")
        assert done.returncode == 0, done.stderr
        assert "112 images to train on, 12 of them your own, " in done.stdout
        assert "epoch 1/2" not in done.stdout
        self.check(tmp_path, self.fit(few_digits, interrupted.read()))

    @pytest.mark.parametrize(
        "change",
        [
            lambda own: own.relabel(11, (own.read()[1][11] + 1) % 10),
            lambda own: own.add(IMAGES[0], 1),
            lambda own: own.remove(3),
        ],
    )
    def test_others_are_refused_and_nothing_is_lost(
        self, program, tmp_path, interrupted, few_digits, change
    ):
        path = tmp_path / "out" / "checkpoint.npz"
        before, file = path.read_bytes(), interrupted.path.read_bytes()
        change(interrupted)
        done = program("--resume", "--output", "out")
        assert done.returncode == 2
        required = "--resume must find the own digits of the interrupted run"
        got = f"got others in {digits_of_results()}: bring those back, or begin anew"
        assert done.stderr == f"run.py: error: {required}; {got}\n"
        assert path.read_bytes() == before
        interrupted.path.write_bytes(file)
        assert program("--resume", "--output", "out").returncode == 0
        self.check(tmp_path, self.fit(few_digits, interrupted.read()))

    def test_none_are_refused_too(self, program, interrupted):
        interrupted.path.unlink()
        done = program("--resume", "--output", "out")
        assert done.returncode == 2
        assert "--own must find digits in " in done.stderr

    def test_a_run_without_them_goes_on_without_them(
        self, program, tmp_path, interrupted, few_digits
    ):
        """So does a checkpoint of before there were own digits, which says nothing."""
        path = tmp_path / "out" / "checkpoint.npz"
        model = HandwrittenNumberClassification.load(path)
        data = self.fit(few_digits)
        new = HandwrittenNumberClassification(**data.get_params())
        new.metadata = model.metadata | {"images": 100}
        del new.metadata["own"]
        new.save(path)
        done = program("--resume", "--output", "out")
        assert done.returncode == 0, done.stderr
        assert "; 100 images to train on, 20 held out" in done.stdout
        assert self.check(tmp_path, data).metadata["own"] is None

    def test_they_cannot_be_put_in_a_run_that_had_none(
        self, program, tmp_path, interrupted
    ):
        path = tmp_path / "out" / "checkpoint.npz"
        model = HandwrittenNumberClassification.load(path)
        for own in ({}, {"images": 12}, {"images": "x", "checksum": None}):
            model.metadata["own"] = own
            model.save(path)
            done = program("--resume", "--output", "out")
            assert done.returncode == 2
            assert "must find the own digits of the interrupted run" in done.stderr

    def test_resume_takes_no_flag_beside_it(self, program):
        done = program("--resume", "--own")
        assert "must stand alone or beside --output; got --own\n" in done.stderr


def digits_of_results():
    """Return where the program looks, whatever the folder for its results."""
    return os.path.join("results", "own-digits.npz")
