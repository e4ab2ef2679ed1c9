"""Digits in photographs: found, put in order, and read."""

from itertools import product

import handwriting
import numpy as np
import pytest
from handwriting import LIGHTS, PAPERS, PENS, take_picture
from numpy.testing import assert_allclose, assert_array_equal

import run
from digits.figures import plot_reading
from digits.pictures import find_digits, name_digits
from handwritten_classifier import HandwrittenNumberClassification


@pytest.fixture(scope="module")
def model(digits):
    """Return a model that has learned the embedded digits as other hands write them."""
    settings = run.RECIPES["fast"] | {"epochs": 12, "augment": 1.0}
    model = HandwrittenNumberClassification(**settings)
    return model.fit(digits.train_images, digits.train_labels, verbose=0)


def lay_out(images, scale=5, columns=3, gap=20):
    """Return digits in rows, dark on light, and the box of the field of each."""
    side = 28 * scale
    rows = -(-len(images) // columns)
    sheet = np.zeros((rows * (side + gap), columns * (side + gap)), np.uint8)
    boxes = []
    for number, image in enumerate(images):
        top, left = (side + gap) * np.array(divmod(number, columns))
        field = image.repeat(scale, 0).repeat(scale, 1)
        sheet[top : top + side, left : left + side] = field
        boxes.append((top, left, top + side, left + side))
    return 255 - sheet, np.array(boxes)


def test_every_pen_on_every_paper_in_every_light(model, digits):
    kinds = [
        (pen, paper, LIGHTS[n % 3])
        for n, (pen, paper) in enumerate(product(PENS, PAPERS))
    ]
    images, labels = digits.test_images, digits.test_labels
    results = handwriting.read_pictures(model, images, labels, kinds)
    found = [all_found for _, all_found, _ in results]
    right = sum(right for _, _, right in results)
    assert np.mean(found) >= 0.9, [
        kind for kind, all_found, _ in results if not all_found
    ]
    assert right / (3 * len(kinds)) > 0.8


def test_chalk_on_a_board_is_pencil_on_paper(digits, rng):
    picture, boxes = take_picture(digits.test_images[:3], rng, light="shadow")
    found = find_digits(255 - picture)
    assert_allclose(found.boxes, boxes, atol=15)


@pytest.mark.parametrize("seed", [11, 13])  # Where darkness alone does not tell.
def test_in_deep_shadows_strokes_are_what_is_narrow(digits, seed):
    rng = np.random.default_rng(seed)
    options = {"pen": "pencil", "light": "shadow"}
    picture, boxes = take_picture(digits.test_images[:3], rng, **options)
    assert_allclose(find_digits(picture).boxes, boxes, atol=15)


@pytest.mark.parametrize("light", [False, True])
def test_where_one_side_of_the_light_has_no_ink_it_is_the_other(digits, light):
    rng = np.random.default_rng(7)
    options = {"pen": "pencil", "paper": "dark lines", "light": "shadow"}
    picture, boxes = take_picture(digits.test_images[:3], rng, **options)
    found = find_digits(255 - picture if light else picture)
    assert_allclose(found.boxes, boxes, atol=15)


def test_of_thousands_of_specks_no_more_than_500_are_looked_at(rng):
    specks = 255 * (rng.random((140, 200)) < 0.9).astype(np.uint8)
    found = find_digits(specks.repeat(5, 0).repeat(5, 1))
    assert 1 <= len(found.boxes) <= 500


def test_rows_are_read_from_the_top_and_each_from_the_left(digits):
    images = digits.test_images[:9]
    sheet, fields = lay_out(images)
    found = find_digits(sheet)
    assert len(found.boxes) == 9
    assert (found.boxes[:, :2] >= fields[:, :2]).all()
    assert (found.boxes[:, 2:] <= fields[:, 2:]).all()
    for prepared, image in zip(found.images, images, strict=True):
        assert np.abs(prepared[..., 0] - image / 255).mean() < 0.06


def test_a_slanting_row_is_one_row(digits):
    sheet, _ = lay_out(digits.test_images[:4], columns=4)
    lowered = [np.roll(part, 8 * n, 0) for n, part in enumerate(np.hsplit(sheet, 4))]
    boxes = find_digits(np.hstack(lowered)).boxes
    assert (np.diff(boxes[:, 1]) > 0).all()
    assert len(boxes) == 4


def test_boxes_are_in_pixels_of_the_picture_however_large_it_is(digits):
    sheet, _ = lay_out(digits.test_images[:2], columns=2)
    expected = find_digits(sheet).boxes
    large = find_digits(sheet.repeat(6, 0).repeat(6, 1))
    assert_allclose(large.boxes / 6, expected, atol=1.5)
    assert max(large.stages["ink"].shape) == 1000


def test_a_line_one_pixel_wide_is_a_stroke():
    import cv2

    sheet = np.full((1000, 290), 255, np.uint8)
    cv2.line(sheet, (58, 100), (232, 100), 0, 1)
    cv2.line(sheet, (232, 100), (116, 900), 0, 1)
    assert find_digits(sheet).images.max() == 1


def test_no_box_reaches_beyond_the_picture():
    sheet = np.full((3000, 2000), 255, np.uint8)
    sheet[500:2500, 1600:] = 0
    boxes = find_digits(sheet).boxes
    assert (boxes[:, 2:] <= (3000, 2000)).all()


def test_specks_are_no_digits(digits, rng):
    sheet, _ = lay_out(digits.test_images[:2], columns=2)
    expected = find_digits(sheet)
    for top, left in rng.integers(5, (len(sheet) - 5, sheet.shape[1] - 5), (9, 2)):
        sheet[top : top + 3, left : left + 3] = 60
    assert len(find_digits(sheet).boxes) == len(expected.boxes) == 2


def test_what_the_edge_of_the_picture_cuts_off_is_no_digit(digits):
    sheet, _ = lay_out(digits.test_images[:1])
    expected = find_digits(sheet).boxes
    sheet[:, -30:] = 40  # the table
    assert_array_equal(find_digits(sheet).boxes, expected)


def test_but_a_digit_alone_may_fill_its_picture(digits):
    image = 255 - digits.test_images[0].repeat(5, 0).repeat(5, 1)
    rows, columns = (np.flatnonzero((image < 255).any(axis=axis)) for axis in (1, 0))
    tight = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert_allclose(find_digits(tight).boxes, [[0, 0, *tight.shape]], atol=12)


@pytest.mark.parametrize("gap", [6, 20])
def test_a_stroke_apart_belongs_to_its_digit(gap):
    five = np.full((200, 200), 255, np.uint8)
    five[80:90, 70:120] = five[80:120, 70:80] = 0
    five[110:120, 70:120] = five[110:160, 110:120] = five[150:160, 70:120] = 0
    five[80:90, 78:120] = 255
    five[80 - gap : 90 - gap, 85:125] = 0  # its bar
    found = find_digits(five)
    assert_array_equal(found.boxes, [[80 - gap, 70, 160, 125]])


def test_lines_through_a_digit_leave_it_whole(digits):
    image = 255 - digits.test_images[0].repeat(10, 0).repeat(10, 1)
    picture = np.full((400, 600), 255, np.uint8)
    picture[60:340, 160:440] = image
    expected = find_digits(picture)
    for row in range(20, 400, 45):
        picture[row : row + 2] = np.minimum(picture[row : row + 2], 120)
    found = find_digits(picture)
    assert_allclose(found.boxes, expected.boxes, atol=4)
    assert np.abs(found.images - expected.images).mean() < 0.03


@pytest.mark.parametrize(("drawn", "seen"), [(4, 2), (30, 3)])
def test_thin_strokes_become_as_wide_as_mnists(drawn, seen):
    one = np.full((300, 300), 255, np.uint8)
    one[50:250, 100 : 100 + drawn] = 0  # 200 high, so that a pixel of 20 is 10 of these
    width = find_digits(one).images[0, 12:16].sum(axis=1)
    assert_allclose(width, seen, atol=0.4)


def test_every_stage_is_open_to_view(digits, rng):
    picture, _ = take_picture(digits.test_images[:2], rng, paper="squared")
    stages = find_digits(picture).stages
    assert list(stages) == [
        "picture",
        "light on the paper",
        "ink",
        "without ruled lines",
    ]
    assert {stage.shape for stage in stages.values()} == {picture.shape[:2]}
    assert (stages["ink"] > 0.1).sum() > 1.2 * (
        stages["without ruled lines"] > 0.1
    ).sum()


def test_an_empty_sheet_shows_no_digit(rng):
    sheet = np.full((300, 400), 200) * handwriting.shine((300, 400), "slanting", rng)
    noisy = np.clip(sheet + rng.normal(0, 4, sheet.shape), 0, 255).astype(np.uint8)
    with pytest.raises(ValueError, match=r"image must show a digit .* \(no ink\)"):
        find_digits(noisy)


class TestFigure:
    def test_it_shows_boxes_stages_and_readings(self, model, digits):
        sheet, _ = lay_out(digits.test_images[:3])
        figure = plot_reading(model, sheet)
        found = find_digits(sheet)
        names = name_digits(model.predict_proba(found.images))
        above, below = figure.subfigs
        titles = [panel.get_title() for panel in above.axes]
        assert titles == list(found.stages)
        assert [text.get_text() for text in above.axes[0].texts] == names
        for patch, (top, left, bottom, right) in zip(
            above.axes[0].patches, found.boxes, strict=True
        ):
            low, high = patch.get_xy().min(axis=0), patch.get_xy().max(axis=0)
            assert_array_equal([*low, *high], [left, top, right, bottom])
        for panel in above.axes:  # In pixels of the picture, whatever is drawn on it.
            assert panel.get_xlim() == (0, sheet.shape[1])
            assert panel.get_ylim() == (sheet.shape[0], 0)
        shown = [panel.get_title().split()[0] for panel in below.axes[:3]]
        assert shown == names
        assert_array_equal(below.axes[1].images[0].get_array(), found.images[1, ..., 0])

    def test_of_many_digits_it_says_how_many_are_shown(self, model, digits):
        sheet, _ = lay_out(digits.test_images[:45], scale=2, columns=9, gap=8)
        count = len(find_digits(sheet).boxes)
        assert count > 40
        title = plot_reading(model, sheet).subfigs[1].get_suptitle()
        assert title.endswith(f", the first 40 of {count}")

    def test_doubt_begins_below_its_threshold(self, model):
        shares = np.array([[0.69, 0.31], [0.29, 0.71]])
        assert name_digits(shares) == ["0?", "1"]
