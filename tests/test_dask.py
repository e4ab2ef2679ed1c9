"""Prediction on a real cluster of two processes, as the README shows."""

import os
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from test_readme import blocks

from handwritten_classifier import HandwrittenNumberClassification

distributed = pytest.importorskip("dask.distributed")


@pytest.mark.filterwarnings("default")  # of the cluster's own libraries
def test_the_readme_s_lines_give_what_one_process_gives(digits, monkeypatch):
    (source,) = (block for block in blocks() if "import dask" in block)
    workers, client_class = [], distributed.Client

    def start_client(n_workers):
        client = client_class(
            n_workers=n_workers, threads_per_worker=1, dashboard_address=None
        )
        workers.extend(client.run(os.getpid).values())
        return client

    monkeypatch.setattr(distributed, "Client", start_client)
    model = HandwrittenNumberClassification("4C5-MP4-10N", lr=0.1)
    model.fit(digits.train_images, digits.train_labels, verbose=0)
    names = {"data": digits, "model": model}
    exec(compile(source, "README.md", "exec"), names)
    assert len({*workers, os.getpid()}) == 3
    assert_array_equal(names["classes"], model.predict(digits.test_images))


def test_a_model_travels_with_its_parameters_alone(digits):
    model = HandwrittenNumberClassification("16C5-MP2-10N", momentum=0.9)
    model.fit(digits.train_images, digits.train_labels, verbose=0)
    model.predict_proba(digits.test_images)
    size = sum(array.nbytes for array in model.parameters.values())
    assert len(pickle.dumps(model)) < 2 * size + 20_000  # and their momentum
    expected = model.predict_proba(digits.test_images)
    travelled = pickle.loads(pickle.dumps(model))
    assert_array_equal(travelled.predict_proba(digits.test_images), expected)
    assert np.isfinite(expected).all()
