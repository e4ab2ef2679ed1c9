"""The benchmark compares equal networks; its times are not tested."""

import benchmark
import numpy as np
import pytest

from digits.mnist import DIGITS
from handwritten_classifier import HandwrittenNumberClassification

DATA = str(DIGITS)


@pytest.mark.parametrize("architecture", benchmark.NETWORKS[2:4])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_systems_build_and_train_equal_networks(architecture, label_smoothing):
    settings = {"architecture": architecture, "label_smoothing": label_smoothing}
    model = HandwrittenNumberClassification(**settings)
    expected = sum(array.size for array in model.parameters.values())
    keras = benchmark.KerasSystem(DATA)
    keras.build(settings)
    assert keras.model.count_params() == expected
    keras.train(64)
    numpy = benchmark.NumpySystem(DATA)
    numpy.build(settings)
    numpy.train(64)
    assert len(numpy.model.history["loss"]) == 1


def test_all_systems_have_the_same_images():
    images, labels = benchmark.load_floats(DATA)
    assert images.shape == (20_000, 28, 28, 1)
    assert images.dtype == np.float32
    assert images.max() == 1
    assert len(labels) == 20_000


def test_pytorch_has_the_equal_network():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    torch = benchmark.TorchSystem(DATA)
    for architecture in benchmark.NETWORKS:
        torch.build({"architecture": architecture})
        model = HandwrittenNumberClassification(architecture)
        expected = sorted(array.size for array in model.parameters.values())
        assert sorted(p.numel() for p in torch.model.parameters()) == expected
    torch.train(64)
    torch.predict(10)


def test_the_ratio_is_to_the_faster_framework():
    rows = {name: benchmark.spread([s]) for name, s in (("NumPy", 2.0), ("Keras", 8.0))}
    assert benchmark.with_ratio(rows)["ratio"] == 0.25
    rows["PyTorch"] = benchmark.spread([3.0, 4.0, 9.0])
    assert benchmark.with_ratio(rows)["ratio"] == 0.5
    assert benchmark.geometric_mean([{"ratio": 0.25}, {"ratio": 1.0}]) == 0.5
