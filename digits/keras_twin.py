"""The same network in Keras: `to_keras` hands it over, `from_keras` takes it back.

Kernels are (F, C, K_h, K_w) here and (K_h, K_w, C, F) in Keras. A hidden dense layer is
a convolution here whose kernel covers the whole map; in Keras it can be a Dense layer.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from handwritten_classifier import HandwrittenNumberClassification

if TYPE_CHECKING:
    import keras


def to_keras(model: HandwrittenNumberClassification) -> keras.Model:
    """Return the network of `model`, with its parameters, as a Keras model.

    This needs TensorFlow.
    """
    from tensorflow import keras

    dtype = np.dtype(model.dtype).name
    network = keras.Sequential([keras.Input(model.input_shape, dtype=dtype)])
    for layer in model.layers[:-1]:
        if layer.kind == "pooling":
            pooling = keras.layers.MaxPooling2D(layer.window, layer.stride, dtype=dtype)
            network.add(pooling)
            continue
        if layer.padding:
            network.add(keras.layers.ZeroPadding2D(layer.padding, dtype=dtype))
        options = {"strides": layer.stride, "activation": "relu", "dtype": dtype}
        filters = layer.output_shape[2]
        network.add(keras.layers.Conv2D(filters, layer.window, **options))
    network.add(keras.layers.Flatten(dtype=dtype))
    classes = len(model.B_dense)
    network.add(keras.layers.Dense(classes, activation="softmax", dtype=dtype))
    weights = model.parameters.values()
    network.set_weights(
        [w.transpose(2, 3, 1, 0) if w.ndim == 4 else w for w in weights]
    )
    return network


def from_keras(
    model: keras.Model, *, logits: bool = False, **settings: Any
) -> HandwrittenNumberClassification:
    """Return the network of a Keras model, with its parameters, as our class.

    Parameters
    ----------
    model : keras.Model
        A chain of Conv2D, MaxPooling2D, GlobalMaxPooling2D, Flatten and Dense layers,
        as `to_keras` makes it, or an equivalent one. ReLU must follow every layer with
        weights except the last, and softmax the last. Layers that act only in training,
        such as Dropout and augmentation, are skipped. BatchNormalization, Rescaling and
        Normalization are folded into the kernels and biases beside them.
    logits : bool
        Whether the last layer may lack its softmax, which this class always has.
    **settings
        Settings of the class other than `architecture` and `input_shape`.

    Raises
    ------
    TypeError
        If `model` is no Keras model.
    ValueError
        If a layer cannot be converted. The message names it and gives the reason.

    Notes
    -----
    Our class divides uint8 images by 255 itself. A model that begins by scaling levels
    of 0..255, with Rescaling(1/255) for example, therefore takes the same uint8 images
    here. Float images must be in 0..1, that is, divided by 255. A model without such a
    layer takes the same float images here and in Keras.
    """
    _check_keras_model(model)
    reader = _KerasReader(model, logits)
    settings.setdefault("dtype", reader.dtype)
    network = HandwrittenNumberClassification(
        "-".join(reader.tokens), input_shape=reader.input_shape, **settings
    )
    arrays = zip(network.parameters.items(), reader.arrays, strict=True)
    for (name, parameter), array in arrays:
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite; got nan or inf")
        parameter[...] = array
    return network


# ---------------------------------------------------------------------- Layers in order


def _check_keras_model(model: Any) -> None:
    """Raise TypeError unless `model` is a Keras model whose layers can be listed."""
    kinds = _list_kinds(model)
    if kinds & _CHAINS:
        return
    kind = type(model)
    got = kind.__name__
    if kind.__module__ != "builtins":
        got = f"{kind.__module__}.{got}"
    if isinstance(model, (str, os.PathLike)):
        got = f"{kind.__name__}: load it with keras.models.load_model"
    elif "Model" in kinds:
        got += ", a subclass: build it with keras.Sequential or keras.Model(x, y)"
    raise TypeError(f"model must be a Keras model; got {got}")


def _list_kinds(layer: Any) -> set[str]:
    """Return the names of the Keras classes that a layer is an instance of."""
    bases = type(layer).__mro__
    return {base.__name__ for base in bases if base.__module__.startswith("keras.")}


def _require(holds: bool, name: str, kind: str, what: str) -> None:
    """Raise ValueError that names a layer and why it is refused, unless it `holds`."""
    if not holds:
        raise ValueError(
            "model must be a chain of Conv2D, MaxPooling2D, Flatten and Dense "
            f"layers that this class also has; got {name!r} ({kind}): {what}"
        )


def _list_layers(model: Any) -> list[Any]:
    """Return the layers of a chain in order, with those of the chains in it."""
    if "Functional" in _list_kinds(model) and "Sequential" not in _list_kinds(model):
        chain = _follow_back(model)
    else:
        chain = model.layers
    layers = []
    for layer in chain:
        inner = _list_kinds(layer) & _CHAINS
        layers += _list_layers(layer) if inner else [layer]
    return [layer for layer in layers if type(layer).__name__ != "InputLayer"]


def _follow_back(model: Any) -> list[Any]:
    """Return the layers of a functional model, found from its output to its input.

    Its configuration holds the calls of each layer, and of each call the sources. The
    calls are numbered as if those of other models were in the list; it leaves them out.
    """
    with warnings.catch_warnings():  # Of functions that could not be loaded again.
        warnings.simplefilter("ignore")
        config = model.get_config()
    calls = {layer["name"]: layer["inbound_nodes"] for layer in config["layers"]}
    layers = {layer.name: layer for layer in model.operations}
    sources, chain = _find_sources(config["output_layers"]), []
    numbers = sorted({*sources, *_find_sources(calls)})
    what = "it must be the only output"
    name = sources[-1][0]
    while True:
        _require(len(sources) == 1, name, type(layers[name]).__name__, what)
        name, number = sources[0]
        if not calls[name]:
            return chain[::-1]  # This is the input.
        chain.append(layers[name])
        call = [own for own in numbers if own[0] == name].index((name, number))
        sources = _find_sources(calls[name][call])
        what = "it must follow the one before it, and no other"


def _find_sources(structure: Any) -> list[tuple[str, int]]:
    """Return the name and the number of the call of all tensors in a configuration.

    A tensor is a list there: the name, the call, and which of its outputs.
    """
    if isinstance(structure, dict):
        structure = list(structure.values())
    if not isinstance(structure, (list, tuple)):
        return []
    if len(structure) == 3 and list(map(type, structure)) == [str, int, int]:
        return [(structure[0], structure[1])]
    return [source for part in structure for source in _find_sources(part)]


def _read_input_shape(model: Any) -> tuple[int, ...]:
    """Return the shape of one image, as a Keras model takes it."""
    inputs = getattr(model, "inputs", None) or []
    shapes = [tuple(tensor.shape) for tensor in inputs]
    if len(shapes) == 1 and None not in shapes[0][1:]:
        return shapes[0][1:]
    got = "no input yet: begin with keras.Input((28, 28, 1))"
    if shapes:
        got = f"shape {', '.join(map(str, shapes))}"
    raise ValueError(f"model must take images (B, H, W, C) of one size; got {got}")


def _find_maps(shape: tuple[int, ...], layers: list[Any]) -> tuple[int, int, int]:
    """Return the shape (H, W, C) of the images that a model takes as `shape`.

    Flat images get the shape that a Reshape layer gives them, or are square.
    """
    found = shape
    if len(shape) == 1:
        side = math.isqrt(shape[0])
        found = (side, side) if side * side == shape[0] else shape
        kinds = (*_WITH_KERNEL, "Reshape")
        first = [layer for layer in layers if type(layer).__name__ in kinds][:1]
        if [type(layer).__name__ for layer in first] == ["Reshape"]:
            found = tuple(first[0].compute_output_shape((1, *shape)))[1:]
    found = (*found, 1) if len(found) == 2 else found
    if len(found) != 3:
        got = f"shape {(None, *shape)}"
        raise ValueError(f"model must take images (B, H, W, C); got {got}")
    return found


def _name_activation(function: Callable) -> str:
    """Return "linear", "relu" or "softmax" if it is one; else what it is called.

    The values tell, because the same function has many names. Large and small ones show
    limits and slopes.
    """
    x = np.array([[-1e6, -9, -1, 0, 1, 7, 1e6], [-1, -0.1, -1e-3, 0, 1e-3, 0.1, 2]])
    x = x.astype(np.float32)
    shares = np.exp(x - x.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    known = {"linear": x, "relu": np.maximum(x, 0), "softmax": shares}
    try:
        found = np.asarray(function(x))
    except Exception:  # Of a backend that takes no array of NumPy's.
        found = np.empty(0)
    for name, values in known.items():
        if found.shape == x.shape and np.allclose(found, values, rtol=1e-5, atol=1e-7):
            return name
    return getattr(function, "__name__", type(function).__name__)


# ---------------------------------------------------------------------- Reader

_CHAINS = {"Sequential", "Functional", "Pipeline"}  # layers that hold layers in order
_WITH_KERNEL = ("Conv2D", "Dense")
_ONLY_IN_TRAINING = re.compile(
    "((Spatial|Gaussian|Alpha)?Dropout(2D)?|GaussianNoise|ActivityRegularization"
    "|Identity|Random.*|RandAugment|AugMix|CutMix|MixUp|Solarization)"
)
_LEVELS = 0.1  # a smaller scale in front brings levels of 0..255 to about 0..1


class _KerasReader:
    """Reads a Keras model layer by layer into the notation and our arrays.

    There is one method per kind of Keras layer, named ``read_`` and the kind.

    Attributes
    ----------
    tokens : list of str
        The layers so far, in the notation of architectures.
    arrays : list of arrays
        Their parameters, in our axes; while reading, all kernels are (F, C, K_h, K_w).
    dtype : dtype
        float64 if a kernel is, else float32.
    activation : str
        "none" on images; after weights, the activation so far.
    pooled : bool
        Whether pooling came after the last weights.
    padding : int
        Zero padding that the next convolution must take.
    affine : pair of arrays of shape `maps`, or None
        Keras's maps are ours times the first plus the second; the next weights take it.
    shape : tuple of int
        The shape of one image's array in Keras.
    maps : tuple of int
        Our shape of it, (H, W, C), whether or not Keras has flattened it.
    layer, kind, last
        The present layer, its kind, and whether it is the last one that has a kernel.
    """

    def __init__(self, model: keras.Model, logits: bool) -> None:
        self.tokens: list[str] = []
        self.arrays: list[np.ndarray] = []
        self.dtype = np.dtype(np.float32)
        self.activation, self.pooled, self.padding = "none", False, 0
        self.affine: tuple[np.ndarray, np.ndarray] | None = None
        self.shape, layers = _read_input_shape(model), _list_layers(model)
        self.maps = self.input_shape = _find_maps(self.shape, layers)
        weighted = [layer for layer in layers if type(layer).__name__ in _WITH_KERNEL]
        if not weighted:
            raise ValueError("model must end in a Dense layer; got none")
        for layer in layers:
            self.layer, self.kind = layer, type(layer).__name__
            self.last = layer is weighted[-1]
            self.find_reader()()
            self.shape = self.find_output()
        final = ("softmax", "linear") if logits else ("softmax",)
        last = "softmax must come last; logits=True takes a model without it"
        self.require(self.activation in final, f"{last}; got {self.activation}")
        kernel = self.arrays[-2]
        self.arrays[-2] = kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))

    def require(self, holds: bool, what: str) -> None:
        """Raise ValueError that names the present layer and why, unless it `holds`."""
        _require(holds, self.layer.name, self.kind, what)

    def find_reader(self) -> Callable[[], None]:
        """Return the method that reads the present layer."""
        if _ONLY_IN_TRAINING.fullmatch(self.kind):
            return self.skip
        return getattr(self, f"read_{self.kind}", self.refuse)

    def find_output(self) -> tuple[int, ...]:
        """Return the shape of what the present layer makes of one image."""
        return tuple(self.layer.compute_output_shape((1, *self.shape)))[1:]

    def refuse(self) -> None:
        """Refuse a kind of layer that this class does not have."""
        self.require(False, "there is no such layer")

    def skip(self) -> None:
        """Skip a layer that does nothing in inference."""
        shape = self.find_output()
        self.require(shape == self.shape, "it changes the size of images")

    # ---------------------------------------------------------------- Shapes

    def read_Flatten(self) -> None:
        """Skip it: Dense finds the shape of the maps in `maps`."""
        self.require_channels_last()
        self.require(not self.padding, "padding must be followed by Conv2D")

    def read_Reshape(self) -> None:
        """Skip it if it flattens, or shapes flat maps: Dense and Conv2D know `maps`."""
        shape = self.find_output()
        same = {self.maps, (math.prod(self.maps),)}
        same |= {self.maps[:2]} if self.maps[2] == 1 else set()
        self.require(shape in same, f"maps of {self.maps} must keep their shape")
        self.require(not self.padding, "padding must be followed by Conv2D")

    def read_ZeroPadding2D(self) -> None:
        """Keep the padding for the convolution that must follow."""
        self.require_channels_last()
        self.pad(*self.layer.padding)

    def pad(self, *sides: tuple[int, int]) -> None:
        """Keep padding of (top, bottom) and (left, right) for the next convolution."""
        amounts = {amount for pair in sides for amount in pair}
        self.require(len(amounts) == 1, "padding must be the same on all sides")
        self.padding += amounts.pop()

    def find_padding(self, window: tuple[int, int], stride: int) -> list[tuple]:
        """Return what padding "same" adds: (top, bottom) and (left, right)."""
        sides = []
        for size, side in zip(self.shape[:2], window, strict=True):
            total = max((math.ceil(size / stride) - 1) * stride + side - size, 0)
            sides.append((total // 2, total - total // 2))
        return sides if self.layer.padding == "same" else [(0, 0), (0, 0)]

    def read_window(self, name: str) -> tuple[tuple[int, int], int]:
        """Return the window and the stride of the present layer."""
        self.require_channels_last()
        strides = self.layer.strides
        self.require(strides[0] == strides[1], "its strides must be equal")
        return tuple(getattr(self.layer, name)), strides[0]

    def require_channels_last(self) -> None:
        """Refuse maps in any order other than (B, H, W, C)."""
        order = self.layer.data_format
        self.require(order == "channels_last", "data_format must be channels_last")

    # ---------------------------------------------------------------- Weights

    def read_Conv2D(self) -> None:
        """Read a convolution; one that covers the whole map is a hidden dense layer."""
        window, stride = self.read_window("kernel_size")
        self.require(not self.last, "a Dense layer must be the last with weights")
        self.require(self.layer.dilation_rate == (1, 1), "dilation must be 1")
        self.require(self.layer.groups == 1, "groups must be 1")
        self.pad(*self.find_padding(window, stride))
        whole = window == self.maps[:2] and not self.padding
        self.require(whole or window[0] == window[1], "its window must be square")
        options = f"s{stride}" + f"p{self.padding}" * (self.padding > 0)
        kernel = self.layer.get_weights()[0].transpose(3, 2, 0, 1)
        self.take(kernel, "N" if whole else f"C{window[0]}{options}", whole)

    def read_Dense(self) -> None:
        """Read a dense layer; its kernel covers the whole map."""
        self.require(len(self.shape) == 1, "its input must be flattened")
        kernel = self.layer.get_weights()[0]
        kernel = kernel.reshape(*self.maps, kernel.shape[1]).transpose(3, 2, 0, 1)
        self.take(kernel, "N", whole=True)

    def take(self, kernel: np.ndarray, token: str, whole: bool) -> None:
        """Add a layer to `tokens` and `arrays`; biases that it lacks are 0."""
        before = self.activation in ("none", "relu")
        self.require(before, "ReLU must come before it")
        biases = self.layer.get_weights()[1:2]
        bias = biases[0] if biases else np.zeros(len(kernel))
        if kernel.dtype == np.float64:
            self.dtype = kernel.dtype
        if self.affine:
            kernel, bias = self.fold_before(kernel, bias, whole)
        self.tokens.append(f"{len(kernel)}{token}")
        self.arrays += [kernel, bias]
        self.activation = _name_activation(self.layer.activation)
        self.affine, self.pooled, self.padding = None, False, 0
        self.maps = (1, 1, *self.find_output())[-3:]

    def fold_before(
        self, kernel: np.ndarray, bias: np.ndarray, whole: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a kernel and a bias that also do what `affine` does before them."""
        scale, shift = self.affine
        if not whole:
            scale, shift = self.find_common(scale, shift)
        scale, shift = scale.transpose(2, 0, 1), shift.transpose(2, 0, 1)
        pads = self.padding and shift.any()
        self.require(
            not pads,
            "its zero padding must not follow an offset, which it would pad, too",
        )
        return kernel * scale, bias + (kernel * shift).sum(axis=(1, 2, 3))

    # ---------------------------------------------------------------- Pooling

    def read_MaxPooling2D(self) -> None:
        """Read a max pooling layer."""
        window, stride = self.read_window("pool_size")
        self.require(window[0] == window[1], "its window must be square")
        pads = sum(map(sum, self.find_padding(window, stride)))
        self.require(not pads, "padding must be 'valid', or pad nothing")
        self.pool(f"MP{window[0]}s{stride}")

    def read_GlobalMaxPooling2D(self) -> None:
        """Read max pooling over the whole map."""
        self.require_channels_last()
        height, width = self.maps[:2]
        self.require(height == width, f"its map must be square, not {height}x{width}")
        self.pool(f"MP{height}")

    def pool(self, token: str) -> None:
        """Add max pooling; scales that are not negative pass it unchanged."""
        self.require(not self.padding, "padding must be followed by Conv2D")
        maps = (1, 1, *self.find_output())[-3:]
        if self.affine:
            common = self.find_common(*self.affine)
            self.require(common[0].min() >= 0, "a negative scale comes before it")
            self.affine = tuple(np.broadcast_to(array, maps) for array in common)
        self.tokens.append(token)
        self.pooled, self.maps = True, maps

    def read_GlobalAveragePooling2D(self) -> None:
        """Refuse it with its reason."""
        self.require(False, "there is no such layer; this class pools by maximum")

    read_AveragePooling2D = read_GlobalAveragePooling2D

    # ---------------------------------------------------------------- Activations

    def read_Activation(self) -> None:
        """Read an activation that is a layer of its own."""
        self.activate(_name_activation(self.layer.activation))

    def activate(self, activation: str) -> None:
        """Apply an activation to what the last weights returned."""
        twice = activation == self.activation == "relu" and not self.affine
        if activation == "linear" or twice:
            return  # ReLU of ReLU is ReLU.
        self.require(self.activation != "none", "weights must come before it")
        self.require(self.activation == "linear", "one activation must be enough")
        self.activation = activation

    def read_ReLU(self) -> None:
        """Read a ReLU layer."""
        slope, limit = self.layer.negative_slope, self.layer.max_value
        plain = limit is None and slope == self.layer.threshold == 0
        self.require(plain, "it must be plain ReLU")
        self.activate("relu")

    def read_Softmax(self) -> None:
        """Read a softmax layer."""
        self.require(len(self.shape) == 1, "its input must be flattened")
        self.require(self.layer.axis in (-1, 1), "axis must be -1")
        self.activate("softmax")

    # ---------------------------------------------------------------- Scale and shift

    def read_Rescaling(self) -> None:
        """Read a scale and an offset."""
        scale = np.asarray(self.layer.scale, float)
        levels = np.abs(scale).max() < _LEVELS
        self.apply(scale, np.asarray(self.layer.offset, float), levels)

    def read_Normalization(self) -> None:
        """Read the mean and the variance of the images that the layer has seen."""
        mean, variance = (
            np.asarray(array, float)[0]
            for array in (self.layer.mean, self.layer.variance)
        )
        self.require(not self.layer.invert, "invert must be False")
        scale = 1 / np.maximum(np.sqrt(variance), 1e-7)  # Keras's epsilon
        self.apply(scale, -mean * scale, levels=mean.max() > 1)

    def read_BatchNormalization(self) -> None:
        """Read the moving mean and variance, and what is learned."""
        axis = np.atleast_1d(self.layer.axis).tolist()
        self.require(axis in ([-1], [len(self.shape)]), "axis must be the last one")
        weights = [array.astype(float) for array in self.layer.get_weights()]
        mean, variance = weights[-2:]
        scale = 1 / np.sqrt(variance + self.layer.epsilon)
        scale = scale * weights[0] if self.layer.scale else scale
        shift = weights[-3] if self.layer.center else 0
        self.apply(scale, shift - mean * scale, levels=mean.max() > 1)

    def apply(self, scale: np.ndarray, shift: np.ndarray, levels: bool) -> None:
        """Scale and shift the maps: in the weights before, or else in the next ones.

        On images, `levels` says that they are levels of 0..255; ours are then in 0..1.
        """
        self.require(not self.padding, "padding must be followed by Conv2D")
        before = self.activation in ("none", "linear", "relu")
        self.require(before, f"it must not follow {self.activation}")
        scale, shift = (
            np.broadcast_to(array, self.shape).reshape(self.maps)
            for array in (scale, shift)
        )
        if self.activation == "linear":
            self.fold_after(scale, shift)
            return
        if self.affine is None:
            start = 255 if levels and not self.arrays else 1
            self.affine = np.full(self.maps, float(start)), np.zeros(self.maps)
        self.affine = self.affine[0] * scale, self.affine[1] * scale + shift

    def fold_after(self, scale: np.ndarray, shift: np.ndarray) -> None:
        """Scale and shift what the last weights return."""
        scale, shift = (array[0, 0] for array in self.find_common(scale, shift))
        negative = self.pooled and scale.min() < 0
        self.require(not negative, "a negative scale must not follow pooling")
        kernel, bias = self.arrays[-2:]
        kernel = kernel * scale[:, np.newaxis, np.newaxis, np.newaxis]
        self.arrays[-2:] = kernel, bias * scale + shift

    def find_common(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Return what is the same at each place of a map, as arrays (1, 1, C)."""
        same = all((array == array[:1, :1]).all() for array in arrays)
        self.require(same, "scale and offset must be the same all over a map")
        return [array[:1, :1] for array in arrays]
