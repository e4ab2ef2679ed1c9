"""The benchmark compares equal networks in turns; its times are not tested."""

import signal
import sys
from contextlib import contextmanager

import benchmark
import numpy as np
import pytest
from conftest import ROOT
from helpers import systems
from helpers.memory import run_program
from helpers.program import FIGURES, assert_pictures, names

from digits.mnist import DIGITS
from handwritten_classifier import HandwrittenNumberClassification

DATA = str(DIGITS)


def row(network, numpy=1.0, torch=1.0, **more):
    """Return a row of medians, as the benchmark has them."""
    medians = {"NumPy": numpy, "PyTorch": torch}
    spreads = {name: benchmark.spread([seconds]) for name, seconds in medians.items()}
    return {"network": network} | more | benchmark.with_ratio(spreads)


class TestSystems:
    @pytest.mark.parametrize("architecture", benchmark.NETWORKS[2:4])
    @pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
    def test_they_build_and_train_equal_networks(self, architecture, label_smoothing):
        settings = {"architecture": architecture, "label_smoothing": label_smoothing}
        model = HandwrittenNumberClassification(**settings)
        expected = sum(array.size for array in model.parameters.values())
        keras = systems.KerasSystem(DATA)
        keras.build(settings)
        assert keras.model.count_params() == expected
        keras.train(64)
        numpy = systems.NumpySystem(DATA)
        numpy.build(settings)
        numpy.train(64)
        assert len(numpy.model.history["loss"]) == 1

    def test_all_have_the_same_images(self):
        images, labels = systems.load_floats(DATA)
        assert images.shape == (20_000, 28, 28, 1)
        assert images.dtype == np.float32
        assert images.max() == 1
        assert len(labels) == 20_000

    def test_pytorch_has_the_equal_network(self):
        pytest.importorskip("torch", reason="PyTorch is not installed")
        torch = systems.TorchSystem(DATA)
        for architecture in benchmark.NETWORKS:
            torch.build({"architecture": architecture})
            model = HandwrittenNumberClassification(architecture)
            expected = sorted(array.size for array in model.parameters.values())
            assert sorted(p.numel() for p in torch.model.parameters()) == expected
        torch.train(64)
        torch.predict(10)

    def test_an_earlier_class_is_a_module_of_its_own(self, tmp_path, monkeypatch):
        source = (ROOT / "handwritten_classifier.py").read_text(encoding="utf-8")
        (tmp_path / "before").write_text(source, encoding="utf-8")
        monkeypatch.setitem(sys.modules, "earlier_classifier", None)
        earlier = systems.NumpySystem(DATA, tmp_path / "before")
        assert earlier.kind is not HandwrittenNumberClassification
        assert earlier.kind.__module__ == "earlier_classifier"
        present = systems.NumpySystem(DATA)
        for system in (earlier, present):
            system.build({"architecture": "2C5-MP4-10N", "augment": 1.0})
            system.train(64)
        assert earlier.model.history["loss"] == present.model.history["loss"]

    def test_each_round_begins_with_another(self, monkeypatch):
        order = []

        class Pool:
            def __init__(self, *_):
                self.shutdown = lambda: None

            def submit(self, function, *arguments):
                order.append(self)
                return self

            def result(self):
                return 1.0

        monkeypatch.setattr(systems, "ProcessPoolExecutor", Pool)
        with systems.Workers(dict.fromkeys("abc"), None) as workers:
            order.clear()
            for number in range(4):
                assert workers.take_turns(number, "train", 1) == dict.fromkeys("abc", 1)
        found = {pool: name for name, pool in workers.pools.items()}
        assert "".join(found[pool] for pool in order) == "abcbcacababc"


class TestPrograms:
    def test_memory_is_that_of_the_program_not_of_the_one_that_starts_it(self):
        ours = np.ones(200_000_000, np.uint8)
        _, small = run_program(["-c", "pass"])
        _, large = run_program(["-c", "kept = b'1' * 300_000_000"])
        assert ours.nbytes / 1e6 > small > 1
        assert 400 > large - small + 10 > 300

    def test_a_program_that_fails_is_named_with_its_last_line(self):
        failing = ["-c", "import sys; print('first', file=sys.stderr); sys.exit('bad')"]
        with pytest.raises(SystemExit, match=r"sys\.exit(.|\n)*status 1: bad$"):
            run_program(failing)

    def test_the_program_in_keras_leaves_the_same_figures(self, tmp_path, few_digits):
        program = ROOT / "tests" / "helpers" / "as_keras.py"
        run_program([program, tmp_path, few_digits])
        assert names(tmp_path) == FIGURES | {"metrics.json", "model.keras"}
        assert_pictures(tmp_path, FIGURES)

    def test_each_reproduction_begins_in_an_empty_folder(self, tmp_path, monkeypatch):
        stub = f"""
import os, sys
folder = sys.argv[sys.argv.index("--output") + 1]
with open({str(tmp_path / "log")!r}, "a") as log:
    print(os.listdir(folder), sys.argv[1:5], sys.argv[5:7], file=log)
open(os.path.join(folder, "seeds"), "w").close()
"""
        (tmp_path / "run.py").write_text(stub)
        monkeypatch.setattr(benchmark, "ROOT", tmp_path)
        row = benchmark.measure_reproduce(DATA)
        assert row["ratio"] > 0
        lines = (tmp_path / "log").read_text().splitlines()
        start = "[] ['reproduce', 'fast', '--seeds', '4'] "
        assert lines[::2] == [start + "['--jobs', '1']"] * 3
        assert all(line.startswith(start + "['--output', ") for line in lines[1::2])
        assert len(lines) == 6


class TestBusy:
    def test_the_loops_run_meanwhile_and_are_killed_at_an_interrupt(self):
        def be_interrupted():
            with benchmark.endless_loops(2) as loops:
                assert [loop.poll() for loop in loops] == [None, None]
                started.extend(loops)
                raise KeyboardInterrupt

        started = []
        with pytest.raises(KeyboardInterrupt):
            be_interrupted()
        assert [loop.returncode for loop in started] == [-signal.SIGKILL] * 2

    def test_a_loop_that_has_ended_spoils_the_measurement(self):
        def be_too_slow():
            with benchmark.endless_loops(1) as loops:
                loops[0].send_signal(signal.SIGALRM)
                assert loops[0].wait() == -signal.SIGALRM

        with pytest.raises(RuntimeError, match="one has ended"):
            be_too_slow()

    def test_quiet_and_busy_take_turns(self, monkeypatch):
        beside = []

        @contextmanager
        def counted(count):
            beside.append(count)
            yield

        class Workers:
            def build(self, **_):
                pass

            def take_turns(self, *_):
                return {"NumPy": 1.0 + beside[-1], "Keras": 8.0}

        monkeypatch.setattr(benchmark, "endless_loops", counted)
        rows = benchmark.measure_busy(Workers(), quick=True)
        assert beside == [0, 2] * 2 * len(rows)
        assert [row["slow_down"] for row in rows] == [{"NumPy": 3.0, "Keras": 1.0}] * 2

    def test_the_medians_of_both_loads_are_compared(self):
        quiet = [{"NumPy": n, "PyTorch": 2.0} for n in (1.0, 1.0, 7.0)]
        busy = [{"NumPy": n, "PyTorch": 6.0} for n in (3.0, 1.5, 1.0)]
        row = benchmark.compare_loads({"quiet": quiet, "busy": busy}, 10)
        assert row["busy"]["NumPy"] == {"median": 15, "minimum": 10, "maximum": 30}
        assert row["slow_down"] == {"NumPy": 1.5, "PyTorch": 3.0}
        assert row["ratio_to_pytorch"] == 0.25


class TestDistortions:
    def test_this_class_is_compared_with_that_of_a_file(self):
        path = ROOT / "handwritten_classifier.py"
        row = benchmark.measure_distortions(path, DATA, quick=True)
        assert row.keys() == {"NumPy", "before", "ratio"}

    def test_a_file_that_is_not_there_is_refused_at_once(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", "--before", "nowhere.py"])
        with pytest.raises(SystemExit):
            benchmark.main()
        assert "--before must name a file; got 'nowhere.py'" in capsys.readouterr().err


class TestSummary:
    def test_the_ratio_is_to_the_faster_framework(self):
        medians = (("NumPy", 2.0), ("Keras", 8.0))
        rows = {name: benchmark.spread([seconds]) for name, seconds in medians}
        assert benchmark.with_ratio(rows)["ratio"] == 0.25
        rows["PyTorch"] = benchmark.spread([3.0, 4.0, 9.0])
        assert benchmark.with_ratio(rows)["ratio"] == 0.5

    @pytest.fixture
    def results(self):
        batch = {"batch_size": 32, "recipe": None}
        loads = {"quiet": [{"NumPy": 1.0, "PyTorch": 1.0}]}
        loads["busy"] = [{"NumPy": 3.0, "PyTorch": 6.0}]
        busy = {"network": "c", "batch_size": 8} | benchmark.compare_loads(loads, 1)
        return {
            "training": [
                row("8C4-MP4-10N", 1.0, 4.0, **batch),
                row("4C3-8C3-10N", 4.0, 4.0, **batch),
                row("12C4-10N", 9.0, 1.0, batch_size=32, recipe="fast"),
            ],
            "inference": [row("a", 3.0, 4.0), row("b", 1.0, 2.0)],
            "latency": [row("a", 1.0, 5.0), row("b", 3.0, 10.0)],
            "busy": [busy],
        }

    def test_it_has_the_worst_of_each_and_says_where(self, results):
        results |= {"distortions": {"ratio": 0.7}, "before": "before.py"}
        results |= {"reproduce": {"ratio": 0.6}}
        results["programs"] = {"MB": {"NumPy": benchmark.spread([150.0, 160.0, 155.0])}}
        summary = benchmark.summarise(results)
        assert [(row["value"], row["where"]) for row in summary] == [
            (0.5, "2 cells"),
            (1.0, "4C3-8C3-10N, batch 32"),
            (0.25, "8C4-MP4-10N, batch 32"),
            (0.75, "a"),
            (0.3, "b"),
            (3.0, "c, batch 8"),
            (0.5, "c, batch 8"),
            (0.7, "before.py"),
            (0.6, "side by side"),
            (160.0, "highest run"),
        ]

    def test_it_says_what_was_left_out(self, results, capsys):
        del results["busy"][0]["ratio_to_pytorch"]
        benchmark.print_summary(benchmark.summarise(results))
        lines = capsys.readouterr().out.splitlines()
        reasons = [line.split("left out")[1].strip() for line in lines[-4:]]
        assert reasons == ["without PyTorch", "without --before", *["with --quick"] * 2]

    @pytest.mark.parametrize("systems", [("Keras", "PyTorch"), ("PyTorch",)])
    def test_the_figure_has_a_mark_for_each_system_that_is_there(
        self, results, systems
    ):
        if "Keras" in systems:
            loads = [results["busy"][0]["quiet"], results["busy"][0]["busy"]]
            for each in results["training"] + results["inference"] + loads:
                each["Keras"] = benchmark.spread([2.0])
        figure = benchmark.draw_benchmark(results)
        figure.canvas.draw()
        legend = [text.get_text() for text in figure.legends[0].texts]
        assert legend == ["NumPy (this class)", *systems]
        training, inference, busy = figure.axes
        count = 1 + len(systems)
        assert len(training.lines) == 2 * 3 * count
        assert len(inference.lines) == 2 * 2 * count
        assert len(busy.lines) == 3 * 1 * count
