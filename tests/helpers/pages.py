"""Pages as people photograph them: rows of digits, forms, and sheets on a table."""

import cv2
import numpy as np
from handwriting import shine, write

PAPER = np.array([0.96, 0.95, 0.92])
BLUE = np.array([1, 0.9, 0.6])  # how much of each colour ink takes away
TABLES = {
    "black": (0.03, 0.03, 0.03),
    "dark": (0.16, 0.13, 0.12),
    "wood": (0.55, 0.38, 0.24),
}


def write_rows(images, rng, columns, *, height=60, slope=0.0, bend=0.0):
    """Return the ink of rows of digits that slant, by `slope`, and bend, in heights."""
    pen = max(0.07, 4 / height)
    strokes = [write(d, round(height * rng.uniform(0.85, 1.15)), pen) for d in images]
    rows = [strokes[at : at + columns] for at in range(0, len(strokes), columns)]
    gap, margin = 0.45 * height, round(1.2 * height)
    widths = [sum(s.shape[1] for s in row) + gap * len(row) for row in rows]
    wide = round(1.2 * max(widths)) + 2 * margin
    drift = abs(slope) * wide + abs(bend) * height
    tall = round(1.8 * height * len(rows) + 2 * margin + drift)
    ink = np.zeros((tall, wide), np.float32)
    first = margin + max(0, -slope * wide) + max(0, -bend * height)
    for number, row in enumerate(rows):
        left = margin + int(rng.integers(0, height // 3 + 1))
        for stroke in row:
            share = (left - margin) / (wide - 2 * margin)
            down = slope * left + 4 * bend * height * share * (1 - share)
            top = round(first + 1.8 * height * number + down)
            bottom, right = top + stroke.shape[0], left + stroke.shape[1]
            ink[top:bottom, left:right] = stroke
            left = right + round(gap * rng.uniform(0.7, 1.3))
    return ink


def fill_form(images, rng, columns, *, height=60):
    """Return the ink of digits in a printed form's boxes, and that of its lines."""
    cell, margin = round(1.7 * height), round(0.85 * height)
    rows = -(-len(images) // columns)
    shape = rows * cell + 2 * margin, columns * cell + 2 * margin
    ink, lines = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    bottom, right = rows * cell + margin + 3, columns * cell + margin + 3
    for at in range(margin, bottom, cell):
        lines[at : at + 3, margin:right] = 1
    for at in range(margin, right, cell):
        lines[margin:bottom, at : at + 3] = 1
    for number, image in enumerate(images):
        stroke = write(image, round(height * rng.uniform(0.85, 1.1)), 0.07)
        tall, wide = stroke.shape
        top = margin + number // columns * cell + (cell - tall) // 2
        left = margin + number % columns * cell + (cell - wide) // 2
        ink[top : top + tall, left : left + wide] = stroke
    return ink, lines


def print_sheet(ink, darkness=0.8, lines=0):
    """Return paper with ink of this darkness and grey lines, (H, W, 3), 0..1."""
    sheet = PAPER * (1 - 0.6 * np.broadcast_to(lines, ink.shape)[..., np.newaxis])
    return sheet * (1 - darkness * ink[..., np.newaxis] * BLUE)


def lay_on_table(sheet, rng, table, *, thumb=False, curl=False):
    """Return a sheet that lies askew on a table, with its shadow, (H, W, 3), 0..1."""
    height, width = sheet.shape[:2]
    around = round(rng.uniform(0.1, 0.3) * max(height, width))
    size = width + 2 * around, height + 2 * around
    grain = cv2.GaussianBlur(rng.normal(size=size[::-1]), (0, 0), sigmaX=25, sigmaY=1.2)
    ground = TABLES[table] * (1 + 0.12 * grain / grain.std())[..., np.newaxis]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-7, 7), 1)
    turn[:, 2] += around * (1 + rng.uniform(-0.6, 0.6, 2))
    cover = cv2.warpAffine(np.ones((height, width), np.float32), turn, size)
    shadow = cv2.GaussianBlur(np.roll(cover, (12, 10), (0, 1)), (0, 0), 9)
    ground = ground * (1 - 0.5 * shadow[..., np.newaxis])
    laid = cv2.warpAffine(sheet.astype(np.float32), turn, size)
    picture = ground * (1 - cover[..., np.newaxis]) + laid
    if thumb:
        shape, middle = np.zeros(size[::-1], np.float32), (size[0] // 2, size[1])
        axes = (size[0] // 14, size[1] // 9)
        cv2.ellipse(shape, middle, axes, 0, 0, 360, 1, -1)
        picture = cover_with(picture, shape, (0.72, 0.5, 0.4))
    if curl:
        side, shape = 0.16 * height, np.zeros(size[::-1], np.float32)
        corner = turn @ np.array([[0, 0, 1], [side, 0, 1], [0, side, 1]]).T
        cv2.fillPoly(shape, [corner.T.astype(np.int32)], 1)
        picture = cover_with(picture, shape, (0.5, 0.49, 0.47))
    return picture


def cover_with(picture, shape, colour):
    """Return a picture of which a shape, blurred, has this colour."""
    shape = cv2.GaussianBlur(shape, (0, 0), 4)[..., np.newaxis]
    return picture * (1 - shape) + shape * np.array(colour)


def photograph(scene, rng, light="slanting"):
    """Return a scene in some light as a camera sees it, uint8."""
    bright = scene * shine(scene.shape[:2], light, rng)[..., np.newaxis]
    noisy = 255 * bright + rng.normal(0, 3, scene.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
