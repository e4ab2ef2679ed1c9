"""Pages: sheets on tables, forms, slanting rows, small and pale digits; their order."""

import functools
import tracemalloc

import cv2
import numpy as np
import pytest
from handwriting import LIGHTS, take_picture, write
from helpers import pages
from numpy.testing import assert_allclose

from digits import sheet
from digits.pictures import find_digits, prepare_image
from digits.pieces import Pieces, group_pieces


def share_found(picture, images):
    """Return how many digits were found in their places in the order of reading."""
    return share_right(find_digits(picture).images, images)


def share_right(found, images):
    """Return how many of the digits that were found are those that were written."""
    if len(found) != len(images):
        return 0
    alike = [
        np.corrcoef(draw_alone(image.tobytes()), seen.ravel())[0, 1]
        for image, seen in zip(images, found, strict=True)
    ]
    return np.mean(np.array(alike) > 0.6)


@functools.cache  # Most tests write the same digits.
def draw_alone(levels):
    """Return a digit, whose levels these are, as the network sees it if it is alone."""
    image = np.frombuffer(levels, np.uint8).reshape(28, 28)
    drawn = np.pad(255 - (255 * write(image, 60, 0.07)).astype(np.uint8), 20)
    drawn[:20], drawn[-20:], drawn[:, :20], drawn[:, -20:] = 255, 255, 255, 255
    return prepare_image(drawn).ravel()


@pytest.fixture
def images(digits):
    return digits.test_images[:24]


class TestTables:
    @pytest.mark.parametrize("table", pages.TABLES)
    @pytest.mark.parametrize("extra", [{}, {"thumb": True}, {"curl": True}])
    def test_a_sheet_is_read_and_not_the_table(self, images, table, extra):
        rng = np.random.default_rng(2)
        page = pages.print_sheet(pages.write_rows(images, rng, 8))
        scene = pages.lay_on_table(page, rng, table, **extra)
        picture = pages.photograph(scene, rng, rng.choice(LIGHTS))
        assert share_found(picture, images) >= 0.9

    @pytest.mark.parametrize("darkness", [0.25, 0.35])
    def test_pale_ink_beside_something_dark(self, images, darkness):
        rng = np.random.default_rng(3)
        page = pages.print_sheet(pages.write_rows(images, rng, 8), darkness)
        scene = pages.lay_on_table(page, rng, "black")
        assert share_found(pages.photograph(scene, rng, "even"), images) >= 0.9

    def test_a_strip_of_table_at_each_edge(self, images):
        rng = np.random.default_rng(4)
        page = pages.print_sheet(pages.write_rows(images, rng, 8))
        for edge in (np.s_[:25], np.s_[-25:], np.s_[:, :25], np.s_[:, -25:]):
            scene = page.copy()
            scene[edge] = pages.TABLES["dark"]
            picture = pages.photograph(scene, rng)
            assert share_found(picture, images) >= 0.9

    def test_boxes_are_those_in_the_whole_picture(self, images):
        rng = np.random.default_rng(5)
        page = pages.print_sheet(pages.write_rows(images, rng, 8))
        picture = pages.photograph(page, rng)
        apart = find_digits(picture).boxes
        around = 60, 60, 60, 60
        table = np.full((len(page) + 120, page.shape[1] + 120, 3), 20, np.uint8)
        table[60:-60, 60:-60] = picture
        assert np.abs(find_digits(table).boxes - apart - around).max() <= 4

    def test_a_shadow_is_no_table(self, digits):
        rng = np.random.default_rng(6)
        page = pages.print_sheet(pages.write_rows(digits.test_images[:40], rng, 10))
        away = np.arange(page.shape[1]) - page.shape[1] / 2
        page *= (1 - 0.4 / (1 + np.exp(away / 8)))[:, np.newaxis]
        picture = pages.photograph(page, rng, "even")
        assert share_found(picture, digits.test_images[:40]) >= 0.9
        assert sheet.cut_out_sheet(picture.mean(axis=2))[1].shape == picture.shape[:2]


class TestFrames:
    @pytest.mark.parametrize("columns", [6, 12, 24])
    def test_the_boxes_of_a_form_are_no_digits(self, images, columns):
        rng = np.random.default_rng(7)
        ink, lines = pages.fill_form(images, rng, columns)
        picture = pages.photograph(pages.print_sheet(ink, lines=lines), rng)
        assert share_found(picture, images) >= 0.9

    @pytest.mark.parametrize("thickness", [1, 2, 5])
    @pytest.mark.parametrize("grey", [50, 140])
    def test_ink_may_run_into_the_frame(self, digits, thickness, grey):
        rng = np.random.default_rng(11)
        for _ in range(3):
            images = digits.test_images[rng.integers(297, size=5)]
            drawn = np.full((230, 830), 245, np.uint8)
            for left in range(40, 790, 150):
                corners = (left, 40), (left + 150, 190)
                cv2.rectangle(drawn, *corners, grey, thickness)
            boxes = []
            for place, image in enumerate(images):
                stroke = write(image, 90, 0.1)
                rows, columns = (np.flatnonzero((stroke > 0.5).any(a)) for a in (1, 0))
                stroke = stroke[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                top, left = 45 + (150 - len(stroke)) // 2, 40 + 150 * place
                # It is in the middle, crosses the lower line, or touches that beside.
                left += (0 if place % 3 == 2 else 150 - stroke.shape[1]) // (place + 1)
                top += 40 * (place % 3 == 1)
                bottom, right = top + len(stroke), left + stroke.shape[1]
                part = drawn[top:bottom, left:right]
                np.minimum(part, np.uint8(245 - 205 * stroke), out=part)
                boxes.append((top, left, bottom, right))
            found = find_digits(drawn).boxes
            found = found[found[:, 1].argsort()]  # One that is low may be a row.
            assert len(found) == 5
            assert np.abs(found - boxes).max() < 30

    def test_a_zero_with_a_speck_inside_is_no_frame(self):
        drawn = np.full((200, 200), 255, np.uint8)
        y, x = np.indices(drawn.shape)
        away = np.hypot((y - 100) / 1.3, x - 100)
        drawn[(away > 50) & (away < 60)] = 0
        drawn[96:104, 96:104] = 0
        box = find_digits(drawn).boxes
        assert np.abs(box - [[22, 41, 179, 160]]).max() <= 3


class TestRows:
    @pytest.mark.parametrize("slope", [-0.12, -0.06, 0.08, 0.15])
    def test_rows_may_slant(self, digits, slope):
        rng, images = np.random.default_rng(8), digits.test_images[:40]
        ink = pages.write_rows(images, rng, 10, slope=slope)
        picture = pages.photograph(pages.print_sheet(ink), rng)
        assert share_found(picture, images) >= 0.9

    @pytest.mark.parametrize("bend", [-0.9, 0.9])
    def test_rows_may_bend(self, digits, bend):
        rng, images = np.random.default_rng(9), digits.test_images[:40]
        ink = pages.write_rows(images, rng, 10, bend=bend)
        picture = pages.photograph(pages.print_sheet(ink), rng)
        assert share_found(picture, images) >= 0.9

    @pytest.mark.parametrize("turned", [False, True])
    def test_a_long_row_lies_across_a_shadow(self, digits, turned):
        for seed in range(4):
            rng = np.random.default_rng(seed)
            images = digits.test_images[rng.integers(297, size=10)]
            options = {"pen": "ballpoint", "light": "shadow"}
            picture, boxes = take_picture(images, rng, **options)
            if turned:  # They follow each other downward, and lie on their sides.
                picture, boxes = picture.swapaxes(0, 1), boxes[:, [1, 0, 3, 2]]
            found = find_digits(picture).boxes
            assert len(found) >= 8
            assert_allclose(found[0], boxes[0], atol=12)

    def test_small_digits_of_a_large_page_are_looked_at_more_finely(self, digits):
        rng, images = np.random.default_rng(10), digits.test_images[:240]
        ink = pages.write_rows(images, rng, 24, height=30)
        page = np.pad(pages.print_sheet(ink), ((0, 1000), (0, 600), (0, 0)), "edge")
        picture = pages.photograph(page, rng, "even")
        assert max(picture.shape) > 1600
        found = find_digits(picture)
        assert share_right(found.images, images) >= 0.85
        assert max(found.stages["ink"].shape) > 1000


# Two strokes that do not touch, across and down, as shares of the digit's height.
APART = {
    "a 4 with its stem apart": (
        [(0.2, 0), (0, 0.6), (0.36, 0.6)],
        [(0.5, 0.1), (0.5, 1)],
    ),
    "a 5 with its bar above": (
        [(0.05, 0.15), (0.05, 0.45), (0.6, 0.5), (0.55, 0.95), (0, 1)],
        [(0.1, 0), (0.6, 0)],
    ),
    "a broken 7": ([(0, 0), (0.6, 0), (0.5, 0.3)], [(0.45, 0.4), (0.25, 1)]),
    "a 0 in two halves": (
        [(0.25, 0), (0.05, 0.2), (0.05, 0.8), (0.25, 1)],
        [(0.4, 0), (0.6, 0.2), (0.6, 0.8), (0.4, 1)],
    ),
}


class TestStrokesApart:
    @pytest.mark.parametrize("strokes", APART.values(), ids=APART.keys())
    @pytest.mark.parametrize(("side", "pen"), [(28, 2), (112, 6), (280, 20), (280, 6)])
    @pytest.mark.parametrize("light", [False, True])
    def test_are_one_digit(self, strokes, side, pen, light):
        drawn = np.zeros((side, side), np.uint8)
        for stroke in strokes:
            points = np.rint(0.7 * side * np.array(stroke) + 0.17 * side).astype(int)
            cv2.polylines(drawn, [points], False, 255, pen, cv2.LINE_AA)
        found = find_digits(drawn if light else 255 - drawn)
        assert len(found.boxes) == 1
        rows, columns = (np.flatnonzero((drawn > 128).any(axis=a)) for a in (1, 0))
        box = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        assert np.abs(found.boxes - box).max() <= 2

    @pytest.mark.parametrize("pair", [(2, 0), (7, 0), (1, 1), (1, 7)])
    @pytest.mark.parametrize("gap", [0.15, 0.3, 0.5])
    @pytest.mark.parametrize("side", [280, 500])
    def test_but_two_small_neighbours_are_two(self, digits, pair, gap, side):
        height = side // 10
        drawn, left = np.full((side, side), 255, np.uint8), side // 3
        for label in pair:
            image = digits.test_images[digits.test_labels == label][0]
            ink = write(image, height, 0.1)
            columns = np.flatnonzero((ink > 0.3).any(axis=0))
            ink = ink[:, columns[0] : columns[-1] + 1]
            right = left + ink.shape[1]
            drawn[side // 4 : side // 4 + len(ink), left:right] = 255 * (1 - 0.9 * ink)
            left = right + round(gap * height)
        assert len(find_digits(drawn).boxes) == 2


class TestUsualSize:
    @pytest.mark.parametrize("shape", ["disk", "ring", "line"])
    def test_one_large_thing_does_not_decide_it(self, images, shape):
        ink = pages.write_rows(images, np.random.default_rng(12), 6)
        beside = np.zeros((len(ink), 400), np.float32)
        middle = 200, len(ink) // 2
        if shape == "line":
            cv2.line(beside, (40, 40), (340, 400), 1, 8)
        else:
            cv2.circle(beside, middle, 140, 1, -1 if shape == "disk" else 30)
        picture = pages.print_sheet(np.hstack([ink, beside]))
        picture = pages.photograph(picture, np.random.default_rng(13))
        assert len(find_digits(picture).boxes) == len(images) + 1

    def test_nor_do_three_large_digits_above_small_ones(self, images):
        rng = np.random.default_rng(14)
        large = pages.write_rows(images[:3], rng, 3, height=120)
        small = pages.write_rows(images[3:15], rng, 6, height=40)
        wide = max(large.shape[1], small.shape[1])
        ink = [
            np.pad(part, ((0, 0), (0, wide - part.shape[1]))) for part in (large, small)
        ]
        picture = pages.photograph(pages.print_sheet(np.vstack(ink)), rng)
        assert share_found(picture, images[:15]) >= 0.9


def test_a_page_of_thousands_of_digits_is_ordered_in_little_memory():
    rows, columns = (index.ravel() for index in np.indices((50, 60)))
    boxes = np.stack(
        [20 * rows, 20 * columns, 20 * rows + 12, 20 * columns + 8], axis=1
    )
    boxes += 1
    numbers, labels = np.arange(1, 3001), np.zeros((1100, 1300), int)
    scattered = np.random.default_rng(11).permutation(3000)
    page = Pieces(labels, numbers, boxes[scattered], np.full(3000, 40))
    tracemalloc.start()
    digits = group_pieces(page)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal([digit.box for digit in digits], boxes)
    assert peak < 20_000_000


@pytest.mark.parametrize("darkest", [100, 150, 200, 230])
@pytest.mark.parametrize("turns", range(4))
def test_light_that_falls_off_on_a_blank_sheet_is_no_ink(darkest, turns):
    shade = np.linspace(255, darkest, 400).astype(np.uint8)
    with pytest.raises(ValueError, match="no ink"):
        find_digits(np.rot90(np.tile(shade, (300, 1)), turns))
