"""`run.py --resume`: a run that was killed goes on, or says why it cannot."""

import json
import os

import numpy as np
import pytest
from helpers.program import RESULTS, UNFINISHED, names, start_program
from numpy.testing import assert_array_equal

import run
from digits.mnist import DIGITS, read_data, split_training
from handwritten_classifier import HandwrittenNumberClassification


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
        ("arguments", "checkpoint", "got"),
        [
            (None, b"", "no checkpoint.json: begin one, or name --output"),
            ("{}", None, "no checkpoint.npz: begin one, or name --output"),
            ("{", b"", "a damaged one: Expecting"),
            ("{}", b"half", "a damaged one: path must be a model file"),
        ],
    )
    def test_without_a_whole_checkpoint_it_says_so(
        self, tmp_path, capsys, arguments, checkpoint, got
    ):
        if arguments is not None:
            (tmp_path / "checkpoint.json").write_text(arguments)
        if checkpoint is not None:
            (tmp_path / "checkpoint.npz").write_bytes(checkpoint)
        assert run.main(["--resume", "--output", str(tmp_path)]) == 2
        required = f"--resume must find an interrupted run in {tmp_path}{os.sep}"
        assert f"{required}; got {got}" in capsys.readouterr().err

    def test_arguments_that_are_not_its_own_are_refused(self, tmp_path, capsys):
        HandwrittenNumberClassification("10N").save(tmp_path / "checkpoint.npz")
        (tmp_path / "checkpoint.json").write_text('{"recipe": "fast"}')
        assert run.main(["--resume", "--output", str(tmp_path)]) == 2
        assert "got a checkpoint.json that does not say" in capsys.readouterr().err

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
