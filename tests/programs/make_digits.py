"""Make digits/digits.npz, the embedded digits.

Run ``python tests/programs/make_digits.py``.

They are the test set of the UCI "Optical Recognition of Handwritten Digits" (E.
Alpaydin, C. Kaynak, 1998, CC BY 4.0), which scikit-learn carries as `load_digits`:
1,797 digits of 8x8 pixels with 17 levels, 0..16. They are written in the layout of
Keras's mnist.npz: the first 1,500 to train on, the other 297 to test.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TRAINING = 1500


def make_digits() -> dict[str, np.ndarray]:
    """Return the four arrays of digits/digits.npz by name."""
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    return {
        "x_train": images[:TRAINING],
        "y_train": labels[:TRAINING],
        "x_test": images[TRAINING:],
        "y_test": labels[TRAINING:],
    }


if __name__ == "__main__":
    path = Path(__file__).parents[2] / "digits" / "digits.npz"
    np.savez_compressed(path, **make_digits())
    print(f"{path}: {path.stat().st_size:,} bytes")
