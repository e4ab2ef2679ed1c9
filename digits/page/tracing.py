"""What a network makes of one image, step by step and back, by the class's steps."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np

from digits.page.requests import SETTINGS, check_integer
from handwritten_classifier import HandwrittenNumberClassification

Model = HandwrittenNumberClassification
NUDGE = 1e-5  # in float64: rounding and curvature change a slope by less than 1e-9

_quiet, _filters, _lock = 0, ExitStack(), threading.Lock()


@contextmanager
def unwarned() -> Iterator[None]:
    """Keep quiet about images and trainings that somebody tries on a page.

    Filters of warnings belong to all threads: the last one to leave restores them.
    """
    global _quiet
    with _lock:
        if not _quiet:
            _filters.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        _quiet += 1
    try:
        yield
    finally:
        with _lock:
            _quiet -= 1
            if not _quiet:
                _filters.close()


# ---------------------------------------------------------------------- Forward


class Trace(NamedTuple):
    """What each step makes of one image."""

    forward: list[np.ndarray]  # the results, (H, W, C), (D,) and (N,)
    steps: list[dict[str, Any]]  # what each is, as the page is told
    masks: dict[int, np.ndarray]  # of each pooling, (1, H', W', F, P, P), by its step


def trace(model: Model, image: np.ndarray) -> Trace:
    """Take one image, a batch of it, through all steps."""
    results, _ = model.trace_steps(image[0])
    forward, masks = [array for _, array, _ in results], {}
    steps = describe_steps(model, results)
    for k, step in enumerate(steps):
        if step["kind"] == "pooling":
            maps, kept = forward[k - 1][np.newaxis], []
            side, stride = step["window"][0], step["stride"]
            model.generate_max_pool(maps, side, stride, masks=kept)
            masks[k] = kept[0]
    return Trace(forward, steps, masks)


_KINDS = {  # of steps that are no layers, by their titles in `trace_steps`
    "image": "image",
    "bias, ReLU": "ReLU",
    "flattened": "flatten",
    "scores": "scores",
    "probabilities": "softmax",
}


def describe_steps(model: Model, results: list[tuple]) -> list[dict[str, Any]]:
    """Return what each result of `trace_steps` is: kind, layer and shape."""
    layers, steps, index = iter(model.layers), [], -1
    layer = convolution = None
    for title, array, _ in results:
        kind = _KINDS.get(title)
        if own := kind is None:
            layer = next(layers)
            kind = layer.kind
        if kind == "convolution":
            index, convolution = index + 1, layer
        of = {"image": None, "ReLU": convolution}.get(kind, layer)
        if kind in ("flatten", "scores", "softmax"):
            of = model.layers[-1]
        steps.append(
            {
                "kind": kind,
                "title": title,
                "token": of.token if of else "",
                "shape": list(array.shape),
                "index": index if kind in ("convolution", "ReLU") else None,
                "window": list(map(int, layer.window)) if own else None,
                "stride": int(layer.stride) if own else None,
                "padding": int(layer.padding) if own else None,
            }
        )
    return steps


def find_winners(seen: Trace) -> dict[str, np.ndarray]:
    """Return where the maximum of each window stood, row by row in the window."""
    return {
        f"winners.{k}": np.uint16(mask[0].reshape(*mask.shape[1:4], -1).argmax(-1))
        for k, mask in seen.masks.items()
    }


# ---------------------------------------------------------------------- Backward


def derive(
    model: Model, image: np.ndarray, label: int, seen: Trace
) -> dict[str, np.ndarray]:
    """Return the derivatives of the loss by the result of each step and each parameter.

    Down to the first convolution they are those of `trace_steps`. Training needs none
    below it; these are made by the same reverse steps.
    """
    back = iter(model.trace_steps(image[0], label)[1])
    gradients = model.compute_gradients(image, np.array([label]))[1]
    flatten = len(seen.steps) - 3  # then scores and softmax
    d = next(back)[1]
    found = {f"d.{flatten + 1}": gradients["B_dense"], f"d.{flatten}": d}
    found[f"d.{flatten - 1}"] = d = d.reshape(seen.steps[flatten - 1]["shape"])
    for k in range(flatten - 1, 0, -1):
        step = seen.steps[k]
        if step["kind"] == "convolution":
            next(back)  # the gradient of its kernels
        _, below, _ = next(back, (None, None, None))
        if below is None:
            size, batch = tuple(seen.steps[k - 1]["shape"][:2]), d[np.newaxis]
            if step["kind"] == "convolution":
                kernel = model.kernels[step["index"]]
                geometry = size, step["stride"], step["padding"]
                below = model.generate_input_loss(batch, kernel, *geometry)[0]
            else:
                below = model.unpool(batch, seen.masks[k], step["stride"], size)[0]
        found[f"d.{k - 1}"] = d = below
    return found | {f"d.{name}": gradient for name, gradient in gradients.items()}


# ---------------------------------------------------------------------- Changes


def edit(model: Model, name: str, index: int, value: float) -> None:
    """Set one number of a parameter, or raise ValueError."""
    if name not in model.parameters:
        known = list(model.parameters)
        raise ValueError(f"a parameter must be among {known}; got {name!r:.40}")
    parameter = model.parameters[name]
    parameter.flat[check_integer("index", index, parameter.size - 1)] = value


def take_step(model: Model, image: np.ndarray, label: int, settings: tuple) -> None:
    """Take one step of SGD on one image: a `fit` of the class."""
    label = check_integer("label", label, len(model.B_dense) - 1)
    usual = {"batch_size": 1, "augment": False, "schedule": "constant"}
    usual |= {"averaging": 0.0} | dict(zip(SETTINGS, settings, strict=True))
    model.set_params(**usual).partial_fit(image, np.array([label]))


def preview(
    model: Model,
    image: np.ndarray,
    label: int,
    settings: tuple,
    loss: float,
    derivatives: dict[str, np.ndarray],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Take a step on a copy; return what it does to the loss, and its arrays."""
    after = copy.deepcopy(model)
    arrays = {f"velocity.{name}": v for name, v in model.velocity.items()}
    try:
        take_step(after, image, label, settings)
    except FloatingPointError as error:
        return {"message": str(error)}, {}
    predicted = -sum(
        float(np.vdot(derivatives[f"d.{n}"].astype(float), after.parameters[n] - p))
        for n, p in model.parameters.items()
    )
    loss_after = after.evaluate(image, np.array([label]))[0]
    drops = {"predicted_drop": predicted, "measured_drop": loss - loss_after}
    found = dict(zip(SETTINGS, settings, strict=True)) | {"loss_after": loss_after}
    return found | drops, arrays | {
        f"after.{n}": p for n, p in after.parameters.items()
    }


# ---------------------------------------------------------------------- Checks


def nudge(
    model: Model, image: np.ndarray, label: int, name: str, index: int
) -> tuple[list[float], list[str]]:
    """Change one number by `NUDGE` down and up in a float64 copy of a model.

    Returns both losses, and the titles of the steps of which a ReLU or a maximum
    switches on the way.
    """
    settings = model.get_params() | {"dtype": np.float64}
    double = HandwrittenNumberClassification(**settings)
    for parameter, exact in zip(
        model.parameters.values(), double.parameters.values(), strict=True
    ):
        exact[...] = parameter
    pixels = image.astype(np.float64)
    nudged = pixels if name == "image" else double.parameters[name]
    middle, losses, patterns = nudged.flat[index], [], []
    for change in (-NUDGE, NUDGE, 0):
        nudged.flat[index] = middle + change
        seen = trace(double, pixels)
        probabilities = seen.forward[-1][np.newaxis]
        losses.append(double.compute_loss(probabilities, np.array([label])))
        patterns.append(find_pattern(seen))
    switched = [
        step["title"]
        for step, low, high, between in zip(seen.steps, *patterns, strict=True)
        if not (np.array_equal(low, between) and np.array_equal(high, between))
    ]
    return losses[:2], switched


def find_pattern(seen: Trace) -> list[Any]:
    """Return of each step what of it switches: living ReLUs, maxima, or nothing."""
    return [
        array > 0 if step["kind"] == "ReLU" else seen.masks.get(k)
        for k, (step, array) in enumerate(zip(seen.steps, seen.forward, strict=True))
    ]
