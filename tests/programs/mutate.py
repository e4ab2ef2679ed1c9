"""Change the mathematics in one place after the other, and see whether a test fails.

python tests/programs/mutate.py                 all functions, some minutes
python tests/programs/mutate.py unpool relu     these alone

A mutant is the class with one small mistake in it: a sign, a bound, an axis, a missing
line. A mutant that no test notices survives: it shows a claim that no test makes, or
code that nobody needs. Prints each survivor, then a table. Mutants that change no
result are listed in EQUIVALENT with the reason. Exits with 1 if others survive.

The tests are collected once. For each mutant, a forked process replaces the code of one
function and runs the tests until the first fails, which takes a fifth of a second for
most. mutmut 3.8, tried on the same functions and tests, took twice the processor time
and made 329 mistakes in the mathematics that a run without assertions does not notice,
where this makes 579: it neither exchanges axes, operands and functions nor drops
statements. Runs on Linux.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import multiprocessing
import os
import re
import resource
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from types import FunctionType
from typing import NamedTuple

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # Each worker has one processor.
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import pytest  # noqa: E402

import handwritten_classifier  # noqa: E402
from digits.results import print_table  # noqa: E402

SOURCE = Path(handwritten_classifier.__file__)
# What is mutated: all functions below these banners of the source, and those named.
SECTIONS = [
    *("Convolution", "ReLU and pooling", "The dense layer", "The whole network"),
    *("Distortions", "Windows on maps"),
]
OTHERS = [
    *("_order_steps", "_find_read_size", "_draw_parameters", "_batch", "evaluate"),
    *("_train_batch", "_learn", "_count", "_plan_step", "_update_parameters"),
]
TESTS = [
    *("test_steps.py", "test_gradients.py", "test_distortions.py", "test_network.py"),
    *("test_construction.py::TestArchitecture", "test_learning.py", "test_summary.py"),
    "test_prediction.py",
    "test_same_answer.py::TestCores::test_distortions_belong_to_the_place_in_the_epoch",
    "test_same_answer.py::TestCores::test_shards_have_the_gradients_of_the_whole_batch",
]
# These take long, and notice nothing that the others do not.
SLOW = "the_bar or drawing or digits_are_learned or sizes_agree or differences[0-"
MOST_SECONDS, MOST_BYTES = 12, 8 << 30  # of a mutant; more is as good as a failure


def read_reasons(text: str) -> dict[tuple[str, str, str], str]:
    """Return the reason for each mutant of a text such as the one below."""
    reasons, lines = {}, iter(text.strip().splitlines())
    for line in lines:
        if line.startswith("# "):
            reason = line[2:]
        else:
            reasons[line, next(lines).strip(), next(lines).strip()] = reason
    return reasons


# Mutants that change no result: the reason, and then the function, the line before and
# the line after of each.
EQUIVALENT = read_reasons("""
# The frame may be too wide: nobody reads its outer zeros.
generate_patches
    if padding:
    if True:
generate_input_loss
    size = (height + 2 * padding, width + 2 * padding)
    size = (height + 3 * padding, width + 2 * padding)
generate_input_loss
    size = (height + 2 * padding, width + 2 * padding)
    size = (height + 2 * padding, width + 3 * padding)
# Distortions of strength 0 leave images as they are, more slowly.
_learn
    if self.augment: # By those of the epoch's random numbers that are for these.
    if True: # By those of the epoch's random numbers that are for these.
# A whole batch has all of its gradient: once the same.
_learn
    for gradient in gradients.values() if len(labels) < count else ():
    for gradient in gradients.values():
_learn
    for gradient in gradients.values() if len(labels) < count else ():
    for gradient in gradients.values() if (len(labels) <= count) else ():
# Adding up what does not overlap gives the same, more slowly.
unpool
    if stride < window[0] and max(rows, columns) > 1:
    if stride < window[0] and (max(rows, columns) >= 1):
unpool
    if stride < window[0] and max(rows, columns) > 1:
    if stride < window[0] and max(rows, columns) > 0:
# The windows of pooling are square.
unpool
    if stride < window[0] and max(rows, columns) > 1:
    if stride < window[1] and max(rows, columns) > 1:
unpool
    if stride < window[0] and max(rows, columns) > 1:
    if stride < window[-1] and max(rows, columns) > 1:
unpool
    if (rows * stride, columns * stride) != size or stride != window[0]:
    if (rows * stride, columns * stride) != size or stride != window[1]:
unpool
    if (rows * stride, columns * stride) != size or stride != window[0]:
    if (rows * stride, columns * stride) != size or stride != window[-1]:
_forward
    size, masks, pool = x.shape[1:3], [], (window[0], layer.stride)
    size, masks, pool = x.shape[1:3], [], (window[1], layer.stride)
_forward
    size, masks, pool = x.shape[1:3], [], (window[0], layer.stride)
    size, masks, pool = x.shape[1:3], [], (window[-1], layer.stride)
# A title that names no layer is the same for all.
_forward
    trace.append(("flatten", self.layers[-1], None, kept))
    trace.append(("flatten", self.layers[-0], None, kept))
_forward
    watch("scores", self.layers[-1], scores, kept)
    watch("scores", self.layers[-0], scores, kept)
# A sum has no order.
_backward
    gradients[f"biases.{index}"] = d.sum(axis=(0, 1, 2))
    gradients[f"biases.{index}"] = d.sum(axis=(1, 0, 2))
_backward
    gradients[f"biases.{index}"] = d.sum(axis=(0, 1, 2))
    gradients[f"biases.{index}"] = d.sum(axis=(0, 2, 1))
# Zeros where every place is written afterwards only cost time.
unpool
    if (rows * stride, columns * stride) != size or stride != window[0]:
    if True:
unpool
    if (rows * stride, columns * stride) != size or stride != window[0]:
    if (columns * stride, rows * stride) != size or stride != window[0]:
unpool
    if (rows * stride, columns * stride) != size or stride != window[0]:
    if ((rows / stride), columns * stride) != size or stride != window[0]:
unpool
    if (rows * stride, columns * stride) != size or stride != window[0]:
    if (rows * stride, (columns / stride)) != size or stride != window[0]:
# So does a mask that is not kept, and one more array.
generate_max_pool
    if with_mask:
    if True:
_forward
    x = self.relu(x, out=x)
    x = self.relu(x)
_backward
    d = self.relu_gradient(d, *kept, out=d)
    d = self.relu_gradient(d, *kept)
_update_parameters
    parameter += np.multiply(velocity, momentum, out=gradient)
    parameter += np.multiply(velocity, momentum)
# So does momentum of 0.
_update_parameters
    if momentum:
    if True:
# So does another order in memory.
distort
    drawn = drawn.T.astype(self.dtype, order="C")
    drawn = drawn.T.astype(self.dtype)
# Double precision in between only costs time, too; the result has its own precision.
distort
    drawn = drawn.T.astype(self.dtype, order="C")
    drawn = drawn.T.astype(None, order="C")
generate_input_loss
    d_patches = self._matrix(kernel.shape[1], d_map.shape[1], dtype)
    d_patches = self._matrix(kernel.shape[1], d_map.shape[1], None)
generate_max_pool
    rivals = self._array(largest.shape, largest.dtype)
    rivals = self._array(largest.shape, None)
distort
    y = (np.arange(height, dtype=self.dtype) - middle[0])[:, np.newaxis, np.newaxis]
    y = (np.arange(height) - middle[0])[:, np.newaxis, np.newaxis]
distort
    y = (np.arange(height, dtype=self.dtype) - middle[0])[:, np.newaxis, np.newaxis]
    y = (np.arange(height, dtype=None) - middle[0])[:, np.newaxis, np.newaxis]
distort
    x = (np.arange(width, dtype=self.dtype) - middle[1])[:, np.newaxis]
    x = (np.arange(width) - middle[1])[:, np.newaxis]
distort
    x = (np.arange(width, dtype=self.dtype) - middle[1])[:, np.newaxis]
    x = (np.arange(width, dtype=None) - middle[1])[:, np.newaxis]
_smoothing
    return weights.astype(self.dtype)
    return weights.astype(None)
# NumPy takes any negative size for the one that is left over.
_sample
    framed = framed.reshape(-1, channels)
    framed = framed.reshape(-2, channels)
# The larger of two numbers is the larger in either order.
_sample
    down = np.clip(down + 1, 0, height + 1)
    down = np.clip(0, down + 1, height + 1)
_sample
    across = np.clip(across + 1, 0, width + 1)
    across = np.clip(0, across + 1, width + 1)
# Indices count from the end: before the frame's first zeros come its last ones.
_sample
    down = np.clip(down + 1, 0, height + 1)
    down = np.clip(down + 1, -1, height + 1)
_sample
    across = np.clip(across + 1, 0, width + 1)
    across = np.clip(across + 1, -1, width + 1)
# Distances are squared.
_smoothing
    distance = np.arange(side)[:, np.newaxis] - np.arange(side)
    distance = (np.arange(side) - np.arange(side)[:, np.newaxis])
# The first step that is averaged begins the mean anew, whatever came before.
_plan_step
    return rate, 1 / (step - not_averaged) if step > not_averaged else 0.0
    return rate, 1 / (step - not_averaged) if step > not_averaged else 1.0
_plan_step
    return rate, 1 / (step - not_averaged) if step > not_averaged else 0.0
    return rate, 1 / (step - not_averaged) if step > not_averaged else -1.0
# What was checked at the doors passes a second check.
_recall_pooling
    if self._work.arrays is not None:
    if False:
# All images have as many classes: the mean of their means is the mean of all.
compute_loss
    return -float((of_labels + float(smoothing) * logs.mean(axis=1)).mean())
    return -float((of_labels + float(smoothing) * logs.mean()).mean())
# Of these rows, the first two alone are used.
distort
    stretch, shift = np.exp(self._SCALING * drawn[2:4]), self._SHIFT * drawn[4:6]
    stretch, shift = np.exp(self._SCALING * drawn[2:]), self._SHIFT * drawn[4:6]
distort
    stretch, shift = np.exp(self._SCALING * drawn[2:4]), self._SHIFT * drawn[4:6]
    stretch, shift = np.exp(self._SCALING * drawn[2:5]), self._SHIFT * drawn[4:6]
distort
    stretch, shift = np.exp(self._SCALING * drawn[2:4]), self._SHIFT * drawn[4:6]
    stretch, shift = np.exp(self._SCALING * drawn[2:4]), self._SHIFT * drawn[4:]
distort
    stretch, shift = np.exp(self._SCALING * drawn[2:4]), self._SHIFT * drawn[4:6]
    stretch, shift = np.exp(self._SCALING * drawn[2:4]), self._SHIFT * drawn[4:7]
""")

OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
FUNCTIONS = {
    **{"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum"},
    **{"sum": "mean", "mean": "sum", "prod": "sum", "any": "all", "all": "any"},
    **{"floor": "ceil", "ceil": "floor", "sin": "cos", "cos": "sin", "exp": "expm1"},
    **{"greater": "greater_equal", "argmax": "argmin", "log": "log1p"},
}
# What an error says is no mathematics.
LEFT_ALONE = (ast.Raise, ast.JoinedStr, ast.arg)
SYMMETRIC = ("min", "max", "minimum", "maximum", "multiply", "result_type")


class Mutant(NamedTuple):
    """A function with one change: its whole text, and the line before and after."""

    name: str
    line: int
    before: str
    after: str
    text: str

    @property
    def reason(self) -> str | None:
        """Why it changes no result, if it is known to change none."""
        return EQUIVALENT.get((self.name, self.before, self.after))

    @property
    def told(self) -> str:
        where = f"{SOURCE.name}:{self.line} in {self.name}"
        return f"{where}:\n    {self.before}\n    {self.after}"


def find_mutants(name: str) -> list[Mutant]:
    """Return all mutants of a function or method of the module."""
    function = find_function(name)
    source = textwrap.dedent(inspect.getsource(function))
    lines = source.splitlines(keepends=True)
    starts = [0, *itertools.accumulate(map(len, lines))]
    mutants = {}
    for first, last, new in changes_within(ast.parse(source).body[0]):
        top, bottom = first.lineno - 1, last.end_lineno - 1
        start = starts[top] + first.col_offset
        end = starts[bottom] + last.end_col_offset
        left, right = source[starts[top] : start], source[end : starts[bottom + 1]]
        before = " ".join((left + source[start:end] + right).split())
        after = " ".join((left + new + right).split())
        text = source[:start] + new + source[end:]
        line = function.__code__.co_firstlineno + top
        mutants[text] = Mutant(name, line, before, after, text)
    return list(mutants.values())


def find_methods() -> list[str]:
    """Return the names of the functions to mutate, in the order of the source.

    Raises
    ------
    LookupError
        If the source has no such section, or no function of a name.
    """
    text = SOURCE.read_text(encoding="utf-8")
    banners = [
        (text.count("\n", 0, found.start()) + 1, found[1])
        for found in re.finditer(r"^ *# -{10,} (.+)$", text, re.MULTILINE)
    ]
    missing, methods = {*SECTIONS, *OTHERS}, []
    module = ast.parse(text)
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    for node in itertools.chain(classes[0].body, module.body):
        if isinstance(node, ast.FunctionDef):
            above = [title for line, title in banners if line < node.lineno]
            names = {node.name, *above[-1:]}
            if names & {*SECTIONS, *OTHERS}:
                methods.append(node.name)
                missing -= names
    if missing:
        raise LookupError(f"{SOURCE.name} must have {sorted(missing)}; got none such")
    return methods


def find_function(name: str) -> FunctionType:
    """Return the module's function or the class's method of this name."""
    names = vars(handwritten_classifier)
    return (names | vars(names["HandwrittenNumberClassification"]))[name]


def changes_within(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST, str]]:
    """Yield changes anywhere in a node: first and last node replaced, and the text."""
    checking = isinstance(node, ast.keyword) and node.arg == "strict"
    if checking or isinstance(node, LEFT_ALONE):
        return
    for new in itertools.chain(replacements(node), removals(node)):
        text = ast.unparse(new)
        inner = isinstance(new, (ast.BinOp, ast.BoolOp, ast.Compare, ast.UnaryOp))
        yield node, node, f"({text})" if inner else text
    if isinstance(node, ast.If):
        yield node.test, node.test, "True"
        yield node.test, node.test, "False"
    for one, other in swaps(node):
        if ast.unparse(one) != ast.unparse(other):
            yield one, other, f"{ast.unparse(other)}, {ast.unparse(one)}"
    if isinstance(node, ast.FunctionDef):
        children = [*node.args.defaults, *node.body]  # and no annotations
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from changes_within(child)


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what could stand in an expression's place by mistake."""
    match node:
        case ast.BinOp(left, op, right):
            if type(op) in OPERATORS:
                yield ast.BinOp(left, OPERATORS[type(op)](), right)
            if isinstance(op, (ast.Sub, ast.Div, ast.MatMult)):
                yield ast.BinOp(right, op, left)
        case ast.Compare(left, ops, comparators):
            for n, op in enumerate(ops):
                for other in COMPARISONS.get(type(op), ()):
                    changed = [*ops[:n], other(), *ops[n + 1 :]]
                    yield ast.Compare(left, changed, comparators)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(_, operand):
            yield operand
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield from map(ast.Constant, {value + 1, value - 1, 0} - {value})
        case ast.Name(id) if id in FUNCTIONS:
            yield ast.Name(FUNCTIONS[id])
        case ast.Name("dtype") | ast.Attribute(attr="dtype"):
            yield ast.Constant(None)  # which is double precision to NumPy
        case ast.Attribute(value, attr) if attr in FUNCTIONS:
            yield ast.Attribute(value, FUNCTIONS[attr])
        case ast.Slice(lower, upper, step):
            if lower:
                yield ast.Slice(None, upper, step)
            if upper:
                yield ast.Slice(lower, None, step)
        case ast.Call(func, args, keywords):
            for n, keyword in enumerate(keywords):
                if keyword.arg != "strict":
                    yield ast.Call(func, args, keywords[:n] + keywords[n + 1 :])
        case ast.IfExp(_, body, orelse):
            yield from (body, orelse)


def removals(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is left of a statement that was forgotten, or taken for another."""
    match node:
        case ast.AugAssign(target, op, value):
            yield ast.AugAssign(target, OPERATORS[type(op)](), value)
            yield ast.Pass()
        case ast.Expr(ast.Constant()):
            return  # a docstring
        case ast.Assign() | ast.Expr() | ast.Break():
            yield ast.Pass()


def swaps(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield neighbours in a tuple or call that could be taken for each other."""
    match node:
        case ast.Call(ast.Name(id) | ast.Attribute(attr=id)) if id in SYMMETRIC:
            return
        case ast.Tuple(values, ast.Load()) | ast.Call(args=values):
            yield from itertools.pairwise(values)


class Trial:
    """A plugin of pytest that runs the tests it has collected once for each mutant."""

    def __init__(self, mutants: list[Mutant], workers: int) -> None:
        self.mutants, self.workers = mutants, workers
        self.survivors: list[Mutant] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try all mutants, where pytest would run the tests once and be done."""
        # Without a mutant; by the way, this imports all that is imported once.
        if session.testsfailed or self.first_to_fall(session) is not None:
            return True
        running = {}
        for mutant in self.mutants:
            running |= self.start(session, mutant)
            if len(running) == self.workers:
                self.take_results(session, running)
        while running:
            self.take_results(session, running)
        return True

    def start(self, session: pytest.Session, mutant: Mutant) -> dict:
        """Start a process; return where its result will come, and whose it is."""
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=self.try_one, args=(session, mutant, sender))
        process.start()
        sender.close()
        return {receiver: (mutant, process)}

    def try_one(self, session: pytest.Session, mutant: Mutant, sender) -> None:
        """Send the number of the test that falls, or None; the life of a process."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where C tells of its crashes
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        put_in_place(mutant)
        sender.send(self.first_to_fall(session))

    def take_results(self, session: pytest.Session, running: dict) -> None:
        """Wait for a mutant or more; what kills one is tried first on the next."""
        for receiver in wait(list(running)):
            mutant, process = running.pop(receiver)
            try:
                killer = receiver.recv()
            except EOFError:  # The process is dead: out of time, or out of an array.
                killer = 0
            process.join()
            if killer is None:
                self.survivors.append(mutant)
                if not mutant.reason:  # Pytest holds what others print.
                    print(mutant.told, file=sys.__stdout__, flush=True)
            else:
                session.items.insert(0, session.items.pop(killer))

    def first_to_fall(self, session: pytest.Session) -> int | None:
        """Run the tests until one fails; return its number, None if all have passed."""
        for number, item in enumerate(session.items):
            # What is made once a session is there for all tests, in whatever order.
            item.ihook.pytest_runtest_protocol(item=item, nextitem=session)
            if session.testsfailed:
                return number
        return None


def put_in_place(mutant: Mutant) -> None:
    """Give a function, wherever it has been imported to, the mutant's code."""
    namespace = {}  # What is compiled postpones annotations, as this file does.
    code = compile(mutant.text, SOURCE, "exec")
    exec(code, vars(handwritten_classifier), namespace)
    function, changed = find_function(mutant.name), namespace[mutant.name]
    function.__code__, function.__defaults__ = changed.__code__, changed.__defaults__


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="functions")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--tests", nargs="+", default=TESTS, help="to run on each")
    args = parser.parse_args()
    known = find_methods()
    for name in set(args.methods) - set(known):
        parser.error(f"METHOD must be among {', '.join(known)}; got {name}")
    methods = args.methods or known
    mutants = [mutant for name in methods for mutant in find_mutants(name)]
    trial = Trial(mutants, args.workers)
    options = "-o addopts= -p no:terminal -p no:faulthandler -p no:cacheprovider"
    tests = [str(ROOT / "tests" / test) for test in args.tests]
    tests += ["-k", f"not ({SLOW})"]
    where = ["--rootdir", str(ROOT), "-c", str(ROOT / ".pytest.ini")]
    if pytest.main([*options.split(), "--capture=sys", *where, *tests], [trial]):
        sys.exit("tests must pass as they are, or none can fall for a mutant")
    return report(methods, mutants, trial.survivors)


def report(methods: list[str], mutants: list[Mutant], survivors: list[Mutant]) -> int:
    """Print the table; return 1 if mutants survive without a listed reason."""
    rows = [("function", "mutants", "killed", "equivalent", "survived")]
    tried = Counter(mutant.name for mutant in mutants)
    known = Counter(mutant.name for mutant in survivors if mutant.reason)
    unknown = Counter(mutant.name for mutant in survivors if not mutant.reason)
    for name in methods:
        killed = tried[name] - known[name] - unknown[name]
        rows.append((name, tried[name], killed, known[name], unknown[name]))
    sums = [sum(column) for column in zip(*(row[1:] for row in rows[1:]), strict=True)]
    print_table([tuple(map(str, row)) for row in (*rows, ("all", *sums))])
    listed = {key for key in EQUIVALENT if key[0] in methods}
    stale = listed - {(m.name, m.before, m.after) for m in survivors}
    for key in stale:
        print(f"EQUIVALENT must be what survives; got {key}")
    return 1 if unknown or stale else 0


if __name__ == "__main__":
    sys.exit(main())
