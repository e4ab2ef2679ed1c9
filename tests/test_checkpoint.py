"""Training that is killed, interrupted or hindered by the disk loses nothing."""

import contextlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from helpers.networks import call_in_each_step, saved
from helpers.program import names
from numpy.testing import assert_array_equal

from digits.mnist import DIGITS
from handwritten_classifier import HandwrittenNumberClassification

# Everything that training can hold: momentum, a mean, a schedule, random distortions.
SETTINGS = {
    "architecture": "6C3-MP2-8C2-10N",
    "input_shape": (8, 8, 1),
    "epochs": 6,
    "lr": 0.03,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "label_smoothing": 0.05,
    "schedule": "one-cycle",
    "averaging": 0.6,
    "augment": 0.5,
}
# For each line it forks a process, which goes on from the checkpoint, if one is there.
# NumPy is imported once: that takes longer than the training.
TRAIN = f"""
import os, sys
from pathlib import Path
import numpy as np
from handwritten_classifier import HandwrittenNumberClassification

HandwrittenNumberClassification._BETWEEN_CHECKPOINTS = 0.01
with np.load(sys.argv[1]) as digits:
    images, labels = digits["x_train"] / 16, digits["y_train"]

def train(checkpoint, final):
    if checkpoint.exists():
        model = HandwrittenNumberClassification.load(checkpoint)
    else:
        model = HandwrittenNumberClassification(**{SETTINGS!r})
    print(os.getpid(), flush=True)
    model.fit(images, labels, validation_data=(images[:50], labels[:50]), verbose=0,
              checkpoint=checkpoint)
    model.save(final)

for line in sys.stdin:
    process = os.fork()
    if not process:
        status = 1
        try:
            train(*map(Path, line.rstrip().split("|")))
            status = 0
        finally:
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


@pytest.fixture
def examples(rng):
    """Return 60 images of 8x8 with labels 0..9."""
    return rng.random((60, 8, 8)), rng.integers(0, 10, size=60)


def new_model(**settings):
    return HandwrittenNumberClassification(**SETTINGS | {"batch_size": 10} | settings)


def load(path):
    return HandwrittenNumberClassification.load(path)


def assert_same_training(model, expected):
    """Compare all that training has made, but for the time that it took."""
    found, expected = saved(model), saved(expected)
    assert found.keys() == expected.keys()
    for content in (found, expected):
        del content["history"]["seconds"]
    for name, content in expected.items():
        if isinstance(content, np.ndarray):
            assert_array_equal(found[name], content, err_msg=name, strict=True)
        else:
            assert found[name] == content, name


def press_ctrl_c():
    signal.raise_signal(signal.SIGINT)


def call_in_batch(monkeypatch, number, call):
    """Let something happen in the batch of a number, counted from 1; return all."""
    batches = []

    def watch(model, batch, *_):
        batches.append(batch)
        if batch == number:
            call()

    call_in_each_step(monkeypatch, "backprop_decision_making", watch)
    return batches


class TestKilled:
    @pytest.fixture
    def trainer(self):
        """Start the process that forks one for each training."""
        command = [sys.executable, "-c", TRAIN, DIGITS]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=ROOT, bufsize=1, **pipes) as trainer:
            yield trainer
            trainer.stdin.close()

    def start(self, trainer, folder):
        """Start to train, or to go on, and return the process as it begins to."""
        files = folder / "checkpoint.npz", folder / "final.npz"
        print(*files, sep="|", file=trainer.stdin, flush=True)
        return int(trainer.stdout.readline())

    def finish(self, trainer, folder):
        """Go on to the end; return the model, and how many seconds that took."""
        self.start(trainer, folder)
        started = time.perf_counter()
        assert int(trainer.stdout.readline()) == 0
        return load(folder / "final.npz"), time.perf_counter() - started

    @pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
    def test_twenty_kills_change_no_bit(self, trainer, tmp_path):
        (tmp_path / "whole").mkdir()
        expected, seconds = self.finish(trainer, tmp_path / "whole")
        chance, folder, torn = random.Random(20), tmp_path / "killed", 0
        folder.mkdir()
        for kill in range(20):
            process = self.start(trainer, folder)
            time.sleep(chance.uniform(0, 0.08 * seconds))
            deadline = time.perf_counter() + 1
            # Every other one dies while a checkpoint is being written.
            while kill % 2 and time.perf_counter() < deadline:
                if any(name.endswith(".tmp") for name in os.listdir(folder)):
                    break
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            status = int(trainer.stdout.readline())
            assert status in (0, -signal.SIGKILL)
            torn += any(name.endswith(".tmp") for name in names(folder))
            if status == 0:  # It was the faster; the next begins anew.
                assert_same_training(load(folder / "final.npz"), expected)
                (folder / "checkpoint.npz").unlink()
        assert torn >= 3
        resumed, _ = self.finish(trainer, folder)
        assert_same_training(resumed, expected)
        assert names(folder) == {"checkpoint.npz", "final.npz"}


class TestGoingOn:
    @pytest.mark.parametrize("step", [1, 5, 6, 7, 20, 36])
    def test_a_loaded_training_ends_as_if_nothing_had_been(
        self, examples, tmp_path, monkeypatch, step
    ):
        expected = new_model().fit(*examples, verbose=0)
        monkeypatch.setattr(HandwrittenNumberClassification, "_BETWEEN_CHECKPOINTS", 0)
        call_in_batch(monkeypatch, step, press_ctrl_c)
        path = tmp_path / "checkpoint.npz"
        with pytest.raises(KeyboardInterrupt):
            new_model().fit(*examples, verbose=0, checkpoint=path)
        assert_same_training(load(path).fit(*examples, verbose=0), expected)

    def test_a_saved_model_trains_on_with_its_momentum_and_generator(
        self, examples, tmp_path
    ):
        model = new_model().fit(*examples, verbose=0)
        model.save(tmp_path / "model.npz")
        loaded = load(tmp_path / "model.npz").fit(*examples, verbose=0)
        assert_same_training(loaded, model.fit(*examples, verbose=0))

    def test_a_finished_checkpoint_is_the_finished_model(self, examples, tmp_path):
        model = new_model().fit(*examples, verbose=0, checkpoint=tmp_path / "one")
        model.save(tmp_path / "other")
        with np.load(tmp_path / "one") as one, np.load(tmp_path / "other") as other:
            assert one.files == other.files
            for name in one.files:
                assert_array_equal(one[name], other[name])
        assert load(tmp_path / "one")._run is None

    def test_checkpoints_change_no_step(self, examples, tmp_path, monkeypatch):
        monkeypatch.setattr(HandwrittenNumberClassification, "_BETWEEN_CHECKPOINTS", 0)
        watched = new_model().fit(*examples, verbose=0, checkpoint=tmp_path / "file")
        assert_same_training(watched, new_model().fit(*examples, verbose=0))

    def test_a_long_epoch_is_saved_in_its_midst(self, examples, tmp_path, monkeypatch):
        monkeypatch.setattr(HandwrittenNumberClassification, "_BETWEEN_CHECKPOINTS", 0)
        call_in_batch(monkeypatch, 4, press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            new_model().fit(*examples, verbose=0, checkpoint=tmp_path / "file")
        assert load(tmp_path / "file")._run.position == 30

    @pytest.mark.parametrize("change", ["epochs", "images", "labels", "lr"])
    def test_another_training_begins_anew(self, examples, monkeypatch, change):
        model, (images, labels) = new_model(), examples
        call_in_batch(monkeypatch, 9, press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            model.fit(images, labels, verbose=0)
        done, epochs = len(model.history["loss"]), 6
        if change == "epochs":
            model.fit(images, labels, epochs=(epochs := 2), verbose=0)
        elif change == "images":
            model.fit(images[:50], labels[:50], verbose=0)
        elif change == "labels":
            model.fit(images, labels[::-1], verbose=0)
        else:
            model.set_params(lr=0.05).fit(images, labels, verbose=0)
        assert len(model.history["loss"]) == done + epochs

    def test_partial_fit_begins_anew(self, examples, monkeypatch):
        model = new_model(epochs=1)
        interrupt = (monkeypatch, 4, press_ctrl_c)
        steps = call_in_batch(*interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.fit(*examples, verbose=0)
        model.partial_fit(*examples)
        assert len(steps) == 4 + 6

    def test_a_stuck_network_is_told_of_in_a_resumed_training_too(
        self, examples, tmp_path, monkeypatch
    ):
        model = new_model(augment=0)
        model.biases[1][...] = -100
        call_in_batch(monkeypatch, 4, press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            model.fit(*examples, verbose=0)
        model.save(tmp_path / "file.npz")
        with pytest.warns(UserWarning, match="8C2 should have living ReLUs") as drawn:
            load(tmp_path / "file.npz").fit(*examples, verbose=0)
        assert len(drawn) == 1

    def test_the_same_labels_in_other_integers_are_the_same(
        self, examples, monkeypatch
    ):
        model, (images, labels) = new_model(), examples
        call_in_batch(monkeypatch, 9, press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            model.fit(images, labels, verbose=0)
        model.fit(images, labels.astype(np.uint8), verbose=0)
        assert len(model.history["loss"]) == 6

    def test_leftovers_of_killed_processes_are_removed(self, examples, tmp_path):
        path = tmp_path / "check[1].npz"
        for name in (
            ".check[1].npz.123.tmp",
            ".check1.npz.123.tmp",
            "check[1].npz.tmp",
        ):
            (tmp_path / name).write_text("half")
        new_model().fit(*examples, verbose=0, checkpoint=path)
        kept = {".check1.npz.123.tmp", "check[1].npz", "check[1].npz.tmp"}
        assert names(tmp_path) == kept


@contextlib.contextmanager
def full_disk():
    """Let no file grow beyond 1,000 bytes, as the system does on a full disk."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def read_only(folder):
    """Let nothing be written to a folder, not even by an administrator."""
    folder.chmod(0o555)
    administrator = os.geteuid() == 0
    if administrator:  # Whom no mode binds.
        os.seteuid(65534)
    try:
        yield
    finally:
        if administrator:
            os.seteuid(0)
        folder.chmod(0o755)


@contextlib.contextmanager
def vanished(folder):
    """Let a folder be gone for a while."""
    away = folder.with_name("away")
    folder.rename(away)
    try:
        yield
    finally:
        away.rename(folder)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX limits and users")
@pytest.mark.parametrize("hindered", [full_disk, read_only, vanished])
class TestDisk:
    @pytest.fixture
    def folder(self):
        """Return an empty folder, which others may read, too."""
        with tempfile.TemporaryDirectory() as outer:
            Path(outer).chmod(0o755)
            folder = Path(outer) / "results"
            folder.mkdir()
            yield folder

    def hindrance(self, hindered, folder):
        return hindered() if hindered is full_disk else hindered(folder)

    def test_training_begins_only_where_it_can_be_saved(
        self, examples, folder, hindered
    ):
        model, path = new_model(), folder / "checkpoint.npz"
        before = model.W_dense.copy()
        with (
            self.hindrance(hindered, folder),
            pytest.raises(OSError, match=r"path must .*; got .*checkpoint\.npz"),
        ):
            model.fit(*examples, verbose=0, checkpoint=path)
        assert_array_equal(model.W_dense, before)
        assert names(folder) == set()

    def test_a_disk_that_fails_later_costs_nothing(
        self, examples, folder, hindered, monkeypatch
    ):
        model, path = new_model(), folder / "checkpoint.npz"
        expected = new_model().fit(*examples, verbose=0)
        with contextlib.ExitStack() as stack:

            def hinder():
                self.before = path.read_bytes()
                stack.enter_context(self.hindrance(hindered, folder))

            call_in_batch(monkeypatch, 8, hinder)
            with pytest.raises(OSError, match=r"path must .*; got .*checkpoint\.npz"):
                model.fit(*examples, verbose=0, checkpoint=path)
        assert path.read_bytes() == self.before
        assert names(folder) == {"checkpoint.npz"}
        assert_same_training(load(path).fit(*examples, verbose=0), expected)
        model.fit(*examples, verbose=0, checkpoint=path)
        assert_same_training(model, expected)

    def test_the_last_checkpoint_can_be_made_up_for(
        self, examples, folder, hindered, monkeypatch
    ):
        model, path = new_model(), folder / "checkpoint.npz"
        with contextlib.ExitStack() as stack:
            call_in_batch(
                monkeypatch,
                36,
                lambda: stack.enter_context(self.hindrance(hindered, folder)),
            )
            with pytest.raises(OSError, match="path must"):
                model.fit(*examples, verbose=0, checkpoint=path)
        model.fit(*examples, verbose=0, checkpoint=path)
        assert len(model.history["loss"]) == 6
        assert_same_training(load(path), model)


@pytest.fixture
def unwatched():
    """Let coverage look away: interrupted inside its lock, it waits for ever.

    What the first training imports is there already: half imported, it would stay so.
    """
    importlib.import_module("tqdm.auto")
    coverage = sys.modules.get("coverage")
    watching = coverage.Coverage.current() if coverage else None
    if watching:
        watching.stop()
    yield
    if watching:
        watching.start()


class TestCtrlC:
    @pytest.mark.usefixtures("unwatched")
    @pytest.mark.filterwarnings("ignore:accuracy should be above chance")
    def test_at_any_moment_it_leaves_a_model_that_predicts_and_can_go_on(
        self, examples, tmp_path
    ):
        model, chance, finished = new_model(), random.Random(20), []
        for _ in range(20):
            sent = (os.getpid(), signal.SIGINT)
            timer = threading.Timer(chance.uniform(0.005, 0.06), os.kill, sent)
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012
                timer.start()
                model.fit(*examples, epochs=10**6, verbose=0)
            assert np.isfinite(model.predict_proba(examples[0])).all()
            assert len({len(values) for values in model.history.values()}) == 1
            finished.append(len(model.history["loss"]))
            assert model._run.epoch == finished[-1]
        assert finished == sorted(finished)
        assert finished[-1] > finished[0]
        model.save(tmp_path / "model.npz")
        load(tmp_path / "model.npz")

    def test_the_same_call_goes_on_to_as_many_epochs(self, examples, monkeypatch):
        model = new_model(augment=0)
        call_in_batch(monkeypatch, 15, press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            model.fit(*examples, verbose=0)
        assert len(model.history["loss"]) == 2
        model.fit(*examples, verbose=0)
        expected = new_model(augment=0).fit(*examples, verbose=0)
        assert_same_training(model, expected)

    @pytest.mark.usefixtures("unwatched")
    @pytest.mark.filterwarnings("ignore:accuracy should be above chance")
    def test_whenever_it_comes_training_goes_on_to_the_same_bits(self, examples):
        chance = random.Random(21)
        model, epochs, done = new_model(), 100, False
        while not done:
            sent = (os.getpid(), signal.SIGINT)
            timer = threading.Timer(chance.uniform(0.002, 0.03), os.kill, sent)
            try:
                timer.start()
                model.fit(*examples, epochs=epochs, verbose=0)
                done = True
                timer.cancel()
                timer.join()
            except KeyboardInterrupt:
                continue
        expected = new_model().fit(*examples, epochs=epochs, verbose=0)
        assert_same_training(model, expected)

    def test_it_waits_for_the_end_of_a_step(self, examples, monkeypatch):
        batches, model = call_in_batch(monkeypatch, 1, press_ctrl_c), new_model()
        before = model.W_dense.copy()
        with pytest.raises(KeyboardInterrupt):
            model.fit(*examples, verbose=0)
        assert (batches, model._run.position) == ([1], 10)
        assert not np.array_equal(model.W_dense, before)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_what_the_program_does_at_ctrl_c_is_done(self, examples, monkeypatch):
        heard = []
        before = signal.signal(signal.SIGINT, lambda *event: heard.append(event[0]))
        try:
            call_in_batch(monkeypatch, 3, press_ctrl_c)
            model = new_model().fit(*examples, verbose=0)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            model.fit(*examples, verbose=0)
        finally:
            signal.signal(signal.SIGINT, before)
        assert heard == [signal.SIGINT]


class TestStrangers:
    """What a file may say of a training that cannot be."""

    @pytest.fixture
    def path(self, examples, tmp_path, monkeypatch):
        """Return a model file from the midst of the averaged part of a training."""
        model = new_model()
        call_in_batch(monkeypatch, 27, press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            model.fit(*examples, verbose=0)
        model.save(tmp_path / "file.npz")
        return tmp_path / "file.npz"

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("epochs", 4, "run's epoch must be at most 3; got 4"),
            ("epochs", "6", "run's epochs must be an integer"),
            ("epoch", -1, "run's epoch must be at least 0"),
            ("epoch", 1.5, "run's epoch must be an integer"),
            ("images", 10**15, "run's images must be at most 60"),
            ("images", 59, "order must be one of 59 images"),
            ("labels", 2**32, "run's labels must be at most"),
            ("position", 61, "run's position must be at most 60"),
            ("hits", 31, "run's hits must be at most 30"),
            ("loss", float("nan"), "run's loss must be a finite number"),
            ("loss", "much", "run's loss must be a number"),
            ("seconds", -1, "run's seconds must be a finite number at least 0"),
            ("silent", ["W_dense"], "warned and silent must be"),
            ("warned", 3, "warned and silent must be"),
            ("unknown", 3, "unknown"),
        ],
    )
    def test_a_run_that_cannot_be_is_refused(self, path, name, value, message):
        def change(content):
            content["training"]["run"][name] = value

        self.rewrite(path, change)
        with pytest.raises(ValueError, match=f"path must be a model file.*{message}"):
            load(path)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("order", np.zeros(60, int), "order must be one of 60 images"),
            ("order", np.arange(60.0), "order must be one of 60 images"),
            ("order", np.arange(60).reshape(6, 10), "run's images must be at most 6"),
            ("order", None, "order"),
            ("velocity.W_dense", None, "arrays must be .* for 6C3"),
            ("velocity.B_dense", np.zeros(10), "velocity.B_dense must be float32"),
            ("before.B_dense", np.full(10, np.nan, np.float32), "must be finite"),
            ("before.velocity.B_dense", np.zeros(3, np.float32), r"of shape \(10,\)"),
            ("mean.W_dense", None, "arrays must be .* for 6C3"),
            ("mean.kernels.0", None, "arrays must be .* for 6C3"),
        ],
    )
    def test_arrays_that_cannot_be_are_refused(self, path, name, value, message):
        self.rewrite(path, lambda content: content.update({name: value}))
        with pytest.raises(ValueError, match=f"path must be a model file.*{message}"):
            load(path)

    @pytest.mark.parametrize(
        "state",
        [
            None,
            {"bit_generator": "MT19937"},
            {"state": {"state": -1, "inc": 1}},
            {"state": {"state": 2**200, "inc": 1}},
            {"state": {}},
            {"has_uint32": 2**40},
            {"more": 1},
        ],
    )
    def test_a_generator_in_no_possible_state_is_refused(self, path, state):
        def change(content):
            generator = content["training"]["generator"]
            content["training"]["generator"] = state and generator | state

        self.rewrite(path, change)
        with pytest.raises(ValueError, match="path must be a model file"):
            load(path)

    def test_a_file_from_before_the_state_was_there_begins_it_anew(
        self, path, examples
    ):
        parameters = new_model().parameters

        def change(content):
            for name in content.keys() - parameters.keys():
                if name not in ("format_version", "settings", "history"):
                    content[name] = None

        self.rewrite(path, change)
        model = load(path)
        assert model._run is None
        content = saved(model)
        assert not any(content[f"velocity.{name}"].any() for name in model.parameters)
        model.fit(*examples, verbose=0)

    def rewrite(self, path, change):
        """Change what is in a file, `training` as JSON; None leaves out."""
        with np.load(path) as archive:
            content = dict(archive)
        content["training"] = json.loads(str(content["training"]))
        change(content)
        if content["training"] is not None:
            content["training"] = json.dumps(content["training"])
        np.savez(path, **{k: v for k, v in content.items() if v is not None})
