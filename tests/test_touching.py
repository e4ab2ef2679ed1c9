"""Digits that touch are cut apart where that is plainly better, and others never."""

import itertools

import cv2
import numpy as np
import pytest
from handwriting import HEIGHT, PENS, read_pictures, take_picture
from numpy.testing import assert_array_equal

from digits import pictures, touching
from digits.mnist import load_data
from digits.pictures import find_digits, name_digits, prepare_image
from handwritten_classifier import HandwrittenNumberClassification
from run import READY_MODEL


@pytest.fixture(scope="module")
def model():
    return HandwrittenNumberClassification.load(READY_MODEL)


@pytest.fixture(scope="module")
def plain_digits(digits, model):
    """Return embedded digits that the network is sure of, by label."""
    shares = model.predict_proba(digits.test_images)
    sure = (shares.max(axis=1) > 0.9) & (shares.argmax(axis=1) == digits.test_labels)
    images, labels = digits.test_images[sure], digits.test_labels[sure]
    return {label: images[labels == label][:10] for label in range(10)}


def take(plain_digits, label, seed, **options):
    """Return a picture of the digits of a label side by side, and their boxes."""
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(plain_digits[int(digit)]) for digit in label]
    return take_picture(np.array(chosen), rng, **options)


def read(model, picture):
    """Return the readings of the digits that are found in a picture."""
    found = find_digits(picture)
    return name_digits(model.predict_proba(found.images), found.touching)


class TestTouching:
    def test_they_are_cut_and_read_or_marked(self, plain_digits, model):
        right = unmarked = 0
        for label in ("23", "58", "99", "24", "70", "350"):
            for seed in range(4):
                picture, _ = take(plain_digits, label, seed, touching=True)
                names = read(model, picture)
                right += [name[0] for name in names] == list(label)
                unmarked += len(names) != len(label) and "?" not in "".join(names)
        assert right >= 15  # of 24
        assert unmarked <= 3

    def test_on_mnist(self, model, mnist_path):
        data = load_data(mnist_path)
        kinds = 30 * [("as written", "plain", "even")]
        test = data.test_images, data.test_labels
        results = read_pictures(model, *test, kinds, count=2, touching=True)
        assert np.mean([right for *_, right in results]) >= 0.8  # of two
        results = read_pictures(model, *test, kinds, count=1)
        assert all(found for _, found, _ in results)

    def test_single_digits_are_not_cut(self, plain_digits):
        for label, seed in itertools.product("0123456789", range(4)):
            pen = list(PENS)[seed]
            found = find_digits(take(plain_digits, label, seed, pen=pen)[0])
            assert len(found.boxes) == 1
            assert not found.touching.any()

    def test_neighbours_are_left_alone(self, plain_digits):
        picture, boxes = take(plain_digits, "42", 0)
        assert np.abs(find_digits(picture).boxes - boxes).max() < 0.15 * HEIGHT

    @pytest.mark.parametrize("light", [False, True])
    @pytest.mark.parametrize("side", [28, 56])
    def test_in_small_drawings(self, plain_digits, side, light):
        right = 0
        for seed in range(10):
            picture, boxes = take(plain_digits, "58", seed, touching=True)
            top, left = boxes[:, :2].min(axis=0) - 20
            bottom, right_end = boxes[:, 2:].max(axis=0) + 20
            ink = 255 - picture[top:bottom, left:right_end].mean(axis=2)
            scale = side / max(ink.shape)
            size = [round(scale * length) for length in ink.shape[::-1]]
            small = cv2.resize(ink, size, interpolation=cv2.INTER_AREA)
            drawn = np.zeros((side, side), np.uint8)
            drawn[: size[1], : size[0]] = np.clip(2 * small - 60, 0, 255)
            right += len(find_digits(drawn if light else 255 - drawn).boxes) == 2
        assert right >= 5

    def test_as_a_whole_they_are_one_image(self, plain_digits):
        picture, _ = take(plain_digits, "23", 0, touching=True)
        assert len(find_digits(picture).boxes) == 2
        assert prepare_image(picture).shape == (1, 28, 28, 1)

    def test_parts_are_found_from_the_left_and_span_the_whole(self, plain_digits):
        picture, boxes = take(plain_digits, "350", 1, touching=True)
        found = find_digits(picture)
        assert (np.diff(found.boxes[:, 1]) > 0).all()
        together = found.boxes[:, :2].min(axis=0), found.boxes[:, 2:].max(axis=0)
        expected = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
        assert np.abs(np.subtract(together, expected)).max() < 0.1 * HEIGHT

    def test_what_is_in_doubt_is_marked(self):
        shares = np.eye(10)[[3, 4]]
        assert name_digits(shares, np.array([False, True])) == ["3", "4?"]
        assert name_digits(shares) == ["3", "4"]


class TestOddInk:
    @pytest.mark.parametrize("seed", range(4))
    def test_any_small_picture_is_read_or_has_no_ink(self, seed):
        rng = np.random.default_rng(seed)
        for _ in range(10):
            picture = np.full(rng.integers(2, 40, size=2), 255, np.uint8)
            for _ in range(rng.integers(1, 4)):
                points = rng.integers(
                    0, max(picture.shape), size=(4, 2), dtype=np.int32
                )
                cv2.polylines(picture, [points], False, 0, int(rng.integers(1, 4)))
            try:
                found = find_digits(picture)
            except ValueError:
                continue
            assert found.images.shape == (len(found.boxes), 28, 28, 1)
            assert (found.images.max(axis=(1, 2, 3)) == 1).all()
            assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()

    @pytest.mark.parametrize("specks", [1, 5, 40])
    def test_specks_are_not_cut(self, specks):
        for seed in range(6):
            rng = np.random.default_rng(seed)
            paper = np.full((200, 200), 245, np.uint8)
            for top, left in rng.integers(0, 195, size=(specks, 2)):
                paper[top : top + rng.integers(1, 4), left : left + 2] = 30
            assert len(find_digits(paper).boxes) <= specks

    @pytest.mark.parametrize("side", [28, 60])
    def test_noise_is_read_or_has_no_ink(self, side):
        for seed in range(6):
            rng = np.random.default_rng(seed)
            noise = np.uint8(255 * (rng.random((side, side)) > 0.1))
            assert len(find_digits(noise).images) > 0

    def test_a_long_line_is_no_chain_of_digits(self):
        picture = np.full((400, 600), 255, np.uint8)
        wave = np.stack([np.arange(100, 500), 200 + 5 * np.sin(np.arange(400) / 20)], 1)
        cv2.polylines(picture, [np.rint(wave).astype(np.int32)], False, 0, 6)
        assert len(find_digits(picture).boxes) == 1

    def test_of_many_odd_pieces_only_the_oddest_are_cut(self, monkeypatch):
        rng = np.random.default_rng(5)
        page, tried = np.full((500, 500), 255, np.uint8), []
        for top, left in 80 * np.indices((5, 5)).reshape(2, -1).T + 40:
            points = rng.integers(0, 60, size=(6, 2), dtype=np.int32)
            cv2.polylines(page, [points + np.int32([left, top])], False, 0, 3)
        find_cuts = touching._find_cuts
        monkeypatch.setattr(
            touching, "_find_cuts", lambda ink: tried.append(1) or find_cuts(ink)
        )
        ink, labels, digits, _ = pictures._preprocess(page)
        assert len(digits) > 15
        assert len(touching.separate_digits(ink, labels, digits, 7)[0]) >= len(digits)
        assert len(tried) == 7
        find_digits(page, cut=False)
        assert len(tried) == 7


def test_the_least_ink_is_crossed():
    ink = np.ones((5, 7))
    path = [3, 4, 4, 3, 2]
    ink[range(5), path] = 0
    crossings, ways = touching._find_ways(ink)
    assert crossings.argmin() == 2
    assert_array_equal(ways[:, 2], path)
