"""run.py as a user has it: a process of its own, and what it leaves in a folder."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
FIGURES = {"training.png", "kernels.png", "confusion.png", "mistakes.png"}
RESULTS = {"model.npz", "metrics.json"} | FIGURES
UNFINISHED = {"checkpoint.npz"}
# Libraries may call what other libraries deprecate.
STRICT = ("-W", "error", "-W", "ignore::DeprecationWarning")


class Program(subprocess.Popen):
    """A process that does not outlive a test that fails."""

    def __exit__(self, kind, *error):
        if kind:
            self.kill()
        super().__exit__(kind, *error)


def start_program(environment, folder, *arguments):
    """Start run.py, and return its process, to be interrupted."""
    command = [sys.executable, "-u", ROOT / "run.py", *arguments]
    return Program(
        [str(part) for part in command],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def names(folder):
    """Return the names of all that is in a folder."""
    return {path.name for path in folder.iterdir()}


def assert_pictures(folder, figures):
    """Check that each figure is a PNG file that shows something."""
    for name in figures:
        with Image.open(folder / name) as image:
            assert image.format == "PNG"
            assert min(image.size) > 200
            assert len(image.convert("RGB").getcolors(100_000)) > 10, f"{name} is empty"
