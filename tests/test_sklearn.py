"""The class as a classifier of scikit-learn, as it is."""

import copy

import numpy as np
import pytest
from joblib import Parallel, delayed, dump, load
from numpy.testing import assert_array_equal
from sklearn.base import clone, is_classifier
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_predict,
    cross_val_score,
    learning_curve,
)
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


LARGE = {"architecture": "8C5-64N-10N", "epochs": 1, **SILENT}  # 1.2 MB of weights


def test_cross_validation_in_two_processes(examples):
    model = HandwrittenNumberClassification(**LARGE)
    expected = cross_val_score(model, *examples, cv=2)
    assert_array_equal(cross_val_score(model, *examples, cv=2, n_jobs=2), expected)


def test_grid_search_in_two_processes_is_silent(examples, capfd):
    grid = {"lr": [0.01, 0.05]}
    search = GridSearchCV(
        HandwrittenNumberClassification(**LARGE), grid, cv=2, n_jobs=2
    )
    search.fit(*examples)
    assert search.best_params_["lr"] in grid["lr"]
    assert not capfd.readouterr().out


def test_a_model_trains_in_another_process(examples):
    model = HandwrittenNumberClassification(**LARGE, momentum=0.9).fit(*examples)
    fits = [delayed(model.fit)(*examples) for _ in range(2)]
    trained = Parallel(n_jobs=2)(fits)
    expected = copy.deepcopy(model).fit(*examples)
    for twin in trained:
        assert_array_equal(twin.W_dense, expected.W_dense)


def test_a_model_that_joblib_maps_read_only_trains_on(examples, tmp_path):
    model = HandwrittenNumberClassification(**LARGE, momentum=0.9).fit(*examples)
    dump(model, tmp_path / "model.joblib")
    twin = load(tmp_path / "model.joblib", mmap_mode="r")
    assert_array_equal(twin.fit(*examples).W_dense, model.fit(*examples).W_dense)
    again = load(tmp_path / "model.joblib", mmap_mode="r")
    assert np.abs(again.W_dense - twin.W_dense).max() > 0


def test_a_learning_curve_trains_by_and_by(examples):
    sizes, scores, _ = learning_curve(
        HandwrittenNumberClassification(**LARGE),
        *examples,
        cv=2,
        exploit_incremental_learning=True,
        train_sizes=[0.5, 1.0],
    )
    assert list(sizes) == [75, 150]
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("classes", "error"),
    [([0, 10], ValueError), ([-1, 3], ValueError), (["0", "1"], TypeError)],
)
def test_classes_of_another_network_are_refused(model, examples, classes, error):
    with pytest.raises(error, match="classes must be"):
        model.partial_fit(*examples, classes=classes)


def test_classes_need_not_be_all(model, examples):
    model.partial_fit(*examples, classes=np.arange(10))
    model.partial_fit(*examples, classes=[3, 7])
    assert len(model.history["loss"]) == 2
