"""Pictures of one's own: read from files, prepared as MNIST's digits are, found."""

import io
from itertools import product

import handwriting
import numpy as np
import pytest
from handwriting import LIGHTS, PAPERS, PENS, take_picture
from helpers.pictures import lay_out
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from digits import pieces
from digits.mnist import read_data
from digits.mnist_form import imitate_mnist
from digits.pictures import (
    find_digits,
    name_digits,
    prepare_image,
    read_image,
)
from handwritten_classifier import HandwrittenNumberClassification


@pytest.fixture(scope="module")
def model(model_path):
    """Return a model that has learned the embedded digits as other hands write them."""
    return HandwrittenNumberClassification.load(model_path)


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


class TestReadImage:
    def test_a_phones_photograph_of_50_megapixels_is_read_and_reduced(self):
        noise = np.random.default_rng(0).integers(0, 256, (768, 1020, 3))
        photograph, stream = Image.fromarray(noise.astype(np.uint8)), io.BytesIO()
        photograph.resize((8160, 6144)).save(stream, "JPEG")
        assert read_image(stream).shape == (768, 1020, 3)  # by 4, then by 2

    def test_pictures_of_more_than_256_levels_keep_white_white(self):
        stroke = np.array([[0, 0.5, 1]])
        for levels in (
            (65535 * stroke).astype(np.uint16),
            (65535 * stroke).astype(np.int32),
            stroke.astype(np.float32),
            (255 * stroke).astype(np.float32),
        ):
            stream = io.BytesIO()
            Image.fromarray(levels).save(stream, "TIFF")
            assert read_image(stream)[0].tolist() in ([0, 127, 255], [0, 128, 255])


class TestPrepareImage:
    def test_shape_type_and_range(self):
        prepared = prepare_image(picture())
        assert prepared.shape == (1, 28, 28, 1)
        assert prepared.dtype == np.float32
        assert prepared.min() == 0
        assert prepared.max() == 1

    def test_the_digit_fills_a_box_of_20_and_keeps_its_proportions(self):
        ink = prepare_image(picture())[0, :, :, 0] > 0.5
        assert ink.any(axis=1).sum() == 20  # 60 pixels high
        assert ink.any(axis=0).sum() == 13  # 40 pixels wide: 40 / 60 of 20
        wide = prepare_image(picture().T)[0, :, :, 0] > 0.5
        assert (wide.any(axis=1).sum(), wide.any(axis=0).sum()) == (13, 20)

    def test_the_centre_of_mass_lies_in_the_middle(self):
        assert_allclose(centre_of_mass(prepare_image(picture())), [14, 14], atol=0.5)

    def test_a_heavy_end_does_not_push_the_digit_out_of_the_field(self):
        drawn = np.zeros((100, 100), np.uint8)
        drawn[10:20, 10:90] = 255
        drawn[20:90, 48:50] = 255  # a "T": all of its weight is at the top
        prepared = prepare_image(drawn)
        ink = prepared[0, :, :, 0] > 0
        assert ink.any(axis=1).sum() == 20

    def test_where_it_stands_and_how_large_it_is_do_not_matter(self):
        expected = prepare_image(picture())
        moved = picture(200, 150, top=90, left=80)
        assert_array_equal(prepare_image(moved), expected)
        large = np.kron(picture(), np.ones((3, 3), np.uint8))
        assert_allclose(prepare_image(large), expected, atol=0.05)

    def test_dark_on_light_is_light_on_dark(self):
        assert_array_equal(prepare_image(255 - picture()), prepare_image(picture()))

    @pytest.mark.parametrize(
        ("paper", "ink"), [(200, 60), (120, 20), (90, 250), (0, 60)]
    )
    def test_neither_paper_nor_ink_need_be_black_or_white(self, paper, ink):
        drawn = np.where(picture() > 0, ink, paper).astype(np.uint8)
        assert_allclose(prepare_image(drawn), prepare_image(picture()), atol=1e-6)

    def test_noise_of_a_camera_changes_little(self, rng):
        noise = rng.normal(0, 8, size=picture().shape)
        noisy = np.clip(230 - 0.8 * picture() + noise, 0, 255).astype(np.uint8)
        assert_allclose(prepare_image(noisy), prepare_image(picture()), atol=0.15)

    def test_colours(self):
        ink = np.where(picture() > 0, 255, 0)
        blue = np.stack([255 - ink, 255 - ink, np.full_like(ink, 255)], axis=2)
        expected = prepare_image(picture())
        assert_allclose(prepare_image(blue.astype(np.uint8)), expected, atol=1e-5)

    @pytest.mark.parametrize("grey", [0, 255])
    def test_ink_on_a_transparent_ground(self, grey):
        drawn = np.zeros((*picture().shape, 4), np.uint8)
        drawn[..., :3], drawn[..., 3] = grey, picture()
        assert_allclose(prepare_image(drawn), prepare_image(picture()), atol=1e-5)

    @pytest.mark.parametrize("grey", [0, 255])
    def test_a_card_with_its_own_paper_on_a_transparent_ground(self, grey):
        card = np.zeros((200, 180, 4), np.uint8)
        card[30:150, 40:130, :3] = np.abs(grey - picture().astype(int))[..., np.newaxis]
        card[30:150, 40:130, 3] = 255
        assert_allclose(prepare_image(card), prepare_image(picture()), atol=1e-5)

    def test_alpha_that_is_opaque_everywhere_changes_nothing(self):
        opaque = np.full((*picture().shape, 4), 255, np.uint8)
        opaque[..., :3] = (255 - picture())[..., np.newaxis]
        assert_allclose(prepare_image(opaque), prepare_image(picture()), atol=1e-5)

    def test_the_picture_is_not_changed(self):
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
    def test_a_picture_without_ink_is_no_digit(self, blank):
        with pytest.raises(
            ValueError, match=r"image must show a digit .*; got \d+ \(no ink\)"
        ):
            prepare_image(blank)

    def test_what_is_noise_and_no_digit_is_said(self, rng):
        noise = rng.integers(0, 256, (500, 500), np.uint8)
        required = r"stands out by 8 times the noise of its paper, \d+ of 255; got \d+ "
        with pytest.raises(ValueError, match=required):
            prepare_image(noise)

    @pytest.mark.parametrize(
        ("image", "error", "message"),
        [
            (np.zeros((9, 9)), TypeError, r"float64: pass \(255 \* image\)\.astype"),
            (np.full((9, 9), 255.0), TypeError, r"float64: pass image\.astype\(np.uin"),
            (np.full((9, 9), -1.0), TypeError, "float64 from -1 to -1: scale it to 0"),
            (np.full((9, 9), np.nan), TypeError, "float64 from nan to nan: scale it"),
            (np.full((9, 9), 9), TypeError, r"int64: pass image\.astype\(np.uint8"),
            (np.full((9, 9), 999), TypeError, "int64 from 999 to 999: scale it"),
            (np.ones((9, 9), bool), TypeError, r"bool: pass 255 \* image\.astype"),
            ("five.png", TypeError, r"uint8 array; got str: pass read_image\(image\)"),
            (np.array(["0"]), TypeError, "got dtype <U1"),
            (np.zeros(9, np.uint8), ValueError, r"shape .*; got \(9,\)"),
            (np.zeros((9, 9, 2), np.uint8), ValueError, r"shape .*; got \(9, 9, 2\)"),
            (
                np.zeros((1, 9, 9, 1), np.uint8),
                ValueError,
                r"shape .*; got \(1, 9, 9, 1\): pass image\[0\]\[..., 0\]",
            ),
            (
                np.zeros((9, 9, 1), np.uint8),
                ValueError,
                r"got \(9, 9, 1\): pass image\[..., 0\]",
            ),
            (np.zeros((1, 9, 9), np.uint8), ValueError, r"9\): pass image\[0\]$"),
            (np.zeros((3, 9, 9), np.uint8), ValueError, r"pass image\.transpose\(1, 2"),
            (
                np.zeros((4, 9, 9, 3), np.uint8),
                ValueError,
                "pass one picture at a time",
            ),
            (np.zeros((0, 9), np.uint8), ValueError, r"pixels; got shape \(0, 9\)"),
        ],
    )
    def test_a_wrong_picture_is_named(self, image, error, message):
        for read in (prepare_image, find_digits):
            with pytest.raises(error, match=f"image must .*{message}"):
                read(image)

    @pytest.mark.parametrize(
        ("given", "turn"),
        [
            (picture() > 0, lambda image: 255 * image.astype(np.uint8)),
            (picture() / 255, lambda image: (255 * image).astype(np.uint8)),
            (picture().astype(float), lambda image: image.astype(np.uint8)),
            (picture()[..., np.newaxis], lambda image: image[..., 0]),
            (picture()[np.newaxis], lambda image: image[0]),
            (picture()[np.newaxis, ..., np.newaxis], lambda image: image[0][..., 0]),
        ],
    )
    def test_what_the_message_advises_is_right(self, given, turn):
        with pytest.raises((TypeError, ValueError), match=": pass "):
            prepare_image(given)
        assert_array_equal(prepare_image(turn(given)), prepare_image(picture()))

    @pytest.mark.parametrize("dark", [False, True])
    @pytest.mark.parametrize("scale", [1, 5, 12])
    def test_a_digit_without_a_margin_is_read_as_if_it_had_one(
        self, digits, dark, scale
    ):
        differences = []
        for image in digits.test_images[:75]:
            rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
            crop = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            size = [scale * side for side in crop.shape[::-1]]
            crop = np.asarray(Image.fromarray(crop).resize(size))
            crop = 255 - crop if dark else crop
            with_margin = np.pad(crop, 4 * scale, constant_values=255 * dark)
            try:
                found = find_digits(crop).images
            except ValueError:  # A "1" can fill its picture, so that no paper is left.
                found = np.zeros((1, 28, 28, 1))
            difference = np.abs(found[:1] - prepare_image(with_margin)).mean()
            differences.append(difference if len(found) == 1 else 1)
        assert np.mean(np.array(differences) < 0.1) >= 0.98

    @pytest.mark.parametrize(
        "ink", [np.zeros((9, 9)), -np.ones((9, 9)), np.full((9, 9), np.nan), np.ones(9)]
    )
    def test_what_is_no_ink_imitates_no_digit(self, ink):
        with pytest.raises(ValueError, match="ink must be finite"):
            imitate_mnist(ink)

    def test_digits_as_large_as_a_photograph_are_read_as_the_small_ones_are(
        self, digits
    ):
        model = HandwrittenNumberClassification("8C5-MP2-10N", lr=0.1, momentum=0.9)
        model.fit(digits.train_images, digits.train_labels, epochs=8, verbose=0)
        images, labels = digits.train_images[:50], digits.train_labels[:50]
        large = [
            np.asarray(Image.fromarray(255 - i).resize((400, 400))) for i in images
        ]
        prepared = np.concatenate([prepare_image(image) for image in large])
        assert model.score(prepared, labels) > 0.9

    def test_mnist_is_left_as_it_is(self, mnist_path):
        images = read_data(mnist_path).train_images[-200:]
        prepared = np.concatenate([prepare_image(image) for image in images])[..., 0]
        assert np.abs(prepared - images / 255).mean() < 0.01


class TestFindDigits:
    def test_every_pen_on_every_paper_in_every_light(self, model, digits):
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

    def test_chalk_on_a_board_is_pencil_on_paper(self, digits, rng):
        picture, boxes = take_picture(digits.test_images[:3], rng, light="shadow")
        found = find_digits(255 - picture)
        assert_allclose(found.boxes, boxes, atol=15)

    @pytest.mark.parametrize("seed", [11, 13])  # Where darkness alone does not tell.
    def test_in_deep_shadows_strokes_are_what_is_narrow(self, digits, seed):
        rng = np.random.default_rng(seed)
        options = {"pen": "pencil", "light": "shadow"}
        picture, boxes = take_picture(digits.test_images[:3], rng, **options)
        assert_allclose(find_digits(picture).boxes, boxes, atol=15)

    @pytest.mark.parametrize("light", [False, True])
    def test_where_one_side_of_the_light_has_no_ink_it_is_the_other(
        self, digits, light
    ):
        rng = np.random.default_rng(7)
        options = {"pen": "pencil", "paper": "dark lines", "light": "shadow"}
        picture, boxes = take_picture(digits.test_images[:3], rng, **options)
        found = find_digits(255 - picture if light else picture)
        assert_allclose(found.boxes, boxes, atol=15)

    def test_of_thousands_of_specks_not_all_are_looked_at(self, rng, monkeypatch):
        monkeypatch.setattr(pieces, "_MOST_PIECES", 500)
        specks = 255 * (rng.random((140, 200)) < 0.9).astype(np.uint8)
        found = find_digits(specks.repeat(5, 0).repeat(5, 1))
        assert 1 <= len(found.boxes) <= 600  # Some are cut.

    def test_rows_are_read_from_the_top_and_each_from_the_left(self, digits):
        images = digits.test_images[:9]
        sheet, fields = lay_out(images)
        found = find_digits(sheet)
        assert len(found.boxes) == 9
        assert (found.boxes[:, :2] >= fields[:, :2]).all()
        assert (found.boxes[:, 2:] <= fields[:, 2:]).all()
        for prepared, image in zip(found.images, images, strict=True):
            assert np.abs(prepared[..., 0] - image / 255).mean() < 0.06

    def test_a_slanting_row_is_one_row(self, digits):
        sheet, _ = lay_out(digits.test_images[:4], columns=4)
        lowered = [
            np.roll(part, 8 * n, 0) for n, part in enumerate(np.hsplit(sheet, 4))
        ]
        boxes = find_digits(np.hstack(lowered)).boxes
        assert (np.diff(boxes[:, 1]) > 0).all()
        assert len(boxes) == 4

    def test_boxes_are_in_pixels_of_the_picture_however_large_it_is(self, digits):
        sheet, _ = lay_out(digits.test_images[:2], columns=2)
        expected = find_digits(sheet).boxes
        large = find_digits(sheet.repeat(6, 0).repeat(6, 1))
        assert_allclose(large.boxes / 6, expected, atol=1.5)
        assert max(large.stages["ink"].shape) == 1000

    def test_a_line_one_pixel_wide_is_a_stroke(self):
        import cv2

        sheet = np.full((1000, 290), 255, np.uint8)
        cv2.line(sheet, (58, 100), (232, 100), 0, 1)
        cv2.line(sheet, (232, 100), (116, 900), 0, 1)
        assert find_digits(sheet).images.max() == 1

    def test_no_box_reaches_beyond_the_picture(self):
        sheet = np.full((3000, 2000), 255, np.uint8)
        sheet[500:2500, 1600:] = 0
        boxes = find_digits(sheet).boxes
        assert (boxes[:, 2:] <= (3000, 2000)).all()

    def test_specks_are_no_digits(self, digits, rng):
        sheet, _ = lay_out(digits.test_images[:2], columns=2)
        expected = find_digits(sheet)
        for top, left in rng.integers(5, (len(sheet) - 5, sheet.shape[1] - 5), (9, 2)):
            sheet[top : top + 3, left : left + 3] = 60
        assert len(find_digits(sheet).boxes) == len(expected.boxes) == 2

    def test_what_the_edge_of_the_picture_cuts_off_is_no_digit(self, digits):
        sheet, _ = lay_out(digits.test_images[:1])
        expected = find_digits(sheet).boxes
        sheet[:, -30:] = 40  # the table
        assert_array_equal(find_digits(sheet).boxes, expected)

    def test_but_a_digit_alone_may_fill_its_picture(self, digits):
        image = 255 - digits.test_images[0].repeat(5, 0).repeat(5, 1)
        rows, columns = (
            np.flatnonzero((image < 255).any(axis=axis)) for axis in (1, 0)
        )
        tight = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert_allclose(find_digits(tight).boxes, [[0, 0, *tight.shape]], atol=12)

    @pytest.mark.parametrize("gap", [6, 20])
    def test_a_stroke_apart_belongs_to_its_digit(self, gap):
        five = np.full((200, 200), 255, np.uint8)
        five[80:90, 70:120] = five[80:120, 70:80] = 0
        five[110:120, 70:120] = five[110:160, 110:120] = five[150:160, 70:120] = 0
        five[80:90, 78:120] = 255
        five[80 - gap : 90 - gap, 85:125] = 0  # its bar
        found = find_digits(five)
        assert_array_equal(found.boxes, [[80 - gap, 70, 160, 125]])

    def test_lines_through_a_digit_leave_it_whole(self, digits):
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
    def test_thin_strokes_become_as_wide_as_mnists(self, drawn, seen):
        one = np.full((300, 300), 255, np.uint8)
        one[50:250, 100 : 100 + drawn] = 0  # 200 high: 10 of these make one of 20
        width = find_digits(one).images[0, 12:16].sum(axis=1)
        assert_allclose(width, seen, atol=0.4)

    def test_every_stage_is_open_to_view(self, digits, rng):
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

    def test_an_empty_sheet_shows_no_digit(self, rng):
        sheet = np.full((300, 400), 200) * handwriting.shine(
            (300, 400), "slanting", rng
        )
        noisy = np.clip(sheet + rng.normal(0, 4, sheet.shape), 0, 255).astype(np.uint8)
        with pytest.raises(ValueError, match=r"image must show a digit .* \(no ink\)"):
            find_digits(noisy)


def test_doubt_begins_below_its_threshold():
    shares = np.array([[0.69, 0.31], [0.29, 0.71]])
    assert name_digits(shares) == ["0?", "1"]


@pytest.mark.parametrize(
    ("label", "names", "expected"),
    [
        ("123", ["1", "2", "3"], (3, 0, 0, 0, 0)),
        ("123", ["1", "7", "3?"], (1, 1, 1, 0, 0)),
        ("123", ["2", "3"], (2, 0, 0, 1, 0)),
        ("12", ["1", "8?", "2"], (2, 0, 0, 0, 1)),
        ("1", [], (0, 0, 0, 1, 0)),
    ],
)
def test_readings_are_scored_against_the_label_as_sequences(label, names, expected):
    assert tuple(handwriting.count_outcomes(label, names).values()) == expected


def test_a_folder_of_pictures_is_scored(model, digits, tmp_path, capsys):
    sheet, _ = lay_out(digits.train_images[:3])
    Image.fromarray(sheet).save(tmp_path / "row.png")
    Image.fromarray(255 - picture()).save(tmp_path / "one.png")
    Image.new("L", (60, 60), 255).save(tmp_path / "blank.png")
    label = "".join(map(str, digits.train_labels[:3]))
    lines = ["file,label,kind", f"row.png,{label},row", "one.png,7,one", "blank.png,4,"]
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    found, whole = handwriting.score_folder(model, tmp_path)
    assert [kind for kind, *_ in found] == ["row", "one", ""]
    assert sum(found[0][2].values()) == 3
    assert found[0][2]["missed"] == found[0][2]["false"] == 0
    assert found[2][2]["missed"] == whole[1][2]["missed"] == 1
    assert [label for _, label, _ in whole] == ["7", "4"]
    handwriting.print_scores(found, whole)
    assert "one digit, read as a whole       2       2" in capsys.readouterr().out
