"""Train a recipe in this class and in PyTorch: the seconds and the test accuracies.

python tests/programs/recipe.py fast                ten seeds of each, in turns
python tests/programs/recipe.py fast --seeds 3

Both train the same network on the same images with the same steps, schedule and
distribution of the initial weights, each in a process of its own that does nothing
else. The seconds are those of the training alone. Needs PyTorch (pip install torch).
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from helpers import systems  # noqa: E402

from digits.mnist import load_data, split_training  # noqa: E402
from run import RECIPES  # noqa: E402

NOT_IN_PYTORCH = ("augment", "averaging")  # steps that its loop below does not take


class NumpyRecipe(systems.NumpySystem):
    """The class, which trains on the images of `run.py reproduce`."""

    def __init__(self, data: str | None) -> None:
        super().__init__(data)
        self.training, self.unseen = read_images(data)

    def fit(self) -> None:
        self.model.fit(*self.training, verbose=0)

    def test(self) -> float:
        return self.model.score(*self.unseen)


class TorchRecipe(systems.TorchSystem):
    """The equal model and steps, with PyTorch's own schedule."""

    def __init__(self, data: str | None) -> None:
        super().__init__(data)
        training, unseen = read_images(data)
        self.images, self.labels = self.convert(*training)
        self.unseen, self.answers = self.convert(*unseen)

    def convert(self, images: np.ndarray, labels: np.ndarray) -> tuple:
        """Return tensors: images (B, 1, H, W) in 0..1, and labels."""
        floats = images[:, np.newaxis].astype(np.float32) / 255
        return self.torch.from_numpy(floats), self.torch.from_numpy(labels).long()

    def build(self, settings: dict) -> None:
        super().build(settings)
        self.torch.manual_seed(settings["seed"])
        self.settings = settings
        for parameter in self.model.parameters():
            if parameter.ndim > 1:
                self.torch.nn.init.kaiming_normal_(parameter)
            else:
                self.torch.nn.init.zeros_(parameter)

    def fit(self) -> None:
        epochs, schedule = self.settings["epochs"], None
        if self.settings.get("schedule") == "one-cycle":
            schedule = self.torch.optim.lr_scheduler.OneCycleLR(
                self.optimizer,
                self.settings["lr"],
                epochs * math.ceil(len(self.images) / self.batch_size),
                pct_start=0.3,
                anneal_strategy="linear",
                cycle_momentum=False,
                div_factor=1e3,
            )
        self.model.train()
        for _ in range(epochs):
            order = self.torch.randperm(len(self.images))
            for batch in order.split(self.batch_size):
                self.optimizer.zero_grad()
                self.loss(self.model(self.images[batch]), self.labels[batch]).backward()
                self.optimizer.step()
                if schedule:
                    schedule.step()

    def test(self) -> float:
        self.model.eval()
        with self.torch.inference_mode():
            parts = self.unseen.split(systems.FRAMEWORK_BATCH)
            answers = self.torch.cat([self.model(part).argmax(1) for part in parts])
        return (answers == self.answers).double().mean().item()


def read_images(data: str | None) -> tuple[tuple, tuple]:
    """Return the images with labels that `run.py` trains on, and those it tests on."""
    digits = load_data(data)
    split = split_training(digits)
    return (split.images, split.labels), (digits.test_images, digits.test_labels)


def try_recipe(settings: dict) -> tuple[float, float]:
    """Train the worker's network anew; return the seconds and the test accuracy."""
    system = systems.SYSTEM
    system.build(settings)
    started = time.perf_counter()
    system.fit()
    return time.perf_counter() - started, system.test()


def compare(settings: dict, seeds: int, data: str | None) -> dict[str, list]:
    """Return seconds and accuracies of each system, seed by seed, in turns."""
    kinds, found = {"NumPy": NumpyRecipe, "PyTorch": TorchRecipe}, {}
    with systems.Workers(kinds, data) as workers:
        for seed in range(seeds):
            for name in sorted(kinds, reverse=seed % 2 == 1):
                seeded = settings | {"seed": seed}
                turn = workers[name].submit(try_recipe, seeded).result()
                found.setdefault(name, []).append(turn)
                print(
                    f"seed {seed}, {name:7} {turn[0]:6.1f} s, {turn[1]:.2%}", flush=True
                )
    return found


def describe(turns: list[tuple[float, float]]) -> str:
    """Return the median of the seconds, and mean and deviation of the accuracies."""
    seconds, accuracies = zip(*turns, strict=True)
    spread = statistics.stdev(accuracies) if len(turns) > 1 else 0.0
    accuracy = f"{100 * statistics.mean(accuracies):.2f} ± {100 * spread:.2f} %"
    return f"{statistics.median(seconds):.1f} s, {accuracy}"


def main() -> None:
    """Train both, and print what they took and reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [name for name in RECIPES if not RECIPES[name].keys() & {*NOT_IN_PYTORCH}]
    parser.add_argument("recipe", choices=known, nargs="?", default="fast")
    parser.add_argument("--seeds", type=int, default=10, metavar="N")
    parser.add_argument("--data", metavar="PATH", help="MNIST, as in run.py")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"--seeds must be at least 1; got {args.seeds}")
    if not importlib.util.find_spec("torch"):
        parser.error("PyTorch must be installed (pip install torch); got none")
    found = compare(RECIPES[args.recipe], args.seeds, args.data)
    for name, turns in sorted(found.items()):
        print(f"{name:7} {describe(turns)}")
    ours, theirs = (
        statistics.median(seconds for seconds, _ in found[name])
        for name in ("NumPy", "PyTorch")
    )
    print(f"NumPy to PyTorch: {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
