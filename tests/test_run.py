"""The program: what it prints, what it writes, and where it needs its own process."""

import contextlib
import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from helpers.networks import call_in_each_step
from helpers.program import (
    FIGURES,
    RESULTS,
    UNFINISHED,
    assert_pictures,
    names,
    start_program,
)
from PIL import Image

import run
from digits.mnist import DIGITS, read_data
from digits.pictures import find_pictures, name_digits
from handwritten_classifier import HandwrittenNumberClassification, replace_file


class TestTrain:
    def test_without_network_and_file_it_works_on_the_embedded_digits_and_says_so(
        self, process, tmp_path
    ):
        done = process("--epochs", "1", "--limit", "300")
        assert done.returncode == 0, done.stderr
        assert "MNIST was not found" in done.stderr
        assert "embedded digits" in done.stderr
        assert "mnist.npz: " in done.stderr  # what was looked for
        assert "download through TensorFlow: " in done.stderr  # what failed
        assert "--data PATH" in done.stderr  # what to do
        assert names(tmp_path / "results") == RESULTS
        assert_pictures(tmp_path / "results", FIGURES)
        metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
        assert metrics["data"] == "embedded digits"

    @pytest.mark.usefixtures("undrawn")
    def test_results_are_whole_and_agree_with_each_other(self, program, tmp_path):
        flags = ("--recipe", "source", "--epochs", "20")
        done = program("--data", DIGITS, "--output", "a/b", *flags)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert names(tmp_path / "a" / "b") == RESULTS
        metrics = json.loads((tmp_path / "a" / "b" / "metrics.json").read_text())
        assert metrics["settings"]["architecture"] == "8C4-MP4-10N"
        assert metrics["settings"]["lr"] == 0.01
        assert metrics["complete"] is True
        assert len(metrics["history"]["val_loss"]) == metrics["settings"]["epochs"]
        assert metrics["test_accuracy"] > 0.75
        assert f"{metrics['test_accuracy']:.2%}" in done.stdout
        model = HandwrittenNumberClassification.load(tmp_path / "a" / "b" / "model.npz")
        data = read_data(DIGITS)
        loss, accuracy = model.evaluate(data.test_images, data.test_labels)
        assert accuracy == metrics["test_accuracy"]
        assert loss == pytest.approx(metrics["test_loss"], rel=1e-5)

    @pytest.mark.usefixtures("undrawn")
    def test_flags_are_taken(self, program, tmp_path):
        flags = "--architecture 4C5-MP2-10N --epochs 2 --batch-size 20 --lr 0.02"
        flags += " --momentum 0.5 --augment 0.5 --seed 7 --limit 100 --held-out 50"
        flags += " --label-smoothing 0.1 --weight-decay 0.001 --averaging 0.2"
        done = program("--data", DIGITS, *flags.split())
        assert done.returncode == 0, done.stderr
        metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
        expected = {
            "architecture": "4C5-MP2-10N",
            "epochs": 2,
            "batch_size": 20,
            "lr": 0.02,
            "momentum": 0.5,
            "weight_decay": 0.001,
            "averaging": 0.2,
            "augment": 0.5,
            "label_smoothing": 0.1,
            "seed": 7,
        }
        assert expected.items() <= metrics["settings"].items()
        assert metrics["training_images"] == 100
        assert metrics["validation_images"] == 50

    @pytest.mark.parametrize("recipe", run.RECIPES)
    @pytest.mark.usefixtures("undrawn")
    def test_every_recipe_trains(self, program, tmp_path, few_digits, recipe):
        flags = ("--epochs", "1", "--limit", "100")
        done = program("--data", few_digits, "--recipe", recipe, *flags)
        assert done.returncode == 0, done.stderr
        metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
        expected = run.RECIPES[recipe] | {"epochs": 1}
        assert expected.items() <= metrics["settings"].items()

    @pytest.mark.usefixtures("undrawn")
    def test_same_seed_same_numbers(self, program, process, tmp_path):
        found = []
        for folder, start in (("one", program), ("two", process)):
            flags = ("--epochs", "1", "--limit", "300")
            start("--data", DIGITS, *flags, "--output", folder)
            metrics = json.loads((tmp_path / folder / "metrics.json").read_text())
            found.append((metrics["test_loss"], metrics["history"]["loss"]))
        assert found[0] == found[1]

    def test_a_local_file_needs_no_tensorflow(self, process, tmp_path, few_digits):
        (tmp_path / "tensorflow.py").write_text("raise SystemExit('imported')")
        flags = ("--epochs", "1", "--limit", "50")
        done = process("--data", few_digits, *flags, PYTHONPATH=str(tmp_path))
        assert done.returncode == 0, done.stderr
        command = ("reproduce", "source", "--seeds", "1", *flags)  # draws nothing
        done = process(*command, MNIST_PATH=str(few_digits), PYTHONPATH=str(tmp_path))
        assert done.returncode == 0, done.stderr
        done = process(*flags, PYTHONPATH=str(tmp_path))
        assert "imported" in done.stderr  # The trap does work.

    @pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
    def test_ctrl_c_keeps_what_was_learned(self, environment, tmp_path):
        flags = ("--data", DIGITS, "--epochs", "5000")
        with start_program(environment, tmp_path, *flags) as process:
            for line in process.stdout:
                if line.startswith("epoch    2/"):
                    break
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)  # An impatient hand undoes nothing.
            printed, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert errors == ""
        assert "Interrupted" in printed
        assert "will go on with: python run.py --resume\n" in printed
        assert names(tmp_path / "results") == RESULTS | UNFINISHED
        assert_pictures(tmp_path / "results", FIGURES)
        metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
        assert metrics["complete"] is False
        assert len(metrics["history"]["loss"]) >= 2
        HandwrittenNumberClassification.load(tmp_path / "results" / "model.npz")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--data", "nowhere.npz"], "nowhere.npz"),
            (["--data", str(ROOT)], "must hold mnist's IDX files"),
            (
                ["--data", str(ROOT / "README.md")],
                "must be a .npz file with the arrays",
            ),
            (
                ["--data", str(DIGITS), "--lr", "-1"],
                "lr must be a finite number above 0",
            ),
            (
                ["--data", str(DIGITS), "--limit", "0"],
                "--limit must be at least 1; got 0",
            ),
            (
                ["--data", str(DIGITS), "--architecture", "8C4"],
                "got '8C4' at position 1",
            ),
            (["--data", str(DIGITS), "--output", str(DIGITS)], "digits.npz"),
            (["--recipe", "secret"], "invalid choice"),
            (["--epochs", "many"], "invalid int value"),
            (
                ["predict", "x.png", "--model", "gone"],
                "got gone, where there is none: leave it out, or train: python run.py",
            ),
            (["predict", "x.png", "--model", ""], "--model must be a trained model"),
            (["compare", "8C4"], "got '8C4' at position 1"),
            (["--architecture", "10N", "compare"], "--architecture must be left out"),
            (["--seed", "5", "reproduce", "fast"], "--seed must be left out"),
            (["--architecture", "10N", "reproduce", "fast"], "--architecture must be"),
            (["reproduce", "fast", "--seed", "5"], "unrecognized arguments: --seed"),
            (["--data", "gone"], "--data must be a file or a folder with MNIST; got"),
            (["--data", ""], "--data must be a file or a folder with MNIST; got ''"),
        ],
    )
    def test_bad_input_is_an_error_in_words(
        self, program, tmp_path, arguments, message
    ):
        done = program(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(tmp_path.rglob("*.npz"))

    def test_a_file_that_was_named_is_never_passed_over(self, program, tmp_path):
        done = program(MNIST_PATH="gone.npz")
        assert done.returncode == 2
        assert "MNIST_PATH must be a file or a folder with MNIST; got" in done.stderr
        assert "gone.npz" in done.stderr

    @pytest.mark.parametrize(
        ("flag", "command"),
        [
            ("--output", ["reproduce", "fast"]),
            ("--output", ["compare"]),
            ("--output", ["predict", "x.png"]),
            ("--data", ["draw"]),
        ],
    )
    def test_a_flag_before_a_command_holds_for_it(self, flag, command):
        args = run.build_parser().parse_args([flag, "here", *command])
        assert getattr(args, flag.removeprefix("--")) == "here"

    def test_a_run_that_diverges_at_once_leaves_an_earlier_model(
        self, program, tmp_path
    ):
        (tmp_path / "results").mkdir()
        (tmp_path / "results" / "model.npz").write_text("of a better run")
        flags = ["--architecture", "10N", "--lr", "1e39", "--momentum", "0"]
        done = program("--data", DIGITS, *flags)
        assert done.returncode == 1
        assert "lr must be small enough" in done.stdout
        assert "Nothing was learned before: results that were there" in done.stdout
        assert names(tmp_path / "results") == {"model.npz"}
        kept = (tmp_path / "results" / "model.npz").read_text()
        assert kept == "of a better run"

    @pytest.mark.usefixtures("undrawn")
    def test_a_run_that_diverges_later_writes_what_was_learned_before(
        self, tmp_path, monkeypatch, capsys
    ):
        def diverge_in_epoch_2(model, *_):
            if len(model.history["loss"]) == 1:
                model.W_dense[:] = np.nan

        call_in_each_step(monkeypatch, "generate_patches", diverge_in_epoch_2)
        flags = ["--data", str(DIGITS), "--limit", "50", "--output", str(tmp_path)]
        assert run.main(flags) == 1
        assert "all results are in" in capsys.readouterr().out
        assert names(tmp_path) == RESULTS
        metrics = json.loads((tmp_path / "metrics.json").read_text())
        assert len(metrics["history"]["loss"]) == 1
        assert metrics["settings"]["epochs"] == 10 * run.RECIPES["default"]["epochs"]
        assert metrics["complete"] is False

    def test_without_a_package_it_says_how_to_install_it(self, process, tmp_path):
        (tmp_path / "cv2.py").write_text(
            "raise ModuleNotFoundError(\"No module named 'cv2'\")"
        )
        (tmp_path / "results").mkdir()
        HandwrittenNumberClassification().save(tmp_path / "results" / "model.npz")
        Image.fromarray(np.eye(28, dtype=np.uint8)).save(tmp_path / "one.png")
        done = process("predict", "one.png", PYTHONPATH=str(tmp_path))
        assert done.returncode == 2
        assert "'cv2': pip install -r requirements.txt" in done.stderr
        assert "Traceback" not in done.stderr

    def test_the_help_says_defaults_and_units(self, program):
        shown = " ".join(program("--help").stdout.split())
        for text in (
            "default is 10 times as many (default: 3, fast: 1,",
            "images in one step (default: 32, fast: 32,",
            "(default: 0.1, fast: 0.15,",
            "number of training images (default: all",
            "(default: a sixth, which is 10,000 of MNIST)",
            "folder for the results (default: results)",
        ):
            assert text in shown


class TestReproduce:
    FLAGS = ("reproduce", "source", "--data", DIGITS, "--limit", "200")

    def read(self, folder):
        path = folder / "results" / "reproduce-source.json"
        return json.loads(path.read_text())

    @pytest.mark.usefixtures("undrawn")
    def test_every_seed_is_trained_and_tested_as_run_py_does_it(
        self, program, tmp_path
    ):
        done = program(*self.FLAGS, "--epochs", "2", "--seeds", "3")
        assert done.returncode == 0, done.stderr
        written = self.read(tmp_path)
        accuracies = [row["test_accuracy"] for row in written["seeds"]]
        assert [row["seed"] for row in written["seeds"]] == [0, 1, 2]
        assert len(set(accuracies)) > 1
        summary = written["summary"]["test_accuracy"]
        assert summary["mean"] == pytest.approx(np.mean(accuracies))
        assert summary["standard_deviation"] == pytest.approx(
            np.std(accuracies, ddof=1)
        )
        assert summary["minimum"] == min(accuracies)
        assert summary["maximum"] == max(accuracies)
        assert f"{summary['mean']:.3%}" in done.stdout
        assert written["settings"]["epochs"] == 2
        assert written["training_images"] == 200
        assert {"parameters", "multiply_adds", "data"} <= written.keys()
        flags = ("--recipe", *self.FLAGS[1:], "--epochs", "2", "--seed", "1")
        done = program(*flags)
        assert done.returncode == 0, done.stderr
        metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
        assert metrics["test_accuracy"] == accuracies[1]

    def test_it_goes_on_where_it_ended(self, program, tmp_path):
        flags = (*self.FLAGS, "--epochs", "1", "--jobs", "1", "--seeds")
        assert program(*flags, "2").returncode == 0
        before = self.read(tmp_path)["seeds"]
        done = program(*flags, "3")
        assert done.returncode == 0, done.stderr
        assert "Seed 2 of" in done.stdout
        assert "Seed 1 of" not in done.stdout
        assert self.read(tmp_path)["seeds"][:2] == before

    @pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
    def test_ctrl_c_loses_no_finished_seed(self, environment, tmp_path):
        flags = ("reproduce", "source", "--data", DIGITS, "--limit", "1000")
        flags += ("--epochs", "2", "--seeds", "1000")
        with start_program(environment, tmp_path, *flags) as process:
            for line in process.stdout:
                if line.startswith("Seed 2 of 0 to 999"):
                    break
            process.send_signal(signal.SIGINT)
            printed, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert errors == ""
        assert "The same command goes on" in printed
        assert [row["seed"] for row in self.read(tmp_path)["seeds"]][:2] == [0, 1]
        assert names(tmp_path / "results") == {"reproduce-source.json"}

    def test_results_of_other_settings_are_left_alone(self, program, tmp_path):
        assert program(*self.FLAGS, "--epochs", "1", "--seeds", "1").returncode == 0
        before = self.read(tmp_path)
        done = program(*self.FLAGS, "--epochs", "1", "--seeds", "1", "--lr", "0.5")
        assert done.returncode == 2
        assert "got lr 0.01 in it, and 0.5 now" in done.stderr
        assert self.read(tmp_path) == before
        path = tmp_path / "results" / "reproduce-source.json"
        for text in ("{", "[]", "{}", '{"settings": {}, "seeds": [{}]}'):
            path.write_text(text)
            done = program(*self.FLAGS, "--epochs", "1", "--seeds", "1")
            assert done.returncode == 2
            assert "got no readable results" in done.stderr
            assert path.read_text() == text

    def test_without_held_out_images_there_is_no_validation(self, program, tmp_path):
        flags = ("--epochs", "1", "--seeds", "1", "--held-out", "0")
        done = program(*self.FLAGS, *flags)
        assert done.returncode == 0, done.stderr
        assert "validation" not in done.stdout
        assert self.read(tmp_path)["summary"].keys() == {"test_accuracy", "seconds"}

    def test_a_seed_that_diverges_is_said(self, program, tmp_path):
        flags = ("--epochs", "1", "--seeds", "2", "--jobs", "1", "--lr", "1e39")
        done = program(*self.FLAGS, *flags)
        assert done.returncode == 1
        assert "lr must be small enough" in done.stdout
        assert names(tmp_path / "results") == set()

    def test_the_number_of_seeds_is_checked(self, program):
        done = program(*self.FLAGS, "--seeds", "0")
        assert done.returncode == 2
        assert "--seeds must be at least 1; got 0" in done.stderr


class TestCompare:
    def test_the_configurations_on_the_command_line(self, program, tmp_path):
        chosen = ["10N", "4C5-MP4-10N", "4C5-MP3s2-10N"]
        flags = ("--data", DIGITS, "--epochs", "2", "--jobs", "1")
        done = program("compare", *chosen, *flags)
        assert done.returncode == 0, done.stderr
        assert names(tmp_path / "results") == {"comparison.json", "comparison.png"}
        assert_pictures(tmp_path / "results", ["comparison.png"])
        written = json.loads((tmp_path / "results" / "comparison.json").read_text())
        rows = written["configurations"]
        assert [row["architecture"] for row in rows] == chosen
        for number, row in enumerate(rows, start=1):
            assert f"Configuration {number} of 3: {row['architecture']}" in done.stdout
            assert row["side_by_side"] == 1
            assert row["settings"]["epochs"] == 2
            assert row["settings"]["seed"] == rows[0]["settings"]["seed"]
            line = next(
                line
                for line in done.stdout.splitlines()
                if re.match(rf"{row['architecture']} +[\d,]+ ", line)
            )
            assert f"{row['parameters']:,}" in line
            assert f"{row['multiply_adds']:,}" in line
            assert f"{row['test_accuracy']:.2%}" in line
            assert f"{row['train_loss']:.4f}" in line
        assert re.search(
            r"Configuration 3 of 3: .*, about \d+ min \d\d s left", done.stdout
        )

    @pytest.mark.usefixtures("undrawn")
    def test_flags_before_the_command_count_as_those_behind_it(
        self, program, tmp_path, few_digits
    ):
        done = program(
            "--data", few_digits, "--epochs", "1", "compare", "10N", "--seed", "5"
        )
        assert done.returncode == 0, done.stderr
        written = json.loads((tmp_path / "results" / "comparison.json").read_text())
        settings = written["configurations"][0]["settings"]
        assert (settings["epochs"], settings["seed"]) == (1, 5)

    @pytest.mark.usefixtures("undrawn")
    def test_a_recipe_gives_the_settings(self, program, tmp_path, few_digits):
        flags = ("--data", few_digits, "--epochs", "1", "--recipe", "source")
        for order in (("compare", "10N", *flags), (*flags, "compare", "10N")):
            done = program(*order)
            assert done.returncode == 0, done.stderr
            text = (tmp_path / "results" / "comparison.json").read_text()
            settings = json.loads(text)["configurations"][0]["settings"]
            assert (settings["lr"], settings["momentum"]) == (0.01, 0.0)

    def test_a_configuration_that_diverges_is_left_out(
        self, program, tmp_path, few_digits
    ):
        flags = ("--data", few_digits, "--lr", "1e39", "--momentum", "0")
        done = program("compare", "10N", *flags)
        assert done.returncode == 1
        assert "Left out: lr must be small enough" in done.stdout
        assert "nothing to write" in done.stdout

    def test_at_least_six_configurations_of_all_kinds_by_default(self):
        models = [HandwrittenNumberClassification(a) for a in run.CONFIGURATIONS]
        assert len(models) >= 6
        kinds = [[layer.kind for layer in model.layers] for model in models]
        assert {row.count("convolution") for row in kinds} >= {0, 1, 2}
        assert {row.count("pooling") for row in kinds} >= {0, 1, 2}

    NAMES = ("10N", "2C5-MP4-10N", "2C5-MP3-10N")

    @pytest.mark.usefixtures("undrawn")
    def test_it_goes_on_where_it_was_interrupted(
        self, tmp_path, few_digits, monkeypatch, capsys
    ):
        monkeypatch.chdir(tmp_path)
        command = ["compare", *self.NAMES, "--data", str(few_digits), "--epochs", "1"]
        command += ["--jobs", "1"]
        original, trained = run.try_configuration, []

        def interrupt(model, task):
            if model.architecture == self.NAMES[2]:
                raise KeyboardInterrupt
            return original(model, task)

        monkeypatch.setattr(run, "try_configuration", interrupt)
        assert run.main(command) == run.INTERRUPTED
        assert "The same command goes on" in capsys.readouterr().out
        path = tmp_path / "results" / "comparison.json"
        before = json.loads(path.read_text())["configurations"]
        assert [row["architecture"] for row in before] == [*self.NAMES[:2]]

        def note(model, task):
            trained.append(model.architecture)
            return original(model, task)

        monkeypatch.setattr(run, "try_configuration", note)
        assert run.main(command) == 0
        assert trained == [self.NAMES[2]]
        after = json.loads(path.read_text())["configurations"]
        assert after[:2] == before
        assert after[2]["architecture"] == self.NAMES[2]
        capsys.readouterr()
        assert run.main([*command, "--lr", "0.05"]) == 0
        assert trained[1:] == [*self.NAMES]  # Other settings have other results.
        kept = path.with_stem("comparison-2")
        assert f"that were there are now {kept.relative_to(tmp_path)}" in (
            capsys.readouterr().out
        )
        assert json.loads(kept.read_text())["configurations"] == after

    @pytest.mark.usefixtures("undrawn")
    def test_rows_of_other_configurations_stay(self, tmp_path, few_digits, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in self.NAMES[:2]:
            command = ["compare", name, "--data", str(few_digits), "--epochs", "1"]
            assert run.main(command) == 0
        text = (tmp_path / "results" / "comparison.json").read_text()
        rows = json.loads(text)["configurations"]
        assert {row["architecture"] for row in rows} == {*self.NAMES[:2]}

    @pytest.mark.parametrize(
        "command", [["compare", "10N"], ["reproduce", "fast", "--seeds", "1"]]
    )
    @pytest.mark.usefixtures("undrawn")
    def test_results_of_other_data_are_not_taken_for_these(
        self, tmp_path, few_digits, monkeypatch, capsys, command
    ):
        monkeypatch.chdir(tmp_path)
        arrays = dict(np.load(few_digits))
        statuses = []
        for change in (0, 1):
            np.savez("d.npz", **arrays | {"x_train": arrays["x_train"] ^ change})
            flags = ["--data", "d.npz", "--epochs", "1"]
            statuses.append(run.main([*command, *flags]))
        said = capsys.readouterr()
        assert "are there already" not in said.out
        if command[0] == "reproduce":
            assert "checksum" in said.err
        assert statuses == [0, 0 if command[0] == "compare" else 2]

    @pytest.mark.parametrize("error", [MemoryError("too much"), OSError("no disk")])
    def test_an_error_loses_no_finished_configuration(
        self, tmp_path, few_digits, monkeypatch, error
    ):
        monkeypatch.chdir(tmp_path)
        original = run.try_configuration

        def fail(model, task):
            if model.architecture == self.NAMES[1]:
                raise error
            return original(model, task)

        monkeypatch.setattr(run, "try_configuration", fail)
        with contextlib.suppress(MemoryError):
            flags = ["--data", str(few_digits), "--epochs", "1", "--jobs", "1"]
            run.main(["compare", *self.NAMES, *flags])
        text = (tmp_path / "results" / "comparison.json").read_text()
        assert [row["architecture"] for row in json.loads(text)["configurations"]] == [
            self.NAMES[0]
        ]

    def test_labels_are_checked_before_the_first_is_trained(self, program, few_digits):
        done = program("compare", "10N", "9N", "--data", few_digits, "--epochs", "1")
        assert done.returncode == 2
        assert "labels must be in 0..8; got 9" in done.stderr
        assert "accuracy" not in done.stdout

    def test_all_configurations_are_checked_before_the_first(self, program, tmp_path):
        done = program("compare", "10N", "8C99-10N", "--data", DIGITS)
        assert done.returncode == 2
        assert "got '8C99' at position 1" in done.stderr
        assert not (tmp_path / "results").exists()

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '{"configurations": [{}]}', "null"]
    )
    @pytest.mark.usefixtures("undrawn")
    def test_a_damaged_result_is_replaced(
        self, tmp_path, few_digits, monkeypatch, text
    ):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "results").mkdir()
        path = tmp_path / "results" / "comparison.json"
        path.write_text(text)
        command = ["compare", "10N", "--data", str(few_digits), "--epochs", "1"]
        assert run.main(command) == 0
        assert len(json.loads(path.read_text())["configurations"]) == 1
        assert path.with_stem("comparison-2").read_text() == text


@pytest.fixture(scope="module")
def trained(digits):
    """Return a model that reads simple digits."""
    model = HandwrittenNumberClassification("8C5-MP2-10N", lr=0.1, momentum=0.9)
    images, labels = digits.train_images, digits.train_labels
    return model.fit(images, labels, epochs=5, verbose=0)


class TestPredict:
    @pytest.fixture
    def model_path(self, trained, tmp_path):
        """Lay the model where the program looks for it."""
        (tmp_path / "results").mkdir()
        trained.save(tmp_path / "results" / "model.npz")

    @pytest.mark.usefixtures("undrawn")
    def test_pictures_of_many_kinds(self, program, tmp_path, digits, model_path):
        zero = Image.fromarray(digits.train_images[0])  # the first digit is a 0
        large = zero.resize((300, 400))
        inverted = Image.eval(large, lambda grey: 255 - grey)
        transparent = Image.new("RGBA", large.size, (0, 0, 0, 0))
        transparent.putalpha(large)
        turned = inverted.rotate(90, expand=True)
        orientation = Image.Exif()
        orientation[0x0112] = 6  # as a phone says: turn me by 90 degrees
        pictures = {
            "small.png": zero,
            "large.jpg": large,
            "inverted.jpg": inverted.convert("RGB"),
            "transparent.png": transparent,
            "palette.png": inverted.convert("P"),
            "bilevel.png": inverted.convert("1"),
            "sixteen.png": Image.fromarray(np.asarray(large).astype(np.uint16) * 257),
        }
        for name, picture in pictures.items():
            picture.save(tmp_path / name)
        turned.convert("RGB").save(tmp_path / "turned.jpg", exif=orientation)
        files = [*pictures, "turned.jpg"]
        done = program("predict", *files)
        assert done.returncode == 0, done.stderr
        _, _, head, _, *rows = [line.split() for line in done.stdout.splitlines()]
        rows = rows[: len(files)]
        assert head == ["file", "digit", *(f"P({n})" for n in range(10))]
        assert [row[:2] for row in rows] == [[file, "0"] for file in files]
        for row in rows:
            shares = [float(cell.rstrip("%")) for cell in row[2:]]
            assert sum(shares) == pytest.approx(100, abs=0.6)
            assert max(shares) == shares[0]

    def test_of_several_digits_each_is_read_and_a_figure_shows_where(
        self, program, tmp_path, digits, model_path
    ):
        chosen = [5, 9, 11]
        row = np.hstack([digits.test_images[n].repeat(5, 0) for n in chosen])
        (tmp_path / "other").mkdir()
        for name in ("row.png", "other/row.png"):
            Image.fromarray(255 - row.repeat(5, 1)).save(tmp_path / name)
        done = program("predict", "row.png", "other/row.png", "--output", "seen")
        assert done.returncode == 0, done.stderr
        model = HandwrittenNumberClassification.load(tmp_path / "results" / "model.npz")
        names = name_digits(model.predict_proba(digits.test_images[chosen]))
        lines = done.stdout.splitlines()
        assert [line.split()[1] for line in lines[4:10]] == 2 * names
        figures = ["seen/read-row.png", "seen/read-row-2.png"]
        text = f"{' '.join(names)}, found as"
        assert lines[-2] == f"row.png: {text} {figures[0]} shows"
        assert lines[-1] == f"other/row.png: {text} {figures[1]} shows"
        assert_pictures(tmp_path, figures)

    def test_doubt_is_said(self, program, tmp_path, digits):
        (tmp_path / "results").mkdir()
        HandwrittenNumberClassification().save(tmp_path / "results" / "model.npz")
        Image.fromarray(digits.test_images[0]).save(tmp_path / "digit.png")
        done = program("predict", "digit.png")  # by a model that has learned nothing
        row = done.stdout.splitlines()[4].split()
        assert re.fullmatch(r"\d\?", row[1])
        assert "?: in doubt, for no digit has a probability of 70%" in done.stdout

    def test_writing_that_is_not_read_is_said(self, program, tmp_path, digits):
        picture = np.full((300, 700), 255, np.uint8)
        for at, image in enumerate(digits.test_images[:3]):
            large = 255 - image.repeat(7, 0).repeat(7, 1)
            picture[20:216, 20 + 220 * at : 216 + 220 * at] = large
        picture[240:285, 100:110] = picture[240:285, 300:310] = 0
        Image.fromarray(picture).save(tmp_path / "page.png")
        done = program("predict", "page.png")
        line = "  2 marks beside the digits were not read: most are much smaller"
        assert done.stdout.splitlines()[-1] == line

    def test_what_cannot_be_read_is_said_and_the_rest_is_read(
        self, program, tmp_path, digits, model_path
    ):
        Image.fromarray(digits.train_images[0]).save(tmp_path / "zero.png")
        Image.new("L", (50, 50), 255).save(tmp_path / "blank.png")
        (tmp_path / "text.png").write_text("no picture")
        whole = (tmp_path / "zero.png").read_bytes()
        (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
        done = program(
            "predict", "blank.png", "text.png", "gone.png", "cut.png", "zero.png"
        )
        assert done.returncode == 1
        assert "blank.png: image must show a digit" in done.stderr
        assert "(no ink)" in done.stderr
        for name in ("text.png", "gone.png", "cut.png"):
            assert f"{name}: " in done.stderr
        assert "Traceback" not in done.stderr
        rows = done.stdout.splitlines()[2:]
        assert rows[2].split()[:2] == ["zero.png", "0"]
        assert rows[3:] == ["", "zero.png: 0, found as results/read-zero.png shows"]

    def test_a_file_that_is_no_model_is_an_error(self, program, tmp_path):
        (tmp_path / "other.npz").write_text("no model")
        done = program("predict", "x.png", "--model", "other.npz")
        assert done.returncode == 2
        assert "must be a model file" in done.stderr


class TestModel:
    @pytest.fixture
    def own(self, tmp_path, monkeypatch):
        """Return where the user's own model would lie, in an empty folder."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "results").mkdir()
        return tmp_path / "results" / "model.npz"

    def test_without_training_the_ready_one_reads_offline(
        self, process, tmp_path, digits
    ):
        Image.fromarray(digits.train_images[0]).save(tmp_path / "zero.png")
        done = process("predict", "zero.png")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        said, _, _, _, row, *_ = done.stdout.splitlines()
        assert said.startswith("Model: the ready one, digits/model.npz, ")
        assert row.split()[:2] == ["zero.png", "0"]

    def test_the_ready_one_is_said_with_what_it_is(self, own, capsys):
        model = run.choose_model(None)[1]
        ready = HandwrittenNumberClassification.load(run.READY_MODEL)
        np.testing.assert_equal(model.parameters, ready.parameters)
        said = capsys.readouterr().out
        assert model.architecture in said
        assert f"recipe {model.metadata['recipe']}, " in said
        assert f"{model.metadata['test_accuracy']:.2%} on MNIST's test images" in said
        assert said.count("\n") == 2  # one line, and an empty one

    def test_the_users_own_comes_first(self, own, capsys):
        HandwrittenNumberClassification("2C5-10N").save(own)
        assert run.choose_model(None)[1].architecture == "2C5-10N"
        assert capsys.readouterr().out == f"Model: {run.OWN_MODEL}, 2C5-10N\n\n"

    def test_the_one_that_is_named_comes_before_both(self, own, capsys):
        HandwrittenNumberClassification("2C5-10N").save(own)
        HandwrittenNumberClassification("10N").save("other.npz")
        assert run.choose_model("other.npz")[1].architecture == "10N"
        assert capsys.readouterr().out == "Model: other.npz, 10N\n\n"

    @pytest.mark.parametrize("command", [["predict", "x.png"], ["draw"]])
    @pytest.mark.parametrize("damage", ["text", "cut", "folder", "link"])
    def test_a_damaged_one_is_never_passed_over(self, own, capsys, command, damage):
        if damage == "text":
            own.write_text("no model")
        elif damage == "cut":
            HandwrittenNumberClassification("10N").save(own)
            own.write_bytes(own.read_bytes()[:-100])
        elif damage == "folder":
            own.mkdir()
        else:
            try:
                own.symlink_to("gone.npz")
            except OSError:
                pytest.skip("this system lets nobody make links")
        assert run.main(command) == 2
        said = capsys.readouterr()
        assert said.err.startswith("run.py: error: --model must be a ")
        assert str(run.OWN_MODEL) in said.err
        assert said.out == ""


class TestOnMnist:
    @pytest.mark.usefixtures("undrawn")
    def test_a_default_run_on_a_part_of_mnist(self, program, tmp_path, mnist_path):
        flags = ("--limit", "12000", "--epochs", "1")
        done = program("--data", mnist_path, *flags)
        assert done.returncode == 0, done.stderr
        metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
        assert metrics["test_accuracy"] > 0.955
        assert len(metrics["history"]["loss"]) == 1

    @pytest.mark.usefixtures("undrawn")
    def test_the_source_recipe_on_mnist(self, program, tmp_path, mnist_path):
        done = program(
            "--recipe", "source", "--epochs", "1", MNIST_PATH=str(mnist_path)
        )
        assert done.returncode == 0, done.stderr
        metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
        assert metrics["test_accuracy"] > 0.9

    @pytest.mark.usefixtures("undrawn")
    def test_the_fast_recipe_on_mnist(self, program, tmp_path, mnist_path):
        done = program("--recipe", "fast", MNIST_PATH=str(mnist_path))
        assert done.returncode == 0, done.stderr
        metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
        assert len(metrics["history"]["loss"]) == 1
        assert metrics["test_accuracy"] > 0.985


class TestWords:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["fast"], "did you mean: --recipe fast"),
            (["reproduc", "fast"], "did you mean: reproduce"),
            (["comparE"], "did you mean: compare"),
            (["reproduce", "fsat"], "did you mean: fast"),
            (["--recipe", "fasst"], "did you mean: fast"),
            (
                ["--epoch", "3"],
                "unrecognized arguments: --epoch; did you mean: --epochs",
            ),
            (["--batch_size=3"], "--batch_size; did you mean: --batch-size"),
            (["compare", "10N", "--outptu", "x"], "did you mean: --output"),
            (["predict", "x.png", "--modle", "x"], "did you mean: --model"),
            (
                ["--epochs", "9" * 400],
                "argument --epochs: must be below 10^12; got 400",
            ),
            (["--seed", "9" * 30], "argument --seed: must be below 10^12; got 30"),
            (["--limit", "9" * 5000], "argument --limit: must be below 10^12"),
            (["--epochs", "9" * 11], "epochs must be at most 1000000000; got 99"),
            (["--architecture", "8c5-mp2-10n"], "on a map of 28x28x1: write capitals"),
            (["compare", "8c5-10N"], "on a map of 28x28x1: write capitals"),
        ],
    )
    def test_what_was_meant_is_said(
        self, tmp_path, monkeypatch, capsys, arguments, said
    ):
        monkeypatch.chdir(tmp_path)
        with contextlib.suppress(SystemExit):
            assert run.main([*arguments, "--data", str(DIGITS)]) == 2
        assert said in capsys.readouterr().err
        assert not list(tmp_path.iterdir())

    def test_a_file_is_no_folder_for_results(self, tmp_path, capsys):
        path = tmp_path / "README.md"
        path.write_text("mine")
        command = ["--data", str(DIGITS), "--epochs", "1", "--output", str(path)]
        assert run.main(command) == 2
        said = f"--output must be a folder; got {path}, which is a file"
        assert said in capsys.readouterr().err
        assert path.read_text() == "mine"

    def test_data_are_no_model(self, capsys):
        assert run.main(["predict", "x.png", "--model", str(DIGITS)]) == 2
        required = "--model must be a model that this program has trained"
        assert f"{required}; got another file" in capsys.readouterr().err

    def test_a_value_that_is_the_same_everywhere_is_said_once(self, capsys):
        with pytest.raises(SystemExit):
            run.main(["--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert "seed of all random numbers (default: 0)" in said
        assert "source: 0, best: 0)" not in said

    def test_figures_are_drawn_whatever_backend_the_environment_names(
        self, process, tmp_path, few_digits
    ):
        backend = "module://no_such_module.backend"
        done = process("--data", few_digits, "--epochs", "1", MPLBACKEND=backend)
        assert done.returncode == 0, done.stderr
        assert_pictures(tmp_path / "results", ["training.png", "kernels.png"])


class TestFindPictures:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in (
            "b.png",
            "a.JPG",
            "c.txt",
            "in/d.webp",
            "in/deep/e.png",
            "[1].png",
        ):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        return tmp_path

    @pytest.mark.parametrize(
        ("given", "found"),
        [
            (["b.png", "nowhere.png"], ["b.png", "nowhere.png"]),
            (["."], ["[1].png", "a.JPG", "b.png"]),
            (["in"], ["in/d.webp"]),
            (["*.png"], ["[1].png", "b.png"]),
            (["in/**/*.png", "a.*"], ["in/deep/e.png", "a.JPG"]),
            (["[1].png"], ["[1].png"]),
            (["c.txt"], ["c.txt"]),
        ],
    )
    def test_folders_and_wildcards_are_expanded(self, folder, given, found):
        assert [Path(name).as_posix() for name in find_pictures(given)] == found

    @pytest.mark.parametrize("given", [["*.bmp"], ["empty"]])
    def test_none_is_an_error(self, folder, given):
        (folder / "empty").mkdir()
        with pytest.raises(ValueError, match="FILE must name pictures; got none in"):
            find_pictures(given)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail():
        with replace_file(path) as file:
            file.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match=r"path must be one to write to; .*disk full"):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == {"file"}
