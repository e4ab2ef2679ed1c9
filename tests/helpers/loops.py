"""The steps once more, from their definitions: one loop for each index, nothing clever.

They are oracles: slow, obvious, and written without a look at the class.
"""

import numpy as np


def convolve(images, kernel, bias, stride, padding):
    """Return the feature map, from the definition of cross-correlation."""
    batch, height, width, channels = images.shape
    filters, _, k_h, k_w = kernel.shape
    rows = (height + 2 * padding - k_h) // stride + 1
    columns = (width + 2 * padding - k_w) // stride + 1
    result = np.zeros((batch, rows, columns, filters))
    for b, y, x, f in np.ndindex(result.shape):
        total = bias[f]
        for c, i, j in np.ndindex(channels, k_h, k_w):
            row, column = y * stride + i - padding, x * stride + j - padding
            if 0 <= row < height and 0 <= column < width:
                total += kernel[f, c, i, j] * images[b, row, column, c]
        result[b, y, x, f] = total
    return result


def convolve_gradients(images, kernel, d_map, stride, padding):
    """Return d_kernel and d_images: each product gives to both its factors."""
    _, height, width, channels = images.shape
    k_h, k_w = kernel.shape[2:]
    d_kernel, d_images = np.zeros(kernel.shape), np.zeros(images.shape)
    for b, y, x, f in np.ndindex(d_map.shape):
        for c, i, j in np.ndindex(channels, k_h, k_w):
            row, column = y * stride + i - padding, x * stride + j - padding
            if 0 <= row < height and 0 <= column < width:
                d_kernel[f, c, i, j] += d_map[b, y, x, f] * images[b, row, column, c]
                d_images[b, row, column, c] += d_map[b, y, x, f] * kernel[f, c, i, j]
    return d_kernel, d_images


def max_pool(feature_map, pool_size, stride):
    """Return the maxima and the mask of the first of them in each window."""
    batch, height, width, filters = feature_map.shape
    rows, columns = (
        (height - pool_size) // stride + 1,
        (width - pool_size) // stride + 1,
    )
    pooled = np.zeros((batch, rows, columns, filters))
    mask = np.zeros((*pooled.shape, pool_size, pool_size), bool)
    for b, y, x, f in np.ndindex(pooled.shape):
        best = None
        for i, j in np.ndindex(pool_size, pool_size):
            value = feature_map[b, y * stride + i, x * stride + j, f]
            if best is None or value > pooled[b, y, x, f]:
                best, pooled[b, y, x, f] = (i, j), value
        mask[(b, y, x, f, *best)] = True
    return pooled, mask


def unpool(d_pooled, mask, stride, size):
    """Return the gradient of the map: each winner gets what came to its window."""
    batch, _, _, filters = d_pooled.shape
    d_map = np.zeros((batch, *size, filters))
    for b, y, x, f in np.ndindex(d_pooled.shape):
        for i, j in np.ndindex(mask.shape[4:]):
            if mask[b, y, x, f, i, j]:
                d_map[b, y * stride + i, x * stride + j, f] += d_pooled[b, y, x, f]
    return d_map


def distort(images, strength, rng):
    """Return images read at their pixels' places, turned, sheared, stretched, moved."""
    batch, height, width, _ = images.shape
    sizes = np.array([height, width])

    def draw(most, *shape):
        return strength * most * (2 * rng.random(shape, np.float32) - 1)

    hands = []  # of each image, which takes its random numbers before the next
    for _ in range(batch):
        angle, slant = draw(np.radians(8)), draw(0.1)
        stretch, shift = np.exp(draw(0.1, 2)), draw(1.5, 2)
        hands.append((angle, slant, stretch, shift, draw(20, 2, height, width)))
    result = np.zeros(images.shape)
    for b, y, x in np.ndindex(batch, height, width):
        angle, slant, stretch, shift, noise = hands[b]
        sine, cosine = np.sin(angle), np.cos(angle)
        turned = np.array([[cosine, sine], [slant - sine, cosine]])
        middle = (sizes - 1) / 2
        place = stretch * (turned @ ([y, x] - middle)) + middle + shift
        for i, j in np.ndindex(height, width):
            bell = np.exp(-((i - y) ** 2 + (j - x) ** 2) / (2 * 4**2))
            place += bell / (2 * np.pi * 4**2) * noise[:, i, j]
        for i, j in np.ndindex(height, width):
            near = np.maximum(1 - np.abs(place - [i, j]), 0).prod()
            result[b, y, x] += near * images[b, i, j]
    return result
