"""Pictures of digits whose places are known."""

import numpy as np


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
