"""Pictures as people bring them: digits by several pens, on papers, in bad light.

The digits are given, as MNIST's images, so that it is known what there is to read.
``python tests/programs/handwriting.py results/model.npz`` prints how many digits of
MNIST's test images a model reads right in each kind of picture (``--pictures N`` of
each), and draws how it reads one of them in ``results/handwriting.png``.

``--folder FOLDER`` scores a folder of your own pictures instead. Its ``labels.csv`` has
the columns file, label (the digits in reading order) and kind (any word). Pictures of
one digit are also read as a whole, by `prepare_image`.
"""

import argparse
import csv
import functools
import io
import os
import sys
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
import run
from digits.canvas import draw_to_files
from digits.figures import plot_reading
from digits.mnist import load_data
from digits.pictures import find_digits, name_digits, prepare_image, read_image
from digits.results import make_folder, print_table, write_figure

# How wide the stroke is, as a share of the digit's height (None: as it was written),
# and how dark, 0..1.
PENS = {
    "as written": (None, 0.85),
    "ballpoint": (0.03, 0.75),
    "pencil": (0.05, 0.45),
    "felt pen": (0.17, 0.9),
}
# The distance of the lines downward and across, as shares of a digit's height (None:
# there are none), how dark they are, 0..1, and how wide, as a share of that height.
PAPERS = {
    "plain": (None, None, 0, 0),
    "lined": (0.9, None, 0.3, 0.012),
    "dark lines": (1.1, None, 0.55, 0.015),
    "squared": (0.4, 0.4, 0.25, 0.01),
}
LIGHTS = ("even", "slanting", "shadow")
HEIGHT = 180  # pixels, of a digit


def take_picture(
    digits, rng, *, pen="as written", paper="plain", light="even", touching=False
):
    """Return digits in a row on paper as a photograph, uint8 (H, W, 3), and boxes."""
    ink, boxes = write_row(digits, rng, PENS[pen][0], touching)
    down, across, darkness, width = PAPERS[paper]
    angle, width = rng.uniform(-4, 4), max(1.2, width * HEIGHT)
    lines = np.zeros_like(ink)
    for step, turned in ((down, angle), (across, angle + 90)):
        if step:
            ruled = rule_paper(ink.shape, step * HEIGHT, turned, width, rng)
            lines = np.maximum(lines, ruled)
    sheet = np.array([0.96, 0.95, 0.92])
    picture = sheet * (1 - lines[..., None] * darkness * np.array([1, 0.8, 0.5]))
    blue = sheet * (1 - PENS[pen][1] * np.array([1, 0.9, 0.6]))
    picture += ink[..., None] * (blue - picture)
    grain = cv2.GaussianBlur(rng.normal(size=ink.shape), (0, 0), 1.5)
    picture *= (1 + 0.04 * grain[..., None]) * shine(ink.shape, light, rng)[..., None]
    noisy = 255 * picture + rng.normal(0, 4, picture.shape)
    file = io.BytesIO()
    photograph = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    photograph.save(file, "JPEG", quality=int(rng.integers(60, 95)))
    return np.asarray(Image.open(file)), boxes


def write_row(digits, rng, width, touching=False):
    """Return the ink of a row of digits, 0..1, and the box of each in it."""
    heights = (round(HEIGHT * rng.uniform(0.9, 1.1)) for _ in digits)
    strokes = [write(d, h, width) for d, h in zip(digits, heights, strict=True)]
    gap, margin = round(0.35 * HEIGHT), round(HEIGHT * rng.uniform(0.5, 0.9))
    tall = max(len(stroke) for stroke in strokes) + 2 * margin
    wide = sum(stroke.shape[1] + gap for stroke in strokes) - gap + 2 * margin
    ink, boxes = np.zeros((tall, max(tall, wide)), np.float32), []
    left = margin + max(0, tall - wide) // 2
    for stroke in strokes:
        top = margin + round(rng.uniform(-0.1, 0.1) * HEIGHT)
        bottom = top + len(stroke)
        if touching and boxes:
            left = find_contact(ink[top:bottom], stroke) - round(0.02 * HEIGHT)
        right = left + stroke.shape[1]
        ink[top:bottom, left:right] = np.maximum(ink[top:bottom, left:right], stroke)
        rows, columns = (np.flatnonzero((stroke > 0.5).any(axis=a)) for a in (1, 0))
        ends = rows[-1] + 1, columns[-1] + 1
        boxes.append((top + rows[0], left + columns[0], top + ends[0], left + ends[1]))
        left = right + gap
    return ink, np.array(boxes)


def find_contact(ink, stroke):
    """Return how far to the left a stroke gets before it touches the ink beside it."""
    ends = np.where((ink > 0.5).any(axis=1), ink.shape[1], 0)
    ends -= (ink > 0.5)[:, ::-1].argmax(axis=1)
    starts = np.where((stroke > 0.5).any(axis=1), (stroke > 0.5).argmax(axis=1), np.inf)
    return max(0, int((ends - starts).max()))


def write(digit, height, width):
    """Return one digit's ink, `height` pixels high, by a pen of this width."""
    rows, columns = (np.flatnonzero(digit.any(axis=axis)) for axis in (1, 0))
    crop = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale, crop = height / len(crop), np.pad(crop, 3).astype(np.float32)
    size = [round(scale * side) for side in crop.shape[::-1]]
    large = cv2.resize(crop, size, interpolation=cv2.INTER_CUBIC)
    ink = (cv2.GaussianBlur(large, (0, 0), 0.3 * scale) > 110).astype(np.uint8)
    if width is not None:
        way = cv2.distanceTransform(1 - find_middle(ink), cv2.DIST_L2, 5)
        ink = (way < width * height / 2).astype(np.uint8)
    return cv2.GaussianBlur(ink.astype(np.float32), (0, 0), 0.8)


def find_middle(ink):
    """Return the middle lines of strokes (Zhang, Suen: thinning, CACM 27, 1984)."""
    ink, before = ink.astype(np.uint8), None
    weights = np.array([[128, 1, 2], [64, 0, 4], [32, 16, 8]], np.float32)
    while before is None or (ink != before).any():
        before = ink
        for free in find_free_pixels():
            near = cv2.filter2D(ink, -1, weights, borderType=cv2.BORDER_CONSTANT)
            ink = ink & ~free[near]
    return ink


@functools.cache
def find_free_pixels():
    """Return which pixels each half of a step takes, by their neighbours as bits.

    The lowest bit is the neighbour in the north, and those behind it follow clockwise.
    """
    near = (np.arange(256) >> np.arange(8)[:, np.newaxis]) & 1
    north, east, south, west = near[::2]
    count, edges = near.sum(axis=0), (np.roll(near, -1, axis=0) > near).sum(axis=0)
    taken = ((count >= 2) & (count <= 6) & (edges == 1)).astype(np.uint8)
    first = taken & ~(north & east & south) & ~(east & south & west)
    second = taken & ~(north & east & west) & ~(north & south & west)
    return first.astype(np.uint8), second.astype(np.uint8)


def rule_paper(shape, step, angle, width, rng):
    """Return lines at distance `step`, turned by `angle` degrees, as ink, 0..1."""
    y, x = np.indices(shape, np.float32)
    turned = y * np.cos(np.radians(angle)) - x * np.sin(np.radians(angle))
    place = (turned + rng.uniform(0, step)) % step
    return np.clip(width / 2 + 0.5 - np.minimum(place, step - place), 0, 1)


def shine(shape, light, rng):
    """Return how much light falls on each place of the paper, 0..1."""
    if light == "even":
        return np.full(shape, 0.95)
    y, x = np.indices(shape) / np.reshape(shape, (2, 1, 1)) - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    bright = 0.75 + rng.uniform(0.2, 0.35) * along
    if light == "shadow":
        edge = along + rng.uniform(-0.6, 0.6) * across**2 - rng.uniform(-0.25, 0.25)
        dark = 1 / (1 + np.exp(-edge / rng.uniform(0.01, 0.06)))
        bright *= 1 - rng.uniform(0.3, 0.55) * dark
    return bright


def read_pictures(model, images, labels, kinds, seed=0, count=3, touching=False):
    """Read a picture of some digits of each kind: (pen, paper, light).

    Returns the kind of each, whether all were found, and how many were read right.
    """
    rng, results = np.random.default_rng(seed), []
    for pen, paper, light in kinds:
        chosen = rng.integers(len(images), size=count)
        options = {"pen": pen, "paper": paper, "light": light, "touching": touching}
        picture, boxes = take_picture(images[chosen], rng, **options)
        apart = 0.4 if touching else 0.15  # where one ends, another begins
        hits = count_hits(model, picture, boxes, labels[chosen], apart)
        results.append(((pen, paper, light), *hits))
    return results


def count_hits(model, picture, boxes, labels, apart=0.15):
    """Return whether just these digits were found, and how many were read right.

    The edges of what is found are at most so many heights apart from those of a digit.
    """
    try:
        found = find_digits(picture)
    except ValueError:
        return False, 0
    all_found = len(found.boxes) == len(boxes)
    all_found = all_found and (np.abs(found.boxes - boxes) < apart * HEIGHT).all()
    right = (model.predict(found.images) == labels).sum() if all_found else 0
    return bool(all_found), int(right)


def align(label, names):
    """Pair each digit of a label with the reading that it gets; None where it has none.

    The pairs are those of the least edit distance, so that a digit too many does not
    spoil what follows.
    """
    seen = [name[0] for name in names]
    ways = {}  # The errors of the rest, and its pairs, by where it begins.
    for i in range(len(label), -1, -1):
        for j in range(len(seen), -1, -1):
            ends = []
            if i < len(label) and j < len(seen):
                errors, pairs = ways[i + 1, j + 1]
                both = (label[i], names[j])
                ends.append((errors + (label[i] != seen[j]), (both, pairs)))
            if i < len(label):
                errors, pairs = ways[i + 1, j]
                ends.append((errors + 1, ((label[i], None), pairs)))
            if j < len(seen):
                errors, pairs = ways[i, j + 1]
                ends.append((errors + 1, ((None, names[j]), pairs)))
            ways[i, j] = min(ends, key=lambda way: way[0]) if ends else (0, None)
    found, pairs = [], ways[0, 0][1]
    while pairs:
        pair, pairs = pairs
        found.append(pair)
    return found


def count_outcomes(label, names):
    """Return how many digits are right, wrong, marked, missed, and found falsely.

    Right and wrong are those without a "?"; marked ones are neither.
    """
    counts = dict.fromkeys(("right", "wrong", "marked", "missed", "false"), 0)
    for digit, name in align(label, names):
        if digit is None:
            counts["false"] += 1
        elif name is None:
            counts["missed"] += 1
        elif "?" in name:
            counts["marked"] += 1
        else:
            counts["right" if digit == name else "wrong"] += 1
    return counts


def score_folder(model, folder):
    """Read the pictures of a folder that has labels.

    Returns the kind, the label and the outcomes of each picture, and those of pictures
    of one digit, read as a whole.
    """
    found, whole = [], []
    with open(Path(folder) / "labels.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for read, results in ((find_digits, found), (prepare_image, whole)):
                if read is prepare_image and len(row["label"]) != 1:
                    continue
                try:
                    seen = read(read_image(Path(folder) / row["file"]))
                    shares = model.predict_proba(getattr(seen, "images", seen))
                    names = name_digits(shares, getattr(seen, "touching", False))
                except ValueError:  # There is no ink to be found.
                    names = []
                outcomes = count_outcomes(row["label"], names)
                results.append((row["kind"], row["label"], outcomes))
    return found, whole


def print_scores(found, whole):
    """Print the outcomes of a folder's pictures, by kind."""
    outcomes = list(count_outcomes("", []))
    rows = [("pictures", "number", "digits", *outcomes)]
    kinds = sorted({kind for kind, *_ in found})
    lines = [("all", found), ("one digit, read as a whole", whole)]
    lines += [(kind, [row for row in found if row[0] == kind]) for kind in kinds]
    for name, results in lines:
        counts = [sum(row[2][outcome] for row in results) for outcome in outcomes]
        digits = sum(len(label) for _, label, _ in results)
        rows.append((name, *map(str, (len(results), digits, *counts))))
    print_table(rows)


def main():
    """Print how many digits of MNIST's test images are read right, by kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a trained model")
    parser.add_argument("--pictures", type=int, default=10, help="of each kind")
    parser.add_argument("--folder", help="score these pictures, with labels.csv")
    args = parser.parse_args()
    model = run.load_model(args.model)
    if args.folder:
        print_scores(*score_folder(model, args.folder))
        return
    data = load_data(os.environ.get("MNIST_PATH"))
    test = (data.test_images, data.test_labels)
    kinds = args.pictures * list(product(PENS, PAPERS, LIGHTS))
    results = read_pictures(model, *test, kinds)
    rows = [("pictures", "number", "all found", "digits read right")]
    for name in ("all", *PENS, *PAPERS, *LIGHTS):
        found, right = np.array(
            [row[1:] for row in results if name == "all" or name in row[0]], float
        ).T
        shares = f"{found.mean():.1%}", f"{right.mean() / 3:.1%}"
        rows.append((name, str(len(found)), *shares))
    plain = [kind for kind in kinds if kind[1] == "plain"]
    for count, name in ((2, "two that touch"), (3, "three that touch")):
        results = read_pictures(model, *test, plain, count=count, touching=True)
        found, right = np.array([row[1:] for row in results], float).T
        shares = f"{found.mean():.1%}", f"{right.mean() / count:.1%}"
        rows.append((name, str(len(found)), *shares))
    print_table(rows)
    rng = np.random.default_rng(1)
    options = {"pen": "ballpoint", "paper": "squared", "light": "shadow"}
    picture, _ = take_picture(data.test_images[:5], rng, **options)
    path = make_folder("results") / "handwriting.png"
    write_figure(path, plot_reading(model, picture))
    print(f"\nHow five of them are found: {path}")


if __name__ == "__main__":
    draw_to_files()
    main()
