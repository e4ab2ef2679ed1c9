"""What is said of pictures that were read only in part, or lie on their side."""

from pathlib import Path

import numpy as np
import pytest
from helpers import pages
from helpers.pictures import lay_out
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

import run
from digits.doubts import describe_doubts, explain_reading, find_turn
from digits.pictures import find_digits, name_digits


@pytest.fixture(scope="module")
def model():
    return run.load_model(run.READY_MODEL)


def write_page(digits, pale=None):
    """Return a photograph of 24 digits, of which the second half is paler."""
    rng = np.random.default_rng(21)
    ink = pages.write_rows(digits.test_images[:24], rng, 8)
    if pale is not None:
        ink[len(ink) // 2 :] *= pale
    return pages.photograph(pages.print_sheet(ink, 0.9), rng)


def explain(model, picture):
    found = find_digits(picture)
    shares = model.predict_proba(found.images)
    return explain_reading(picture, found, shares, model.predict_proba)


def test_nothing_is_said_of_a_page_that_is_read(model, digits):
    picture = write_page(digits)
    assert find_digits(picture).unread.shape == (0, 4)
    assert explain(model, picture) == []


@pytest.mark.parametrize(
    ("turns", "how"),
    [
        (3, "to the left by 90 degrees"),
        (2, "upside down"),
        (1, "to the right by 90 degrees"),
    ],
)
def test_a_turned_picture_is_recognised(model, digits, turns, how):
    sure = model.predict_proba(digits.test_images).max(axis=1) > 0.9
    sure &= np.isin(digits.test_labels, [2, 3, 4, 5, 7])  # Upside down, these are none.
    picture, _ = lay_out(digits.test_images[sure][:12], columns=4)
    assert explain(model, picture) == []
    expected = [f"Turned {how}, the picture is read much more surely"]
    assert explain(model, np.rot90(picture, turns)) == expected


def test_a_picture_is_not_turned_where_that_does_not_help(digits):
    unsure = np.full((4, 10), 0.1)
    picture = write_page(digits)
    assert find_turn(picture, unsure, lambda images: unsure[:1].repeat(24, 0)) == 0
    assert find_turn(picture, unsure[:2], lambda images: np.eye(10)) == 0  # Too few.


def test_pale_writing_beside_dark_writing_is_reported(model, digits):
    picture = write_page(digits, 0.35)
    unread = find_digits(picture).unread
    assert len(unread) >= 8
    assert (unread[:, 0] > len(picture) * 0.4).all()
    (hint,) = explain(model, picture)
    assert (
        hint
        == f"{len(unread)} marks beside the digits were not read: most are much paler"
    )


def test_small_writing_beside_large_writing_is_reported(model, digits):
    picture = np.full((400, 700), 255, np.uint8)
    for at, image in enumerate(digits.test_images[:3]):
        big = 255 - image.repeat(7, 0).repeat(7, 1)
        picture[20:216, 20 + 220 * at : 216 + 220 * at] = big
    for left in (100, 200, 300):
        picture[300:345, left : left + 10] = 0  # 0.36 of the digits
    (hint,) = explain(model, picture)
    assert hint == "3 marks beside the digits were not read: most are much smaller"


def test_specks_are_not_reported(digits):
    picture, rng = write_page(digits), np.random.default_rng(22)
    for top, left in rng.integers(20, np.array(picture.shape[:2]) - 20, (40, 2)):
        picture[top : top + 5, left : left + 5] = 30
    assert len(find_digits(picture).unread) <= 1


def test_doubts_are_described_and_most_of_all_where_many_are():
    assert describe_doubts(["1", "2"]) == ""
    line = "?: in doubt, for no digit has a probability of 70%, or several touch"
    assert describe_doubts(["1", "2?"]) == line
    assert describe_doubts(["1?", "2?", "3"]).startswith(f"{line}\nMost are in doubt")
    page = ["1"] * 20
    assert describe_doubts([*page, "2?", "2?", "2?"]) == line
    said = describe_doubts([*page, *["2?"] * 5])
    assert said.startswith(f"{line}\nMany are in doubt")


def test_a_page_of_text_is_said_to_be_in_doubt(model):
    text = "The quick brown fox\njumps over the lazy\ndog, and nobody reads\nnumbers"
    page, font = Image.new("L", (800, 320), 245), Path(get_data_path(), "fonts", "ttf")
    font = ImageFont.truetype(font / "DejaVuSerif.ttf", 48)
    ImageDraw.Draw(page).text((40, 30), text, 40, font)
    found = find_digits(np.asarray(page))
    names = name_digits(model.predict_proba(found.images), found.touching)
    assert len(names) > 40
    assert "are in doubt: the picture may be" in describe_doubts(names)
