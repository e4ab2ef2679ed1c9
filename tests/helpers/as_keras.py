"""Do with Keras what ``run.py --recipe source --epochs 1`` does, figures and all.

python tests/helpers/as_keras.py FOLDER [DATA]
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402

from digits import figures  # noqa: E402
from digits.canvas import draw_to_files  # noqa: E402
from digits.mnist import load_data, split_training  # noqa: E402
from digits.results import write_figure, write_json  # noqa: E402
from handwritten_classifier import HandwrittenNumberClassification  # noqa: E402
from helpers.systems import compiled_keras  # noqa: E402
from run import RECIPES  # noqa: E402


def main(folder: Path, path: str | None) -> None:
    """Train one epoch, test, and write the model, the figures and the numbers."""
    data = load_data(path)
    split = split_training(data)
    # Its figures are drawn by the same functions, so that they are the same.
    twin = HandwrittenNumberClassification(**RECIPES["source"])
    model = compiled_keras(twin)
    images = split.images[..., np.newaxis] / np.float32(255)
    held_out = split.held_out[0][..., np.newaxis] / np.float32(255)
    test_images = data.test_images[..., np.newaxis] / np.float32(255)
    history = model.fit(
        images,
        split.labels,
        batch_size=twin.batch_size,
        validation_data=(held_out, split.held_out[1]),
    ).history
    model.save(folder / "model.keras")
    probabilities = model.predict(test_images)
    twin.history = history | {"seconds": []}
    twin.kernels[0][:] = model.layers[0].get_weights()[0].transpose(3, 2, 0, 1)
    test = (data.test_images, data.test_labels, probabilities)
    write_json(folder / "metrics.json", history)
    write_figure(folder / "training.png", figures.plot_history(twin))
    write_figure(folder / "kernels.png", figures.plot_kernels(twin))
    write_figure(folder / "confusion.png", figures.plot_confusion(twin, *test))
    write_figure(folder / "mistakes.png", figures.plot_mistakes(twin, *test))


if __name__ == "__main__":
    draw_to_files()
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
