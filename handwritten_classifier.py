"""A convolutional neural network for handwritten digits, by hand, in NumPy.

Every step of the network and its reverse are written out below, the reverse directly
beside the step, so that backpropagation can be read and checked line by line. There is
one implementation: what a notebook calls step by step is what trains on all of MNIST.

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

and the way back, read upward:

    d_images (where wanted)     generate_input_loss        (B, 28, 28, 1)
    d_kernel                    generate_kernal_loss       (8, 1, 4, 4)
    d_feature_map               unpool                     (B, 25, 25, 8)
    d_pooled                    relu_gradient              (B, 6, 6, 8)
    d_flattened                 backprop_decision_making   (B, 288)

Letters
    B batch, H height, W width, C channels in, F filters (channels out), K kernel side,
    P pool side, N classes, D features of the flattened array. H' and W' are the height
    and width of what a step returns.

Conventions
    - Image tensors are (B, H, W, C), kernels (F, C, K_h, K_w). "Convolution" is
      cross-correlation. Padding is with zeros, on all four sides.
    - ``d_name`` is the derivative of the loss by ``name`` and has its shape. The loss
      is the mean over the batch, in nats. Labels are integers 0..N-1 of shape (B,).
    - In memory the batch lies innermost: a tensor (B, H, W, C) is a transposed view of
      an array (C, H, W, B). Whatever is then taken from all images at once (a row of a
      window, a channel) is one long contiguous run, and the patches of a batch are a
      matrix that the kernels multiply from the left without any transposition. The
      steps give the same numbers for arrays in any other order, only more slowly.

Sources
    - LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document
      recognition, Proc. IEEE 86 (1998): the network (section II) and MNIST (III).
    - Goodfellow, Bengio, Courville: Deep Learning (2016): backpropagation (6.5),
      convolution and its gradients (9.5).
    - Ciresan, Meier, Schmidhuber: Multi-column deep neural networks for image
      classification, CVPR (2012): the notation of architectures (table 1).
    - He, Zhang, Ren, Sun: Delving deep into rectifiers, ICCV (2015): the initial
      weights (section 2.2).
    - Sutskever, Martens, Dahl, Hinton: On the importance of initialization and momentum
      in deep learning, ICML (2013): Nesterov momentum for SGD (section 2).
    - Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception architecture
      for computer vision, CVPR (2016): label smoothing (section 7).
    - Smith: A disciplined approach to neural network hyper-parameters, arXiv:1803.09820
      (2018): the one-cycle learning rate (section 4).
"""

from __future__ import annotations

import inspect
import json
import math
import numbers
import os
import re
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["HandwrittenNumberClassification"]


class HandwrittenNumberClassification:
    """A convolutional network that reads handwritten digits.

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
    epochs : int, default 1
        Passes over the training images in one call of `fit`.
    batch_size : int, default 32
        Images in one step of gradient descent.
    lr : float, default 0.01
        Learning rate, above 0; the peak of the cycle with ``schedule="one-cycle"``.
    momentum : float, default 0.0
        Nesterov momentum, 0 <= momentum < 1.
    weight_decay : float, default 0.0
        L2 penalty, at least 0: ``weight_decay * w`` is added to the gradient of kernels
        and weights, not of biases.
    label_smoothing : float, default 0.0
        Share of the target, 0 <= s < 1, that is spread evenly over all classes, in the
        loss and its gradient (`compute_loss`).
    averaging : float, default 0.0
        Share of the steps of a `fit`, 0 <= a < 1, the last ones, over which the
        parameters are averaged; that mean is what it leaves.
    schedule : {"constant", "one-cycle"}, default "constant"
        Learning rate over all steps of one `fit`. One-cycle: linearly up to `lr` over
        the first 30 %, then linearly down to zero.
    augment : bool or float, default False
        Whether each training image is distorted by `distort`, anew in every epoch; a
        number is the strength, 1 that of True, 0 that of False.
    seed : int, default 0
        Of the one random generator, which draws the initial weights, then each shuffle
        and the distortions.
    dtype : {np.float32, np.float64}, default np.float32
        Precision of parameters and of all arithmetic.

    Attributes
    ----------
    kernels : list of arrays of shape (F, C, K_h, K_w)
        One for each convolution and hidden dense layer, in order.
    biases : list of arrays of shape (F,)
        Beside `kernels`.
    W_dense, B_dense : arrays of shape (D, N) and (N,)
        Of the last layer.
    parameters : dict of str to array
        The same arrays by name: ``"kernels.0", "biases.0", ..., "W_dense", "B_dense"``.
    binary_max_pool : bool array of shape (B, H', W', F, P, P) or None
        The mask of the last `generate_max_pool`; prediction does without.
    history : dict of str to list
        One entry an epoch: ``loss, accuracy, seconds`` (of training) and, with
        validation data, ``val_loss, val_accuracy`` (None for epochs without). Losses in
        nats, accuracies 0..1.
    layers : list of SimpleNamespace
        What `architecture` says of each layer: token, maps, parameters, multiply-adds.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> images = rng.random((20, 8, 8))
    >>> labels = rng.integers(0, 3, size=20)
    >>> model = HandwrittenNumberClassification("4C3-MP2-3N", input_shape=(8, 8, 1))
    >>> model.fit(images, labels, epochs=2, verbose=0).predict(images[:5]).shape
    (5,)
    >>> len(model.history["loss"])
    2
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
    ) -> None:
        self.architecture = architecture
        self.input_shape = input_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.augment = augment
        self.seed = seed
        self.dtype = dtype
        self.label_smoothing = label_smoothing
        self.averaging = averaging
        self._check_settings()
        self.layers = self._read_architecture(architecture, input_shape)
        self._steps = self._order_steps()
        self._read_size = self._find_read_size()
        self._draw_parameters()
        self.history = {"loss": [], "accuracy": [], "seconds": []}
        self.binary_max_pool: np.ndarray | None = None
        self._pooled_from: tuple = (None, None)
        self._arrays: list[np.ndarray] | None = None
        self._mean: dict[str, np.ndarray] = {}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings by name, as in scikit-learn (`deep` changes nothing)."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    def set_params(self, **settings: Any) -> HandwrittenNumberClassification:
        """Change settings; all of them or, where one is wrong, none.

        A new `architecture`, `input_shape`, `seed` or `dtype` makes a new network, with
        initial weights and an empty history; the other settings keep what was learned.

        Raises
        ------
        ValueError, TypeError
            If a setting is unknown or wrong.
        """
        present = self.get_params()
        for name in settings.keys() - present.keys():
            raise ValueError(f"settings must be among {list(present)}; got {name!r}")
        renewed = type(self)(**(present | settings))
        same_network = renewed._network_settings() == self._network_settings()
        vars(self).update(settings if same_network else vars(renewed))
        return self

    def _network_settings(self) -> tuple:
        """Return the settings that define the network and its initial weights."""
        dtype = np.dtype(self.dtype)
        return self.architecture, tuple(self.input_shape), self.seed, dtype

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """The arrays that are learned, by name, in order; not copies."""
        convolutions = {}
        for index, (kernel, bias) in enumerate(
            zip(self.kernels, self.biases, strict=True)
        ):
            convolutions |= {f"kernels.{index}": kernel, f"biases.{index}": bias}
        return convolutions | {"W_dense": self.W_dense, "B_dense": self.B_dense}

    _TOKEN = re.compile(
        r"(?P<filters>[1-9]\d*)C(?P<kernel>[1-9]\d*)"
        r"(s(?P<stride>[1-9]\d*))?(p(?P<padding>\d+))?"
        r"|MP(?P<pool>[1-9]\d*)(s(?P<step>[1-9]\d*))?"
        r"|(?P<units>[1-9]\d*)N",
        re.ASCII,
    )

    @classmethod
    def _read_architecture(
        cls, architecture: str, input_shape: tuple[int, int, int]
    ) -> list[SimpleNamespace]:
        """Read the notation: one entry a layer, its maps fitted to each other."""
        layers, shape = [], tuple(input_shape)
        tokens = architecture.split("-")
        for position, token in enumerate(tokens, start=1):
            got = f"got {token!r} at position {position}, on a map of {_times(shape)}"
            found = cls._TOKEN.fullmatch(token)
            if found is None:
                known = "8C4, 8C3s2p1, MP2, MP3s2 and 10N"
                raise ValueError(
                    f"architecture must join layers like {known} by '-'; {got}"
                )
            if position == len(tokens) and not found["units"]:
                raise ValueError(
                    f"architecture must end in a dense layer like 10N; {got}"
                )
            layer = cls._read_layer(found, shape, last=position == len(tokens))
            if min(layer.output_shape) < 1:
                raise ValueError(f"architecture must fit each window to its map; {got}")
            layers.append(layer)
            shape = layer.output_shape
        return layers

    @staticmethod
    def _read_layer(
        found: re.Match, shape: tuple[int, int, int], last: bool
    ) -> SimpleNamespace:
        """Turn one token into a layer that reads maps of `shape` (H, W, C)."""
        height, width, channels = shape
        window, stride, padding = (height, width), 1, 0
        if found["kernel"]:
            window = (int(found["kernel"]),) * 2
            stride, padding = int(found["stride"] or 1), int(found["padding"] or 0)
        elif found["pool"]:
            window = (int(found["pool"]),) * 2
            stride = int(found["step"] or found["pool"])
        filters = int(found["filters"] or found["units"] or channels)
        rows, columns = _window_counts((height, width), window, stride, padding)
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
        )

    def _order_steps(self) -> list[tuple[str, SimpleNamespace, int]]:
        """List the steps before the last layer: (kind, layer, number of its kernel).

        A convolution's bias and ReLU wait until the pooling behind it is done. Both
        keep the order of any two numbers, so the maximum of a window is the same before
        and after, and P * P times fewer numbers are left to add to and to cut.
        """
        steps, waiting, index = [], [], -1
        for layer in self.layers[:-1]:
            if layer.kind == "convolution":
                index += 1
                steps += [*waiting, ("convolution", layer, index)]
                waiting = [("ReLU", layer, index)]
            else:
                steps.append(("pooling", layer, index))
        return steps + waiting

    def _find_read_size(self) -> tuple[int, int]:
        """Return the height and width of what the network reads of an image.

        Windows that do not fill their map leave rows and columns at its lower right
        unread. Found from the last layer back to the image, that is never computed: 32
        filters of 3x3, pooled and convolved again, are spared every sixth place.
        """
        size = (1, 1)
        for layer in reversed(self.layers):
            if layer.padding:  # Its frame belongs around the whole map.
                size = layer.input_shape[:2]
            else:
                size = tuple(
                    (count - 1) * layer.stride + side
                    for count, side in zip(size, layer.window, strict=True)
                )
        return size

    def _draw_parameters(self) -> None:
        """Draw normal weights of variance 2 / inputs (He et al. 2015); biases are 0."""
        self._generator = np.random.default_rng(self.seed)
        self.kernels, self.biases = [], []
        for layer in self.layers:
            inputs = math.prod(layer.window) * layer.input_shape[2]
            outputs = layer.output_shape[2]
            if layer.kind == "convolution":
                shape = (outputs, layer.input_shape[2], *layer.window)
                self.kernels.append(self._draw_normal(shape, inputs))
                self.biases.append(np.zeros(outputs, self.dtype))
            elif layer.kind == "dense":
                self.W_dense = self._draw_normal((inputs, outputs), inputs)
                self.B_dense = np.zeros(outputs, self.dtype)
        self._velocity = {name: np.zeros_like(p) for name, p in self.parameters.items()}

    def _draw_normal(self, shape: tuple[int, ...], inputs: int) -> np.ndarray:
        """Draw in double precision: both precisions then start from the same point."""
        drawn = self._generator.normal(0.0, math.sqrt(2 / inputs), shape)
        return drawn.astype(self.dtype)

    # ---------------------------------------------------------------- Doors

    def _check_settings(self) -> None:
        """Raise if a setting is wrong; all errors say what, the required, what came."""
        if not isinstance(self.architecture, str):
            raise TypeError(f"architecture must be a str; got {self.architecture!r}")
        if (
            not isinstance(self.input_shape, (tuple, list))
            or len(self.input_shape) != 3
        ):
            raise ValueError(f"input_shape must be (H, W, C); got {self.input_shape!r}")
        for size in self.input_shape:
            _check_integer("input_shape", size, 1)
        _check_integer("epochs", self.epochs, 1)
        _check_integer("batch_size", self.batch_size, 1)
        _check_integer("seed", self.seed, 0)
        _check_number("lr", self.lr, "above 0", lambda lr: lr > 0)
        for name in ("momentum", "label_smoothing", "averaging"):
            value, required = getattr(self, name), "at least 0 and below 1"
            _check_number(name, value, required, lambda share: 0 <= share < 1)
        _check_number("weight_decay", self.weight_decay, "at least 0", lambda w: w >= 0)
        if self.schedule not in ("constant", "one-cycle"):
            known = "'constant' or 'one-cycle'"
            raise ValueError(f"schedule must be {known}; got {self.schedule!r}")
        if not isinstance(self.augment, (bool, np.bool_)):
            _check_number("augment", self.augment, "at least 0", lambda a: a >= 0)
        try:
            known = np.dtype(self.dtype or object) in (np.float32, np.float64)
        except TypeError:
            known = False
        if not known:
            raise ValueError(f"dtype must be float32 or float64; got {self.dtype!r}")

    def _check_images(self, images: np.ndarray, name: str = "images") -> np.ndarray:
        """Return `images` as (B, H, W, C), whole and uncopied, once all is in order."""
        images = np.asarray(images)
        height, width, channels = self.input_shape
        if channels == 1 and images.ndim == 3:
            images = images[..., np.newaxis]
        if images.ndim != 4 or images.shape[1:] != (height, width, channels):
            required = f"(B, {height}, {width}, {channels})"
            raise ValueError(f"{name} must have shape {required}; got {images.shape}")
        if len(images) == 0:
            raise ValueError(f"{name} must hold at least one; got shape {images.shape}")
        if images.dtype != np.uint8:
            self._check_values(images, name)
        return images

    def _check_values(self, images: np.ndarray, name: str) -> None:
        """Raise if a value is no finite number; in parts, for images may be many."""
        if images.dtype.kind != "f":
            raise TypeError(f"{name} must be uint8 or floats; got dtype {images.dtype}")
        largest = 0.0
        for start in range(0, len(images), 1024):
            part = images[start : start + 1024]
            size = max(-part.min(), part.max())
            if not size <= np.finfo(self.dtype).max:
                raise ValueError(
                    f"{name} must hold finite {np.dtype(self.dtype)} numbers; got nan, "
                    f"inf or too large a number in images {start}:{start + len(part)}"
                )
            largest = max(largest, size)
        if largest > 10:
            warnings.warn(
                f"{name} should be scaled to about 0..1; got values up to {largest:g}: "
                "divide by 255, or pass the uint8 images as they are",
                stacklevel=5,
            )

    @staticmethod
    def _check_labels(
        labels: np.ndarray, count: int, classes: int, name: str = "labels"
    ) -> np.ndarray:
        """Return `labels` as an array of shape (B,), once all of them name a class."""
        labels = np.asarray(labels)
        if labels.shape != (count,):
            hint = ""
            if labels.ndim == 2:
                one_hot = "labels.argmax(axis=1) of one-hot rows"
                hint = f", as {'labels.ravel()' if labels.shape[1] == 1 else one_hot}"
            required = f"shape ({count},){hint}"
            raise ValueError(f"{name} must have {required}; got {labels.shape}")
        if count == 0:
            raise ValueError(f"{name} must hold at least one; got {labels.shape}")
        if labels.dtype.kind not in "iu":
            raise TypeError(f"{name} must be integers; got dtype {labels.dtype}")
        low, high = labels.min(), labels.max()
        if low < 0 or high >= classes:
            wrong = low if low < 0 else high
            raise ValueError(f"{name} must be in 0..{classes - 1}; got {wrong}")
        return labels

    def _check_examples(
        self, images: np.ndarray, labels: np.ndarray, kind: str = ""
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return images and the labels beside them, checked."""
        images = self._check_images(images, f"{kind}images")
        count, classes = len(images), len(self.B_dense)
        return images, self._check_labels(labels, count, classes, f"{kind}labels")

    def _check_validation(
        self, validation_data: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pair of images and labels that it has to be, checked."""
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
            got = type(validation_data).__name__
            raise ValueError(f"validation_data must be (images, labels); got a {got}")
        return self._check_examples(*validation_data, kind="validation ")

    def _check_tensor(self, name: str, tensor: np.ndarray, axes: str) -> np.ndarray:
        """Return a step's argument as floats, once it has one axis for each name."""
        tensor = np.asarray(tensor)
        if tensor.ndim != len(axes.split()):
            raise ValueError(
                f"{name} must have axes ({axes}); got shape {tensor.shape}"
            )
        if tensor.dtype.kind not in "fiub":
            raise TypeError(f"{name} must be numbers; got dtype {tensor.dtype}")
        return tensor if tensor.dtype.kind == "f" else tensor.astype(self.dtype)

    def _batch(self, images: np.ndarray) -> np.ndarray:
        """Return one batch as floats, uint8 divided by 255, the batch innermost.

        What no window reads, rows and columns at the lower right, stays behind.
        """
        self._taken = 0
        height, width = self._read_size
        batch = self._tensor((len(images), height, width, images.shape[3]), self.dtype)
        np.copyto(batch, images[:, :height, :width], casting="same_kind")
        if images.dtype == np.uint8:
            batch /= 255
        return batch

    def _array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return an array to be filled; in a run of batches, one of the last batch's.

        Every batch asks for the same arrays in the same order. To hand out those of the
        batch before saves the operating system's work for fresh pages, which takes as
        long as the mathematics. A step called by itself always gets a new array.
        """
        if self._arrays is None:
            return np.empty(shape, dtype)
        if self._taken == len(self._arrays):
            self._arrays.append(np.empty(0))
        array = self._arrays[self._taken]
        if array.shape != shape or array.dtype != dtype:
            array = self._arrays[self._taken] = _aligned(shape, dtype)
        self._taken += 1
        return array

    def _tensor(self, shape: tuple[int, int, int, int], dtype: np.dtype) -> np.ndarray:
        """Return a tensor (B, H, W, C) to be filled, the batch innermost in memory."""
        batch, height, width, channels = shape
        return self._array((channels, height, width, batch), dtype).transpose(
            3, 1, 2, 0
        )

    def _matrix(self, rows: int, columns: int, dtype: np.dtype) -> np.ndarray:
        """Return a matrix to be filled, its rows a little apart in memory.

        Rows whose distance is a power of two fall on the same lines of the processor's
        cache, and a product of such matrices can take half as long again.
        """
        return self._array((rows, columns + 16), dtype)[:, :columns]

    @contextmanager
    def _reusing_arrays(self, several: bool = True) -> Iterator[None]:
        """Let `_array` hand out the same arrays again in each of `several` batches.

        Meanwhile NumPy's buffers, through which it passes what is not contiguous, are
        small enough for the first cache; input gradients take a quarter less time.
        """
        outer, buffer = self._arrays, np.setbufsize(2048)
        try:
            self._arrays = [] if several else None
            yield
        finally:
            np.setbufsize(buffer)
            self._arrays = outer

    # ---------------------------------------------------------------- Convolution

    def generate_patches(
        self,
        images: np.ndarray,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
    ) -> np.ndarray:
        """Lay what the sliding window sees, at each of its places, into a column.

        With these columns a convolution is one matrix product (Chellapilla, Puri,
        Simard: High performance convolutional neural networks for document processing,
        2006).

        Parameters
        ----------
        images : array of shape (B, H, W, C)
        kernel_size : int or (int, int)
            K, or (K_h, K_w).
        stride, padding : int
            Step of the window, and width of the frame of zeros, in pixels.

        Returns
        -------
        array of shape (C * K_h * K_w, H' * W' * B)
        """
        images = self._check_tensor("images", images, "B H W C")
        window = _pair("kernel_size", kernel_size)
        rows, columns = _fit_windows(
            "images", images.shape[1:3], window, stride, padding
        )
        batch, height, width, channels = images.shape
        if padding:
            size = (height + 2 * padding, width + 2 * padding)
            frame = self._tensor((batch, *size, channels), images.dtype)
            frame.fill(0)
            frame[:, padding : padding + height, padding : padding + width] = images
            images = frame
        windows = _windows(images, window, stride, (rows, columns))
        windows = windows.transpose(2, 0, 1, 3, 4, 5)
        size = (channels * math.prod(window), rows * columns * batch)
        patches = self._matrix(*size, images.dtype)
        np.copyto(patches.reshape(windows.shape), windows)
        return patches

    def generate_feature_map(
        self,
        images: np.ndarray,
        kernel: np.ndarray,
        bias: np.ndarray | None = None,
        stride: int = 1,
        padding: int = 0,
        patches: np.ndarray | None = None,
    ) -> np.ndarray:
        """Convolve the images with the kernels.

        ``map[b,y,x,f] = bias[f] + sum kernel[f,c,i,j] * images[b, s*y+i, s*x+j, c]``,
        where the sum runs over c, i and j, and s is the stride: the matrix product of
        the kernels, one a row, by the patches, one a column.

        Parameters
        ----------
        images : array of shape (B, H, W, C)
        kernel : array of shape (F, C, K_h, K_w)
        bias : array of shape (F,), optional
        stride, padding : int
            In pixels.
        patches : array, optional
            What `generate_patches` made of the same images, where it is there already.

        Returns
        -------
        array of shape (B, H', W', F)
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
        images: np.ndarray,
        d_feature_map: np.ndarray,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        patches: np.ndarray | None = None,
    ) -> np.ndarray:
        """Derive the loss by the kernel of `generate_feature_map`.

        Forward, ``map = kernel @ patches``; hence ``d_kernel = d_map @ patches.T``:
        each weight gathers, over all places and images, what it multiplied times what
        came back. The bias is added everywhere, so its gradient is ``d_feature_map``
        summed over B, H' and W'.

        Parameters
        ----------
        images : array of shape (B, H, W, C)
        d_feature_map : array of shape (B, H', W', F)
        kernel_size : int or (int, int)
        stride, padding : int
            As in the forward step.
        patches : array, optional
            What `generate_patches` made of the same images, where it is there already.

        Returns
        -------
        array of shape (F, C, K_h, K_w)
        """
        images = self._check_tensor("images", images, "B H W C")
        d_feature_map = self._check_tensor("d_feature_map", d_feature_map, "B H' W' F")
        window = _pair("kernel_size", kernel_size)
        batch, height, width, channels = images.shape
        rows, columns = _fit_windows("images", (height, width), window, stride, padding)
        filters = d_feature_map.shape[3]
        _check_shape("d_feature_map", d_feature_map, (batch, rows, columns, filters))
        if patches is None:
            patches = self.generate_patches(images, window, stride, padding)
        # BLAS is slow at sums as long as these: to sum up each row of the map first,
        # and then the rows, takes a third of the time where the kernels are few.
        d_map = d_feature_map.transpose(3, 1, 2, 0)
        d_map = d_map.reshape(filters, rows, columns * batch).transpose(1, 2, 0)
        patches = patches.reshape(len(patches), rows, columns * batch)
        sums = patches.transpose(1, 0, 2) @ d_map
        return sums.sum(axis=0).T.reshape(filters, channels, *window)

    def generate_input_loss(
        self,
        d_feature_map: np.ndarray,
        kernel: np.ndarray,
        input_shape: tuple[int, int],
        stride: int = 1,
        padding: int = 0,
    ) -> np.ndarray:
        """Derive the loss by the input of `generate_feature_map`: what lets them stack.

        Forward, ``map = kernel @ patches``; hence ``d_patches = kernel.T @ d_map``. A
        pixel stood in several patches, and gathers from all of them.

        Parameters
        ----------
        d_feature_map : array of shape (B, H', W', F)
        kernel : array of shape (F, C, K_h, K_w)
        input_shape : (int, int)
            H and W of the input.
        stride, padding : int
            As in the forward step.

        Returns
        -------
        array of shape (B, H, W, C)
        """
        d_feature_map = self._check_tensor("d_feature_map", d_feature_map, "B H' W' F")
        kernel = self._check_tensor("kernel", kernel, "F C K_h K_w")
        filters, channels, *window = kernel.shape
        height, width = _pair("input_shape", input_shape)
        rows, columns = _fit_windows(
            "input_shape", (height, width), window, stride, padding
        )
        batch = d_feature_map.shape[0]
        _check_shape("d_feature_map", d_feature_map, (batch, rows, columns, filters))
        d_map = d_feature_map.transpose(3, 1, 2, 0).reshape(
            filters, rows * columns * batch
        )
        kernel = kernel.reshape(filters, channels * math.prod(window))
        dtype = np.result_type(kernel, d_map)
        d_patches = self._matrix(kernel.shape[1], d_map.shape[1], dtype)
        np.matmul(kernel.T, d_map, out=d_patches)
        d_windows = d_patches.reshape(channels, *window, rows, columns, batch)
        size = (height + 2 * padding, width + 2 * padding)
        d_frame = self._tensor((batch, *size, channels), dtype)
        d_frame.fill(0)
        places = _windows(d_frame, window, stride, (rows, columns))
        if _overlap(window, stride, (rows, columns)):
            for i, j in product(range(window[0]), range(window[1])):
                places[i, j] += d_windows[:, i, j]
        else:
            places[:] = d_windows.transpose(1, 2, 0, 3, 4, 5)
        return d_frame[:, padding : padding + height, padding : padding + width]

    # ---------------------------------------------------------------- ReLU

    def relu(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Cut off what is negative: ``max(x, 0)``, for an array of any shape.

        As in NumPy, the result is written to `out` where it is given.
        """
        return np.maximum(x, 0, out=out)

    def relu_gradient(
        self, d_output: np.ndarray, x: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Let the gradient through where ReLU's input `x` was positive; at 0 it is 0.

        Parameters
        ----------
        d_output, x : arrays of one shape
            The derivative by ReLU's output, and ReLU's input. Its output will do as
            well: it is positive at the same places.
        out : array, optional
            Where the result is written to, as in NumPy.
        """
        d_output, x = np.asarray(d_output), np.asarray(x)
        _check_shape("d_output", d_output, x.shape)
        return np.multiply(d_output, x > 0, out=out)

    # ---------------------------------------------------------------- Max pooling

    def generate_max_pool(
        self,
        feature_map: np.ndarray,
        pool_size: int = 2,
        stride: int | None = None,
        with_mask: bool = True,
    ) -> np.ndarray:
        """Keep the largest number of each window, and in a mask where it stood.

        A map of 4x4 under windows of 2x2, and a gradient a, b, c, d on its way back::

            feature_map     pooled     binary_max_pool     d_pooled     unpooled
            1 3 | 2 2       3 2          . X | X .           a b         0 a | b 0
            0 1 | 2 1                    . . | . .                       0 0 | 0 0
            ----+----                    ----+----                       ----+----
            5 0 | 0 0       5 4          X . | . .           c d         c 0 | 0 0
            2 5 | 0 4                    . . | . X                       0 0 | 0 d

        Of equal largest numbers the first in row-major order wins, alone. Rows and
        columns that fill no whole window are left out.

        Parameters
        ----------
        feature_map : array of shape (B, H, W, F)
        pool_size : int
            P, the side of the window in pixels.
        stride : int, optional
            Step of the window in pixels; `pool_size` where it is left out.
        with_mask : bool
            False saves the work for the mask, which only the way back needs.

        Returns
        -------
        array of shape (B, H', W', F)
            Besides, sets `binary_max_pool`, bool of shape (B, H', W', F, P, P).
        """
        feature_map = self._check_tensor("feature_map", feature_map, "B H W F")
        _check_integer("pool_size", pool_size, 1)
        stride = pool_size if stride is None else stride
        batch, height, width, filters = feature_map.shape
        window = (pool_size, pool_size)
        counts = _fit_windows("feature_map", (height, width), window, stride)
        places = _windows(feature_map, window, stride, counts)
        first, *others = (place for row in places for place in row)
        pooled = self._tensor((batch, *counts, filters), feature_map.dtype)
        mask = self._array((*window, filters, *counts, batch), bool)
        undecided, *masks = mask.reshape(-1, filters, *counts, batch)
        # Numbers lie scattered in the map. To copy them out first, and compare then,
        # takes little more than half the time.
        largest = pooled.transpose(3, 1, 2, 0)
        rivals = self._array(largest.shape, largest.dtype)
        np.copyto(largest, first)
        for place, won in zip(others, masks, strict=True):
            np.copyto(rivals, place)
            if with_mask:
                np.greater(rivals, largest, out=won)
            np.maximum(rivals, largest, out=largest)
        if not with_mask:
            return pooled
        # The mask now has all that were larger than every number before them. The last
        # of these has won; if there is none, the first number has.
        undecided.fill(True)
        for won in reversed(masks):
            won &= undecided
            undecided ^= won
        self.binary_max_pool = mask.transpose(5, 3, 4, 2, 0, 1)
        self._pooled_from = (stride, (height, width))
        return pooled

    def unpool(
        self,
        d_pooled: np.ndarray,
        mask: np.ndarray | None = None,
        stride: int | None = None,
        output_shape: tuple[int, ...] | None = None,
    ) -> np.ndarray:
        """Send each gradient back to where the largest number of its window stood.

        Elsewhere the gradient is zero; a winner of several overlapping windows gets
        their sum. What is left out is taken from the last `generate_max_pool`, where
        the picture of this step stands, too.

        Parameters
        ----------
        d_pooled : array of shape (B, H', W', F)
        mask : bool array of shape (B, H', W', F, P, P), optional
        stride : int, optional
            As in the forward step.
        output_shape : (int, int), optional
            H and W of the feature map; its whole shape will do.

        Returns
        -------
        array of shape (B, H, W, F)
        """
        mask, stride, size = self._recall_pooling(mask, stride, output_shape)
        d_pooled = self._check_tensor("d_pooled", d_pooled, "B H' W' F")
        _check_shape("d_pooled", d_pooled, mask.shape[:4])
        batch, rows, columns, filters, *window = mask.shape
        d_feature_map = self._tensor((batch, *size, filters), d_pooled.dtype)
        places = _windows(d_feature_map, window, stride, (rows, columns))
        mask = mask.transpose(4, 5, 3, 1, 2, 0)
        d_pooled = d_pooled.transpose(3, 1, 2, 0)
        if (rows * stride, columns * stride) != size or stride != window[0]:
            d_feature_map.fill(0)  # Else every place is written below.
        if _overlap(window, stride, (rows, columns)):
            for i, j in product(range(window[0]), range(window[1])):
                places[i, j] += d_pooled * mask[i, j]
        else:  # Each place belongs to one window: written once, without a sum.
            np.multiply(d_pooled, mask, out=places)
        return d_feature_map

    def _recall_pooling(
        self,
        mask: np.ndarray | None,
        stride: int | None,
        output_shape: tuple[int, ...] | None,
    ) -> tuple[np.ndarray, int, tuple[int, int]]:
        """Return mask, stride and the map's (H, W); left out ones, of the last pool."""
        if self.binary_max_pool is not None:
            mask = self.binary_max_pool if mask is None else mask
            stride = self._pooled_from[0] if stride is None else stride
            output_shape = (
                self._pooled_from[1] if output_shape is None else output_shape
            )
        if mask is None or stride is None or output_shape is None:
            required = "mask, stride and output_shape must be given"
            raise ValueError(f"{required} before any generate_max_pool; got None")
        mask = np.asarray(mask)
        if mask.ndim != 6 or mask.dtype != bool:
            got = f"{mask.dtype} of shape {mask.shape}"
            raise ValueError(f"mask must be bool with axes (B H' W' F P P); got {got}")
        batch, *counts, filters, _, _ = mask.shape
        whole = np.shape(output_shape) == (4,)
        if whole and (batch, filters) == tuple(output_shape)[::3]:
            output_shape = output_shape[1:3]
        size = _pair("output_shape", output_shape)
        if _fit_windows("output_shape", size, mask.shape[4:], stride) != tuple(counts):
            required = f"a map with {_times(counts)} windows {_times(mask.shape[4:])}"
            required = f"output_shape must be that of {required}, stride {stride}"
            raise ValueError(f"{required}; got {output_shape}")
        return mask, stride, size

    # ---------------------------------------------------------------- Flatten

    def generate_flattened_array(self, pooled: np.ndarray) -> np.ndarray:
        """Write each image's maps as one row, in the order H, W, F.

        Its reverse is ``d_flattened.reshape(pooled.shape)``.

        Parameters
        ----------
        pooled : array of shape (B, H, W, F)

        Returns
        -------
        array of shape (B, D), D = H * W * F
        """
        pooled = self._check_tensor("pooled", pooled, "B H W F")
        batch, *features = pooled.shape
        flattened = self._array((*features, batch), pooled.dtype)
        np.copyto(flattened, pooled.transpose(1, 2, 3, 0))
        return flattened.reshape(math.prod(features), batch).T

    # ---------------------------------------------------------------- Dense and softmax

    def softmax(self, scores: np.ndarray) -> np.ndarray:
        """Turn scores into probabilities: ``exp(s) / sum exp(s)``, each row for itself.

        Subtracting a row's maximum changes nothing in the quotient, and no power
        overflows.

        Parameters
        ----------
        scores : array of shape (B, N)
            Of any finite size.

        Returns
        -------
        array of shape (B, N)
            In 0..1; each row sums to 1.
        """
        scores = self._check_tensor("scores", scores, "B N")
        # A difference may overflow to -inf, which is right: its power is 0.
        with np.errstate(over="ignore"):
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def compute_loss(self, probabilities: np.ndarray, labels: np.ndarray) -> float:
        """Return the cross-entropy: mean ``-log(probability of the label)``, in nats.

        A probability of 0 counts as the smallest normal number, so the loss stays
        finite. With `label_smoothing` s, the target is not the label alone, but
        ``(1 - s) one_hot(label) + s / N``: a network that need not be certain learns
        faster and reads better (Szegedy et al. 2016, section 7).

        Parameters
        ----------
        probabilities : array of shape (B, N)
        labels : int array of shape (B,)
        """
        probabilities = self._check_tensor("probabilities", probabilities, "B N")
        labels = self._check_labels(labels, *probabilities.shape)
        losses = -np.log(np.maximum(probabilities, np.finfo(probabilities.dtype).tiny))
        return float((losses * self._targets(labels, losses)).sum(axis=1).mean())

    def _targets(self, labels: np.ndarray, like: np.ndarray) -> np.ndarray:
        """Return what the probabilities should be: the labels, smoothed, (B, N)."""
        smoothing = float(self.label_smoothing)
        targets = np.full_like(like, smoothing / like.shape[1])
        targets[np.arange(len(labels)), labels] += 1 - smoothing
        return targets

    def backprop_decision_making(
        self, flattened: np.ndarray, probabilities: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Go back from the loss through softmax and the dense layer.

        Forward, ``scores = flattened @ W_dense + B_dense``. Through cross-entropy and
        softmax together, ``d_scores = (probabilities - targets) / B``: what is said
        less what is so (Goodfellow et al. 2016, section 6.2.2.3). The targets are those
        of `compute_loss`; without smoothing, 1 for the label and 0 else.

        Parameters
        ----------
        flattened : array of shape (B, D)
        probabilities : array of shape (B, N)
        labels : int array of shape (B,)

        Returns
        -------
        d_W_dense, d_B_dense, d_flattened : arrays of shape (D, N), (N,) and (B, D)
        """
        flattened = self._check_tensor("flattened", flattened, "B D")
        probabilities = self._check_tensor("probabilities", probabilities, "B N")
        batch, classes = probabilities.shape
        labels = self._check_labels(labels, batch, classes)
        _check_shape("probabilities", probabilities, (batch, len(self.B_dense)))
        _check_shape("flattened", flattened, (batch, len(self.W_dense)))
        d_scores = (probabilities - self._targets(labels, probabilities)) / batch
        d_flattened = (self.W_dense @ d_scores.T).T
        return flattened.T @ d_scores, d_scores.sum(axis=0), d_flattened

    # ---------------------------------------------------------------- The whole network

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Return the probabilities, (B, N), of one batch of images, in one go.

        For many images, `predict_proba` does the same batch by batch.
        """
        return self._forward(self._batch(self._check_images(images)))[0]

    def compute_gradients(
        self, images: np.ndarray, labels: np.ndarray
    ) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss of one batch, and its derivative by each of `parameters`.

        No parameter is changed.

        Parameters
        ----------
        images : array of shape (B, H, W, C) or (B, H, W)
        labels : int array of shape (B,)

        Returns
        -------
        loss : float
        gradients : dict of str to array
            With the names and shapes of `parameters`.
        """
        images, labels = self._check_examples(images, labels)
        probabilities, gradients = self._backward(self._batch(images), labels)
        return self.compute_loss(probabilities, labels), gradients

    def _forward(
        self,
        images: np.ndarray,
        with_mask: bool = True,
        watch: Callable[..., None] | None = None,
    ) -> tuple[np.ndarray, list[tuple]]:
        """Return the probabilities and, of each step, what its reverse needs.

        `watch`, where given, is shown (kind, layer, array) after every step.
        """
        x, trace = images, []
        for kind, layer, index in self._steps:
            if kind == "convolution":
                # Made once, for this product and for that of the kernel's gradient.
                patches = self.generate_patches(
                    x, layer.window, layer.stride, layer.padding
                )
                trace.append((x, patches))
                x = self.generate_feature_map(
                    x,
                    self.kernels[index],
                    stride=layer.stride,
                    padding=layer.padding,
                    patches=patches,
                )
            elif kind == "pooling":
                map_shape = x.shape[1:3]
                x = self.generate_max_pool(x, layer.window[0], layer.stride, with_mask)
                trace.append((self.binary_max_pool, map_shape))
            else:
                # In place: not even the way back asks for what was there before.
                x += self.biases[index]
                x = self.relu(x, out=x)
                trace.append((x,))
            if watch:
                watch(kind, layer, x)
        flattened = self.generate_flattened_array(x)
        trace.append((x.shape, flattened))
        if watch:
            watch("flatten", self.layers[-1], flattened)
        return self.softmax(flattened @ self.W_dense + self.B_dense), trace

    def _backward(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        watch: Callable[..., None] | None = None,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Go forward, then the same way back; return probabilities and gradients.

        `watch`, where given, is shown (kind, layer, gradient) after every step back.
        """
        probabilities, trace = self._forward(images)
        shape, flattened = trace.pop()
        gradients = dict.fromkeys(self.parameters)
        gradients["W_dense"], gradients["B_dense"], d_flattened = (
            self.backprop_decision_making(flattened, probabilities, labels)
        )
        d = self._tensor(shape, d_flattened.dtype)
        np.copyto(d, d_flattened.reshape(shape))
        if watch:
            watch("flatten", self.layers[-1], d_flattened)
        for (kind, layer, index), kept in zip(
            self._steps[::-1], trace[::-1], strict=True
        ):
            if kind == "ReLU":
                d = self.relu_gradient(d, *kept, out=d)
                gradients[f"biases.{index}"] = d.sum(axis=(0, 1, 2))
            elif kind == "pooling":
                mask, map_shape = kept
                d = self.unpool(d, mask, layer.stride, map_shape)
            else:
                x, patches = kept
                gradients[f"kernels.{index}"] = self.generate_kernal_loss(
                    x, d, layer.window, layer.stride, layer.padding, patches=patches
                )
                if watch:
                    watch("kernel", layer, gradients[f"kernels.{index}"])
                if index == 0:  # Nothing below the first convolution is learned.
                    break
                d = self.generate_input_loss(
                    d, self.kernels[index], x.shape[1:3], layer.stride, layer.padding
                )
            if watch:
                watch(kind, layer, d)
        return probabilities, gradients

    # ---------------------------------------------------------------- Distortions

    # What `distort` does at strength 1: random numbers up to these, of both signs.
    _ROTATION = math.radians(8)
    _SCALING, _SHEAR = 0.1, 0.1  # of the image's size, of one axis by the other
    _SHIFT = 1.5  # pixels
    _ELASTIC = 20  # pixels, before the field is made smooth

    def distort(
        self,
        images: np.ndarray,
        strength: float = 1.0,
        generator: np.random.Generator | None = None,
    ) -> np.ndarray:
        """Return the images as other hands might have written them.

        Each is rotated, scaled, sheared and shifted at random, and drawn along a random
        field that is smooth (elastic distortion; Simard, Steinkraus, Platt: Best
        practices for convolutional neural networks applied to visual document analysis,
        ICDAR 2003).

        Parameters
        ----------
        images : array of shape (B, H, W, C) or, with one channel, (B, H, W)
        strength : float
            At 1, rotation goes up to 8 degrees, scaling and shear to a tenth, the shift
            to 1.5 pixels, and the field moves a pixel by about 0.8 pixels (standard
            deviation, on each axis). At 0, nothing changes.
        generator : np.random.Generator, optional
            Of the random numbers; a new one with the model's seed where left out.

        Returns
        -------
        array of shape (B, H, W, C)
            Floats; uint8 images are divided by 255.
        """
        images = self._check_images(images)
        _check_number("strength", strength, "at least 0", lambda s: s >= 0)
        batch, height, width, _ = images.shape
        size = (2, height, width, batch)
        generator = generator or np.random.default_rng(self.seed)

        def draw(most: float, shape: tuple[int, ...]) -> np.ndarray:
            """Draw from -most to most, times the strength."""
            drawn = generator.random(shape, np.float32)
            drawn -= 0.5
            drawn *= 2 * strength * most
            return drawn.astype(self.dtype, copy=False)

        angle, slant = draw(self._ROTATION, (batch,)), draw(self._SHEAR, (batch,))
        stretch = np.exp(draw(self._SCALING, (2, batch)))
        shift = draw(self._SHIFT, (2, batch))
        field = draw(self._ELASTIC, size).reshape(2, height, width * batch)
        field = (_smoothing(height, self.dtype) @ field).reshape(size)
        field = _smoothing(width, self.dtype) @ field
        # Where each pixel of the new image comes from in the old one: the field, and
        # what is the same along rows and along columns.
        middle = (height - 1) / 2, (width - 1) / 2
        y = (np.arange(height, dtype=self.dtype) - middle[0])[:, np.newaxis, np.newaxis]
        x = (np.arange(width, dtype=self.dtype) - middle[1])[:, np.newaxis]
        cosine, sine = np.cos(angle), np.sin(angle)
        field[0] += stretch[0] * cosine * y + (shift[0] + middle[0])
        field[0] += stretch[0] * sine * x
        field[1] += stretch[1] * cosine * x + (shift[1] + middle[1])
        field[1] += stretch[1] * (slant - sine) * y
        return self._sample(images, *field)

    def _sample(
        self, images: np.ndarray, down: np.ndarray, across: np.ndarray
    ) -> np.ndarray:
        """Read images at places between their pixels, bilinearly; around them is 0.

        `down` and `across`, of shape (H, W, B), are in pixels from the upper left one.
        """
        batch, height, width, channels = images.shape
        # A frame of zeros, in which all places outside come to lie.
        framed = np.zeros((height + 3, width + 3, batch, channels), self.dtype)
        framed[1:-2, 1:-2] = images.transpose(1, 2, 0, 3)
        if images.dtype == np.uint8:
            framed /= 255
        framed = framed.reshape(-1, channels)
        down, across = down + 1, across + 1
        np.clip(down, 0, height + 1, out=down)
        np.clip(across, 0, width + 1, out=across)
        top, left = np.floor(down), np.floor(across)
        corner = top.astype(np.intp)
        corner *= width + 3
        corner += left.astype(np.intp)
        corner *= batch
        corner += np.arange(batch)
        down -= top
        across -= left

        def mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
            """Return the mean of two, of which the second has `share`; in its place."""
            second -= first
            second *= share[..., np.newaxis]
            second += first
            return second

        row = (width + 3) * batch
        upper = mix(framed.take(corner, 0), framed.take(corner + batch, 0), across)
        corner += row
        lower = mix(framed.take(corner, 0), framed.take(corner + batch, 0), across)
        return mix(upper, lower, down).transpose(2, 0, 1, 3)

    # ---------------------------------------------------------------- Learning

    def fit(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        epochs: int | None = None,
        validation_data: tuple[np.ndarray, np.ndarray] | None = None,
        verbose: int = 1,
    ) -> HandwrittenNumberClassification:
        """Train by stochastic gradient descent, on from the present parameters.

        Each epoch goes once through the images in a newly drawn order; the last batch
        may be a short one. Loss and accuracy in `history` are means over the epoch's
        batches, each taken before the step that it led to.

        Parameters
        ----------
        images : array of shape (B, H, W, C) or, with one channel, (B, H, W)
            uint8, which is divided by 255, or floats, which are used as they are. Of
            any number, `np.memmap` included: only one batch at a time is copied.
        labels : int array of shape (B,)
        epochs : int, optional
            The setting of this name where it is left out.
        validation_data : (images, labels), optional
            Evaluated after each epoch; nothing is learned from them.
        verbose : {0, 1}
            0 is silent; 1 shows a progress bar, and a line for each epoch.

        Raises
        ------
        ValueError, TypeError
            If an argument is wrong; before anything is changed.
        FloatingPointError
            If the training diverges; the parameters are those from before that epoch.
        """
        self._check_settings()
        images, labels = self._check_examples(images, labels)
        if validation_data is not None:
            validation_data = self._check_validation(validation_data)
        epochs = self.epochs if epochs is None else epochs
        _check_integer("epochs", epochs, 1)
        steps = self._plan_steps(epochs * math.ceil(len(images) / self.batch_size))
        self._mean = {}
        with self._progress_bar(epochs * len(images), verbose) as bar:
            for epoch in range(1, epochs + 1):
                bar.set_description_str(f"epoch {epoch}/{epochs}")
                results = self._train_epoch(images, labels, steps, bar)
                if epoch == epochs:
                    self._take_mean()
                if validation_data is not None:
                    validation = self.evaluate(*validation_data)
                    results |= dict(
                        zip(("val_loss", "val_accuracy"), validation, strict=True)
                    )
                self._record(results)
                if verbose:
                    bar.write(_epoch_line(epoch, epochs, results))
        return self

    def partial_fit(
        self, images: np.ndarray, labels: np.ndarray
    ) -> HandwrittenNumberClassification:
        """Train silently for one pass over `images`, on from where training stands.

        Momentum lives on from call to call; a one-cycle schedule is one cycle a call.
        Arguments and errors are those of `fit`.
        """
        return self.fit(images, labels, epochs=1, verbose=0)

    def _record(self, results: dict[str, float]) -> None:
        """Add an epoch's results to the history; all of its lists stay equally long."""
        earlier = len(self.history["loss"])
        for name in self.history | results:
            values = self.history.setdefault(name, [None] * earlier)
            values.append(results.get(name))

    def _train_epoch(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        steps: Iterator[tuple[float, float]],
        bar: Any,
    ) -> dict[str, float]:
        """Take one pass over all images; return mean loss, accuracy and seconds."""
        before = {name: array.copy() for name, array in self.parameters.items()}
        started, loss, hits, seen = time.perf_counter(), 0.0, 0, 0
        order = self._generator.permutation(len(images))
        # What overflows is told of below, in better words than NumPy's warnings.
        with np.errstate(over="ignore", invalid="ignore"), self._reusing_arrays():
            for start in range(0, len(images), self.batch_size):
                batch = order[start : start + self.batch_size]
                chosen = images[batch]
                if self.augment:
                    chosen = self.distort(chosen, float(self.augment), self._generator)
                rate, share = next(steps)
                batch_loss, batch_hits = self._train_batch(
                    self._batch(chosen), labels[batch], rate
                )
                self._average_parameters(share)
                seen, hits = seen + len(batch), hits + batch_hits
                loss += batch_loss * len(batch)
                if not math.isfinite(loss):
                    break
                if bar.update(len(batch)):
                    bar.set_postfix_str(
                        f"loss {loss / seen:.3f}, accuracy {hits / seen:.1%}"
                    )
        self._check_convergence(loss, before)
        seconds = time.perf_counter() - started
        return {"loss": loss / seen, "accuracy": hits / seen, "seconds": seconds}

    def _train_batch(
        self, images: np.ndarray, labels: np.ndarray, rate: float
    ) -> tuple[float, int]:
        """Take one step down the gradient; return the loss and the hits before it."""
        probabilities, gradients = self._backward(images, labels)
        self._update_parameters(gradients, rate)
        hits = int((probabilities.argmax(axis=1) == labels).sum())
        return self.compute_loss(probabilities, labels), hits

    def _update_parameters(self, gradients: dict[str, np.ndarray], rate: float) -> None:
        """Step down the gradients: ``v = m v - rate g``, then ``w += m v - rate g``.

        This is Nesterov's momentum m; without it, ``w -= rate g``.
        """
        momentum, decay = float(self.momentum), float(self.weight_decay)
        for name, parameter in self.parameters.items():
            gradient, velocity = gradients[name], self._velocity[name]
            if decay and not name.startswith(("biases", "B_")):
                gradient = gradient + decay * parameter
            step = np.multiply(gradient, -rate, out=gradient)
            if momentum:
                velocity *= momentum
                velocity += step
                step += momentum * velocity
            parameter += step

    def _plan_steps(self, steps: int) -> Iterator[tuple[float, float]]:
        """Yield each step's learning rate, and its share in the mean up to it.

        The cycle's two zeros lie just outside of it. Of the steps that are averaged,
        the n-th has the share 1 / n; before them it is 0.
        """
        not_averaged = math.floor(steps * (1 - self.averaging))
        for step in range(1, steps + 1):
            done = step / (steps + 1)
            cycle = min(done / 0.3, (1 - done) / 0.7)
            rate = float(self.lr * (cycle if self.schedule == "one-cycle" else 1))
            yield rate, 1 / (step - not_averaged) if step > not_averaged else 0.0

    def _average_parameters(self, share: float) -> None:
        """Move the mean towards the parameters by `share` of the way.

        The mean of what descent passes through lies nearer to the middle of the valley
        than any step (Polyak, Juditsky: Acceleration of stochastic approximation by
        averaging, SIAM J. Control and Optimization 30, 1992).
        """
        if share == 1:
            self._mean = {name: array.copy() for name, array in self.parameters.items()}
        elif share:
            for name, array in self.parameters.items():
                mean = self._mean[name]
                mean += (array - mean) * share

    def _take_mean(self) -> None:
        """Put the mean in place of the parameters, where there is one."""
        for name, mean in self._mean.items():
            self.parameters[name][...] = mean
        self._mean = {}

    def _check_convergence(self, loss: float, before: dict[str, np.ndarray]) -> None:
        """Take an epoch back that led to a loss or parameters that are not finite."""
        finite = all(np.isfinite(array).all() for array in self.parameters.values())
        if math.isfinite(loss) and finite:
            return
        for name, array in self.parameters.items():
            array[...] = before[name]
            self._velocity[name][...] = 0
        raise FloatingPointError(
            f"lr must be small enough for training to converge; got {self.lr}, which "
            "led to infinite numbers; the parameters are those from before this epoch"
        )

    @staticmethod
    def _progress_bar(total: int, verbose: int) -> Any:
        """Return a bar that counts images, for a terminal or a notebook."""
        if not verbose:
            from tqdm import tqdm

            return tqdm(disable=True)
        from tqdm.auto import tqdm

        # None: no bar where nobody looks on, as in a file or a pipe. A notebook's text
        # output looks like one to tqdm.
        hidden = False if "ipykernel" in sys.modules else None
        layout = (
            "{desc} {percentage:3.0f}%|{bar}| {remaining} left, {rate_fmt}{postfix}"
        )
        options = {"unit": " images", "unit_scale": True, "leave": False}
        return tqdm(total=total, disable=hidden, bar_format=layout, **options)

    # ---------------------------------------------------------------- Use

    def predict_proba(self, images: np.ndarray) -> np.ndarray:
        """Return the probability of each class, (B, N), for any number of images."""
        images = self._check_images(images)
        result, done = np.empty((len(images), len(self.B_dense)), self.dtype), 0
        with self._reusing_arrays(len(images) > self._AT_ONCE):
            for probabilities in self._probabilities(images):
                result[done : done + len(probabilities)] = probabilities
                done += len(probabilities)
        return result

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the most probable class of each image, int of shape (B,)."""
        return self.predict_proba(images).argmax(axis=1)

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        """Return mean loss (nats) and accuracy (0..1) over any number of images."""
        images, labels = self._check_examples(images, labels)
        loss, hits, seen = 0.0, 0, 0
        with self._reusing_arrays(len(images) > self._AT_ONCE):
            for probabilities in self._probabilities(images):
                part = labels[seen : seen + len(probabilities)]
                loss += self.compute_loss(probabilities, part) * len(part)
                hits += int((probabilities.argmax(axis=1) == part).sum())
                seen += len(part)
        return loss / seen, hits / seen

    def score(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Return the accuracy, 0..1, as in scikit-learn."""
        return self.evaluate(images, labels)[1]

    _AT_ONCE = 100  # images in one batch of a prediction: little memory, warm caches

    def _probabilities(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the probabilities of one batch after the other."""
        for start in range(0, len(images), self._AT_ONCE):
            batch = self._batch(images[start : start + self._AT_ONCE])
            yield self._forward(batch, with_mask=False)[0]

    @staticmethod
    def prepare_image(image: np.ndarray) -> np.ndarray:
        """Turn a picture of one digit into what MNIST's digits look like.

        MNIST's own procedure (LeCun et al. 1998, section III.A): light strokes on
        black, cropped to the ink, scaled into 20x20 pixels with its proportions kept,
        its centre of mass put into the middle of 28x28. The strongest ink becomes 1.

        Parameters
        ----------
        image : uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)
            Grey, RGB or RGBA; dark on light or light on dark.

        Returns
        -------
        float32 array of shape (1, 28, 28, 1), in 0..1

        Raises
        ------
        ValueError, TypeError
            If `image` is no such array, or shows no ink.
        """
        image = np.asarray(image)
        if image.dtype != np.uint8:
            raise TypeError(f"image must be uint8; got dtype {image.dtype}")
        if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,), (4,)):
            required = "image must have shape (H, W), (H, W, 3) or (H, W, 4)"
            raise ValueError(f"{required}; got {image.shape}")
        if image.size == 0:
            raise ValueError(f"image must hold pixels; got shape {image.shape}")
        digit = _fit_into_box(_find_ink(_to_grey(image)))
        prepared = np.zeros((1, 28, 28, 1), np.float32)
        places = []
        for axis, side in enumerate(digit.shape):
            centre = np.average(np.arange(side), weights=digit.sum(axis=1 - axis))
            # The middle of MNIST's fields is pixel 14, counted from 0.
            start = min(max(round(14 - centre), 0), 28 - side)
            places.append(slice(start, start + side))
        prepared[0, places[0], places[1], 0] = digit
        return prepared

    def save(self, path: str | os.PathLike) -> None:
        """Write settings, parameters and history to one ``.npz`` file, without pickle.

        The file is written beside `path`, then renamed: there is never half a file. A
        loaded model trains on from its parameters, with shuffling and momentum begun
        anew.
        """
        settings = self.get_params() | {"dtype": np.dtype(self.dtype).name}
        texts = {"format_version": 1, "settings": settings, "history": self.history}
        texts = {
            name: json.dumps(t, default=np.generic.item) for name, t in texts.items()
        }
        path = Path(path)
        if not path.parent.is_dir():
            required = "path must lie in a folder that exists"
            raise FileNotFoundError(f"{required}; got {os.fspath(path)!r}")
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                np.savez(file, allow_pickle=False, **texts, **self.parameters)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> HandwrittenNumberClassification:
        """Return the model that `save` wrote to `path`.

        Raises
        ------
        OSError
            If the file cannot be opened.
        ValueError
            If it is no model file, or its arrays are not those of its architecture.
        """
        with open(path, "rb") as file:
            try:
                return cls._read_model(file)
            except Exception as error:  # Whatever a damaged file may lead to.
                required = "path must be a model file, as save() writes it"
                got = f"{os.fspath(path)!r}: {error or type(error).__name__}"
                raise ValueError(f"{required}; got {got}") from error

    @classmethod
    def _read_model(cls, file: IO[bytes]) -> HandwrittenNumberClassification:
        """Read and check a model file; what is wrong is raised as some error."""
        arrays = read_arrays(file)
        version, settings, history = (
            json.loads(str(arrays.pop(name)))
            for name in ("format_version", "settings", "history")
        )
        if version != 1:
            raise ValueError(f"format version {version} where 1 is known")
        settings["dtype"] = np.dtype(settings["dtype"]).type
        settings["input_shape"] = tuple(settings["input_shape"])
        cls._check_size(arrays, settings["architecture"], settings["input_shape"])
        model = cls(**settings)  # What an older file does not know, keeps its default.
        model._take_parameters(arrays)
        model._take_history(history)
        return model

    @classmethod
    def _check_size(
        cls,
        arrays: dict[str, np.ndarray],
        architecture: str,
        input_shape: tuple[int, int, int],
    ) -> None:
        """Raise if `arrays` are too small for a network, before any memory is its."""
        layers = cls._read_architecture(architecture, input_shape)
        needed = sum(layer.parameters for layer in layers)
        got = sum(array.size for array in arrays.values())
        if got < needed:
            required = f"at least {needed:,} numbers for {architecture}"
            raise ValueError(f"arrays must be {required}; got {got:,}")

    def _take_parameters(self, arrays: dict[str, np.ndarray]) -> None:
        """Put `arrays` in place of the parameters, once they fit the architecture."""
        if arrays.keys() != self.parameters.keys():
            names, got = list(self.parameters), list(arrays)
            raise ValueError(
                f"arrays must be {names} for {self.architecture}; got {got}"
            )
        for name, parameter in self.parameters.items():
            array = arrays[name]
            if array.shape != parameter.shape or array.dtype != parameter.dtype:
                required = f"{parameter.dtype} of shape {parameter.shape}"
                got = f"{array.dtype} of shape {array.shape}"
                raise ValueError(f"{name} must be {required}; got {got}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite; got nan or inf")
            parameter[...] = array

    def _take_history(self, history: dict[str, list[float]]) -> None:
        """Put `history` in place of the present one, once it can be one."""
        known = ("loss", "accuracy", "seconds", "val_loss", "val_accuracy")
        if not self.history.keys() <= history.keys() <= set(known):
            raise ValueError(f"history must have names from {known}; got {[*history]}")
        for name, values in history.items():
            numbers_only = all(isinstance(v, (int, float)) or v is None for v in values)
            if not numbers_only or len(values) != len(history["loss"]):
                raise ValueError(f"history must have a number an epoch; not in {name}")
        self.history = history

    def to_keras(self) -> keras.Model:
        """Return the same network, with the same parameters, as a Keras model.

        Needs TensorFlow. Kernels (F, C, K_h, K_w) become Keras's (K_h, K_w, C, F).
        """
        from tensorflow import keras

        dtype = np.dtype(self.dtype).name
        model = keras.Sequential([keras.Input(self.input_shape, dtype=dtype)])
        for layer in self.layers[:-1]:
            if layer.kind == "pooling":
                model.add(
                    keras.layers.MaxPooling2D(layer.window, layer.stride, dtype=dtype)
                )
                continue
            if layer.padding:
                model.add(keras.layers.ZeroPadding2D(layer.padding, dtype=dtype))
            filters = layer.output_shape[2]
            model.add(
                keras.layers.Conv2D(
                    filters, layer.window, layer.stride, activation="relu", dtype=dtype
                )
            )
        model.add(keras.layers.Flatten(dtype=dtype))
        model.add(
            keras.layers.Dense(len(self.B_dense), activation="softmax", dtype=dtype)
        )
        weights = list(self.parameters.values())
        model.set_weights(
            [w.transpose(2, 3, 1, 0) if w.ndim == 4 else w for w in weights]
        )
        return model

    @classmethod
    def from_keras(
        cls, model: keras.Model, **settings: Any
    ) -> HandwrittenNumberClassification:
        """Return the network of a Keras model, with its parameters, as this class.

        Parameters
        ----------
        model : keras.Model
            A chain of Conv2D, MaxPooling2D, Flatten and Dense layers: as `to_keras`
            makes them, and what amounts to the same. ReLU follows all but the last,
            softmax the last. Dropout, which is for training only, is left out.
        **settings
            Of the class, beside `architecture` and `input_shape`.

        Raises
        ------
        ValueError
            If a layer cannot be taken; it is named, with the reason.
        """
        read = _KerasReader(model)
        tokens, arrays = read.tokens, read.arrays
        settings.setdefault(
            "dtype", np.float64 if arrays[0].dtype == np.float64 else np.float32
        )
        shape = tuple(model.inputs[0].shape[1:])
        network = cls("-".join(tokens), input_shape=shape, **settings)
        arrays = [array.astype(network.dtype) for array in arrays]
        network._take_parameters(dict(zip(network.parameters, arrays, strict=True)))
        return network

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn, which alone asks for it, that this is a classifier."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, three_d_array=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        """Tell scikit-learn that there are parameters, which is so from the start."""
        return True

    @property
    def classes_(self) -> np.ndarray:
        """The labels, int of shape (N,), by scikit-learn's name."""
        return np.arange(len(self.B_dense))

    def __getstate__(self) -> dict[str, Any]:
        """Pickle and copy a model without the mask of its last batch."""
        return vars(self) | {"binary_max_pool": None, "_mean": {}}

    # ---------------------------------------------------------------- Looking inside

    def __repr__(self) -> str:
        """Show the settings that differ from the defaults."""
        defaults = inspect.signature(type(self).__init__).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if name != "architecture" and value != defaults[name].default
        ]
        return (
            f"{type(self).__name__}({', '.join([repr(self.architecture), *changed])})"
        )

    def summary(self) -> str:
        """Return a table of the layers: what each does, its map, parameters, work."""
        rows = self._summary_rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        justify = (str.ljust, str.ljust, str.ljust, str.rjust, str.rjust)
        lines = [
            "  ".join(
                place(cell, n)
                for place, cell, n in zip(justify, row, widths, strict=True)
            )
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        """Show the table of `summary` where a notebook names the model."""
        head, *rows = (
            "".join(f"<td>{cell}</td>" for cell in row) for row in self._summary_rows()
        )
        head = head.replace("td>", "th>")
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _summary_rows(self) -> list[tuple[str, ...]]:
        """Return the cells of the summary, the head first."""
        rows = [("layer", "step", "output", "parameters", "multiply-adds")]
        rows.append(("", "images", _times(self.input_shape), "", ""))
        for layer in self.layers:
            steps = {
                "convolution": f"{layer.name} {_times(layer.window)}, ReLU",
                "pooling": f"max pooling {_times(layer.window)}",
                "dense": "flatten, dense, softmax",
            }
            options = f", stride {layer.stride}" if layer.stride > 1 else ""
            options += f", padding {layer.padding}" if layer.padding else ""
            counts = (f"{n:,}" for n in (layer.parameters, layer.multiply_adds))
            step = steps[layer.kind] + options
            rows.append((layer.token, step, _times(layer.output_shape), *counts))
        work = [(layer.parameters, layer.multiply_adds) for layer in self.layers]
        totals = (f"{sum(counts):,}" for counts in zip(*work, strict=True))
        return [*rows, ("total", "", "", *totals)]

    def plot_history(self, figure: Figure | None = None) -> Figure:
        """Draw loss and accuracy by epoch, of training and, where known, validation."""
        figure = _new_figure(9, 3.6) if figure is None else figure
        panels = figure.subplots(1, 2)
        for panel, quantity in zip(panels, ("loss", "accuracy"), strict=True):
            scale = 100 if quantity == "accuracy" else 1
            for prefix, label, style in (
                ("", "training (mean over the epoch)", "o-"),
                ("val_", "validation (after the epoch)", "s--"),
            ):
                values = np.array(self.history.get(prefix + quantity, []), float)
                if len(values):
                    epochs = np.arange(1, len(values) + 1)
                    panel.plot(epochs, scale * values, style, label=label)
                    panel.legend()
            panel.set_title(quantity.capitalize())
            panel.set_xlabel("epoch")
            smoothed = ", labels smoothed" if self.label_smoothing else ""
            loss = f"loss (nats{smoothed})"
            panel.set_ylabel("accuracy (%)" if scale == 100 else loss)
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.grid(alpha=0.3)
            if not self.history["loss"]:
                panel.set(xticks=[], yticks=[])
                panel.text(0.5, 0.5, "no epoch is finished yet", ha="center")
        return figure

    def plot_distortions(
        self, images: np.ndarray, strength: float = 1.0, figure: Figure | None = None
    ) -> Figure:
        """Draw up to 6 images, each beside 9 of what `distort` makes of it."""
        images = self._check_images(images)[:6]
        figure = _new_figure(8, 0.5 + 0.8 * len(images)) if figure is None else figure
        figure.suptitle(f"As they are, and distorted at strength {strength:g}")
        generator = np.random.default_rng(self.seed)
        distorted = (self.distort(images, strength, generator) for _ in range(9))
        columns = [images, *distorted]
        panels = figure.subplots(len(images), len(columns), squeeze=False)
        for column, versions in enumerate(columns):
            for panel, image in zip(panels[:, column], versions, strict=True):
                panel.imshow(np.squeeze(image), cmap="gray", vmin=0)
                panel.set_axis_off()
        return figure

    def trace_steps(
        self, image: np.ndarray, label: int | None = None
    ) -> tuple[list[tuple], list[tuple]]:
        """Return what each step makes of one image and, with its label, the way back.

        Parameters
        ----------
        image : array of shape (H, W), (H, W, C), (1, H, W) or (1, H, W, C)
        label : int, optional
            What the image shows; without it, there is no way back.

        Returns
        -------
        forward, back : lists of (title, array, mark)
            In the order of the steps. Maps are of shape (H, W, C), gradients of kernels
            (F, C, K_h, K_w), the flattened (D,), the probabilities (N,). `mark` is None
            but for maps that are pooled next, where it shows the winners, bool of shape
            (H, W, C), and for the probabilities, where it is the label.
        """
        image, shape = np.asarray(image), tuple(self.input_shape)
        if image.shape in (shape, shape[:2]):
            image = image[np.newaxis]
        image = self._check_images(image, "image")
        if len(image) != 1:
            raise ValueError(f"image must be a single one; got {len(image)}")
        forward, back = [("image", image[0], None)], []

        def watch_forward(kind: str, layer: SimpleNamespace, x: np.ndarray) -> None:
            """Note what a step has made, and which maps before it have won."""
            if kind == "pooling":
                winners = self.unpool(np.ones_like(x))[0] > 0
                forward[-1] = (*forward[-1][:2], winners)
            titles = {
                "convolution": f"{layer.token}: {layer.name}",
                "pooling": f"{layer.token}: max pooling",
                "flatten": "flattened",
            }
            forward.append((titles.get(kind, "bias, ReLU"), x[0].copy(), None))

        def watch_back(kind: str, layer: SimpleNamespace, d: np.ndarray) -> None:
            """Note the gradient that a step back has made."""
            titles = {
                "convolution": f"by the input of {layer.token}",
                "kernel": f"by the kernels of {layer.token}",
                "pooling": f"by the input of {layer.token}, unpooled",
                "flatten": "by the flattened",
            }
            title = titles.get(kind, "by the input of ReLU")
            back.append((title, d.copy() if kind == "kernel" else d[0].copy(), None))

        batch = self._batch(image)
        probabilities = self._forward(batch, watch=watch_forward)[0]
        forward.append(("probabilities", probabilities[0], label))
        if label is not None:
            labels = self._check_labels(
                np.array([label]), 1, len(self.B_dense), "label"
            )
            self._backward(batch, labels, watch_back)
        return forward, back

    def plot_steps(
        self, image: np.ndarray, label: int | None = None, figure: Figure | None = None
    ) -> Figure:
        """Draw one image on its way through the network, and its gradients' way back.

        Parameters
        ----------
        image, label
            As in `trace_steps`, which returns what is drawn here.
        figure : Figure, optional
        """
        forward, back = self.trace_steps(image, label)
        probabilities = forward[-1][1]
        rows = [math.ceil(len(steps) / 5) for steps in (forward, back) if steps]
        figure = _new_figure(13, 2.9 * sum(rows)) if figure is None else figure
        parts = figure.subfigures(len(rows), 1, height_ratios=rows, squeeze=False)
        seen = f"seen as {probabilities.argmax()} ({probabilities.max():.1%})"
        scale = "each panel has its own scale, from blue below 0 to red above"
        titles = [f"The way of an image, {seen}; {scale}"]
        titles.append(f"The way back: derivatives of the loss, the label being {label}")
        for part, steps, count, title in zip(
            parts.ravel(), (forward, back), rows, titles, strict=False
        ):
            part.suptitle(title)
            panels = part.subplots(count, 5, squeeze=False).ravel()
            for panel in panels[len(steps) :]:
                panel.set_axis_off()
            for number, (panel, step) in enumerate(zip(panels, steps, strict=False)):
                _draw_step(panel, number, *step)
        return figure

    @staticmethod
    def lay_out_maps(maps: np.ndarray) -> np.ndarray:
        """Return up to 64 maps, (H, W, C), as one picture, with nan between them.

        As `plot_steps` shows them; a single map is its own picture.
        """
        tiles = maps.transpose(2, 0, 1)[:64, np.newaxis]
        return _lay_out_tiles(tiles, 1) if len(tiles) > 1 else tiles[0, 0]

    def plot_kernels(self, layer: int = 0, figure: Figure | None = None) -> Figure:
        """Draw the kernels of convolution `layer`, counted from 0, one tile each.

        A kernel of several channels is a column of tiles. Without any convolution the
        weights of the dense layer are drawn, which are kernels as large as the map.
        """
        if self.kernels:
            tokens = [la.token for la in self.layers if la.kind == "convolution"]
            kernels, name = self.kernels[layer], f"Kernels of {tokens[layer]}"
        else:
            maps = self.W_dense.reshape(*self.layers[-1].input_shape, -1)
            kernels = maps.transpose(3, 2, 0, 1)
            name = f"Weights of {self.layers[-1].token}"
        filters, channels, height, width = kernels.shape
        mosaic, largest = _lay_out_tiles(kernels), np.abs(kernels).max()
        if figure is None:
            high = 6.4 * mosaic.shape[0] / mosaic.shape[1] * 0.8 + 0.6
            figure = _new_figure(6.4, min(max(high, 2), 9))
        panel = figure.subplots()
        shown = panel.imshow(mosaic, cmap="coolwarm", vmin=-largest, vmax=largest)
        panel.set(xticks=[], yticks=[], facecolor="white")
        panel.set_title(f"{name}: {filters} of {_times((height, width, channels))}")
        figure.colorbar(shown, ax=panel, label="weight")
        return figure

    def plot_confusion(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        probabilities: np.ndarray | None = None,
        figure: Figure | None = None,
    ) -> Figure:
        """Draw how often each class was read as which; the colour shows the errors.

        `probabilities` is what `predict_proba` made of the images, where it is there
        already.
        """
        figure = _new_figure(6.4, 5.6) if figure is None else figure
        probabilities = (
            self.predict_proba(images) if probabilities is None else probabilities
        )
        classes = probabilities.shape[1]
        counts = np.zeros((classes, classes), int)
        np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
        errors = np.ma.array(counts, mask=np.eye(classes, dtype=bool))
        panel = figure.subplots()
        panel.set_facecolor("0.88")  # of the diagonal, where nothing is wrong
        shown = panel.imshow(errors, cmap="Blues", vmin=0, vmax=max(1, errors.max()))
        for true, seen in zip(*np.nonzero(counts), strict=True):
            dark = true != seen and counts[true, seen] > 0.6 * errors.max()
            style = {"color": "white" if dark else "black", "size": 8}
            style |= {"ha": "center", "va": "center"}
            panel.text(seen, true, counts[true, seen], **style)
        accuracy = counts.trace() / counts.sum()
        title = f"{counts.sum():,} images, {accuracy:.2%} read right (diagonal)"
        panel.set_title(title)
        panel.set(
            xticks=range(classes), yticks=range(classes), xlabel="seen", ylabel="true"
        )
        figure.colorbar(shown, ax=panel, label="errors (images)", shrink=0.8)
        return figure

    def plot_mistakes(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        probabilities: np.ndarray | None = None,
        figure: Figure | None = None,
    ) -> Figure:
        """Draw up to 24 misread images, the most confident first: seen and true class.

        `probabilities` is what `predict_proba` made of the images, where it is there
        already.
        """
        probabilities = (
            self.predict_proba(images) if probabilities is None else probabilities
        )
        seen, labels = probabilities.argmax(axis=1), np.asarray(labels)
        wrong = np.flatnonzero(seen != labels)
        wrong = wrong[np.argsort(-probabilities[wrong, seen[wrong]], kind="stable")]
        rows = min(max(math.ceil(len(wrong) / 6), 1), 4)
        figure = _new_figure(8, 0.5 + 1.4 * rows) if figure is None else figure
        figure.suptitle(
            f"{len(wrong):,} of {len(labels):,} images misread"
            + (", the most confident errors first" if len(wrong) else "")
        )
        panels = figure.subplots(rows, 6).ravel()
        for panel in panels:
            panel.set_axis_off()
        for panel, index in zip(panels, wrong, strict=False):
            panel.imshow(np.squeeze(images[index]), cmap="gray")
            confidence = probabilities[index, seen[index]]
            panel.set_title(
                f"seen {seen[index]} ({confidence:.1%})\ntrue {labels[index]}", size=9
            )
        return figure


# -------------------------------------------------------------------- Small helpers


def read_arrays(
    file: IO[bytes], names: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` file by name: all, or those of `names`.

    The file may be a stranger's: nothing is unpickled or written, and no array is made
    before its size is known, and known to be there.

    Raises
    ------
    Exception
        Of any kind, if the file is damaged; ValueError if it is none to be trusted.
    """
    if not zipfile.is_zipfile(file):
        raise ValueError("this is no .npz file")
    packed = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        found = {entry.filename.removesuffix(".npy"): entry for entry in entries}
        if len(found) < len(entries):
            raise ValueError("each array must be there once; got several of one name")
        chosen = {name: found[name] for name in (found if names is None else names)}
        check_unpacked(sum(entry.file_size for entry in chosen.values()), packed)
        return {name: _read_array(archive, entry) for name, entry in chosen.items()}


def check_unpacked(unpacked: int, packed: int) -> None:
    """Raise if a file claims to hold far more bytes than data of our kind would.

    MNIST unpacks to 5 times its size. A file that is small anyway may hold 1 MB.
    """
    most = max(10 * packed, 1_000_000)
    if unpacked > most:
        required = f"a file of {packed:,} bytes must unpack to at most {most:,}"
        raise ValueError(f"{required}; got {unpacked:,}")


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """Read one array, once its header agrees with the archive about its size."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Of these alone zipfile unpacks no more than it is asked for.
        required = f"{entry.filename} must be stored or deflated"
        raise ValueError(f"{required}; got compression {entry.compress_type}")
    with archive.open(entry) as stream:
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[np.lib.format.read_magic(stream)]
        shape, _, dtype = read_header(stream)
        size = math.prod(shape) * dtype.itemsize
        left = entry.file_size - stream.tell()
        if dtype.kind not in "biufU" or not 0 < size == left:
            required = f"{entry.filename} must hold numbers or text, {left:,} bytes"
            raise ValueError(f"{required}; got {dtype} of shape {shape}")
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)


def _windows(
    tensor: np.ndarray, window: tuple[int, int], stride: int, counts: tuple[int, int]
) -> np.ndarray:
    """View a tensor (B, H, W, C) as its windows: axes (K_h, K_w, C, H', W', B).

    Nothing is copied: a pixel stands in the view as often as windows see it. ``[i, j]``
    is what is at place (i, j) of every window at once, so that a loop over the few
    places of one window stands for one over all windows of all images.
    """
    image, down, across, channel = tensor.strides
    return as_strided(
        tensor,
        (*window, tensor.shape[3], *counts, len(tensor)),
        (down, across, channel, stride * down, stride * across, image),
    )


def _overlap(window: tuple[int, int], stride: int, counts: tuple[int, int]) -> bool:
    """Return whether a pixel can stand in more than one window."""
    return any(
        stride < side and count > 1 for side, count in zip(window, counts, strict=True)
    )


def _window_counts(
    size: tuple[int, int], window: tuple[int, int], stride: int, padding: int
) -> tuple[int, int]:
    """Return how many windows fit below and beside each other: H', W'."""
    rows = (size[0] + 2 * padding - window[0]) // stride + 1
    columns = (size[1] + 2 * padding - window[1]) // stride + 1
    return rows, columns


def _fit_windows(
    name: str,
    size: tuple[int, int],
    window: tuple[int, int],
    stride: int,
    padding: int = 0,
) -> tuple[int, int]:
    """Return H', W', or raise where stride or padding is wrong or no window fits."""
    _check_integer("stride", stride, 1)
    _check_integer("padding", padding, 0)
    counts = _window_counts(size, window, stride, padding)
    if min(counts) < 1:
        frame = f" with padding {padding}" if padding else ""
        raise ValueError(
            f"{name} must hold a window {_times(window)}{frame}; got {_times(size)}"
        )
    return counts


class _KerasReader:
    """Reads a Keras model layer by layer: `tokens` of the notation, and `arrays`."""

    def __init__(self, model: keras.Model) -> None:
        self.tokens: list[str] = []
        self.arrays: list[np.ndarray] = []
        self.padding, self.activation = 0, "relu"  # so far, and of the last layer
        flow = (getattr(model, "inputs", None) or [None])[0]
        if flow is None or len(flow.shape) != 4:
            got = "no input yet" if flow is None else f"shape {flow.shape}"
            raise ValueError(f"model must take images (B, H, W, C); got {got}")
        sequential = type(model).__name__ == "Sequential"
        self.maps = flow.shape[1:]  # what a Flatten layer has flattened
        weighted = [layer for layer in model.layers if layer.weights]
        for layer in model.layers:
            self.layer, self.config = layer, layer.get_config()
            self.kind, self.last = type(layer).__name__, layer in weighted[-1:]
            if self.kind != "InputLayer":
                follows = sequential or layer.input is flow
                self.require(follows, "it must follow the one before it")
                flow = layer.output
                getattr(self, f"read_{self.kind}", self.refuse)()
        self.require(self.activation == "softmax", "softmax must come last")

    def require(self, holds: bool, what: str) -> None:
        """Raise, naming the present layer and why, unless it `holds`."""
        known = "Conv2D, MaxPooling2D, Flatten and Dense layers"
        if not holds:
            raise ValueError(
                f"model must be a chain of {known} that this class has, too; "
                f"got {self.layer.name!r} ({self.kind}): {what}"
            )

    def refuse(self) -> None:
        """Refuse a kind of layer that this class has not."""
        self.require(False, "there is no such layer")

    def read_Dropout(self) -> None:
        """Leave it out: it does nothing in prediction."""

    def read_Flatten(self) -> None:
        """Go on; Dense knows what was flattened."""
        self.require_channels_last()
        self.require(not self.padding, "padding must be followed by Conv2D")

    def read_ZeroPadding2D(self) -> None:
        """Keep the padding for the convolution that must follow."""
        self.require_channels_last()
        sides = {side for pair in self.config["padding"] for side in pair}
        self.require(len(sides) == 1, "padding must be the same on all sides")
        self.padding += sides.pop()

    def read_Conv2D(self) -> None:
        """Take a convolution; one that covers the whole map is a hidden dense layer."""
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
        """Take a pooling."""
        window, stride = self.read_window("pool_size")
        self.require(window[0] == window[1], "its window must be square")
        self.require(self.config["padding"] == "valid", "padding must be 'valid'")
        self.require(not self.padding, "padding must be followed by Conv2D")
        self.tokens.append(f"MP{window[0]}s{stride}")
        self.maps = self.layer.output.shape[1:]

    def read_Dense(self) -> None:
        """Take a dense layer; a hidden one becomes a convolution."""
        self.require(len(self.layer.input.shape) == 2, "its input must be flattened")
        kernel = self.layer.get_weights()[0]
        units = kernel.shape[1]
        if not self.last:  # Ours covers the whole map.
            kernel = kernel.reshape(*self.maps, units).transpose(3, 2, 0, 1)
        self.take(f"{units}N", kernel)
        self.maps = (1, 1, units)

    def read_Activation(self) -> None:
        """Take the activation of a layer before that has none of its own."""
        self.require(self.activation == "linear", "one activation must be enough")
        self.activation = self.config.get("activation", self.kind.lower())

    def read_ReLU(self) -> None:
        """Take ReLU as a layer."""
        plain = {"max_value": None, "negative_slope": 0, "threshold": 0}
        self.require(plain.items() <= self.config.items(), "it must be plain ReLU")
        self.read_Activation()

    def read_Softmax(self) -> None:
        """Take softmax as a layer."""
        self.require(self.config["axis"] == -1, "axis must be -1")
        self.read_Activation()

    def read_window(self, name: str) -> tuple[tuple[int, int], int]:
        """Return the window and the one stride of the present layer."""
        self.require_channels_last()
        strides = self.config["strides"]
        self.require(strides[0] == strides[1], "its strides must be equal")
        return tuple(self.config[name]), strides[0]

    def require_channels_last(self) -> None:
        """Refuse maps of another order than (B, H, W, C)."""
        order = self.config["data_format"]
        self.require(order == "channels_last", "data_format must be channels_last")

    def take(self, token: str, kernel: np.ndarray) -> None:
        """Take a layer's kernel, in our axes, and its biases, which may be none."""
        self.require(self.activation == "relu", "ReLU must come before it")
        self.tokens.append(token)
        biases = self.layer.get_weights()[1:]
        self.arrays += [kernel, *(biases or [np.zeros(self.layer.output.shape[-1])])]
        self.activation = self.config["activation"]


def _smoothing(side: int, dtype: np.dtype) -> np.ndarray:
    """Return the matrix that averages along an axis, by a Gaussian of std 4 pixels."""
    distance = np.arange(side)[:, np.newaxis] - np.arange(side)
    weights = np.exp(-0.5 * (distance / 4) ** 2) / (4 * math.sqrt(2 * math.pi))
    return weights.astype(dtype)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an array to be filled that begins on a line of the processor's cache.

    Else every second vector that is loaded or stored lies across two lines, and steps
    that only move numbers take up to a third longer.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.__array_interface__["data"][0] % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """Return an int or a pair of them as a pair."""
    pair = (value, value) if isinstance(value, (int, np.integer)) else value
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f"{name} must be an int or a pair; got {value!r}")
    for side in pair:
        _check_integer(name, side, 1)
    return tuple(pair)


def _times(sizes: tuple[int, ...]) -> str:
    """Write sizes as in 25x25x8."""
    return "x".join(map(str, sizes))


def _check_integer(name: str, value: int, least: int) -> None:
    """Raise unless `value` is an integer of at least `least`."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value!r}")


def _check_number(name: str, value: float, required: str, holds: Any) -> None:
    """Raise unless `value` is a finite number for which `holds`."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number {required}; got {value!r}")
    if not math.isfinite(value) or not holds(value):
        raise ValueError(f"{name} must be a finite number {required}; got {value!r}")


def _check_shape(name: str, array: np.ndarray, required: tuple[int, ...]) -> None:
    """Raise unless `array` has the shape that the other arguments require."""
    if array.shape != required:
        raise ValueError(f"{name} must have shape {required}; got {array.shape}")


def _epoch_line(epoch: int, epochs: int, results: dict[str, float]) -> str:
    """Write one epoch's results as a line; lines of one training stand aligned."""
    cells = [
        f"epoch {epoch:{len(str(epochs))}}/{epochs}",
        f"loss {results['loss']:7.4f}",
        f"accuracy {results['accuracy']:7.2%}",
    ]
    if "val_loss" in results:
        cells.append(
            f"validation {results['val_loss']:7.4f} {results['val_accuracy']:7.2%}"
        )
    return "  ".join([*cells, f"{results['seconds']:5.1f} s"])


_LEAST_CONTRAST = 48  # of ink against paper, of 255: about that of a pencil


def _to_grey(image: np.ndarray) -> np.ndarray:
    """Return a picture as floats (H, W), 0..255.

    What is transparent is laid on white, or on black where all strokes are light; where
    ink and paper are both there, on that paper.
    """
    if image.ndim == 2:
        return image.astype(np.float32)
    grey = image[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
    if image.shape[2] == 4:
        opacity = image[..., 3] / np.float32(255)
        visible = grey[opacity > 0.5]
        paper = 255
        if visible.size and np.ptp(visible) >= _LEAST_CONTRAST:
            paper = np.median(visible)  # The picture brings its own paper.
        elif visible.size and visible.mean() > 127.5:
            paper = 0
        grey = grey * opacity + paper * (1 - opacity)
    return grey


def _find_ink(grey: np.ndarray) -> np.ndarray:
    """Return how far each pixel stands out from the paper, 0..1, faint noise left out.

    The paper is what the picture's edge mostly shows; ink is the darker or the lighter
    side of it, whichever goes further.
    """
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = grey - np.median(edge)
    ink = np.maximum(ink if ink.max() > -ink.min() else -ink, 0)
    # The standard deviation of the paper's noise, if the noise is normal.
    noise = 1.4826 * np.median(np.abs(edge - np.median(edge)))
    strongest, least = ink.max(), max(_LEAST_CONTRAST, 5 * noise)
    if strongest < least:
        required = f"image must show a digit that stands out by {least:.0f} of 255"
        raise ValueError(f"{required}; got {strongest:.0f} (no ink)")
    faint = max(0.2 * strongest, 5 * noise)
    return np.where(ink < faint, 0, ink / strongest).astype(np.float32)


def _fit_into_box(ink: np.ndarray) -> np.ndarray:
    """Crop to the ink and scale it to 20 pixels on its longer side."""
    from PIL import Image

    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    crop = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(20 * side / max(crop.shape))) for side in crop.shape)
    image = Image.fromarray(np.ascontiguousarray(crop))
    digit = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return digit / digit.max()


def _lay_out_tiles(kernels: np.ndarray, aspect: float = 1.6) -> np.ndarray:
    """Return kernels (F, C, K_h, K_w) as one picture, with nan around each tile.

    Those of one channel fill rows, `aspect` times as many beside as below each other;
    else each filter is a column.
    """
    filters, channels, height, width = kernels.shape
    columns = (
        filters if channels > 1 else min(filters, math.ceil((aspect * filters) ** 0.5))
    )
    rows = math.ceil(filters * channels / columns)
    tiles = np.full((rows * columns, height + 1, width + 1), np.nan)
    in_order = kernels.swapaxes(0, 1).reshape(filters * channels, height, width)
    tiles[: filters * channels, 1:, 1:] = in_order
    mosaic = tiles.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2)
    mosaic = mosaic.reshape(rows * (height + 1), columns * (width + 1))
    return np.pad(mosaic, ((0, 1), (0, 1)), constant_values=np.nan)


def _draw_step(
    panel: Axes, number: int, title: str, array: np.ndarray, mark: Any
) -> None:
    """Draw what one step has made: maps or kernels as tiles, probabilities as bars.

    `mark` is the label beside probabilities; else where the winners of pooling stand.
    """
    panel.set_title(f"{number}. {title}", size=9)
    if title == "probabilities":
        classes = np.arange(len(array))
        colours = ["tab:orange" if mark == n else "tab:blue" for n in classes]
        panel.barh(classes, array, color=colours)
        panel.set(yticks=classes, xlim=(0, 1), ylim=(len(array) - 0.5, -0.5))
        panel.set_xlabel("the label in orange" if mark is not None else "")
        return
    size = _times(array.shape)
    if array.ndim == 1:  # In rows, as a text is.
        width = math.ceil(len(array) ** 0.5)
        mosaic = np.full((math.ceil(len(array) / width), width), np.nan)
        mosaic.ravel()[: len(array)] = array
        size = f"{len(array):,} numbers"
    elif array.ndim == 4:
        filters, channels, *window = array.shape
        size = f"{filters} of {_times((*window, channels))}"
        shown = array[:8, :8] if channels > 1 else array[:64]
        mosaic = _lay_out_tiles(shown, 1)
        if shown.size < array.size:
            size += f", the first {_times(shown.shape[:2])}"
    else:
        mosaic = HandwrittenNumberClassification.lay_out_maps(array)
        if array.shape[2] > 64:
            size += ", the first 64"
    largest = np.nanmax(np.abs(mosaic)) or 1
    signed = np.nanmin(mosaic) < 0
    style = {"cmap": "coolwarm", "vmin": -largest} if signed else {"cmap": "gray"}
    panel.imshow(mosaic, vmax=largest, interpolation="nearest", **style)
    if mark is not None:
        down, across = np.nonzero(
            HandwrittenNumberClassification.lay_out_maps(mark.astype(float)) == 1
        )
        side = 140 / max(mosaic.shape)  # of a pixel, in points
        panel.scatter(across, down, s=(side / 3) ** 2, color="black", linewidths=0)
        size += ", winners dotted"
    panel.set(xticks=[], yticks=[], facecolor="white")
    panel.set_xlabel(size, size=8)


def _new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches; only this imports matplotlib."""
    from matplotlib.figure import Figure

    if "IPython" in sys.modules:  # A notebook shows figures once it has a backend.
        from matplotlib import pyplot

        pyplot.switch_backend(pyplot.get_backend())
    return Figure(figsize=(width, height), layout="constrained")
