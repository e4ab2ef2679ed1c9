"""Model files: what is kept, what is refused, and copies."""

import copy
import json
import os
import pickle

import numpy as np
import pytest
from helpers.networks import assert_same_parameters, small_model
from numpy.testing import assert_array_equal

from handwritten_classifier import HandwrittenNumberClassification


@pytest.fixture
def model(examples):
    model = small_model(lr=0.2, momentum=0.5, schedule="one-cycle")
    return model.fit(*examples, validation_data=examples, verbose=0)


@pytest.fixture
def path(tmp_path, model):
    """Return the file of `model`."""
    model.save(tmp_path / "model.npz")
    return tmp_path / "model.npz"


def test_what_load_would_refuse_is_not_saved(examples, tmp_path):
    model = small_model()
    model.save(tmp_path / "model.npz")
    model.W_dense = model.W_dense.astype(float)
    with pytest.raises(ValueError, match=r"W_dense must be float32 .* got float64"):
        model.save(tmp_path / "model.npz")
    HandwrittenNumberClassification.load(tmp_path / "model.npz")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loaded_model_gives_the_same_bits(tmp_path, examples, dtype):
    model = small_model(dtype=dtype).fit(*examples, verbose=0)
    model.save(tmp_path / "any name")
    loaded = HandwrittenNumberClassification.load(str(tmp_path / "any name"))
    assert_array_equal(
        loaded.predict_proba(examples[0]), model.predict_proba(examples[0])
    )
    assert loaded.get_params() == model.get_params()
    assert loaded.history == model.history
    assert_same_parameters(loaded, model.parameters)
    loaded.fit(*examples, verbose=0)
    assert [p.name for p in tmp_path.iterdir()] == ["any name"]


def test_settings_that_are_numpy_numbers_are_saved(tmp_path):
    model = small_model(lr=np.float64(0.5), epochs=np.int64(3))
    model.save(tmp_path / "model.npz")
    loaded = HandwrittenNumberClassification.load(tmp_path / "model.npz")
    assert (loaded.lr, loaded.epochs) == (0.5, 3)


def test_the_file_needs_no_pickle_and_holds_settings_as_json(path, model):
    with np.load(path, allow_pickle=False) as archive:
        assert set(archive.files) == {
            "format_version",
            "settings",
            "history",
            "training",
            *model.parameters,
            *(f"velocity.{name}" for name in model.parameters),
        }
        assert json.loads(str(archive["settings"]))["architecture"] == "4C3-MP2-3N"
        assert json.loads(str(archive["format_version"])) == 1


def test_a_failed_save_leaves_the_old_file_and_nothing_else(path, model, monkeypatch):
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["model.npz"]


def test_a_missing_folder_is_said_to_be_missing(tmp_path):
    path = tmp_path / "none" / "model.npz"
    with pytest.raises(FileNotFoundError, match=r"path must lie in a folder .*none"):
        small_model().save(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        HandwrittenNumberClassification.load(tmp_path / "nothing.npz")


@pytest.mark.parametrize("content", [b"", b"no model", b"PK\x03\x04", b"\x80\x04."])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(ValueError, match=r"path must be a model file, .*; got .*other"):
        HandwrittenNumberClassification.load(tmp_path / "other")


def test_a_plain_array_is_refused(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ValueError, match="path must be a model file"):
        HandwrittenNumberClassification.load(tmp_path / "array.npy")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_cut_file_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="path must be a model file"):
        HandwrittenNumberClassification.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": "2"}, "format version 2"),
        ({"settings": "{"}, "path must be"),
        ({"settings": "[]"}, "path must be"),
        ({"settings": None}, "settings"),
        ({"history": None}, "history"),
        ({"history": "3"}, "path must be"),
        ({"history": '{"loss": [1]}'}, "history must have names"),
        (
            {"history": '{"loss": [1], "accuracy": [], "seconds": [1]}'},
            "history must have a number an epoch; not in accuracy",
        ),
        (
            {"history": '{"loss": ["x"], "accuracy": [1], "seconds": [1]}'},
            "history must have a number an epoch; not in loss",
        ),
        (
            {
                "settings": '{"architecture": "90000N-10N", "dtype": "float32", '
                '"input_shape": [28, 28, 1]}'
            },
            "at least 71,550,010 numbers",
        ),
        ({"W_dense": None}, "arrays must be .* for 4C3-MP2-3N; got"),
        ({"W_more": np.zeros(3)}, "arrays must be .* for 4C3-MP2-3N; got"),
        (
            {"W_dense": np.zeros((36, 4), np.float32)},
            r"W_dense must be .*\(36, 3\)",
        ),
        ({"B_dense": np.zeros(3)}, "B_dense must be float32.*got float64"),
        ({"B_dense": np.full(3, np.nan, np.float32)}, "B_dense must be finite"),
    ],
)
def test_a_changed_file_is_refused_with_the_reason(path, change, message):
    with np.load(path) as archive:
        content = dict(archive) | change
    np.savez(path, **{k: v for k, v in content.items() if v is not None})
    with pytest.raises(ValueError, match=message):
        HandwrittenNumberClassification.load(path)


def test_a_file_from_before_a_setting_was_there_is_read(path):
    with np.load(path) as archive:
        content = dict(archive)
    settings = json.loads(str(content["settings"]))
    del settings["label_smoothing"], settings["averaging"]
    np.savez(path, **content | {"settings": json.dumps(settings)})
    model = HandwrittenNumberClassification.load(path)
    assert (model.label_smoothing, model.averaging) == (0, 0)
    assert_array_equal(model.W_dense, content["W_dense"])


@pytest.mark.parametrize(
    ("setting", "value"),
    [("architecture", "4C3-MP9-3N"), ("lr", -1), ("unknown", 3), ("dtype", "int8")],
)
def test_wrong_settings_in_a_file_are_refused(path, setting, value):
    with np.load(path) as archive:
        content = dict(archive)
    settings = json.loads(str(content["settings"])) | {setting: value}
    np.savez(path, **content | {"settings": json.dumps(settings)})
    with pytest.raises(ValueError, match=f"path must be a model file.*{setting}"):
        HandwrittenNumberClassification.load(path)


def test_a_pickled_object_in_a_file_is_never_loaded(path):
    with np.load(path) as archive:
        content = dict(archive)
    content["history"] = np.array([{"a": 1}], dtype=object)
    np.savez(path, **content)
    with pytest.raises(ValueError, match=r"numbers or text.*; got object"):
        HandwrittenNumberClassification.load(path)


def test_pickle_and_copy_carry_no_mask(examples):
    model = small_model(momentum=0.9).fit(*examples, verbose=0)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert twin.binary_max_pool is None
        assert_array_equal(twin.predict(examples[0]), model.predict(examples[0]))
    twin = copy.deepcopy(model)
    twin.fit(*examples, verbose=0)
    model.fit(*examples, verbose=0)
    assert_same_parameters(twin, model.parameters)


def test_metadata_are_kept(model, tmp_path):
    model.metadata = {"why": "a test", "numbers": [1, 2.5, None]}
    model.save(tmp_path / "model.npz")
    twin = HandwrittenNumberClassification.load(tmp_path / "model.npz")
    assert twin.metadata == model.metadata


@pytest.mark.parametrize("value", [10**400, 10**20, 1e999, True, [1], {}])
def test_a_history_beyond_all_bounds_is_refused(path, value):
    with np.load(path) as archive:
        content = dict(archive)
    history = json.loads(str(content["history"])) | {"loss": [value]}
    np.savez(path, **content | {"history": json.dumps(history)})
    with pytest.raises(ValueError, match="path must be a model file"):
        HandwrittenNumberClassification.load(path)


def test_what_was_assigned_is_taken_up_before_it_is_saved(examples, tmp_path):
    model = small_model().fit(*examples, verbose=0)
    model.architecture = "3N"
    model.save(tmp_path / "model.npz")
    assert not HandwrittenNumberClassification.load(tmp_path / "model.npz").kernels


@pytest.mark.parametrize("name", [".", "", "folder"])
def test_only_a_file_is_replaced(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"path must be one to write to; .* is no file"):
        small_model().save(name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_no_device_is_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"path must be one to write to; .* is no file"):
        small_model().save(tmp_path / "pipe")
    assert not (tmp_path / "pipe").is_file()


@pytest.mark.parametrize(
    "history",
    [
        {"loss": [None], "accuracy": [1], "seconds": [1]},
        {"loss": [1], "accuracy": [1], "seconds": [None]},
        {"loss": [-1], "accuracy": [1], "seconds": [1]},
        {"loss": "", "accuracy": "", "seconds": ""},
        {"loss": {}, "accuracy": {}, "seconds": {}},
    ],
)
def test_a_history_that_no_training_makes_is_refused(path, history):
    with np.load(path) as archive:
        content = dict(archive)
    np.savez(path, **content | {"history": json.dumps(history)})
    with pytest.raises(ValueError, match="path must be a model file"):
        HandwrittenNumberClassification.load(path)


def test_validation_may_be_unknown_for_an_epoch(examples, tmp_path):
    model = small_model().fit(*examples, validation_data=examples, verbose=0)
    model.fit(*examples, verbose=0).save(tmp_path / "model.npz")
    twin = HandwrittenNumberClassification.load(tmp_path / "model.npz")
    assert twin.history["val_loss"][1] is None


def test_only_leftovers_are_removed(examples, tmp_path):
    for name in (".c.npz.123.tmp", ".c.npz.notes.tmp", ".other.npz.5.tmp", "c.npz.tmp"):
        (tmp_path / name).write_text("x")
    small_model().fit(*examples, verbose=0, checkpoint=tmp_path / "c.npz")
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {"c.npz", ".c.npz.notes.tmp", ".other.npz.5.tmp", "c.npz.tmp"}
