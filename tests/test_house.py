"""The rooms of the project: what each imports, and the class alone in a folder."""

import ast
import graphlib
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

FILES = [*ROOT.glob("*.py"), *ROOT.glob("digits/**/*.py")]
ROOMS = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
# Slow to import, or not there where only the class is used.
HEAVY = {"tensorflow", "keras", "matplotlib", "cv2", "PIL", "sklearn", "dask"}


def find_imports(path):
    """Return (module, name or None, where) of each import of a file.

    It stands at the "top", within a "function", or is for "type checking" alone.
    """
    found = []

    def walk(node, where):
        if isinstance(node, ast.Import):
            found.extend((alias.name, None, where) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports from '{'.' * node.level}'"
            found.extend((node.module, alias.name, where) for alias in node.names)
        elif isinstance(node, ast.FunctionDef):
            where = "function"
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            where = "type checking"
        for child in ast.iter_child_nodes(node):
            walk(child, where)

    walk(ast.parse(path.read_text(encoding="utf-8")), "top")
    return found


def rooms_imported(room):
    """Return the rooms of the project that a room imports, wherever it does so."""
    modules = set()
    for module, name, _ in find_imports(ROOMS[room]):
        modules |= {module, f"{module}.{name}"}
    return modules & ROOMS.keys()


def code_of(path):
    """Return the code of a file without its comments and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [part for part in body if not is_text(part)]
            node.body = kept or [ast.Pass()]
    return ast.unparse(tree)


def is_text(node):
    """Return whether a statement is a docstring."""
    text = getattr(node, "value", None)
    return isinstance(text, ast.Constant) and isinstance(text.value, str)


class TestImports:
    def test_all_rooms_are_there(self):
        rooms = {"handwritten_classifier", "run", "digits.mnist", "digits.pictures"}
        rooms |= {"digits.figures", "digits.keras_twin", "digits.page.server"}
        assert rooms <= ROOMS.keys()

    def test_the_class_imports_nothing_of_the_project(self):
        assert rooms_imported("handwritten_classifier") == set()

    def test_run_py_is_imported_by_no_room(self):
        assert [room for room in ROOMS if "run" in rooms_imported(room)] == []

    def test_pictures_need_no_network(self):
        reading = {"decoder", "ink", "pieces", "ruling", "sheet", "touching"}
        rooms = {f"digits.{room}" for room in reading}
        assert rooms_imported("digits.pictures") <= rooms
        assert rooms_imported("digits.decoder") == set()
        below = rooms_imported("digits.touching") - rooms
        assert below == {"digits.mnist_form", "handwritten_classifier"}
        network = [
            where
            for module, _, where in find_imports(ROOMS["digits.touching"])
            if module == "handwritten_classifier"
        ]
        assert "top" not in network  # Only what judges cuts needs one.

    def test_own_digits_need_no_page_and_no_pictures(self):
        below = {"handwritten_classifier", "digits.mnist", "digits.mnist_files"}
        assert rooms_imported("digits.own") <= below
        assert "digits.own" not in rooms_imported("digits.mnist")

    def test_no_circle(self):
        graph = {room: rooms_imported(room) for room in ROOMS}
        assert set(graphlib.TopologicalSorter(graph).static_order()) == set(ROOMS)

    @pytest.mark.parametrize("room", ROOMS)
    def test_no_room_takes_the_private_names_of_another(self, room):
        for module, name, _ in find_imports(ROOMS[room]):
            assert not (name or module).startswith("_") or module == "__future__"
        tree = ast.parse(ROOMS[room].read_text(encoding="utf-8"))
        own = {"self", "cls", "type(self)", "super()"}
        taken = [
            ast.unparse(node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and re.match("_(?!_)", node.attr)
            and ast.unparse(node.value) not in own
        ]
        if room != "handwritten_classifier":  # It makes other models of its own class.
            assert taken == []

    @pytest.mark.parametrize("room", ROOMS)
    def test_heavy_packages_are_imported_where_they_are_used(self, room):
        at_top = {
            module.partition(".")[0]
            for module, _, where in find_imports(ROOMS[room])
            if where == "top"
        }
        assert not at_top & HEAVY
        ours = {name.partition(".")[0] for name in ROOMS}
        if room in ("digits.page.server", "digits.page.limits"):  # Of the page alone.
            ours.add("aiohttp")
        assert at_top <= ours | {"numpy"} | sys.stdlib_module_names

    def test_only_the_command_that_serves_the_page_imports_its_server(self):
        imports = {
            (room, where)
            for room, path in ROOMS.items()
            for module, name, where in find_imports(path)
            if "digits.page.server" in (module, f"{module}.{name}")
        }
        assert imports == {("run", "function")}

    @pytest.mark.parametrize("room", ROOMS)
    def test_nothing_is_imported_by_a_name_made_at_run_time(self, room):
        assert not re.search("__import__|import_module", code_of(ROOMS[room]))

    def test_packages_have_no_code_of_their_own(self):
        for path in ROOT.glob("digits/**/__init__.py"):
            assert code_of(path) in ("", "pass"), path

    def test_importing_the_class_imports_numpy_and_the_standard_library(self):
        code = (
            "import sys, numpy; before = set(sys.modules); "
            "import handwritten_classifier; "
            "new = {m.split('.')[0] for m in set(sys.modules) - before}; "
            "print(sorted(new - set(sys.stdlib_module_names) - {'numpy'}))"
        )
        command = [sys.executable, "-c", code]
        printed = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert printed.stdout.strip() == "['handwritten_classifier']"

    def test_the_help_imports_nothing_heavy(self):
        code = (
            "import runpy, sys; sys.argv = ['run.py', '--help']\n"
            "try: runpy.run_path('run.py', run_name='__main__')\n"
            f"finally: print([name for name in {sorted(HEAVY)} if name in sys.modules])"
        )
        command = [sys.executable, "-c", code]
        printed = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert printed.stdout.startswith("usage: run.py")
        assert printed.stdout.splitlines()[-1] == "[]"


# What the class must do where only NumPy and tqdm are installed.
ALONE = """
import sys

class Refusal:
    '''Finds no package but those named, and those that Python itself has begun with.'''

    allowed = {"numpy", "tqdm", "handwritten_classifier", *sys.stdlib_module_names}
    allowed |= {name.partition(".")[0] for name in sys.modules}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refusal())
for name in ("cv2", "PIL", "matplotlib", "tensorflow", "digits", "run"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} can be imported")

import numpy as np
from handwritten_classifier import HandwrittenNumberClassification

rng = np.random.default_rng(0)
images, labels = rng.random((60, 8, 8)), np.arange(60) % 3

def new():
    settings = {"momentum": 0.9, "augment": 0.5, "averaging": 0.5, "epochs": 3}
    shape = {"input_shape": (8, 8, 1), "batch_size": 10}
    return HandwrittenNumberClassification("4C3-MP2-3N", **shape, **settings)

def assert_same(model, expected):
    for name, array in expected.parameters.items():
        assert np.array_equal(model.parameters[name], array), name

model = new().fit(images, labels, validation_data=(images, labels))
model.summary()
loss, accuracy = model.evaluate(images, labels)
assert accuracy == (model.predict(images) == labels).mean()
assert accuracy == model.score(images, labels)
model.save("model.npz")
loaded = HandwrittenNumberClassification.load("model.npz")
assert_same(loaded, model)
assert np.array_equal(loaded.predict_proba(images), model.predict_proba(images))

class Interrupted(HandwrittenNumberClassification):
    steps = 0

    def backprop_decision_making(self, *arguments):
        self.steps += 1
        if self.steps == 9:
            raise KeyboardInterrupt
        return super().backprop_decision_making(*arguments)

interrupted = Interrupted(**new().get_params())
try:
    interrupted.fit(images, labels, checkpoint="checkpoint.npz")
except KeyboardInterrupt:
    resumed = HandwrittenNumberClassification.load("checkpoint.npz")
assert len(resumed.history["loss"]) == 1
assert_same(resumed.fit(images, labels), model)
print("all of it works")
"""


class TestClassAlone:
    def test_in_an_empty_folder_it_does_all_that_needs_no_data_of_its_own(
        self, tmp_path
    ):
        shutil.copy(ROOT / "handwritten_classifier.py", tmp_path)
        (tmp_path / "alone.py").write_text(ALONE, encoding="utf-8")
        # The copy counts in no coverage of the project.
        without = ("PYTHONPATH", "COVERAGE")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(without)}
        done = subprocess.run(
            [sys.executable, "-W", "error", "alone.py"],
            cwd=tmp_path,
            env=kept,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[-1] == "all of it works"
        assert len([line for line in lines if line.startswith("epoch ")]) == 3 + 1 + 2
        assert any(line.startswith("4C3 ") for line in lines)  # of the summary
        files = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
        ours = {"handwritten_classifier.py", "alone.py", "model.npz", "checkpoint.npz"}
        assert files == ours

    def test_its_code_names_no_package_that_draws_or_photographs(self):
        code = code_of(ROOT / "handwritten_classifier.py")
        assert "numpy" in code
        names = r"cv2|opencv|\bPIL\b|pillow|matplotlib|keras|tensorflow"
        assert not re.search(names, code, re.IGNORECASE)


def test_no_certificate_goes_unchecked():
    weakened = "CERT_NONE|_create_unverified_context|check_hostname|verify *= *False"
    for path in FILES:
        assert not re.search(weakened, path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("room", ROOMS)
def test_public_signatures_are_annotated(room):
    module = ast.parse(ROOMS[room].read_text(encoding="utf-8"))
    classes = [part for part in module.body if isinstance(part, ast.ClassDef)]
    for node in [*module.body, *(part for kind in classes for part in kind.body)]:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = {argument.arg for argument in given if argument.annotation is None}
            assert bare <= {"self", "cls"}, f"{room}.{node.name}"
