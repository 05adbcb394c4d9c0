"""A copy of the package in which every kind of growth of the price list is performed.

`add_family` adds a family: its file, and its line in the registry. `declare` adds what somebody would add
first of the rest: an operation, and a class in each closed union. `complete` adds what the type checker then
asks for. `USE` is a program that uses all of it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import clarion

SOURCE = Path(clarion.__file__).parent

OPERATION = '''\
@operation(
    inputs=[Input("x", "n", "T")],
    outputs=[Output("y", "n", "T")],
    state=Writes(Running, (("width", "n"),)),
)
def running_sum(xp: Any, x: Array, *, batch: Batch, state: int) -> Array:
    """The sum of x over the token and those before it."""
    y: Array = batch.states[state].add(xp, x)
    return y


'''
STATE = '''\
@dataclass(frozen=True, slots=True)
class Running:
    """The sum of all rows so far."""

    width: int


'''
SOURCE_OF_WEIGHTS = '''\
@dataclass(frozen=True, slots=True)
class Stacked:
    """Tensors, the rows of one behind those of the other."""

    tensors: tuple[str, ...]


'''
PLACE = '''\
@dataclass(frozen=True, slots=True)
class Accelerator:
    """A device beside the processor."""

    number: int


'''
OUTPUT = '''\
@dataclass(frozen=True, slots=True)
class Scores:
    """A number for each of n classes, for each wanted output: [O, n]."""

    n: int
    value: str = "scores"


'''
RUNNING_ARRAYS = '''\
class _RunningArrays:
    """The sum so far of one text."""

    def __init__(self) -> None:
        self._sum: Any = 0

    def add(self, xp: Any, x: Any) -> Any:
        sums = xp.cumsum(x, 0) + self._sum
        self._sum = sums[-1]
        return sums


'''

# (file, function) → the lines that handle the new member of a union, for each kind.
ARMS = {
    "state": {
        ("plan/state.py", "describe"): ["case Running(width):", '    return f"a sum of {width}"'],
        ("plan/state.py", "groups"): [
            "case Running():",
            "    continue  # the native machine has no running sums",
        ],
        ("plan/interpret.py", "arrays"): ["case Running():", "    return _RunningArrays()"],
    },
    "weight source": {
        ("plan/sources.py", "__getitem__"): [
            "case Stacked(tensors):",
            '    return Piece(b"".join(bytes(self._tensor(name).view) for name in tensors))',
        ],
    },
    "place": {
        ("plan/target.py", "describe"): ["case Accelerator(number):", '    return f"accelerator {number}"'],
    },
    "output": {
        ("plan/output.py", "check"): ["case Scores(n):", '    rows, width = ("outputs",), n'],
        ("plan/output.py", "describe"): ["case Scores(n):", '    return f"scores of {n} classes"'],
        ("models/heads.py", "finish"): [
            "case Scores():",
            '    raise UnsupportedError("no model has scores of classes")',
        ],
    },
}
CLASSES = {"state": "Running", "weight source": "Stacked", "place": "Accelerator", "output": "Scores"}

USE = """\
import runpy
import sys

import numpy as np

from clarion.convert.families import recognise
from clarion.models import FAMILIES
from clarion.plan import Hyperparameters, Plan, Target, compile
from clarion.plan.interpret import Text, interpret
from clarion.plan.ir import Node, Value
from clarion.plan.operations import OPERATIONS
from clarion.plan.output import Scores
from clarion.plan.sources import Piece, Sources
from clarion.plan.state import Running
from clarion.plan.target import Accelerator
from clarion.plan.verify import verify, verify_plan
from clarion.plan.weight import Stacked, Weight, Whole

rng = np.random.default_rng(1)
table, head = (rng.standard_normal((n, 8)).astype(np.float32) for n in (11, 3))
bytes_of = lambda x: Piece(x.reshape(-1).view(np.uint8))
first = {"upper": bytes_of(table[:4]), "head": bytes_of(head)}
rest = {"lower": bytes_of(table[4:])}
x, sums, wanted, scores = (
    Value("x", 8), Value("sums", 8), Value("wanted", 8, "outputs"), Value("scores", 3, "outputs")
)
weights = (
    Weight("table", Stacked(("upper", "lower")), "F32", 0, 11, 8, 1, 352),
    Weight("head", Whole("head"), "F32", 0, 3, 8, 1, 96),
)
nodes = [
    Node("embed", (), (x,), weights[:1], {}, {"scale": 1.0}),
    Node("running_sum", (x,), (sums,), (), {"state": 0}),
    Node("select", (sums,), (wanted,)),
    Node("linear", (wanted,), (scores,), (weights[1], None)),
]
hyperparameters = Hyperparameters("toy", 64, 1, 8, 11, 1, 1, 8, 8, 8, 1e-5, 1.0)
plan = Plan.of(hyperparameters, nodes, [Running(8)], [Scores(3)])
verify_plan(plan)
assert Plan.from_json(plan.to_json()) == plan
assert "1 × a sum of 8" in str(plan)
assert "scores of 3 classes" in str(plan)

sources = Sources(plan.weights, first, rest)
stored = lambda weight, n_axes: np.frombuffer(sources[weight.name].view, np.float32).reshape(weight.rows, -1)
ids = np.array([3, 10, 0, 5])
found = interpret(np, plan.nodes(), plan.kept(), stored, Text(np, ids, 2, plan.states))
expected = (table[ids].astype(np.float64).cumsum(0) @ head.T.astype(np.float64))[2:]
np.testing.assert_allclose(found["scores"], expected, rtol=1e-5)

target = Target(row_bytes=lambda kind, width: 64 * width, place=Accelerator(1))
program = compile(plan, target, max_tokens=4, max_outputs=4, context=8)
verify(program)
assert type(program).from_json(program.to_json()) == program
assert "on accelerator 1" in str(program)

page = runpy.run_path(sys.argv[1])["page"]()
(row,) = [line for line in page.splitlines() if line.startswith("| `running_sum`")]
assert "The sum of x over the token and those before it. Writes its state, `Running`." in row
family, kind = recognise({"model_type": "example"})
assert family is FAMILIES["example"]
assert kind.keys
print("used", len(OPERATIONS))
"""


class Copy:
    """The package's sources in a folder, to be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        left_out = shutil.ignore_patterns("*.so", "*.gguf", "*.bin", "__pycache__")
        shutil.copytree(SOURCE, folder / "clarion", ignore=left_out)
        for module in (SOURCE / "_native").glob("*.so"):
            (folder / "clarion" / "_native" / module.name).symlink_to(module)

    def add_family(self, source: str) -> None:
        """The family `example`, of which this is the file."""
        (self.folder / "clarion" / "models" / "example.py").write_text(source, encoding="utf-8")
        self.put("models/__init__.py", "    bitnet,\n", "    example,\n")
        self.put("models/__init__.py", "        bitnet.FAMILY,\n", "        example.FAMILY,\n")

    def declare(self) -> None:
        """An operation, and one more member of each union."""
        self.put("plan/operations/recurrent.py", "def _shares_groups(", OPERATION)
        union = "State = Paged | Latent | Recurrent"
        self.put("plan/state.py", union, STATE, f"{union} | Running")
        union = "WeightSource = Whole | Slice"
        self.put("plan/weight.py", union, SOURCE_OF_WEIGHTS, f"{union} | Stacked")
        self.put("plan/target.py", "Place = Host\n", PLACE, "Place = Host | Accelerator\n")
        union = "Output = Logits | HiddenRows | Pooled | Ranks"
        self.put("plan/output.py", union, OUTPUT, f"{union} | Scores")
        self.put("plan/operations/recurrent.py", "import Recurrent\n", "", "import Recurrent, Running\n")

    def complete(self) -> None:
        """What the type checker asks for."""
        for arms in ARMS.values():
            for (file, function), lines in arms.items():
                self.arm(file, function, lines)
        self.put("plan/interpret.py", "Recurrent, State\n", "", "Recurrent, Running, State\n")
        self.put("plan/interpret.py", "def interpret(", RUNNING_ARRAYS)
        self.put("plan/sources.py", "import Slice, Weight", "", "import Slice, Stacked, Weight")
        self.put("models/heads.py", "Pooling, Ranks\n", "", "Pooling, Ranks, Scores\n")

    def put(self, file: str, before: str, text: str, instead: str | None = None) -> None:
        """Puts a text before another, which is there once, and something else in the place of that."""
        path = self.folder / "clarion" / file
        found = path.read_text(encoding="utf-8")
        assert found.count(before) == 1, (file, before)
        path.write_text(
            found.replace(before, text + (before if instead is None else instead)), encoding="utf-8"
        )

    def arm(self, file: str, function: str, lines: list[str]) -> None:
        """Puts a case before the last one of a function's match."""
        path = self.folder / "clarion" / file
        found = path.read_text(encoding="utf-8")
        at = re.search(rf"def {function}\b.*?\n( +)case _:\n", found, re.DOTALL)
        assert at, (file, function)
        indent, start = at[1], at.end() - len(at[1]) - len("case _:\n")
        text = "".join(f"{indent}{line}\n" for line in lines)
        path.write_text(found[:start] + text + found[start:], encoding="utf-8")

    def missing(self) -> dict[str, set[tuple[str, str]]]:
        """What the type checker says: for each class that a match misses, the files and functions; anything
        else under ""."""
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(self.folder / "cache"), "clarion"],
            cwd=self.folder, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        found: dict[str, set[tuple[str, str]]] = {}
        for line in done.stdout.splitlines():
            if ": error: " not in line:
                continue
            path, number, message = line.split(":", 2)
            match = re.search(r'"assert_never" has incompatible type "(\w+)"', message)
            lines = (self.folder / path).read_text(encoding="utf-8").splitlines()[: int(number)]
            functions = [m[1] for m in map(re.compile(r" *def (\w+)").match, lines) if m]
            file = Path(path).relative_to("clarion").as_posix()
            place = (file, functions[-1]) if match else (file, message)
            found.setdefault(match[1] if match else "", set()).add(place)
        assert done.returncode == bool(found), done.stdout + done.stderr
        return found

    def use(self, page_script: Path) -> str:
        """Runs `USE`; what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", USE, str(page_script)],
            cwd=self.folder, env={"PYTHONPATH": str(self.folder)}, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout
