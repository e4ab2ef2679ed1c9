"""All numbers of one image in one network, forward and back, as the page shows them.

Every number comes from the class. A frame is a header in JSON, then arrays. Requests
are complete in themselves: image, label and all changes of the parameters travel with
each, and nothing is kept here but copies that are quickly made again.
"""

from __future__ import annotations

import base64
import binascii
import copy
import json
import math
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from digits.pictures import name_digits
from handwritten_classifier import HandwrittenNumberClassification

Model = HandwrittenNumberClassification
MOST_CHANGES = 100  # of the parameters, in one request
LARGEST_FRAME = 100_000_000  # bytes
LARGEST_EDIT = 1_000_000  # of one weight; float32 overflows in a product of several
MOST_MISTAKES = 200  # that are listed
MOST_COPIES = 4  # changed models that are kept
NUDGE = (
    1e-5  # for central differences in float64: rounding and curvature stay below 1e-9
)
PIXEL = np.dtype([("index", "<u2"), ("value", "<f4")])  # of an image code
SETTINGS = {  # of a step: whether a number is allowed, and what is required
    "lr": (lambda x: 0 < x <= 1000, "be above 0 and at most 1000"),
    "momentum": (lambda x: 0 <= x < 1, "be at least 0 and below 1"),
    "weight_decay": (lambda x: 0 <= x <= 1, "be in 0..1"),
}

# ---------------------------------------------------------------------- Image codes


def encode_image(image: np.ndarray) -> str:
    """Return the code of an image (H, W, C): its numbers that are not zero."""
    numbers = np.asarray(image, np.float32).ravel()
    pixels = np.empty(np.count_nonzero(numbers), PIXEL)
    pixels["index"] = np.flatnonzero(numbers)
    pixels["value"] = numbers[pixels["index"]]
    return "p" + base64.urlsafe_b64encode(pixels.tobytes()).decode().rstrip("=")


def decode_image(code: Any, shape: tuple[int, ...], tests: np.ndarray) -> np.ndarray:
    """Return the image (1, H, W, C) of a code; uint8 if it is a test image.

    ``t12`` is test image 12; ``p`` and base64url hold (index, value) of pixels.

    Raises
    ------
    ValueError
        If it is not the code of such an image.
    """
    kind, content = (code[:1], code[1:]) if isinstance(code, str) else ("", "")
    if kind == "t" and content.isdecimal() and content.isascii():
        if len(content) > 9 or int(content) >= len(tests):
            raise ValueError(f"image must be t0..t{len(tests) - 1}; got {code[:20]}")
        return tests[int(content)].reshape(1, *shape)
    try:
        if kind != "p":
            raise ValueError
        packed = base64.b64decode(content + "=" * (-len(content) % 4), b"-_", True)
        pixels = np.frombuffer(packed, PIXEL)
    except (ValueError, binascii.Error):
        raise ValueError(f"image must be an image code; got {code!r:.40}") from None
    index, value = pixels["index"], pixels["value"]
    size = math.prod(shape)
    if len(np.unique(index)) < len(index) or (index >= size).any():
        raise ValueError(
            f"image must have different pixels in 0..{size - 1}; got others"
        )
    if not (np.abs(value) <= 10).all():  # nan, too
        raise ValueError("image must have numbers in -10..10; got others")
    image = np.zeros(size, np.float32)
    image[index] = value
    return image.reshape(1, *shape)


# ---------------------------------------------------------------------- Requests


@dataclass(frozen=True)
class Request:
    """What is asked of a frame: an image in a network as trained and then changed."""

    model: int
    image: str
    label: int | None
    back: bool
    changes: tuple
    step: tuple | None  # (lr, momentum, weight_decay)
    have: str | None  # version of the parameters that the page has

    @classmethod
    def read(cls, fields: Any, models: int) -> Request:
        """Check the fields of a request, as JSON has them; names and places come later.

        Raises
        ------
        ValueError
            That names the field, what is required, and what arrived.
        """
        if not isinstance(fields, dict):
            raise ValueError(f"a request must be an object; got {fields!r:.40}")
        label, changes, step = map(fields.get, ("label", "changes", "step"))
        if label is not None:
            label = _integer("label", label, 10**6)
        if not isinstance(changes or [], list) or len(changes or []) > MOST_CHANGES:
            raise ValueError(f"changes must be a list of at most {MOST_CHANGES}")
        if step is not None:
            step = step if isinstance(step, dict) else {}
            step = _settings([step.get(name) for name in SETTINGS])
        return cls(
            _integer("model", fields.get("model", 0), models - 1),
            fields.get("image"),
            label,
            fields.get("back") is True,
            tuple(map(_change, changes or [])),
            step,
            fields.get("have"),
        )


def _integer(name, value, most):
    """Return a whole number in 0..most, or raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{name} must be in 0..{most}; got {value!r:.40}")
    return value


def _number(name, value, holds, required):
    """Return a finite number of which something holds, or raise ValueError."""
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not numeric or not math.isfinite(value) or not holds(value):
        raise ValueError(f"{name} must {required}; got {value!r:.40}")
    return float(value)


def _settings(values):
    """Return (lr, momentum, weight_decay) of a step, or raise ValueError."""
    rules = SETTINGS.items()
    return tuple(
        _number(name, value, *rule)
        for (name, rule), value in zip(rules, values, strict=True)
    )


def _change(change):
    """Return a change of the parameters as a tuple, or raise ValueError."""
    kind = change[0] if isinstance(change, list) and change else None
    if kind == "edit" and len(change) == 4 and isinstance(change[1], str):
        _, name, index, value = change
        required = f"be in -{LARGEST_EDIT:,}..{LARGEST_EDIT:,}"
        value = _number("a weight", value, lambda x: abs(x) <= LARGEST_EDIT, required)
        return kind, name, _integer("index", index, 10**9), value
    if kind == "step" and len(change) == 6 and isinstance(change[1], str):
        _, image, label, *settings = change
        return kind, image, _integer("label", label, 10**6), *_settings(settings)
    raise ValueError(f"changes must be edits and steps; got {change!r:.60}")


# ---------------------------------------------------------------------- Frames


class Frames:
    """Makes frames of several models.

    Parameters
    ----------
    models : dict of path to HandwrittenNumberClassification
        Of a path, the file and its folder are shown.
    images, labels : arrays of shape (n, H, W) and (n,)
        The test images that the page can show.
    """

    def __init__(
        self, models: dict[str | Path, Model], images: np.ndarray, labels: np.ndarray
    ) -> None:
        self.names = ["/".join(Path(path).parts[-2:]) for path in models]
        self.models = list(models.values())
        self.images, self.labels = images, labels
        self.checksums = [checksum(model) for model in self.models]
        self.copies: dict[tuple, Model] = {}

    def describe(self) -> dict[str, Any]:
        """Return what the page has to know at its start."""
        models = [
            {
                "name": name,
                "architecture": model.architecture,
                "checksum": of_model,
                "parameters": sum(p.size for p in model.parameters.values()),
            }
            for name, model, of_model in zip(
                self.names, self.models, self.checksums, strict=True
            )
        ]
        shape = list(map(int, self.models[0].input_shape))
        classes = len(self.models[0].B_dense)
        found = {"models": models, "tests": len(self.images)}
        return found | {"input": shape, "classes": classes}

    def find_image(self, code: Any, model: Model) -> np.ndarray:
        """Return the image of a code as a model takes it: a batch of one, floats."""
        image = decode_image(code, tuple(model.input_shape), self.images)
        return image.astype(model.dtype) / (255 if image.dtype == np.uint8 else 1)

    def find_model(self, request: Request) -> Model:
        """Return a model with the changes that a request has made.

        Momentum begins at zero with the first change, so that the same changes lead to
        the same bits, wherever they are made.
        """
        key = request.model, request.changes
        if not request.changes:
            return self.models[request.model]
        if key in self.copies:
            return self.copies[key]
        model = copy.deepcopy(self.models[request.model])
        for velocity in model.velocity.values():
            velocity[...] = 0
        for kind, *change in request.changes:
            if kind == "edit":
                _edit(model, *change)
            else:
                image, label, *settings = change
                _take_step(model, self.find_image(image, model), label, settings)
        while len(self.copies) >= MOST_COPIES:
            del self.copies[next(iter(self.copies))]
        self.copies[key] = model
        return model

    def make(self, request: Request) -> bytes:
        """Return a frame.

        Raises
        ------
        ValueError, FloatingPointError
            In words for the page.
        """
        model = self.find_model(request)
        image = self.find_image(request.image, model)
        _check_size(model)
        forward, steps = trace(model, image)
        probabilities = forward[-1]
        if not all(np.isfinite(array).all() for array in forward):
            raise ValueError("the changes must keep numbers finite; got others")
        true_label = None
        if request.image[0] == "t":
            true_label = int(self.labels[int(request.image[1:])])
        predicted = int(probabilities.argmax())
        label = predicted if true_label is None else true_label
        label = _label(model, label if request.label is None else request.label)
        loss = model.compute_loss(probabilities[np.newaxis], np.array([label]))
        arrays = {f"step.{k}": array for k, array in enumerate(forward)}
        arrays |= find_winners(model, forward, steps)
        version = checksum(model)
        if request.have != version:
            arrays |= model.parameters
        step = None
        if request.back:
            arrays |= derive(model, image, label, steps)
            if request.step is not None:
                step, of_step = self.preview(model, image, label, request.step, loss)
                arrays |= of_step
        name, of_model = self.names[request.model], self.checksums[request.model]
        names = name_digits(probabilities[np.newaxis])
        header = {
            "model": {
                "name": name,
                "architecture": model.architecture,
                "checksum": of_model,
                "dtype": np.dtype(model.dtype).name,
                "smoothing": float(model.label_smoothing),
            },
            "version": version,
            "image": request.image,
            "label": label,
            "true_label": true_label,
            "predicted": predicted,
            "message": describe_reading(names, probabilities[np.newaxis]),
            "loss": loss,
            "steps": steps,
            "step": step,
        }
        return pack(header, arrays)

    def preview(
        self, model: Model, image: np.ndarray, label: int, settings: tuple, loss: float
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Take a step on a copy; return what it does to the loss, and its arrays."""
        after = copy.deepcopy(model)
        if model in self.models:  # As trained: momentum begins at zero.
            for velocity in after.velocity.values():
                velocity[...] = 0
        arrays = {f"velocity.{n}": v.copy() for n, v in after.velocity.items()}
        try:
            _take_step(after, image, label, settings)
        except FloatingPointError as error:
            return {"message": str(error)}, {}
        gradients = model.compute_gradients(image, np.array([label]))[1]
        predicted = -sum(
            float(np.vdot(gradients[n].astype(float), after.parameters[n] - before))
            for n, before in model.parameters.items()
        )
        loss_after = after.evaluate(image, np.array([label]))[0]
        found = dict(zip(SETTINGS, settings, strict=True)) | {
            "loss_after": loss_after,
            "predicted_drop": predicted,
            "measured_drop": loss - loss_after,
        }
        return found, arrays | {f"after.{n}": p for n, p in after.parameters.items()}

    # ------------------------------------------------------------------ Checks

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
        model = self.find_model(request)
        image = self.find_image(request.image, model)
        forward, steps = trace(model, image)
        label = request.label
        if label is None and request.image[0] == "t":
            label = int(self.labels[int(request.image[1:])])
        label = _label(model, int(forward[-1].argmax()) if label is None else label)
        if not (isinstance(cell, list) and len(cell) == 2 and isinstance(cell[0], str)):
            raise ValueError(f"cell must be [name, index]; got {cell!r:.40}")
        name, index = cell
        derivatives = derive(model, image, label, steps)
        found = derivatives.get("d.0" if name == "image" else f"d.{name}")
        if found is None or name[0].isdigit():
            known = ["image", *model.parameters]
            raise ValueError(f"cell must be among {known}; got {name!r:.40}")
        index = _integer("index", index, found.size - 1)
        double = HandwrittenNumberClassification(
            **(model.get_params() | {"dtype": np.float64})
        )
        for of_double, parameter in zip(
            double.parameters.values(), model.parameters.values(), strict=True
        ):
            of_double[...] = parameter
        pixels = forward[0].astype(np.float64)[np.newaxis]
        nudged = pixels if name == "image" else double.parameters[name]
        middle, losses, patterns = nudged.flat[index], [], []
        for nudge in (-NUDGE, 0, NUDGE):
            nudged.flat[index] = middle + nudge
            numbers, _ = trace(double, pixels)
            losses.append(
                double.compute_loss(numbers[-1][np.newaxis], np.array([label]))
            )
            patterns.append(find_pattern(double, numbers, steps))
        computed = float(found.flat[index])
        measured = (losses[2] - losses[0]) / (2 * NUDGE)
        largest = float(np.abs(found).max())
        return {
            "computed": computed,
            "measured": measured,
            "nudge": NUDGE,
            "losses": [losses[0], losses[2]],
            "switched": [
                step["title"]
                for step, *seen in zip(steps, *patterns, strict=True)
                if not all(np.array_equal(seen[1], other) for other in seen)
            ],
            # float32 rounds each of the terms of which it is the sum.
            "agree": math.isclose(
                computed, measured, rel_tol=1e-3, abs_tol=1e-5 * largest + 1e-8
            ),
        }

    # ------------------------------------------------------------------ Mistakes

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


def checksum(model: Model) -> str:
    """Return 8 hexadecimal digits of a model's parameters."""
    found = 0
    for parameter in model.parameters.values():
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


def _label(model, label):
    """Return a class of a model, or raise ValueError."""
    return _integer("label", label, len(model.B_dense) - 1)


def _check_size(model):
    """Raise ValueError if a frame would be too large for a page."""
    parameters = sum(p.size for p in model.parameters.values())
    numbers = sum(math.prod(layer.output_shape) for layer in model.layers)
    size = (4 * parameters + 6 * numbers) * np.dtype(model.dtype).itemsize
    if size > LARGEST_FRAME:
        most, got = f"{LARGEST_FRAME / 1e6:.0f} MB", f"{size / 1e6:.0f} MB"
        raise ValueError(f"all numbers must have at most {most} to be shown; got {got}")


def _edit(model, name, index, value):
    """Set one number of a parameter, or raise ValueError."""
    if name not in model.parameters:
        known = list(model.parameters)
        raise ValueError(f"a parameter must be among {known}; got {name!r:.40}")
    parameter = model.parameters[name]
    parameter.flat[_integer("index", index, parameter.size - 1)] = value


def _take_step(model, image, label, settings):
    """Take one step of SGD on one image: a `fit` of the class."""
    usual = {"batch_size": 1, "augment": False, "schedule": "constant"}
    usual |= {"averaging": 0.0} | dict(zip(SETTINGS, settings, strict=True))
    model.set_params(**usual)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Of one image, what is said of a training is idle.
        model.partial_fit(image, np.array([_label(model, label)]))


# ---------------------------------------------------------------------- Steps


def trace(
    model: Model, image: np.ndarray
) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
    """Return the result of each step for one image, and what each step is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A pixel may have been nudged or edited.
        forward, _ = model.trace_steps(image[0])
    layers, steps, index = iter(model.layers), [], -1
    layer = None
    names = {"image": "image", "flattened": "flatten", "scores": "scores"}
    names |= {"probabilities": "softmax", "bias, ReLU": "ReLU"}
    convolution = None
    for title, array, _ in forward:
        kind = names.get(title)
        if kind is None:
            layer = next(layers)
            kind = layer.kind
            if kind == "convolution":
                index, convolution = index + 1, layer
        of = convolution if kind == "ReLU" else layer
        if kind in ("flatten", "scores", "softmax"):
            of = model.layers[-1]
        own = kind in ("convolution", "pooling")
        steps.append(
            {
                "kind": kind,
                "title": title,
                "token": of.token if of and kind != "image" else "",
                "shape": list(array.shape),
                "index": index if kind in ("convolution", "ReLU") else None,
                "window": list(map(int, layer.window)) if own else None,
                "stride": int(layer.stride) if own else None,
                "padding": int(layer.padding) if own else None,
            }
        )
    return [array for _, array, _ in forward], steps


def find_masks(
    model: Model, forward: list[np.ndarray], steps: list[dict[str, Any]]
) -> dict[int, np.ndarray]:
    """Return the mask (1, H', W', F, P, P) of each pooling, by its step."""
    found = {}
    for k, step in enumerate(steps):
        if step["kind"] == "pooling":
            maps, masks = forward[k - 1][np.newaxis], []
            model.generate_max_pool(
                maps, step["window"][0], step["stride"], masks=masks
            )
            found[k] = masks[0]
    return found


def find_winners(
    model: Model, forward: list[np.ndarray], steps: list[dict[str, Any]]
) -> dict[str, np.ndarray]:
    """Return where the maximum of each window stood, row by row in the window."""
    masks = find_masks(model, forward, steps)
    return {
        f"winners.{k}": mask[0]
        .reshape(*mask.shape[1:4], -1)
        .argmax(-1)
        .astype(np.uint16)
        for k, mask in masks.items()
    }


def find_pattern(
    model: Model, forward: list[np.ndarray], steps: list[dict[str, Any]]
) -> list[Any]:
    """Return of each step what of it switches: living ReLUs, maxima, or nothing."""
    masks = find_masks(model, forward, steps)
    return [
        array > 0 if step["kind"] == "ReLU" else masks.get(k)
        for k, (step, array) in enumerate(zip(steps, forward, strict=True))
    ]


def derive(
    model: Model, image: np.ndarray, label: int, steps: list[dict[str, Any]]
) -> dict[str, np.ndarray]:
    """Return the derivatives of the loss by the result of each step and each parameter.

    Down to the first convolution they are those of `trace_steps`. Training needs none
    below it; these are made by the same reverse steps.
    """
    forward, back = model.trace_steps(image[0], label)
    forward, back = [array for _, array, _ in forward], iter(back)
    gradients = model.compute_gradients(image, np.array([label]))[1]
    last = len(steps) - 3  # step: flatten; then scores and softmax
    d = next(back)[1]
    found = {f"d.{last + 1}": gradients["B_dense"], f"d.{last}": d}
    found[f"d.{last - 1}"] = d = d.reshape(steps[last - 1]["shape"])
    masks = find_masks(model, forward, steps)
    for k in range(last - 1, 0, -1):
        step = steps[k]
        if step["kind"] == "convolution":
            next(back)  # the gradient of its kernels
        _, reached, _ = next(back, (None, None, None))
        if reached is None:  # Below the first convolution.
            size, around = tuple(steps[k - 1]["shape"][:2]), d[np.newaxis]
            if step["kind"] == "convolution":
                kernel = model.kernels[step["index"]]
                geometry = size, step["stride"], step["padding"]
                reached = model.generate_input_loss(around, kernel, *geometry)[0]
            else:
                reached = model.unpool(around, masks[k], step["stride"], size)[0]
        found[f"d.{k - 1}"] = d = reached
    return found | {f"d.{name}": gradient for name, gradient in gradients.items()}
