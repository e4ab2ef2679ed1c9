"""The class as a classifier of scikit-learn, as it is."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from handwritten_classifier import HandwrittenNumberClassification

SILENT = {"verbose": 0}


@pytest.fixture
def model():
    settings = {"epochs": 8, "lr": 0.05, "momentum": 0.9, "seed": 1}
    return HandwrittenNumberClassification("4C5-MP4-10N", **settings)


@pytest.fixture
def examples(digits):
    return digits.train_images[:300], digits.train_labels[:300]


def test_a_clone_is_a_new_network_with_the_same_settings(model, examples):
    model.fit(*examples, verbose=0)
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    assert twin.history["loss"] == []
    assert is_classifier(twin)
    assert_array_equal(twin.classes_, np.arange(10))


def test_cross_validation(model, examples):
    scores = cross_val_score(model, *examples, cv=3, params=SILENT)
    assert scores.shape == (3,)
    assert scores.min() > 0.5
    losses = cross_val_score(
        model, *examples, cv=3, params=SILENT, scoring="neg_log_loss"
    )
    assert losses.min() > -1.6
    seen = cross_val_predict(model, *examples, cv=3, params=SILENT)
    assert np.mean(seen == examples[1]) == pytest.approx(scores.mean())


def test_grid_search(model, examples):
    choices = {"architecture": ["10N", "4C5-MP4-10N"], "lr": [1e-6, 0.05]}
    search = GridSearchCV(model, choices, cv=2).fit(*examples, **SILENT)
    assert search.best_params_["lr"] == 0.05
    assert search.best_estimator_.epochs == 8
    assert search.score(*examples) > 0.6


def test_a_pipeline(model, examples):
    images, labels = examples
    scale = FunctionTransformer(lambda rows: rows.reshape(-1, 28, 28) / np.float32(255))
    pipeline = make_pipeline(scale, model)
    name = "handwrittennumberclassification__"
    pipeline.fit(images.reshape(-1, 784), labels, **{name + "verbose": 0})
    expected = clone(model).fit(images / np.float32(255), labels, verbose=0)
    assert_array_equal(
        pipeline.predict(images.reshape(-1, 784)), expected.predict(images)
    )
    assert pipeline.score(images.reshape(-1, 784), labels) > 0.6
