"""Pictures of one's own on their way to what MNIST's digits look like."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from digits.mnist import read_data
from digits.pictures import imitate_mnist, prepare_image
from handwritten_classifier import HandwrittenNumberClassification


def picture(height=120, width=90, top=20, left=15):
    """Return a light "7" on black: a bar of 40 pixels on a stem of 60, both 10 wide."""
    drawn = np.zeros((height, width), np.uint8)
    drawn[top : top + 10, left : left + 40] = 255
    drawn[top : top + 60, left + 30 : left + 40] = 255
    return drawn


def centre_of_mass(prepared):
    weights = prepared[0, :, :, 0]
    places = np.indices(weights.shape)
    return (places * weights).sum(axis=(1, 2)) / weights.sum()


def test_shape_type_and_range():
    prepared = prepare_image(picture())
    assert prepared.shape == (1, 28, 28, 1)
    assert prepared.dtype == np.float32
    assert prepared.min() == 0
    assert prepared.max() == 1


def test_the_digit_fills_a_box_of_20_and_keeps_its_proportions():
    ink = prepare_image(picture())[0, :, :, 0] > 0.5
    assert ink.any(axis=1).sum() == 20  # 60 pixels high
    assert ink.any(axis=0).sum() == 13  # 40 pixels wide: 40 / 60 of 20
    wide = prepare_image(picture().T)[0, :, :, 0] > 0.5
    assert (wide.any(axis=1).sum(), wide.any(axis=0).sum()) == (13, 20)


def test_the_centre_of_mass_lies_in_the_middle():
    assert_allclose(centre_of_mass(prepare_image(picture())), [14, 14], atol=0.5)


def test_a_heavy_end_does_not_push_the_digit_out_of_the_field():
    drawn = np.zeros((100, 100), np.uint8)
    drawn[10:20, 10:90] = 255
    drawn[20:90, 48:50] = 255  # a "T": all of its weight is at the top
    prepared = prepare_image(drawn)
    ink = prepared[0, :, :, 0] > 0
    assert ink.any(axis=1).sum() == 20


def test_where_it_stands_and_how_large_it_is_do_not_matter():
    expected = prepare_image(picture())
    moved = picture(200, 150, top=90, left=80)
    assert_array_equal(prepare_image(moved), expected)
    large = np.kron(picture(), np.ones((3, 3), np.uint8))
    assert_allclose(prepare_image(large), expected, atol=0.05)


def test_dark_on_light_is_light_on_dark():
    assert_array_equal(prepare_image(255 - picture()), prepare_image(picture()))


@pytest.mark.parametrize(("paper", "ink"), [(200, 60), (120, 20), (90, 250), (0, 60)])
def test_neither_paper_nor_ink_need_be_black_or_white(paper, ink):
    drawn = np.where(picture() > 0, ink, paper).astype(np.uint8)
    assert_allclose(prepare_image(drawn), prepare_image(picture()), atol=1e-6)


def test_noise_of_a_camera_changes_little(rng):
    noise = rng.normal(0, 8, size=picture().shape)
    noisy = np.clip(230 - 0.8 * picture() + noise, 0, 255).astype(np.uint8)
    assert_allclose(prepare_image(noisy), prepare_image(picture()), atol=0.15)


def test_colours():
    ink = np.where(picture() > 0, 255, 0)
    blue = np.stack([255 - ink, 255 - ink, np.full_like(ink, 255)], axis=2)
    expected = prepare_image(picture())
    assert_allclose(prepare_image(blue.astype(np.uint8)), expected, atol=1e-5)


@pytest.mark.parametrize("grey", [0, 255])
def test_ink_on_a_transparent_ground(grey):
    drawn = np.zeros((*picture().shape, 4), np.uint8)
    drawn[..., :3], drawn[..., 3] = grey, picture()
    assert_allclose(prepare_image(drawn), prepare_image(picture()), atol=1e-5)


@pytest.mark.parametrize("grey", [0, 255])
def test_a_card_with_its_own_paper_on_a_transparent_ground(grey):
    card = np.zeros((200, 180, 4), np.uint8)
    card[30:150, 40:130, :3] = np.abs(grey - picture().astype(int))[..., np.newaxis]
    card[30:150, 40:130, 3] = 255
    assert_allclose(prepare_image(card), prepare_image(picture()), atol=1e-5)


def test_alpha_that_is_opaque_everywhere_changes_nothing():
    opaque = np.full((*picture().shape, 4), 255, np.uint8)
    opaque[..., :3] = (255 - picture())[..., np.newaxis]
    assert_allclose(prepare_image(opaque), prepare_image(picture()), atol=1e-5)


def test_the_picture_is_not_changed():
    drawn = picture()
    kept = drawn.copy()
    drawn.flags.writeable = False
    prepare_image(drawn)
    assert_array_equal(drawn, kept)


@pytest.mark.parametrize(
    "blank",
    [
        np.zeros((50, 50), np.uint8),
        np.full((50, 50), 255, np.uint8),
        np.full((50, 50, 3), 77, np.uint8),
        np.zeros((50, 50, 4), np.uint8),
        np.full((1, 1), 255, np.uint8),
        np.tile(np.array([[200, 230], [215, 220]], np.uint8), (20, 20)),
        np.random.default_rng(0).normal(190, 12, (500, 500)).astype(np.uint8),
        np.random.default_rng(0).normal(65, 12, (500, 500)).astype(np.uint8),
        np.random.default_rng(0).integers(0, 256, (500, 500), np.uint8),
        np.tile(np.linspace(255, 120, 300).astype(np.uint8), (200, 1)),
    ],
)
def test_a_picture_without_ink_is_no_digit(blank):
    with pytest.raises(
        ValueError, match=r"image must show a digit .*; got \d+ \(no ink\)"
    ):
        prepare_image(blank)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((9, 9)), TypeError, "uint8; got dtype float64"),
        (np.zeros(9, np.uint8), ValueError, r"shape .*; got \(9,\)"),
        (np.zeros((9, 9, 2), np.uint8), ValueError, r"shape .*; got \(9, 9, 2\)"),
        (np.zeros((1, 9, 9, 1), np.uint8), ValueError, r"shape .*; got \(1, 9, 9, 1\)"),
        (np.zeros((0, 9), np.uint8), ValueError, r"pixels; got shape \(0, 9\)"),
    ],
)
def test_a_wrong_picture_is_named(image, error, message):
    with pytest.raises(error, match=f"image must .*{message}"):
        prepare_image(image)


@pytest.mark.parametrize(
    "ink", [np.zeros((9, 9)), -np.ones((9, 9)), np.full((9, 9), np.nan), np.ones(9)]
)
def test_what_is_no_ink_imitates_no_digit(ink):
    with pytest.raises(ValueError, match="ink must be finite"):
        imitate_mnist(ink)


def test_digits_as_large_as_a_photograph_are_read_as_the_small_ones_are(digits):
    model = HandwrittenNumberClassification("8C5-MP2-10N", lr=0.1, momentum=0.9)
    model.fit(digits.train_images, digits.train_labels, epochs=8, verbose=0)
    images, labels = digits.train_images[:100], digits.train_labels[:100]
    large = [np.asarray(Image.fromarray(255 - i).resize((400, 400))) for i in images]
    prepared = np.concatenate([prepare_image(image) for image in large])
    assert model.score(prepared, labels) > 0.9


def test_mnist_is_left_as_it_is(mnist_path):
    images = read_data(mnist_path).train_images[-500:]
    prepared = np.concatenate([prepare_image(image) for image in images])[..., 0]
    assert np.abs(prepared - images / 255).mean() < 0.01
