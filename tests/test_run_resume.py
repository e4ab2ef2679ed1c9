"""`run.py --resume`: a run that was killed goes on, or says why it cannot."""

import json
import os
import signal
from typing import ClassVar

import numpy as np
import pytest
from helpers.program import RESULTS, UNFINISHED, names, start_program
from numpy.testing import assert_array_equal

import run
from digits.mnist import DIGITS, read_data, split_training
from handwritten_classifier import HandwrittenNumberClassification


@pytest.mark.usefixtures("undrawn")
@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
class TestResume:
    FLAGS = ("--recipe", "source", "--data", "digits.npz", "--limit", "500")
    FLAGS += ("--held-out", "100", "--epochs", "6", "--output", "a b")

    @pytest.fixture
    def folder(self, tmp_path):
        """Return the folder of results that a killed run leaves, beside its data."""
        (tmp_path / "digits.npz").write_bytes(DIGITS.read_bytes())
        return tmp_path / "a b"

    def kill(self, environment, folder, epoch):
        """Start a run, and kill it once it has finished an epoch."""
        with start_program(environment, folder.parent, *self.FLAGS) as process:
            for line in process.stdout:
                if line.startswith(f"epoch {epoch}/"):
                    break
            process.kill()

    def read_metrics(self, folder):
        metrics = json.loads((folder / "metrics.json").read_text())
        del metrics["seconds"], metrics["history"]["seconds"]
        return metrics

    def test_a_killed_run_goes_on_to_the_very_results_of_a_whole_one(
        self, environment, program, folder
    ):
        assert program(*self.FLAGS).returncode == 0
        expected = self.read_metrics(folder)
        arrays = dict(np.load(folder / "model.npz"))
        for path in folder.iterdir():
            path.unlink()
        self.kill(environment, folder, epoch=3)
        assert names(folder) >= UNFINISHED
        assert not names(folder) & RESULTS
        done = program("--resume", "--output", "a b")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""  # The data are those that were named at first.
        assert "epoch 3/6" not in done.stdout
        assert self.read_metrics(folder) == expected
        with np.load(folder / "model.npz") as archive:
            for name in arrays.keys() - {"history"}:
                assert_array_equal(archive[name], arrays[name], err_msg=name)
        assert names(folder) == RESULTS

    def test_other_data_are_refused_and_nothing_is_lost(
        self, environment, program, folder
    ):
        self.kill(environment, folder, epoch=1)
        data = dict(np.load(DIGITS))
        data["x_train"][7, 3, 3] ^= 1
        np.savez(folder.parent / "digits.npz", **data)
        before = (folder / "checkpoint.npz").read_bytes()
        done = program("--resume", "--output", "a b")
        assert done.returncode == 2
        assert "--resume must find the data of the interrupted run" in done.stderr
        assert (folder / "checkpoint.npz").read_bytes() == before

    def test_a_run_killed_before_its_report_trains_no_further(
        self, environment, program, folder
    ):
        self.kill(environment, folder, epoch=1)
        model = HandwrittenNumberClassification.load(folder / "checkpoint.npz")
        split = split_training(read_data(DIGITS), 500, 100)
        model.fit(split.images, split.labels, validation_data=split.held_out, verbose=0)
        model.save(folder / "checkpoint.npz")
        done = program("--resume", "--output", "a b")
        assert done.returncode == 0, done.stderr
        assert "epoch 1" not in done.stdout
        assert names(folder) == RESULTS
        last = HandwrittenNumberClassification.load(folder / "model.npz")
        assert_array_equal(last.W_dense, model.W_dense)
        assert self.read_metrics(folder)["complete"] is True

    def test_after_ctrl_c_the_checkpoint_is_that_of_the_last_step(
        self, environment, folder
    ):
        with start_program(environment, folder.parent, *self.FLAGS) as process:
            for line in process.stdout:
                if line.startswith("epoch 2/"):
                    break
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        files = [folder / name for name in ("checkpoint.npz", "model.npz")]
        checkpoint, model = map(HandwrittenNumberClassification.load, files)
        for name, array in checkpoint.parameters.items():
            assert_array_equal(array, model.parameters[name], err_msg=name)

    def test_a_new_run_that_cannot_begin_leaves_what_was_interrupted(
        self, environment, folder, capsys
    ):
        self.kill(environment, folder, epoch=1)
        before = (folder / "checkpoint.npz").read_bytes()
        flags = ["--data", str(DIGITS), "--output", str(folder)]
        for wrong in (["--lr", "-1"], ["--limit", "0"], ["--held-out", "-1"]):
            assert run.main(flags + wrong) == 2
        assert (folder / "checkpoint.npz").read_bytes() == before

    def test_a_new_run_sets_aside_what_was_interrupted(
        self, environment, program, folder
    ):
        flags = ("--data", "digits.npz", "--output", "a b", "--epochs", "1")
        for number in ("", "-2"):
            self.kill(environment, folder, epoch=1)
            before = (folder / "checkpoint.npz").read_bytes()
            done = program(*flags, "--limit", "50")
            assert done.returncode == 0, done.stderr
            aside = folder / f"interrupted{number}"
            going_on = f"python run.py --resume --output 'a b/{aside.name}'"
            assert f"The interrupted run will go on with: {going_on}" in done.stdout
            assert (aside / "checkpoint.npz").read_bytes() == before
        done = program("--resume", "--output", "a b/interrupted")
        assert done.returncode == 0, done.stderr
        assert names(folder / "interrupted") == RESULTS
        assert names(folder) == RESULTS | {"interrupted", "interrupted-2"}

    @pytest.mark.parametrize(
        ("checkpoint", "got"),
        [
            (None, "no checkpoint.npz: begin one, or name --output"),
            (b"", "a damaged one: path must be a model file"),
            (b"half", "a damaged one: path must be a model file"),
        ],
    )
    def test_without_a_whole_checkpoint_it_says_so(
        self, tmp_path, capsys, checkpoint, got
    ):
        if checkpoint is not None:
            (tmp_path / "checkpoint.npz").write_bytes(checkpoint)
        assert run.main(["--resume", "--output", str(tmp_path)]) == 2
        required = f"--resume must find an interrupted run in {tmp_path}{os.sep}"
        assert f"{required}; got {got}" in capsys.readouterr().err

    METADATA: ClassVar = {
        "recipe": "fast",
        "data": str(DIGITS),
        "limit": None,
        "held_out": 250,
        "checksum": 0,
        "images": 1250,
    }

    @pytest.mark.parametrize(
        "metadata",
        [
            {},
            {"recipe": "fast"},
            METADATA | {"recipe": 3},
            METADATA | {"data": ["x"]},
            METADATA | {"limit": "many"},
            METADATA | {"limit": 10.5},
            METADATA | {"held_out": None},
            METADATA | {"checksum": True},
            METADATA | {"more": 1},
            METADATA | {"own": True},
            METADATA | {"own": 12},
        ],
    )
    def test_metadata_of_another_kind_are_refused(self, tmp_path, capsys, metadata):
        model = HandwrittenNumberClassification("10N")
        model.metadata = metadata
        model.save(tmp_path / "checkpoint.npz")
        assert run.main(["--resume", "--output", str(tmp_path)]) == 2
        assert "got one that does not say ['recipe', " in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("change", "got"),
        [
            ({}, "got others: embedded digits"),
            ({"checksum": "right", "held_out": 251}, "got 1,249 images to train on"),
            ({"checksum": "right", "limit": 100}, "got 100 images to train on"),
            ({"checksum": "right", "held_out": -1}, "--held-out must be at least 0"),
        ],
    )
    def test_a_checkpoint_of_other_data_is_refused(self, tmp_path, capsys, change, got):
        if change.get("checksum") == "right":
            change = change | {"checksum": run.checksum(read_data(DIGITS)[2:])}
        model = HandwrittenNumberClassification("10N")
        model.metadata = self.METADATA | change
        model.save(tmp_path / "checkpoint.npz")
        before = (tmp_path / "checkpoint.npz").read_bytes()
        assert run.main(["--resume", "--output", str(tmp_path)]) == 2
        assert got in capsys.readouterr().err
        assert (tmp_path / "checkpoint.npz").read_bytes() == before

    @pytest.mark.parametrize(
        ("others", "got"),
        [
            (["--lr", "1"], "--lr"),
            (["--recipe", "default"], "--recipe"),
            (["--limit", "5", "--held-out", "3"], "--held-out, --limit"),
            (["compare", "10N"], "compare"),
            (["predict", "x.png"], "predict"),
        ],
    )
    def test_it_suffers_no_flag_or_command_beside_it(self, capsys, others, got):
        assert run.main(["--resume", "--output", "nowhere", *others]) == 2
        required = "--resume must stand alone or beside --output"
        assert f"{required}; got {got}\n" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
class TestOneFolderOneRun:
    FLAGS = ("--recipe", "source", "--data", str(DIGITS), "--epochs", "400")

    @pytest.fixture
    def running(self, environment, tmp_path):
        """Start a run in results/, and yield it once it trains."""
        with start_program(environment, tmp_path, *self.FLAGS) as process:
            for line in process.stdout:
                if line.startswith("epoch"):
                    break
            yield process
            process.kill()

    @pytest.mark.parametrize(
        "command",
        [
            ("--data", str(DIGITS), "--epochs", "1"),
            ("--resume",),
            ("compare", "10N", "--data", str(DIGITS), "--epochs", "1"),
            ("reproduce", "fast", "--data", str(DIGITS), "--seeds", "1"),
        ],
    )
    def test_a_second_run_is_refused_in_words(
        self, running, program, tmp_path, command
    ):
        before = {".lock", "checkpoint.npz"}
        done = program(*command)
        assert done.returncode == 2
        required = "--output must be a folder that no other run is using; got results"
        assert f"run.py: error: {required}{os.sep}\n" in done.stderr
        left = names(tmp_path / "results")
        assert {name for name in left if not name.endswith(".tmp")} == before
        assert running.poll() is None

    def test_another_folder_is_free(self, running, program, tmp_path):
        done = program("--data", str(DIGITS), "--epochs", "1", "--output", "other")
        assert done.returncode == 0, done.stderr
        assert names(tmp_path / "other") == RESULTS

    def test_a_killed_run_leaves_no_lock_behind(self, running, program, tmp_path):
        running.kill()
        running.wait()
        done = program("--data", str(DIGITS), "--epochs", "1")
        assert done.returncode == 0, done.stderr
        assert names(tmp_path / "results") == RESULTS | {"interrupted"}
