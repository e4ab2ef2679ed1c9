"""A film of the first kernels as they formed."""

from __future__ import annotations

import io
import math

import numpy as np

SIDE, GAP, LONGEST = 12, 2, 12  # pixels a number and between kernels; seconds
MINUS, ZERO, PLUS = (200, 84, 10), (255, 255, 255), (11, 79, 158)


def make_film(steps: list[np.ndarray]) -> bytes:
    """Return kernels (F, C, K_h, K_w) of several steps as an animated GIF.

    Orange is negative, white 0, blue positive; each picture has its own scale, and
    shows the first channel.
    """
    from PIL import Image

    share = np.linspace(-1, 1, 255)[:, np.newaxis]
    ends = np.where(share < 0, np.array(MINUS), np.array(PLUS))
    colours = np.array(ZERO) + (ends - np.array(ZERO)) * np.abs(share) ** 0.7
    colours = np.uint8(np.vstack([np.rint(colours), [[128] * 3]]))
    frames = []
    for kernels in (array[:, 0] for array in steps):
        count = len(kernels)
        levels = np.rint(127 + 127 * kernels / (np.abs(kernels).max() or 1))
        large = levels.repeat(SIDE, axis=1).repeat(SIDE, axis=2)
        large = np.pad(large, ((0, 0), (GAP, GAP), (GAP, GAP)), constant_values=255)
        columns = math.ceil(math.sqrt(count))
        empty = -count % columns
        large = np.pad(large, ((0, empty), (0, 0), (0, 0)), constant_values=255)
        rows = large.reshape(-1, columns, *large.shape[1:]).transpose(0, 2, 1, 3)
        picture = Image.fromarray(
            np.uint8(rows.reshape(len(rows) * rows.shape[1], -1)), "P"
        )
        picture.putpalette(colours.tobytes())
        frames.append(picture)
    stream, first = io.BytesIO(), frames[0]
    duration = max(20, min(200, 1000 * LONGEST // len(frames)))  # milliseconds
    options = {"append_images": frames[1:], "duration": duration, "loop": 0}
    first.save(stream, "GIF", save_all=True, optimize=False, **options)
    return stream.getvalue()
