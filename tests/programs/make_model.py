"""Make digits/model.npz, the model that is ready to use, from a trained one.

Run ``python tests/programs/make_model.py results/model.npz``.

It has the same parameters, settings and history, but no state to train on from: the
velocity is zero, and all arrays are deflated. Its metadata say the recipe, the data,
and, if the run's metrics.json lies beside the trained model, its accuracy on their test
images. They name no file of the machine that trained it.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from handwritten_classifier import HandwrittenNumberClassification, replace_file

KEPT = ("recipe", "checksum", "images", "held_out")  # of the metadata of a run


def make_model(trained: Path, ready: Path) -> None:
    """Write the ready model that is made from the trained one."""
    model = HandwrittenNumberClassification.load(trained)
    new = HandwrittenNumberClassification(**model.get_params())
    for name, array in model.parameters.items():
        new.parameters[name][...] = array
    new.history = model.history
    new.metadata = {name: model.metadata[name] for name in KEPT}
    metrics = trained.with_name("metrics.json")
    if metrics.exists():
        new.metadata |= read_metrics(metrics, model)
    with TemporaryDirectory() as folder:
        new.save(Path(folder) / "model.npz")
        with np.load(Path(folder) / "model.npz") as arrays, replace_file(ready) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)


def read_metrics(path: Path, model: HandwrittenNumberClassification) -> dict:
    """Return the data and the test accuracy of a run, if it trained this model."""
    metrics = json.loads(path.read_text(encoding="utf-8"))
    if metrics["history"] != model.history or not metrics["complete"]:
        raise ValueError(f"{path} must be of the whole run that trained the model")
    data = metrics["data"].partition(" from ")[0]
    return {"data": data, "test_accuracy": metrics["test_accuracy"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="as run.py leaves it in results/")
    path = Path(__file__).parents[2] / "digits" / "model.npz"
    make_model(parser.parse_args().model, path)
    print(f"{path}: {path.stat().st_size:,} bytes")
