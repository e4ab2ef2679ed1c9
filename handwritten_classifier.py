"""A convolutional neural network for handwritten digits, written by hand in NumPy.

Every step of the network and its reverse are written out, the reverse directly beside
the step, so that backpropagation can be read and checked line by line. There is one
implementation: the methods that a notebook calls step by step also train on MNIST.

The pipeline of the default network, ``8C4-MP4-10N``, for a batch of B images:

    step                        method                     shape           parameters
    --------------------------  -------------------------  --------------  ----------
    images                                                 (B, 28, 28, 1)
    convolution, 8 filters 4x4  generate_feature_map       (B, 25, 25, 8)         136
    max pooling 4x4, stride 4   generate_max_pool          (B, 6, 6, 8)
    ReLU                        relu                       (B, 6, 6, 8)
    flatten                     generate_flattened_array   (B, 288)
    dense, softmax              softmax                    (B, 10)              2,890
    cross-entropy               compute_loss               one number

and the way back, to be read upward:

    d_images (where wanted)     generate_input_loss        (B, 28, 28, 1)
    d_kernel                    generate_kernal_loss       (8, 1, 4, 4)
    d_feature_map               unpool                     (B, 25, 25, 8)
    d_pooled                    relu_gradient              (B, 6, 6, 8)
    d_flattened                 backprop_decision_making   (B, 288)

Conventions
    - B is the batch, H height, W width, C channels in, F filters (channels out), K the
      kernel's side, P the pool's, N classes, D features of the flattened array. H' and
      W' are the height and width of what a step returns. Sizes are in pixels.
    - Image tensors are (B, H, W, C), kernels (F, C, K_h, K_w). "Convolution" is
      cross-correlation. Padding adds zeros on all four sides.
    - ``d_name`` is the derivative of the loss by ``name`` and has its shape. The loss
      is the mean over the batch, in nats. Labels are integers 0..N-1 of shape (B,).
    - ReLU belongs to its convolution, and the notation lists it there. Where pooling
      follows, the network pools first, and adds the bias and applies ReLU afterwards:
      all three keep the order of any two numbers, so the result is the same, and there
      are P * P times fewer numbers to add to and to cut off.
    - In memory, the batch is the innermost axis: a tensor (B, H, W, C) is a transposed
      view of an array (C, H, W, B). A row of a window, taken from all images, is then
      one contiguous run, and the patches of a batch are a matrix that the kernels
      multiply from the left. Any other order gives the same numbers, more slowly.

Sources, with their sections
    LeCun et al., Gradient-based learning applied to document recognition, 1998 (II,
    III): the network, MNIST. Goodfellow et al., Deep Learning, 2016 (6.5, 9.5): the
    gradients. Ciresan et al., Multi-column deep neural networks, 2012 (table 1): the
    notation. He et al., Delving deep into rectifiers, 2015 (2.2): the initial weights.
    Sutskever et al., Initialization and momentum, 2013 (2): Nesterov momentum. Szegedy
    et al., Rethinking the Inception architecture, 2016 (7): label smoothing. Smith,
    arXiv:1803.09820, 2018 (4): the one-cycle learning rate.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import operator
import os
import re
import signal
import sys
import threading
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np

Array, Sizes = np.ndarray, tuple[int, ...]  # in signatures


class HandwrittenNumberClassification:
    """A convolutional network that reads handwritten digits.

    The same machine, library versions, seed and calls of `fit` give the same bits on
    any number of cores. With threadpoolctl, as many compute as BLAS may have threads.
    One model can predict in several threads.

    Parameters
    ----------
    architecture : str, default "8C4-MP4-10N"
        Layers joined by ``-``. ``8C4``: 8 filters of 4x4, then ReLU; ``MP4``: max
        pooling with window 4 and stride 4; ``10N``: dense, 10 outputs, softmax, always
        last. ``8C3s2p1`` has stride 2 and zero padding 1, ``MP3s2`` window 3 and stride
        2. ``128N`` before the last layer is a hidden dense layer with ReLU, built as
        what it is: a convolution whose kernel covers the whole map.
    input_shape : (int, int, int), default (28, 28, 1)
        Height, width (pixels) and channels of one image.
    epochs, batch_size, verbose : int, default 1, 32 and 1
        Passes over the images in one `fit`; images in one step; 0 makes `fit` silent.
    lr, momentum, weight_decay : float, default 0.01, 0.0 and 0.0
        Learning rate, above 0; Nesterov momentum, at least 0 and below 1; L2 penalty,
        at least 0: adds ``weight_decay * w`` to gradients, not of biases.
    schedule : {"constant", "one-cycle"}, default "constant"
        Learning rate over a `fit`. One-cycle: linearly up to `lr` over the first 30 %
        of the steps, then linearly down to zero (Smith 2018, section 4).
    augment : bool or float, default False
        Strength of `distort` for the training images, anew in every epoch; True is 1.
    seed : int, default 0
        Of the one random generator: initial weights, then shuffling and distortions.
    dtype : {np.float32, np.float64}, default np.float32
        Precision of the parameters and of all arithmetic.
    label_smoothing, averaging : float, default 0.0
        Share, below 1, of the target that is spread over all classes (`compute_loss`),
        and of the steps of a `fit` with whose mean parameters it ends.

    Attributes
    ----------
    kernels, biases : lists of arrays of shape (F, C, K_h, K_w) and (F,), in order
    W_dense, B_dense : arrays of shape (D, N) and (N,), of the last layer
    parameters, velocity : dicts of str to array
        The same arrays by name: ``"kernels.0", "biases.0", ..., "W_dense", "B_dense"``;
        by the same names, the last step of each, which momentum repeats in part.
    binary_max_pool : bool array of shape (B, H', W', F, P, P) or None
        The mask of the last `generate_max_pool` that was called by itself.
    history : dict of str to list
        One entry an epoch: ``loss`` (nats), ``accuracy`` (0..1), ``seconds`` and, with
        validation data, ``val_loss, val_accuracy`` (None for epochs without).
    layers : list of SimpleNamespace
        Each layer: token, kind, window, map shapes, parameters, multiply-adds.
    rate, metadata : float and dict
        Learning rate of the last step; what JSON can hold, and is saved as well.
    """

    # ---------------------------------------------------------------- Construction

    def __init__(
        self,
        architecture: str = "8C4-MP4-10N",
        *,
        input_shape: tuple[int, int, int] = (28, 28, 1),
        epochs: int = 1,
        batch_size: int = 32,
        lr: float = 0.01,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        schedule: str = "constant",
        augment: bool | float = False,
        seed: int = 0,
        dtype: Any = np.float32,
        label_smoothing: float = 0.0,
        averaging: float = 0.0,
        verbose: int = 1,
    ) -> None:
        settings = dict(locals())  # Each becomes the attribute of its name.
        del settings["self"]
        vars(self).update(settings)
        self._check_settings()
        self.layers = self._read_architecture(architecture, input_shape)
        self._steps = self._order_steps()
        self._read_size = self._find_read_size()
        self._draw_parameters()
        self.classes_ = np.arange(len(self.B_dense))
        self.history = {"loss": [], "accuracy": [], "seconds": []}
        self.binary_max_pool: Array | None = None
        self._pooled_from: tuple = (None, None)
        self.metadata: dict[str, Any] = {}
        self._work = _WorkArrays()
        self._run: _Run | None = None
        self.rate, self._warned = 0.0, False
        self._in_force = self._present()
        self._network = (architecture, tuple(input_shape), seed, np.dtype(dtype))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings by name, as in scikit-learn (`deep` changes nothing)."""
        return {name: getattr(self, name) for name in _defaults(type(self))}

    def _present(self):
        """Return the settings of this class alone, as the attributes have them."""
        return {n: getattr(self, n) for n in _defaults(HandwrittenNumberClassification)}

    def _take_up_changes(self):
        """Let attributes that were assigned count as settings, as in `set_params`."""
        if self._present() != self._in_force:
            self.set_params()

    def set_params(self, **settings: Any) -> HandwrittenNumberClassification:
        """Change settings: all of them or, where one is wrong, none.

        A new `architecture`, `input_shape`, `seed` or `dtype` makes a new network. The
        others keep what was learned, but an interrupted `fit` does not go on. Whatever
        takes images takes up attributes that were assigned, too.
        """
        present, old = self.get_params(), self._in_force
        for name in settings.keys() - present.keys():
            raise _wrong("settings", f"be among {list(present)}", repr(name))
        renewed = type(self)(**(present | settings))
        same_network = renewed._network == self._network
        vars(self).update(settings if same_network else vars(renewed))
        self._in_force = renewed._present()
        if old | {"verbose": 0} != self._in_force | {"verbose": 0}:
            self._run = None
        return self

    @property
    def parameters(self) -> dict[str, Array]:
        """The learned arrays by name, in order; not copies."""
        arrays = {}
        for index, pair in enumerate(zip(self.kernels, self.biases, strict=True)):
            arrays[f"kernels.{index}"], arrays[f"biases.{index}"] = pair
        return arrays | {"W_dense": self.W_dense, "B_dense": self.B_dense}

    def _trained_arrays(self):
        """Return parameters and velocity by name: all arrays that a step changes."""
        velocity = {f"velocity.{name}": v for name, v in self.velocity.items()}
        return self.parameters | velocity

    def _bias_names(self):
        """Return the names of all biases, those of the last layer included."""
        return [name for name, array in self.parameters.items() if array.ndim == 1]

    # ---------------------------------------------------------------- The notation

    MOST = 100_000_000  # weights, or numbers in maps and patches for one image
    _MOST_LAYERS = 200
    _TOKEN = re.compile(
        r"(?P<filters>[1-9]\d{0,5})C(?P<kernel>[1-9]\d{0,5})"
        r"(s(?P<stride>[1-9]\d{0,5}))?(p(?P<padding>\d{1,6}))?"
        r"|MP(?P<pool>[1-9]\d{0,5})(s(?P<step>[1-9]\d{0,5}))?"
        r"|(?P<units>[1-9]\d{0,5})N",
        re.ASCII,
    )

    @classmethod
    def _read_architecture(cls, architecture, input_shape):
        """Parse the notation into layers, each fitted to the map before it."""
        layers, shape = [], tuple(map(operator.index, input_shape))
        tokens = architecture.split("-")
        if len(tokens) > cls._MOST_LAYERS:
            required = f"have at most {cls._MOST_LAYERS} layers"
            raise _wrong("architecture", required, f"{len(tokens):,}")
        for position, token in enumerate(tokens, start=1):
            got = f"{token!r} at position {position}, on a map of {_times(shape)}"
            found = cls._TOKEN.fullmatch(token)
            if found is None:
                known = "join layers like 8C4, 8C3s2p1, MP2, MP3s2 and 10N by '-'"
                if re.fullmatch(cls._TOKEN.pattern, token, re.IGNORECASE | re.ASCII):
                    got += ": write capitals, as in 8C5-MP2-10N"
                raise _wrong("architecture", known, got)
            if position == len(tokens) and not found["units"]:
                raise _wrong("architecture", "end in a dense layer like 10N", got)
            try:
                layers.append(cls._read_layer(found, shape, position == len(tokens)))
            except ValueError:
                required = "fit each window to its map"
                raise _wrong("architecture", required, got) from None
            layer, numbers = layers[-1], sum(layer.numbers for layer in layers)
            shape = layer.output_shape
            if 0 < layer.window[0] <= layer.padding:
                required = "pad by less than a window, which would see only zeros"
                raise _wrong("architecture", required, got)
            if max(sum(la.parameters for la in layers), numbers) > cls.MOST:
                required = f"need at most {cls.MOST:,} weights or numbers an image"
                raise _wrong("architecture", required, f"more with {got}")
        return layers

    @staticmethod
    def _read_layer(found, shape, last):
        """Turn one token into a layer whose input is a map of `shape` (H, W, C)."""
        window, stride, padding, channels = shape[:2], 1, 0, shape[2]
        side = found["kernel"] or found["pool"]
        if side:
            window, padding = (int(side), int(side)), int(found["padding"] or 0)
            stride = int(found["stride"] or found["step"] or found["pool"] or 1)
        filters = int(found["filters"] or found["units"] or channels)
        rows, columns = _fit_windows("map", shape[:2], window, stride, padding)
        weights = 0 if found["pool"] else filters * channels * math.prod(window)
        return SimpleNamespace(
            token=found[0],
            kind="pooling" if found["pool"] else "dense" if last else "convolution",
            name="dense, as convolution" if found["units"] else "convolution",
            window=window,
            stride=stride,
            padding=padding,
            input_shape=shape,
            output_shape=(rows, columns, filters),
            parameters=weights + filters if weights else 0,
            multiply_adds=weights * rows * columns,
            numbers=rows * columns * (filters + math.prod(window) * channels),
        )

    def _order_steps(self):
        """List the steps before the last layer: (kind, layer, index of its kernel)."""
        # Bias and ReLU wait until the pooling behind their convolution is done.
        steps, waiting, index = [], [], -1
        for layer in self.layers[:-1]:
            if layer.kind == "convolution":
                index += 1
                steps += [*waiting, ("convolution", layer, index)]
                waiting = [("ReLU", layer, index)]
            else:
                steps.append(("pooling", layer, index))
        return steps + waiting

    def _find_read_size(self):
        """Return (H, W) of what is read of an image; the rest fills no window."""
        read = np.array([1, 1])
        for layer in reversed(self.layers):
            read = (read - 1) * layer.stride + layer.window
            if layer.padding:  # Its frame belongs around the whole map.
                read = np.array(layer.input_shape[:2])
        return tuple(map(int, read))

    def _draw_parameters(self):
        """Draw normal weights of variance 2 / inputs (He et al. 2015); biases are 0."""
        self._generator = np.random.default_rng(self.seed)
        self.kernels, self.biases = [], []
        for layer in self.layers:
            if layer.kind == "pooling":
                continue
            channels, outputs = layer.input_shape[2], layer.output_shape[2]
            inputs, dense = math.prod(layer.window) * channels, layer.kind == "dense"
            shape = (inputs, outputs) if dense else (outputs, channels, *layer.window)
            # In double precision: both precisions then start from the same point.
            weights = self._generator.normal(0.0, math.sqrt(2 / inputs), shape)
            self.kernels.append(weights.astype(self.dtype))
            self.biases.append(np.zeros(outputs, self.dtype))
        self.W_dense, self.B_dense = self.kernels.pop(), self.biases.pop()
        self.velocity = {name: np.zeros_like(p) for name, p in self.parameters.items()}
        self._initial = zlib.crc32(self.W_dense.tobytes())

    # ---------------------------------------------------------------- Doors

    def _check_settings(self):
        """Raise if a setting is wrong."""
        if not isinstance(self.architecture, str):
            raise _wrong("architecture", "be a str", repr(self.architecture), TypeError)
        shape = self.input_shape
        if not isinstance(shape, (tuple, list)) or len(shape) != 3:
            raise _wrong("input_shape", "be (H, W, C)", repr(shape))
        for size in shape:
            _check_integer("input_shape", size, 1)
        for name in ("epochs", "batch_size"):
            _check_integer(name, getattr(self, name), 1)
        _check_integer("seed", self.seed, 0, 2**64)
        _check_number("lr", self.lr, "above 0", lambda lr: lr > 0)
        for name in ("momentum", "label_smoothing", "averaging"):
            value, required = getattr(self, name), "at least 0 and below 1"
            _check_number(name, value, required, lambda share: 0 <= share < 1)
        _check_number("weight_decay", self.weight_decay, "at least 0", lambda w: w >= 0)
        if self.schedule not in ("constant", "one-cycle"):
            known, got = "be 'constant' or 'one-cycle'", repr(self.schedule)
            raise _wrong("schedule", known, got)
        if not isinstance(self.augment, (bool, np.bool_)):
            _check_number("augment", self.augment, *_STRENGTH)
        known = False
        with suppress(TypeError):
            known = np.dtype(self.dtype or object) in (np.float32, np.float64)
        if not known:
            raise _wrong("dtype", "be float32 or float64", repr(self.dtype))

    def check_images(self, images: Array, name: str = "images") -> Array:
        """Return `images` as (B, H, W, C), uncopied, or raise what is wrong."""
        self._take_up_changes()
        given, images, shape = images, np.asarray(images), tuple(self.input_shape)
        if images.dtype == object:
            got = f"a {type(given).__name__}: collect its batches, for example as "
            got += "np.concatenate([np.asarray(images) for images, labels in it])"
            raise _wrong(name, "be an array of numbers", got, TypeError)
        if images.shape[1:] == shape[:2] and shape[2] == 1:
            images = images[..., np.newaxis]
        if images.ndim != 4 or images.shape[1:] != shape:
            array = "images" if isinstance(given, Array) else "np.asarray(images)"
            got = f"{images.shape}{_shape_hint(images.shape, shape, array)}"
            raise _wrong(name, f"have shape (B, {', '.join(map(str, shape))})", got)
        if len(images) == 0:
            raise _wrong(name, "hold at least one", f"shape {images.shape}")
        self._check_values(images, name)
        return images

    def _check_values(self, images, name):
        """Raise if a value is not a finite number; warn of another scale than 0..1."""
        kind, largest = images.dtype.kind, 0.0
        if images.dtype != np.uint8 and kind != "f":
            hint = "images.astype(np.uint8)" + " * 255" * (kind == "b")
            hint = f": pass {hint}, if they are 0..{1 if kind == 'b' else 255}"
            got = f"dtype {images.dtype}{hint * (kind in 'biu')}"
            raise _wrong(name, "be uint8 or floats", got, TypeError)
        for start in range(0, len(images), 1024):  # in parts, as images may be many
            part = images[start : start + 1024]
            size = part.max() if kind == "u" else max(-part.min(), part.max())
            if not size <= np.finfo(self.dtype).max:
                got = "nan, inf or too large a number in images "
                got += f"{start}:{start + len(part)}"
                raise _wrong(name, f"hold finite {np.dtype(self.dtype)} numbers", got)
            largest = max(largest, float(size))
            if kind == "u" and largest > 1:
                return
        scale, least = ("0..255", 1) if kind == "u" else ("about 0..1", 0.05)
        if largest > 10 or 0 < largest <= least:
            what = f"{name} should be scaled to {scale}; got values up to {largest:g}"
            remedy = "divide by 255, or pass the uint8 images as they are"
            remedy = remedy if largest > 10 else "they are 255 times too small"
            warnings.warn(f"{what}: {remedy}", stacklevel=5)

    def _check_labels(self, labels, count, classes, name="labels"):
        """Return `labels` as an array of shape (B,) once each of them names a class."""
        if self._work.arrays is not None:
            return labels  # The network's own were checked at its doors.
        labels = np.asarray(labels)
        if labels.shape != (count,):
            columns = labels.ndim == 2 and labels.shape[1]
            hint = ", as labels.argmax(axis=1) of one-hot rows" if columns > 1 else ""
            hint = ", as labels.ravel()" if columns == 1 else hint
            raise _wrong(name, f"have shape ({count},){hint}", labels.shape)
        if count == 0:
            raise _wrong(name, "hold at least one", labels.shape)
        if labels.dtype.kind not in "iu":
            got = f"dtype {labels.dtype}: pass labels.astype(int), if they are digits"
            raise _wrong(name, "be integers", got, TypeError)
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            got = f"{low if low < 0 else high}"
            if low >= 1 and high == classes:
                got += f": labels of 1..{classes} need 1 subtracted, as in labels - 1"
            elif low >= 0:
                got += f": an architecture for them ends in {high + 1}N"
            raise _wrong(name, f"be in 0..{classes - 1}", got)
        return labels

    def check_examples(
        self, images: Array, labels: Array, kind: str = ""
    ) -> tuple[Array, Array]:
        """Return images (B, H, W, C) and labels (B,), or raise what is wrong."""
        shapes = np.shape(images), np.shape(labels)
        if len(shapes[0]) == 1 and len(shapes[1]) > 2:
            got = f"shapes {shapes[0]} and {shapes[1]}: exchange the two"
            raise _wrong(f"{kind}images", f"come before {kind}labels", got)
        images = self.check_images(images, f"{kind}images")
        count, classes = len(images), len(self.B_dense)
        return images, self._check_labels(labels, count, classes, f"{kind}labels")

    def _check_tensor(self, name, tensor, axes):
        """Return a step's argument as floats once it has one axis for each name."""
        if self._work.arrays is not None:
            return tensor  # The network's own.
        tensor = np.asarray(tensor)
        if tensor.ndim != len(axes.split()):
            raise _wrong(name, f"have axes ({axes})", f"shape {tensor.shape}")
        if tensor.dtype.kind not in "fiub":
            raise _wrong(name, "be numbers", f"dtype {tensor.dtype}", TypeError)
        return tensor if tensor.dtype.kind == "f" else tensor.astype(self.dtype)

    # ---------------------------------------------------------------- Convolution

    def generate_patches(
        self, images: Array, kernel_size: int | Sizes, stride: int = 1, padding: int = 0
    ) -> Array:
        """Copy what the window sees at each place into a column: (C*K_h*K_w, H'*W'*B).

        With these a convolution is one matrix product (Chellapilla et al.: High
        performance convolutional neural networks for document processing, 2006).
        """
        images = self._check_tensor("images", images, "B H W C")
        window = _pair("kernel_size", kernel_size)
        counts = _fit_windows("images", images.shape[1:3], window, stride, padding)
        batch, *_, channels = images.shape
        if padding:
            around = (0, 0), (padding, padding), (padding, padding), (0, 0)
            images = np.pad(images.transpose(3, 1, 2, 0), around).transpose(3, 1, 2, 0)
        windows = _windows(images, window, stride, counts).transpose(2, 0, 1, 3, 4, 5)
        size = (channels * math.prod(window), math.prod(counts) * batch)
        patches = self._matrix(*size, images.dtype)
        np.copyto(patches.reshape(windows.shape), windows)
        return patches

    def generate_feature_map(
        self,
        images: Array,
        kernel: Array,
        bias: Array | None = None,
        stride: int = 1,
        padding: int = 0,
        patches: Array | None = None,
    ) -> Array:
        """Convolve the images with the kernels: the feature map, (B, H', W', F).

        ``map[b,y,x,f] = bias[f] + sum kernel[f,c,i,j] * images[b, s*y+i, s*x+j, c]``,
        summed over c, i and j, with the stride s. As a matrix product: the kernels, one
        a row, by the patches, one a column. Takes arrays of shape (B, H, W, C),
        (F, C, K_h, K_w) and (F,), and what `generate_patches` made of the images.
        """
        images = self._check_tensor("images", images, "B H W C")
        kernel = self._check_tensor("kernel", kernel, "F C K_h K_w")
        filters, channels, *window = kernel.shape
        batch, height, width, _ = images.shape
        _check_shape("kernel", kernel, (filters, images.shape[3], *window))
        rows, columns = _fit_windows("images", (height, width), window, stride, padding)
        if patches is None:
            patches = self.generate_patches(images, window, stride, padding)
        kernel = kernel.reshape(filters, channels * math.prod(window))
        dtype = np.result_type(kernel, patches)
        feature_map = self._array((filters, rows * columns * batch), dtype)
        np.matmul(kernel, patches, out=feature_map)
        if bias is not None:
            bias = self._check_tensor("bias", bias, "F")
            _check_shape("bias", bias, (filters,))
            feature_map = feature_map + bias[:, np.newaxis]
        return feature_map.reshape(filters, rows, columns, batch).transpose(3, 1, 2, 0)

    def generate_kernal_loss(
        self,
        images: Array,
        d_feature_map: Array,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        patches: Array | None = None,
    ) -> Array:
        """Derive the loss by the kernel of a convolution: d_kernel, (F, C, K_h, K_w).

        Forward, ``map = kernel @ patches``; hence ``d_kernel = d_map @ patches.T``:
        over all places and images, each weight sums what it was multiplied with times
        the derivative of the product. The bias's gradient is the sum of d_map.
        Takes (B, H, W, C) and (B, H', W', F), K or (K_h, K_w), the rest as forward.
        """
        images = self._check_tensor("images", images, "B H W C")
        d_feature_map = self._check_tensor("d_feature_map", d_feature_map, "B H' W' F")
        window = _pair("kernel_size", kernel_size)
        batch, height, width, channels = images.shape
        counts = _fit_windows("images", (height, width), window, stride, padding)
        filters = d_feature_map.shape[3]
        _check_shape("d_feature_map", d_feature_map, (batch, *counts, filters))
        if patches is None:
            patches = self.generate_patches(images, window, stride, padding)
        d_map = d_feature_map.transpose(3, 1, 2, 0).reshape(filters, patches.shape[1])
        d_kernel = (patches @ d_map.T).T  # sooner than d_map @ patches.T
        return d_kernel.reshape(filters, channels, *window)

    def generate_input_loss(
        self,
        d_feature_map: Array,
        kernel: Array,
        input_shape: tuple[int, int],
        stride: int = 1,
        padding: int = 0,
    ) -> Array:
        """Derive the loss by the input of a convolution: d_images, (B, H, W, C).

        Forward, ``map = kernel @ patches``; hence ``d_patches = kernel.T @ d_map``. A
        pixel stands in several patches, and its derivative is the sum over them. This
        is what lets convolutions be stacked. Takes arrays of shape (B, H', W', F) and
        (F, C, K_h, K_w), the input's (H, W), and the rest as in the forward step.
        """
        d_feature_map = self._check_tensor("d_feature_map", d_feature_map, "B H' W' F")
        kernel = self._check_tensor("kernel", kernel, "F C K_h K_w")
        filters, channels, *window = kernel.shape
        height, width = _pair("input_shape", input_shape)
        counts = _fit_windows("input_shape", (height, width), window, stride, padding)
        padding = operator.index(padding)
        batch = d_feature_map.shape[0]
        _check_shape("d_feature_map", d_feature_map, (batch, *counts, filters))
        d_map = d_feature_map.transpose(3, 1, 2, 0)
        d_map = d_map.reshape(filters, math.prod(counts) * batch)
        kernel = kernel.reshape(filters, channels * math.prod(window))
        dtype = np.result_type(kernel, d_map)
        d_patches = self._matrix(kernel.shape[1], d_map.shape[1], dtype)
        np.matmul(kernel.T, d_map, out=d_patches)
        d_windows = d_patches.reshape(channels, *window, *counts, batch)
        size = (height + 2 * padding, width + 2 * padding)
        d_frame = self._tensor((batch, *size, channels), dtype)
        d_frame.fill(0)
        places = _windows(d_frame, window, stride, counts)
        for i, j in np.ndindex(*window):
            places[i, j] += d_windows[:, i, j]
        return d_frame[:, padding : padding + height, padding : padding + width]

    # ---------------------------------------------------------------- ReLU and pooling

    def relu(self, x: Array, out: Array | None = None) -> Array:
        """Return ``max(x, 0)``, for an array of any shape; in `out`, as in NumPy."""
        return np.maximum(x, 0, out=out)

    def relu_gradient(
        self, d_output: Array, x: Array, out: Array | None = None
    ) -> Array:
        """Pass `d_output` on where ReLU's input `x` was positive; at 0 it is 0.

        ReLU's output can stand for its input: they are positive at the same places.
        """
        d_output, x = np.asarray(d_output), np.asarray(x)
        _check_shape("d_output", d_output, x.shape)
        return np.multiply(d_output, x > 0, out=out)

    def generate_max_pool(
        self,
        feature_map: Array,
        pool_size: int = 2,
        stride: int | None = None,
        with_mask: bool = True,
        masks: list[Array] | None = None,
    ) -> Array:
        """Keep the maximum of each window, (B, H', W', F), and where it stood.

        A map of 4x4 under windows of 2x2, and a gradient a, b, c, d on its way back::

            feature_map     pooled     binary_max_pool     d_pooled     unpooled
            1 3 | 2 2       3 2          . X | X .           a b         0 a | b 0
            0 1 | 2 1                    . . | . .                       0 0 | 0 0
            ----+----                    ----+----                       ----+----
            5 0 | 0 0       5 4          X . | . .           c d         c 0 | 0 0
            2 5 | 0 4                    . . | . X                       0 0 | 0 d

        The mask is `binary_max_pool`, bool of shape (B, H', W', F, P, P). Of equal
        maxima the first in row-major order wins. What fills no window is left out.

        `feature_map` is (B, H, W, F), `pool_size` P, and `stride` P where it is left
        out. Only the way back needs the mask; `masks` is a list that gets it in place
        of the model, which several threads may share.
        """
        feature_map = self._check_tensor("feature_map", feature_map, "B H W F")
        window = _pair("pool_size", (pool_size, pool_size))
        stride = pool_size if stride is None else stride
        batch, height, width, filters = feature_map.shape
        counts = _fit_windows("feature_map", (height, width), window, stride)
        places = _windows(feature_map, window, stride, counts)
        first, *others = (place for row in places for place in row)
        pooled = self._tensor((batch, *counts, filters), feature_map.dtype)
        mask = self._array((*window, filters, *counts, batch), bool)
        undecided, *wins = mask.reshape(math.prod(window), *mask.shape[2:])
        # Numbers lie scattered in the map. To copy them out first, and then compare,
        # takes little more than half the time.
        largest = pooled.transpose(3, 1, 2, 0)
        rivals = self._array(largest.shape, largest.dtype)
        np.copyto(largest, first)
        for place, won in zip(others, wins, strict=True):
            np.copyto(rivals, place)
            if with_mask:
                np.greater(rivals, largest, out=won)
            np.maximum(rivals, largest, out=largest)
        if not with_mask:
            return pooled
        # The mask now marks every number that was larger than all before it. The last
        # of these has won; if there is none, the first number has.
        undecided.fill(True)
        for won in reversed(wins):
            won &= undecided
            undecided ^= won
        mask = mask.transpose(5, 3, 4, 2, 0, 1)
        if masks is None:
            self.binary_max_pool = mask
            self._pooled_from = (operator.index(stride), (height, width))
        else:
            masks.append(mask)
        return pooled

    def unpool(
        self,
        d_pooled: Array,
        mask: Array | None = None,
        stride: int | None = None,
        output_shape: Sizes | None = None,
    ) -> Array:
        """Send each gradient back to the place of its window's maximum: (B, H, W, F).

        Elsewhere it is zero; the winner of several windows gets their sum. Takes
        d_pooled of shape (B, H', W', F), the mask, the stride and the map's (H, W) or
        whole shape. What is left out is that of the last `generate_max_pool`.
        """
        mask, stride, size = self._recall_pooling(mask, stride, output_shape)
        d_pooled = self._check_tensor("d_pooled", d_pooled, "B H' W' F")
        _check_shape("d_pooled", d_pooled, mask.shape[:4])
        batch, rows, columns, filters, *window = mask.shape
        d_feature_map = self._tensor((batch, *size, filters), d_pooled.dtype)
        places = _windows(d_feature_map, window, stride, (rows, columns))
        mask = mask.transpose(4, 5, 3, 1, 2, 0).view(np.int8)  # sooner a float
        d_pooled = d_pooled.transpose(3, 1, 2, 0)
        if (rows * stride, columns * stride) != size or stride != window[0]:
            d_feature_map.fill(0)  # Else every place is written below.
        if stride < window[0] and max(rows, columns) > 1:
            for i, j in np.ndindex(*window):
                places[i, j] += d_pooled * mask[i, j]
        else:  # Each place belongs to one window: written once, without a sum.
            np.multiply(d_pooled, mask, out=places)
        return d_feature_map

    def _recall_pooling(self, mask, stride, output_shape):
        """Return mask, stride and the map's (H, W), by default of the last pooling."""
        if self._work.arrays is not None:
            return mask, stride, output_shape  # The network's own.
        mask = self.binary_max_pool if mask is None else mask
        stride = self._pooled_from[0] if stride is None else stride
        size = self._pooled_from[1] if output_shape is None else output_shape
        if mask is None or stride is None or size is None:
            required = "be given before any generate_max_pool"
            raise _wrong("mask, stride and output_shape", required, None)
        mask = np.asarray(mask)
        if mask.ndim != 6 or mask.dtype != bool or mask.shape[4] != mask.shape[5]:
            required, got = "be bool with axes (B H' W' F P P)", mask.dtype
            raise _wrong("mask", required, f"{got} of shape {mask.shape}")
        batch, *counts, filters, _, side = mask.shape
        if np.shape(size) == (4,) and tuple(size)[::3] == (batch, filters):
            size = size[1:3]
        size = _pair("output_shape", size)
        if _fit_windows("output_shape", size, (side, side), stride) != tuple(counts):
            windows = f"{_times(counts)} windows {side}x{side}, stride {stride}"
            required = f"be that of a map with {windows}"
            raise _wrong("output_shape", required, output_shape)
        return mask, operator.index(stride), size

    # ---------------------------------------------------------------- The dense layer

    def generate_flattened_array(self, pooled: Array) -> Array:
        """Write each image's maps, (B, H, W, F), into one row, (B, H * W * F).

        The reverse is ``d_flattened.reshape(pooled.shape)``.
        """
        pooled = self._check_tensor("pooled", pooled, "B H W F")
        batch, *features = pooled.shape
        return pooled.transpose(1, 2, 3, 0).reshape(math.prod(features), batch).T

    def softmax(self, scores: Array) -> Array:
        """Turn rows of scores, (B, N), into probabilities: ``exp(s) / sum exp(s)``.

        Subtracting a row's maximum changes no quotient, and no power overflows.
        """
        scores = self._check_tensor("scores", scores, "B N")
        with np.errstate(over="ignore"):  # to -inf, whose power is 0
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def compute_loss(self, probabilities: Array, labels: Array) -> float:
        """Return the cross-entropy: mean ``-log(probability of the label)``, in nats.

        Takes arrays of shape (B, N) and (B,). A probability of 0 counts as the smallest
        normal number. With `label_smoothing` s, the target is
        ``(1 - s) one_hot(label) + s / N``: a network that is not asked for certainty
        learns faster and reads better (Szegedy et al. 2016, section 7).
        """
        probabilities = self._check_tensor("probabilities", probabilities, "B N")
        labels = self._check_labels(labels, *probabilities.shape)
        smallest, smoothing = np.finfo(probabilities.dtype).tiny, self.label_smoothing
        logs = np.log(np.maximum(probabilities, smallest))
        of_labels = (1 - float(smoothing)) * logs[np.arange(len(labels)), labels]
        return -float((of_labels + float(smoothing) * logs.mean(axis=1)).mean())

    def backprop_decision_making(
        self, flattened: Array, probabilities: Array, labels: Array
    ) -> tuple[Array, Array, Array]:
        """Go back from the loss through softmax and the dense layer.

        Forward, ``scores = flattened @ W_dense + B_dense``. Through cross-entropy and
        softmax together, ``d_scores = (probabilities - targets) / B`` (Goodfellow et
        al. 2016, section 6.2.2.3), with the targets of `compute_loss`. Takes arrays of
        shape (B, D), (B, N) and (B,); returns d_W_dense (D, N), d_B_dense (N,) and
        d_flattened (B, D).
        """
        flattened = self._check_tensor("flattened", flattened, "B D")
        probabilities = self._check_tensor("probabilities", probabilities, "B N")
        batch, classes = probabilities.shape
        labels = self._check_labels(labels, batch, classes)
        _check_shape("probabilities", probabilities, (batch, len(self.B_dense)))
        _check_shape("flattened", flattened, (batch, len(self.W_dense)))
        smoothing = float(self.label_smoothing)
        d_scores = probabilities - smoothing / classes
        d_scores[np.arange(batch), labels] -= 1 - smoothing
        d_scores /= batch
        d_flattened = (self.W_dense @ d_scores.T).T
        return flattened.T @ d_scores, d_scores.sum(axis=0), d_flattened

    # ---------------------------------------------------------------- The whole network

    def forward(self, images: Array) -> Array:
        """Return the probabilities, (B, N), of one batch of images, in one go."""
        images = self.check_images(images)
        with holding_back_interrupts(), self._at_work():
            return self._forward(self._batch(images))[0]

    def compute_gradients(self, images: Array, labels: Array) -> tuple[float, dict]:
        """Return a batch's loss and its derivatives, by name, shaped as parameters."""
        images, labels = self.check_examples(images, labels)
        with holding_back_interrupts(), self._at_work():
            probabilities, gradients = self._backward(self._batch(images), labels)
        return self.compute_loss(probabilities, labels), gradients

    def _forward(self, images, with_masks=True, watch=lambda *_: None):
        """Return the probabilities and, of each step, what its reverse needs.

        `watch` is called with (kind, layer, array, what is kept) after every step.
        """
        x, trace = images, []
        for kind, layer, index in self._steps:
            window, spacing = layer.window, (layer.stride, layer.padding)
            if kind == "convolution":
                # Made once, for this product and for that of the kernel's gradient.
                patches = self.generate_patches(x, window, *spacing)
                kept, kernel = (x, patches), self.kernels[index]
                x = self.generate_feature_map(x, kernel, None, *spacing, patches)
            elif kind == "pooling":
                size, masks, pool = x.shape[1:3], [], (window[0], layer.stride)
                x = self.generate_max_pool(x, *pool, with_masks, masks)
                kept = *masks, layer.stride, size
            else:
                # In place: not even the way back needs what was there before.
                x += self.biases[index]
                x = self.relu(x, out=x)
                kept = (x,)
            trace.append((kind, layer, index, kept))
            watch(kind, layer, x, kept)
        flattened = self.generate_flattened_array(x)
        kept = x.shape, flattened
        trace.append(("flatten", self.layers[-1], None, kept))
        watch(*trace[-1][:2], flattened, kept)
        scores = flattened @ self.W_dense + self.B_dense
        watch("scores", self.layers[-1], scores, kept)
        return self.softmax(scores), trace

    def _backward(self, images, labels, watch=lambda *_: None):
        """Go forward, then the same way back; return probabilities and gradients.

        `watch` is called with (kind, layer, gradient) after every step back.
        """
        probabilities, trace = self._forward(images)
        gradients = dict.fromkeys(self.parameters)
        for kind, layer, index, kept in reversed(trace):
            window, spacing = layer.window, (layer.stride, layer.padding)
            if kind == "flatten":
                shape, flattened = kept
                gradients["W_dense"], gradients["B_dense"], d_flattened = (
                    self.backprop_decision_making(flattened, probabilities, labels)
                )
                d = d_flattened.reshape(shape)
            elif kind == "ReLU":
                d = self.relu_gradient(d, *kept, out=d)
                gradients[f"biases.{index}"] = d.sum(axis=(0, 1, 2))
            elif kind == "pooling":
                d = self.unpool(d, *kept)
            else:
                x, patches = kept
                d_kernel = self.generate_kernal_loss(x, d, window, *spacing, patches)
                gradients[f"kernels.{index}"] = d_kernel
                watch("kernel", layer, d_kernel)
                if index == 0:  # Nothing below the first convolution is learned.
                    break
                kernel, size = self.kernels[index], x.shape[1:3]
                d = self.generate_input_loss(d, kernel, size, *spacing)
            watch(kind, layer, d)
        return probabilities, gradients

    # ---------------------------------------------------------------- Distortions

    # The random numbers of `distort` at strength 1 go up to these, with both signs.
    _ROTATION = math.radians(8)
    _SCALING, _SHEAR = 0.1, 0.1  # of the image's size, of one axis by the other
    _SHIFT = 1.5  # pixels
    _ELASTIC = 20  # pixels, before the field is smoothed

    def distort(
        self,
        images: Array,
        strength: float = 1.0,
        generator: np.random.Generator | None = None,
    ) -> Array:
        """Distort each image at random, as if another hand had written it.

        Each is rotated, scaled, sheared and shifted at random, and resampled along a
        smooth random field (elastic distortion; Simard, Steinkraus, Platt: Best
        practices for convolutional neural networks applied to visual document analysis,
        2003). Takes images as `fit` does; returns floats of shape (B, H, W, C).

        At `strength` 1 (of 0 to 10) rotation goes up to 8 degrees, scaling and shear up
        to a tenth, shifts up to 1.5 pixels, and the field moves a pixel by about 0.8
        (standard deviation, on each axis). `generator` may be a seed.
        """
        images = self.check_images(images)
        _check_number("strength", strength, *_STRENGTH)
        generator = np.random.default_rng(self.seed if generator is None else generator)
        batch, height, width, _ = images.shape
        drawn = generator.random((batch, 6 + 2 * height * width), np.float32)
        drawn -= 0.5
        drawn *= 2 * float(strength)  # from -strength to strength
        drawn = drawn.T.astype(self.dtype, order="C")
        angle, slant = self._ROTATION * drawn[0], self._SHEAR * drawn[1]
        stretch, shift = np.exp(self._SCALING * drawn[2:4]), self._SHIFT * drawn[4:6]
        field = self._ELASTIC * drawn[6:].reshape(2, height, width * batch)
        field = self._smoothing(height) @ field
        field = self._smoothing(width) @ field.reshape(2, height, width, batch)
        # Where each pixel comes from: the field, plus terms of its row and its column.
        middle = (height - 1) / 2, (width - 1) / 2
        y = (np.arange(height, dtype=self.dtype) - middle[0])[:, np.newaxis, np.newaxis]
        x = (np.arange(width, dtype=self.dtype) - middle[1])[:, np.newaxis]
        cosine, sine = np.cos(angle), np.sin(angle)
        field[0] += stretch[0] * cosine * y + (shift[0] + middle[0])
        field[0] += stretch[0] * sine * x
        field[1] += stretch[1] * cosine * x + (shift[1] + middle[1])
        field[1] += stretch[1] * (slant - sine) * y
        return self._sample(images, *field)

    def _smoothing(self, side):
        """Return the matrix that averages along an axis, by a Gaussian of 4 pixels."""
        distance = np.arange(side)[:, np.newaxis] - np.arange(side)
        weights = np.exp(-0.5 * (distance / 4) ** 2) / (4 * math.sqrt(2 * math.pi))
        return weights.astype(self.dtype)

    def _sample(self, images, down, across):
        """Interpolate images bilinearly at the pixels (H, W, B); outside is 0."""
        batch, height, width, channels = images.shape
        # A frame of zeros, which contains all places outside.
        framed = np.zeros((height + 3, width + 3, batch, channels), self.dtype)
        framed[1:-2, 1:-2] = images.transpose(1, 2, 0, 3)
        if images.dtype == np.uint8:
            framed /= 255
        framed = framed.reshape(-1, channels)
        down = np.clip(down + 1, 0, height + 1)
        across = np.clip(across + 1, 0, width + 1)
        top, left = np.floor(down), np.floor(across)
        down -= top
        across -= left
        corner = top.astype(np.intp) * (width + 3) + left.astype(np.intp)
        corner = corner * batch + np.arange(batch)

        # The mean of two, of which the second has `share`, in its place.
        def _mix(first, second, share):
            second -= first
            second *= share[..., np.newaxis]
            second += first
            return second

        upper = _mix(framed.take(corner, 0), framed.take(corner + batch, 0), across)
        corner += (width + 3) * batch  # a row down
        lower = _mix(framed.take(corner, 0), framed.take(corner + batch, 0), across)
        return _mix(upper, lower, down).transpose(2, 0, 1, 3)

    # ---------------------------------------------------------------- Learning

    _AT_ONCE = 100  # images in one batch of a prediction: little memory, warm caches
    _SHARED = 2_000_000  # numbers in maps and patches, from which on a batch is cut
    _MOST_SHARD = 8_000_000  # of these, about, in each of more than two shards
    _BETWEEN_CHECKPOINTS = 20  # seconds, at most, in a long epoch
    _SLOW_START = 10_000  # images at the beginning, where a healthy network may guess

    def fit(
        self,
        images: Array,
        labels: Array,
        epochs: int | None = None,
        validation_data: tuple[Array, Array] | None = None,
        verbose: int | None = None,
        checkpoint: str | os.PathLike | None = None,
        callback: Callable[..., bool | None] | None = None,
    ) -> HandwrittenNumberClassification:
        """Train by stochastic gradient descent, on from the present parameters.

        Each epoch goes once through the images in a new random order. Loss and accuracy
        in `history` are means over its batches, each before the step that it led to.
        One warning tells of an epoch that ends at chance or with a dead layer.

        After Ctrl-C, an error of the disk, or `load` of its checkpoint, `fit` goes on
        where it stood if labels and epochs are the same, and ends with the same bits.

        Parameters
        ----------
        images : array of shape (B, H, W, C) or, with one channel, (B, H, W)
            uint8, which is divided by 255, or floats, which are used as they are. Of
            any number, `np.memmap` included: only one batch at a time is copied.
        labels : int array of shape (B,)
        epochs, verbose : int; by default the settings of these names
        validation_data : (images, labels), evaluated after each epoch
        checkpoint : path to save the model to, at first, after each epoch, every 20 s
        callback : function called after every step as ``callback(model, step, loss)``
            Steps count from 1. If it returns True, the training ends there.

        Divergence is a FloatingPointError, and loses that epoch alone. A checkpoint
        that cannot be written is an OSError, and leaves the one before it.
        """
        images, labels = self.check_examples(images, labels)
        pair = validation_data
        if pair is not None:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise _wrong("validation_data", "be (images, labels)", type(pair))
            pair = self.check_examples(*pair, kind="validation ")
        epochs = _check_integer("epochs", self.epochs if epochs is None else epochs, 1)
        verbose = self.verbose if verbose is None else verbose
        if not (callback is None or callable(callback)):
            raise _wrong("callback", "be callable", repr(callback), TypeError)
        with holding_back_interrupts():
            beginning = self._take_up_run(epochs, labels)
        if checkpoint is not None:
            _remove_leftovers(Path(checkpoint))
        save = (lambda: None) if checkpoint is None else partial(self.save, checkpoint)
        save()
        with self._progress_bar(verbose) as bar:
            if verbose and beginning:
                bar.write(beginning)
            while self._run.epoch < self._run.epochs:
                results = self._train_epoch(images, labels, bar, save, callback)
                if pair is not None:
                    with np.errstate(over="ignore", invalid="ignore"):
                        loss, accuracy = self.evaluate(*pair)
                    self._check_convergence(loss, -(-len(labels) // self.batch_size))
                    results |= {"val_loss": loss, "val_accuracy": accuracy}
                with holding_back_interrupts():
                    self._finish_epoch(results)
                save()
                if verbose:
                    bar.write(_epoch_line(self._run.epoch, epochs, results))
        self._run = None
        return self

    def partial_fit(
        self, images: Array, labels: Array, classes: Array | None = None
    ) -> HandwrittenNumberClassification:
        """Train silently for one pass over `images`, on from the present parameters.

        Momentum is kept; a one-cycle schedule is one cycle. `classes` is only checked.
        """
        if classes is not None:
            self._check_labels(classes, len(classes), len(self.B_dense), "classes")
        self._run = None
        return self.fit(images, labels, epochs=1, verbose=0)

    def _train_epoch(self, images, labels, bar, save, callback):
        """Go through the rest of an epoch; return its loss, accuracy and seconds."""
        run = self._run
        bar.set_description_str(f"epoch {run.epoch + 1}/{run.epochs}")
        started, saved = time.perf_counter() - run.seconds, run.seconds
        with (
            np.errstate(over="ignore", invalid="ignore"),  # reported in better words
            holding_back_interrupts() as hearing_them,
            self._at_work() as spread,
        ):
            while run.position < run.images:
                before = run.position
                step, loss = self._train_batch(images, labels, spread)
                run.seconds = time.perf_counter() - started
                with hearing_them():
                    if bar.update(run.position - before):
                        mean, right = run.loss / run.position, run.hits / run.position
                        bar.set_postfix_str(f"loss {mean:.3f}, accuracy {right:.1%}")
                    if run.seconds - saved > self._BETWEEN_CHECKPOINTS:
                        save()
                        saved = run.seconds
                    if callback is not None and self._call_back(callback, step, loss):
                        run.epochs = run.epoch + 1
                        break
        if run.epoch + 1 == run.epochs:
            for name, mean in run.mean.items():
                self.parameters[name][...] = mean
        loss, accuracy = run.loss / run.position, run.hits / run.position
        bar.clear()  # Else a warning begins in its line.
        self._warn_if_stuck(accuracy, labels)
        return {"loss": loss, "accuracy": accuracy, "seconds": run.seconds}

    def _call_back(self, callback, step, loss):
        """Return whether the callback ends the training; it may change settings."""
        run, layers, arrays = self._run, self.layers, self._work.arrays
        self._work.arrays = None  # The steps that it calls return what it may keep.
        ended = callback(self, step, loss)
        self._work.arrays = arrays
        self._take_up_changes()  # A rate, for one, counts from now on.
        if self.layers is not layers:
            raise _wrong("callback", "leave the network as it is", "another")
        self._run = run
        return isinstance(ended, (bool, np.bool_)) and bool(ended)

    def _train_batch(self, images, labels, spread):
        """Take one step: distort, forward, backward, update; return it and its loss."""
        run, size = self._run, operator.index(self.batch_size)
        in_epoch, in_this = math.ceil(run.images / size), run.position // size + 1
        step, steps = run.epoch * in_epoch + in_this, run.epochs * in_epoch
        self.rate, share = self._plan_step(step, steps)
        first, end = run.position, min(run.position + size, run.images)
        learn = partial(self._learn, images, labels, end - first)
        results = spread(learn, self._cut(first, end))
        losses, hits, (gradients, *others) = zip(*results, strict=True)
        for name, gradient in gradients.items():
            for other in others:  # in their order, whichever was ready first
                gradient += other[name]
        loss = sum(losses) / (end - first)
        run.silent = [name for name in run.silent if not gradients[name].any()]
        self._update_parameters(gradients, self.rate, share)
        self._check_convergence(loss, in_this)
        run.position = end
        run.loss += sum(losses)
        run.hits += sum(hits)
        return step, loss

    def _cut(self, first, end):
        """Cut a batch into shards, in the same way on any machine: the same bits."""
        numbers = (end - first) * sum(layer.numbers for layer in self.layers)
        shards = max(2, numbers // self._MOST_SHARD) if numbers >= self._SHARED else 1
        size = math.ceil((end - first) / shards)
        return [(at, min(at + size, end)) for at in range(first, end, size)]

    def _learn(self, images, labels, count, shard):
        """Return sum of losses, hits and part in the gradients of a batch's shard."""
        chosen = self._run.order[slice(*shard)]
        images, labels = images[chosen], labels[chosen]
        if self.augment:  # By those of the epoch's random numbers that are for these.
            numbers = copy.deepcopy(self._generator.bit_generator)
            numbers.advance(shard[0] * (3 + math.prod(images.shape[1:3])))
            images = self.distort(images, float(self.augment), numbers)
        probabilities, gradients = self._backward(self._batch(images), labels)
        for gradient in gradients.values() if len(labels) < count else ():
            gradient *= len(labels) / count
        return *self._count(probabilities, labels), gradients

    def _count(self, probabilities, labels):
        """Return the sum of the losses, and how many labels are the most probable."""
        loss = self.compute_loss(probabilities, labels) * len(labels)
        return loss, int((probabilities.argmax(axis=1) == labels).sum())

    def _plan_step(self, step, steps):
        """Return a step's learning rate, and its share in the mean up to it.

        Steps count from 1, between the cycle's zeros; the n-th averaged has 1 / n.
        """
        # Not one step more where rounding has lifted a product over a whole number.
        not_averaged = steps - math.ceil(steps * float(self.averaging) - 1e-9)
        done = step / (steps + 1)
        cycle = min(done / 0.3, (1 - done) / 0.7)
        rate = float(self.lr) * (cycle if self.schedule == "one-cycle" else 1)
        return rate, 1 / (step - not_averaged) if step > not_averaged else 0.0

    def _update_parameters(self, gradients, rate, share):
        """Take an SGD step, Nesterov's: ``v = m v - rate g``, ``w += m v - rate g``.

        The mean goes `share` of the way to the parameters: nearer to the middle of the
        valley (Polyak, Juditsky: Acceleration of stochastic approximation, 1992).
        """
        momentum, decay = float(self.momentum), float(self.weight_decay)
        for name, parameter in self.parameters.items():
            gradient, velocity = gradients[name], self.velocity[name]
            if decay and parameter.ndim > 1:  # not of biases
                gradient = gradient + decay * parameter
            gradient *= -rate
            parameter += gradient
            if momentum:
                velocity *= momentum
                velocity += gradient
                parameter += np.multiply(velocity, momentum, out=gradient)
            else:
                self.velocity[name] = gradient
        if share == 1:
            self._run.mean = {n: np.zeros_like(p) for n, p in self.parameters.items()}
        for name, mean in self._run.mean.items():
            mean += (self.parameters[name] - mean) * share

    def _take_up_run(self, epochs, labels):
        """Go on with an interrupted run, or begin one; return what to say of it."""
        checksum = zlib.crc32(np.ascontiguousarray(labels, np.int64))
        asked = {"epochs": epochs, "images": len(labels), "labels": checksum}
        run, finished = self._run, len(self.history["loss"])
        if run is not None and asked.items() <= vars(run).items():
            return f"going on in epoch {min(run.epoch + 1, epochs)} of {epochs}"
        self._run = self._begin_epoch(_Run(**asked))
        line = f"training {epochs} more epochs, on from {finished} that are finished"
        return line * bool(finished or run)

    def _begin_epoch(self, run):
        """Return `run` at the start of an epoch, with a new order of the images."""
        if self.augment:  # Past the random numbers of the last epoch's distortions.
            numbers = self._generator.bit_generator.jumped()
            self._generator = np.random.Generator(numbers)
        order = self._generator.permutation(run.images)
        before = {name: array.copy() for name, array in self._trained_arrays().items()}
        counts = {"position": 0, "loss": 0.0, "hits": 0, "seconds": 0.0}
        counts["silent"] = self._bias_names()
        return replace(run, order=order, before=before, **counts)

    def _finish_epoch(self, results):
        """Add an epoch's results to the history, whose lists stay equally long."""
        earlier = len(self.history["loss"])
        history = {
            name: [*self.history.get(name, [None] * earlier), results.get(name)]
            for name in self.history | results
        }
        run = replace(self._run, epoch=self._run.epoch + 1)
        run = self._begin_epoch(run) if run.epoch < run.epochs else run
        self.history, self._run = history, run

    def _check_convergence(self, loss, step):
        """End the run and undo its epoch if a number is no longer finite."""
        arrays = self.parameters.values()  # A finite sum, quickly had, tells enough.
        finite = all(math.isfinite(a.sum()) or np.isfinite(a).all() for a in arrays)
        if finite and math.isfinite(loss):
            return
        for name, array in self._trained_arrays().items():
            array[...] = self._run.before[name]
        epoch, self._run = self._run.epoch + 1, None
        got = "infinite parameters" if math.isfinite(loss) else f"a loss of {loss}"
        got += f" in step {step} of epoch {epoch}, at a learning rate of {self.rate:g}"
        got += f": try a tenth of lr={self.lr:g}, less momentum, or images scaled to "
        got += "0..1; the parameters are those from before this epoch"
        required = "be small enough for training to converge"
        raise _wrong("lr", required, got, FloatingPointError)

    def _warn_if_stuck(self, accuracy, labels):
        """Warn, once a run, of a layer without living ReLUs, or of mere guessing.

        A dead layer and those before it have biases without a gradient in the epoch. So
        has the last layer, too, where all labels are learned.
        """
        run, what = self._run, None
        share = np.unique(labels, return_counts=True)[1].max() / len(labels)
        begun = run.epoch * run.images + run.position >= self._SLOW_START
        if run.silent and "B_dense" not in run.silent:
            tokens = [la.token for la in self.layers if la.kind == "convolution"]
            token = tokens[self._bias_names().index(run.silent[-1])]
            what = f"{token} should have living ReLUs; got none in a whole epoch"
            remedy = "or images scaled to 0..1"
        elif begun and accuracy <= share < 1:
            what = f"accuracy should be above chance; got {accuracy:.1%} in an epoch, "
            what += f"where the commonest label has {share:.1%}"
            remedy = "or see whether each label belongs to its image"
        if what and not run.warned:
            run.warned = True
            remedy = f"try a smaller lr than {self.lr:g}, another seed, {remedy}"
            warnings.warn(f"{what}: {remedy}", stacklevel=4)

    def _progress_bar(self, verbose):
        """Return a bar that counts the run's images, for a terminal or a notebook."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # A notebook need not have ipywidgets.
            from tqdm.auto import tqdm
        run, layout = self._run, "{desc} {percentage:3.0f}%|{bar}| {remaining} left, "
        options = {"unit": " images", "unit_scale": True, "leave": False}
        options["bar_format"] = layout + "{rate_fmt}{postfix}"
        # None: no bar in a file or a pipe. To tqdm, a notebook's text looks like one.
        shown = False if "ipykernel" in sys.modules else None
        options["disable"] = shown if verbose else True
        done = run.epoch * run.images + run.position
        return tqdm(total=run.epochs * run.images, initial=done, **options)

    # ---------------------------------------------------------------- Use

    def predict_proba(self, images: Array) -> Array:
        """Return the probability of each class, (B, N), for any number of images."""
        return np.concatenate(self._read(self.check_images(images), lambda p, _: p))

    def predict(self, images: Array) -> Array:
        """Return the most probable class of each image, int of shape (B,)."""
        as_new = zlib.crc32(self.W_dense.tobytes()) == self._initial
        if not self._warned and as_new and not self.B_dense.any():
            self._warned = True
            what = "network should be trained to predict; got initial weights: call fit"
            warnings.warn(what, stacklevel=2)
        images = self.check_images(images)
        return np.concatenate(self._read(images, lambda p, _: p.argmax(axis=1)))

    def evaluate(self, images: Array, labels: Array) -> tuple[float, float]:
        """Return mean loss (nats) and accuracy (0..1) over any number of images."""
        images, labels = self.check_examples(images, labels)
        counts = self._read(images, lambda p, part: self._count(p, labels[part]))
        losses, hits = zip(*counts, strict=True)
        return sum(losses) / len(labels), sum(hits) / len(labels)

    def score(self, images: Array, labels: Array) -> float:
        """Return the accuracy, 0..1, as in scikit-learn."""
        return self.evaluate(images, labels)[1]

    def _read(self, images, answer):
        """Return what `answer` makes of each batch's probabilities and its place."""
        numbers = sum(layer.numbers for layer in self.layers)
        size = max(1, min(self._AT_ONCE, self.MOST // numbers))
        parts = [slice(at, at + size) for at in range(0, len(images), size)]

        def _answer(part):
            batch = self._batch(images[part])
            return answer(self._forward(batch, with_masks=False)[0], part)

        answers = []
        with holding_back_interrupts() as hearing_them:
            if len(parts) == 1:  # Not worth a pool.
                with _one_blas_thread():
                    return [_answer(parts[0])]
            with self._at_work() as spread:
                for at in range(0, len(parts), 32):
                    answers += spread(_answer, parts[at : at + 32])
                    hearing_them().close()  # Here Ctrl-C may come.
        return answers

    # ---------------------------------------------------------------- Cores and memory

    def _batch(self, images, whole=False):
        """Return a batch as floats 0..1, the batch innermost; what is read, or all."""
        self._work.taken = 0
        numbers = len(images) * sum(layer.numbers for layer in self.layers)
        if numbers > 20 * self.MOST:
            required, got = f"need at most {20 * self.MOST:,} numbers", f"{numbers:,}"
            raise _wrong("a batch of images", required, got)
        height, width = images.shape[1:3] if whole else self._read_size
        batch = self._tensor((len(images), height, width, images.shape[3]), self.dtype)
        np.copyto(batch, images[:, :height, :width])
        if images.dtype == np.uint8:
            batch /= 255
        return batch

    def _array(self, shape, dtype):
        """Return an empty array; in a run, that of the batch before: it is faster."""
        work = self._work
        if work.arrays is None:
            return np.empty(shape, dtype)
        if work.taken == len(work.arrays):
            work.arrays.append(np.empty(0))
        array = work.arrays[work.taken]
        if array.shape != shape or array.dtype != dtype:
            # It begins on a line of the processor's cache: else vectors lie across two.
            size = math.prod(shape) * np.dtype(dtype).itemsize
            memory = np.empty(size + 64, np.uint8)
            start = -memory.__array_interface__["data"][0] % 64
            array = memory[start : start + size].view(dtype).reshape(shape)
            work.arrays[work.taken] = array
        work.taken += 1
        return array

    def _tensor(self, shape, dtype):
        """Return an empty tensor (B, H, W, C), the batch innermost in memory."""
        batch, height, width, channels = shape
        array = self._array((channels, height, width, batch), dtype)
        return array.transpose(3, 1, 2, 0)

    def _matrix(self, rows, columns, dtype):
        """Return an empty matrix. Rows a power of two apart would share cache lines."""
        return self._array((rows, columns + 16), dtype)[:, :columns]

    @contextmanager
    def _at_work(self):
        """Yield a `map` to lists, whose parts, batches or shards, share the cores."""
        outer, taken, buffer = self._work.arrays, self._work.taken, np.getbufsize()

        def _begin():
            self._work.arrays = []
            for library in _find_blas():  # Some limit the present thread alone.
                library.set_num_threads(1)

        def _map(function, parts):
            found = map(function, parts)
            with suppress(RuntimeError):  # Python ends, and lets no thread begin.
                if min(cores, len(parts)) > 1:
                    # NumPy's errors and buffers, settings of a context, go along.
                    contexts = [copy_context() for _ in parts]
                    found = pool.map(lambda c, p: c.run(function, p), contexts, parts)
            return list(found)

        try:
            self._work.arrays = []
            np.setbufsize(2048)  # fits the first cache: 3/4 of the time
            with (
                _one_blas_thread() as cores,
                ThreadPoolExecutor(cores, "", _begin) as pool,
            ):
                yield _map
        finally:
            np.setbufsize(buffer)
            self._work.arrays, self._work.taken = outer, taken

    # ---------------------------------------------------------------- Keeping

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to one ``.npz`` file, without pickle.

        It holds settings, parameters, history, and what training needs to go on. If it
        cannot be written, an OSError leaves the one before as it is.
        """
        self._take_up_changes()
        as_new = type(self)(**self.get_params())
        as_new._take_arrays(self.parameters, as_new.parameters)
        run = self._run if self._run and self._run.epoch < self._run.epochs else None
        generator = self._generator.bit_generator.state
        texts = {"format_version": 1, "history": self.history}
        texts["settings"] = self._present() | self.get_params()
        texts["settings"]["dtype"] = np.dtype(self.dtype).name
        training = {"generator": generator, "run": run and run.numbers()}
        texts["training"] = training | {"metadata": self.metadata}
        texts = {n: json.dumps(t, default=np.generic.item) for n, t in texts.items()}
        arrays = self._trained_arrays() | (run.arrays() if run else {})
        with replace_file(path) as file:
            np.savez(file, allow_pickle=False, **texts, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> HandwrittenNumberClassification:
        """Return the model that `save` wrote to `path`, or raise a ValueError."""
        with open(path, "rb") as file:
            try:
                return cls._read_model(file)
            except Exception as error:  # Whatever a damaged file may lead to.
                required = "be a model file, as save() writes it"
                got = f"{os.fspath(path)!r}: {error or type(error).__name__}"
                raise _wrong("path", required, got) from error

    @classmethod
    def _read_model(cls, file):
        """Read and check a model file; if it is damaged, raise any error."""
        arrays = read_arrays(file)
        training = json.loads(str(arrays.pop("training", "null")))
        names = ("format_version", "settings", "history")
        version, settings, history = (json.loads(str(arrays.pop(n))) for n in names)
        if version != 1:
            raise ValueError(f"format version {version} where 1 is known")
        settings["dtype"] = np.dtype(settings["dtype"]).type
        shape = settings["input_shape"] = tuple(settings["input_shape"])
        # Before any memory is allocated for parameters, they must be in the file.
        layers = cls._read_architecture(settings["architecture"], shape)
        needed = sum(layer.parameters for layer in layers)
        got = sum(array.size for array in arrays.values())
        if got < needed:
            required = f"be at least {needed:,} numbers for {settings['architecture']}"
            raise _wrong("arrays", required, f"{got:,}")
        fixed = _defaults(HandwrittenNumberClassification).keys() - _defaults(cls)
        model = cls(**{name: v for name, v in settings.items() if name not in fixed})
        if training is None:  # A file without a state of training begins one.
            arrays = model._trained_arrays() | arrays
            training = {"generator": model._generator.bit_generator.state, "run": None}
        model._take_training(training, history, arrays)
        return model

    def _take_training(self, training, history, arrays):
        """Replace the state of training by the one that was read, if it is sound."""
        generator, run = self._generator.bit_generator, training["run"]
        generator.state = training["generator"]
        if generator.state != training["generator"]:
            raise _wrong("generator", "be in a state of its own", training["generator"])
        known = ("loss", "accuracy", "seconds", "val_loss", "val_accuracy")
        if not self.history.keys() <= history.keys() <= set(known):
            raise _wrong("history", f"have names from {known}", list(history))
        for name, values in history.items():
            none = None if name.startswith("val_") else ""
            numbers = np.array([0 if value is none else value for value in values])
            sound = numbers.dtype.kind in "if" and isinstance(values, list)
            sound = sound and np.isfinite(numbers).all() and (numbers >= 0).all()
            if not sound or numbers.shape != (len(history["loss"]),):
                raise ValueError(f"history must have a number an epoch; not in {name}")
        if run is not None:
            run = _Run(**run, order=arrays["order"])
            run.check(self._bias_names())
            empty = {n: np.empty_like(a) for n, a in self._trained_arrays().items()}
            run.before = empty
            averaged = self.parameters if "mean.W_dense" in arrays else ()
            run.mean = {name: empty[name].copy() for name in averaged}
        self.history, self._run = history, run
        self.metadata = dict(training.get("metadata", {}))
        into = self._trained_arrays() | (run.arrays() if run else {})
        self._take_arrays(arrays, into)

    def _take_arrays(self, arrays, into):
        """Copy `arrays` into those of the same names, if all of them fit."""
        if arrays.keys() != into.keys():
            required = f"be {list(into)} for {self.architecture}"
            raise _wrong("arrays", required, list(arrays))
        for name, parameter in into.items():
            array = arrays[name]
            if array.shape != parameter.shape or array.dtype != parameter.dtype:
                required = f"be {parameter.dtype} of shape {parameter.shape}"
                raise _wrong(name, required, f"{array.dtype} of shape {array.shape}")
            if not np.isfinite(array).all():
                raise _wrong(name, "be finite", "nan or inf")
            parameter[...] = array

    def __getstate__(self) -> dict[str, Any]:
        """Pickle and copy a model without what its last batch has left."""
        return vars(self) | {"binary_max_pool": None, "_work": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickle a model; a copy, since joblib maps large arrays read-only."""
        vars(self).update(copy.deepcopy(state), _work=_WorkArrays())

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn, which alone asks for it, that this is a classifier."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        images = InputTags(two_d_array=False, three_d_array=True)
        target = TargetTags(required=True)
        return Tags("classifier", target, None, ClassifierTags(), None, False, images)

    # ---------------------------------------------------------------- Looking inside

    def __repr__(self) -> str:
        """Show the settings that differ from the defaults."""
        defaults, settings = _defaults(type(self)), self.get_params()
        settings.pop("architecture", None)
        others = [f"{n}={v!r}" for n, v in settings.items() if v != defaults[n]]
        return f"{type(self).__name__}({', '.join([repr(self.architecture), *others])})"

    def summary(self) -> None:
        """Print the table that `str` returns, and what is computed in other ways."""
        print(self)
        if "convolution-pooling" in "-".join(layer.kind for layer in self.layers):
            print("Pooling is computed before the ReLU in front of it: they commute.")
        if self._read_size != tuple(self.input_shape[:2]):
            read, whole = _times(self._read_size), _times(self.input_shape[:2])
            print(f"Training computes {read} of {whole} pixels: no window reads more.")

    def __str__(self) -> str:
        """Return the table of the layers as text."""
        rows = self._summary_rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows.insert(1, tuple("-" * width for width in widths))
        line = "  ".join(f"{{:{s}{w}}}" for s, w in zip("<<<>>", widths, strict=True))
        return "\n".join(line.format(*row).rstrip() for row in rows)

    def _repr_html_(self):
        """Return the same table for a notebook."""
        table = ([f"<td>{cell}</td>" for cell in row] for row in self._summary_rows())
        head, *rows = map("".join, table)
        rows = "</tr><tr>".join([head.replace("td>", "th>"), *rows])
        return f"<table><tr>{rows}</tr></table>"

    def _summary_rows(self):
        """Return the cells of the table, the head first."""
        rows = [("layer", "step", "output", "parameters", "multiply-adds")]
        rows.append(("", "images", _times(self.input_shape), "", ""))
        steps = {"convolution": "{0} {1}, ReLU", "pooling": "max pooling {1}"}
        for layer in self.layers:
            step = steps.get(layer.kind, "flatten, dense, softmax")
            step = step.format(layer.name, _times(layer.window))
            step += f", stride {layer.stride}" if layer.stride > 1 else ""
            step += f", padding {layer.padding}" if layer.padding else ""
            counts = (f"{n:,}" for n in (layer.parameters, layer.multiply_adds))
            rows.append((layer.token, step, _times(layer.output_shape), *counts))
        work = [(layer.parameters, layer.multiply_adds) for layer in self.layers]
        totals = (f"{sum(counts):,}" for counts in zip(*work, strict=True))
        return [*rows, ("total", "", "", *totals)]

    def trace_steps(self, image: Array, label: int | None = None) -> tuple[list, list]:
        """Return the result of each step for one image and, with its label, each back.

        `image` is (H, W), (H, W, C) or a batch of one. Returns two lists of (title,
        array, mark): whole maps (H, W, C), gradients of kernels (F, C, K_h, K_w), the
        flattened (D,), scores and probabilities (N,). `mark` is the label for the
        last, the winners, bool (H, W, C), for maps that are pooled next, else None.
        """
        image, shape = np.asarray(image), tuple(self.input_shape)
        if image.shape in (shape, shape[:2]):
            image = image[np.newaxis]
        image = self.check_images(image, "image")
        if len(image) != 1:
            raise _wrong("image", "be a single one", len(image))
        forward, back = [("image", image[0].copy(), None)], []

        def _watch_forward(kind, layer, x, kept):
            if kind == "pooling":
                winners = self.unpool(np.ones_like(x), *kept)[0] > 0
                forward[-1] = (*forward[-1][:2], winners)
            forward.append((_TITLES[kind][0].format(layer), x[0].copy(), None))

        def _watch_back(kind, layer, d):
            d = d if kind == "kernel" else d[0].ravel() if kind == "flatten" else d[0]
            back.append((_TITLES[kind][1].format(layer), d.copy(), None))

        batch = self._batch(image, whole=True)
        probabilities = self._forward(batch, watch=_watch_forward)[0]
        forward.append(("probabilities", probabilities[0], label))
        if label is not None:
            labels = self._check_labels([label], 1, len(self.classes_), "label")
            self._backward(batch, labels, _watch_back)
        return forward, back


# -------------------------------------------------------------------- Windows on maps


def _windows(tensor, window, stride, counts):
    """View a tensor (B, H, W, C) as its windows: axes (K_h, K_w, C, H', W', B).

    ``[i, j]`` is place (i, j) of every window at once. Nothing is copied.
    """
    stride = operator.index(stride)
    image, down, across, channel = tensor.strides
    return np.lib.stride_tricks.as_strided(
        tensor,
        (*window, tensor.shape[3], *counts, len(tensor)),
        (down, across, channel, stride * down, stride * across, image),
    )


def _fit_windows(name, size, window, stride, padding=0):
    """Return how many windows fit below and beside each other, H' and W', or raise."""
    stride = _check_integer("stride", stride, 1)
    padding = _check_integer("padding", padding, 0)
    rows = (size[0] + 2 * padding - window[0]) // stride + 1
    columns = (size[1] + 2 * padding - window[1]) // stride + 1
    if min(rows, columns) < 1:
        frame = f" with padding {padding}" if padding else ""
        raise _wrong(name, f"hold a window {_times(window)}{frame}", _times(size))
    return rows, columns


# -------------------------------------------------------------------- Runs and files


@dataclass
class _Run:
    """A `fit` that is under way: all that it goes on from, beside what is trained."""

    epochs: int  # in all
    images: int  # in an epoch
    labels: int  # checksum, to recognise them
    epoch: int = 0  # epochs that are finished
    position: int = 0  # images of the present epoch that are done
    loss: float = 0.0  # sums over these
    hits: int = 0
    seconds: float = 0.0
    silent: list[str] = field(default_factory=list)  # biases without any gradient yet
    warned: bool = False
    order: Array | None = None  # of the images
    before: dict[str, Array] = field(default_factory=dict)  # as the epoch began
    mean: dict[str, Array] = field(default_factory=dict)

    def numbers(self) -> dict[str, Any]:
        """Return all but the arrays."""
        arrays = ("order", "before", "mean")
        return {name: v for name, v in vars(self).items() if name not in arrays}

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name."""
        before = {f"before.{name}": array for name, array in self.before.items()}
        mean = {f"mean.{name}": array for name, array in self.mean.items()}
        return {"order": self.order} | before | mean

    def check(self, biases: list[str]) -> None:
        """Raise unless this can be a run of a network with these `biases`."""
        _check_integer("run's epochs", self.epochs, 1)
        _check_integer("run's images", self.images, 1, len(self.order))
        _check_integer("run's labels", self.labels, 0, 2**32 - 1)
        _check_integer("run's epoch", self.epoch, 0, self.epochs - 1)
        _check_integer("run's position", self.position, 0, self.images)
        _check_integer("run's hits", self.hits, 0, self.position)
        _check_number("run's loss", self.loss, "at least 0", lambda v: v >= 0)
        _check_number("run's seconds", self.seconds, "at least 0", lambda v: v >= 0)
        ordered = np.array_equal(np.sort(self.order), np.arange(self.images))
        if not ordered or self.order.dtype != np.int64:
            raise _wrong("order", f"be one of {self.images} images", "another")
        known = isinstance(self.silent, list) and set(self.silent) <= {*biases}
        if self.warned not in (True, False) or not known:
            got = f"{self.warned!r} and {self.silent!r}"
            raise _wrong("warned and silent", "be a bool and names of biases", got)


@contextmanager
def holding_back_interrupts() -> Iterator[Callable]:
    """Delay Ctrl-C until the block is done; yield what hears it in a block within."""
    handler, held = signal.getsignal(signal.SIGINT), []
    heard = threading.current_thread() is threading.main_thread() and callable(handler)
    _hear = partial(signal.signal, signal.SIGINT) if heard else lambda _: None

    def _hold(*event):
        held[:] = [event]

    def _hearing_them():
        if held:
            handler(*held.pop())
        _hear(handler)
        block = ExitStack()  # A generator would do it late, were it left in an error.
        block.callback(_hear, _hold)
        return block

    _hear(_hold)
    try:
        yield _hearing_them
    finally:
        _hear(handler)
        if held:
            handler(*held[0])


class _WorkArrays(threading.local):
    """What batches use one after the other; each thread has its own."""

    arrays: list[Array] | None = None  # None but in a run of batches
    taken = 0  # of them, by the present batch


@cache
def _find_blas():
    """Return threadpoolctl's controllers of BLAS: none where it or they are missing."""
    try:
        from threadpoolctl import ThreadpoolController
    except ModuleNotFoundError:
        return []
    return ThreadpoolController().select(user_api="blas").lib_controllers


_BLAS = SimpleNamespace(lock=threading.RLock(), runs=0)  # A handler may predict, too.


@contextmanager
def _one_blas_thread():
    """Keep BLAS on one thread until no run needs it; yield how many it may have.

    Its own threads wait for each other in every product, which takes several times as
    long beside other busy programs. Ours wait once for a whole part.
    """
    with _BLAS.lock:
        if not _BLAS.runs:
            _BLAS.before = [(library, library.num_threads) for library in _find_blas()]
        _BLAS.runs += 1
        for library, _ in _BLAS.before:
            library.set_num_threads(1)
    try:  # Where it cannot be kept so, our threads would fight with its own.
        yield max((count for _, count in _BLAS.before if count), default=1)
    finally:
        with _BLAS.lock:
            _BLAS.runs -= 1
            for library, count in _BLAS.before:
                if not _BLAS.runs:
                    library.set_num_threads(count)
                # Any thread may set the next limit.
                getattr(library, "clear_controlling_thread", lambda: None)()


def _epoch_line(epoch, epochs, results):
    """Format one epoch's results; the lines of one training are aligned."""
    line = "loss {loss:7.4f}  accuracy {accuracy:7.2%}  "
    line += "validation {val_loss:7.4f} {val_accuracy:7.2%}  " * ("val_loss" in results)
    line = (line + "{seconds:5.1f} s").format(**results)
    return f"epoch {epoch:{len(str(epochs))}}/{epochs}  {line}"


_TITLES = {  # of `trace_steps`, forward and back
    "convolution": ("{0.token}: {0.name}", "by the input of {0.token}"),
    "kernel": ("", "by the kernels of {0.token}"),
    "pooling": ("{0.token}: max pooling", "by the input of {0.token}, unpooled"),
    "ReLU": ("bias, ReLU", "by the input of ReLU"),
    "flatten": ("flattened", "by the flattened"),
    "scores": ("scores", ""),
}


@contextmanager
def replace_file(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open a file beside `path`, renamed to it once on the disk: never half a file."""
    path = Path(path)
    got = repr(os.fspath(path))
    if path.exists() and not path.is_file():
        raise _wrong("path", "be one to write to", f"{got}, which is no file", OSError)
    if not path.parent.is_dir():
        raise _wrong("path", "lie in a folder that exists", got, FileNotFoundError)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        got += f": {error.strerror or error}"
        raise _wrong("path", "be one to write to", got, type(error)) from error
    finally:
        with suppress(OSError):  # Such as that its folder has vanished.
            temporary.unlink(missing_ok=True)
    with suppress(OSError):  # The new name, too, where the system can.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove_leftovers(path):
    """Remove the temporary files of `path` that killed processes have left."""
    with suppress(OSError):  # Writing reports it.
        for file in path.parent.iterdir():
            if re.fullmatch(rf"\.{re.escape(path.name)}\.\d+\.tmp", file.name):
                file.unlink(missing_ok=True)


def read_arrays(file: IO[bytes], names: Iterable | None = None) -> dict[str, Array]:
    """Return the arrays of an untrusted ``.npz`` file by name: all, or `names`.

    Nothing is unpickled, or allocated unchecked. Damage may raise any error.
    """
    if not zipfile.is_zipfile(file):
        raise ValueError("this is no .npz file")
    packed = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        found = {entry.filename.removesuffix(".npy"): entry for entry in entries}
        if len(found) < len(entries):
            raise _wrong("each array", "be there once", "several of one name")
        names = list(found if names is None else names)
        for name in names:
            if name not in found:
                raise _wrong(f"array {name}", "be there", "none of that name")
        check_unpacked(sum(found[name].file_size for name in names), packed)
        return {name: _read_array(archive, found[name]) for name in names}


def _read_array(archive, entry):
    """Read one array if its header agrees with the archive about its size."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Only of these, zipfile unpacks no more than it is asked for.
        got = f"compression {entry.compress_type}"
        raise _wrong(entry.filename, "be stored or deflated", got)
    with archive.open(entry) as stream:
        major, minor = np.lib.format.read_magic(stream)
        read_header = getattr(np.lib.format, f"read_array_header_{major}_{minor}")
        shape, _, dtype = read_header(stream)
        size, left = math.prod(shape) * dtype.itemsize, entry.file_size - stream.tell()
        if dtype.kind not in "biufU" or not 0 < size == left:
            required = f"hold numbers or text, {left:,} bytes"
            raise _wrong(entry.filename, required, f"{dtype} of shape {shape}")
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)


def check_unpacked(unpacked: int, packed: int) -> None:
    """Raise if a file claims to unpack to far more bytes than data of our kind do."""
    most = max(10 * packed, 1_000_000)  # MNIST: 5 times; what is small is harmless
    if unpacked > most:
        required = f"unpack to at most {most:,}"
        raise _wrong(f"a file of {packed:,} bytes", required, f"{unpacked:,}")


# -------------------------------------------------------------------- Arguments


@cache
def _defaults(kind):
    """Return a class's settings with defaults, also those that it passes on upward."""
    settings = {}
    for part in kind.__mro__:
        if "__init__" in vars(part):
            parameters = list(inspect.signature(part.__init__).parameters.values())[1:]
            own = {p.name: p.default for p in parameters if p.kind.value in (0, 1, 3)}
            settings = own | settings
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return settings


def _wrong(name, required, got, kind=ValueError):
    """Return the error for an argument: all of them have this one grammar."""
    got = got if len(str(got)) <= 2000 else f"{str(got)[:200]} ... {str(got)[-200:]}"
    return kind(f"{name} must {required}; got {got}")


def _check_integer(name, value, least, most=10**9):
    """Return `value` as Python's own int if it is an integer within the bounds."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise _wrong(name, "be an integer", repr(value), TypeError)
    if value < least:
        raise _wrong(name, f"be at least {least}", repr(value))
    if value > most:
        got = repr(value) if value < 2**128 else "a larger one"
        raise _wrong(name, f"be at most {most}", got)
    return operator.index(value)


def _check_number(name, value, required, holds):
    """Raise unless `value` is a finite number for which `holds` is true."""
    if not isinstance(value, (int, float, np.number)) or isinstance(value, bool):
        raise _wrong(name, f"be a number {required}", repr(value), TypeError)
    number = math.inf if isinstance(value, int) and abs(value) > 1e300 else value
    if not math.isfinite(number) or not holds(number):
        raise _wrong(name, f"be a finite number {required}", repr(value))


_STRENGTH = "from 0 to 10", lambda strength: 0 <= strength <= 10  # of distortions


def _check_shape(name, array, required):
    """Raise unless `array` has the shape that the other arguments require."""
    if array.shape != required:
        raise _wrong(name, f"have shape {required}", array.shape)


def _pair(name, value):
    """Return an int or a pair of ints as a pair."""
    pair = (value, value) if isinstance(value, (int, np.integer)) else value
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise _wrong(name, "be an int or a pair", repr(value))
    return _check_integer(name, pair[0], 1), _check_integer(name, pair[1], 1)


def _times(sizes):
    """Format a size as in 25x25x8."""
    return "x".join(map(str, sizes))


def _shape_hint(shape, required, images):
    """Return what to do with images of such a shape, where (H, W, C) is required."""
    height, width, channels = required
    if shape in (required, required[:2]):
        return ": pass one image as image[np.newaxis]"
    if shape[1:] == (math.prod(required),):
        return f": pass {images}.reshape(-1, {height}, {width}, {channels})"
    if shape[1:] == (channels, height, width):
        return f": pass {images}.transpose(0, 2, 3, 1), with the channels last"
    if shape[1:] == (height, width, 3):
        hint = f": make RGB images grey with {images}.mean(axis=3), divided by 255 if "
        return f"{hint}they are uint8, or set input_shape={shape[1:]} to read colours"
    if len(shape) == 4 or (len(shape) == 3 and shape[2] != 3):
        hint = f": set input_shape={(*shape[1:], 1)[:3]} for a network that reads them"
        prepare = ", or bring each to 28x28 with prepare_image"
        return hint + prepare * (required == (28, 28, 1))
    return ""
