"""The same seed gives the same bits, whatever goes on beside; so does prediction."""

import copy
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import ROOT
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import ThreadpoolController

import handwritten_classifier
from digits.figures import (
    plot_confusion,
    plot_distortions,
    plot_history,
    plot_kernels,
    plot_mistakes,
    plot_steps,
)
from digits.mnist import DIGITS, read_data
from handwritten_classifier import HandwrittenNumberClassification

# All that draws random numbers or is carried on from step to step takes part.
SETTINGS = {
    "architecture": "4C5-MP3-6C3p1-MP2-16N-10N",
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "label_smoothing": 0.1,
    "averaging": 0.5,
    "schedule": "one-cycle",
    "augment": 0.5,
}

# What may come between two trainings.
LOOKS = {
    "evaluate": lambda model, images, labels: model.evaluate(images, labels),
    "predict": lambda model, images, labels: model.predict(images),
    "forward": lambda model, images, labels: model.forward(images),
    "gradients": lambda model, images, labels: model.compute_gradients(images, labels),
    "distort": lambda model, images, labels: model.distort(images),
    "draw": lambda model, images, labels: plot_distortions(model, images[:1]),
    "settings": lambda model, images, labels: model.set_params(epochs=7),
    "a copy": lambda model, images, labels: copy.deepcopy(model).fit(images, labels),
}
FIGURES = {
    "history": lambda model, images, labels: plot_history(model),
    "kernels": lambda model, images, labels: plot_kernels(model),
    "distortions": lambda model, images, labels: plot_distortions(model, images[:2]),
    "steps": lambda model, images, labels: plot_steps(model, images[0], labels[0]),
    "confusion": lambda model, images, labels: plot_confusion(model, images, labels),
    "mistakes": lambda model, images, labels: plot_mistakes(model, images, labels),
}


@pytest.fixture(scope="module")
def examples(digits):
    """Return 120 digits and their labels, to learn from."""
    return digits.train_images[:120], digits.train_labels[:120]


@pytest.fixture(scope="module")
def images(digits):
    """Return 250 images to read: more than prediction takes at once."""
    return digits.test_images[:250]


@pytest.fixture(scope="module")
def trained(examples):
    """Return a model trained twice, the second time on, that no test may change."""
    return learn(examples).fit(*examples, verbose=0)


@pytest.fixture
def switching():
    """Let threads take turns so often that each is interrupted in its midst."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def learn(examples, *, settings=None, verbose=0, **fit):
    """Return a new model that has learned the examples."""
    model = HandwrittenNumberClassification(**(settings or SETTINGS))
    return model.fit(*examples, verbose=verbose, **fit)


def bits(model):
    """Return the bytes of each parameter, and the losses and accuracies so far."""
    learned = {name: array.tobytes() for name, array in model.parameters.items()}
    return learned | {name: model.history[name] for name in ("loss", "accuracy")}


def digest_of_a_training(settings=None):
    """Return the hash of what a training has learned, for another process to print."""
    digits = read_data(DIGITS)
    examples = digits.train_images[:100], digits.train_labels[:100]
    model = learn(examples, settings=settings)
    return hashlib.sha256(repr(bits(model)).encode()).hexdigest()


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def drawn(figure):
    """Return all numbers that a figure shows."""
    images = [image.get_array() for axes in figure.axes for image in axes.images]
    lines = [line.get_xydata() for axes in figure.axes for line in axes.lines]
    return [np.ma.getdata(array) for array in images + lines]


class TestTraining:
    def test_the_same_seed_learns_the_same_bits(self, examples):
        assert bits(learn(examples)) == bits(learn(examples))

    def test_another_seed_learns_others(self, examples):
        other = learn(examples, settings=SETTINGS | {"seed": 1})
        assert bits(other) != bits(learn(examples))

    def test_verbosity_changes_no_bit(self, examples):
        assert bits(learn(examples, verbose=1)) == bits(learn(examples))

    def test_validation_data_change_no_bit(self, examples):
        watched = learn(examples, epochs=2, validation_data=examples)
        assert bits(watched) == bits(learn(examples, epochs=2))

    @pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
    def test_a_look_between_two_trainings_changes_no_bit(self, examples, trained, look):
        model = learn(examples)
        look(model, *examples)
        assert bits(model.fit(*examples, epochs=1, verbose=0)) == bits(trained)

    @pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle])
    def test_a_copy_trains_on_as_the_model_does(self, examples, trained, copied):
        twin = copied(learn(examples))
        assert bits(twin.partial_fit(*examples)) == bits(trained)

    def test_passes_one_by_one_are_those_of_one_fit(self, examples):
        settings = SETTINGS | {"averaging": 0.0, "schedule": "constant"}
        model = HandwrittenNumberClassification(**settings)
        model.partial_fit(*examples).partial_fit(*examples)
        assert bits(model) == bits(learn(examples, settings=settings, epochs=2))

    def test_another_process_learns_the_same_bits(self):
        command = (
            "import test_same_answer as t; print(t.digest_of_a_training(), end='')"
        )
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
        environment = os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": "7"}
        answer = subprocess.run(
            [sys.executable, "-c", command],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout == digest_of_a_training()


class TestDistortionsAndFigures:
    def test_the_same_generator_distorts_alike(self, trained, examples):
        distorted = (
            trained.distort(examples[0], generator=np.random.default_rng(5))
            for _ in range(2)
        )
        assert_array_equal(*distorted)

    @pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
    def test_models_that_learned_alike_draw_the_same_figures(
        self, trained, examples, draw
    ):
        twin = learn(examples).fit(*examples, verbose=0)
        pairs = zip(
            drawn(draw(trained, *examples)), drawn(draw(twin, *examples)), strict=True
        )
        for found, expected in pairs:
            assert_array_equal(found, expected)


class TestPrediction:
    # Sizes around the number of images that prediction takes at once.
    @pytest.mark.parametrize("size", [1, 2, 99, 100, 101, 250])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_batch_is_read_as_its_parts_are(self, trained, images, size, dtype):
        model = HandwrittenNumberClassification(**SETTINGS | {"dtype": dtype})
        for name, array in model.parameters.items():
            array[:] = trained.parameters[name]
        parts = [
            model.predict_proba(images[start : start + size])
            for start in range(0, len(images), size)
        ]
        parts, whole = np.concatenate(parts), model.predict_proba(images)
        # BLAS may add up in another order; a few hundred times its rounding.
        rounding = 300 * np.finfo(dtype).eps
        assert_allclose(parts, whole, rtol=rounding, atol=rounding)
        assert_array_equal(parts.argmax(axis=1), whole.argmax(axis=1))

    def test_it_leaves_the_mask_of_the_last_pooling_alone(self, trained, images):
        model = copy.deepcopy(trained)
        model.generate_max_pool(np.arange(16.0).reshape(1, 4, 4, 1))
        mask = model.binary_max_pool
        model.predict(images)
        assert model.binary_max_pool is mask


class TestThreads:
    def test_one_model_predicts_in_several(self, trained, images, switching):
        parts = [images, images[:1], images[::-1], images[:101]] * 8
        expected = [trained.predict_proba(part) for part in parts]
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(trained.predict_proba, parts))
        for number, (ours, alone) in enumerate(zip(found, expected, strict=True)):
            assert_array_equal(ours, alone, err_msg=f"prediction {number}")

    def test_two_models_train_in_two(self, examples, switching):
        settings = [SETTINGS | {"seed": seed} for seed in (0, 1)]
        with ThreadPoolExecutor(2) as threads:
            found = list(threads.map(lambda s: learn(examples, settings=s), settings))
        for ours, alone in zip(found, settings, strict=True):
            assert bits(ours) == bits(learn(examples, settings=alone))

    def test_a_model_predicts_while_another_trains(self, trained, examples, switching):
        expected = trained.predict_proba(examples[0])
        with ThreadPoolExecutor(1) as threads:
            training = threads.submit(learn, examples, epochs=3)
            while not training.done():
                assert_array_equal(trained.predict_proba(examples[0]), expected)
        assert bits(training.result()) == bits(learn(examples, epochs=3))


# With batches of 90, a network whose batches are cut, and one whose are not.
CUT = SETTINGS | {"architecture": "16C5-MP2-16N-10N", "batch_size": 90}
CUT |= {"augment": 1.0, "epochs": 2}
WHOLE = SETTINGS | {"batch_size": 90}


@pytest.fixture
def cores():
    """Return a function that tells BLAS, and with it the class, of so many cores.

    Each library has a BLAS of its own: all count that are loaded by now.
    """
    global BLAS
    handwritten_classifier._find_blas.cache_clear()
    BLAS = ThreadpoolController().select(user_api="blas")
    before = [lib.num_threads for lib in BLAS.lib_controllers]

    def tell(*counts):
        for library, count in zip(BLAS.lib_controllers, counts, strict=True):
            library.set_num_threads(count)
        with BLAS.limit(limits=None):
            pass  # Else no other thread could set it from now on.

    yield lambda count: tell(*[count] * len(before))
    tell(*before)


def blas_threads():
    """Return how many threads BLAS may use now."""
    return {library.num_threads for library in BLAS.lib_controllers}


class Watched(HandwrittenNumberClassification):
    """Notes in which threads, and beside how many of BLAS, its shards are learned."""

    threads, blas, meeting = set(), set(), None

    def softmax(self, scores):
        if self.meeting:  # Two at a time, or none goes on.
            self.meeting.wait(20)
        self.threads.add(threading.get_ident())
        self.blas.update(blas_threads())
        return super().softmax(scores)


class TestCores:
    """They settle how long it takes, and nothing else."""

    @pytest.mark.parametrize("settings", [CUT, WHOLE], ids=["cut", "whole"])
    def test_the_bits_are_the_same_on_any_number(self, examples, cores, settings):
        found = []
        for count in (1, 2, 5):
            cores(count)
            model = learn(examples, settings=settings)
            found.append((bits(model), model.predict_proba(examples[0]).tobytes()))
        assert found[0] == found[1] == found[2]

    def test_a_process_bound_to_one_core_learns_the_same_bits(self):
        taskset = shutil.which("taskset")
        if taskset is None:
            pytest.skip("there is no taskset to bind a process to a core")
        code = (
            "import test_same_answer as t; print(t.digest_of_a_training(t.CUT), end='')"
        )
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
        answers = [
            subprocess.run(
                [*bound, sys.executable, "-c", code],
                env=os.environ | {"PYTHONPATH": paths} | threads,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for bound, threads in (
                ([], {}),
                ([taskset, "-c", str(min(os.sched_getaffinity(0)))], {}),
                ([], {"OPENBLAS_NUM_THREADS": "1"}),
                ([], {"OPENBLAS_NUM_THREADS": "2"}),
            )
        ]
        assert len({*answers}) == 1

    def test_a_run_goes_on_on_another_number(self, examples, cores, tmp_path):
        expected, path = learn(examples, settings=CUT), tmp_path / "checkpoint.npz"

        def stop(model, step, loss):
            if step == 3:
                model.save(path)
                raise KeyboardInterrupt

        cores(1)
        with pytest.raises(KeyboardInterrupt):
            learn(examples, settings=CUT, callback=stop)
        cores(3)
        resumed = HandwrittenNumberClassification.load(path)
        assert bits(resumed.fit(*examples, verbose=0)) == bits(expected)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_distortions_belong_to_the_place_in_the_epoch(self, examples, channels):
        """They do not depend on how the images are cut into batches."""
        seen, digits = {}, np.stack([examples[0]] * channels, axis=3)
        shape = {"input_shape": digits.shape[1:]}
        for size in (120, 90, 7):
            model = HandwrittenNumberClassification(
                **CUT | shape | {"batch_size": size}
            )
            images, backward = [], model._backward
            model._backward = lambda x, y, keep=images, go=backward: (
                keep.append(x.copy()) or go(x, y)
            )
            cut = model._cut(0, size)
            model.fit(digits, examples[1], epochs=1, verbose=0)
            seen[size] = (
                len(cut),
                np.sort(np.concatenate(images).sum(axis=(1, 2, 3), dtype=np.float64)),
            )
        assert seen[120][0] > 1
        assert seen[7][0] == 1
        # BLAS may add up in another order.
        assert_allclose(seen[120][1], seen[90][1], rtol=1e-5)
        assert_allclose(seen[120][1], seen[7][1], rtol=1e-5)
        as_given = np.sort(digits.sum(axis=(1, 2, 3), dtype=np.float64)) / 255
        assert np.mean(np.isclose(seen[120][1], as_given, rtol=1e-5)) < 0.1

    def test_shards_have_the_gradients_of_the_whole_batch(self, examples):
        """A last batch is smaller than the others; shards may differ in size."""
        settings = CUT | {"batch_size": 101, "dtype": np.float64, "epochs": 2}
        whole = HandwrittenNumberClassification(**settings)
        whole._SHARED = 10**9
        cut = HandwrittenNumberClassification(**settings)
        assert len(whole._cut(0, 101)) == 1
        assert len({end - first for first, end in cut._cut(0, 101)}) == 2
        for model in (whole, cut):
            model.fit(*examples, verbose=0)
        assert_allclose(cut.history["loss"], whole.history["loss"], rtol=1e-9)
        assert cut.history["accuracy"] == whole.history["accuracy"]
        for name, parameter in whole.parameters.items():
            assert_allclose(cut.parameters[name], parameter, rtol=1e-6, atol=1e-9)

    def test_shards_run_side_by_side_on_one_blas_thread_each(
        self, examples, cores, monkeypatch
    ):
        cores(3)
        Watched.threads.clear(), Watched.blas.clear()
        with monkeypatch.context() as patched:
            patched.setattr(Watched, "meeting", threading.Barrier(2))
            whole = {"batch_size": len(examples[0])}
            Watched(**CUT | whole).fit(*examples, verbose=0)
        assert len(Watched.threads) > 1
        assert Watched.blas == {1}
        assert blas_threads() == {3}
        cores(1)
        Watched.threads.clear()
        Watched(**CUT).fit(*examples, verbose=0)
        assert Watched.threads == {threading.get_ident()}

    def test_blas_gets_its_threads_back_after_an_error(self, examples, cores):
        cores(4)

        def fail(*_):
            raise RuntimeError("from a callback")

        with pytest.raises(RuntimeError, match="from a callback"):
            learn(examples, callback=fail)
        assert blas_threads() == {4}

    def test_an_error_in_a_shard_arrives(self, examples, cores, monkeypatch):
        cores(2)
        model = HandwrittenNumberClassification(**CUT)
        monkeypatch.setattr(model, "unpool", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model.fit(*examples, verbose=0)
        assert blas_threads() == {2}

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["last in", "first in"])
    def test_the_last_of_two_runs_gives_blas_its_threads_back(
        self, examples, cores, order
    ):
        """Whichever thread it is in: the first one may end before the second."""
        cores(3)
        begun = [threading.Event(), threading.Event()]
        may_end = [threading.Event(), threading.Event()]

        def wait(number):
            def callback(*_):
                begun[number].set()
                may_end[number].wait(30)
                return True

            return callback

        with ThreadPoolExecutor(2) as threads:
            runs = []
            for number in (0, 1):
                runs.append(threads.submit(learn, examples, callback=wait(number)))
                assert begun[number].wait(30)
            assert blas_threads() == {1}
            may_end[order[0]].set()
            runs[order[0]].result()
            assert blas_threads() == {1}
            may_end[order[1]].set()
            runs[order[1]].result()
            assert blas_threads() == {3}
            cores(2)
            learn(examples)  # Another thread may limit it again.
            assert blas_threads() == {2}

    def test_models_leave_no_threads_behind(self, examples, cores):
        cores(4)
        before = threading.active_count()
        models = [learn(examples, settings=CUT | {"epochs": 1}) for _ in range(6)]
        copied = [pickle.loads(pickle.dumps(model)) for model in models]
        assert_array_equal(
            copied[0].predict(examples[0]), models[0].predict(examples[0])
        )
        assert threading.active_count() == before
