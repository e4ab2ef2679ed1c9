"""The same network in Keras: `to_keras` hands it over, `from_keras` takes it back.

Kernels are (F, C, K_h, K_w) here and (K_h, K_w, C, F) in Keras. A hidden dense layer is
a convolution here whose kernel covers the whole map; in Keras it can be a Dense layer.
"""

from __future__ import annotations

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


def from_keras(model: keras.Model, **settings: Any) -> HandwrittenNumberClassification:
    """Return the network of a Keras model, with its parameters, as our class.

    Parameters
    ----------
    model : keras.Model
        A chain of Conv2D, MaxPooling2D, Flatten and Dense layers, as `to_keras` makes
        it, or an equivalent one. ReLU must follow every layer with weights except the
        last, and softmax the last. Dropout layers, which act only in training, are
        skipped.
    **settings
        Settings of the class other than `architecture` and `input_shape`.

    Raises
    ------
    ValueError
        If a layer cannot be converted. The message names it and gives the reason.
    """
    reader = _KerasReader(model)
    double = reader.arrays[0].dtype == np.float64
    settings.setdefault("dtype", np.float64 if double else np.float32)
    shape = tuple(model.inputs[0].shape[1:])
    network = HandwrittenNumberClassification(
        "-".join(reader.tokens), input_shape=shape, **settings
    )
    arrays = zip(network.parameters.items(), reader.arrays, strict=True)
    for (name, parameter), array in arrays:
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite; got nan or inf")
        parameter[...] = array
    return network


class _KerasReader:
    """Reads a Keras model layer by layer into the notation and our arrays.

    There is one method per kind of Keras layer, named ``read_`` and the kind.

    Attributes
    ----------
    tokens : list of str
        The layers so far, in the notation of architectures.
    arrays : list of arrays
        Their parameters, in our axes.
    padding : int
        Zero padding that the next convolution must take.
    activation : str
        The activation of the last layer with weights.
    maps : tuple of int
        Shape of the last maps, which a Flatten layer may have flattened since.
    layer, config, kind, last
        The present layer, its settings, its kind, and whether it is the last one that
        has weights.
    """

    def __init__(self, model: keras.Model) -> None:
        self.tokens: list[str] = []
        self.arrays: list[np.ndarray] = []
        self.padding, self.activation = 0, "relu"
        flow = (getattr(model, "inputs", None) or [None])[0]
        if flow is None or len(flow.shape) != 4:
            got = "no input yet" if flow is None else f"shape {flow.shape}"
            raise ValueError(f"model must take images (B, H, W, C); got {got}")
        self.maps = flow.shape[1:]
        weighted = [layer for layer in model.layers if layer.weights]
        for layer in model.layers:
            self.layer, self.config = layer, layer.get_config()
            self.kind, self.last = type(layer).__name__, layer in weighted[-1:]
            if self.kind != "InputLayer":
                in_chain = type(model).__name__ == "Sequential" or layer.input is flow
                self.require(in_chain, "it must follow the one before it")
                flow = layer.output
                getattr(self, f"read_{self.kind}", self.refuse)()
        self.require(self.activation == "softmax", "softmax must come last")
        last = len(model.outputs) == 1 and model.outputs[0] is flow
        self.require(last, "it must be the only output")

    def require(self, holds: bool, what: str) -> None:
        """Raise ValueError that names the present layer and why, unless it `holds`."""
        if not holds:
            raise ValueError(
                "model must be a chain of Conv2D, MaxPooling2D, Flatten and Dense "
                "layers that this class also has; "
                f"got {self.layer.name!r} ({self.kind}): {what}"
            )

    def refuse(self) -> None:
        """Refuse a kind of layer that this class does not have."""
        self.require(False, "there is no such layer")

    def read_Dropout(self) -> None:
        """Skip it: it does nothing in inference."""

    def read_Flatten(self) -> None:
        """Skip it: Dense finds the shape of the maps in `maps`."""
        self.require_channels_last()
        self.require(not self.padding, "padding must be followed by Conv2D")

    def read_ZeroPadding2D(self) -> None:
        """Keep the padding for the convolution that must follow."""
        self.require_channels_last()
        sides = {side for pair in self.config["padding"] for side in pair}
        self.require(len(sides) == 1, "padding must be the same on all sides")
        self.padding += sides.pop()

    def read_Conv2D(self) -> None:
        """Read a convolution; one that covers the whole map is a hidden dense layer."""
        window, stride = self.read_window("kernel_size")
        self.require(not self.last, "a Dense layer must be the last with weights")
        self.require(self.config["dilation_rate"] == (1, 1), "dilation must be 1")
        self.require(self.config["groups"] == 1, "groups must be 1")
        if self.config["padding"] == "same":
            even = stride == 1 and window[0] == window[1] and window[0] % 2 == 1
            self.require(even, "padding must be the same on all sides")
            self.padding += window[0] // 2
        kernel = self.layer.get_weights()[0]
        whole = window == self.layer.input.shape[1:3] and not self.padding
        self.require(whole or window[0] == window[1], "its window must be square")
        options = f"s{stride}" + f"p{self.padding}" * (self.padding > 0)
        token = "N" if whole else f"C{window[0]}{options}"
        self.take(f"{kernel.shape[3]}{token}", kernel.transpose(3, 2, 0, 1))
        self.padding, self.maps = 0, self.layer.output.shape[1:]

    def read_MaxPooling2D(self) -> None:
        """Read a max pooling layer."""
        window, stride = self.read_window("pool_size")
        self.require(window[0] == window[1], "its window must be square")
        self.require(self.config["padding"] == "valid", "padding must be 'valid'")
        self.require(not self.padding, "padding must be followed by Conv2D")
        self.tokens.append(f"MP{window[0]}s{stride}")
        self.maps = self.layer.output.shape[1:]

    def read_Dense(self) -> None:
        """Read a dense layer; a hidden one becomes a convolution."""
        self.require(len(self.layer.input.shape) == 2, "its input must be flattened")
        kernel = self.layer.get_weights()[0]
        units = kernel.shape[1]
        if not self.last:  # Its kernel covers the whole map.
            kernel = kernel.reshape(*self.maps, units).transpose(3, 2, 0, 1)
        self.take(f"{units}N", kernel)
        self.maps = (1, 1, units)

    def read_Activation(self) -> None:
        """Read an activation that is a layer of its own."""
        self.require(self.activation == "linear", "one activation must be enough")
        self.activation = self.config.get("activation", self.kind.lower())

    def read_ReLU(self) -> None:
        """Read a ReLU layer."""
        plain = {"max_value": None, "negative_slope": 0, "threshold": 0}
        self.require(plain.items() <= self.config.items(), "it must be plain ReLU")
        self.read_Activation()

    def read_Softmax(self) -> None:
        """Read a softmax layer."""
        self.require(self.config["axis"] == -1, "axis must be -1")
        self.read_Activation()

    def read_window(self, name: str) -> tuple[tuple[int, int], int]:
        """Return the window and the stride of the present layer."""
        self.require_channels_last()
        strides = self.config["strides"]
        self.require(strides[0] == strides[1], "its strides must be equal")
        return tuple(self.config[name]), strides[0]

    def require_channels_last(self) -> None:
        """Refuse maps in any order other than (B, H, W, C)."""
        order = self.config["data_format"]
        self.require(order == "channels_last", "data_format must be channels_last")

    def take(self, token: str, kernel: np.ndarray) -> None:
        """Add a layer to `tokens` and `arrays`; biases that it lacks are 0."""
        self.require(self.activation == "relu", "ReLU must come before it")
        self.tokens.append(token)
        biases = self.layer.get_weights()[1:]
        self.arrays += [kernel, *(biases or [np.zeros(self.layer.output.shape[-1])])]
        self.activation = self.config["activation"]
