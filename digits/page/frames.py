"""All numbers of one image in one network, forward and back, as the page gets them.

Every number comes from the class (`digits.page.tracing`). A frame is a header in JSON,
then arrays.
"""

from __future__ import annotations

import base64
import copy
import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from digits.page.requests import Request, check_integer, decode_image
from digits.page.tracing import (
    NUDGE,
    Model,
    derive,
    edit,
    find_winners,
    nudge,
    preview,
    take_step,
    trace,
    unwarned,
)
from digits.page.training import Trainer
from digits.page.watching import Snapshot
from digits.pictures import name_digits

LARGEST_FRAME = 100_000_000  # bytes
MOST_MISTAKES = 200  # that are listed
MOST_COPIES = 4  # of models, changed or not, that are kept


class Source(NamedTuple):
    """A network before any change: of a file, or as it was after a training's step."""

    model: Model
    snapshot: Snapshot | None  # of what is not the model's
    key: int | str  # of no other
    told: dict[str, Any]  # what the page says of it


class Frames:
    """Makes frames of several models.

    Parameters
    ----------
    models : dict of path to HandwrittenNumberClassification
        Of a path, the file and its folder are shown.
    images, labels : arrays of shape (n, H, W) and (n,)
        The test images that the page can show.
    trainer : Trainer, optional
        Whose snapshots can be shown, too.
    """

    def __init__(
        self,
        models: dict[str | Path, Model],
        images: np.ndarray,
        labels: np.ndarray,
        trainer: Trainer | None = None,
    ) -> None:
        self.names = ["/".join(Path(path).parts[-2:]) for path in models]
        self.models = list(models.values())
        self.images, self.labels, self.trainer = images, labels, trainer
        self.checksums = [checksum(model.parameters) for model in self.models]
        self.copies: dict[tuple, Model] = {}

    def describe(self) -> dict[str, Any]:
        """Return what the page has to know at its start."""
        first = self.models[0]
        return {
            "models": [self.describe_model(n) for n in range(len(self.models))],
            "tests": len(self.images),
            "input": list(map(int, first.input_shape)),
            "classes": len(first.B_dense),
            "trains": self.trainer is not None,
        }

    def describe_model(self, number: int) -> dict[str, Any]:
        """Return what the page says of a model, as it was trained."""
        of_file = {"name": self.names[number], "checksum": self.checksums[number]}
        return of_file | describe_network(self.models[number])

    def find_source(self, number: int, at: tuple | None = None) -> Source:
        """Return the model of a number, or the network `at` (run, step) in training."""
        if at is None:
            return Source(
                self.models[number], None, number, self.describe_model(number)
            )
        if self.trainer is None:
            raise ValueError("snapshot must be of a training; got one without any")
        snapshot, template = self.trainer.find(*at)
        name = f"in training, after step {snapshot.step:,}"
        told = {"name": name, "step": snapshot.step, "run": at[0]}
        told |= {"checksum": checksum(snapshot.parameters)}
        told |= describe_network(template)
        return Source(template, snapshot, f"snapshot {snapshot.number}", told)

    def add(self, path: str | Path, model: Model) -> int:
        """Take up a model, or another one of the same name; return its number."""
        name = "/".join(Path(path).parts[-2:])
        if name not in self.names:
            self.names.append(name)
            self.models.append(model)
            self.checksums.append("")
        number = self.names.index(name)
        self.models[number] = model
        self.checksums[number] = checksum(model.parameters)
        self.copies.clear()
        return number

    def find_image(self, code: Any, model: Model) -> np.ndarray:
        """Return the image of a code as a model takes it: a batch of one, floats."""
        image = decode_image(code, tuple(model.input_shape), self.images)
        return image.astype(model.dtype) / (255 if image.dtype == np.uint8 else 1)

    def find_model(self, source: Source, changes: tuple = ()) -> Model:
        """Return a copy of a network with the changes that a request has made.

        Its momentum begins at zero, so that the same changes lead to the same bits,
        wherever they are made.
        """
        key = source.key, changes
        if key in self.copies:
            return self.copies[key]
        model = copy.deepcopy(source.model)
        if source.snapshot:
            source.snapshot.lay_into(model)
        for velocity in model.velocity.values():
            velocity[...] = 0
        for kind, *change in changes:
            if kind == "edit":
                edit(model, *change)
            else:
                image, label, *settings = change
                take_step(model, self.find_image(image, model), label, settings)
        while len(self.copies) >= MOST_COPIES:
            del self.copies[next(iter(self.copies))]
        self.copies[key] = model
        return model

    def find_label(
        self, request: Request, read: int, classes: int
    ) -> tuple[int, int | None]:
        """Return the class to derive for, and the true one of a test image.

        It is the one that is asked for, else the true one, else the one that is `read`.
        """
        true_label = None
        if request.image[0] == "t":
            true_label = int(self.labels[int(request.image[1:])])
        usual = read if true_label is None else true_label
        label = usual if request.label is None else request.label
        return check_integer("label", label, classes - 1), true_label

    @unwarned()
    def make(self, request: Request) -> bytes:
        """Return a frame.

        Raises
        ------
        ValueError, FloatingPointError
            In words for the page.
        """
        source = self.find_source(request.model, request.snapshot)
        _check_size(source.model)
        model = self.find_model(source, request.changes)
        image = self.find_image(request.image, model)
        seen = trace(model, image)
        if not all(np.isfinite(array).all() for array in seen.forward):
            raise ValueError("the changes must keep numbers finite; got others")
        probabilities = seen.forward[-1][np.newaxis]
        read = int(probabilities.argmax())
        label, true_label = self.find_label(request, read, len(model.B_dense))
        loss = model.compute_loss(probabilities, np.array([label]))
        arrays = {f"step.{k}": array for k, array in enumerate(seen.forward)}
        arrays |= find_winners(seen)
        version, step = checksum(model.parameters), None
        if request.have != version:
            arrays |= model.parameters
        if request.back:
            arrays |= derive(model, image, label, seen)
        if request.back and request.step is not None:
            step, of_step = preview(model, image, label, request.step, loss, arrays)
            arrays |= of_step
        header = {
            "model": source.told,
            "version": version,
            "image": request.image,
            "label": label,
            "true_label": true_label,
            "predicted": read,
            "message": describe_reading(name_digits(probabilities), probabilities),
            "loss": loss,
            "steps": seen.steps,
            "step": step,
        }
        return pack(header, arrays)

    @unwarned()
    def check(self, request: Request, cell: Any) -> dict[str, Any]:
        """Nudge a pixel or a weight in float64, and measure the slope of the loss.

        Parameters
        ----------
        cell : ["image" or the name of a parameter, flat index]

        Returns
        -------
        dict
            The class's derivative and the central difference, both losses, and the
            steps in which a ReLU or a maximum switches: there the loss has a kink.
        """
        source = self.find_source(request.model, request.snapshot)
        model = self.find_model(source, request.changes)
        image = self.find_image(request.image, model)
        seen = trace(model, image)
        read = int(seen.forward[-1].argmax())
        label, _ = self.find_label(request, read, len(model.B_dense))
        if not (isinstance(cell, list) and len(cell) == 2):
            raise ValueError(f"cell must be [name, index]; got {cell!r:.40}")
        name, index = cell
        known = ["image", *model.parameters]
        if name not in known:
            raise ValueError(f"cell must be among {known}; got {name!r:.40}")
        derivatives = derive(model, image, label, seen)
        found = derivatives["d.0" if name == "image" else f"d.{name}"]
        index = check_integer("index", index, found.size - 1)
        losses, switched = nudge(model, image, label, name, index)
        computed = float(found.flat[index])
        measured = (losses[1] - losses[0]) / (2 * NUDGE)
        # float32 rounds each of the terms of which a derivative is the sum.
        rounding = 1e-5 * float(np.abs(found).max()) + 1e-8
        agree = math.isclose(computed, measured, rel_tol=1e-3, abs_tol=rounding)
        measures = {"computed": computed, "measured": measured, "losses": losses}
        return measures | {"nudge": NUDGE, "switched": switched, "agree": agree}

    def find_mistakes(self, number: int) -> dict[str, Any]:
        """Return the test images that a model misreads, the most confident first."""
        probabilities = self.models[number].predict_proba(self.images)
        read, most = probabilities.argmax(axis=1), probabilities.max(axis=1)
        wrong = np.flatnonzero(read != self.labels)
        order = wrong[np.argsort(-most[wrong], kind="stable")]
        listed = order[:MOST_MISTAKES]
        pixels = np.ascontiguousarray(self.images[listed], np.uint8)
        return {
            "mistakes": [
                {
                    "index": int(n),
                    "label": int(self.labels[n]),
                    "read": int(read[n]),
                    "probability": float(most[n]),
                }
                for n in listed
            ],
            "count": len(order),
            "of": len(self.images),
            "pixels": base64.b64encode(pixels.tobytes()).decode(),
        }


def describe_network(model: Model) -> dict[str, Any]:
    """Return what the page says of a network, whatever it has learned."""
    return {
        "architecture": model.architecture,
        "parameters": sum(p.size for p in model.parameters.values()),
        "dtype": np.dtype(model.dtype).name,
        "smoothing": float(model.label_smoothing),
    }


def checksum(parameters: dict[str, np.ndarray]) -> str:
    """Return 8 hexadecimal digits of a network's parameters."""
    found = 0
    for parameter in parameters.values():
        found = zlib.crc32(np.ascontiguousarray(parameter).view(np.uint8), found)
    return f"{found:08x}"


def describe_reading(names: list[str], probabilities: np.ndarray) -> str:
    """Return the readings in words; a single one with its probability."""
    message = " ".join(names)
    if len(names) == 1:
        message += f" ({probabilities.max():.1%})"
    return f"{message} in doubt" if "?" in message else message


def pack(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    """Return a frame: length of the header, header with a list of arrays, the arrays.

    The header is padded with spaces and each array with zeros, so that arrays begin at
    multiples of 8 bytes.
    """
    listed, parts, offset = {}, [], 0
    for name, array in arrays.items():
        content = np.ascontiguousarray(array).tobytes()
        dtype, shape = array.dtype.name, list(array.shape)
        listed[name] = {"dtype": dtype, "shape": shape, "offset": offset}
        content += bytes(-len(content) % 8)
        parts.append(content)
        offset += len(content)
    head = json.dumps(header | {"arrays": listed}, allow_nan=False).encode()
    head += b" " * (-(4 + len(head)) % 8)
    return b"".join([struct.pack("<I", len(head)), head, *parts])


def _check_size(model):
    """Raise ValueError if a frame would be too large for a page."""
    parameters = sum(p.size for p in model.parameters.values())
    numbers = sum(math.prod(layer.output_shape) for layer in model.layers)
    size = (4 * parameters + 6 * numbers) * np.dtype(model.dtype).itemsize
    if size > LARGEST_FRAME:
        most, got = f"{LARGEST_FRAME / 1e6:.0f} MB", f"{size / 1e6:.0f} MB"
        raise ValueError(f"all numbers must have at most {most} to be shown; got {got}")
